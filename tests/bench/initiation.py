"""How long a new object takes to become a track, and how many tracks are of nothing, by the density of false alarms.

    python tests/bench/initiation.py [--false 0 20 200 1000] [--detected 0.9 0.5] [--targets 50] [--seeds 2]

The row without false alarms is the bound for whatever else decides which detections belong together: with nothing to
confuse them, any hypothesis tree holds just the true ones. What a track-oriented multiple hypothesis initiation could
gain is at most the difference to that row.
"""

from __future__ import annotations

import argparse
from time import process_time

import clutter
import numpy as np

from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import Status, Tombstone
from fusionnode.track.tracker import Tracker

NEAR_M = 5_000.0


def confirmed_after(s: clutter.Scene, tracking: str) -> tuple[list[float], int, float]:
    """Scans until each object has a confirmed track (inf: never), confirmed tracks of nothing, seconds a scan."""
    tracker = Tracker(clutter.station(tracking, clutter.SEARCH), s.sky.orientation, Outcomes())
    first = np.full(len(s.truth[0]), np.inf)
    real: dict[int, bool] = {}
    began = process_time()
    for k, scan in enumerate(s.scans):
        tracker.process(scan)
        tracker.advance(int(s.times[k]))
        for event in tracker.take():
            if isinstance(event, Tombstone):
                continue
            now = event[(event["status"] == Status.CONFIRMED) & (event["epoch_ns"] == s.times[k])]
            for state in now:
                apart = np.linalg.norm(s.truth[k][:, :3] - state["x"][:3], axis=1)
                whose = int(np.argmin(apart))
                hit = bool(apart[whose] < NEAR_M)
                real[int(state["track"])] = real.get(int(state["track"]), False) or hit
                if hit:
                    first[whose] = min(first[whose], k)
    return first.tolist(), sum(not hit for hit in real.values()), (process_time() - began) / len(s.scans)


def report(false: list[int], detected: list[float], targets: int, seeds: int, scans: int) -> None:
    """Print the table."""
    clutter.ours(clutter.scene(5, 30, 1), clutter.station())
    print(f"{targets} objects, {scans} scans of 1 s, {seeds} seeds; scans until confirmed, the first being 0")
    for p in detected:
        for confirm in ("m_of_n", "existence"):
            for n in false:
                runs = [
                    confirmed_after(
                        clutter.scene(targets, scans, seed, false=n, detected=p), f'confirm = "{confirm}"'
                    )
                    for seed in range(1, seeds + 1)
                ]
                first = np.concatenate([r[0] for r in runs])
                print(
                    f"detected {p}, {confirm:9s}, {n:5d} false a scan: median {np.median(first):4.1f}, "
                    f"90 % {np.quantile(first, 0.9):4.1f}, worst {first.max():4.1f}, "
                    f"false tracks {sum(r[1] for r in runs)}, {1e3 * np.mean([r[2] for r in runs]):.1f} ms a scan",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--false", type=int, nargs="+", default=[0, 20, 200, 1_000])
    parser.add_argument("--detected", type=float, nargs="+", default=[0.9, 0.5])
    parser.add_argument("--targets", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--scans", type=int, default=40)
    args = parser.parse_args()
    report(args.false, args.detected, args.targets, args.seeds, args.scans)
