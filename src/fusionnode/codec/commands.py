"""Commands of the node to a sensor, each as one frame ready to be written. Times are TAI ns.

Every function raises ValueError for a value that the interface has no room for.
"""

from __future__ import annotations

import math

import numpy as np

from fusionnode.codec import wire
from fusionnode.codec.framing import frame
from fusionnode.codec.wire import Coordinates, MessageType


def ping(*, sensor_id: int, seq: int, t_ns: int, command_id: int) -> bytes:
    """The frame of a PING, to be answered at once."""
    return _command(sensor_id, seq, t_ns, command_id, wire.CommandCode.PING)


def set_mode(mode: wire.Mode, *, sensor_id: int, seq: int, t_ns: int, command_id: int) -> bytes:
    """The frame of a SET_MODE that takes effect at ``t_ns``."""
    return _command(sensor_id, seq, t_ns, command_id, wire.CommandCode.SET_MODE, argument=mode)


def time_sync(*, sensor_id: int, seq: int, t_ns: int, command_id: int) -> bytes:
    """The frame of a TIME_SYNC: it is ``t_ns`` now."""
    return _command(sensor_id, seq, t_ns, command_id, wire.CommandCode.TIME_SYNC)


def cue(
    *,
    sensor_id: int,
    seq: int,
    t_ns: int,
    until_ns: int,
    command_id: int,
    coordinates: Coordinates,
    lon_rad: float,
    lat_rad: float,
    range_m: float = 0.0,
    lon_sigma_rad: float = 0.0,
    lat_sigma_rad: float = 0.0,
) -> bytes:
    """The frame of a CUE: look there from ``t_ns`` until ``until_ns``.

    ``lon_rad``, ``lat_rad``: right ascension and declination, or azimuth and elevation: see ``coordinates``.
    A range of 0 is unknown; the sigmas (on the sky) say how far around to search, 0: nowhere but there.
    """
    if not -math.pi / 2 <= lat_rad <= math.pi / 2 or not math.isfinite(lon_rad):
        raise ValueError(f"a cue needs |lat| <= pi/2 and a finite lon, not lon {lon_rad}, lat {lat_rad} rad")
    return _command(
        sensor_id,
        seq,
        t_ns,
        command_id,
        wire.CommandCode.CUE,
        coordinates=coordinates,
        lon_bam32=round(lon_rad / wire.RAD_PER_BAM32) % 2**32,
        lat_bam32=round(lat_rad / wire.RAD_PER_BAM32),
        range_mm=_quantity("range_m", range_m, 1e3, 2**63),
        lon_sigma_nrad=_quantity("lon_sigma_rad", lon_sigma_rad, 1e9, 2**32),
        lat_sigma_nrad=_quantity("lat_sigma_rad", lat_sigma_rad, 1e9, 2**32),
        until_ns=until_ns,
    )


def _quantity(name: str, value: float, scale: float, limit: int) -> int:
    if not 0.0 <= value * scale < limit - 1:
        raise ValueError(f"{name} = {value} does not fit the interface")
    return round(value * scale)


def _command(
    sensor_id: int, seq: int, t_ns: int, command_id: int, code: wire.CommandCode, **fields: int
) -> bytes:
    for name, t in (("t_ns", t_ns), ("until_ns", fields.get("until_ns", 0))):
        if not 0 <= t < wire.TIME_LIMIT_NS:
            raise ValueError(f"{name} = {t} is not a time of the interface")
    message = np.zeros((), wire.COMMAND)
    size = wire.COMMAND.itemsize
    message["header"] = (wire.WIRE_VERSION, MessageType.COMMAND, 0, sensor_id, seq, size, 0, t_ns)
    message["command_id"] = command_id
    message["code"] = code
    for name, value in fields.items():
        message[name] = value
    return frame(message.tobytes())
