"""Which sensor can see an object within a time, and where it has to look."""

from __future__ import annotations

from collections.abc import Callable
from math import radians
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.codec.wire import Coordinates
from fusionnode.config import Config, Sensor
from fusionnode.core.refframes import EarthOrientation, enu_itrf, site_itrf

F64 = npt.NDArray[np.float64]
Carried = Callable[[F64, F64, npt.NDArray[np.int64], int], tuple[F64, F64]]
NS = 1_000_000_000
_STEPS = 40
_SHORTEST_NS = 2 * NS


class Aim(NamedTuple):
    """Where one sensor has to look, and when; SI, TAI ns."""

    sensor: str
    from_ns: int
    until_ns: int
    coordinates: Coordinates
    lon_rad: float
    lat_rad: float
    range_m: float
    lon_sigma_rad: float
    lat_sigma_rad: float
    elevation_rad: float


class Aimer:
    """All sensors of a node.

    Args:
        config: sites and sensors.
        orientation: of the Earth.
        carry: takes states to another time.
    """

    def __init__(self, config: Config, orientation: EarthOrientation, carry: Carried) -> None:
        self._orientation = orientation
        self._carry = carry
        self._places: dict[str, tuple[Sensor, F64, F64]] = {}
        for name, sensor in config.sensor.items():
            site = config.site[sensor.site]
            lat, lon = radians(site.lat_deg), radians(site.lon_deg)
            self._places[name] = (sensor, site_itrf(lat, lon, site.height_m), enu_itrf(lat, lon))

    def best(
        self, x: F64, P: F64, epoch_ns: int, from_ns: int, to_ns: int, sensors: list[str], dwell_ns: int
    ) -> Aim | None:
        """The look at which the object stands highest for one of ``sensors``; None: none sees it in that time.

        ``x`` (6,), ``P`` (6, 6) at ``epoch_ns``. A look takes ``dwell_ns``, and points to where the object is in its
        middle; its sigmas are those of the object's direction and half the way that it goes meanwhile.
        """
        best: Aim | None = None
        last_ns = max(to_ns - dwell_ns, from_ns)
        n = int(min(_STEPS, max(1, (last_ns - from_ns) // _SHORTEST_NS + 1)))
        for t in dict.fromkeys(from_ns + (last_ns - from_ns) * k // max(n - 1, 1) for k in range(n)):
            middle_ns = t + dwell_ns // 2
            y, C = self._carry(x[None], P[None], np.array([epoch_ns]), middle_ns)
            turn = self._orientation.gcrf_to_itrf(np.array([middle_ns]))[0]
            for name in sensors:
                aim = self._look(name, y[0], C[0], turn, t, dwell_ns)
                if aim is not None and (best is None or aim.elevation_rad > best.elevation_rad):
                    best = aim
        return best

    def _look(self, name: str, x: F64, P: F64, turn: F64, t_ns: int, dwell_ns: int) -> Aim | None:
        sensor, place, axes = self._places[name]
        if not sensor.enabled:
            return None
        site_r = turn.T @ place
        rho = x[:3] - site_r
        d = float(np.linalg.norm(rho))
        u = rho / d
        e, n, up = axes @ (turn @ u)
        az, el = float(np.arctan2(e, n)) % (2.0 * np.pi), float(np.arcsin(np.clip(up, -1.0, 1.0)))
        first, last = sensor.field_azimuth_deg
        if (
            not sensor.min_elevation_deg <= np.degrees(el) <= sensor.field_max_elevation_deg
            or (np.degrees(az) - first) % 360.0 > last - first
            or d > min(sensor.max_range_m, sensor.field_range_m or np.inf)
        ):
            return None
        if sensor.angles == "azel":
            coordinates, lon, lat = Coordinates.AZEL, az, el
        else:
            coordinates = Coordinates.RADEC
            lon, lat = float(np.arctan2(u[1], u[0])) % (2.0 * np.pi), float(np.arcsin(np.clip(u[2], -1, 1)))
        # Of the direction: the position's covariance across the line of sight, along its worse axis.
        across = np.eye(3) - np.outer(u, u)
        spread = float(np.sqrt(max(np.linalg.eigvalsh(across @ P[:3, :3] @ across)[-1], 0.0))) / d
        site_v = np.cross(turn.T @ np.array([0.0, 0.0, 7.292115e-5]), site_r)
        way = float(np.linalg.norm(across @ (x[3:] - site_v))) / d * 0.5 * dwell_ns * 1e-9
        sigma = min(float(np.hypot(spread, way)), 4.0)
        return Aim(name, t_ns, t_ns + dwell_ns, coordinates, lon, lat, d, sigma, sigma, el)
