"""A made-up sky over one radar site, for all benchmarks: truth, detections, measurements, tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config, parse
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation, enu_itrf, site_itrf
from fusionnode.core.types import DETECTION, Channel, Kind, StructArray
from fusionnode.intake.measure import Measurer
from fusionnode.track import picture
from fusionnode.track.association import associate, coarse
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.motion.dynamics import MU, coarse_step, model
from fusionnode_hil import wire

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

NS = 1_000_000_000
SEED = 20261124
LAT, LON = np.radians(45.0), np.radians(10.0)
RADARS = 16
SIGMA = (10.0, 2e-5, 2e-5, 0.5)  # m, rad on the sky, rad, m/s
SPREAD = np.diag([30.0] * 3 + [0.3] * 3) ** 2  # covariance of a track that is held well, m^2, m^2/s^2
STATION = """
[node]
id = "bench"
[site.here]
lat_deg = 45.0
lon_deg = 10.0
[tracking]
dynamics = "zonal"
hold_back_s = 0.0
initiation_buffer = 256
""" + "".join(
    f"""
[sensor.radar{k:02d}]
id = {k}
kind = "radar"
site = "here"
revisit_s = 20.0
"""
    for k in range(1, RADARS + 1)
)


def station(more: str = "") -> Config:
    """Sixteen radars at one site; ``more`` TOML is put behind."""
    return parse(STATION + more, Path("bench.toml"))


class Sky:
    """``n`` objects on circular orbits, 900 to 1,800 km high, 35 to 85 degrees above the horizon at ``start_ns``."""

    def __init__(self, n: int, start_ns: int, seed: int = SEED, sigma: tuple[float, ...] = SIGMA) -> None:
        self.sigma = sigma
        self.orientation = EarthOrientation()
        self.rng = np.random.default_rng(seed)
        self.gravity = model(6, self.orientation.pole(np.array([start_ns]))[0])
        self.measurer = Measurer(station(), self.orientation, Outcomes())
        self._t = np.full(n, start_ns)
        el, az = self.rng.uniform(0.6, 1.5, n), self.rng.uniform(0.0, 2.0 * np.pi, n)
        along = np.stack([np.cos(el) * np.sin(az), np.cos(el) * np.cos(az), np.sin(el)], axis=1)
        to_itrf = self.orientation.gcrf_to_itrf(np.array([start_ns]))[0]
        u = along @ enu_itrf(LAT, LON) @ to_itrf
        site = to_itrf.T @ site_itrf(LAT, LON, 0.0)
        radius = 6.378e6 + self.rng.uniform(0.9e6, 1.8e6, n)
        b = u @ site
        r = site + u * (-b + np.sqrt(b * b - site @ site + radius * radius))[:, None]
        across = np.cross(r, self.rng.normal(size=(n, 3)))
        v = across / np.linalg.norm(across, axis=1)[:, None] * np.sqrt(MU / radius)[:, None]
        self._x = np.concatenate([r, v], axis=1)

    def pair_up(self, apart_m: float) -> None:
        """Put every other object ``apart_m`` beside the one before it, on the same orbit but for that."""
        leader = self._x[0 : len(self._x) // 2 * 2 : 2]
        away = self.rng.normal(size=(len(leader), 3))
        away *= apart_m / np.linalg.norm(away, axis=1)[:, None]
        self._x[1::2][: len(leader)] = leader + np.concatenate([away, np.zeros_like(away)], axis=1)

    def states(self, which: I64, t_ns: I64) -> F64:
        """GCRF states (k, 6) of objects ``which`` at TAI ``t_ns`` (k,), not falling for any of them."""
        out = np.empty((len(which), 6))
        for i, (k, t) in enumerate(zip(which.tolist(), t_ns.tolist(), strict=True)):
            coarse_step(self._x[k, :3], self._x[k, 3:], (t - self._t[k]) * 1e-9, self.gravity)
            self._t[k] = t
            out[i] = self._x[k]
        return out

    def detections(self, which: I64, t_ns: I64, sensor_id: I64 | int = 1) -> StructArray:
        """DETECTION[k] of objects ``which`` at ``t_ns``, with noise."""
        x = self.states(which, t_ns)
        site_r, site_v = self.measurer.site_state(0, t_ns)
        rho = x[:, :3] - site_r
        d = np.linalg.norm(rho, axis=1)
        u = rho / d[:, None]
        e, n, up = enu_itrf(LAT, LON) @ np.einsum("nij,nj->in", self.orientation.gcrf_to_itrf(t_ns), u)
        noise = self.rng.normal(size=(4, len(which)))
        out = np.zeros(len(which), DETECTION)
        out["t_meas_ns"] = out["t_rx_ns"] = t_ns
        out["sensor_id"], out["kind"], out["flags"] = sensor_id, Kind.RADAR_AZEL, wire.TIME_LOCKED
        out["seq"] = np.arange(len(which))
        out["channels"] = Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE
        out["range_m"] = d + self.sigma[0] * noise[0]
        out["lon_rad"] = (np.arctan2(e, n) + self.sigma[1] * noise[1] / np.hypot(e, n)) % (2.0 * np.pi)
        out["lat_rad"] = np.arcsin(up) + self.sigma[2] * noise[2]
        out["range_rate_m_s"] = np.einsum("ij,ij->i", u, x[:, 3:] - site_v) + self.sigma[3] * noise[3]
        for name, sigma in zip(("range_sigma_m", "lon_sigma_rad", "lat_sigma_rad", "range_rate_sigma_m_s"),
                               self.sigma, strict=True):  # fmt: skip
            out[name] = sigma
        return out


def as_messages(detections: StructArray) -> list[wire.Message]:
    """Detections as a radar sends them."""
    return [
        wire.Radar(
            sensor_id=int(d["sensor_id"]),
            seq=int(d["seq"]),
            t_ns=int(d["t_meas_ns"]),
            flags=int(d["flags"]),
            range_mm=round(d["range_m"] * 1e3),
            az_bam32=wire.bam32(float(d["lon_rad"])),
            el_bam32=wire.bam32_signed(float(d["lat_rad"])),
            range_rate_mm_s=round(d["range_rate_m_s"] * 1e3),
            range_sigma_mm=round(d["range_sigma_m"] * 1e3),
            az_sigma_nrad=round(d["lon_sigma_rad"] * 1e9),
            el_sigma_nrad=round(d["lat_sigma_rad"] * 1e9),
            range_rate_sigma_mm_s=round(d["range_rate_sigma_m_s"] * 1e3),
            valid=wire.VALID_RANGE | wire.VALID_ANGLES | wire.VALID_RANGE_RATE,
        )
        for d in detections
    ]


class Scene:
    """``n`` held tracks ten seconds old, and one measurement of each: work for the trial kernels."""

    def __init__(self, n: int) -> None:
        start_ns = 1_764_000_000 * NS
        sky = Sky(n, start_ns)
        which = np.arange(n)
        self.sky = sky
        self.x = sky.states(which, np.full(n, start_ns)) + sky.rng.multivariate_normal(np.zeros(6), SPREAD, n)
        self.P = np.broadcast_to(SPREAD, (n, 6, 6)).copy()
        self.detections = sky.detections(which, np.full(n, start_ns + 10 * NS))
        self.records = sky.measurer.measure(self.detections)
        self.rules = picture.make_rules(station(), sky.gravity)
        self.tracks = picture.make_picture(n)
        self.tracks.high[0] = n
        self.tracks.active[:] = True
        self.tracks.x[:], self.tracks.P[:], self.tracks.epoch[:] = self.x, self.P.reshape(n, 36), start_ns
        self.tracks.status[:] = 1
        for slot in range(n):
            coarse.refresh_coarse(self.tracks, slot)
        self.measurements = associate.Measurements(
            self.records.view(np.float64).reshape(n, COLUMNS),
            self.records["t_meas_ns"].copy(),
            self.records["sensor"].copy(),
            self.records["channels"].copy(),
        )
        self.room = associate.make_room(n, n)
        self.room.slots[:], self.room.rows[:] = which, which
