"""Paced streams: the newest of everything, at a pace that the partner and its link can bear.

What waits for a partner is a set of topics, never a queue of messages: of each topic the newest message is sent when
its turn comes, so that memory is bounded by the picture and nothing old is sent before something new. A token bucket
sets the pace; acknowledgements tell the round trip and bound what is under way. docs/WIRE.md has the messages.

Turns go by rank (tombstones, heartbeat, then the partner's order of priority), and within a rank to who has waited
longest. One item in five goes to whoever has waited longest of all, so that no rank starves.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from fusionnode.core import schema
from fusionnode.core.compact import pack_state
from fusionnode.release.cache import Cache, envelope
from fusionnode.release.meter import Meter
from fusionnode.release.requests import Request
from fusionnode.release.settings import Partner

BY_EVENTS = "events"
BY_UCT = "uct"
_UCT = b"\xa3uct\xc3"  # the entry as it is encoded

_TOMBSTONES, _HEARTBEAT, _FIRST = 0, 1, 2  # ranks; further ones are the partner's
_MESSAGE_S = 0.25  # of the pace in one message
_LEAST_BYTES, _MOST_BYTES = 400, 8_192  # compressed, in one message
_MOST_RAW = 262_144
_MOST_ITEMS = 256
_MOST_WORK_S = 0.004  # on one message: the stream waits meanwhile
_BURST_S = 0.5
_WINDOW_ROUND_TRIPS = 2.0
_SAMPLES = 8
_EVERY = 5
_MOST_TOMBSTONES = 16_384
_RATIO, _RATIO_WEIGHT = 0.6, 0.2
_RETRY_S = 0.1
_ITEM_BYTES = 120.0  # at first; then as measured


@dataclass
class _Session:
    """One partner's paced stream."""

    envelope: list[bytes]
    request_id: int
    rate: float
    compact: bool
    base: int | None
    whole_from: int
    """The picture is whole once everything up to this number was sent."""
    ranks: dict[str, int]
    meter: Meter
    renewed_at: float
    n: int = 0
    whole: bool = False
    queues: list[OrderedDict[bytes, int]] = field(default_factory=list)
    """By rank: topics that wait, each with the number of the first message that was not sent; oldest first."""
    tombstones: dict[bytes, bytes] = field(default_factory=dict)
    unacked: deque[tuple[int, float, int]] = field(default_factory=deque)
    unacked_bytes: int = 0
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    ratio: float = _RATIO
    item_bytes: float = _ITEM_BYTES
    retry_at: float = 0.0
    turn: int = 0

    @property
    def rtt(self) -> float | None:
        """Round trip, seconds: the least of the last few, which have waited least."""
        return min(self.samples, default=None)

    @property
    def message_bytes(self) -> float:
        """As big a message should be."""
        return min(_MOST_BYTES, max(_LEAST_BYTES, self.rate * _MESSAGE_S))

    @property
    def window_bytes(self) -> float:
        """As much may be under way."""
        rtt = self.rtt
        two_messages = 2 * self.message_bytes
        return two_messages if rtt is None else max(two_messages, _WINDOW_ROUND_TRIPS * rtt * self.rate)

    @property
    def waiting(self) -> int:
        """How many topics wait."""
        return sum(map(len, self.queues))


class Pacer:
    """The paced streams of one group's partners, at most one each.

    Args:
        send: hands a reply's frames to the one at the envelope, or gives False; never waits.
        cache: what there is.
        counts: of what was sent.
    """

    def __init__(
        self,
        *,
        send: Callable[[list[bytes], Sequence[bytes]], bool],
        cache: Callable[[], Cache],
        counts: Counter[str],
    ) -> None:
        self._send = send
        self._cache = cache
        self._counts = counts
        self._sessions: dict[str, _Session] = {}
        self._rules: dict[bytes, str] = {}
        self._packed: dict[
            bytes, tuple[bytes, bytes]
        ] = {}  # by topic: a payload and its record, for all partners
        self._epoch: str | None = None
        self._seq = 0
        self._ended: deque[tuple[int, bytes, bytes]] = deque()
        self._ended_from = 0
        """Every tombstone after this number is in ``_ended``."""

    # -- what the stream brings

    def seeded(self) -> None:
        """The cache was made anew: what ended before, nobody knows."""
        newest = self._cache().last
        if newest is None:
            return
        self._epoch, self._seq = envelope(newest)
        self.forget_past()

    def forget_past(self) -> None:
        """Nothing that was released before is to be sent any more."""
        self._ended.clear()
        self._ended_from = self._seq
        self._sessions.clear()

    def note(self, epoch: str, first: int, topics: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        """Messages of the stream, numbered from ``first`` on; the cache has them already."""
        if epoch != self._epoch:
            begun = self._epoch is None
            self._epoch, self._seq, self._ended_from = epoch, first - 1, first - 1
            if not begun:
                self.forget_past()
        elif first != self._seq + 1:
            self._ended_from = first - 1  # some were lost on the way here, tombstones perhaps
            self._ended.clear()
        sessions = tuple(self._sessions.values())
        for seq, (topic, payload) in enumerate(zip(topics, payloads, strict=True), first):
            ended = topic.startswith(schema.TOPIC_TOMBSTONE)
            if ended:
                self._ended.append((seq, topic, payload))
            for session in sessions:
                if ended:
                    self._end(session, seq, topic, payload)
                else:
                    self._add(session, seq, topic, payload)
        self._seq = first + len(topics) - 1
        while len(self._ended) > _MOST_TOMBSTONES:
            self._ended_from = self._ended.popleft()[0]

    def note_rule(self, track_id: str, rule: str) -> None:
        """By which rule a track is released; empty: not any more."""
        if rule:
            self._rules[track_id.encode()] = rule
        else:
            self._rules.pop(track_id.encode(), None)

    # -- what partners say

    def request(self, back: list[bytes], name: str, partner: Partner, request: Request, now: float) -> None:
        """A partner wants a paced stream, or wants it to go on."""
        rate, compact, resume = (request.fields.get(key) for key in ("bytesPerS", "compact", "resume"))
        assert isinstance(rate, int | float)
        assert request.id is not None
        most = partner.paced_bytes_per_s
        rate = max(1.0, min(rate, most) if most else rate)
        session = self._sessions.get(name)
        # Another connection: what was under way on the old one is lost, so it is as if all were forgotten.
        if session is not None and (session.request_id, session.envelope) == (request.id, back):
            session.renewed_at = now
            session.rate = session.meter.rate = rate
            session.meter.burst = _burst(rate)
            return
        self._begin(back, name, partner, request.id, rate, bool(compact), resume, now)

    def ack(self, name: str, request: Request, now: float) -> None:
        """A partner has everything up to a message."""
        session = self._sessions.get(name)
        if session is None or session.request_id != request.id:
            return
        n = request.fields["n"]
        while session.unacked and session.unacked[0][0] <= n:
            acked, sent_at, size = session.unacked.popleft()
            session.unacked_bytes -= size
            if acked == n:
                session.samples.append(now - sent_at)

    def keep(self, names: Callable[[str], bool]) -> None:
        """Only these partners' streams go on."""
        for name in [name for name in self._sessions if not names(name)]:
            del self._sessions[name]

    # -- what is sent

    def serve(self, now: float) -> None:
        """Give each partner its turn: one message, if one is due."""
        for name, session in list(self._sessions.items()):
            if now - session.renewed_at > schema.PACED_LAPSE_S or session.waiting > self._bound():
                del self._sessions[name]  # it has gone, or takes nothing: it begins anew if it comes back
            elif self._due_in(session, now) == 0.0:
                self._send_one(session, now)

    def due_in(self, now: float) -> float:
        """Seconds until a partner is to have a turn; at most one."""
        return min((self._due_in(session, now) for session in self._sessions.values()), default=1.0)

    def _bound(self) -> int:
        return len(self._cache().newest) + _MOST_TOMBSTONES

    def _begin(
        self,
        back: list[bytes],
        name: str,
        partner: Partner,
        request_id: int,
        rate: float,
        compact: bool,
        resume: dict[str, Any] | None,
        now: float,
    ) -> None:
        base = None
        if resume is not None and resume["streamEpoch"] == self._epoch:
            seq = resume["seq"]
            base = seq if self._ended_from <= seq <= self._seq else None
        ranks = {what: _FIRST + at for at, what in reversed(list(enumerate(partner.priority)))}
        session = _Session(
            envelope=back,
            request_id=request_id,
            rate=rate,
            compact=compact,
            base=base,
            whole_from=self._seq,
            ranks=ranks,
            meter=Meter(rate, _burst(rate), now),
            renewed_at=now,
        )
        session.queues = [OrderedDict() for _ in range(_FIRST + len(partner.priority) + 3)]
        self._sessions[name] = session
        for topic, payload in self._cache().newest.items():
            if base is None or envelope(payload)[1] > base:
                self._add(session, 1 if base is None else base + 1, topic, payload)
        for seq, topic, payload in self._ended:
            if base is not None and seq > base:
                self._end(session, seq, topic, payload)
        self._counts["paced_streams"] += 1

    def _add(self, session: _Session, seq: int, topic: bytes, payload: bytes) -> None:
        queue = session.queues[self._rank(session, topic, payload)]
        if topic in queue:
            return  # its turn is to come, and will bring the newest
        for other in session.queues:
            if topic in other:
                return
        queue[topic] = seq

    def _end(self, session: _Session, seq: int, topic: bytes, payload: bytes) -> None:
        track = topic[len(schema.TOPIC_TOMBSTONE) :]
        gone = [schema.TOPIC_STATE + track]
        gone += [schema.TOPIC_EVENT + f"{kind}.".encode() + track for kind in schema.EVENTS]
        oldest = seq
        for queue in session.queues[_FIRST:]:
            for one in gone:
                oldest = min(oldest, queue.pop(one, oldest))
        queue = session.queues[_TOMBSTONES]
        queue[topic] = min(oldest, queue.pop(topic, oldest))
        if oldest != seq:
            queue.move_to_end(topic, last=False)
        session.tombstones[topic] = payload

    def _rank(self, session: _Session, topic: bytes, payload: bytes) -> int:
        others = len(session.queues)
        if topic == schema.TOPIC_HEARTBEAT:
            return _HEARTBEAT
        if topic.startswith(schema.TOPIC_EVENT):
            return session.ranks.get(BY_EVENTS, others - 3)
        if topic.startswith(schema.TOPIC_STATE):
            rank = others - 2
            if session.ranks:
                rule = self._rules.get(topic[len(schema.TOPIC_STATE) :])
                if rule is not None:
                    rank = session.ranks.get(rule, rank)
                if BY_UCT in session.ranks and _UCT in payload:
                    rank = min(rank, session.ranks[BY_UCT])
            return rank
        return others - 1

    def _due_in(self, session: _Session, now: float) -> float:
        if self._epoch is None:
            return 1.0
        if now < session.retry_at:
            return session.retry_at - now
        waiting = session.waiting
        news = (
            waiting > 0
            or session.n == 0
            or (not session.whole and self._reached(session) >= session.whole_from)
        )
        if not news or session.unacked_bytes >= session.window_bytes:
            return 1.0  # until something comes
        # A message that is worth its header, or all that there is.
        wanted = min(session.message_bytes, waiting * session.item_bytes * session.ratio, session.meter.burst)
        if session.meter.refill(now) >= wanted or session.meter.level >= session.meter.burst:
            return 0.0
        return max(0.001, session.meter.wait_s(wanted))

    def _send_one(self, session: _Session, now: float) -> None:
        taken: list[tuple[OrderedDict[bytes, int], bytes, int]] = []
        parts: list[bytes] = []
        raw = 0
        give_up_at = time.monotonic() + _MOST_WORK_S
        most = min(_MOST_RAW, session.message_bytes / max(session.ratio, 0.05))
        for queue, topic in self._turns(session):
            record = self._record(session, topic)
            if parts and raw + len(record) > most:
                break
            taken.append((queue, topic, queue.pop(topic)))
            if record:
                parts.append(record)
                raw += len(record)
            if raw >= most or len(taken) >= _MOST_ITEMS or time.monotonic() > give_up_at:
                break
        packed = zlib.compress(b"".join(parts))
        reached = self._reached(session)
        whole = session.whole or reached >= session.whole_from
        body = {
            "v": schema.SCHEMA_VERSION,
            "type": schema.TYPE_PACED,
            "id": session.request_id,
            "n": session.n + 1,
            "sentNs": time.monotonic_ns(),
            "streamEpoch": self._epoch,
            "seq": reached if whole else self._seq,
            "base": session.base,
            "whole": whole,
            "rttS": session.rtt,
            "z": packed,
        }
        frame = msgpack.packb(body)
        if not self._send(session.envelope, [frame]):
            for queue, topic, seq in reversed(taken):
                queue[topic] = seq
                queue.move_to_end(topic, last=False)
            session.retry_at = now + _RETRY_S
            return
        for _, topic, _ in taken:
            session.tombstones.pop(topic, None)
        session.n += 1
        session.whole = whole
        session.meter.level -= len(frame)
        session.unacked.append((session.n, now, len(frame)))
        session.unacked_bytes += len(frame)
        if parts:
            session.ratio += _RATIO_WEIGHT * (len(packed) / raw - session.ratio)
            session.item_bytes += _RATIO_WEIGHT * (raw / len(parts) - session.item_bytes)
        self._counts["paced"] += 1

    def _turns(self, session: _Session) -> Iterator[tuple[OrderedDict[bytes, int], bytes]]:
        """Whose turn it is; whoever takes one takes it out of its queue."""
        while True:
            heads = [queue for queue in session.queues if queue]
            if not heads:
                return
            session.turn += 1
            queue = heads[0]
            if session.turn % _EVERY == 0 and queue is not session.queues[_TOMBSTONES]:
                queue = min(heads, key=_oldest)
            yield queue, next(iter(queue))

    def _record(self, session: _Session, topic: bytes) -> bytes:
        """What is sent of a topic; empty: there is nothing any more."""
        if topic.startswith(schema.TOPIC_TOMBSTONE):
            return session.tombstones.get(topic, b"")
        cache = self._cache()
        payload = cache.beat if topic == schema.TOPIC_HEARTBEAT else cache.newest.get(topic)
        if payload is None:
            return b""
        if session.compact and topic.startswith(schema.TOPIC_STATE):
            return self._compact(topic, payload)
        return payload

    def _compact(self, topic: bytes, payload: bytes) -> bytes:
        known = self._packed.get(topic)
        if known is not None and known[0] is payload:
            return known[1]
        record = pack_state(payload) or payload
        if len(self._packed) > len(self._cache().newest):
            self._packed.clear()
        self._packed[topic] = (payload, record)
        return record

    def _reached(self, session: _Session) -> int:
        """Everything up to this number was sent, or something newer in its place."""
        first, *others = session.queues
        oldest = min((_oldest(queue) for queue in others if queue), default=self._seq + 1)
        return min(oldest, min(first.values(), default=oldest)) - 1


def _oldest(queue: OrderedDict[bytes, int]) -> int:
    return next(iter(queue.values()))


def _burst(rate: float) -> float:
    return max(_LEAST_BYTES, rate * _BURST_S)
