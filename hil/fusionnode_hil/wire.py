"""The sensor interface, version 1, from the sensor's side: written from the C header and the ICD alone.

Messages hold the wire's own integers under the names of the C header. `frame` makes bytes of one,
`FrameReader` finds messages in a byte stream (an emulated sensor is sent commands).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from struct import Struct
from typing import ClassVar

import numpy as np

VERSION = 1
MAX_FRAME = 245

TIME_LOCKED, SIMULATED, CALIBRATION = 1, 2, 4
VALID_RANGE, VALID_ANGLES, VALID_RANGE_RATE, VALID_SNR, VALID_RCS, VALID_MAGNITUDE = 1, 2, 4, 8, 16, 32
RADEC, AZEL = 0, 1
MODE_OFF, MODE_STANDBY, MODE_SURVEY, MODE_TRACK, MODE_CALIBRATE = range(5)
HEALTH_TIME = 1
TIME_FREE, TIME_NTP, TIME_PTP, TIME_GNSS = range(4)
PING, SET_MODE, CUE, TIME_SYNC = 1, 2, 3, 4
DONE, ACCEPTED, REFUSED, UNKNOWN, FAILED = range(5)
NO_TEMPERATURE = -32768

_HEADER = Struct("<BBHIIHHq")
_CRC = Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What every message has; ``t_ns`` is TAI."""

    TYPE: ClassVar[int]
    BODY: ClassVar[Struct]

    sensor_id: int
    seq: int
    t_ns: int
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Radar(Message):
    """``struct fn_radar``."""

    TYPE: ClassVar[int] = 1
    BODY: ClassVar[Struct] = Struct("<qIiiIIIIhhH2xI")

    range_mm: int = 0
    az_bam32: int = 0
    el_bam32: int = 0
    range_rate_mm_s: int = 0
    range_sigma_mm: int = 0
    az_sigma_nrad: int = 0
    el_sigma_nrad: int = 0
    range_rate_sigma_mm_s: int = 0
    snr_cdb: int = 0
    rcs_cdbsm: int = 0
    valid: int = 0
    target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Optical(Message):
    """``struct fn_optical``."""

    TYPE: ClassVar[int] = 2
    BODY: ClassVar[Struct] = Struct("<IiIIhHB3xII")

    lon_bam32: int = 0
    lat_bam32: int = 0
    lon_sigma_nrad: int = 0
    lat_sigma_nrad: int = 0
    magnitude_mmag: int = 0
    valid: int = VALID_ANGLES
    coordinates: int = RADEC
    exposure_us: int = 0
    target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Message):
    """``struct fn_status``."""

    TYPE: ClassVar[int] = 3
    BODY: ClassVar[Struct] = Struct("<IIIIIHhB7x")

    uptime_s: int = 0
    detections_sent: int = 0
    detections_dropped: int = 0
    frames_bad: int = 0
    commands_received: int = 0
    health: int = 0
    temperature_cdeg: int = NO_TEMPERATURE
    mode: int = MODE_SURVEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Time(Message):
    """``struct fn_time``."""

    TYPE: ClassVar[int] = 4
    BODY: ClassVar[Struct] = Struct("<IihB5x")

    sigma_ns: int = 0
    frequency_ppb: int = 0
    tai_minus_utc_s: int = 0
    source: int = TIME_FREE


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Message):
    """``struct fn_command``."""

    TYPE: ClassVar[int] = 16
    BODY: ClassVar[Struct] = Struct("<IBBBxIiqIIq")

    command_id: int = 0
    code: int = PING
    argument: int = 0
    coordinates: int = RADEC
    lon_bam32: int = 0
    lat_bam32: int = 0
    range_mm: int = 0
    lon_sigma_nrad: int = 0
    lat_sigma_nrad: int = 0
    until_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack(Message):
    """``struct fn_ack``."""

    TYPE: ClassVar[int] = 17
    BODY: ClassVar[Struct] = Struct("<IBB2xq")

    command_id: int = 0
    code: int = 0
    result: int = DONE
    received_ns: int = 0


MESSAGES: dict[int, type[Message]] = {m.TYPE: m for m in (Radar, Optical, Status, Time, Command, Ack)}

_HEADER_FIELDS = ("sensor_id", "seq", "t_ns", "flags")


def body_fields(kind: type[Message]) -> tuple[str, ...]:
    """Names of a message's own fields, in the order of the wire."""
    return tuple(field.name for field in fields(kind) if field.name not in _HEADER_FIELDS)


_BODY_FIELDS = {kind: body_fields(kind) for kind in MESSAGES.values()}


def pack(message: Message) -> bytes:
    """The C struct's bytes, without CRC.

    Raises:
        struct.error: for a field that does not fit its integer.
    """
    kind = type(message)
    length = _HEADER.size + kind.BODY.size
    head = _HEADER.pack(
        VERSION, kind.TYPE, message.flags, message.sensor_id, message.seq, length, 0, message.t_ns
    )
    return head + kind.BODY.pack(*[getattr(message, name) for name in _BODY_FIELDS[kind]])


def frame(message: Message) -> bytes:
    """``0x00 COBS(struct, CRC-32) 0x00``."""
    data = pack(message)
    return b"\0" + cobs_encode(data + _CRC.pack(zlib.crc32(data))) + b"\0"


def unpack(data: bytes) -> Message | None:
    """The message in a struct's bytes without CRC; None for any version, type or length that is not known."""
    if len(data) < _HEADER.size:
        return None
    version, code, flags, sensor_id, seq, length, _, t_ns = _HEADER.unpack_from(data)
    kind = MESSAGES.get(code)
    if version != VERSION or kind is None or not len(data) == length == _HEADER.size + kind.BODY.size:
        return None
    body = dict(zip(_BODY_FIELDS[kind], kind.BODY.unpack_from(data, _HEADER.size), strict=True))
    return kind(sensor_id=sensor_id, seq=seq, t_ns=t_ns, flags=flags, **body)


class FrameReader:
    """Finds messages in bytes cut anywhere. ``bad`` counts damaged or unknown frames."""

    def __init__(self) -> None:
        self.bad = 0
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Messages completed by ``data``. Any bytes are taken; memory stays bounded."""
        self._rest += data
        *pieces, rest = bytes(self._rest).split(b"\0")
        self._rest = bytearray(rest[: MAX_FRAME + 1])  # one too long stays recognisably too long
        found = []
        for piece in filter(None, pieces):
            message = _from_cobs(piece)
            if message is None:
                self.bad += 1
            else:
                found.append(message)
        return found


def _from_cobs(piece: bytes) -> Message | None:
    data = cobs_decode(piece) if len(piece) <= MAX_FRAME else None
    if data is None or len(data) < _CRC.size:
        return None
    body, crc = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])[0]
    return unpack(body) if zlib.crc32(body) == crc else None


def cobs_encode(data: bytes) -> bytes:
    """Consistent overhead byte stuffing (Cheshire and Baker 1999): the same data without any zero byte.

    Messages are shorter than 254 bytes, so no run is ever split.
    """
    return b"".join(bytes([len(run) + 1]) + run for run in data.split(b"\0"))


def cobs_decode(data: bytes) -> bytes | None:
    """Undo `cobs_encode`; None if a code points past the end."""
    out, i = bytearray(), 0
    while i < len(data):
        code = data[i]
        if code == 0 or i + code > len(data):
            return None
        out += data[i + 1 : i + code]
        i += code
        if code < 255 and i < len(data):
            out.append(0)
    return bytes(out)


def bam32(angle_rad: float) -> int:
    """Unsigned binary angle, 2^32 to a turn, wrapped into one turn."""
    return round(angle_rad / (2.0 * np.pi) * 2**32) % 2**32


def bam32_signed(angle_rad: float) -> int:
    """Signed binary angle, -half to +half a turn."""
    return (bam32(angle_rad) + 2**31) % 2**32 - 2**31


def clamp(value: float, bits: int, *, signed: bool = False) -> int:
    """``value`` rounded to the nearest integer that fits."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return int(min(max(round(value), low), high))
