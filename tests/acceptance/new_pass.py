"""What the node expects of real radars when an object comes up again, before it has used a detection of the pass.

``python tests/acceptance/new_pass.py [--config FILE] [--days N] [--with-elements | --from-nothing] [--list]``

Three C-band radars and three objects in one feed. Two things are asked of each pass:

- its first FIRST detections, all against the state held before the first of them (a *new* pass: nobody saw the object
  for at least GAP_H hours);
- every detection against the state held just before it, rejected ones included: the first FIRST of a new pass (*in
  turn*), and all of a pass.

The second says if the innovations of a pass agree with their covariance; the first, over all passes, if the
covariance after hours without a sensor does. The first detections of one pass share one error of the orbit, and of the
sensor that pulls in, so that a single pass says little about that: the median over passes does.

Exits 0 if all that is asked of it holds. Needs the real data: $FUSIONNODE_DATA.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
from radar_truth import CONFIG, REPOSITORY
from scipy.stats import chi2

from fusionnode.codec.b3 import B3Decoder
from fusionnode.config import Config, load
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import StructArray, Tombstone
from fusionnode.intake.measure import Measurer
from fusionnode.pipeline import load_catalogue
from fusionnode.track.association.preview import Sighting
from fusionnode.track.tracker import Tracker

F64 = npt.NDArray[np.float64]
OBJECTS = {22076: "TOPEX", 13736: "DMSP F6", 22823: "SPOT-3"}
NS = 1_000_000_000
PASS_GAP_S = 600.0
GAP_H = 2.0
FIRST = 10
"""Detections of a new pass that are held against the state before it."""
LONG = 20
"""A pass of fewer detections is not judged."""
ELSEWHERE_M = 50_000.0
"""First detections further than this from where the object is expected are of something else under its tag."""

MEDIAN = {dof: float(chi2.median(dof)) for dof in range(1, 5)}
MOST_RANGE_M = 150.0
NIS_BOUNDS = (0.7, 1.4)
MOST_PASSES = 0.9


@dataclass(frozen=True)
class Feed:
    """Measurements in time order, the tag of each, and the pass it belongs to (one tag, one sensor)."""

    measurements: StructArray
    tag: npt.NDArray[np.int64]
    pass_of: npt.NDArray[np.int64]


def read(
    folder: Path, config: Config, tags: tuple[int, ...] = tuple(OBJECTS), days: float | None = None
) -> Feed:
    """All files in one feed; of the first ``days`` only, if given."""
    orientation = EarthOrientation()
    parts, owners = [], []
    for tag in tags:
        decoder = B3Decoder("file", Outcomes())
        data = gzip.decompress((folder / f"{tag}_dec1996.b3.gz").read_bytes())
        found = np.concatenate([decoder.decode([(0, data)]).detections, decoder.finish().detections])
        measured = Measurer(config, orientation, Outcomes()).measure(found)
        parts.append(measured)
        owners.append(np.full(len(measured), tag))
    joined, tag_of = np.concatenate(parts), np.concatenate(owners)
    order = np.lexsort((joined["seq"], joined["sensor"], joined["t_meas_ns"]))
    joined, tag_of = joined[order], tag_of[order]
    if days is not None:
        early = joined["t_meas_ns"] < joined["t_meas_ns"][0] + days * 86_400 * NS
        joined, tag_of = joined[early], tag_of[early]
    pass_of = np.empty(len(joined), np.int64)
    latest: dict[tuple[int, int], tuple[int, int]] = {}
    count = 0
    for i, (t, sensor, tag) in enumerate(zip(joined["t_meas_ns"].tolist(), joined["sensor"].tolist(),
                                             tag_of.tolist(), strict=True)):  # fmt: skip
        before = latest.get((sensor, tag))
        if before is None or t - before[0] > PASS_GAP_S * NS:
            which, count = count, count + 1
        else:
            which = before[1]
        latest[sensor, tag] = (t, which)
        pass_of[i] = which
    return Feed(joined, tag_of, pass_of)


@dataclass
class Pass:
    """How one pass went. ``y`` and the like are of its FIRST detections against the state before it."""

    tag: int
    sensor: int
    start_ns: int
    records: int
    unseen_s: float = np.inf
    """How long nobody had seen the object."""
    before: int = 0
    """The track that the object had before the pass; 0: none."""
    first: list[Sighting] = field(default_factory=list)
    away_m: list[float] = field(default_factory=list)
    """How far the first detections are from where the track would be."""
    ratio: list[float] = field(default_factory=list)
    """Each detection's NIS before its own update, over the median of its chi-square."""
    tracks: Counter[int] = field(default_factory=Counter)
    """Tracks that its detections updated."""

    @property
    def far(self) -> bool:
        """Whether its first detections are of something else than the track."""
        return bool(self.first) and float(np.median(self.away_m)) > ELSEWHERE_M

    @property
    def range_m(self) -> float:
        """Median |range innovation| of the first detections."""
        return float(np.median([abs(s.y[0]) for s in self.first]))

    @property
    def first_ratio(self) -> float:
        """Median NIS of the first detections over the median of its chi-square."""
        return float(np.median([s.nis / MEDIAN[s.dof] for s in self.first]))


def run(config: Config, feed: Feed) -> list[Pass]:
    """Through the tracker, scan by scan; its passes in time order."""
    orientation = EarthOrientation()
    outcomes = Outcomes()
    tracker = Tracker(config, orientation, outcomes, load_catalogue(config, orientation))
    m, n = feed.measurements, len(feed.measurements)
    t, sensor = m["t_meas_ns"], m["sensor"]
    rows_of = [np.flatnonzero(feed.pass_of == k) for k in range(feed.pass_of.max() + 1)]
    out = [Pass(int(feed.tag[r[0]]), int(sensor[r[0]]), int(t[r[0]]), len(r)) for r in rows_of]
    track_of: dict[int, int] = {}
    seen: dict[int, int] = {}
    at = 0
    while at < n:
        end = at + 1
        while end < n and t[end] == t[at] and sensor[end] == sensor[at]:
            end += 1
        for i in range(at, end):
            this, tag = out[feed.pass_of[i]], int(feed.tag[i])
            slot = slot_of(tracker, track_of.get(tag, 0))
            if rows_of[feed.pass_of[i]][0] == i:
                this.unseen_s = (t[i] - seen[tag]) / NS if tag in seen else np.inf
                this.before = track_of.get(tag, 0) if slot is not None else 0
                if slot is not None:
                    for k in rows_of[feed.pass_of[i]][:FIRST]:
                        s = tracker.look(m[k : k + 1], slot)[0]
                        this.first.append(s)
                        this.away_m.append(
                            float(np.hypot(s.y[0], m["range_m"][k] * np.hypot(s.y[1], s.y[2])))
                        )
            seen[tag] = int(t[i])
            if slot is not None:
                s = tracker.look(m[i : i + 1], slot)[0]
                this.ratio.append(s.nis / MEDIAN[s.dof])
        tracker.process(m[at:end])
        for event in tracker.take():
            if isinstance(event, Tombstone):
                for tag, track in list(track_of.items()):
                    if track == event.track:
                        track_of[tag] = event.successor or 0
                continue
            for state in event[event["last_ob_ns"] == t[at]]:
                i = at if end == at + 1 else nearest(m, at, end, state)
                out[feed.pass_of[i]].tracks[int(state["track"])] += 1
                track_of[int(feed.tag[i])] = int(state["track"])
        at = end
    return sorted(out, key=lambda p: p.start_ns)


def slot_of(tracker: Tracker, number: int) -> npt.NDArray[np.int64] | None:
    """The slot that a track's number has, (1,)."""
    for slot in tracker.slots().tolist() if number else ():
        if tracker.picture.number[slot] == number:
            return np.array([slot])
    return None


def nearest(m: StructArray, at: int, end: int, state: np.void) -> int:
    """Which measurement of one scan lies nearest to a state."""
    seen = m["site_r"][at:end] + m["range_m"][at:end, None] * m["los"][at:end]
    return at + int(np.linalg.norm(seen - state["x"][:3], axis=1).argmin())


def judge(title: str, passes: list[Pass], sensors: list[str], listed: bool = False) -> bool:
    """Print what there is to say of one run; whether all of it is as asked."""
    print(f"\n{title}")
    long = [p for p in passes if p.records >= LONG]
    new = [p for p in long if p.before and p.unseen_s >= GAP_H * 3600.0 and not p.far]
    good = True
    print(
        f"  {'':22s} new passes | first detections: median |range| m, NIS ratio | in turn: NIS ratio, in bounds | "
        "all passes: NIS ratio, in bounds | all detections: NIS ratio"
    )
    groups = [("all", lambda p: True)]
    groups += [
        (OBJECTS[tag], lambda p, tag=tag: p.tag == tag) for tag in OBJECTS if any(q.tag == tag for q in long)
    ]
    groups += [(name, lambda p, k=k: p.sensor == k) for k, name in enumerate(sensors)]
    for name, mine in groups:
        firsts = [p for p in new if mine(p)]
        judged = [p for p in long if mine(p) and len(p.ratio) >= LONG and not p.far]
        if not firsts or not judged:
            continue
        ranges = float(np.median([p.range_m for p in firsts]))
        first = float(np.median([p.first_ratio for p in firsts]))
        ratio = np.array([np.median(p.ratio) for p in judged])
        turn = np.array([np.median(p.ratio[:FIRST]) for p in firsts])
        inside = share_inside(ratio)
        print(
            f"  {name:22s} {len(firsts):10d} | {ranges:8.0f}"
            f" (90 %: {np.percentile([p.range_m for p in firsts], 90):6.0f})"
            f" {first:8.2f} | {np.median(turn):8.2f} {share_inside(turn):6.0%}"
            f" | {np.median(ratio):8.2f} {inside:6.0%} of {len(judged)}"
            f" | {np.median(np.concatenate([p.ratio for p in judged])):8.2f}"
        )
        if name == "all":
            good = ranges < MOST_RANGE_M and NIS_BOUNDS[0] <= first <= NIS_BOUNDS[1] and inside >= MOST_PASSES
    lost, swapped, elsewhere = identity(long)
    for tag, name in OBJECTS.items():
        if any(p.tag == tag for p in long):
            print(
                f"  {name}: lost {lost[tag]} times; {elsewhere[tag]} passes of something else under its tag;"
                f" tracks {dict(tracks_of(long, tag).most_common(6))}"
            )
    print(f"  tracks that took detections of two objects: {swapped or 'none'}")
    if listed:
        for p in passes:
            print(
                f"    {OBJECTS[p.tag]:8s} {sensors[p.sensor]:10s} {p.records:5d} records,"
                f" unseen {p.unseen_s / 3600:6.1f} h,"
                f" track {p.before:4d} -> {dict(p.tracks)}"
                + (
                    f", |range| {p.range_m:8.0f} m, away {np.median(p.away_m):9.0f} m, NIS {p.first_ratio:8.2f}"
                    if p.first
                    else ""
                )
                + (f", in the pass {np.median(p.ratio):6.2f}" if p.ratio else "")
            )
    return good and not any(lost.values()) and not swapped


def share_inside(ratio: F64) -> float:
    """How many of the NIS ratios are as they should be."""
    return float(np.mean((ratio >= NIS_BOUNDS[0]) & (ratio <= NIS_BOUNDS[1])))


def tracks_of(passes: list[Pass], tag: int) -> Counter[int]:
    """Updates of each track by detections with this tag."""
    return sum((p.tracks for p in passes if p.tag == tag), Counter())


def identity(passes: list[Pass]) -> tuple[Counter[int], list[int], Counter[int]]:
    """By tag: how often a pass was not taken by the object's track; tracks that hold two objects; by tag: passes that
    are of something else.
    """
    lost: Counter[int] = Counter()
    elsewhere: Counter[int] = Counter()
    holder: dict[int, Counter[int]] = {}
    for tag in OBJECTS:
        current = 0
        for p in passes:
            if p.tag != tag or not p.tracks:
                continue
            track = p.tracks.most_common(1)[0][0]
            if current and p.far:
                elsewhere[tag] += 1
                continue
            if current and track != current:
                lost[tag] += 1
            current = track
            holder.setdefault(track, Counter())[tag] += p.tracks[track]
    swapped = [t for t, tags in holder.items() if len(tags) > 1 and min(tags.values()) > LONG]
    return lost, swapped, elsewhere


def data_folder() -> Path:
    """Where the radar records are."""
    return Path(os.environ.get("FUSIONNODE_DATA", REPOSITORY.parent / "shared" / "data")) / "ssn_radar"


def main() -> int:
    """Start from nothing, and with element sets of TOPEX."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--config", type=Path, default=CONFIG)
    words.add_argument("--days", type=float, help="of the month, from its start")
    words.add_argument("--only", type=int, action="append", help="tag of an object; may be repeated")
    words.add_argument("--list", action="store_true", help="every pass")
    which = words.add_mutually_exclusive_group()
    which.add_argument("--with-elements", action="store_true", help="that run only")
    which.add_argument("--from-nothing", action="store_true", help="that run only")
    given = words.parse_args()
    folder = data_folder()
    if not folder.is_dir():
        print(f"no real data at {folder}: set FUSIONNODE_DATA", file=sys.stderr)
        return 1
    config = load(given.config)
    feed = read(folder, config, tuple(given.only or OBJECTS), given.days)
    good = True
    for title, elements in (("from nothing", False), ("with element sets of TOPEX", True)):
        if (elements and given.from_nothing) or (not elements and given.with_elements):
            continue
        files = (str(folder / "topex_dec1996.tle"),) if elements else ()
        began = perf_counter()
        passes = run(
            config.model_copy(update={"catalogue": config.catalogue.model_copy(update={"files": files})}),
            feed,
        )
        took = perf_counter() - began
        good = (
            judge(
                f"{title}: {len(feed.tag)} measurements, {took:.0f} s",
                passes,
                list(config.sensor),
                given.list,
            )
            and good
        )
    print("\nas asked" if good else "\nNOT as asked")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
