"""The publisher: a process of its own that faces the subscribers and holds encoded bytes only.

It is handed released messages over a private socket, sends them on (XPUB), and answers requests for a
snapshot (ROUTER) with the newest message of each track and sensor. It never has the picture, so it cannot
leak it. It imports pyzmq, msgpack and the standard library only.

Feed: single-frame messages, each a msgpack array whose first item says what it is:

- ``["publish", topic, payload, topic, payload, ...]``
- ``["seed", last payload, topic, payload, ...]``: what the cache holds from now on, published to nobody
- ``["end"]``

Standard output: one line ``ready`` or ``error: ...`` at the start; at the end one line of JSON with counts.
Exit code 3: an address could not be bound.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgpack
import zmq

from fusionnode.core import schema

EXIT_CANNOT_BIND = 3

PUBLISH = "publish"
SEED = "seed"
END = "end"

_DRAIN = 256  # messages taken from one socket before the others have their turn
_REQUESTS_A_TURN = 4  # so that a flood of requests cannot hold up the stream
_POLL_MS = 200  # how soon a signal or a dead parent is noticed
_LINGER_MS = 1_000  # for the last tombstones to reach the subscribers
_PART_BYTES = schema.MAX_MESSAGE_BYTES
_EVENT_TOPICS = [schema.TOPIC_EVENT + f"{kind}.".encode() for kind in schema.EVENTS]
_SNAPSHOT_BACKLOG = 4  # unread snapshots kept for one requester; further ones are dropped


class Cache:
    """The newest payload of each track and sensor, of each kind of event of a track, and of the stream as a whole."""

    def __init__(self) -> None:
        self.newest: dict[bytes, bytes] = {}
        """By topic; ended tracks are not in it."""
        self.last: bytes | None = None
        """The newest payload of any topic: it holds the stream's epoch and sequence number."""

    def apply(self, topic: bytes, payload: bytes) -> None:
        """Take in one message of the stream."""
        self.last = payload
        if topic.startswith((schema.TOPIC_STATE, schema.TOPIC_SENSOR)):
            self.newest[topic] = payload
        elif topic.startswith(schema.TOPIC_EVENT):
            track = topic[len(schema.TOPIC_EVENT) :].partition(b".")[2]
            if schema.TOPIC_STATE + track in self.newest:  # one that has ended takes nothing along any more
                self.newest[topic] = payload
        elif topic.startswith(schema.TOPIC_TOMBSTONE):
            track = topic[len(schema.TOPIC_TOMBSTONE) :]
            self.newest.pop(schema.TOPIC_STATE + track, None)
            for kind in _EVENT_TOPICS:
                self.newest.pop(kind + track, None)

    def seed(self) -> list[bytes | str | None]:
        """The feed message that gives another cache the contents of this one."""
        return [SEED, self.last, *(part for item in self.newest.items() for part in item)]

    def snapshot(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """Header fields and the payloads joined to parts of bounded length; None before the first message."""
        if self.last is None:
            return None
        last = msgpack.unpackb(self.last)
        header = {"streamEpoch": last["streamEpoch"], "seq": last["seq"], "count": len(self.newest)}
        return header, list(_joined(self.newest.values()))


class Publisher:
    """The three sockets and what goes between them.

    Raises:
        OSError: an address could not be bound; the text is one line naming it.
    """

    def __init__(self, *, feed: str, live: str, snapshot: str, high_water_mark: int) -> None:
        self.counts: Counter[str] = Counter(published=0, snapshots=0, refused_requests=0)
        self._cache = Cache()
        self._ended = False
        self._context = zmq.Context()
        self._live = self._context.socket(zmq.XPUB)
        self._live.setsockopt(zmq.SNDHWM, high_water_mark)
        self._snapshots = self._context.socket(zmq.ROUTER)
        self._snapshots.setsockopt(zmq.SNDHWM, _SNAPSHOT_BACKLOG)
        self._snapshots.setsockopt(zmq.RCVHWM, 64)
        # From outside come subscriptions and requests only; libzmq hangs up on what is absurdly long.
        self._live.setsockopt(zmq.MAXMSGSIZE, schema.MAX_REQUEST_BYTES)
        self._snapshots.setsockopt(zmq.MAXMSGSIZE, schema.MAX_MESSAGE_BYTES)
        for socket in (self._live, self._snapshots):
            socket.setsockopt(zmq.LINGER, _LINGER_MS)
            socket.setsockopt(zmq.IPV6, 1)
            socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15_000)
        try:
            _bind(self._live, live)
            _bind(self._snapshots, snapshot)
        except OSError:
            self._context.destroy(linger=0)
            raise
        self._feed = self._context.socket(zmq.PULL)
        self._feed.setsockopt(zmq.RCVHWM, 64)
        self._feed.connect(feed)
        self._poller = zmq.Poller()
        for socket in (self._feed, self._live, self._snapshots):
            self._poller.register(socket, zmq.POLLIN)

    def run(self, stop: Callable[[], bool]) -> None:
        """Publish until the feed ends or ``stop()`` is true; it is asked at least five times a second."""
        while not (self._ended or stop()):
            ready = dict(self._poller.poll(_POLL_MS))
            if self._feed in ready:
                self._drain_feed()
            if self._live in ready:
                # Subscriptions take effect without us, but unread notices of them would pile up.
                for _ in _received(self._live, _DRAIN):
                    pass
            if self._snapshots in ready:
                self._answer_requests()

    def close(self) -> None:
        """Let go of the addresses, giving the last messages a second to leave."""
        self._feed.close(linger=0)
        self._live.close()
        self._snapshots.close()
        self._context.term()

    def _drain_feed(self) -> None:
        published = 0
        for (frame,) in _received(self._feed, _DRAIN):
            kind, *items = msgpack.unpackb(frame)
            if kind == PUBLISH:
                for topic, payload in _pairs(items):
                    self._live.send(topic, zmq.SNDMORE)
                    self._live.send(payload)
                    self._cache.apply(topic, payload)
                published += len(items) // 2
                if published >= _DRAIN:
                    break
            elif kind == SEED:
                self._cache = Cache()
                self._cache.newest.update(_pairs(items[1:]))
                self._cache.last = items[0]
            elif kind == END:
                self._ended = True
                break
        self.counts["published"] += published

    def _answer_requests(self) -> None:
        snapshot = None
        for route, *frames in _received(self._snapshots, _REQUESTS_A_TURN):
            # A REQ socket puts an empty frame in front; whoever sent one gets one back.
            envelope = [route, b""] if len(frames) == 2 and not frames[0] else [route]
            fault, request_id = _read_request(frames[len(envelope) - 1 :])
            if fault is not None:
                self.counts["refused_requests"] += 1
                self._reply(envelope, {"type": schema.TYPE_ERROR, "id": request_id, "reason": fault})
                continue
            snapshot = snapshot or self._cache.snapshot()
            if snapshot is None:
                self._reply(envelope, {"type": schema.TYPE_ERROR, "id": request_id, "reason": "nothing yet"})
                continue
            header, parts = snapshot
            self._reply(envelope, {"type": schema.TYPE_SNAPSHOT, "id": request_id, **header}, parts)
            self.counts["snapshots"] += 1

    def _reply(self, envelope: list[bytes], body: dict[str, Any], parts: Sequence[bytes] = ()) -> None:
        header = msgpack.packb({"v": schema.SCHEMA_VERSION, **body})
        # Looking at the events makes libzmq notice what has been read meanwhile; without it, a quick requester
        # seems to have a full queue. One that has gone or does not read loses its reply, and holds up nobody.
        self._snapshots.getsockopt(zmq.EVENTS)
        with contextlib.suppress(zmq.Again, zmq.ZMQError):
            self._snapshots.send_multipart([*envelope, header, *parts], zmq.NOBLOCK)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the publisher until its feed ends, its parent dies, or SIGTERM or SIGINT comes."""
    parser = argparse.ArgumentParser(
        prog="fusionnode.release.publisher", description="Publish encoded messages."
    )
    parser.add_argument("--feed", required=True, help="where the daemon pushes to")
    parser.add_argument("--live", required=True, help="address of the stream")
    parser.add_argument("--snapshot", required=True, help="address for snapshot requests")
    parser.add_argument("--hwm", type=int, default=20_000, help="messages queued for a subscriber at most")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="end when this process does")
    args = parser.parse_args(argv)
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _frame: signals.append(caught))
    try:
        publisher = Publisher(
            feed=args.feed, live=args.live, snapshot=args.snapshot, high_water_mark=args.hwm
        )
    except OSError as error:
        print(f"error: {error}", flush=True)
        return EXIT_CANNOT_BIND
    print("ready", flush=True)
    publisher.run(stop=lambda: bool(signals) or os.getppid() != args.parent)
    publisher.close()
    with contextlib.suppress(OSError):  # whoever started us may be gone
        print(json.dumps(publisher.counts), flush=True)
    return 0


def _bind(socket: zmq.Socket[bytes], address: str) -> None:
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise OSError(f"cannot publish at {address}: {zmq.strerror(error.errno or 0)}") from None


def _received(socket: zmq.Socket[bytes], limit: int) -> Iterator[list[bytes]]:
    """Up to ``limit`` waiting messages."""
    for _ in range(limit):
        try:
            yield socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return


def _pairs(items: list[Any]) -> Iterator[tuple[bytes, bytes]]:
    return zip(items[::2], items[1::2], strict=True)


def _joined(payloads: Iterable[bytes]) -> Iterator[bytes]:
    part: list[bytes] = []
    size = 0
    for payload in payloads:
        if size + len(payload) > _PART_BYTES and part:
            yield b"".join(part)
            part, size = [], 0
        part.append(payload)
        size += len(payload)
    if part:
        yield b"".join(part)


def _read_request(frames: list[bytes]) -> tuple[str | None, int | None]:
    """What is wrong with a request (None: nothing), and its id."""
    if len(frames) != 1:
        return "expected one frame", None
    if len(frames[0]) > schema.MAX_REQUEST_BYTES:
        return f"longer than {schema.MAX_REQUEST_BYTES} bytes", None
    try:
        request = msgpack.unpackb(frames[0])
    except (ValueError, TypeError, msgpack.UnpackException):
        return "not msgpack", None
    if not isinstance(request, dict):
        return "not a map", None
    request_id = request.get("id")
    if type(request_id) is not int or not 0 <= request_id < 1 << 64:
        return "expected an id: an unsigned integer", None
    if request.get("type") != schema.TYPE_SNAPSHOT_REQUEST:
        return "unknown type of request", request_id
    if request.get("v") != schema.SCHEMA_VERSION:
        return f"schema version {schema.SCHEMA_VERSION} is spoken here", request_id
    return None, request_id


if __name__ == "__main__":
    sys.exit(main())
