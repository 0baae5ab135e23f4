"""Visual observers' IOD records: one line of text each (G. Lewis, IOD Observation Format Description, 1998).

Columns (from 0, end excluded): 0:15 object, 16:20 station, 21 sky, 23:31 date, 31:40 UTC time hhmmssfff, 41:43 time
uncertainty, 44 angle format, 45 epoch of the axes, 47:61 the two angles, 62:64 their uncertainty, then optics and
brightness. Digits that the observer did not know are blanks at the end of a field. The object is somebody's opinion,
and not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import DETECTION, Channel, Decoded, Kind, no_detections

MAX_LINE: Final = 256
"""A longer line is no record; never more is kept for the next call."""
_SHORTEST: Final = 54
_J2000: Final = "5"


class _Form(NamedTuple):
    """How an angle format splits its two fields: digits of each part, and what one unit of it is in degrees."""

    kind: Kind
    lon: tuple[tuple[int, float], ...]
    lat: tuple[tuple[int, float], ...]


_HMS = ((2, 15.0), (2, 0.25), (3, 15.0 / 36_000.0))
_HM = ((2, 15.0), (5, 0.25 / 1_000.0))
_DMS = ((2, 1.0), (2, 1.0 / 60.0), (2, 1.0 / 3_600.0))
_DM = ((2, 1.0), (4, 1.0 / 6_000.0))
_D = ((6, 1e-4),)
_FORMS: Final = {
    "1": _Form(Kind.OPTICAL_RADEC, _HMS, _DMS),
    "2": _Form(Kind.OPTICAL_RADEC, _HM, _DM),
    "3": _Form(Kind.OPTICAL_RADEC, _HM, _D),
    "4": _Form(Kind.OPTICAL_AZEL, ((3, 1.0), (2, 1.0 / 60.0), (2, 1.0 / 3_600.0)), _DMS),
    "5": _Form(Kind.OPTICAL_AZEL, ((3, 1.0), (4, 1.0 / 6_000.0)), _DM),
    "6": _Form(Kind.OPTICAL_AZEL, ((7, 1e-4),), _D),
    "7": _Form(Kind.OPTICAL_RADEC, _HMS, _D),
}


class IodDecoder:
    """Lines of IOD text -> optical detections. ``sensor_id`` is the station's number, ``seq`` that of the line, from 1.

    Sigmas are 0: the sensor's configuration knows them. (What observers state of their directions leaves out the
    error of their times, which for a low satellite is the larger.) Right ascensions not of J2000 are not read.
    """

    def __init__(self, link_id: str, outcomes: Outcomes) -> None:
        self._link_id = link_id
        self._outcomes = outcomes
        self._tail = b""
        self._skipping = False
        self._line = 0
        self._t_rx_ns = 0

    def decode(self, chunks: Sequence[tuple[int, bytes]]) -> Decoded:
        """Records of whole lines so far; the rest waits for the next call."""
        found = []
        for t_rx_ns, chunk in chunks:
            self._t_rx_ns = t_rx_ns
            *lines, self._tail = (self._tail + chunk).split(b"\n")
            for line in lines:
                found += self._take(line, t_rx_ns)
            if len(self._tail) > MAX_LINE:
                if not self._skipping:
                    self._outcomes.add(self._link_id, Outcome.FRAME_TOO_LONG)
                self._skipping, self._tail = True, b""
        return Decoded(np.concatenate(found) if found else no_detections(), [])

    def finish(self) -> Decoded:
        """The last line, if it had no line end."""
        if not self._tail and not self._skipping:
            return Decoded(no_detections(), [])
        return self.decode([(self._t_rx_ns, b"\n")])

    def _take(self, line: bytes, t_rx_ns: int) -> list[np.ndarray]:
        self._line += 1
        if self._skipping:
            self._skipping = False
            return []
        if not line.strip():
            self._outcomes.add(self._link_id, Outcome.RUBBISH_BYTES, len(line) + 1)
            return []
        outcome, found = self._record(line, t_rx_ns)
        self._outcomes.add(self._link_id, outcome)
        return found

    def _record(self, line: bytes, t_rx_ns: int) -> tuple[Outcome, list[np.ndarray]]:
        if len(line) > MAX_LINE:
            return Outcome.FRAME_TOO_LONG, []
        try:
            text = line.decode("ascii").rstrip()
        except UnicodeDecodeError:
            return Outcome.FRAME_MALFORMED, []
        if len(text) < _SHORTEST:
            return Outcome.FRAME_MALFORMED, []
        form = _FORMS.get(text[44])
        if form is None or (form.kind == Kind.OPTICAL_RADEC and text[45] != _J2000):
            return Outcome.FRAME_UNKNOWN_TYPE, []
        sign = text[54:55]
        lon = _angle(text[47:54], form.lon)
        lat = _angle(text[55:61], form.lat)
        t_ns = _time(text[23:40])
        if lon is None or lat is None or t_ns is None or sign not in ("+", "-") or not text[16:20].isdigit():
            return Outcome.FRAME_BAD_FIELD, []
        out = np.zeros(1, DETECTION)
        out["t_meas_ns"], out["t_rx_ns"] = t_ns, t_rx_ns
        out["sensor_id"], out["seq"] = int(text[16:20]), self._line & 0xFFFFFFFF
        out["kind"], out["channels"] = form.kind, Channel.ANGLES
        out["lon_rad"] = np.radians(lon)
        out["lat_rad"] = np.radians(-lat if sign == "-" else lat)
        for name in ("snr_db", "rcs_dbsm", "magnitude", "exposure_s"):
            out[name] = np.nan
        return Outcome.FRAME_ACCEPTED, [out]


def _digits(field: str, width: int) -> str | None:
    """The field's digits, unknown ones at its end taken as zeros; None if there is anything else."""
    known = field.rstrip()
    return known.ljust(width, "0") if known.isascii() and known.isdigit() else None


def _angle(field: str, parts: tuple[tuple[int, float], ...]) -> float | None:
    """Degrees."""
    digits = _digits(field, sum(n for n, _ in parts))
    if digits is None:
        return None
    value, at = 0.0, 0
    for i, (n, unit) in enumerate(parts):
        part = int(digits[at : at + n])
        if i > 0 and part * unit >= (parts[i - 1][1] if i else 0.0):
            return None  # sixty minutes are none
        value += part * unit
        at += n
    return value


def _time(field: str) -> int | None:
    digits = _digits(field, 17)
    if digits is None or len(field.rstrip()) < 14:
        return None
    d = digits
    try:
        return tai_ns_from_utc_text(f"{d[:4]}-{d[4:6]}-{d[6:8]}T{d[8:10]}:{d[10:12]}:{d[12:14]}.{d[14:17]}")
    except ValueError:
        return None
