"""Emulated detections of a satellite whose path is known, many seeds at a time: two radars and a telescope.

The truth is an SP3 file, or anything else that `fusionnode_hil` reads; geometry and light are the emulators', not
the node's. What is drawn is noise only: where and when a sensor looks is the same for every seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config, parse
from fusionnode.core.types import DETECTION, Channel, Kind, StructArray
from fusionnode_hil.earth import OMEGA, Place, lon_lat, rotate, unit
from fusionnode_hil.sky import sun_gcrf, sunlit_fraction
from fusionnode_hil.telescope import seen_light_time_ago
from fusionnode_hil.truth import Truth

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
NS = 1_000_000_000
RADARS = {"north": (1, 67.0, 21.0, 300.0), "south": (2, -31.0, 115.0, 250.0)}
TELESCOPE = {"south": (3, -35.3, 149.0, 770.0)}
RANGE_M, ANGLE_DEG, RATE_M_S, ARCSEC = 20.0, 0.01, 0.5, 2.0
LOWEST_DEG = 10.0
DARK_SUN_DEG = -6.0


def station(tracking: str = "", revisit_s: float = 1.0) -> Config:
    """Two radars (20 m, 0.01 deg, 0.5 m/s) and a telescope (2 arcsec); ``tracking``: TOML lines of that table."""
    lines = ['[node]\nid = "emulated"']
    for name, (number, lat, lon, height) in RADARS.items():
        lines.append(f"[site.{name}]\nlat_deg = {lat}\nlon_deg = {lon}\nheight_m = {height}")
        lines.append(
            f'[sensor.{name}]\nid = {number}\nkind = "radar"\nsite = "{name}"\nrange_sigma_m = {RANGE_M}\n'
            f"lon_sigma_deg = {ANGLE_DEG}\nlat_sigma_deg = {ANGLE_DEG}\nrange_rate_sigma_m_s = {RATE_M_S}\n"
            f"revisit_s = {revisit_s}"
        )
    for name, (number, lat, lon, height) in TELESCOPE.items():
        lines.append(f"[site.optical_{name}]\nlat_deg = {lat}\nlon_deg = {lon}\nheight_m = {height}")
        lines.append(
            f'[sensor.telescope_{name}]\nid = {number}\nkind = "optical"\nangles = "radec"\n'
            f'site = "optical_{name}"\nlon_sigma_deg = {ARCSEC / 3600}\nlat_sigma_deg = {ARCSEC / 3600}\n'
            f"revisit_s = {revisit_s}"
        )
    lines.append("[calibration]\nenabled = false")  # these sensors are what their configuration says
    return parse("\n".join(lines) + "\n[tracking]\n" + tracking + "\n", Path("emulated.toml"))


@dataclass(frozen=True)
class Looks:
    """All looks that find the satellite, in time order, without noise: DETECTION[n], and the truth at their times."""

    detections: StructArray
    truth: F64  # (n, 6) m, m/s, GCRF

    def noisy(self, seed: int) -> StructArray:
        """The detections with the sensors' noise; a seed is a draw."""
        rng = np.random.default_rng(seed)
        out = self.detections.copy()
        noise = rng.standard_normal((len(out), 4))
        radar = out["kind"] == Kind.RADAR_AZEL
        angle = np.where(radar, np.radians(ANGLE_DEG), np.radians(ARCSEC / 3600.0))
        out["range_m"] += np.where(radar, RANGE_M * noise[:, 0], 0.0)
        # on the sky: in the plane that touches it, so that nothing is special near the zenith
        u = direction(out["lon_rad"], out["lat_rad"])
        east = np.stack([-np.sin(out["lon_rad"]), np.cos(out["lon_rad"]), np.zeros(len(out))], axis=1)
        u = u + angle[:, None] * (noise[:, 1, None] * east + noise[:, 2, None] * np.cross(u, east))
        out["lon_rad"], out["lat_rad"] = lon_lat(u)
        out["range_rate_m_s"] += np.where(radar, RATE_M_S * noise[:, 3], 0.0)
        return out


def direction(lon: F64, lat: F64) -> F64:
    """Unit vectors (n, 3)."""
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def looks(truth: Truth, start_ns: int, hours: float, revisit_s: float = 1.0) -> Looks:
    """What the sensors see of the first body of ``truth``: radars above LOWEST_DEG, the telescope when it is also dark
    there and the satellite is lit.
    """
    parts, truths = [], []
    sensors = [(Kind.RADAR_AZEL, where) for where in RADARS.values()]
    sensors += [(Kind.OPTICAL_RADEC, where) for where in TELESCOPE.values()]
    for phase, (kind, (number, lat_deg, lon_deg, height)) in enumerate(sensors):
        # no two sensors look at the same moment, so that a time names a look
        t = np.arange(phase / len(sensors), hours * 3600.0 / revisit_s) * revisit_s
        t_ns = start_ns + np.round(t * NS).astype(np.int64)
        pieces = np.array_split(t_ns, 1 + len(t_ns) // 20_000)
        state = np.concatenate([truth.states(piece)[0] for piece in pieces])
        itrf = np.concatenate([truth.orientation.at(piece).itrf_gcrf for piece in pieces])
        place = Place.geodetic(lat_deg, lon_deg, height)
        look = _by_radar if kind == Kind.RADAR_AZEL else _by_telescope
        seen, out = look(place, t_ns, state, itrf)
        out["sensor_id"], out["kind"] = number, kind
        out["t_meas_ns"] = out["t_rx_ns"] = t_ns[seen]
        parts.append(out)
        truths.append(state[seen])
    detections, where = np.concatenate(parts), np.concatenate(truths)
    order = np.lexsort((detections["sensor_id"], detections["t_meas_ns"]))
    detections, where = detections[order], where[order]
    detections["seq"] = np.arange(1, len(detections) + 1)
    return Looks(detections, where)


def _by_radar(place: Place, t_ns: I64, state: F64, itrf: F64) -> tuple[npt.NDArray[np.bool_], StructArray]:
    fixed = rotate(itrf, state[:, :3])
    moving = rotate(itrf, state[:, 3:]) - np.cross(OMEGA, fixed)
    relative = fixed - place.itrf
    rho = np.linalg.norm(relative, axis=1)
    az, el = lon_lat(relative @ place.horizon.T)
    seen = el > np.radians(LOWEST_DEG)
    out = np.zeros(np.count_nonzero(seen), DETECTION)
    out["channels"] = Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE
    out["range_m"], out["lon_rad"], out["lat_rad"] = rho[seen], az[seen], el[seen]
    out["range_rate_m_s"] = np.sum(relative * moving, axis=1)[seen] / rho[seen]
    return seen, out


def _by_telescope(
    place: Place, t_ns: I64, state: F64, itrf: F64
) -> tuple[npt.NDArray[np.bool_], StructArray]:
    site = place.gcrf(itrf)
    sun = sun_gcrf(t_ns)
    then = seen_light_time_ago(state[None], site[:, :3])[0]
    los = unit(then - site[:, :3])
    horizon = place.horizon @ itrf
    el = lon_lat(rotate(horizon, los))[1]
    dark = lon_lat(rotate(horizon, unit(sun - site[:, :3])))[1] < np.radians(DARK_SUN_DEG)
    seen = (el > np.radians(LOWEST_DEG)) & dark & (sunlit_fraction(then, sun) > 0.5)
    out = np.zeros(np.count_nonzero(seen), DETECTION)
    out["channels"] = Channel.ANGLES
    out["lon_rad"], out["lat_rad"] = lon_lat(los[seen])
    return seen, out
