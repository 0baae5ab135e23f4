"""The codec "sensor_msgpack": detections as msgpack documents, one a ZeroMQ message (ICD.md, "msgpack form").

One detection is a map of numbers. A batch is the same map with columns: ``t_ns`` and any other value may be
an array of n numbers or n little-endian numbers as bin; a plain number is for all rows (``seq`` counts up).
The structure is judged here, a document at a time. The values are the intake's to judge, a row at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from fusionnode.codec import wire
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import DETECTION, Channel, Decoded, Kind, StructArray, no_detections

MAX_DOCUMENT = 65_536
"""Bytes; a longer document is FRAME_TOO_LONG and not parsed."""


class SensorMsgpackDecoder:
    """Each chunk is one document; each document has one outcome."""

    def __init__(self, link_id: str, outcomes: Outcomes) -> None:
        self._link_id = link_id
        self._outcomes = outcomes

    def decode(self, chunks: Sequence[tuple[int, bytes]]) -> Decoded:
        """Detections of the documents, given as (t_rx_ns, bytes)."""
        parts = []
        for t_rx_ns, data in chunks:
            try:
                parts.append(_read(data, t_rx_ns))
                outcome = Outcome.FRAME_ACCEPTED
            except _RefusedError as refused:
                outcome = refused.outcome
            self._outcomes.add(self._link_id, outcome)
        return Decoded(joined(parts), [])

    def finish(self) -> Decoded:
        """Nothing is ever waiting: a document is whole."""
        return Decoded(no_detections(), [])


def is_map(data: bytes) -> bool:
    """Whether the first byte begins a msgpack map."""
    return data[:1] >= b"\x80" and (data[0] <= 0x8F or data[0] in (0xDE, 0xDF))


def joined(parts: list[StructArray]) -> StructArray:
    """DETECTION arrays as one. As bytes: numpy joins structured arrays field by field, 13 us a part."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return no_detections()
    return np.concatenate([part.view(np.uint8) for part in parts]).view(DETECTION)


class _RefusedError(Exception):
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


_KINDS = {"radar": Kind.RADAR_AZEL, "optical_azel": Kind.OPTICAL_AZEL, "optical_radec": Kind.OPTICAL_RADEC}

_AZEL = {
    "az_rad": "lon_rad",
    "el_rad": "lat_rad",
    "az_sigma_rad": "lon_sigma_rad",
    "el_sigma_rad": "lat_sigma_rad",
}
_RADEC = {
    "ra_rad": "lon_rad",
    "dec_rad": "lat_rad",
    "ra_sigma_rad": "lon_sigma_rad",
    "dec_sigma_rad": "lat_sigma_rad",
}
_RADAR = ("range_m", "range_rate_m_s", "range_sigma_m", "range_rate_sigma_m_s", "snr_db", "rcs_dbsm")
_OPTICAL = ("magnitude", "exposure_s")

# Key of the document -> field of DETECTION, for each kind.
_VALUES = {
    Kind.RADAR_AZEL: _AZEL | {name: name for name in _RADAR},
    Kind.OPTICAL_AZEL: _AZEL | {name: name for name in _OPTICAL},
    Kind.OPTICAL_RADEC: _RADEC | {name: name for name in _OPTICAL},
}
_HEAD = {"version", "type", "sensor_id", "seq", "flags", "t_ns"}
_UNKNOWN_IS_NAN = ("snr_db", "rcs_dbsm", "magnitude", "exposure_s")
# A value is its channel, or no use without it.
_CHANNELS = {
    "range_m": Channel.RANGE,
    "lon_rad": Channel.ANGLES,
    "lat_rad": Channel.ANGLES,
    "range_rate_m_s": Channel.RANGE_RATE,
}
_SIGMA_OF = {
    "range_sigma_m": "range_m",
    "lon_sigma_rad": "lon_rad",
    "lat_sigma_rad": "lat_rad",
    "range_rate_sigma_m_s": "range_rate_m_s",
}
_U32 = 2**32


def _read(data: bytes, t_rx_ns: int) -> StructArray:
    """One document to DETECTION[n]."""
    document = _unpack(data)
    version, kind = document.get("version"), document.get("type")
    if type(version) is not int:
        raise _RefusedError(Outcome.FRAME_BAD_FIELD)
    if version != wire.WIRE_VERSION:
        raise _RefusedError(Outcome.FRAME_BAD_VERSION)
    if not isinstance(kind, str):
        raise _RefusedError(Outcome.FRAME_BAD_FIELD)
    if kind not in _KINDS:
        raise _RefusedError(Outcome.FRAME_UNKNOWN_TYPE)
    return _detections(document, _KINDS[kind], t_rx_ns)


def _unpack(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_DOCUMENT:
        raise _RefusedError(Outcome.FRAME_TOO_LONG)
    try:
        document = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException):
        raise _RefusedError(Outcome.FRAME_MALFORMED) from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise _RefusedError(Outcome.FRAME_MALFORMED)
    return document


def _detections(document: dict[str, Any], kind: Kind, t_rx_ns: int) -> StructArray:
    values = _VALUES[kind]
    if not document.keys() <= _HEAD | values.keys():
        raise _RefusedError(Outcome.FRAME_BAD_FIELD)
    times = _times(document.get("t_ns"))
    if not times.size:
        raise _RefusedError(Outcome.FRAME_BAD_LENGTH)
    out = np.zeros(times.size, DETECTION)
    out["t_meas_ns"] = times
    out["t_rx_ns"] = t_rx_ns
    out["sensor_id"] = _whole(document.get("sensor_id"), 1, _U32)
    out["seq"] = _sequence(document.get("seq"), times.size)
    flags = _whole(document.get("flags", 0), 0, _U32)
    if flags & ~wire.FLAGS_ALL:
        raise _RefusedError(Outcome.FRAME_BAD_FIELD)
    out["flags"] = flags
    out["kind"] = kind
    for name in _UNKNOWN_IS_NAN:
        out[name] = math.nan
    given = {values[key]: value for key, value in document.items() if key in values}
    with np.errstate(over="ignore"):  # a number beyond float32 becomes inf, and the intake's to refuse
        for name, value in given.items():
            out[name] = _column(value, times.size)
    out["channels"] = _channels(given, kind)
    return out


def _channels(given: dict[str, Any], kind: Kind) -> int:
    """Which channels the document has; half a pair of angles, or a sigma of nothing, is a mistake."""
    if ("lon_rad" in given) != ("lat_rad" in given):
        raise _RefusedError(Outcome.FRAME_BAD_FIELD)
    if any(sigma in given and value not in given for sigma, value in _SIGMA_OF.items()):
        raise _RefusedError(Outcome.FRAME_BAD_FIELD)
    channels = 0
    for name, channel in _CHANNELS.items():
        if name in given:
            channels |= channel
    needed = Channel.RANGE | Channel.ANGLES if kind == Kind.RADAR_AZEL else Channel.ANGLES
    if not channels & needed:
        raise _RefusedError(Outcome.FRAME_BAD_FIELD)
    return channels


def _whole(value: object, low: int, end: int) -> int:
    """An integer (a bool is none) in [low, end)."""
    if type(value) is not int or not low <= value < end:
        raise _RefusedError(Outcome.FRAME_BAD_FIELD)
    return value


def _times(value: object) -> np.ndarray[Any, np.dtype[np.int64]]:
    """int64[n]: the one value that is a column in every batch, so n is bounded by the document's size."""
    if isinstance(value, bytes):
        times = _from_bin(value, "<i8").astype(np.int64)
        if times.size and not (times.min() >= 0 and times.max() < wire.TIME_LIMIT_NS):
            raise _RefusedError(Outcome.FRAME_BAD_FIELD)
        return times
    rows = value if isinstance(value, list) else [value]
    return np.array([_whole(row, 0, wire.TIME_LIMIT_NS) for row in rows], np.int64)


def _sequence(value: object, n: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """uint32[n]."""
    if isinstance(value, bytes):
        return _of_length(_from_bin(value, "<u4").astype(np.uint32), n)
    if isinstance(value, list):
        return _of_length(np.array([_whole(row, 0, _U32) for row in value], np.uint32), n)
    first = _whole(value, 0, _U32)
    return ((first + np.arange(n, dtype=np.int64)) % _U32).astype(np.uint32)


def _column(value: object, n: int) -> float | np.ndarray[Any, np.dtype[np.float64]]:
    """float64[n], or one number for all rows."""
    if type(value) is float or type(value) is int:
        return float(value)
    if isinstance(value, bytes):
        return _of_length(_from_bin(value, "<f8").astype(np.float64), n)
    if isinstance(value, list) and {type(row) for row in value} <= {float, int}:
        return _of_length(np.array(value, np.float64), n)
    raise _RefusedError(Outcome.FRAME_BAD_FIELD)


def _from_bin(data: bytes, dtype: str) -> np.ndarray[Any, Any]:
    if len(data) % np.dtype(dtype).itemsize:
        raise _RefusedError(Outcome.FRAME_BAD_LENGTH)
    return np.frombuffer(data, dtype)


def _of_length(column: np.ndarray[Any, Any], n: int) -> np.ndarray[Any, Any]:
    if column.size != n:
        raise _RefusedError(Outcome.FRAME_BAD_LENGTH)
    return column
