"""Two nodes with a radar in common and one each of their own: what each knows, and what they know together.

`both_ways` runs both pipelines beside each other; what their release groups send goes to the other as link records.
As a program it does so for many seeds:

    python tests/acceptance/federation.py --seeds 60
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from fusionnode.config import Config, parse
from fusionnode.core.refframes import EarthOrientation, enu_itrf, site_itrf
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import DETECTION, Channel, Kind, LinkRecord, StructArray
from fusionnode.pipeline import Pipeline
from fusionnode.track.motion.dynamics import MU, coarse_step, model

F64 = npt.NDArray[np.float64]
NS = 1_000_000_000
START_NS = tai_ns_from_utc_text("2025-09-01T00:00:00")
SITES = {"west": (1, 40.0, -4.0), "common": (2, 43.5, 0.0), "east": (3, 47.0, 4.0)}
SEEN_BY = {"alpha": ("west", "common"), "bravo": ("common", "east")}
KEY = bytes(range(32))
Change = Callable[[list[bytes], int], list[bytes]]


def node(name: str, other: str, *, more: str = "", group: str = "") -> Config:
    """A node that sends its local picture to the other, and takes the other's."""
    lines = [f'[node]\nid = "{name}"\n[tracking]\ndynamics = "zonal"\nhold_back_s = 0.0\ntransit_s = 0.0']
    for site in SEEN_BY[name]:
        number, lat, lon = SITES[site]
        lines.append(f"[site.{site}]\nlat_deg = {lat}\nlon_deg = {lon}")
        lines.append(
            f'[sensor.{site}]\nid = {number}\nkind = "radar"\nsite = "{site}"\nrange_sigma_m = 20.0\n'
            "lon_sigma_deg = 0.01\nlat_sigma_deg = 0.01"
        )
    lines.append(
        f'[release]\nkeys_directory = "keys"\naudit_directory = "audit"\n[calibration]\nenabled = false\n'
        f'[group.{other}]\nendpoint = "tcp://127.0.0.1:5610"\nrequest_endpoint = "tcp://127.0.0.1:5611"\n'
        f'picture = "local"\nclassification_marking = "U"\nreleasable_to = ["{other.upper()}"]\n'
        f'[[group.{other}.rule]]\nname = "all"\n{group}\n'
        f'[link.{other}]\nkind = "node"\nendpoint = "tcp://127.0.0.1:5620"\n'
        f'request_endpoint = "tcp://127.0.0.1:5621"\nnode_id = "{other}"\nserver_key = "there.public"\n'
        f'secret_key = "here"\n{more}'
    )
    return parse("\n".join(lines), Path("federation.toml"))


def orbit(orientation: EarthOrientation, height_m: float, heading_deg: float, aside_deg: float) -> F64:
    """State (6,) at START_NS of a circular orbit above the common site, or so far to its east."""
    _, lat, lon = SITES["common"]
    up = orientation.gcrf_to_itrf(np.array([START_NS]))[0].T @ site_itrf(
        np.radians(lat), np.radians(lon + aside_deg), 0.0
    )
    up /= np.linalg.norm(up)
    r = (6_378_137.0 + height_m) * up
    east = np.cross([0.0, 0.0, 1.0], up)
    east /= np.linalg.norm(east)
    h = np.radians(heading_deg)
    return np.concatenate(
        [r, np.sqrt(MU / np.linalg.norm(r)) * (np.cos(h) * np.cross(up, east) + np.sin(h) * east)]
    )


def truth_at(orientation: EarthOrientation, x0: F64, t_ns: int) -> F64:
    """State (6,) of the object at a time."""
    gravity = model(6, orientation.pole(np.array([START_NS]))[0])
    r, v = x0[:3].copy(), x0[3:].copy()
    coarse_step(r, v, (t_ns - START_NS) * 1e-9, gravity)
    return np.concatenate([r, v])


def seen(
    orientation: EarthOrientation, x0: F64, site: str, times_s: Sequence[float], rng: np.random.Generator
) -> StructArray:
    """DETECTION[n] of one object by the radar at a site: 20 m, 0.01 deg, 1 m/s, white."""
    number, lat, lon = SITES[site]
    lat, lon = np.radians(lat), np.radians(lon)
    out = np.zeros(len(times_s), DETECTION)
    t_ns = START_NS + np.round(np.asarray(times_s) * NS).astype(np.int64)
    sigma = np.radians(0.01)
    for row, t, M in zip(out, t_ns.tolist(), orientation.gcrf_to_itrf(t_ns), strict=True):
        e = rng.normal(size=4)
        x = truth_at(orientation, x0, t)
        site_r = M.T @ site_itrf(lat, lon, 0.0)
        site_v = np.cross(M.T @ [0.0, 0.0, 7.292115e-5], site_r)
        rho = x[:3] - site_r
        d = float(np.linalg.norm(rho))
        east, north, up = enu_itrf(lat, lon) @ (M @ (rho / d))
        el = np.arcsin(up)
        row["range_m"] = d + 20.0 * e[0]
        row["range_rate_m_s"] = (rho / d) @ (x[3:] - site_v) + e[3]
        row["lon_rad"] = (np.arctan2(east, north) + sigma * e[1] / np.cos(el)) % (2 * np.pi)
        row["lat_rad"] = el + sigma * e[2]
    out["t_meas_ns"] = out["t_rx_ns"] = t_ns
    out["sensor_id"], out["kind"] = number, Kind.RADAR_AZEL
    out["channels"] = Channel.ANGLES | Channel.RANGE | Channel.RANGE_RATE
    return out


@dataclass
class Run:
    """What came of one run: messages by node, of its own stream (fused) and of what it sends the other (local)."""

    fused: dict[str, list[dict[str, Any]]]
    local: dict[str, list[dict[str, Any]]]
    pipelines: dict[str, Pipeline]
    records: dict[str, list[LinkRecord | int]]


def both_ways(
    orientation: EarthOrientation,
    detections: dict[str, StructArray],
    times_s: Sequence[float],
    *,
    configs: dict[str, Config] | None = None,
    change: Change | None = None,
) -> Run:
    """Run both nodes, tick by tick; each gets at the next tick what the other sent at this one.

    ``detections``: by site. ``change``: what becomes of the payloads that bravo sends, and the tick's number.
    """
    configs = configs or {"alpha": node("alpha", "bravo"), "bravo": node("bravo", "alpha")}
    pipelines = {
        name: Pipeline(config, stream_epoch=f"{name}-1", orientation=orientation, offset_key=KEY)
        for name, config in configs.items()
    }
    run = Run({n: [] for n in configs}, {n: [] for n in configs}, pipelines, {n: [] for n in configs})
    under_way: dict[str, list[bytes]] = {name: [] for name in configs}
    other = {"alpha": "bravo", "bravo": "alpha"}
    before = START_NS + round(times_s[0] * NS) - 1
    for tick, t in enumerate(times_s):
        t_ns = START_NS + round(t * NS)
        sent: dict[str, list[bytes]] = {}
        for name, pipeline in pipelines.items():
            for site in SEEN_BY[name]:
                d = detections[site]
                d = d[(d["t_rx_ns"] > before) & (d["t_rx_ns"] <= t_ns)]
                if len(d):
                    pipeline.feed_detections(d)
            got = [LinkRecord(t_ns, other[name], p) for p in under_way[other[name]]]
            run.records[name] += [*got, t_ns]
            pipeline.feed(got)
            run.fused[name] += [msgpack.unpackb(p) for _, p in pipeline.tick(t_ns)]
            payloads = [p for _, p in pipeline.groups[0].take().messages]
            run.local[name] += [msgpack.unpackb(p) for p in payloads]
            sent[name] = payloads
        if change is not None:
            sent["bravo"] = change(sent["bravo"], tick)
        under_way = sent
        before = t_ns
    return run


def of(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The confirmed states among messages."""
    return [m for m in states if m["type"] == "state" and m["status"] == "confirmed"]


def error(state: dict[str, Any], orientation: EarthOrientation, x0: F64) -> tuple[F64, float]:
    """Error (6,), m and m/s, and normalised squared error of a state's message."""
    t_ns = tai_ns_from_utc_text(state["epoch"])
    x = np.array([state[k] for k in ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")]) * 1e3
    P = np.zeros((6, 6))
    P[np.tril_indices(6)] = np.array(state["cov"]) * 1e6
    P = P + np.tril(P, -1).T
    e = x - truth_at(orientation, x0, t_ns)
    scale = np.sqrt(np.diagonal(P))
    y = np.linalg.solve(P / np.outer(scale, scale), e / scale)
    return e, float((e / scale) @ y)


def newest(messages: list[dict[str, Any]], *, nodes: int | None = None) -> dict[str, Any] | None:
    """The newest confirmed state; with so many nodes behind it."""
    states = [s for s in of(messages) if nodes is None or len(s["provenance"]) == nodes]
    return states[-1] if states else None


def measure(seeds: int, *, seconds: float = 40.0, first: int = 0) -> dict[str, object]:
    """NEES and rms of the fused and of the single nodes' states at the end of a pass, over seeds."""
    orientation = EarthOrientation()
    nees: dict[str, list[float]] = {"alpha": [], "bravo": [], "fused": []}
    square: dict[str, list[float]] = {"alpha": [], "bravo": [], "fused": []}
    for seed in range(first, first + seeds):
        rng = np.random.default_rng(seed)
        x0 = orbit(orientation, rng.uniform(600e3, 1400e3), rng.uniform(0.0, 360.0), rng.uniform(-4.0, 4.0))
        times = np.arange(-seconds / 2, seconds / 2)
        looks = {site: seen(orientation, x0, site, times, rng) for site in SITES}
        run = both_ways(orientation, looks, [*times, times[-1] + 1.0])
        # All three at the moment of the last detection: the last tick only brings what the other sent of it.
        found = {
            "alpha": newest(run.local["alpha"]),
            "bravo": newest(run.local["bravo"]),
            "fused": newest(run.fused["alpha"], nodes=2),
        }
        for name, state in found.items():
            if state is None:
                raise RuntimeError(f"seed {seed}: nothing of {name}")
            e, n = error(state, orientation, x0)
            nees[name].append(n)
            square[name].append(float(e[:3] @ e[:3]))
    n = seeds
    return {
        "seeds": n,
        "nees_mean": {name: round(float(np.mean(v)), 3) for name, v in nees.items()},
        "nees_upper_95": round(float(chi2.ppf(0.95, 6 * n)) / n, 3),
        "rms_m": {name: round(float(np.sqrt(np.mean(v))), 2) for name, v in square.items()},
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=60)
    arguments.add_argument("--seconds", type=float, default=40.0)
    given = arguments.parse_args()
    print(json.dumps(measure(given.seeds, seconds=given.seconds), indent=1))
