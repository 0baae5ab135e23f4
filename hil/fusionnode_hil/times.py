"""Time for the bench: int64 TAI nanoseconds since 1970-01-01T00:00:00 TAI, and UTC text at the edges.

The bench keeps its own conversions on purpose: the node's are then checked against something other than
themselves.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any, Literal

import erfa
import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

NS = 1_000_000_000
DAY_NS = 86_400 * NS
GPS_TO_TAI_NS = 19 * NS
TT_MINUS_TAI_NS = 32_184_000_000
_UNIX_ORDINAL = date(1970, 1, 1).toordinal()
_UNIX_JD = 2_440_587.5

_TEXT = re.compile(r"(\d{4})-(?:(\d{2})-(\d{2})|(\d{3}))[T ](\d{2}):(\d{2})(?::(\d{2})(\.\d*)?)?Z?")

TimeSystem = Literal["UTC", "TAI", "GPS", "TT"]


def _leap_table() -> tuple[IntArray, IntArray]:
    """Start of each TAI-UTC since 1972 as UTC ns since 1970 (days of 86,400 s), and the value in ns."""
    rows: Any = [row for row in erfa.leap_seconds.get() if row["year"] >= 1972]
    starts = [(date(row["year"], row["month"], 1).toordinal() - _UNIX_ORDINAL) * DAY_NS for row in rows]
    return np.array(starts, np.int64), np.array([round(row["tai_utc"]) * NS for row in rows], np.int64)


_LEAP_UTC, _LEAP_TAI_MINUS_UTC = _leap_table()
_LEAP_TAI = _LEAP_UTC + _LEAP_TAI_MINUS_UTC


def utc_day_to_tai_ns(day: date, ns_of_day: int) -> int:
    """TAI ns of a moment of a UTC day; ``ns_of_day`` reaches into a 61st second where there is one.

    Raises:
        ValueError: before 1972, where UTC had no whole leap seconds.
    """
    start = (day.toordinal() - _UNIX_ORDINAL) * DAY_NS
    row = int(np.searchsorted(_LEAP_UTC, start, side="right")) - 1
    if row < 0:
        raise ValueError("expected a UTC date from 1972 on")
    return start + ns_of_day + int(_LEAP_TAI_MINUS_UTC[row])


def tai_minus_utc_ns(t_ns: IntArray | int) -> IntArray:
    """TAI - UTC in ns at TAI times of any shape; 10 s before 1972."""
    rows = np.searchsorted(_LEAP_TAI, np.asarray(t_ns, np.int64), side="right") - 1
    return _LEAP_TAI_MINUS_UTC[np.maximum(rows, 0)]


def parse_time(text: str, system: str = "UTC") -> int:
    """TAI ns of ``YYYY-MM-DDThh:mm[:ss[.f]][Z]`` (or day of year, ``YYYY-DDD``) in the given time system.

    Digits beyond nanoseconds are rounded.

    Raises:
        ValueError: for text or a time system that is not understood.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a time like 2025-09-01T12:00:00, found {text.strip()!r}")
    year, month, day, doy, hour, minute, second, fraction = match.groups()
    if doy is not None:
        when = date.fromordinal(date(int(year), 1, 1).toordinal() + int(doy) - 1)
    else:
        when = date(int(year), int(month), int(day))
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 60:
        raise ValueError(f"expected a time of day, found {text.strip()!r}")
    ns = ((int(hour) * 60 + int(minute)) * 60 + int(second or 0)) * NS
    digits = (fraction or ".")[1:]
    if digits:
        ns += (int(digits) * NS * 2 + 10 ** len(digits)) // (2 * 10 ** len(digits))
    return day_to_tai_ns(when, ns, system)


def day_to_tai_ns(day: date, ns_of_day: int, system: str = "UTC") -> int:
    """TAI ns of a moment of a day counted in ``system`` (`TimeSystem`).

    Raises:
        ValueError: for a time system that is not known.
    """
    if system == "UTC":
        return utc_day_to_tai_ns(day, ns_of_day)
    offset = {"TAI": 0, "GPS": GPS_TO_TAI_NS, "TT": -TT_MINUS_TAI_NS}.get(system)
    if offset is None:
        raise ValueError(f"time system {system!r}: expected UTC, TAI, GPS or TT")
    return (day.toordinal() - _UNIX_ORDINAL) * DAY_NS + ns_of_day + offset


def utc_text(t_ns: int) -> str:
    """UTC as ``YYYY-MM-DDThh:mm:ss.ffffff``, rounded down."""
    row = max(int(np.searchsorted(_LEAP_TAI, t_ns, side="right")) - 1, 0)
    utc = t_ns - int(_LEAP_TAI_MINUS_UTC[row])
    leap = 0
    if row + 1 < len(_LEAP_UTC) and utc >= int(_LEAP_UTC[row + 1]):  # inside 23:59:60
        utc, leap = utc - NS, 1
    days, ns = divmod(utc, DAY_NS)
    seconds, ns = divmod(ns, NS)
    day = date.fromordinal(_UNIX_ORDINAL + days).isoformat()
    hms = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60 + leap:02d}"
    return f"{day}T{hms}.{ns // 1000:06d}"


def julian(t_ns: IntArray, offset_ns: IntArray | int = 0) -> tuple[FloatArray, FloatArray]:
    """Two-part Julian date of ``t_ns + offset_ns``: midnight, and the fraction of the day."""
    days, ns = np.divmod(np.asarray(t_ns, np.int64) + offset_ns, DAY_NS)
    return _UNIX_JD + days.astype(np.float64), ns / DAY_NS
