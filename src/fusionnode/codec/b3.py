"""SSN "B3" observation records: one 75-column line of text each.

Columns (from 0, end excluded): 1:6 object tag, 6:9 sensor, 9:11 year, 11:14 day of year, 14:16 hour, 16:18
minute, 18:20 second, 20:23 millisecond (UTC); 23:29 elevation/1e4 deg, 30:37 azimuth/1e4 deg, 38:45 range
mantissa/1e5 km times 10**digit at 45, 47:54 range rate/1e5 km/s, 55:66 angle rates (not used), 74 type. A
negative field starts with '-' or with an overpunched letter: J..R is -1..-9, '}' is -0. Blanks before a field's
digits are zeros. The tag is somebody's opinion, and not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.timescales import (
    DAY_NS,
    day_from_year_doy,
    day_length_ns,
    days_in_year,
    tai_ns_from_utc,
)
from fusionnode.core.types import DETECTION, Channel, Decoded, Kind, StructArray, no_detections

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

WIDTH: Final = 75
MAX_LINE: Final = 128
"""A longer line is no record, but perhaps two that lost a line end. Never more is kept for the next call."""

_BLOCK_LINES: Final = 8_192  # so that a large file is worked on inside the processor's cache

_CHANNELS = np.zeros(256, np.uint8)  # by type; 0: a type that is not read
_CHANNELS[ord("1")] = Channel.ANGLES
_CHANNELS[ord("2")] = Channel.ANGLES | Channel.RANGE
_CHANNELS[[ord("3"), ord("4")]] = Channel.ANGLES | Channel.RANGE | Channel.RANGE_RATE

_BLANK: Final = ord(" ")
_NONE: Final = 255
_DIGIT = np.full(256, _NONE, np.uint8)
_DIGIT[ord("0") : ord("9") + 1] = np.arange(10)
_LEADING = _DIGIT.copy()  # of a field that may be negative
_LEADING[[ord("-"), ord("}")]] = 0
_LEADING[ord("J") : ord("R") + 1] = np.arange(1, 10)
_MINUS = (_LEADING != _NONE) & (_DIGIT == _NONE)
_SIGNED: Final = ((23, 29), (30, 37), (47, 54))
_UNSIGNED: Final = ((38, 45),)

# By type: the columns that have to be digits.
_REQUIRED = np.zeros((256, WIDTH), np.bool_)
for _type in "1234":
    _REQUIRED[ord(_type), [*range(6, 29), *range(30, 37)]] = True
for _type in "234":
    _REQUIRED[ord(_type), 38:46] = True
for _type in "34":
    _REQUIRED[ord(_type), 47:54] = True


class B3Decoder:
    """Lines of B3 text -> radar detections. Sigmas are 0: the sensor's configuration knows them.

    ``sensor_id`` is the B3 sensor number, ``seq`` the number of the line, from 1.
    """

    def __init__(self, link_id: str, outcomes: Outcomes) -> None:
        self._link_id = link_id
        self._outcomes = outcomes
        self._tail = b""
        self._skipping = False  # inside a line that is too long
        self._line = 0
        self._t_rx_ns = 0

    def decode(self, chunks: Sequence[tuple[int, bytes]]) -> Decoded:
        """Records of whole lines so far; the rest waits for the next call."""
        if not chunks:
            return Decoded(no_detections(), [])
        self._t_rx_ns = chunks[-1][0]
        data = self._tail + b"".join(chunk for _, chunk in chunks)
        ends = np.cumsum([len(chunk) for _, chunk in chunks], dtype=np.int64) + len(self._tail)
        times = np.array([t for t, _ in chunks], np.int64)
        whole = data.rfind(b"\n") + 1
        found = self._lines(data[:whole], ends, times)
        self._tail = data[whole:]
        if len(self._tail) > MAX_LINE:
            if not self._skipping:
                self._outcomes.add(self._link_id, Outcome.FRAME_TOO_LONG)
            self._skipping, self._tail = True, b""
        return Decoded(found, [])

    def finish(self) -> Decoded:
        """The last line, if it had no line end."""
        if not self._tail and not self._skipping:
            return Decoded(no_detections(), [])
        return self.decode([(self._t_rx_ns, b"\n")])

    def _lines(self, data: bytes, ends: I64, times: I64) -> StructArray:
        if not data:
            return no_detections()
        # Blanks behind, so that a window of a record's width fits everywhere.
        text = np.frombuffer(data + b" " * WIDTH, np.uint8)
        stop = np.flatnonzero(text[: len(data)] == ord("\n"))
        start = np.append(0, stop[:-1] + 1)
        number = self._line + 1 + np.arange(len(stop), dtype=np.int64)
        self._line += len(stop)
        if self._skipping:
            start, stop, number = start[1:], stop[1:], number[1:]
            self._skipping = False
        blank = stop - start <= 1
        blank &= (text[start] == ord("\n")) | (text[start] == ord("\r"))
        length = stop - start - (text[stop - 1] == ord("\r"))
        too_long = length > MAX_LINE
        self._outcomes.add(self._link_id, Outcome.RUBBISH_BYTES, int((stop + 1 - start)[blank].sum()))
        self._outcomes.add(self._link_id, Outcome.FRAME_TOO_LONG, int(too_long.sum()))
        good = ~(blank | too_long)
        start, stop, number, length = start[good], stop[good], number[good], length[good]
        t_rx = times[np.minimum(np.searchsorted(ends, stop, side="right"), len(times) - 1)]
        windows = np.lib.stride_tricks.sliding_window_view(text, WIDTH)
        parts = [
            self._records(windows[start[b]], length[b], number[b], t_rx[b])
            for b in (slice(i, i + _BLOCK_LINES) for i in range(0, len(start), _BLOCK_LINES))
        ]
        return np.concatenate(parts) if parts else no_detections()

    def _records(self, line: U8, length: I64, number: I64, t_rx_ns: I64) -> StructArray:
        """One block: lines [n, WIDTH], running on into the next if shorter, and their true lengths."""
        kind = line[:, WIDTH - 1]
        malformed = (length < WIDTH) | (kind == _BLANK)
        unknown = ~malformed & (_CHANNELS[kind] == 0)
        digit = _DIGIT[line]
        for first, _ in _SIGNED:
            digit[:, first] = _LEADING[line[:, first]]
        _blanks_are_zeros(digit, line)
        day, ns, no_time = _time(digit)
        bad = ~malformed & ~unknown & (no_time | ((digit == _NONE) & _REQUIRED[kind]).any(axis=1))
        good = np.flatnonzero(~(malformed | unknown | bad))
        for outcome, n in (
            (Outcome.FRAME_MALFORMED, np.count_nonzero(malformed)),
            (Outcome.FRAME_UNKNOWN_TYPE, np.count_nonzero(unknown)),
            (Outcome.FRAME_BAD_FIELD, np.count_nonzero(bad)),
            (Outcome.FRAME_ACCEPTED, len(good)),
        ):
            self._outcomes.add(self._link_id, outcome, int(n))
        digit, line = digit[good], line[good]
        out = np.zeros(len(good), DETECTION)
        out["t_meas_ns"] = tai_ns_from_utc(day[good], ns[good])
        out["t_rx_ns"] = t_rx_ns[good]
        out["sensor_id"] = _number(digit, 6, 9)
        out["seq"] = number[good] & 0xFFFFFFFF
        out["kind"] = Kind.RADAR_AZEL
        out["channels"] = channels = _CHANNELS[line[:, WIDTH - 1]]
        out["lat_rad"] = np.radians(_signed(digit, line, 23, 29) / 1e4)
        out["lon_rad"] = np.radians(_signed(digit, line, 30, 37) / 1e4)
        # Dividing by a power of ten is exact to the last bit, where multiplying by its inverse is not.
        range_m = _number(digit, 38, 45) * 10.0 ** digit[:, 45].clip(max=9) / 100.0
        out["range_m"] = np.where(channels & Channel.RANGE, range_m, 0.0)
        out["range_rate_m_s"] = np.where(
            channels & Channel.RANGE_RATE, _signed(digit, line, 47, 54) / 100.0, 0.0
        )
        for name in ("snr_db", "rcs_dbsm", "magnitude", "exposure_s"):
            out[name] = np.nan
        return out


def _blanks_are_zeros(digit: U8, line: U8) -> None:
    """Where blanks stand before the digits of a field, alone or behind its sign."""
    for first, last in _SIGNED + _UNSIGNED:
        rows = np.flatnonzero((line[:, first] == _BLANK) | (line[:, first + 1] == _BLANK))
        leading = (line[rows, first] == _BLANK) | _MINUS[line[rows, first]]
        for column in range(first, last - 1):
            leading &= (line[rows, column] == _BLANK) | (column == first)
            digit[rows[leading & (line[rows, column] == _BLANK)], column] = 0


def _number(digit: U8, first: int, last: int) -> I64:
    """Integers [n] in columns ``first`` to ``last`` (excluded); rubbish where a column is no digit."""
    value = digit[:, first].astype(np.int64)
    for column in range(first + 1, last):
        value = value * 10 + digit[:, column]
    return value


def _signed(digit: U8, line: U8, first: int, last: int) -> I64:
    value = _number(digit, first, last)
    return np.where(_MINUS[line[:, first]], -value, value)


def _time(digit: U8) -> tuple[I64, I64, npt.NDArray[np.bool_]]:
    """UTC day number, ns of the day, and whether there is no such time."""
    year, doy = _number(digit, 9, 11), _number(digit, 11, 14)
    year += np.where(year >= 57, 1900, 2000)  # nothing was up before 1957
    hour, minute, second = _number(digit, 14, 16), _number(digit, 16, 18), _number(digit, 18, 20)
    day = day_from_year_doy(year, doy)
    ns = (((hour * 60 + minute) * 60 + second) * 1000 + _number(digit, 20, 23)) * 1_000_000
    wrong = (doy < 1) | (doy > days_in_year(year)) | (hour > 23) | (minute > 59) | (second > 60)
    leap = second == 60  # exists only as the last one of some days
    wrong[leap] |= (ns[leap] < DAY_NS) | (ns[leap] >= day_length_ns(day[leap]))
    return day, ns, wrong
