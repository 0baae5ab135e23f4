"""What travels through the node: link records, detections, measurements, reports.

One thing at a time is a frozen dataclass or named tuple; many things are one numpy structured array.
Numbers are SI (m, m/s, rad) in float64; times are int64 TAI nanoseconds since 1970-01-01T00:00:00 TAI.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

StructArray = npt.NDArray[np.void]
"""A structured array; its docstring or name says of which dtype."""


class LinkRecord(NamedTuple):
    """Bytes as they came over a link, not yet looked at.

    ``data`` is one read of a serial line (any cut) or one whole ZeroMQ message.
    """

    t_rx_ns: int
    link_id: str
    data: bytes


class Kind(IntEnum):
    """What a detection's channels mean."""

    RADAR_AZEL = 1  # range, azimuth, elevation, range rate
    OPTICAL_AZEL = 2  # azimuth, elevation
    OPTICAL_RADEC = 3  # right ascension, declination (astrometric place in GCRF axes)


class Channel(IntFlag):
    """Which channels of a detection or measurement are present."""

    RANGE = 1
    ANGLES = 2
    RANGE_RATE = 4


class DetectionFlag(IntFlag):
    """Header flags of the sensor interface, version 1 (see firmware_interfaces/include)."""

    TIME_LOCKED = 1
    SIMULATED = 2
    CALIBRATION = 4


DETECTION = np.dtype(
    [
        ("t_meas_ns", "i8"),  # TAI, as stamped by the sensor
        ("t_rx_ns", "i8"),  # TAI, as stamped by the node
        ("sensor_id", "u4"),
        ("seq", "u4"),
        ("kind", "u1"),  # Kind
        ("channels", "u1"),  # Channel
        ("flags", "u2"),  # DetectionFlag
        ("range_m", "f8"),  # one way or round trip, as the sensor's config says
        ("lon_rad", "f8"),  # azimuth from north towards east, or right ascension
        ("lat_rad", "f8"),  # elevation above the geodetic horizon, or declination
        ("range_rate_m_s", "f8"),
        ("range_sigma_m", "f8"),  # a sigma of 0 means: take the configured one
        ("lon_sigma_rad", "f8"),  # on the sky: sigma of lon times cos(lat)
        ("lat_sigma_rad", "f8"),
        ("range_rate_sigma_m_s", "f8"),
        ("snr_db", "f4"),  # nan where not given; so are the next four
        ("rcs_dbsm", "f4"),
        ("magnitude", "f4"),
        ("exposure_s", "f4"),
    ],
    align=True,
)
"""A decoded report in the sensor's terms: angles as the sensor measured them, biases still in."""

MEASUREMENT = np.dtype(
    [
        ("t_meas_ns", "i8"),
        ("t_rx_ns", "i8"),
        ("sensor", "i4"),  # index into the configured sensors
        ("channels", "u1"),  # Channel
        ("seq", "u4"),
        ("site_r", "f8", (3,)),  # m, GCRF, at t_meas
        ("site_v", "f8", (3,)),  # m/s, GCRF
        ("los", "f8", (3,)),  # unit vector, measured line of sight, GCRF axes
        ("e_lon", "f8", (3,)),  # unit vector on the sky, growing azimuth or right ascension
        ("e_lat", "f8", (3,)),  # unit vector on the sky, growing elevation or declination
        ("range_m", "f8"),
        ("range_rate_m_s", "f8"),
        ("var", "f8", (4,)),  # m^2, rad^2 (lon on the sky), rad^2 (lat), m^2/s^2
        ("target_delay", "f8"),  # 1: target seen one light time before t_meas; 0: at t_meas
        ("site_delay", "f8"),  # 1: site taken one light time before t_meas; 0: at t_meas
    ],
    align=True,
)
"""Corrected, SI, time-tagged. Angles are a direction and a tangent plane at it, so that neither the
zenith, nor a pole, nor the step from 360 to 0 is a special place for anything downstream.
A channel that is absent has range_m or range_rate_m_s of 0 and is not looked at."""


class ReportKind(IntEnum):
    """Message types of the sensor interface that are not detections."""

    STATUS = 3
    TIME = 4
    ACK = 17


@dataclass(frozen=True, slots=True)
class SensorReport:
    """A heartbeat, time report or acknowledgement from a sensor; ``fields`` are the message's own, in SI."""

    kind: ReportKind
    sensor_id: int
    seq: int
    flags: int
    t_ns: int
    t_rx_ns: int
    fields: dict[str, int | float]


class Decoded(NamedTuple):
    """What a codec made of the bytes it was fed. Frames that gave neither are in the outcome counters."""

    detections: StructArray  # DETECTION[n], in the order of arrival
    reports: list[SensorReport]


def no_detections() -> StructArray:
    """An empty DETECTION array."""
    return np.zeros(0, DETECTION)


class Status(IntEnum):
    """Life of a track; a dropped one is published as a tombstone, not as a state."""

    TENTATIVE = 0
    CONFIRMED = 1
    COASTING = 2


TRACK_STATE = np.dtype(
    [
        ("track", "i8"),  # the track's number, never used twice by a node
        ("epoch_ns", "i8"),  # TAI, of x and P
        ("last_ob_ns", "i8"),  # TAI, of the newest measurement used
        ("status", "u1"),  # Status
        ("x", "f8", (6,)),  # m, m/s, GCRF
        ("P", "f8", (6, 6)),  # covariance of x, SI
        ("sensors", "u8"),  # bit i: the sensor with index i has contributed
        ("object", "i8"),  # row of the catalogue, or -1: uncorrelated
        ("object_p", "f8"),  # probability that it is that object; nan where not known, or uncorrelated
        ("updates", "u4"),  # measurements used so far
        ("nis", "f8"),  # of the update that made this state; nan on a coast
        ("dof", "u1"),  # of nis; 0 on a coast
        ("existence", "f8"),  # probability that there is such an object, at last_ob_ns or the miss after it
    ],
    align=True,
)
"""One track at one moment, as the tracker reports it."""

MAX_SENSORS = 64
"""As many as TRACK_STATE.sensors has bits."""


@dataclass(frozen=True, slots=True)
class KnownObject:
    """What a track's correlated catalogue object is called."""

    sat_no: int
    name: str
    international_designator: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A track ended. ``successor`` is the track that goes on in its place, if one does."""

    track: int
    t_ns: int
    reason: str
    successor: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """Something happened to a tracked object, with the evidence for it; what does not apply is None.

    SI, TAI ns, GCRF. ``t_ns`` is when the node could tell, ``epoch_ns`` when it happened (or, of a re-entry to come,
    will), between ``from_ns`` (None: nobody knows how long before) and ``to_ns``.
    """

    kind: str
    track: int
    t_ns: int
    epoch_ns: int | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    related: int | None = None
    """Number of the other track: of a new object the known one that it passed."""
    count: int | None = None
    """Of a break-up: new objects so far."""
    delta_v: tuple[float, float, float] | None = None
    delta_v_sigma_m_s: float | None = None
    distance_m: float | None = None
    distance_sigma_m: float | None = None
    speed_m_s: float | None = None
    height_m: float | None = None
    perigee_m: float | None = None
    sensors: int = 0
    """Bit i: the sensor with index i has borne witness."""
    nis: float | None = None
    """Mean NIS of the innovations that gave it away."""
    dof: float | None = None
    object: int = -1
    """Row of the catalogue, or -1."""
