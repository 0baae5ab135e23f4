"""The sensor interface, version 1, as numpy tables: what firmware_interfaces/include/fusionnode_wire.h says.

Every dtype has the names, offsets and signs of the C struct, every enum the values of the C one; a test
compiles the header and compares.
"""

from __future__ import annotations

import math
from enum import IntEnum, IntFlag

import numpy as np

WIRE_VERSION = 1
QUARTER_TURN_BAM32 = 0x40000000
TIME_LIMIT_NS = 0x4000000000000000
"""Every time on the wire is at least 0 and less than this, so that no difference of two overflows."""

RAD_PER_BAM32 = 2.0 * math.pi / 2.0**32


class MessageType(IntEnum):
    """fn_type."""

    RADAR = 1
    OPTICAL = 2
    STATUS = 3
    TIME = 4
    COMMAND = 16
    ACK = 17


class Flag(IntFlag):
    """fn_header.flags."""

    TIME_LOCKED = 0x0001
    SIMULATED = 0x0002
    CALIBRATION = 0x0004


class Valid(IntFlag):
    """fn_radar.valid, fn_optical.valid; the first three are core.types.Channel."""

    RANGE = 0x0001
    ANGLES = 0x0002
    RANGE_RATE = 0x0004
    SNR = 0x0008
    RCS = 0x0010
    MAGNITUDE = 0x0020


FLAGS_ALL = 0x0007
VALID_ALL_RADAR = 0x001F
VALID_ALL_OPTICAL = 0x0022


class Coordinates(IntEnum):
    """fn_coordinates."""

    RADEC = 0
    AZEL = 1


class Mode(IntEnum):
    """fn_mode."""

    OFF = 0
    STANDBY = 1
    SURVEY = 2
    TRACK = 3
    CALIBRATE = 4


class Health(IntFlag):
    """fn_status.health: a bit set is a fault; bits 8 to 15 are the maker's own."""

    TIME = 0x0001
    RECEIVER = 0x0002
    MOUNT = 0x0004
    TEMPERATURE = 0x0008
    QUEUE = 0x0010


HEALTH_ALL = 0xFF1F


class TimeSource(IntEnum):
    """fn_time_source."""

    FREE = 0
    NTP = 1
    PTP = 2
    GNSS = 3


class CommandCode(IntEnum):
    """fn_command_code."""

    PING = 1
    SET_MODE = 2
    CUE = 3
    TIME_SYNC = 4


class Result(IntEnum):
    """fn_result."""

    DONE = 0
    ACCEPTED = 1
    REFUSED = 2
    UNKNOWN = 3
    FAILED = 4


HEADER = np.dtype(
    [
        ("version", "u1"),
        ("type", "u1"),
        ("flags", "<u2"),
        ("sensor_id", "<u4"),
        ("seq", "<u4"),
        ("length", "<u2"),
        ("reserved", "<u2"),
        ("t_ns", "<i8"),
    ]
)

RADAR = np.dtype(
    [
        ("header", HEADER),
        ("range_mm", "<i8"),
        ("az_bam32", "<u4"),
        ("el_bam32", "<i4"),
        ("range_rate_mm_s", "<i4"),
        ("range_sigma_mm", "<u4"),
        ("az_sigma_nrad", "<u4"),
        ("el_sigma_nrad", "<u4"),
        ("range_rate_sigma_mm_s", "<u4"),
        ("snr_cdb", "<i2"),
        ("rcs_cdbsm", "<i2"),
        ("valid", "<u2"),
        ("reserved", "<u2"),
        ("target", "<u4"),
    ]
)

OPTICAL = np.dtype(
    [
        ("header", HEADER),
        ("lon_bam32", "<u4"),
        ("lat_bam32", "<i4"),
        ("lon_sigma_nrad", "<u4"),
        ("lat_sigma_nrad", "<u4"),
        ("magnitude_mmag", "<i2"),
        ("valid", "<u2"),
        ("coordinates", "u1"),
        ("reserved", "u1", (3,)),
        ("exposure_us", "<u4"),
        ("target", "<u4"),
    ]
)

STATUS = np.dtype(
    [
        ("header", HEADER),
        ("uptime_s", "<u4"),
        ("detections_sent", "<u4"),
        ("detections_dropped", "<u4"),
        ("frames_bad", "<u4"),
        ("commands_received", "<u4"),
        ("health", "<u2"),
        ("temperature_cdeg", "<i2"),
        ("mode", "u1"),
        ("reserved", "u1", (7,)),
    ]
)

TIME = np.dtype(
    [
        ("header", HEADER),
        ("sigma_ns", "<u4"),
        ("frequency_ppb", "<i4"),
        ("tai_minus_utc_s", "<i2"),
        ("source", "u1"),
        ("reserved", "u1", (5,)),
    ]
)

COMMAND = np.dtype(
    [
        ("header", HEADER),
        ("command_id", "<u4"),
        ("code", "u1"),
        ("argument", "u1"),
        ("coordinates", "u1"),
        ("reserved", "u1"),
        ("lon_bam32", "<u4"),
        ("lat_bam32", "<i4"),
        ("range_mm", "<i8"),
        ("lon_sigma_nrad", "<u4"),
        ("lat_sigma_nrad", "<u4"),
        ("until_ns", "<i8"),
    ]
)

ACK = np.dtype(
    [
        ("header", HEADER),
        ("command_id", "<u4"),
        ("code", "u1"),
        ("result", "u1"),
        ("reserved", "<u2"),
        ("received_ns", "<i8"),
    ]
)

MESSAGES = {
    MessageType.RADAR: RADAR,
    MessageType.OPTICAL: OPTICAL,
    MessageType.STATUS: STATUS,
    MessageType.TIME: TIME,
    MessageType.COMMAND: COMMAND,
    MessageType.ACK: ACK,
}
