"""Made-up skies for the tracker: orbits, a turning site, noisy measurements in GCRF."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusionnode.config import Config, parse
from fusionnode.core.types import MEASUREMENT, Channel, StructArray
from fusionnode.track.motion.dynamics import MU, coarse_step, model

NS = 1_000_000_000
POLE = np.array([0.002, 0.0001, 1.0]) / np.linalg.norm([0.002, 0.0001, 1.0])
GRAVITY = model(6, POLE)
EARTH_RATE = np.array([0.0, 0.0, 7.292115e-5])


class FixedPole:
    """Earth orientation as the tracker asks for it."""

    def pole(self, t_ns: np.ndarray) -> np.ndarray:
        return np.tile(POLE, (len(t_ns), 1))


def station(tracking: str = "", sensors: str = "") -> Config:
    """A station with two radars (ids 1, 2) and a telescope (3) at one site."""
    return parse(
        f"""
[node]
id = "test"
[site.here]
lat_deg = 0.0
lon_deg = 0.0
[sensor.radar]
id = 1
kind = "radar"
site = "here"
[sensor.second]
id = 2
kind = "radar"
site = "here"
[sensor.telescope]
id = 3
kind = "optical"
site = "here"
{sensors}
[tracking]
dynamics = "zonal"
{tracking}
""",
        Path("test.toml"),
    )


def circular(height_m: float, inclination_deg: float, along_deg: float, node_deg: float = 0.0) -> np.ndarray:
    """State (6,) of a circular orbit; ``along_deg`` from the ascending node."""
    r = 6_378_137.0 + height_m
    u, i, n = np.radians([along_deg, inclination_deg, node_deg])
    p = np.array([np.cos(n), np.sin(n), 0.0])
    q = np.array([-np.sin(n) * np.cos(i), np.cos(n) * np.cos(i), np.sin(i)])
    v = np.sqrt(MU / r)
    return np.concatenate([r * (np.cos(u) * p + np.sin(u) * q), v * (np.cos(u) * q - np.sin(u) * p)])


def ephemeris(x0: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """States (n, 6) of the orbit through ``x0`` at 0 s, by the tracker's own dynamics."""
    r, v = x0[:3].copy(), x0[3:].copy()
    out, t = [], 0.0
    for at in times_s:
        coarse_step(r, v, at - t, GRAVITY)
        t = at
        out.append(np.concatenate([r, v]))
    return np.array(out)


def site(t_s: float, lon_deg: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Position and velocity of a site on the equator."""
    angle = np.radians(lon_deg) + EARTH_RATE[2] * t_s
    r = 6_378_137.0 * np.array([np.cos(angle), np.sin(angle), 0.0])
    return r, np.cross(EARTH_RATE, r)


def measure(
    states: np.ndarray,
    times_s: np.ndarray,
    rng: np.random.Generator,
    *,
    sensor: int = 0,
    sigma: tuple[float, float, float] = (20.0, 1e-4, 0.5),
    channels: int = int(Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE),
    lon_deg: float = 0.0,
    start_ns: int = 0,
) -> StructArray:
    """MEASUREMENT[n] of states (n, 6), with noise of range (m), each angle (rad) and range rate (m/s)."""
    out = np.zeros(len(states), MEASUREMENT)
    for row, x, t in zip(out, states, times_s, strict=True):
        r, v = site(t, lon_deg)
        rho = x[:3] - r
        d = float(np.linalg.norm(rho))
        row["los"] = u = rho / d
        east = np.cross([0.0, 0.0, 1.0], u)
        east /= np.linalg.norm(east)
        u = u + sigma[1] * (rng.normal() * east + rng.normal() * np.cross(u, east))
        u /= np.linalg.norm(u)
        east = np.cross([0.0, 0.0, 1.0], u)
        east /= np.linalg.norm(east)
        row["los"], row["e_lon"], row["e_lat"] = u, east, np.cross(u, east)
        row["site_r"], row["site_v"] = r, v
        row["range_m"] = d + sigma[0] * rng.normal()
        row["range_rate_m_s"] = float((rho / d) @ (x[3:] - v)) + sigma[2] * rng.normal()
    out["t_meas_ns"] = out["t_rx_ns"] = start_ns + np.round(np.asarray(times_s) * NS).astype(np.int64)
    out["sensor"], out["channels"] = sensor, channels
    out["var"] = [sigma[0] ** 2, sigma[1] ** 2, sigma[1] ** 2, sigma[2] ** 2]
    out["seq"] = np.arange(len(out))
    return out


def in_order(*parts: StructArray) -> StructArray:
    """All of them, as the ordering stage would release them."""
    joined = np.concatenate(parts)
    return joined[np.lexsort((joined["seq"], joined["sensor"], joined["t_meas_ns"]))]
