"""Pairs of objects that fly side by side among false alarms: the best assignment against its probabilities.

    python tests/bench/close_pairs.py [--targets 60] [--seeds 2] [--scans 40]

What to look for: coalescence (tracks that drift together show as GOSPA of a pair's distance), lost and false tracks.
"""

from __future__ import annotations

import argparse

import clutter
import numpy as np


def report(targets: int, seeds: int, scans: int) -> None:
    """Print the table."""
    clutter.ours(
        clutter.scene(6, 30, 1, pairs_m=200.0), clutter.station('association = "jpda"', clutter.SEARCH)
    )
    print(f"{targets} objects, {scans} scans of 1 s, {seeds} seeds; GOSPA as in clutter.py")
    for apart_m in (100.0, 300.0, 1_000.0):
        for false in (20, 200):
            scenes = [
                clutter.scene(targets, scans, s, false=false, pairs_m=apart_m) for s in range(1, seeds + 1)
            ]
            for association in ("gnn", "jpda"):
                for confirm in ("m_of_n", "existence"):
                    config = clutter.station(
                        f'association = "{association}"\nconfirm = "{confirm}"', clutter.SEARCH
                    )
                    runs = [clutter.ours(s, config) for s in scenes]
                    scores = [g for run, _ in runs for g in run.scores.values()]
                    d, rms, missed, wrong = (float(np.mean([g[i] for g in scores])) for i in range(4))
                    begun = sum(tracker.begun for _, tracker in runs)
                    rough = sum(tracker.approximated for _, tracker in runs)
                    print(
                        f"{apart_m:5.0f} m apart, {false:4d} false, {association:4s} {confirm:9s}: GOSPA {d:6.0f} m, "
                        f"rms {rms:6.1f} m, missed {missed:5.2f}, false {wrong:5.2f}, begun {begun}, rough {rough}",
                        flush=True,
                    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--scans", type=int, default=40)
    args = parser.parse_args()
    report(args.targets, args.seeds, args.scans)
