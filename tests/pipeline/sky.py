"""Detections of made-up orbits by sensors on the real Earth, and a station that expects them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusionnode.config import Config, parse
from fusionnode.core.refframes import EarthOrientation, enu_itrf, site_itrf
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import DETECTION, Channel, Kind, StructArray
from fusionnode.track.motion.dynamics import MU, coarse_step, model

NS = 1_000_000_000
START_NS = tai_ns_from_utc_text("2025-09-01T00:00:00")
LAT, LON = np.radians(40.0), np.radians(-3.0)


def station(tracking: str = "", more: str = "", sensor: str = "") -> Config:
    """A radar (1) and two telescopes (2: az/el, 3: RA/Dec) at one site."""
    return parse(
        f"""
[node]
id = "test"
[site.here]
lat_deg = 40.0
lon_deg = -3.0
[sensor.radar]
id = 1
kind = "radar"
site = "here"
range_sigma_m = 20.0
lon_sigma_deg = 0.01
lat_sigma_deg = 0.01
{sensor}
[sensor.azel]
id = 2
kind = "optical"
site = "here"
lon_sigma_deg = 0.001
lat_sigma_deg = 0.001
[sensor.radec]
id = 3
kind = "optical"
angles = "radec"
site = "here"
lon_sigma_deg = 0.001
lat_sigma_deg = 0.001
[link.line]
kind = "serial"
device = "/dev/null"
[tracking]
dynamics = "zonal"
hold_back_s = 0.5
{tracking}
{more}
""",
        Path("test.toml"),
    )


def overhead(
    orientation: EarthOrientation, height_m: float = 800e3, east_deg: float = 0.0, heading_deg: float = 30.0
) -> np.ndarray:
    """State (6,) at START_NS of a circular orbit through the site's zenith, or ``east_deg`` beside it."""
    up = orientation.gcrf_to_itrf(np.array([START_NS]))[0].T @ site_itrf(LAT, LON + np.radians(east_deg), 0.0)
    up /= np.linalg.norm(up)
    r = (6_378_137.0 + height_m) * up
    east = np.cross([0.0, 0.0, 1.0], up)
    east /= np.linalg.norm(east)
    north = np.cross(up, east)
    h = np.radians(heading_deg)
    return np.concatenate([r, np.sqrt(MU / np.linalg.norm(r)) * (np.cos(h) * north + np.sin(h) * east)])


def states_at(orientation: EarthOrientation, x0: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """States (n, 6) at ``times_s`` after START_NS."""
    gravity = model(6, orientation.pole(np.array([START_NS]))[0])
    out = []
    for t in times_s:
        r, v = x0[:3].copy(), x0[3:].copy()
        coarse_step(r, v, float(t), gravity)
        out.append(np.concatenate([r, v]))
    return np.array(out)


def detections(
    orientation: EarthOrientation,
    x0: np.ndarray,
    times_s: np.ndarray,
    kind: Kind = Kind.RADAR_AZEL,
    rng: np.random.Generator | None = None,
) -> StructArray:
    """DETECTION[n] of one object by one sensor, with the station's noise if ``rng`` is given."""
    out = np.zeros(len(times_s), DETECTION)
    noise = np.zeros((len(times_s), 4)) if rng is None else rng.normal(size=(len(times_s), 4))
    t_ns = START_NS + np.round(np.asarray(times_s) * NS).astype(np.int64)
    station_r = site_itrf(LAT, LON, 0.0)
    turn = orientation.gcrf_to_itrf(t_ns)
    sigma = np.radians(0.01 if kind is Kind.RADAR_AZEL else 0.001)
    for row, x, M, e in zip(out, states_at(orientation, x0, times_s), turn, noise, strict=True):
        site_r = M.T @ station_r
        site_v = np.cross(M.T @ [0.0, 0.0, 7.292115e-5], site_r)
        rho = x[:3] - site_r
        if kind is not Kind.RADAR_AZEL:
            rho = rho - x[3:] * np.linalg.norm(rho) / 299_792_458.0
        d = float(np.linalg.norm(rho))
        u = rho / d
        row["range_m"] = d + 20.0 * e[0]
        row["range_rate_m_s"] = u @ (x[3:] - site_v) + e[3]
        if kind is not Kind.OPTICAL_RADEC:
            east, north, up = enu_itrf(LAT, LON) @ (M @ u)
            lon, lat = np.arctan2(east, north), np.arcsin(up)
        else:
            lon, lat = np.arctan2(u[1], u[0]), np.arcsin(u[2])
        row["lon_rad"] = (lon + sigma * e[1] / np.cos(lat)) % (2 * np.pi)
        row["lat_rad"] = lat + sigma * e[2]
    out["t_meas_ns"] = out["t_rx_ns"] = t_ns
    out["seq"] = np.arange(len(out))
    out["kind"], out["sensor_id"] = (
        kind,
        {Kind.RADAR_AZEL: 1, Kind.OPTICAL_AZEL: 2, Kind.OPTICAL_RADEC: 3}[kind],
    )
    out["channels"] = Channel.ANGLES
    if kind is Kind.RADAR_AZEL:
        out["channels"] = Channel.ANGLES | Channel.RANGE | Channel.RANGE_RATE
    return out
