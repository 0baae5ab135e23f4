"""`Subscriber`: the sockets and timers around a `Picture`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from time import monotonic  # the node's clock module needs numpy, a subscriber does not; only durations here
from typing import Any

import msgpack
import zmq

from fusionnode.client import decode
from fusionnode.client.decode import Message, Refused
from fusionnode.client.events import Event, Stale
from fusionnode.client.picture import Picture
from fusionnode.core import schema
from fusionnode.core.schema import ObjectState

_DRAIN = 256  # messages read before events are handed out
_RETRY_S = 0.5  # after a reply that was of no use
_MAX_TIMEOUT_S = 120.0
# A message over the schema's limit is counted and left; libzmq hangs up only on what would hurt, because
# hanging up costs the good messages behind it too.
_HARD_LIMIT_BYTES = 16 * schema.MAX_MESSAGE_BYTES


class Subscriber:
    """A subscription to one node: iterate over it for events; ``picture`` is kept up to date meanwhile.

    Nothing happens between calls: whoever does not iterate for long finds a `Gap`. Messages that are
    malformed, too large or of another schema version are counted in ``counts`` and otherwise ignored. Not
    thread-safe.

    Args:
        live: address of the stream, e.g. ``tcp://127.0.0.1:5600``.
        snapshot: address for snapshots. Without it the picture starts empty, and is emptied by a gap.
        topics: topic prefixes, e.g. ``["state."]``; empty: all. Tombstones and heartbeats always come with
            them, or the picture could keep ghosts. With a filter, gaps are noticed at the next heartbeat.
        stale_after_s: silence after which a `Stale` is reported.
        request_timeout_s: how long to wait for a snapshot before asking again (doubled each time in vain).
        high_water_mark: messages kept while the caller is busy; beyond it they are lost, which is a gap.
        context: a ZeroMQ context to use; one of its own if None.

    Raises:
        ValueError: an address is none; the text is one line.
    """

    def __init__(
        self,
        live: str,
        snapshot: str | None = None,
        *,
        topics: Sequence[str] = (),
        stale_after_s: float = 5.0,
        request_timeout_s: float = 10.0,
        high_water_mark: int = 20_000,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        monotonic_s: Callable[[], float] = monotonic,
    ) -> None:
        prefixes = [topic.encode() for topic in topics]
        if prefixes:
            prefixes += [schema.TOPIC_TOMBSTONE, schema.TOPIC_HEARTBEAT]
        self._view = Picture(prefixes=prefixes, mendable=snapshot is not None)
        self._counts: Counter[str] = Counter()
        self._now = monotonic_s
        self._stale_after_s = stale_after_s
        self._heard_at = self._now()
        self.stale = False
        """Nothing has come for ``stale_after_s``."""
        self._request_id = 0
        self._requested_at: float | None = None  # None: no request is under way
        self._retry_at = self._now()
        self._first_timeout_s = self._timeout_s = request_timeout_s
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._poller = zmq.Poller()
        self._snapshots: zmq.Socket[bytes] | None = None
        try:
            self._live = self._connected(zmq.SUB, live, high_water_mark)
            for prefix in prefixes or [b""]:
                self._live.subscribe(prefix)
            if snapshot is not None:
                self._snapshots = self._connected(zmq.DEALER, snapshot, 4)
        except ValueError:
            self.close()
            raise

    @property
    def picture(self) -> dict[str, ObjectState]:
        """Newest state of each live track by track id. Read only: it belongs to the subscriber."""
        return self._view.states

    @property
    def sensors(self) -> dict[str, dict[str, Any]]:
        """Newest state of each sensor by its name."""
        return self._view.sensors

    @property
    def stream_epoch(self) -> str | None:
        """Id of the stream being received; None before the first message."""
        return self._view.stream_epoch

    @property
    def seq(self) -> int | None:
        """Sequence number of the newest live message."""
        return self._view.seq

    @property
    def whole(self) -> bool:
        """The picture holds everything that the node publishes (never without a snapshot address)."""
        return self._view.whole

    @property
    def counts(self) -> dict[str, int]:
        """Messages used, refused by reason, and repeated, so far."""
        return {**self._counts, "duplicates": self._view.duplicates}

    def __iter__(self) -> Iterator[Event]:
        """Events for ever; waits where there is none."""
        while True:
            yield from self.receive()

    def receive(self, timeout_s: float | None = None) -> list[Event]:
        """The next events, in order; waits until there is one, or ``timeout_s`` are over (then empty)."""
        give_up_at = None if timeout_s is None else self._now() + timeout_s
        while True:
            events = self._read_live() + self._read_snapshots()
            now = self._now()
            self._ask_if_needed(now)
            if not self.stale and now - self._heard_at >= self._stale_after_s:
                self.stale = True
                events.append(Stale(now - self._heard_at))
            if events or (give_up_at is not None and now >= give_up_at):
                return events
            self._poller.poll(self._wait_ms(now, give_up_at))

    def close(self) -> None:
        """Let go of the sockets; may be called twice."""
        for socket in self._poller.sockets:
            socket[0].close(linger=0)
        if self._own_context:
            self._context.destroy(linger=0)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self, kind: int, address: str, high_water_mark: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        self._poller.register(socket, zmq.POLLIN)
        socket.setsockopt(zmq.RCVHWM, high_water_mark)
        socket.setsockopt(zmq.MAXMSGSIZE, _HARD_LIMIT_BYTES)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, 1)
        if kind == zmq.DEALER:
            socket.setsockopt(zmq.IMMEDIATE, 1)  # no request waits in a queue for a node that is not there
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
        # A connection that died without a word is noticed and made anew.
        socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15_000)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            reason = zmq.strerror(error.errno or 0)
            raise ValueError(f"{address}: {reason}; expected an address like tcp://127.0.0.1:5600") from None
        return socket

    def _read_live(self) -> list[Event]:
        events: list[Event] = []
        for _ in range(_DRAIN):
            try:
                frames = self._live.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                if len(frames) != 2:
                    raise Refused(decode.MALFORMED)
                message = decode.live(*frames)
            except Refused as refused:
                self._counts[str(refused)] += 1
                continue
            self._counts["messages"] += 1
            self._heard_at = self._now()
            self.stale = False
            events += self._view.live(message)
        return events

    def _read_snapshots(self) -> list[Event]:
        if self._snapshots is None:
            return []
        try:
            head, *parts = self._snapshots.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return []
        try:
            request_id, header = decode.snapshot_header(head)
            if request_id != self._request_id or self._requested_at is None:
                return []  # of a request given up
            events = self._merged(header, parts)
        except Refused as refused:
            self._counts[str(refused)] += 1
            events = []
        self._requested_at = None
        if events:
            self._counts["snapshots"] += 1
            self._timeout_s = self._first_timeout_s
        else:
            self._retry_at = self._now() + _RETRY_S
        return events

    def _merged(self, header: Message | None, parts: list[bytes]) -> list[Event]:
        if header is None:
            return []
        messages = [message for part in parts for message in decode.snapshot_part(part)]
        if len(messages) != header.body["count"]:
            raise Refused(decode.MALFORMED)
        return self._view.snapshot(header, messages)

    def _ask_if_needed(self, now: float) -> None:
        if self._requested_at is not None and now - self._requested_at >= self._timeout_s:
            self._requested_at = None
            self._timeout_s = min(2 * self._timeout_s, _MAX_TIMEOUT_S)
        if self._snapshots is None or self._requested_at is not None or now < self._retry_at:
            return
        if not self._view.wants_snapshot:
            return
        self._request_id += 1
        request = {
            "v": schema.SCHEMA_VERSION,
            "type": schema.TYPE_SNAPSHOT_REQUEST,
            "id": self._request_id,
        }
        try:
            self._snapshots.send(msgpack.packb(request), zmq.NOBLOCK)
        except zmq.Again:
            self._retry_at = now + 0.05  # not connected yet
            return
        self._requested_at = now

    def _wait_ms(self, now: float, give_up_at: float | None) -> int:
        """Until the next moment at which something is to be done even if nothing comes."""
        moments = [now + 1.0] if give_up_at is None else [now + 1.0, give_up_at]
        if not self.stale:
            moments.append(self._heard_at + self._stale_after_s)
        if self._view.wants_snapshot:
            asked = self._requested_at
            moments.append(self._retry_at if asked is None else asked + self._timeout_s)
        return max(0, round((min(moments) - now) * 1000) + 1)
