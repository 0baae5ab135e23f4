"""Does a sensor still make sense? Evidence from many tracks, and a verdict that is slow to change its mind.

Evidence is the NIS per degree of freedom of detections, refused ones included, kept apart by what they were held
against:

- *alone*: against a track that the same sensor had updated last. Here shows a noise that grew, or a sensor that
  contradicts itself. An offset does not show: the track has followed it.
- *after another*: the first detections after another sensor's. Here two sensors disagree, or the one before has led
  the track astray. A sensor that fits after nobody, while others fit after each other, is the wrong one.
- *astray*: detections that belong to no track, though their range and range rate are those of one that other
  sensors hold: right echo, wrong direction.

One object that manoeuvres, or one pass that was given to the wrong track, is one track: a verdict needs several,
and takes the median over them, so that less than half of them can not make it.

- *suspect*: the sensor's sigmas are widened; it goes on contributing. What alone shows, or what two sensors make of
  each other when there is no third to decide, is no more than this. A lone sensor is never isolated: nothing says
  that the orbit is right and it is wrong, and without it there would be no picture at all.
- *isolated*: its detections are tried for the statistics, and update nothing. It takes other sensors that agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np


class Trust(IntEnum):
    """What the node thinks of a sensor."""

    OK = 0
    SUSPECT = 1
    ISOLATED = 2


REASON_NOISY = "noisy"
REASON_DISAGREES = "disagrees_with_others"
REASON_ASTRAY = "right_range_wrong_direction"
REASON_UNSUPPORTED = "sees_what_no_other_sees"


class Evidence(NamedTuple):
    """One visit: a sensor's detections of one track, after ``before`` (the same or another sensor) had updated it."""

    t_ns: int
    sensor: int
    before: int
    track: int
    ratio: float
    detections: int


class Between(NamedTuple):
    """How a sensor fits after another one: the median ratio over tracks, and the time of the newest visit, TAI ns."""

    ratio: float
    newest_ns: int


Pairs = dict[tuple[int, int], Between]


class Criteria(NamedTuple):
    """When a mind is changed."""

    tracks: int  # distinct ones that a verdict needs
    raise_ratio: float  # NIS per degree of freedom, median over tracks
    clear_ratio: float
    window_s: float  # evidence older than this does not count
    clear_s: float  # how long all must be well before trust comes back


@dataclass
class _Judged:
    state: Trust = Trust.OK
    reason: str = ""
    since_ns: int = 0
    bad_reviews: int = 0
    worse: Trust = Trust.OK
    well_since_ns: int = -1
    astray: dict[int, int] = field(default_factory=dict)
    looked_at: int = 0
    orphans: int = 0
    hits: int = 0
    supported: float = -1.0  # long-run part of its detections that hit tracks others hold too; -1: not known
    supported_n: float = 0.0
    newest_ns: int = 0


NEWEST = 9
"""A verdict looks at so many tracks, the ones seen last."""
RECENT_S = 60.0
"""Visits not older than this, against the newest of their kind, all count up to NEWEST of them; older ones only as
far as there are not enough tracks else."""
REMEMBERED = 32
"""Visits kept of every pair of sensors."""
LEAST_IN_VISIT = 3
REVIEWS = 2
"""A sensor must be found wanting so many reviews running."""
AGREE_RATIO = 2.0
BEYOND_DOUBT = 8.0
"""A ratio (they are counted up to 10) from which a sensor that others speak against is isolated, not only suspect:
real radars have passes that are off by some sigma, and that is no lie."""
ASTRAY_HITS = 10
ASTRAY_PART = 0.3
UNSUPPORTED = 0.05
WELL_SUPPORTED = 0.5
SUPPORT_MEMORY = 2_000.0
LEAST_ORPHANS = 30


class TrustKeeper:
    """The verdicts over S sensors. `note` evidence, then `review` now and then."""

    def __init__(self, sensors: int, criteria: Criteria) -> None:
        self._criteria = criteria
        self._judged = [_Judged() for _ in range(sensors)]
        self._visits: dict[tuple[int, int, int], Evidence] = {}

    def twin(self) -> TrustKeeper:
        """A copy that goes its own way."""
        new = copy(self)
        new._judged = [replace(j, astray=dict(j.astray)) for j in self._judged]
        new._visits = dict(self._visits)
        return new

    def state(self, sensor: int) -> Trust:
        """The verdict on one sensor."""
        return self._judged[sensor].state

    def reason(self, sensor: int) -> str:
        """Why it is not trusted; empty if it is."""
        return self._judged[sensor].reason

    def since_ns(self, sensor: int) -> int:
        """When the verdict last changed, TAI ns; 0 if never."""
        return self._judged[sensor].since_ns

    def note(self, evidence: Evidence) -> None:
        """Take in one visit as it stands; it replaces what was said of the same visit before."""
        if evidence.detections >= (LEAST_IN_VISIT if evidence.sensor == evidence.before else 1):
            self._visits[(evidence.sensor, evidence.before, evidence.track)] = evidence
            judged = self._judged[evidence.sensor]
            judged.newest_ns = max(judged.newest_ns, evidence.t_ns)

    def note_astray(self, sensor: int, track: int | None) -> None:
        """A detection without a track was looked at: it has the range and range rate of ``track``, which others
        hold, from elsewhere, or of none."""
        judged = self._judged[sensor]
        judged.looked_at += 1
        if track is not None:
            judged.astray[track] = judged.astray.get(track, 0) + 1

    def note_support(self, sensor: int, supported: int, unsupported: int) -> None:
        """So many detections hit tracks that other sensors hold too; so many hit nothing, or tracks of this sensor
        alone."""
        judged = self._judged[sensor]
        judged.hits += supported
        judged.orphans += unsupported

    def review(self, t_ns: int) -> list[int]:
        """Weigh what has come in up to ``t_ns``; the sensors whose verdict changed."""
        window_ns = round(self._criteria.window_s * 1e9)
        newest: dict[tuple[int, int], int] = {}
        kept = []
        for e in sorted(self._visits.values(), key=lambda e: (-e.t_ns, e.track, e.sensor, e.before)):
            pair = (e.sensor, e.before)
            if t_ns - e.t_ns <= window_ns and newest.get(pair, 0) < REMEMBERED:
                newest[pair] = newest.get(pair, 0) + 1
                kept.append(e)
        self._visits = {(e.sensor, e.before, e.track): e for e in kept}
        alone, against = self._medians()
        changed = []
        apart = [
            sensor
            for sensor, judged in enumerate(self._judged)
            if judged.state is Trust.ISOLATED or self._charge(sensor, alone, against, [])[0] is Trust.ISOLATED
        ]
        for sensor, judged in enumerate(self._judged):
            worse, reason = self._charge(sensor, alone, against, [o for o in apart if o != sensor])
            if self._turn(judged, worse, reason, t_ns, alone.get(sensor), _partners(sensor, against), apart):
                changed.append(sensor)
        for judged in self._judged:
            total = judged.hits + judged.orphans
            if total >= LEAST_ORPHANS:
                share = min(1.0, max(total / SUPPORT_MEMORY, total / (judged.supported_n + total)))
                part = judged.hits / total
                if judged.state is Trust.OK and part > UNSUPPORTED:
                    judged.supported = (
                        part if judged.supported < 0 else judged.supported + share * (part - judged.supported)
                    )
                    judged.supported_n += total
                judged.hits = judged.orphans = 0
                judged.astray.clear()
                judged.looked_at = 0
        return changed

    def _medians(self) -> tuple[dict[int, float], Pairs]:
        """Median ratio over distinct tracks: of each sensor alone, and of each after another one."""
        pairs: dict[tuple[int, int], dict[int, float]] = {}
        newest: dict[tuple[int, int], int] = {}
        need, recent_ns = self._criteria.tracks, round(RECENT_S * 1e9)
        for e in self._visits.values():  # newest first
            if e.before < 0:
                continue
            pair = (e.sensor, e.before)
            tracks = pairs.setdefault(pair, {})
            age_ns = newest.setdefault(pair, e.t_ns) - e.t_ns
            if e.track in tracks or len(tracks) < (NEWEST if age_ns <= recent_ns else need):
                tracks[e.track] = max(tracks.get(e.track, 0.0), e.ratio)
        medians = {p: float(np.median(list(r.values()))) for p, r in pairs.items() if len(r) >= need}
        return (
            {a: ratio for (a, b), ratio in medians.items() if a == b},
            {p: Between(ratio, newest[p]) for p, ratio in medians.items() if p[0] != p[1]},
        )

    def _charge(
        self, sensor: int, alone: dict[int, float], against: Pairs, apart: list[int]
    ) -> tuple[Trust, str]:
        """How bad the evidence is against one sensor, those ``apart`` not heard."""
        c = self._criteria
        judged = self._judged[sensor]
        others = {o: x for o, x in _partners(sensor, against).items() if o not in apart}
        fighting = [o for o, x in others.items() if x.ratio >= c.raise_ratio]
        if fighting and not _friends(others, fighting):
            begun_ns = _begun_ns(others, fighting)
            backed = [o for o in fighting if _agrees_but_with(o, sensor, against, begun_ns)]
            if (
                len(backed) >= min(2, len(fighting))
                and min(others[o].ratio for o in fighting) >= BEYOND_DOUBT
            ):
                return Trust.ISOLATED, REASON_DISAGREES
            return Trust.SUSPECT, REASON_DISAGREES
        total = judged.hits + judged.orphans
        astray = sum(judged.astray.values())
        if astray >= ASTRAY_HITS and astray >= ASTRAY_PART * (judged.looked_at + judged.hits):
            return (Trust.ISOLATED if len(judged.astray) >= c.tracks else Trust.SUSPECT), REASON_ASTRAY
        if (
            total >= LEAST_ORPHANS
            and judged.supported >= WELL_SUPPORTED
            and judged.hits <= UNSUPPORTED * total
            and any(j.hits > j.orphans for o, j in enumerate(self._judged) if o != sensor)
        ):
            return Trust.SUSPECT, REASON_UNSUPPORTED
        if alone.get(sensor, 0.0) >= c.raise_ratio:
            return Trust.SUSPECT, REASON_NOISY
        return Trust.OK, ""

    def _turn(
        self,
        judged: _Judged,
        worse: Trust,
        reason: str,
        t_ns: int,
        alone: float | None,
        others: dict[int, Between],
        apart: list[int],
    ) -> bool:
        """Change one verdict if it is time to; says whether it did."""
        c = self._criteria
        if worse > judged.state:
            judged.well_since_ns = -1
            judged.bad_reviews += 1
            judged.worse = worse if judged.bad_reviews == 1 else min(judged.worse, worse)
            if judged.bad_reviews < REVIEWS:
                return False
            judged.state, judged.reason, judged.since_ns = judged.worse, reason, t_ns
            judged.bad_reviews = 0
            return True
        judged.bad_reviews = 0
        if judged.state is Trust.OK:
            return False
        heard = [x.ratio for o, x in others.items() if o not in apart]
        ratios = [*heard, *([alone] if alone is not None else [])]
        well = (
            worse is Trust.OK
            and bool(ratios)
            and max(ratios) <= c.clear_ratio
            and t_ns - judged.newest_ns <= c.clear_s * 1e9
        )
        if judged.state is Trust.ISOLATED and not heard:
            well = False
        if not well:
            judged.well_since_ns = -1
            return False
        if judged.well_since_ns < 0:
            judged.well_since_ns = t_ns
        if t_ns - judged.well_since_ns < c.clear_s * 1e9:
            return False
        judged.state = Trust(judged.state - 1)
        judged.reason = "" if judged.state is Trust.OK else judged.reason
        judged.since_ns, judged.well_since_ns = t_ns, -1
        return True

    # -- what outlives a run

    def export_state(self, names: Sequence[str]) -> dict[str, Any]:
        """Verdicts by sensor name; the evidence itself is gathered anew."""
        return {
            name: {
                "state": int(j.state),
                "reason": j.reason,
                "since_ns": j.since_ns,
                "supported": j.supported,
                "supported_n": j.supported_n,
            }
            for name, j in zip(names, self._judged, strict=True)
        }

    def import_state(self, names: Sequence[str], state: dict[str, Any]) -> None:
        """Take up again what `export_state` gave; sensors it does not name start as ok."""
        for name, judged in zip(names, self._judged, strict=True):
            kept = state.get(name)
            if kept is not None:
                judged.state = Trust(int(kept["state"]))
                judged.reason = str(kept["reason"])
                judged.since_ns = int(kept["since_ns"])
                judged.supported = float(kept["supported"])
                judged.supported_n = float(kept["supported_n"])


def _partners(sensor: int, against: Pairs) -> dict[int, Between]:
    """The other sensors whose tracks it has seen after them, and how well it fitted."""
    return {b: x for (a, b), x in against.items() if a == sensor}


def _friends(others: dict[int, Between], fighting: list[int]) -> list[int]:
    """Those who agree with it, and did not do so only before the fighting began."""
    begun_ns = _begun_ns(others, fighting)
    return [o for o, x in others.items() if o not in fighting and x.newest_ns >= begun_ns]


def _begun_ns(others: dict[int, Between], fighting: list[int]) -> int:
    return max(others[o].newest_ns for o in fighting) - round(RECENT_S * 1e9)


def _agrees_but_with(sensor: int, other: int, against: Pairs, since_ns: int) -> bool:
    """Whether ``sensor`` and somebody else than ``other`` bear each other out, not only from before ``since_ns``."""
    return any(
        x.ratio <= AGREE_RATIO and x.newest_ns >= since_ns
        for pair, x in against.items()
        if sensor in pair and other not in pair
    )
