"""Pairs of objects that fly side by side among false alarms: the best assignment against its probabilities.

    python tests/bench/close_pairs.py [--targets 60] [--seeds 2] [--scans 40] [--apart 100 300 1000] [--false 20 200]

What to look for: coalescence (a pair's tracks are closer to each other than its objects: ``apart``, the median over
pairs and scans of the one distance over the other), tracks that end up at the other object of their pair (``swapped``,
of all that were held from the 16th scan to the last), lost and false tracks.
"""

from __future__ import annotations

import argparse

import clutter
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from fusionnode.core.types import Status
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.tracker import Tracker


class Pairs:
    """Which track is which object's, scan by scan; objects 2 i and 2 i + 1 are a pair."""

    def __init__(self, s: clutter.Scene) -> None:
        self._scene = s
        self._engine = NumbaEngine()
        self.apart: list[float] = []
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}

    def __call__(self, tracker: Tracker, k: int) -> None:
        """Look at the tracks after scan ``k``."""
        truth = self._scene.truth[k][:, :3]
        slots = tracker.slots()
        slots = slots[tracker.picture.status[slots] != Status.TENTATIVE]
        where = clutter.positions(tracker, self._engine, int(self._scene.times[k]))
        tracks, objects = linear_sum_assignment(np.minimum(cdist(where, truth), 5_000.0))
        self.last = dict(zip(tracker.picture.number[slots[tracks]].tolist(), objects.tolist(), strict=True))
        self.first = self.first or self.last
        of = np.full(len(truth), -1)
        of[objects] = tracks
        both = np.flatnonzero((of[::2] >= 0) & (of[1::2] >= 0))
        ours = where[of[2 * both]] - where[of[2 * both + 1]]
        theirs = truth[2 * both] - truth[2 * both + 1]
        self.apart += (np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)).tolist()

    def swapped(self) -> tuple[int, int]:
        """How many tracks ended up at their object's companion, of how many that were held throughout."""
        held = [number for number in self.first if number in self.last]
        return sum(self.last[n] == self.first[n] ^ 1 for n in held), len(held)


def report(targets: int, seeds: int, scans: int, apart: list[float], false: list[int]) -> None:
    """Print the table."""
    clutter.ours(
        clutter.scene(6, 30, 1, pairs_m=200.0), clutter.station('association = "jpda"', clutter.SEARCH)
    )
    print(f"{targets} objects, {scans} scans of 1 s, {seeds} seeds; GOSPA as in clutter.py")
    for apart_m in apart:
        for n_false in false:
            scenes = [
                clutter.scene(targets, scans, s, false=n_false, pairs_m=apart_m) for s in range(1, seeds + 1)
            ]
            for association in ("gnn", "jpda"):
                for confirm in ("m_of_n", "existence"):
                    config = clutter.station(
                        f'association = "{association}"\nconfirm = "{confirm}"', clutter.SEARCH
                    )
                    pairs = [Pairs(s) for s in scenes]
                    runs = [clutter.ours(s, config, each=p) for s, p in zip(scenes, pairs, strict=True)]
                    scores = [g for run, _ in runs for g in run.scores.values()]
                    d, rms, missed, wrong = (float(np.mean([g[i] for g in scores])) for i in range(4))
                    begun = sum(tracker.begun for _, tracker in runs)
                    rough = sum(tracker.approximated for _, tracker in runs)
                    swapped, held = np.sum([p.swapped() for p in pairs], axis=0)
                    print(
                        f"{apart_m:5.0f} m apart, {n_false:4d} false, {association:4s} {confirm:9s}: "
                        f"GOSPA {d:6.0f} m, rms {rms:6.1f} m, missed {missed:5.2f}, false {wrong:5.2f}, "
                        f"apart {np.median([a for p in pairs for a in p.apart]):5.2f}, "
                        f"swapped {swapped} of {held}, begun {begun}, rough {rough}",
                        flush=True,
                    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--apart", type=float, nargs="+", default=[100.0, 300.0, 1_000.0], help="m")
    parser.add_argument("--false", type=int, nargs="+", default=[20, 200])
    args = parser.parse_args()
    report(args.targets, args.seeds, args.scans, args.apart, args.false)
