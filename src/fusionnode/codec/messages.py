"""Messages of the sensor interface to detections and reports, many at a time.

What is refused, and why, is the ICD's: version, type, length, then fields (reserved not 0, unknown bits, a
range not above 0, an elevation or declination beyond a quarter turn, a detection that measures nothing ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fusionnode.codec import wire
from fusionnode.codec.framing import Bytes, Deframer, Frames, Ints, frame, gather
from fusionnode.codec.wire import Coordinates, MessageType
from fusionnode.core.kernels import kernel
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import (
    DETECTION,
    Decoded,
    Kind,
    ReportKind,
    SensorReport,
    StructArray,
    no_detections,
)


class FramesDecoder:
    """The codec "frames": a stream of bytes, cut anywhere, holding frames of the sensor interface."""

    def __init__(self, link_id: str, outcomes: Outcomes) -> None:
        self._link_id = link_id
        self._outcomes = outcomes
        self._deframer = Deframer(link_id, outcomes)

    def decode(self, chunks: Sequence[tuple[int, bytes]]) -> Decoded:
        """Detections and reports of all frames that end in ``chunks`` of (t_rx_ns, bytes)."""
        if len(chunks) == 1:
            t_rx_ns, data = chunks[0]
            frames = self._deframer.feed(data)
            times = np.full(frames.offsets.size, t_rx_ns, np.int64)
        else:
            frames = self._deframer.feed(b"".join([data for _, data in chunks]))
            chunk_ends = np.cumsum([len(data) for _, data in chunks], dtype=np.int64)
            chunk = np.searchsorted(chunk_ends, frames.ends - 1, side="right")
            times = np.array([t for t, _ in chunks], np.int64)[chunk]
        if not times.size:
            return Decoded(no_detections(), [])
        decoded, refused = read(frames, times)
        for outcome, n in refused.items():
            self._outcomes.add(self._link_id, outcome, n)
        self._outcomes.add(self._link_id, Outcome.FRAME_ACCEPTED, times.size - sum(refused.values()))
        return decoded

    def finish(self) -> Decoded:
        """The stream is over; what is fed next is a new one."""
        self._deframer.finish()
        return Decoded(no_detections(), [])


def read(frames: Frames, t_rx_ns: Ints) -> tuple[Decoded, dict[Outcome, int]]:
    """Judge and convert messages; the second value counts those refused. ``t_rx_ns``: int64[n], TAI."""
    types = np.empty(t_rx_ns.size, np.int64)
    _sort(frames.payload, frames.offsets, frames.lengths, _SIZES, types)
    detections = np.zeros(types.size, DETECTION)
    found = _detections(frames, types, t_rx_ns, detections)
    reports = [] if found == types.size else list(_reports(frames, types, t_rx_ns))
    if found < types.size:
        good = np.flatnonzero((types == MessageType.RADAR) | (types == MessageType.OPTICAL))
        detections = detections.take(good)  # 40 times as fast as detections[good]
    refused: dict[Outcome, int] = {}
    if found + len(reports) < types.size:
        refused = {outcome: n for code, outcome in _REFUSALS.items() if (n := int((types == code).sum()))}
    return Decoded(detections, reports), refused


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache: nothing compiles in `FramesDecoder` after this."""
    decoder = FramesDecoder("", Outcomes())
    for message_type in (MessageType.RADAR, MessageType.OPTICAL):
        message = np.zeros(1, wire.MESSAGES[message_type])
        message["header"]["version"], message["header"]["type"] = wire.WIRE_VERSION, message_type
        message["header"]["length"] = message.itemsize
        decoder.decode([(0, frame(message.tobytes()))])


# A message's type as long as nothing is wrong with it, else one of these.
_BAD_VERSION, _UNKNOWN_TYPE, _BAD_LENGTH, _UNEXPECTED, _BAD_FIELD = -1, -2, -3, -4, -5
_REFUSALS = {
    _BAD_VERSION: Outcome.FRAME_BAD_VERSION,
    _UNKNOWN_TYPE: Outcome.FRAME_UNKNOWN_TYPE,
    _BAD_LENGTH: Outcome.FRAME_BAD_LENGTH,
    _UNEXPECTED: Outcome.FRAME_UNEXPECTED,
    _BAD_FIELD: Outcome.FRAME_BAD_FIELD,
}

_SIZES = np.zeros(256, np.int64)
for _type, _dtype in wire.MESSAGES.items():
    _SIZES[_type] = _dtype.itemsize


def _rows(frames: Frames, index: Ints, dtype: np.dtype[np.void]) -> StructArray:
    """The messages of one type as a structured array of its dtype."""
    rows = np.empty(index.size, dtype)
    gather(frames.payload, frames.offsets[index], rows.view(np.uint8).reshape(index.size, dtype.itemsize))
    return rows


def _detections(frames: Frames, types: Ints, t_rx_ns: Ints, out: StructArray) -> int:
    """Fill ``out`` where a detection is good, mark in ``types`` where not; the number of good ones."""
    found = 0
    for message_type, dtype, convert in (
        (MessageType.RADAR, wire.RADAR, _radar),
        (MessageType.OPTICAL, wire.OPTICAL, _optical),
    ):
        index = np.flatnonzero(types == message_type)
        if index.size:
            found += convert(_rows(frames, index, dtype), index, t_rx_ns, out, types)
    return found


def _reports(frames: Frames, types: Ints, t_rx_ns: Ints) -> Iterator[SensorReport]:
    for i in np.flatnonzero(types >= MessageType.STATUS):
        kind = ReportKind(int(types[i]))
        dtype, ok, fields = _REPORTS[kind]
        row = np.frombuffer(frames.payload, dtype, 1, int(frames.offsets[i]))[0]
        header = row["header"]
        if not _header_ok(header) or np.any(row["reserved"]) or not ok(row):
            types[i] = _BAD_FIELD
            continue
        yield SensorReport(
            kind=kind,
            sensor_id=int(header["sensor_id"]),
            seq=int(header["seq"]),
            flags=int(header["flags"]),
            t_ns=int(header["t_ns"]),
            t_rx_ns=int(t_rx_ns[i]),
            fields=fields(row),
        )


def _status_fields(row: np.void) -> dict[str, int | float]:
    names = ("uptime_s", "detections_sent", "detections_dropped", "frames_bad", "commands_received", "health")
    fields: dict[str, int | float] = {name: int(row[name]) for name in (*names, "mode")}
    temperature = int(row["temperature_cdeg"])
    fields["temperature_degc"] = temperature * 0.01 if temperature != -(2**15) else math.nan
    return fields


def _time_fields(row: np.void) -> dict[str, int | float]:
    sigma = int(row["sigma_ns"])
    return {
        "sigma_s": sigma * 1e-9 if sigma else math.nan,
        "frequency_error": int(row["frequency_ppb"]) * 1e-9,
        "tai_minus_utc_s": int(row["tai_minus_utc_s"]),
        "source": int(row["source"]),
    }


def _ack_fields(row: np.void) -> dict[str, int | float]:
    return {name: int(row[name]) for name in ("command_id", "code", "result", "received_ns")}


_Report = tuple[np.dtype[np.void], Callable[[np.void], bool], Callable[[np.void], dict[str, int | float]]]

_REPORTS: dict[ReportKind, _Report] = {
    ReportKind.STATUS: (
        wire.STATUS,
        lambda row: row["mode"] <= max(wire.Mode) and not row["health"] & ~np.uint16(wire.HEALTH_ALL),
        _status_fields,
    ),
    ReportKind.TIME: (wire.TIME, lambda row: row["source"] <= max(wire.TimeSource), _time_fields),
    ReportKind.ACK: (
        wire.ACK,
        lambda row: row["result"] <= max(wire.Result) and 0 <= row["received_ns"] < wire.TIME_LIMIT_NS,
        _ack_fields,
    ),
}

# Plain numbers: the kernels compile them in.
_VERSION = wire.WIRE_VERSION
_COMMAND = int(MessageType.COMMAND)
_KIND_RADAR, _KIND_AZEL, _KIND_RADEC = int(Kind.RADAR_AZEL), int(Kind.OPTICAL_AZEL), int(Kind.OPTICAL_RADEC)
_AZEL = int(Coordinates.AZEL)
_RANGE, _ANGLES, _RANGE_RATE = int(wire.Valid.RANGE), int(wire.Valid.ANGLES), int(wire.Valid.RANGE_RATE)
_SNR, _RCS, _MAGNITUDE = int(wire.Valid.SNR), int(wire.Valid.RCS), int(wire.Valid.MAGNITUDE)
_FLAGS_ALL, _RADAR_ALL, _OPTICAL_ALL = wire.FLAGS_ALL, wire.VALID_ALL_RADAR, wire.VALID_ALL_OPTICAL
_QUARTER, _TIME_LIMIT, _BAM = wire.QUARTER_TURN_BAM32, wire.TIME_LIMIT_NS, wire.RAD_PER_BAM32


@kernel
def _sort(payload: Bytes, offsets: Ints, lengths: Ints, sizes: Ints, types: Ints) -> None:
    """Version, type and length of each message; ``types`` gets the type or a refusal."""
    for i in range(offsets.size):
        at = offsets[i]
        message_type = np.int64(payload[at + 1])
        stated = np.int64(payload[at + 12]) | np.int64(payload[at + 13]) << 8
        if payload[at] != _VERSION:
            types[i] = _BAD_VERSION
        elif sizes[message_type] == 0:
            types[i] = _UNKNOWN_TYPE
        elif lengths[i] != sizes[message_type] or stated != lengths[i]:
            types[i] = _BAD_LENGTH
        elif message_type == _COMMAND:
            types[i] = _UNEXPECTED
        else:
            types[i] = message_type


@kernel
def _header_ok(header: Any) -> bool:
    return bool(
        header["sensor_id"] != 0
        and header["reserved"] == 0
        and header["flags"] & ~np.int64(_FLAGS_ALL) == 0
        and 0 <= header["t_ns"] < _TIME_LIMIT
    )


@kernel
def _common(detection: Any, header: Any, t_rx_ns: int) -> None:
    detection.t_meas_ns = header.t_ns
    detection.t_rx_ns = t_rx_ns
    detection.sensor_id = header.sensor_id
    detection.seq = header.seq
    detection.flags = header.flags
    detection.snr_db = math.nan
    detection.rcs_dbsm = math.nan
    detection.magnitude = math.nan
    detection.exposure_s = math.nan


@kernel
def _radar(rows: StructArray, index: Ints, t_rx_ns: Ints, out: StructArray, types: Ints) -> int:
    found = 0
    for k in range(rows.size):
        m = rows[k]
        i = index[k]
        valid = np.int64(m.valid)
        if (
            not _header_ok(m.header)
            or m.reserved != 0
            or valid & ~_RADAR_ALL != 0
            or valid & (_RANGE | _ANGLES) == 0
            or (valid & _RANGE != 0 and m.range_mm <= 0)
            or (valid & _ANGLES != 0 and abs(np.int64(m.el_bam32)) > _QUARTER)
        ):
            types[i] = _BAD_FIELD
            continue
        found += 1
        d = out[i]
        _common(d, m.header, t_rx_ns[i])
        d.kind = _KIND_RADAR
        d.channels = valid & (_RANGE | _ANGLES | _RANGE_RATE)
        if valid & _RANGE:
            d.range_m = m.range_mm * 1e-3
            d.range_sigma_m = m.range_sigma_mm * 1e-3
        if valid & _ANGLES:
            d.lon_rad = m.az_bam32 * _BAM
            d.lat_rad = m.el_bam32 * _BAM
            d.lon_sigma_rad = m.az_sigma_nrad * 1e-9
            d.lat_sigma_rad = m.el_sigma_nrad * 1e-9
        if valid & _RANGE_RATE:
            d.range_rate_m_s = m.range_rate_mm_s * 1e-3
            d.range_rate_sigma_m_s = m.range_rate_sigma_mm_s * 1e-3
        if valid & _SNR:
            d.snr_db = m.snr_cdb * 0.01
        if valid & _RCS:
            d.rcs_dbsm = m.rcs_cdbsm * 0.01
    return found


@kernel
def _optical(rows: StructArray, index: Ints, t_rx_ns: Ints, out: StructArray, types: Ints) -> int:
    found = 0
    for k in range(rows.size):
        m = rows[k]
        i = index[k]
        valid = np.int64(m.valid)
        if (
            not _header_ok(m.header)
            or m.reserved[0] | m.reserved[1] | m.reserved[2] != 0
            or valid & ~_OPTICAL_ALL != 0
            or valid & _ANGLES == 0
            or m.coordinates > _AZEL
            or abs(np.int64(m.lat_bam32)) > _QUARTER
        ):
            types[i] = _BAD_FIELD
            continue
        found += 1
        d = out[i]
        _common(d, m.header, t_rx_ns[i])
        d.kind = _KIND_AZEL if m.coordinates == _AZEL else _KIND_RADEC
        d.channels = _ANGLES
        d.lon_rad = m.lon_bam32 * _BAM
        d.lat_rad = m.lat_bam32 * _BAM
        d.lon_sigma_rad = m.lon_sigma_nrad * 1e-9
        d.lat_sigma_rad = m.lat_sigma_nrad * 1e-9
        if valid & _MAGNITUDE:
            d.magnitude = m.magnitude_mmag * 0.001
        if m.exposure_us != 0:
            d.exposure_s = m.exposure_us * 1e-6
    return found
