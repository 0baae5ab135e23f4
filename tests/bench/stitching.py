"""Whether objects keep their track's number across gaps, and whether doubled tracks become one.

    python tests/bench/stitching.py [--targets 30] [--seeds 2]

*Gaps*: objects in low orbits are seen for 60 s by a radar beneath them, not at all for a while, and again for 60 s by
another one that stands where they are by then. *Doubles*: two radars at one place see the same objects in turn, the
second with a bias in range that its configuration does not tell of.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "track"))

from scene import FixedPole, circular, ephemeris, in_order, measure, station

from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import Status, StructArray, Tombstone
from fusionnode.track.tracker import Tracker

SEEN_S = 60.0
SIGMA = (20.0, 2e-4, 0.5)


def orbits(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Circular, near the equator, around one place."""
    return [
        circular(rng.uniform(600e3, 1_200e3), rng.uniform(0, 25), rng.uniform(-6, 2), rng.uniform(-4, 4))
        for _ in range(n)
    ]


def run(sky: StructArray) -> tuple[Tracker, list[Tombstone], StructArray]:
    """A tracker after ``sky``, the tombstones, and the newest state of each track."""
    tracker = Tracker(station(), FixedPole(), Outcomes())
    tracker.process(sky)
    events = tracker.take()
    states = np.concatenate([e for e in events if isinstance(e, np.ndarray)])
    states = states[states["status"] != Status.TENTATIVE]
    gone = [e for e in events if isinstance(e, Tombstone)]
    newest = {int(s["track"]): s for s in states}
    dead = {t.track for t in gone}
    return tracker, gone, np.array([s for t, s in newest.items() if t not in dead])


def gaps(n: int, gap_s: float, seed: int) -> str:
    """One line: how many numbers were kept across ``gap_s``."""
    rng = np.random.default_rng(seed)
    parts = []
    times = np.concatenate([np.arange(0.0, SEEN_S), gap_s + SEEN_S + np.arange(0.0, SEEN_S)])
    for k, x0 in enumerate(orbits(n, rng)):
        path = ephemeris(x0, times)
        x = path[int(SEEN_S) + 30]
        lon = np.degrees(np.arctan2(x[1], x[0]) - 7.292115e-5 * times[int(SEEN_S) + 30])
        first, again = path[: int(SEEN_S)], path[int(SEEN_S) :]
        for part, at, where in ((first, times[: int(SEEN_S)], 0.0), (again, times[int(SEEN_S) :], lon)):
            seen = measure(part, at, rng, sigma=SIGMA, lon_deg=where)[rng.random(len(at)) < 0.9]
            seen["seq"] = k
            parts.append(seen)
    tracker, gone, alive = run(in_order(*parts))
    kept = int(np.count_nonzero(alive["track"] <= n))
    ended = (
        f"{sum(t.reason == 'merged' and t.successor is not None for t in gone)} merged, each with a successor"
    )
    others = sum(t.reason != "merged" for t in gone)
    held = f"{kept} of {n} numbers kept, {len(alive)} tracks, {tracker.begun} begun"
    return f"gap {gap_s:6.0f} s: {held}, {ended}, {others} dropped"


def doubles(n: int, bias_m: float, seed: int) -> str:
    """One line: tracks that two radars make of ``n`` objects, one of them biased."""
    rng = np.random.default_rng(seed)
    times = np.arange(0.0, 120.0)
    parts = []
    for k, x0 in enumerate(orbits(n, rng)):
        path = ephemeris(x0, times)
        for sensor in (0, 1):
            mine = slice(sensor, None, 2)
            seen = measure(path[mine], times[mine], rng, sigma=SIGMA, sensor=sensor)
            seen["range_m"] += bias_m * sensor
            seen["seq"] = k
            parts.append(seen)
    tracker, gone, alive = run(in_order(*parts))
    merged = sum(t.reason == "merged" for t in gone)
    return f"bias {bias_m:5.0f} m: {len(alive)} tracks of {n} objects, {tracker.begun} begun, {merged} merged"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    for seed in range(1, args.seeds + 1):
        for gap_s in (30.0, 120.0, 600.0, 1_800.0, 5_400.0):
            print(gaps(args.targets, gap_s, seed), flush=True)
        for bias_m in (0.0, 100.0, 300.0, 1_000.0):
            print(doubles(args.targets, bias_m, seed), flush=True)
