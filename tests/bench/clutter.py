"""The whole tracker among false alarms, beside Stone Soup's on the same scenes.

    python tests/bench/clutter.py [--targets 10 100 200 1000 10000] [--seeds 1] [--scans 60] [--limit 60]

A scene: one searching radar sees ``--targets`` objects in low orbits over its site (`bench_sky.Sky`) once a second with
probability 0.9, and 20 false alarms, uniform in its field of view, range and range rate. Scans a second are by
processor time, which a busy machine changes least; both run on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from bench_sky import NS, Sky
from gospa import Gospa, gospa
from ratios import machine

from fusionnode.config import Config, parse
from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import DETECTION, Channel, Kind, Status, StructArray
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.tracker import Tracker

F64 = npt.NDArray[np.float64]
START_NS = 1_764_000_000 * NS
SIGMA = (20.0, 2e-4, 2e-4, 0.5)  # m, rad on the sky, rad, m/s
DETECTED = 0.9
FALSE = 20
LOWEST = np.radians(20.0)
RANGES = (800e3, 3_500e3)
RATES = (-7_500.0, 7_500.0)
SETTLED = 15
"""GOSPA is taken over the scans from this one on."""
GIVEN = 8
"""Scans of which Stone Soup is told which detection is whose."""
PSD = 3.0e-6
GATE = 0.9999
STATION = """
[node]
id = "bench"
[site.here]
lat_deg = 45.0
lon_deg = 10.0
[sensor.search]
id = 1
kind = "radar"
site = "here"
revisit_s = 1.0
{sensor}
[tracking]
hold_back_s = 0.0
initiation_buffer = 65536
dynamics = "{dynamics}"
{tracking}
"""


SEARCH = 'scan = "search"\nmin_elevation_deg = 20.0\nfield_range_m = 3.6e6'
"""How the radar is configured, if it is told that it searches."""


def station(tracking: str = "", sensor: str = "", dynamics: str = "zonal") -> Config:
    """One searching radar; with the dynamics of the truth and of Stone Soup's filter, if not told otherwise."""
    text = STATION.format(tracking=tracking, sensor=sensor, dynamics=dynamics)
    return parse(text, Path("clutter.toml"))


class Scene(NamedTuple):
    """Scans of one radar, with the truth behind them."""

    sky: Sky
    detections: list[StructArray]  # DETECTION[n] of each scan
    scans: list[StructArray]  # MEASUREMENT[n] of each scan
    source: list[npt.NDArray[np.int64]]  # (n,) whose they are; -1: a false alarm
    truth: list[F64]  # (N, 6) GCRF at each scan
    times: npt.NDArray[np.int64]  # TAI ns


def false_alarms(rng: np.random.Generator, n: int, t_ns: int) -> StructArray:
    """DETECTION[n] of nothing: uniform over the sky above LOWEST, in range and in range rate."""
    out = np.zeros(n, DETECTION)
    out["t_meas_ns"] = out["t_rx_ns"] = t_ns
    out["sensor_id"], out["kind"] = 1, Kind.RADAR_AZEL
    out["channels"] = Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE
    out["lon_rad"] = rng.uniform(0.0, 2.0 * np.pi, n)
    out["lat_rad"] = np.arcsin(rng.uniform(np.sin(LOWEST), 1.0, n))
    out["range_m"] = rng.uniform(*RANGES, n)
    out["range_rate_m_s"] = rng.uniform(*RATES, n)
    names = ("range_sigma_m", "lon_sigma_rad", "lat_sigma_rad", "range_rate_sigma_m_s")
    for name, sigma in zip(names, SIGMA, strict=True):
        out[name] = sigma
    return out


def scene(
    n: int, scans: int, seed: int, *, false: int = FALSE, detected: float = DETECTED, pairs_m: float = 0.0
) -> Scene:
    """``n`` objects over ``scans`` seconds. With ``pairs_m`` every other one flies so far from the one before it."""
    sky = Sky(n, START_NS, seed, SIGMA)
    if pairs_m:
        sky.pair_up(pairs_m)
    rng = np.random.default_rng([seed, n])
    times = START_NS + np.arange(scans) * NS
    detections, measured, source, truth = [], [], [], []
    for t_ns in times.tolist():
        at = np.full(n, t_ns)
        truth.append(sky.states(np.arange(n), at))
        seen = np.flatnonzero(rng.random(n) < detected)
        found = np.concatenate([sky.detections(seen, at[seen]), false_alarms(rng, false, t_ns)])
        mixed = rng.permutation(len(found))
        found = found[mixed]
        source.append(np.concatenate([seen, np.full(false, -1)])[mixed])
        found["seq"] = np.arange(len(found))
        detections.append(found)
        measured.append(sky.measurer.measure(found))
        assert len(measured[-1]) == len(found)
    return Scene(sky, detections, measured, source, truth, times)


class Run(NamedTuple):
    """What a tracker made of a scene."""

    seconds: F64  # of each scan worked
    scores: dict[int, Gospa]  # by scan


def ours(
    s: Scene, config: Config, scored: bool = True, each: Callable[[Tracker, int], None] | None = None
) -> tuple[Run, Tracker]:
    """Our tracker, from nothing. ``each`` is called after every scan from SETTLED on, with its index."""
    outcomes = Outcomes()
    tracker = Tracker(config, s.sky.orientation, outcomes)
    engine = NumbaEngine()
    seconds, scores = np.zeros(len(s.scans)), {}
    for k, scan in enumerate(s.scans):
        began = process_time()
        tracker.process(scan)
        tracker.advance(int(s.times[k]))
        tracker.take()
        seconds[k] = process_time() - began
        if each is not None and k >= SETTLED:
            each(tracker, k)
        if scored and k >= SETTLED:
            scores[k] = gospa(positions(tracker, engine, int(s.times[k])), s.truth[k][:, :3])
    return Run(seconds, scores), tracker


def positions(tracker: Tracker, engine: NumbaEngine, t_ns: int) -> F64:
    """Where the published tracks are at ``t_ns``, (n, 3) m, without moving them."""
    p = tracker.picture
    slots = tracker.slots()
    slots = slots[p.status[slots] != Status.TENTATIVE]
    copy = p._replace(x=p.x.copy(), P=p.P.copy(), epoch=p.epoch.copy())
    copy = copy._replace(
        coarse=p.coarse.copy(), coarse_sigma=p.coarse_sigma.copy(), coarse_ns=p.coarse_ns.copy()
    )
    engine.predict(copy, slots, t_ns, tracker._rules)
    return copy.x[slots, :3]


# -- Stone Soup


def stone_soup(s: Scene, which: str, limit_s: float) -> Run | None:
    """Stone Soup's EKF with the truth's own dynamics, our process noise and R, and the associator ``which``.

    It is spared what is hard: after GIVEN scans it is handed one track an object, the least-squares orbit through just
    that object's detections so far (our own start, but told which they are), and it neither starts nor drops any.
    Stops after ``limit_s``; None if not even two scans were done.
    """
    import stonesoup_scene as bridge
    from scipy.stats import chi2
    from stonesoup.dataassociator.probability import JPDAwithEHM2
    from stonesoup.dataassociator.tree import DetectionKDTreeGNN2D, DetectionKDTreeMixIn
    from stonesoup.hypothesiser.distance import DistanceHypothesiser
    from stonesoup.hypothesiser.probability import PDAHypothesiser
    from stonesoup.measures import Mahalanobis
    from stonesoup.predictor.kalman import ExtendedKalmanPredictor
    from stonesoup.types.array import StateVectors
    from stonesoup.types.state import GaussianState
    from stonesoup.types.track import Track
    from stonesoup.types.update import GaussianStateUpdate
    from stonesoup.updater.kalman import ExtendedKalmanUpdater

    frame = bridge.Frame(s)
    predictor = ExtendedKalmanPredictor(frame.dynamics(PSD))
    updater = ExtendedKalmanUpdater()
    if which == "jpda":
        area = 2.0 * np.pi * (1.0 - np.sin(LOWEST))
        density = FALSE / (area * (RANGES[1] - RANGES[0]) * (RATES[1] - RATES[0]))
        inner: Any = PDAHypothesiser(
            predictor, updater, clutter_spatial_density=density, prob_detect=DETECTED, prob_gate=GATE
        )

        class KDTreeJPDA(DetectionKDTreeMixIn, JPDAwithEHM2):  # type: ignore[misc]
            pass

        associator: Any = KDTreeJPDA(inner, predictor, updater, max_distance=bridge.REACH)
    else:
        inner = DistanceHypothesiser(
            predictor,
            updater,
            Mahalanobis(state_covar_inv_cache_size=None),
            float(np.sqrt(chi2.ppf(GATE, 4))),
        )
        associator = DetectionKDTreeGNN2D(inner, predictor, updater, max_distance=bridge.REACH)
    tracks = {
        Track([GaussianState(x[:, None], P, timestamp=frame.time(GIVEN - 1))]) for x, P in frame.starts(GIVEN)
    }
    seconds, scores = [], {}
    began_all = perf_counter()
    for k in range(GIVEN, len(s.scans)):
        detections = set(frame.detections(k))
        began = process_time()
        hypotheses = associator.associate(tracks, detections, frame.time(k))
        for track in tracks:
            found = hypotheses[track]
            if which != "jpda":
                track.append(updater.update(found) if found else found.prediction)
                continue
            states = [updater.update(h) if h else h.prediction for h in found]
            share = np.array([float(h.probability) for h in found])
            means = StateVectors([x.state_vector for x in states])
            mean = np.average(means, axis=1, weights=share)
            away = np.asarray(means - mean, dtype=float)
            covar = (
                np.einsum("k,kij->ij", share, np.array([x.covar for x in states])) + (share * away) @ away.T
            )
            track.append(GaussianStateUpdate(mean, covar, hypothesis=found, timestamp=frame.time(k)))
        seconds.append(process_time() - began)
        if k >= SETTLED:
            where = np.array([np.asarray(t.state_vector, dtype=float)[:3, 0] for t in tracks])
            scores[k] = gospa(where, frame.turned(s.truth[k])[:, :3])
        if perf_counter() - began_all + seconds[-1] > limit_s:
            break
    return Run(np.array(seconds), scores) if len(seconds) > 1 else None


# -- the table


def mean_of(runs: list[Run], scans: set[tuple[int, int]]) -> str:
    """GOSPA's mean over ``scans`` (run, scan); over all there are, where no scan was worked by everyone."""
    chosen = [runs[r].scores[k] for r, k in sorted(scans) if k in runs[r].scores]
    chosen = chosen or [g for run in runs for g in run.scores.values()]
    if not chosen:
        return f"{'-':>10}"
    d, rms, missed, false = (float(np.mean([g[i] for g in chosen])) for i in range(4))
    return f"{d:10,.0f} m  (rms {rms:6.1f} m, missed {missed:7.2f}, false {false:6.2f}; {len(chosen)} scans)"


def rows(n: int, seeds: int, scans: int, limit_s: float, peers: bool, dynamics: str) -> Iterator[str]:
    """The table's lines for ``n`` targets."""
    scenes = [scene(n, scans, seed) for seed in range(1, seeds + 1)]
    table: dict[str, list[Run]] = {}
    for association in ("gnn", "jpda"):
        config = station(f'association = "{association}"', SEARCH, dynamics)
        table[f"ours, {association}"] = [ours(s, config)[0] for s in scenes]
    for which in ("gnn", "jpda") if peers else ():
        runs = [stone_soup(s, which, limit_s) for s in scenes]
        if all(runs):
            table[f"Stone Soup, k-d tree {which}"] = [r for r in runs if r is not None]
        else:
            yield f"{n:6d}  Stone Soup, k-d tree {which}: fewer than two scans in {limit_s:.0f} s"
    common = {
        (r, k) for r in range(seeds) for k in range(scans) if all(k in t[r].scores for t in table.values())
    }
    for name, runs in table.items():
        took = np.concatenate([r.seconds for r in runs])
        held = np.concatenate([r.seconds[SETTLED if name.startswith("ours") else 0 :] for r in runs])
        speed = f"{len(took) / took.sum():9.2f} scans/s all, {len(held) / held.sum():9.2f} held"
        yield f"{n:6d}  {name:26s} {speed}  GOSPA {mean_of(runs, common)}"


def report(
    targets: list[int], seeds: int, scans: int, limit_s: float, dynamics: str, peers: bool = True
) -> None:
    """Print the table."""
    try:
        import stonesoup

        print(f"Stone Soup {stonesoup.__version__}", flush=True)
    except ImportError:
        peers = False
        print("Stone Soup is not installed: its rows are left out", flush=True)
    ours(scene(5, 30, 1), station('association = "jpda"', SEARCH, dynamics))  # loads the kernels
    for n in targets:
        for line in rows(n, seeds, scans, limit_s, peers, dynamics):
            print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, nargs="+", default=[10, 100, 200, 1_000, 10_000])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scans", type=int, default=60)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that Stone Soup may take a scene")
    parser.add_argument(
        "--dynamics", choices=["zonal", "full"], default="zonal", help="ours; the truth's are zonal"
    )
    parser.add_argument("--alone", action="store_true", help="without Stone Soup")
    args = parser.parse_args()
    print(machine(), flush=True)
    report(args.targets, args.seeds, args.scans, args.limit, args.dynamics, not args.alone)
