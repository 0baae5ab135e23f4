"""The subscriber's picture: what the messages mean together. No sockets, no clock.

Live messages are applied as they come. A snapshot taken at sequence number S is merged by sequence number: a
state in it counts if it is newer than what is held; a track that is held, was last heard of at or before S,
and is not in it has ended. So nothing is buffered, nothing is applied twice, and nothing stays that is gone.
The picture is whole once a snapshot covers everything before the unbroken run of live messages.

A paced stream brings the newest of each topic, in any order and with holes; it says itself when it is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from fusionnode.client.decode import Message, topic_of
from fusionnode.client.events import (
    REASON_MISSED,
    EpochChange,
    Event,
    Gap,
    Heartbeat,
    ObjectEvent,
    SensorState,
    State,
    Synced,
    Tombstone,
)
from fusionnode.client.resume import Position
from fusionnode.core import schema
from fusionnode.core.schema import ObjectState

_MAX_ENDED = 100_000


class Picture:
    """Newest states by track id, kept from checked messages.

    Args:
        prefixes: topic prefixes subscribed to; empty: the whole stream.
        mendable: snapshots can be had; if not, a gap empties the picture.
        since: all up to there has been told in an earlier life; it is not told again.
    """

    def __init__(
        self, *, prefixes: Sequence[bytes] = (), mendable: bool = True, since: Position | None = None
    ) -> None:
        self.states: dict[str, ObjectState] = {}
        self.sensors: dict[str, dict[str, Any]] = {}
        self.stream_epoch: str | None = None
        self.duplicates = 0
        """Live messages with a sequence number that had been before."""
        self._prefixes = tuple(prefixes)
        self._mendable = mendable
        # Of these types every message should come, so that the counts in heartbeats can be held against it.
        self._counted = [t for t, topic in schema.TOPICS.items() if topic.startswith(self._prefixes or b"")]
        self.seq: int | None = None
        """Sequence number of the newest live message."""
        self._told = since
        self._is_paced = False
        if since is None:
            self._begin(None)
        else:
            self._begin(since.stream_epoch, since.seq)
            self._sound = True

    def _begin(self, stream_epoch: str | None, seq: int | None = None) -> None:
        self.stream_epoch = stream_epoch
        self.states.clear()
        self.sensors.clear()
        self._seq: dict[bytes, int] = {}  # by topic, of what states and sensors hold, and of events told
        self._events: dict[str, set[bytes]] = {}  # by track, topics of its events in the line above
        self._ended: dict[bytes, int] = {}  # by topic of the state; what a snapshot must not bring back
        self.seq = seq
        self._run_start = None if seq is None else seq + 1  # from here on, no live message is missing
        self._covered: int | None = None  # sequence number of the newest snapshot merged
        self._counts: dict[str, int] | None = None  # by type: as of the last heartbeat, plus what came since
        self._beat: int | None = None  # sequence number of the last heartbeat
        self._sound = False  # whoever keeps a picture from our events lacks nothing
        self._heard: set[bytes] | None = (
            None  # of a paced stream that builds on nothing: topics until it is whole
        )

    @property
    def whole(self) -> bool:
        """Everything that the node publishes and we subscribe to is in it."""
        return self._covered is not None and (self._run_start is None or self._covered >= self._run_start - 1)

    @property
    def position(self) -> Position | None:
        """Up to where everything has been told; None while something is missing."""
        if self.stream_epoch is None or not self._sound:
            return None
        seq = self._covered if self.seq is None else self._beat if self._prefixes else self.seq
        return None if seq is None else Position(self.stream_epoch, seq)

    @property
    def wants_snapshot(self) -> bool:
        """A snapshot would mend it."""
        return self._mendable and not self.whole

    def live(self, message: Message) -> list[Event]:
        """Apply one message of the live stream; gives what happened, in order."""
        events: list[Event] = []
        seq = message.seq
        if message.stream_epoch != self.stream_epoch:
            if self.stream_epoch is not None:
                events.append(EpochChange(self.stream_epoch, message.stream_epoch))
                self._told = None
            self._begin(message.stream_epoch)
        if self.seq is not None and seq <= self.seq:
            self.duplicates += 1
            return events
        missed = self._missed(message)
        if self.seq is None:
            self._run_start = seq
        if missed:
            events.append(Gap(seq, missed))
            self._run_start = seq
            self._sound, self._told = False, None
            if not self._mendable:
                self._forget()
        self.seq = seq
        if message.type == schema.TYPE_HEARTBEAT:
            self._beat = seq
        if event := self._apply(message, from_snapshot=False):
            events.append(event)
        self._sound |= self.whole
        return events

    def turn(self, stream_epoch: str) -> list[Event]:
        """The stream held came to its end without a gap, and another one follows: from its first message on."""
        old = self.stream_epoch
        self._begin(stream_epoch, 0)
        self._covered, self._sound = 0, True
        return [] if old is None else [EpochChange(old, stream_epoch, complete=True)]

    def paced(
        self,
        stream_epoch: str,
        seq: int,
        *,
        first: bool,
        base: int | None,
        whole: bool,
        messages: Iterable[Message],
    ) -> list[Event]:
        """Apply one message of a paced stream; arguments as in docs/WIRE.md, ``first``: its ``n`` is 1."""
        events: list[Event] = []
        if stream_epoch != self.stream_epoch:
            if self.stream_epoch is not None:
                events.append(EpochChange(self.stream_epoch, stream_epoch))
            self._begin(stream_epoch)
        self._is_paced = True
        if first:
            self._heard = set() if base is None else None
        for message in messages:
            if message.stream_epoch != stream_epoch or message.type not in schema.TOPICS:
                continue
            topic = topic_of(message)
            if self._heard is not None:
                self._heard.add(topic)
            if self._prefixes and not topic.startswith(self._prefixes):
                continue
            if message.type == schema.TYPE_TOMBSTONE and message.seq < self._seq.get(
                _state_topic(message), 0
            ):
                continue
            if event := self._apply(message, from_snapshot=False, newest_only=True):
                events.append(event)
        self._sound = whole
        was_whole, self._covered = self.whole, seq if whole else None
        if whole:
            if self._heard is not None:
                events += self._end_unheard(self._heard, seq)
                self._heard = None
            self.seq, self._run_start, self._beat = seq, seq, seq
            self._ended.clear()
            if not was_whole:
                events.append(Synced(stream_epoch, seq, len(self.states)))
        return events

    def snapshot(self, header: Position, messages: Iterable[Message]) -> list[Event]:
        """Merge a snapshot. One of another stream than the live one is left alone."""
        if header.stream_epoch != self.stream_epoch:
            if self.seq is not None:
                return []
            self._begin(header.stream_epoch)
        events: list[Event] = []
        present = set()
        for message in messages:
            if message.stream_epoch != header.stream_epoch or message.type not in schema.TOPICS:
                continue
            topic = topic_of(message)
            if self._prefixes and not topic.startswith(self._prefixes):
                continue
            present.add(topic)
            if (event := self._apply(message, from_snapshot=True)) and not self._was_told(message):
                events.append(event)
        events += self._end_unheard(present, header.seq)
        self._covered = header.seq
        if self.whole:
            self._ended.clear()
            self._sound = True
        events.append(Synced(header.stream_epoch, header.seq, len(self.states)))
        return events

    def _end_unheard(self, present: set[bytes], seq: int) -> list[Event]:
        """Tracks that are held, were last heard of by ``seq``, and are not present have ended."""
        events: list[Event] = []
        for track_id in list(self.states):
            topic = schema.TOPIC_STATE + track_id.encode()
            if topic not in present and self._seq[topic] <= seq:
                self._drop(track_id, seq)
                events.append(Tombstone(seq, track_id, REASON_MISSED))
        return events

    def _was_told(self, message: Message) -> bool:
        told = self._told
        return told is not None and message.stream_epoch == told.stream_epoch and message.seq <= told.seq

    def _missed(self, message: Message) -> int:
        """How many messages are missing before this one, as far as it tells."""
        if self._prefixes:
            return self._missed_by_counts(message)
        newest = self._covered if self.seq is None else self.seq
        return 0 if newest is None else max(message.seq - newest - 1, 0)

    def _missed_by_counts(self, message: Message) -> int:
        """With a filter, only a heartbeat tells: it says how many messages of each type there were."""
        if message.type != schema.TYPE_HEARTBEAT:
            if self._counts is not None:
                self._counts[message.type] = self._counts.get(message.type, 0) + 1
            return 0
        sent: dict[str, int] = message.body["messages"]
        held, self._counts = self._counts, dict(sent)
        if held is None:
            self._run_start = message.seq  # what was lost before the first heartbeat, nothing can tell
            return 0
        held[schema.TYPE_HEARTBEAT] = held.get(schema.TYPE_HEARTBEAT, 0) + 1
        return sum(max(sent.get(kind, 0) - held.get(kind, 0), 0) for kind in self._counted)

    def _forget(self) -> None:
        self.states.clear()
        self.sensors.clear()
        self._seq.clear()
        self._events.clear()

    def _apply(self, message: Message, *, from_snapshot: bool, newest_only: bool = False) -> Event | None:
        kind, _, seq, body = message
        if kind == schema.TYPE_STATE:
            topic = topic_of(message)
            state = cast(ObjectState, body)
            if seq <= max(self._seq.get(topic, 0), self._ended.get(topic, 0)):
                # The picture knows better, from a snapshot; who keeps every state still wants this one.
                return None if from_snapshot or newest_only else State(seq, state, from_snapshot)
            self._seq[topic] = seq
            self.states[state["trackId"]] = state
            return State(seq, state, from_snapshot)
        if kind == schema.TYPE_TOMBSTONE:
            self._drop(body["trackId"], seq)
            return Tombstone(seq, body["trackId"], body["reason"], body["epoch"], body["successor"])
        if kind == schema.TYPE_EVENT:
            topic = topic_of(message)
            if seq <= self._seq.get(topic, 0):
                return None
            self._seq[topic] = seq
            self._events.setdefault(body["trackId"], set()).add(topic)
            if len(self._events) > _MAX_ENDED:  # tombstones are not subscribed to
                self._forget_events(next(iter(self._events)))
            return ObjectEvent(seq, body["event"], body["trackId"], body, from_snapshot)
        if kind == schema.TYPE_SENSOR:
            topic = topic_of(message)
            if seq <= self._seq.get(topic, 0):
                return None
            self._seq[topic] = seq
            self.sensors[body["sensor"]] = body
            return SensorState(seq, body["sensor"], body["time"], body, from_snapshot)
        if kind == schema.TYPE_HEARTBEAT:
            return Heartbeat(
                seq, body["nodeId"], body["time"], body["tracks"], body["messages"], body.get("details", {})
            )
        return None

    def _drop(self, track_id: str, seq: int) -> None:
        topic = schema.TOPIC_STATE + track_id.encode()
        self.states.pop(track_id, None)
        self._seq.pop(topic, None)
        self._forget_events(track_id)
        if self.wants_snapshot or (self._is_paced and not self.whole):
            self._ended[topic] = seq
            if len(self._ended) > _MAX_ENDED:
                del self._ended[next(iter(self._ended))]

    def _forget_events(self, track_id: str) -> None:
        for topic in sorted(self._events.pop(track_id, ())):
            self._seq.pop(topic, None)


def _state_topic(message: Message) -> bytes:
    return schema.TOPIC_STATE + str(message.body["trackId"]).encode()
