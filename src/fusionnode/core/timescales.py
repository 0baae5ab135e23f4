"""TAI nanoseconds inside, UTC text at the edges.

Inside the node a time is int64 nanoseconds since 1970-01-01T00:00:00 TAI. A UTC time is a pair: day number
since 1970-01-01, and nanoseconds of that day, which reach 86_401e9 on a day that ends in a leap second.
Leap seconds are those of ERFA's table. Before 1972 UTC is taken as TAI - 10 s.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import date, timedelta
from typing import Any, Final

import erfa
import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
AnyI64 = Any
"""An int, or an int64 array of any shape; the result has the same shape."""

SECOND_NS: Final = 1_000_000_000
DAY_NS: Final = 86_400 * SECOND_NS
MJD_1970: Final = 40_587
JD_1970: Final = 2_440_587.5
TT_MINUS_TAI_NS: Final = 32_184_000_000
TAI_MINUS_GPS_NS: Final = 19 * SECOND_NS

_EPOCH = date(1970, 1, 1)


def _leap_table() -> tuple[I64, I64]:
    """Day numbers from which TAI - UTC is as given (whole seconds), 1972 and later."""
    table = erfa.leap_seconds.get()
    table = table[table["year"] >= 1972]
    days = [
        (date(int(y), int(m), 1) - _EPOCH).days for y, m in zip(table["year"], table["month"], strict=True)
    ]
    return np.array(days, np.int64), table["tai_utc"].astype(np.int64)


_LEAP_DAY, _LEAP_S = _leap_table()
_LEAP_TAI_NS: I64 = (_LEAP_DAY * 86_400 + _LEAP_S) * SECOND_NS
# The same as lists: for one time, bisect on a list is ten times faster than numpy.
_LEAP_DAY_LIST: list[int] = _LEAP_DAY.tolist()
_LEAP_S_LIST: list[int] = _LEAP_S.tolist()
_LEAP_TAI_LIST: list[int] = _LEAP_TAI_NS.tolist()


def tai_minus_utc_s(t_ns: AnyI64) -> AnyI64:
    """TAI - UTC in seconds at TAI times ``t_ns``; in a leap second still the old value."""
    if isinstance(t_ns, int):
        return _LEAP_S_LIST[max(bisect_right(_LEAP_TAI_LIST, t_ns) - 1, 0)]
    return _LEAP_S[np.maximum(np.searchsorted(_LEAP_TAI_NS, t_ns, side="right") - 1, 0)]


def tai_ns_from_utc(day: AnyI64, ns_of_day: AnyI64) -> AnyI64:
    """TAI ns of a UTC day number (since 1970-01-01) and ns of that day. Ints or int64 arrays."""
    if isinstance(day, int):
        leap: Any = _LEAP_S_LIST[max(bisect_right(_LEAP_DAY_LIST, day) - 1, 0)]
    else:
        leap = _LEAP_S[np.maximum(np.searchsorted(_LEAP_DAY, day, side="right") - 1, 0)]
    return day * DAY_NS + ns_of_day + leap * SECOND_NS


def utc_from_tai_ns(t_ns: AnyI64) -> tuple[AnyI64, AnyI64]:
    """UTC day number and ns of day (86_400e9 and more in a leap second) of TAI ns: int or int64 array."""
    if isinstance(t_ns, int):
        i = max(bisect_right(_LEAP_TAI_LIST, t_ns) - 1, 0)
        day, ns = divmod(t_ns - _LEAP_S_LIST[i] * SECOND_NS, DAY_NS)
        if i + 1 < len(_LEAP_DAY_LIST) and day == _LEAP_DAY_LIST[i + 1]:
            return day - 1, ns + DAY_NS
        return day, ns
    t = np.asarray(t_ns, np.int64)
    j = np.maximum(np.searchsorted(_LEAP_TAI_NS, t, side="right") - 1, 0)
    days, rest = np.divmod(t - _LEAP_S[j] * SECOND_NS, DAY_NS)
    following = np.append(_LEAP_DAY, np.iinfo(np.int64).max)[j + 1]
    leaping = days == following
    return days - leaping, rest + leaping * DAY_NS


def tai_ns_from_unix_ns(unix_ns: int) -> int:
    """TAI ns of a POSIX time, which repeats a second where UTC has a leap second."""
    day, ns = divmod(unix_ns, DAY_NS)
    return int(tai_ns_from_utc(day, ns))


def day_length_ns(day: AnyI64) -> AnyI64:
    """Length of UTC days by day number: 86_400e9, or 86_401e9 where the day ends in a leap second."""
    return tai_ns_from_utc(day + 1, 0) - tai_ns_from_utc(day, 0)


def day_from_year_doy(year: AnyI64, doy: AnyI64) -> AnyI64:
    """Day number of the ``doy``-th day (from 1) of ``year`` (Gregorian). Ints or int64 arrays; unchecked."""
    y = year - 1
    return y * 365 + y // 4 - y // 100 + y // 400 - 719_162 + doy - 1


def days_in_year(year: AnyI64) -> AnyI64:
    """365 or 366."""
    return day_from_year_doy(year + 1, 1) - day_from_year_doy(year, 1)


_TEXT = re.compile(
    r"(\d{4})-(?:(\d\d)-(\d\d)|(\d{3}))(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,18}))?)?)?(?:Z|\+00:00)?",
    re.ASCII,
)


def utc_from_text(text: str) -> tuple[int, int]:
    """Day number and ns of day of ``YYYY-MM-DDThh:mm:ss.f`` or ``YYYY-DDDThh:mm:ss.f``, optional ``Z``.

    Digits beyond the nanosecond are cut. Second 60 outside of a leap second is the
    first of the next minute.

    Raises:
        ValueError: one line saying what was expected.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time: expected YYYY-MM-DDThh:mm:ss[.ffffff][Z]")
    year, month, dom, doy, hour, minute, second, fraction = match.groups()
    try:
        if doy is None:
            day = (date(int(year), int(month), int(dom)) - _EPOCH).days
        else:
            first = date(int(year), 1, 1)
            day = (first - _EPOCH).days + int(doy) - 1
            if not 1 <= int(doy) <= days_in_year(first.year):
                raise ValueError
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a time: no such day") from None
    h, m, s = int(hour or 0), int(minute or 0), int(second or 0)
    if h > 23 or m > 59 or s > 60:
        raise ValueError(f"{text[:40]!r} is not a time: no such time of day")
    return day, (h * 3600 + m * 60 + s) * SECOND_NS + int((fraction or "0")[:9].ljust(9, "0"))


def tai_ns_from_utc_text(text: str) -> int:
    """TAI ns of a UTC text as `utc_from_text` reads it.

    Raises:
        ValueError: one line saying what was expected.
    """
    return int(tai_ns_from_utc(*utc_from_text(text)))


def utc_text(t_ns: int) -> str:
    """``2025-09-01T00:00:00.000000Z``, rounded to the nearest microsecond; second 60 in a leap second."""
    day, ns = utc_from_tai_ns((int(t_ns) + 500) // 1000 * 1000)
    us = ns // 1000
    s = min(us // 1_000_000, 86_399)
    us -= s * 1_000_000  # 1_000_000 and more in a leap second
    leap, us = divmod(us, 1_000_000)
    d = _EPOCH + timedelta(days=day)
    return f"{d.isoformat()}T{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60 + leap:02d}.{us:06d}Z"


_TWO_DIGITS = np.frombuffer("".join(f"{i:02d}" for i in range(100)).encode(), np.uint8).reshape(100, 2)
_TEMPLATE = np.frombuffer(b"0000-00-00T00:00:00.000000Z", np.uint8)


def utc_texts(t_ns: I64) -> list[str]:
    """`utc_text` of each of ``t_ns`` [n], for many at once."""
    t = np.asarray(t_ns, np.int64).reshape(-1)
    if len(t) == 0:
        return []
    day, ns = utc_from_tai_ns((t + 500) // 1000 * 1000)
    us = ns // 1000
    s = np.minimum(us // 1_000_000, 86_399)
    us = us - s * 1_000_000
    leap, us = np.divmod(us, 1_000_000)
    # Few different days among many times: their texts are made once each.
    days, which = np.unique(day, return_inverse=True)
    dates = "".join((_EPOCH + timedelta(days=d)).isoformat() for d in days.tolist())
    out = np.empty((len(t), 27), np.uint8)
    out[:] = _TEMPLATE
    out[:, 0:10] = np.frombuffer(dates.encode(), np.uint8).reshape(-1, 10)[which]
    fields = (s // 3600, s // 60 % 60, s % 60 + leap, us // 10_000, us // 100 % 100, us % 100)
    for column, value in zip((11, 14, 17, 20, 22, 24), fields, strict=True):
        out[:, column : column + 2] = _TWO_DIGITS[value]
    text = out.tobytes().decode("ascii")
    return [text[i : i + 27] for i in range(0, len(text), 27)]


def tt_jd(t_ns: AnyI64) -> tuple[Any, Any]:
    """Terrestrial Time as a two-part Julian date for ERFA: (midnight, fraction of the day)."""
    day, ns = divmod(t_ns + TT_MINUS_TAI_NS, DAY_NS)
    return JD_1970 + day, ns / DAY_NS


def utc_jd(t_ns: AnyI64) -> tuple[Any, Any]:
    """UTC as ERFA's quasi Julian date, in two parts: a day with a leap second is spread over 86_401 s."""
    day, ns = utc_from_tai_ns(t_ns)
    return JD_1970 + day, ns / day_length_ns(day)


def uniform_jd(t_ns: AnyI64, offset_s: int) -> tuple[Any, Any]:
    """Two-part Julian date of TAI - ``offset_s``: no leap seconds in it.

    For SGP4, with the TAI - UTC of an element set's epoch: the library subtracts Julian dates, and UTC ones
    would lose a second (7.5 km) where a leap second lies between the epoch and the time asked for.
    """
    day, ns = divmod(t_ns - offset_s * SECOND_NS, DAY_NS)
    return JD_1970 + day, ns / DAY_NS
