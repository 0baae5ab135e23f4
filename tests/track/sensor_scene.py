"""Days of passes of made-up satellites over made-up radars with known faults, by the node's own dynamics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scene import EARTH_RATE, GRAVITY, NS, circular

from fusionnode.core.types import MEASUREMENT, Channel, StructArray
from fusionnode.track.calibration.arcs import Points
from fusionnode.track.calibration.orbit import Orbit
from fusionnode.track.filtering.sensing import COLUMNS

START_NS = 1_700_000_000 * NS
PLACES = ((21.6, -158.3), (-7.9, -14.4), (17.1, -61.8))


@dataclass(frozen=True)
class Radar:
    """A radar's place and faults: bias (range m, az rad, el rad, time s), pass error, wander and noise (range, az,
    el)."""

    lat_deg: float
    lon_deg: float
    bias: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    between: tuple[float, float, float] = (8.0, 1e-4, 1e-4)
    within: tuple[float, float, float] = (5.0, 1e-4, 1e-4)
    alike: float = 0.6

    def place(self, t_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position and velocity (n, 3), GCRF, at seconds (n,)."""
        lon = np.radians(self.lon_deg) + EARTH_RATE[2] * t_s
        lat = np.radians(self.lat_deg)
        r = 6_378_137.0 * np.stack(
            [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.full(len(lon), np.sin(lat))], 1
        )
        return r, np.cross(EARTH_RATE, r)


def passes(
    radar: Radar, x0: np.ndarray, days: float, orbit: Orbit, least_deg: float = 15.0
) -> list[np.ndarray]:
    """Times (s, each a multiple of 10) of every pass of the orbit ``x0`` at 0 s."""
    t = np.arange(0.0, days * 86_400.0, 10.0)
    x = orbit.flow(x0, START_NS, START_NS + (t * NS).astype(np.int64), 0.0).x
    r, _ = radar.place(t)
    d = x[:, :3] - r
    sine = np.einsum("ni,ni->n", d, r) / np.linalg.norm(d, axis=1) / np.linalg.norm(r, axis=1)
    seen = np.flatnonzero(sine > np.sin(np.radians(least_deg)))
    return [p for p in np.split(t[seen], np.flatnonzero(np.diff(seen) > 1) + 1) if len(p) >= 6]


def measured(
    radar: Radar, sensor: int, t_s: np.ndarray, x: np.ndarray, rng: np.random.Generator
) -> StructArray:
    """MEASUREMENT[n] of one pass, states ``x`` (n, 6) at the times of measurement less the time bias, with all
    faults."""
    n = len(t_s)
    true_s = t_s - radar.bias[3]
    r, v = radar.place(true_s)
    d = x[:, :3] - r
    rho = np.linalg.norm(d, axis=1)
    wander = np.empty((n, 3))
    fresh = rng.normal(size=(n, 3))
    wander[0] = fresh[0]
    for i in range(1, n):
        wander[i] = radar.alike * wander[i - 1] + np.sqrt(1.0 - radar.alike**2) * fresh[i]
    error = wander * radar.within + rng.normal(size=3) * radar.between
    up = r / np.linalg.norm(r, axis=1)[:, None]
    u = d / rho[:, None]
    east = np.cross([0.0, 0.0, 1.0], up)
    east /= np.linalg.norm(east, axis=1)[:, None]
    north = np.cross(up, east)
    el = np.arcsin(np.einsum("ni,ni->n", u, up))
    az = np.arctan2(np.einsum("ni,ni->n", u, east), np.einsum("ni,ni->n", u, north))
    az = az + radar.bias[1] + error[:, 1] / np.cos(el)
    el = el + radar.bias[2] + error[:, 2]
    # the horizon in which angles are told is that of the time stamp
    r1, v1 = radar.place(t_s)
    up = r1 / np.linalg.norm(r1, axis=1)[:, None]
    east = np.cross([0.0, 0.0, 1.0], up)
    east /= np.linalg.norm(east, axis=1)[:, None]
    north = np.cross(up, east)
    ce, se, ca, sa = (f[:, None] for f in (np.cos(el), np.sin(el), np.cos(az), np.sin(az)))
    out = np.zeros(n, MEASUREMENT)
    out["los"] = ce * (sa * east + ca * north) + se * up
    out["e_lon"] = ca * east - sa * north
    out["e_lat"] = ce * up - se * (sa * east + ca * north)
    out["site_r"], out["site_v"] = r1, v1
    out["range_m"] = rho + radar.bias[0] + error[:, 0]
    out["range_rate_m_s"] = np.einsum("ni,ni->n", u, x[:, 3:] - v)
    out["t_meas_ns"] = out["t_rx_ns"] = START_NS + np.round(t_s * NS).astype(np.int64)
    out["sensor"], out["channels"] = sensor, int(Channel.RANGE | Channel.ANGLES)
    out["var"] = [20.0**2, 3e-4**2, 3e-4**2, 1.0]
    return out


def orbits(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Circular orbits 700 to 1400 km high."""
    return [
        circular(rng.uniform(7e5, 1.4e6), rng.uniform(50.0, 100.0), rng.uniform(0, 360), rng.uniform(0, 360))
        for _ in range(n)
    ]


def arc_of(
    radars: list[Radar], x0: np.ndarray, days: float, orbit: Orbit, rng: np.random.Generator
) -> Points:
    """One track's arc as the collector would give it."""
    parts: list[StructArray] = []
    for sensor, radar in enumerate(radars):
        for t in passes(radar, x0, days, orbit):
            true_ns = START_NS + np.round((t - radar.bias[3]) * NS).astype(np.int64)
            x = orbit.flow(x0, START_NS, true_ns, 0.0).x
            parts.append(measured(radar, sensor, t, x, rng))
    parts.sort(key=lambda p: int(p["t_meas_ns"][0]))
    whole = np.concatenate(parts)
    return Points(
        np.ascontiguousarray(whole["t_meas_ns"]),
        np.ascontiguousarray(whole).view(np.float64).reshape(len(whole), COLUMNS),
        np.ascontiguousarray(whole["channels"]),
        whole["sensor"].astype(np.int64),
        np.repeat(np.arange(len(parts)), [len(p) for p in parts]),
    )


def orbit() -> Orbit:
    """The dynamics of the made-up world."""
    return Orbit(GRAVITY)
