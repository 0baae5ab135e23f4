"""What one release group gets, in order: the stream of its own that `GroupStream.take` hands out.

Times here are those of ticks and of states; so the same calls give the same bytes. What a group is not released does
not exist in its stream: neither in counts, nor in names, nor as anybody's successor.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fusionnode.core import schema
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import TRACK_STATE, KnownObject, ObjectEvent, StructArray, Tombstone
from fusionnode.release.batch import Context, StateBatch
from fusionnode.release.group_wire import GroupEncoder, Markings
from fusionnode.release.policy import CompiledRule, Policy
from fusionnode.release.precision import EXACT, Offset, shift_s, turned
from fusionnode.release.wire import Message, StreamDigest, event_body

SECOND_NS = 1_000_000_000
_IN_DELAY = 64
"""States of one track that wait for their delay to pass, at most; there is room for as many in it, evenly."""
_MOST_WAITING = 200_000
"""States that wait altogether; beyond it new ones are dropped and counted."""
_DECIDES_BY_STATE = ("satNo", "name", "sensors", "nis", "dof")
"""Fields of a state that events have too: withheld in both."""


class Grant(NamedTuple):
    """From message ``seq`` on, the group is told of a track by ``rule``; an empty rule: no longer."""

    track_id: str
    sat_no: int | None
    rule: str
    seq: int


class Released(NamedTuple):
    """What has come together since the last time."""

    messages: list[Message]
    grants: list[Grant]


class _Track:
    """What the group's stream knows of a track of the node."""

    __slots__ = ("cut_ns", "delay_ns", "due_ns", "epoch_ns", "held", "level", "newest", "object", "rule", "sat_no",
                 "sent_ns", "shown", "spaced_ns", "track_id", "wary")  # fmt: skip

    def __init__(self, track_id: str) -> None:
        self.track_id = track_id
        self.shown = False
        self.wary = False  # was withdrawn once
        self.rule: CompiledRule | None = None
        self.sat_no = 0
        self.object = -1
        self.level = EXACT  # never finer than once released
        self.epoch_ns = 0  # of the newest state sent
        self.sent_ns = 0
        self.cut_ns = 0  # states up to here were denied
        self.delay_ns = 0  # of the rule that decided last
        self.due_ns = 0  # until here something of it waits
        self.spaced_ns = -(1 << 62)
        self.held: StructArray | None = None
        self.newest: bytes | None = None  # TRACK_STATE[1], as it was sent last


class GroupStream:
    """One group's policy, delays, rates, names and messages.

    Args:
        policy: the group's.
        encoder: the group's; it owns the sequence numbers.
        context: what the node knows.
        outcomes: where what becomes of states is counted, under ``group:NAME``.
        heartbeat_ns, sensor_state_ns: intervals.
    """

    def __init__(
        self,
        policy: Policy,
        encoder: GroupEncoder,
        context: Context,
        outcomes: Outcomes,
        *,
        heartbeat_ns: int,
        sensor_state_ns: int,
    ) -> None:
        self.name = policy.name
        self.policy = policy
        self.encoder = encoder
        self.digest = StreamDigest()
        """Over all messages taken so far."""
        self._context = context
        self._outcomes = outcomes
        self._source = f"group:{policy.name}"
        self._heartbeat_ns, self._sensor_state_ns = heartbeat_ns, sensor_state_ns
        self._next_heartbeat_ns = self._next_sensor_state_ns = 0
        self._tracks: dict[int, _Track] = {}
        self._shown = 0
        self._hidden = False  # a track was ever withdrawn
        self._released = 0  # not yet among the outcomes
        self._levels: dict[int, int] = {}
        self._waiting: list[tuple[int, int, str, Any]] = []
        self._rows_waiting = 0
        self._events_lost = 0  # no room for them to wait
        self._serial = 0
        self._held: list[tuple[int, int]] = []
        self._messages: list[Message] = []
        self._grants: list[Grant] = []

    # -- in

    def states(self, batch: StateBatch, t_ns: int) -> None:
        """States that the node publishes, at tick ``t_ns``."""
        decided = self.policy.decide(batch, self._wary(batch)).tolist()
        tracks = batch.states["track"].tolist()
        waiting: dict[int, list[int]] = {}
        for row, (track, index) in enumerate(zip(tracks, decided, strict=True)):
            rule = self.policy.rules[index] if index >= 0 else None
            if rule is None or not rule.release:
                self._outcomes.add(self._source, Outcome.NOT_RELEASED)
                if (known := self._tracks.get(track)) is not None:
                    known.cut_ns = max(known.cut_ns, int(batch.states["epoch_ns"][row]))
                    self._withdraw(known, known.cut_ns)
            elif rule.effects.delay_ns:
                waiting.setdefault(rule.effects.delay_ns, []).append(row)
            else:
                self._pass(batch, row, rule, t_ns)
        for delay_ns, rows in waiting.items():
            self._wait(batch, rows, delay_ns)
        self._count()

    def end(self, tombstone: Tombstone, t_ns: int) -> None:
        """A track of the node has ended, at tick ``t_ns``."""
        track = self._tracks.get(tombstone.track)
        if track is None:
            self._levels.pop(tombstone.track, None)
            return
        due_ns = max(tombstone.t_ns + track.delay_ns if track.delay_ns else 0, track.due_ns)
        if due_ns > t_ns:
            self._push(due_ns, "end", tombstone)
        else:
            self._end(tombstone)

    def event(self, event: ObjectEvent, t_ns: int) -> None:
        """Something happened to a track of the node."""
        track = self._tracks.get(event.track)
        if track is None:
            return
        due_ns = max(event.t_ns + track.delay_ns if track.delay_ns else 0, track.due_ns)
        if due_ns > t_ns:
            if self._rows_waiting < _MOST_WAITING:
                self._rows_waiting += 1
                self._push(due_ns, "event", event)
            else:
                self._events_lost += 1
        else:
            self._tell(event)

    def turn(
        self, t_ns: int, sensors: Callable[[], Mapping[str, Mapping[str, Any]]], *, force: bool = False
    ) -> None:
        """It is ``t_ns``: let out what has waited long enough, and what comes regularly."""
        self._release_due(t_ns)
        if force or t_ns >= self._next_sensor_state_ns:
            self._next_sensor_state_ns = (t_ns // self._sensor_state_ns + 1) * self._sensor_state_ns
            if self.policy.group.sensor_status:
                states = sensors()
                for name in self.policy.group.sensor_status:
                    self._add(self.encoder.sensor(t_ns, name, states.get(name, {})))
        if force or t_ns >= self._next_heartbeat_ns:
            self._next_heartbeat_ns = (t_ns // self._heartbeat_ns + 1) * self._heartbeat_ns
            self._add(self.encoder.heartbeat(t_ns, self._shown, self._heartbeat_ns / SECOND_NS))

    def stop(self, t_ns: int) -> None:
        """The node stops for good: what is shown ends. What still waits for its delay is not released any more."""
        for number in sorted(self._tracks):
            track = self._tracks[number]
            self._drop_held(track)
            if track.shown:
                self._hide(track, t_ns, schema.REASON_NODE_STOPPED, None)
        for _, _, kind, what in self._waiting:
            if kind == "states":
                self._outcomes.add(self._source, Outcome.NOT_RELEASED, len(what[1]))
        self._tracks.clear()
        self._waiting.clear()
        self._held.clear()
        self._rows_waiting = 0

    def reload(
        self, policy: Policy, markings: Markings, t_ns: int, *, heartbeat_ns: int, sensor_state_ns: int
    ) -> None:
        """From now on another policy decides. What it does not release is withdrawn at once; of the rest, the newest
        states are sent once more, as it releases them.
        """
        self.policy = policy
        self.encoder.markings = markings
        self._heartbeat_ns, self._sensor_state_ns = heartbeat_ns, sensor_state_ns
        self._next_heartbeat_ns = self._next_sensor_state_ns = 0
        self._levels.clear()
        for track in self._tracks.values():
            track.level = EXACT
        shown = [
            track for _, track in sorted(self._tracks.items()) if track.shown and track.newest is not None
        ]
        if not shown:
            return
        newest = np.frombuffer(b"".join([track.newest or b"" for track in shown]), TRACK_STATE)
        batch = StateBatch(self._as_known_now(newest), self._context)
        for row, (track, index) in enumerate(zip(shown, policy.decide(batch).tolist(), strict=True)):
            rule = policy.rules[index] if index >= 0 else None
            if rule is None or not rule.release:
                track.cut_ns = max(track.cut_ns, track.epoch_ns)
                self._withdraw(track, t_ns)
            elif track.epoch_ns + rule.effects.delay_ns > t_ns:
                track.cut_ns = max(track.cut_ns, track.epoch_ns)
                self._withdraw(track, t_ns)  # it comes back when its time has come
            else:
                self._send(batch, row, rule, track, t_ns)
        self._count()

    # -- out

    def take(self) -> Released:
        """Messages and grants since the last call, in order."""
        released = Released(self._messages, self._grants)
        self._messages, self._grants = [], []
        self.digest.update(released.messages)
        return released

    @property
    def tracks(self) -> int:
        """How many tracks the group is shown at present."""
        return self._shown

    def shown(self, track_id: str | None, sat_no: int | None) -> int | None:
        """The node's number of the track that the group is shown by a name, or as an object; None: of none."""
        for number, track in sorted(self._tracks.items()):
            if track.shown and (track.track_id == track_id or (sat_no and track.sat_no == sat_no)):
                return number
        return None

    def summary(self) -> dict[str, object]:
        """Counts for the node's own summary."""
        return {
            "tracks": self._shown,
            "seq": self.encoder.seq,
            "waiting": self._rows_waiting,
            **({"events_lost": self._events_lost} if self._events_lost else {}),
            "unmarked": self.encoder.unmarked,
            "states": self._outcomes.of(self._source),
        }

    def export(self) -> dict[str, Any]:
        """What has to outlive the node: the precision that tracks were released at."""
        return {"levels": {str(track): level for track, level in sorted(self._levels.items())}}

    def take_up(self, kept: Mapping[str, Any]) -> None:
        """Go on from `export`; what is not understood is left."""
        levels = kept.get("levels")
        if isinstance(levels, dict):
            self._levels = {
                int(track): level
                for track, level in levels.items()
                if str(track).isdigit() and isinstance(level, int) and level >= 0
            }

    # -- within

    def _count(self) -> None:
        self._outcomes.add(self._source, Outcome.RELEASED, self._released)
        self._released = 0

    def _wary(self, batch: StateBatch) -> Any:
        if not self._hidden:
            return None
        known = self._tracks
        flags = [(t := known.get(row[0])) is not None and t.wary and not t.shown for row in batch.rows]
        return np.array(flags, bool) if any(flags) else None

    def _track(self, number: int) -> _Track:
        track = self._tracks.get(number)
        if track is None:
            identity = self._context.offsets.identity(self.name, number)
            track = self._tracks[number] = _Track(f"{self._context.provenance[0]}-{identity}")
            track.level = self._levels.get(number, EXACT)
        return track

    def _pass(self, batch: StateBatch, row: int, rule: CompiledRule, t_ns: int) -> None:
        """A state that may go out now, as far as its rule's rate lets it."""
        number, epoch_ns, _, _ = batch.rows[row]
        track = self._tracks.get(number) or self._track(number)
        if epoch_ns < track.epoch_ns or epoch_ns <= track.cut_ns:
            self._outcomes.add(self._source, Outcome.SUPERSEDED)
            return
        track.object = int(batch.states["object"][row])  # also where it is held: by this it is judged then
        interval_ns = rule.effects.interval_ns
        if interval_ns and track.sent_ns:
            due_ns = track.sent_ns + interval_ns
            if t_ns < due_ns or epoch_ns < track.epoch_ns + interval_ns:
                if track.held is not None:
                    self._outcomes.add(self._source, Outcome.SUPERSEDED)
                else:
                    heapq.heappush(self._held, (due_ns, number))
                track.held = batch.states[row : row + 1].copy()
                return
        self._drop_held(track)
        self._send(batch, row, rule, track, t_ns)

    def _send(self, batch: StateBatch, row: int, rule: CompiledRule, track: _Track, t_ns: int) -> None:
        number, epoch_ns, which, sat_no = batch.rows[row]
        level = track.level
        if rule.effects.level > level:
            level = track.level = self._levels[number] = rule.effects.level
        message = self.encoder.state(track.track_id, batch.body(row, level, rule.effects.fields))
        if message is None:
            self._outcomes.add(self._source, Outcome.UNMARKED)
            return
        self._messages.append(message)
        if not (track.shown and track.rule is rule and track.sat_no == sat_no):
            self._grant(track, rule, sat_no, self.encoder.seq)
        if not track.shown:
            track.shown = True
            self._shown += 1
        track.epoch_ns, track.sent_ns = epoch_ns, t_ns
        track.delay_ns = rule.effects.delay_ns
        track.object = which
        track.newest = batch.copy_of(row)
        self._released += 1

    def _grant(self, track: _Track, rule: CompiledRule, sat_no: int, seq: int) -> None:
        if not track.shown or track.rule is None or track.rule.name != rule.name or track.sat_no != sat_no:
            self._grants.append(Grant(track.track_id, sat_no or None, rule.name, seq))
        track.rule, track.sat_no = rule, sat_no

    def _wait(self, batch: StateBatch, rows: Sequence[int], delay_ns: int) -> None:
        kept = []
        for row in rows:
            epoch_ns = int(batch.states["epoch_ns"][row])
            track = self._track(int(batch.states["track"][row]))
            track.object = int(batch.states["object"][row])
            track.delay_ns = delay_ns
            if epoch_ns - track.spaced_ns < delay_ns // _IN_DELAY or self._rows_waiting >= _MOST_WAITING:
                self._outcomes.add(self._source, Outcome.SUPERSEDED)
                continue
            track.spaced_ns = epoch_ns
            track.due_ns = max(track.due_ns, epoch_ns + delay_ns)
            kept.append(row)
            self._rows_waiting += 1
        if kept:
            chunk = batch.states[kept]
            chunk = chunk[np.argsort(chunk["epoch_ns"], kind="stable")]
            self._push(int(chunk["epoch_ns"][0]) + delay_ns, "states", (delay_ns, chunk))

    def _push(self, due_ns: int, kind: str, what: Any) -> None:
        self._serial += 1
        heapq.heappush(self._waiting, (due_ns, self._serial, kind, what))

    def _release_due(self, t_ns: int) -> None:
        while self._waiting and self._waiting[0][0] <= t_ns:
            _, _, kind, what = heapq.heappop(self._waiting)
            if kind == "end":
                self._end(what)
            elif kind == "event":
                self._rows_waiting -= 1
                self._tell(what)
            else:
                delay_ns, chunk = what
                # What lies before the next thing that waits, or else all that is due.
                until_ns = min(t_ns, self._waiting[0][0]) if self._waiting else t_ns
                n = max(1, int(np.searchsorted(chunk["epoch_ns"], until_ns - delay_ns, side="right")))
                if n < len(chunk):
                    self._push(int(chunk["epoch_ns"][n]) + delay_ns, "states", (delay_ns, chunk[n:]))
                self._rows_waiting -= n
                self._judge(chunk[:n], t_ns)
        due: list[StructArray] = []
        early: list[tuple[int, int]] = []
        while self._held and self._held[0][0] <= t_ns:
            _, number = heapq.heappop(self._held)
            track = self._tracks.get(number)
            if track is None or track.held is None or track.rule is None:
                continue
            later_ns = track.sent_ns + track.rule.effects.interval_ns
            if later_ns > t_ns:
                heapq.heappush(self._held, (later_ns, number))
            elif int(track.held["epoch_ns"][0]) < track.epoch_ns + track.rule.effects.interval_ns:
                early.append((t_ns + 1, number))
            else:
                due.append(track.held)
                track.held = None
        for item in early:
            heapq.heappush(self._held, item)
        if due:
            self._judge(np.concatenate(due), t_ns)

    def _as_known_now(self, rows: StructArray) -> StructArray:
        """The rows with the objects that their tracks are correlated with by now."""
        rows = rows.copy()
        for row, number in enumerate(rows["track"].tolist()):
            track = self._tracks.get(number)
            if track is not None and track.object != rows["object"][row]:
                rows["object"][row] = track.object
                rows["object_p"][row] = math.nan
        return rows

    def _judge(self, rows: StructArray, t_ns: int) -> None:
        """States that have waited, by the policy of now."""
        batch = StateBatch(self._as_known_now(rows), self._context)
        again: dict[int, list[int]] = {}
        for row, index in enumerate(self.policy.decide(batch, self._wary(batch)).tolist()):
            rule = self.policy.rules[index] if index >= 0 else None
            track = self._tracks.get(int(rows["track"][row]))
            if rule is None or not rule.release or track is None:
                self._outcomes.add(self._source, Outcome.NOT_RELEASED)
                if track is not None:
                    self._withdraw(track, int(rows["epoch_ns"][row]))
            elif int(rows["epoch_ns"][row]) + rule.effects.delay_ns > t_ns:
                again.setdefault(rule.effects.delay_ns, []).append(row)
            else:
                self._pass(batch, row, rule, t_ns)
        self._count()
        for delay_ns, which in again.items():
            chunk = batch.states[which]
            chunk = chunk[np.argsort(chunk["epoch_ns"], kind="stable")]
            self._rows_waiting += len(chunk)
            self._push(int(chunk["epoch_ns"][0]) + delay_ns, "states", (delay_ns, chunk))

    def _drop_held(self, track: _Track) -> None:
        if track.held is not None:
            track.held = None
            self._outcomes.add(self._source, Outcome.SUPERSEDED)

    def _withdraw(self, track: _Track, t_ns: int) -> None:
        self._drop_held(track)
        if track.shown:
            track.wary = self._hidden = True
            self._hide(track, t_ns, schema.REASON_WITHDRAWN, None)

    def _end(self, tombstone: Tombstone) -> None:
        track = self._tracks.pop(tombstone.track, None)
        self._levels.pop(tombstone.track, None)
        if track is None:
            return
        self._drop_held(track)
        if not track.shown:
            return
        heir = None if tombstone.successor is None else self._tracks.get(tombstone.successor)
        successor = heir.track_id if heir is not None and heir.shown else None
        reason = tombstone.reason
        if tombstone.successor is not None and successor is None:
            reason = schema.REASON_DROPPED  # in what, is nothing that this group may know
        self._hide(track, tombstone.t_ns, reason, successor)

    def _hide(self, track: _Track, t_ns: int, reason: str, successor: str | None) -> None:
        track.shown = False
        self._shown -= 1
        self._add(self.encoder.tombstone(track.track_id, t_ns, reason, successor))
        self._grants.append(Grant(track.track_id, track.sat_no or None, "", self.encoder.seq))

    def _tell(self, event: ObjectEvent) -> None:
        track = self._tracks.get(event.track)
        if track is None or not track.shown or track.rule is None or not track.rule.effects.events:
            return
        if event.sensors & self.policy.forbidden:
            return
        related = None
        if event.related is not None:
            other = self._tracks.get(event.related)
            if other is None or not other.shown:
                return  # it would tell of a track that is not released
            related = other
        fields = track.rule.effects.fields
        level = max(track.level, EXACT if related is None else related.level)
        if level != EXACT:
            if (offset := self._offset(track)) is None:
                return
            event = _moved(event, offset, track.level, alone=related is None)
        # How many there are altogether is not for this group to know.
        event = replace(event, count=None)
        known = self._known(event.object)
        body = event_body(
            event,
            track.track_id,
            None if related is None else related.track_id,
            known,
            [name for i, name in enumerate(self._context.sensor_names) if event.sensors >> i & 1],
        )
        if fields is not None:
            for name in _DECIDES_BY_STATE:
                if name not in fields:
                    body[name] = [] if name == "sensors" else None
        self._add(self.encoder.event(body))

    def _offset(self, track: _Track) -> Offset | None:
        if track.newest is None:
            return None
        batch = StateBatch(np.frombuffer(track.newest, TRACK_STATE), self._context)
        batch.moved(track.level if track.level != EXACT else 0)
        return batch.offsets[0] if batch.offsets else None

    def _known(self, row: int) -> KnownObject | None:
        return self._context.known_object(row) if row >= 0 else None

    def _add(self, message: Message | None) -> None:
        if message is not None:
            self._messages.append(message)


def _moved(event: ObjectEvent, offset: Offset, level: int, *, alone: bool) -> ObjectEvent:
    """An event of an object that is published with an offset: of its numbers, those that do not give it away.

    Times of measurements, and what is compared with the exact orbit or another object's, go. A time that was computed
    moves with the trajectory.
    """
    dt_ns = round(shift_s(offset, level) * 1e9)
    grid = (event.t_ns, event.from_ns, event.to_ns)
    epoch_ns = (
        None if event.epoch_ns is None or event.epoch_ns in grid or not alone else event.epoch_ns - dt_ns
    )
    delta_v = (
        None if event.delta_v is None else turned(offset, level, event.epoch_ns or event.t_ns, event.delta_v)
    )
    return replace(
        event, epoch_ns=epoch_ns, from_ns=None, to_ns=None, delta_v=delta_v, distance_m=None, distance_sigma_m=None,
        speed_m_s=None, height_m=None, perigee_m=None, nis=None, dof=None,
    )  # fmt: skip
