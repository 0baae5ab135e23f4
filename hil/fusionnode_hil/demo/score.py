"""What the node made of it, against truth: which objects it held, how well, and whether the books balance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from fusionnode.client import Event, State, Tombstone
from fusionnode.core.schema import REASON_MERGED, ObjectState
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode_hil.emulator import Emulator
from fusionnode_hil.times import NS, FloatArray
from fusionnode_hil.truth import Truth

# The demo has held if every one of these is true (see `failures`).
MIN_SIGHTINGS: Final = 20
"""An object that was detected this often without a long break has to have a confirmed track at the last of them..."""
BREAK_S: Final = 120.0
"""(a longer break begins a new stretch)"""
FRESH_S: Final = 90.0
"""...whose state is not older than this..."""
HELD_SIGMA: Final = 8.0
"""...and is off by less than so many of the sigmas that the track itself states (SGP4, which makes the truth, is no
exact solution of any dynamics, and eight sigmas leave room for that and for many seeds)..."""
HELD_KM: Final = 1.0
"""...and by less than this, if a radar made `MIN_SIGHTINGS` of the stretch's detections..."""
HELD_ANGLES_ONLY_KM: Final = 15.0
"""...or this, if not: a telescope cannot take the catalogue's error in range away in minutes."""
FALSE_KM: Final = 50.0
"""A published track whose states lie further off every object than this, in the median, is false."""
RANGING: Final = "radar"
"""The sensor that measures range."""


class Sighting(NamedTuple):
    """A detection that was really of an object; ``body`` is its row in the truth."""

    t_ns: int
    body: int
    sensor: str


class Fix(NamedTuple):
    """A published state, as far as it is scored; m, GCRF."""

    t_ns: int
    r: FloatArray
    P: FloatArray  # (3, 3)
    confirmed: bool


@dataclass
class History:
    """All that was published of one track."""

    track_id: str
    fixes: list[Fix] = field(default_factory=list)
    sat_no: int | None = None
    ended_ns: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ObjectScore:
    """How one object fared. Errors are of position, of states at measurements; ``None`` where there is none."""

    sat_no: int
    name: str
    catalogued: bool
    detections: dict[str, int]
    trackable: bool
    held: bool
    tracks: list[str]
    error_rms_m: float | None
    error_end_m: float | None
    sigma_end_m: float | None
    sigmas_end: float | None
    """The last error in units of the covariance: root of the squared Mahalanobis distance."""
    trouble: str


class Histories:
    """Gathers what is scored from a subscriber's events."""

    def __init__(self) -> None:
        self.by_track: dict[str, History] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Take events in order; states from snapshots, too."""
        for event in events:
            if isinstance(event, State):
                state = event.state
                history = self.by_track.setdefault(state["trackId"], History(state["trackId"]))
                history.fixes.append(_fix(state))
                history.sat_no = state["satNo"]
            elif isinstance(event, Tombstone) and event.track_id in self.by_track:
                history = self.by_track[event.track_id]
                history.reason = event.reason
                history.ended_ns = None if event.epoch is None else tai_ns_from_utc_text(event.epoch)


def sightings(emulator: Emulator, name: str, until_ns: int) -> list[Sighting]:
    """What a fresh emulator's detections up to ``until_ns`` are of: the same that its process sends."""
    found = []
    for emission in emulator.sensor.advance(until_ns):
        found += [
            Sighting(message.t_ns, body, name)
            for message, body in zip(emission.messages, emission.bodies, strict=True)
            if body >= 0
        ]
    return found


def objects(
    histories: Sequence[History],
    truth: Truth,
    seen: Sequence[Sighting],
    catalogued: Iterable[int],
) -> tuple[list[ObjectScore], list[str]]:
    """A score for each object that was seen at all, and the ids of false tracks."""
    known = frozenset(catalogued)
    owner: dict[str, int] = {}
    errors: dict[str, FloatArray] = {}
    false = []
    for history in histories:
        t_ns = np.array([fix.t_ns for fix in history.fixes], np.int64)
        offsets = np.array([fix.r for fix in history.fixes]) - truth.states(t_ns)[..., :3]
        distance = np.linalg.norm(offsets, axis=-1)
        median = np.median(distance, axis=1)
        row = int(np.nanargmin(median))
        if not median[row] <= FALSE_KM * 1e3:
            false.append(history.track_id)
            continue
        owner[history.track_id], errors[history.track_id] = row, offsets[row]
    scores = []
    for row, body in enumerate(truth.bodies):
        of_body = [s for s in seen if s.body == row]
        mine = [h for h in histories if owner.get(h.track_id) == row]
        if of_body or mine:
            number = body.sat_no if body.sat_no in known else None
            scores.append(_object(body.sat_no, body.name, number, of_body, mine, errors))
    return scores, false


def doubles(histories: Sequence[History], scores: Sequence[ObjectScore]) -> list[str]:
    """Tracks that lived beside an older one of the same object, and were not merged with it."""
    by_id = {history.track_id: history for history in histories}
    found = []
    for score in scores:
        spans = [by_id[track] for track in score.tracks if by_id[track].reason != REASON_MERGED]
        for i, younger in enumerate(spans):
            begin = younger.fixes[0].t_ns
            if any(older.ended_ns is None or older.ended_ns > begin for older in spans[:i]):
                found.append(younger.track_id)
    return found


def ledger_faults(sensors: Mapping[str, Mapping[str, int]]) -> list[str]:
    """By sensor: where detections in are not the sum of all outcomes and those pending."""
    faults = []
    for name, counts in sensors.items():
        out = sum(n for key, n in counts.items() if key != "in")
        if out != counts["in"]:
            faults.append(f"{name}: {counts['in']} detections in, but {out} accounted for")
    return faults


def as_dict(score: ObjectScore) -> dict[str, Any]:
    """For a report; numbers rounded to what they are worth."""
    digits = {"error_rms_m": 1, "error_end_m": 1, "sigma_end_m": 1, "sigmas_end": 2}
    return {
        key: round(value, digits[key]) if key in digits and value is not None else value
        for key, value in asdict(score).items()
    }


def rms(values: Sequence[float]) -> float | None:
    """Root mean square; None of nothing."""
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else None


def _fix(state: ObjectState) -> Fix:
    c = state["cov"]
    P = np.array([[c[0], c[1], c[3]], [c[1], c[2], c[4]], [c[3], c[4], c[5]]]) * 1e6
    r = np.array([state["xpos"], state["ypos"], state["zpos"]]) * 1e3
    return Fix(tai_ns_from_utc_text(state["epoch"]), r, P, state["status"] == "confirmed")


def _object(
    sat_no: int,
    name: str,
    expected_sat_no: int | None,
    seen: Sequence[Sighting],
    tracks: Sequence[History],
    errors: Mapping[str, FloatArray],
) -> ObjectScore:
    counts: dict[str, int] = {}
    for sighting in seen:
        counts[sighting.sensor] = counts.get(sighting.sensor, 0) + 1
    stretches = [s for s in _stretches(sorted(seen)) if len(s) >= MIN_SIGHTINGS]
    troubles = [trouble for s in stretches if (trouble := _trouble(s, tracks, errors))]
    # A newer track of an object may still be uncorrelated, but none may bear another's name.
    if any(track.sat_no is not None and track.sat_no != expected_sat_no for track in tracks):
        troubles.append("has another object's name")
    if expected_sat_no is not None and tracks and tracks[-1].sat_no is None and stretches:
        troubles.append("was not given its name")
    measured = [
        float(np.linalg.norm(error))
        for track in tracks
        for fix, error in zip(track.fixes, errors[track.track_id], strict=True)
        if fix.confirmed
    ]
    last = None
    if tracks and stretches:
        last = _newest(stretches[-1][-1].t_ns, tracks, errors)
    return ObjectScore(
        sat_no=sat_no,
        name=name,
        catalogued=expected_sat_no is not None,
        detections=dict(sorted(counts.items())),
        trackable=bool(stretches),
        held=bool(stretches) and not troubles,
        tracks=[track.track_id for track in tracks],
        error_rms_m=rms(measured),
        error_end_m=None if last is None else float(np.linalg.norm(last[1])),
        sigma_end_m=None if last is None else float(np.sqrt(np.trace(last[0].P))),
        sigmas_end=None if last is None else _sigmas(*last),
        trouble="; ".join(dict.fromkeys(troubles)),
    )


def _stretches(seen: Sequence[Sighting]) -> list[list[Sighting]]:
    """Runs of sightings without a break."""
    runs: list[list[Sighting]] = []
    for sighting in seen:
        if not runs or sighting.t_ns - runs[-1][-1].t_ns > BREAK_S * NS:
            runs.append([])
        runs[-1].append(sighting)
    return runs


def _newest(
    t_ns: int, tracks: Sequence[History], errors: Mapping[str, FloatArray]
) -> tuple[Fix, FloatArray] | None:
    """The newest state up to ``t_ns`` (and the device's clock error) of a track that lived then."""
    best: tuple[Fix, FloatArray] | None = None
    for track in tracks:
        if track.ended_ns is not None and track.ended_ns <= t_ns and track.reason != REASON_MERGED:
            continue
        for fix, error in zip(track.fixes, errors[track.track_id], strict=True):
            if fix.t_ns <= t_ns + NS // 1000 and (best is None or fix.t_ns >= best[0].t_ns):
                best = fix, error
    return best


def _trouble(stretch: Sequence[Sighting], tracks: Sequence[History], errors: Mapping[str, FloatArray]) -> str:
    """What is wrong with an object's track at the end of a stretch; empty if nothing is."""
    t_ns = stretch[-1].t_ns
    found = _newest(t_ns, tracks, errors)
    if found is None:
        return "no track"
    fix, error = found
    off_km = float(np.linalg.norm(error)) / 1e3
    with_range = sum(sighting.sensor == RANGING for sighting in stretch) >= MIN_SIGHTINGS
    if t_ns - fix.t_ns > FRESH_S * NS:
        return f"its state was {(t_ns - fix.t_ns) / NS:.0f} s old"
    if off_km > (HELD_KM if with_range else HELD_ANGLES_ONLY_KM):
        return f"off by {off_km:.1f} km"
    if _sigmas(fix, error) > HELD_SIGMA:
        return f"off by {_sigmas(fix, error):.1f} of its sigmas"
    return ""


def _sigmas(fix: Fix, error: FloatArray) -> float:
    return float(np.sqrt(error @ np.linalg.solve(fix.P, error)))
