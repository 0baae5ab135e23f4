"""Late measurements: the tracker goes back to before them, takes them in their place, and comes forward again.

A rewind replays everything since a checkpoint, late measurements included, through the same code. So what the tracks
are in the end is what they would have been had nothing been late: the same associations, starts, merges and drops, to
the last bit. What is published in between is not replayed: afterwards each track that came out otherwise than before
is reported once, as it now is. Tracks keep the numbers under which they are known; a number that has had its
tombstone stays dead.

Memory and time are bounded. Checkpoints and measurements reach back `late_age_s`, less if there are more measurements
than `late_log_measurements`. Replays are paid from a credit that grows with time and with the measurements that came
on time; until it suffices, late measurements wait (so many late ones make for fewer and larger replays, not for a node
that falls behind).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fusionnode.core.outcome import Outcome, Outcomes, Share
from fusionnode.core.schema import REASON_DROPPED, REASON_MERGED
from fusionnode.core.sequence import in_order
from fusionnode.core.types import ObjectEvent, StructArray, Tombstone
from fusionnode.track.past.checkpoint import Checkpoint, checkpoint, restore
from fusionnode.track.past.reconcile import Named, Standing, names_of, standing
from fusionnode.track.picture import report
from fusionnode.track.told import Event
from fusionnode.track.tracker import Tracker

MARKS = 12
"""Checkpoints over the time that late measurements may be old."""
LEAST_BETWEEN_NS = 500_000_000
MOST_BYTES = 256 << 20
"""Of all checkpoints together: with more tracks there are fewer of them."""
CREDIT_PER_S = 10_000.0
CREDIT_PER_MEASUREMENT = 2.0
LEAST_CREDIT = 20_000.0
"""Measurements that may be replayed: so many a second, for each that came, and saved up."""
_LONG_AGO = -(1 << 62)
_SAME_NS = 120_000_000_000
"""Two manoeuvres of a track that are told within the same so many nanoseconds are one."""


@dataclass(frozen=True, eq=False)
class _Mark:
    """What the tracker was, and when."""

    t_ns: int  # all that is later than this is not in it yet
    taken: int  # measurements taken before it
    state: Checkpoint
    counts: dict[str, dict[str, int]]


class Rewind:
    """A tracker that can be given late measurements.

    Args:
        tracker: the tracker; nobody else drives it.
        share: what the tracker counts in.
        outcomes: all counters.
        names: of sensors, by index.
        coast_s: how often a coasting track is predicted.
        late_age_ns: how old a late measurement may be; 0: there are none, and nothing is kept.
        most_logged: measurements kept for replays.
    """

    def __init__(
        self,
        tracker: Tracker,
        share: Share,
        outcomes: Outcomes,
        names: tuple[str, ...],
        *,
        coast_s: float,
        late_age_ns: int,
        most_logged: int,
    ) -> None:
        self._tracker = tracker
        self._share = share
        self._outcomes = outcomes
        self._names = names
        self._coast_s = coast_s
        self._age_ns = late_age_ns
        self._most_logged = most_logged
        self._between_ns = max(late_age_ns // MARKS, LEAST_BETWEEN_NS)
        self._marks: list[_Mark] = []
        self._log: deque[StructArray] = deque()
        self._logged = 0
        self._taken = 0
        self._seen_ns = _LONG_AGO  # nothing at or before it comes any more, but for late ones
        self._advanced_ns = _LONG_AGO
        self._waiting: list[StructArray] = []
        self._credit, self._credited_ns = LEAST_CREDIT, 0
        self._told: deque[Any] = deque(maxlen=1024)
        self.replays = 0
        """Rewinds so far."""
        self.replayed = 0
        """Measurements that were gone through again."""
        self.overflows = 0
        """How often the log was full and reached back less than it should."""
        self.late = np.zeros(len(names), np.int64)
        """Late measurements taken in their place, by sensor index."""
        if late_age_ns:
            self._mark_if_due(_LONG_AGO)

    # -- what the tracker offers, with memory

    def process(self, measurements: StructArray) -> None:
        """See `Tracker.process`."""
        self._credit += CREDIT_PER_MEASUREMENT * len(measurements)
        self._process(measurements)

    def advance(self, t_ns: int) -> None:
        """See `Tracker.advance`."""
        self._advance(t_ns)
        if self._age_ns:
            self._mark_if_due(self._seen_ns)
            self._forget()

    def take(self) -> list[Event]:
        """See `Tracker.take_all`."""
        events = self._tracker.take_all()
        self._told.extend(_what(e) for e in events if isinstance(e, ObjectEvent))
        return events

    @property
    def waits(self) -> bool:
        """Whether late measurements wait for the next replay."""
        return bool(self._waiting)

    def pending(self) -> npt.NDArray[np.int64]:
        """Late measurements that wait for the next replay, by sensor index."""
        counts = np.zeros(len(self._names), np.int64)
        for batch in self._waiting:
            counts += np.bincount(batch["sensor"], minlength=len(counts))
        return counts

    def reset(self, t_ns: int) -> None:
        """The tracker was put into another state from outside, as of ``t_ns``: there is no past to go back to."""
        for batch in self._waiting:
            self._count(batch, Outcome.LATE)
        self._marks, self._waiting = [], []
        self._log.clear()
        self._logged = 0
        self._seen_ns = self._advanced_ns = t_ns
        if self._age_ns:
            self._mark_if_due(t_ns)

    # -- late measurements

    def add_late(self, measurements: StructArray) -> None:
        """Take MEASUREMENT[n], none newer than what was processed; those from before all memory are refused."""
        if len(measurements) == 0:
            return
        too_late = measurements["t_meas_ns"] <= (self._marks[0].t_ns if self._marks else self._seen_ns)
        if too_late.any():
            self._count(measurements[too_late], Outcome.LATE)
            measurements = measurements[~too_late]
        self._credit += CREDIT_PER_MEASUREMENT * len(measurements)
        room = self._most_logged - sum(map(len, self._waiting))
        if len(measurements) > room:
            self.overflows += 1
            self._count(measurements[room:], Outcome.LATE)
            measurements = measurements[:room]
        if len(measurements):
            self._waiting.append(measurements)

    def settle(self, t_ns: int, *, at_once: bool = False) -> None:
        """Replay what waits, if it can be afforded at ``t_ns`` (or ``at_once``)."""
        if self._credited_ns:
            self._credit += max(t_ns - self._credited_ns, 0) * 1e-9 * CREDIT_PER_S
        self._credited_ns = max(t_ns, self._credited_ns)
        most = 2.0 * self._logged
        if self._waiting:
            oldest_ns = min(int(batch["t_meas_ns"].min()) for batch in self._waiting)
            if oldest_ns > self._seen_ns:
                self._append(self._take_waiting())
                return
            mark = self._mark_before(oldest_ns)
            span_s = min(self._seen_ns - mark.t_ns, 2 * self._age_ns) * 1e-9
            coasts = len(self._tracker.slots()) * span_s / self._coast_s
            cost = self._taken - mark.taken + sum(map(len, self._waiting)) + coasts
            most = 2.0 * cost
            if at_once or cost <= self._credit:
                self._credit = max(self._credit - cost, 0.0)
                self._replay(mark, self._take_waiting())
        self._credit = min(self._credit, max(LEAST_CREDIT, most))

    def _take_waiting(self) -> StructArray:
        late = np.concatenate(self._waiting)
        self._waiting = []
        return late

    def _append(self, late: StructArray) -> None:
        """Take late ones that nothing newer came before."""
        sequence, repeated = in_order(late)
        if repeated is not None:
            self._count(sequence[repeated], Outcome.DUPLICATE)
            sequence = sequence[~repeated]
        self.late += np.bincount(sequence["sensor"], minlength=len(self._names))
        self._process(sequence)

    def _mark_before(self, t_ns: int) -> _Mark:
        """The newest checkpoint that a measurement at ``t_ns`` is not older than; the oldest one always serves."""
        return next(mark for mark in reversed(self._marks) if mark.t_ns < t_ns)

    def _replay(self, mark: _Mark, late: StructArray) -> None:
        tracker = self._tracker
        earlier = tracker.take_all()
        before = standing(tracker.picture)
        begun, advanced = tracker.begun, self._advanced_ns
        sequence, repeated = in_order(np.concatenate([*self._since(mark), late]))
        self.late += np.bincount(late["sensor"], minlength=len(self._names))
        if repeated is not None:  # all of them late ones: the log has none, and stands first
            double = sequence[repeated]
            self._count(double, Outcome.DUPLICATE)
            self.late -= np.bincount(double["sensor"], minlength=len(self._names))
            sequence = sequence[~repeated]
        self._cut_back_to(mark)
        restore(tracker, mark.state)
        self._share.back_to(mark.counts)
        tracker.number_from(begun)
        self._process(sequence)
        self._advance(advanced)
        happened = tracker.take_all()
        named = names_of(tracker, before, mark.state.numbers, begun)
        self._rename(named)
        tracker.number_from(begun + named.new)
        tracker.give_back(earlier + self._changes(before, happened, named))
        self.replays += 1
        self.replayed += len(sequence)

    # -- memory

    def _process(self, measurements: StructArray) -> None:
        if not self._age_ns:
            self._tracker.process(measurements)
            return
        t = measurements["t_meas_ns"]
        start = 0
        while start < len(t):
            self._mark_if_due(int(t[start]) - 1)
            end = max(int(np.searchsorted(t, self._marks[-1].t_ns + self._between_ns)), start + 1)
            # what has one time stays together: a checkpoint in between would be older than none of it
            end = int(np.searchsorted(t, t[end - 1], side="right"))
            part = measurements[start:end]
            self._log.append(part)
            self._logged += len(part)
            self._taken += len(part)
            self._seen_ns = max(self._seen_ns, int(t[end - 1]))
            self._tracker.process(part)
            start = end
        if self._logged > self._most_logged:
            self._forget()

    def _advance(self, t_ns: int) -> None:
        self._tracker.advance(t_ns)
        self._advanced_ns = max(self._advanced_ns, t_ns)
        self._seen_ns = max(self._seen_ns, t_ns)

    def _mark_if_due(self, next_ns: int) -> None:
        """Make a checkpoint if the last one is old by ``next_ns``, TAI: nothing newer than that was taken yet."""
        if self._marks and next_ns - self._marks[-1].t_ns < self._between_ns:
            return
        state = checkpoint(self._tracker)
        self._marks.append(_Mark(self._seen_ns, self._taken, state, self._share.mark()))
        if len(self._marks) > 4 and sum(mark.state.nbytes for mark in self._marks) > MOST_BYTES:
            del self._marks[1:-1:2]

    def _forget(self) -> None:
        """Let go of checkpoints, and of measurements before them, that no late measurement needs."""
        waiting = [int(batch["t_meas_ns"].min()) for batch in self._waiting]
        needed_ns = min([self._seen_ns - self._age_ns, *waiting])
        first = 0
        while first + 1 < len(self._marks) and self._marks[first + 1].t_ns < needed_ns:
            first += 1
        full = first
        while full + 1 < len(self._marks) and self._taken - self._marks[full].taken > self._most_logged:
            full += 1
        if full > first:
            self.overflows += 1
            first = full
            self._refuse_until(self._marks[first].t_ns)
        del self._marks[:first]
        while self._log and self._taken - self._logged + len(self._log[0]) <= self._marks[0].taken:
            self._logged -= len(self._log.popleft())

    def _refuse_until(self, t_ns: int) -> None:
        """What waits and is not newer than ``t_ns`` has no checkpoint to go back to any more."""
        kept = []
        for batch in self._waiting:
            lost = batch["t_meas_ns"] <= t_ns
            self._count(batch[lost], Outcome.LATE)
            if not lost.all():
                kept.append(batch[~lost])
        self._waiting = kept

    def _since(self, mark: _Mark) -> list[StructArray]:
        """What was taken after ``mark``, in order."""
        at = self._taken - self._logged
        parts = []
        for part in self._log:
            if at >= mark.taken:
                parts.append(part)
            at += len(part)
        return parts

    def _cut_back_to(self, mark: _Mark) -> None:
        del self._marks[self._marks.index(mark) + 1 :]
        while self._taken > mark.taken:
            part = self._log.pop()
            self._taken -= len(part)
            self._logged -= len(part)
        self._seen_ns = self._advanced_ns = mark.t_ns

    def _count(self, measurements: StructArray, outcome: Outcome) -> None:
        for sensor, n in enumerate(np.bincount(measurements["sensor"])):
            self._outcomes.add(self._names[sensor], outcome, int(n))

    # -- numbers

    def _rename(self, named: Named) -> None:
        """Give the tracks of the picture, and of the checkpoints made while replaying, the numbers they go by."""
        if not named.number:
            return
        self._tracker.rename(named.number)
        for state in (mark.state for mark in self._marks):
            numbers = state.picture["number"]
            for i in np.flatnonzero(np.isin(numbers, list(named.number))).tolist():
                numbers[i] = named.number[int(numbers[i])]
            watch = state.rest.get("_watch")
            if watch is not None:
                watch.rename(named.number)

    def _changes(self, before: Standing, happened: list[Event], named: Named) -> list[Event]:
        """What is to be told: other events that are new, ends, and the tracks that are not as they were."""
        picture = self._tracker.picture
        events: list[Event] = []
        told = set(self._told)
        for event in happened:
            if isinstance(event, ObjectEvent):
                number = named.number.get(event.track, event.track)
                related = None if event.related is None else named.number.get(event.related, event.related)
                event = replace(event, track=number, related=related)
                if _what(event) not in told:
                    events.append(event)
        ended = {e.track: e for e in happened if isinstance(e, Tombstone)}
        for number in named.gone:
            t_ns, successor = self._seen_ns, named.successor.get(number)
            reason = REASON_DROPPED if successor is None else REASON_MERGED
            if number in ended:
                t_ns, reason, successor = ended[number].t_ns, ended[number].reason, ended[number].successor
            if successor is not None:
                successor = named.number.get(successor, successor)
            events.append(Tombstone(number, t_ns, reason, successor))
        slots = before.changed(picture)
        if len(slots):
            events.append(report(picture, slots))
        return events


def _what(event: ObjectEvent) -> tuple[object, ...]:
    """What an event is about, whatever its evidence: what a replay finds again is not told again."""
    return event.kind, event.track, event.related, event.count, event.t_ns // _SAME_NS
