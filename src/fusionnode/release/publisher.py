"""The publisher: a process of its own that faces the subscribers and holds encoded bytes only.

It is handed released messages over a private socket, sends them on (XPUB), and answers requests (ROUTER): a
snapshot with the newest message of each track and sensor, and for a release group also what was missed, a paced
stream, and requests for observations. It never has the picture, so it cannot leak it. It imports pyzmq, msgpack and
the standard library only.

There is one for the node's own stream, and one for each release group, whose doors open to allowed keys only (CURVE).
The handler of keys is one more socket of the one loop; a door that a stranger gets through at the start ends the
process. What a group is granted is in its audit log, on the disk, before the first message that it covers is sent.

Feed: single-frame messages, each a msgpack array whose first item says what it is:

- ``["publish", topic, payload, topic, payload, ...]``
- ``["seed", last payload, topic, payload, ...]``: what the cache holds from now on, published to nobody
- ``["grants", whole, track id, catalogue number or nil, rule, seq, ...]``: what is released from ``seq`` on, by
  which rule (empty: no longer); ``whole``: these and no others are
- ``["policy", digest]``: what was released under other policies is not served from now on
- ``["partners", {name: {...}}]``: as in `settings`
- ``["reply", partner, payload]``: to one who asked for an observation
- ``["end"]``

Back, over another: ``["request", partner, payload]`` and ``["log", event, {...}]``.

Standard output: one line ``ready`` or ``error: ...`` at the start; at the end one line of JSON with counts.
Exit code 3: an address could not be bound; 4: a key, a log or a door that is not as it must be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import zmq

from fusionnode.core import schema
from fusionnode.record.audit import Audit, AuditError
from fusionnode.release import requests
from fusionnode.release.cache import Cache, envelope
from fusionnode.release.desk import Desk
from fusionnode.release.gate import LIVE, REQUEST, Gate
from fusionnode.release.history import History, Stretch
from fusionnode.release.paced import Pacer
from fusionnode.release.settings import GroupSettings, partners_of
from fusionnode.release.spool import Spool
from fusionnode.security.keyring import KeyringError
from fusionnode.security.selftest import DoorError, require_locked
from fusionnode.security.zap import ZapError

__all__ = ["Cache", "Publisher", "main"]

EXIT_CANNOT_BIND = 3
EXIT_NOT_SAFE = 4

PUBLISH = "publish"
SEED = "seed"
GRANTS = "grants"
POLICY = "policy"
PARTNERS = "partners"
REPLY = "reply"
END = "end"
BACK_REQUEST = "request"
BACK_LOG = "log"

_DRAIN = 256  # messages taken from one socket before the others have their turn
_REQUESTS_A_TURN = 16  # so that a flood of requests cannot hold up the stream
_POLL_MS = 200  # how soon a signal or a dead parent is noticed
_LINGER_MS = 1_000  # for the last tombstones to reach the subscribers
_REPLY_BACKLOG = 4  # unread replies kept for one requester; further ones are dropped
_LONGEST_SUBSCRIPTION = 2_048  # as a frame: a handshake of CURVE must fit too
_MOST_SUBSCRIPTIONS = 4_096  # topics of one partner, and bytes in them: more is an attack on our memory
_MOST_SUBSCRIBED_BYTES = 1 << 18
_WATCH_S = 1.0
_REBIND_S = 5.0
_HOUR_S = 3_600.0
_COUNTS = (
    "published", "snapshots", "refused_requests", "hellos", "histories", "cues", "requests_over_rate",
    "strangers", "put_out", "reopened", "faults", "paced", "paced_streams",
)  # fmt: skip


class Publisher:
    """The sockets and what goes between them.

    Args:
        feed, live, snapshot: addresses: of the daemon's socket, to publish at, to be asked at.
        high_water_mark: messages queued for one subscriber at most.
        group: the release group whose stream this is; None: the node's own stream, without keys.
        back: address of the daemon's socket for what comes back.

    Raises:
        OSError: an address could not be bound; the text is one line naming it.
        KeyringError, ZapError, AuditError: a group's key or log cannot be had.
    """

    def __init__(
        self,
        *,
        feed: str,
        live: str,
        snapshot: str,
        high_water_mark: int,
        group: GroupSettings | None = None,
        back: str | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTS if group else _COUNTS[:3], 0))
        self._addresses = {LIVE: live, REQUEST: snapshot}
        self._high_water_mark = high_water_mark
        self._group = group
        self._policy = "" if group is None else group.policy
        self._cache = Cache()
        self._ended = False
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._gate: Gate | None = None
        self._audit: Audit | None = None
        self._history: History | None = None
        self._spool: Spool | None = None
        self._spool_fault: str | None = None
        self._audit_fault: str | None = None
        self._subscribed: dict[bytes, str] = {}
        self._topics: Counter[str] = Counter()
        self._topic_bytes: Counter[str] = Counter()
        now = time.monotonic()
        self._watch_at = now + _WATCH_S
        self._hour_ends = now + _HOUR_S
        self._hourly: Counter[str] = Counter()
        try:
            if group is not None:
                self._audit = Audit(
                    group.audit, rotate_bytes=group.audit_rotate_bytes, go_on=group.audit_go_on
                )
                self._gate = Gate(self._context, group, self._audit)
                self._history = History(group.history_bytes)
                self._spool = _spool(group)
                self._poller.register(self._gate.zap.socket, zmq.POLLIN)
            self._live = self._opened(LIVE)
            self._requests = self._opened(REQUEST)
        except BaseException:
            self._context.destroy(linger=0)
            if self._audit is not None:
                self._audit.close()
            raise
        self._feed = self._context.socket(zmq.PULL)
        self._feed.setsockopt(zmq.RCVHWM, 64)
        self._feed.connect(feed)
        self._poller.register(self._feed, zmq.POLLIN)
        self._back: zmq.Socket[bytes] | None = None
        if back is not None:
            self._back = self._context.socket(zmq.PUSH)
            self._back.setsockopt(zmq.SNDHWM, 256)
            self._back.setsockopt(zmq.LINGER, 0)
            self._back.connect(back)
        self._pacer = Pacer(send=self._send, cache=lambda: self._cache, counts=self.counts)
        self._desk = Desk(
            send=self._send,
            cache=lambda: self._cache,
            history=self._history,
            hello=_hello(group),
            counts=self.counts,
            forward=lambda partner, payload: self._tell(BACK_REQUEST, partner, payload),
            older=self._from_disk,
            pace=self._pacer.request,
            metered=group is not None,
        )

    def prove_locked(self) -> None:
        """Try both doors from outside with a random key and with none.

        Raises:
            DoorError: one of them is open, or its handler does not answer.
        """
        if self._gate is None or self._group is None:
            return
        self._gate.probing(True)
        for socket, kind in ((self._live, zmq.SUB), (self._requests, zmq.DEALER)):
            endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
            require_locked(endpoint, self._gate.public, kind, self._gate.zap.serve)
        self._gate.probing(False)
        assert self._audit is not None
        self._audit.append("started", {"group": self._group.name, "policy": self._group.policy})
        self._audit.sync()

    def run(self, stop: Callable[[], bool]) -> None:
        """Publish until the feed ends or ``stop()`` is true; it is asked at least five times a second.

        Raises:
            AuditError: what is granted cannot be written down; nothing of it was sent.
            OSError: an address that was let go of to drop connections cannot be had again.
        """
        zap = None if self._gate is None else self._gate.zap
        while not (self._ended or stop()):
            wait_ms = math.ceil(1_000 * self._pacer.due_in(time.monotonic()))
            ready = dict(self._poller.poll(min(_POLL_MS, wait_ms)))
            if zap is not None and zap.socket in ready:
                zap.serve()
            if self._feed in ready:
                self._drain_feed()
            if self._live in ready:
                # Subscriptions take effect without us, but unread notices of them would pile up.
                self._note_subscriptions()
            if self._requests in ready:
                self._answer_requests()
            if self._gate is not None:
                now = time.monotonic()
                self._pacer.serve(now)
                if now >= self._watch_at:
                    self._watch(self._gate)

    def close(self) -> None:
        """Let go of the addresses, giving the last messages a second to leave."""
        self._feed.close(linger=0)
        self._live.close()
        self._requests.close()
        if self._back is not None:
            self._back.close()
        if self._gate is not None:
            self._gate.zap.close()
        if self._audit is not None:
            if self._spool is not None:
                self._spool.close()
            with contextlib.suppress(AuditError):
                self._count_hour()
                self._audit.append("stopped", {})
                self._audit.close()
        self._context.term()

    def drop(self) -> None:
        """Let go of everything at once; what was not sent is not."""
        self._context.destroy(linger=0)

    def _opened(self, door: str) -> zmq.Socket[bytes]:
        """One of the two doors, bound."""
        if door == LIVE:
            socket = self._context.socket(zmq.XPUB)
            socket.setsockopt(zmq.SNDHWM, self._high_water_mark)
            # From outside come subscriptions and requests only; libzmq hangs up on what is absurdly long.
            socket.setsockopt(zmq.MAXMSGSIZE, _LONGEST_SUBSCRIPTION)
        else:
            socket = self._context.socket(zmq.ROUTER)
            socket.setsockopt(zmq.SNDHWM, _REPLY_BACKLOG)
            socket.setsockopt(zmq.RCVHWM, 64)
            socket.setsockopt(zmq.MAXMSGSIZE, schema.MAX_MESSAGE_BYTES)
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15_000)
        if self._gate is not None:
            self._gate.lock(socket, door)
        try:
            _bind(socket, self._addresses[door])
        except OSError:
            socket.close(linger=0)
            raise
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _reopen(self) -> None:
        """Drop every connection of the group. Nothing that is sent from now on can reach the old ones."""
        for door, socket in ((LIVE, self._live), (REQUEST, self._requests)):
            # As bound: a port that was left open is to be the same again.
            self._addresses[door] = socket.getsockopt_string(zmq.LAST_ENDPOINT)
            self._poller.unregister(socket)
            socket.close(linger=0)
        self._live = self._opened_again(LIVE)
        self._requests = self._opened_again(REQUEST)
        self._subscribed.clear()
        self._topics.clear()
        self._topic_bytes.clear()
        self._desk.forget()
        self._pacer.keep(
            lambda _name: False
        )  # their connections have gone, and with these what was under way
        self.counts["reopened"] += 1

    def _opened_again(self, door: str) -> zmq.Socket[bytes]:
        give_up_at = time.monotonic() + _REBIND_S
        while True:
            try:
                return self._opened(door)
            except OSError:
                if time.monotonic() >= give_up_at:
                    raise
            time.sleep(0.002)

    def _drain_feed(self) -> None:
        published = 0
        for (frame,) in _received(self._feed, _DRAIN):
            kind, *items = msgpack.unpackb(frame)
            if kind == PUBLISH:
                self._publish(items)
                published += len(items) // 2
                if published >= _DRAIN:
                    break
            elif kind == SEED:
                self._cache = Cache()
                self._cache.newest.update(_pairs(items[1:]))
                self._cache.last = items[0]
                self._pacer.seeded()
            elif kind == END:
                self._ended = True
                break
            else:
                self._steer(kind, items)
        self.counts["published"] += published

    def _publish(self, items: list[bytes]) -> None:
        if self._audit is not None:
            self._audit.sync()  # costs nothing if nothing was added
        send, more, apply = self._live.send, zmq.SNDMORE, self._cache.apply
        if self._history is None:
            for topic, payload in _pairs(items):
                send(topic, more)
                send(payload)
                apply(topic, payload)
            return
        topics, payloads = items[::2], items[1::2]
        epoch, first = envelope(payloads[0])
        self._history.add(epoch, first, payloads)
        if self._spool is not None:
            self._spool.add(epoch, first, payloads)
        for topic, payload in zip(topics, payloads, strict=True):
            send(topic, more)
            send(payload)
            apply(topic, payload)
        self._pacer.note(epoch, first, topics, payloads)

    def _steer(self, kind: str, items: list[Any]) -> None:
        """What the daemon says besides messages; a group only."""
        if self._gate is None or self._audit is None or self._history is None:
            return
        if kind == GRANTS:
            whole, *rest = items
            if whole:
                self._audit.append("grants_whole", {"count": len(rest) // 4})
            for track, number, rule, seq in zip(*[iter(rest)] * 4, strict=True):
                fields = {"track": track, "satNo": number, "rule": rule, "fromSeq": seq}
                self._audit.append("grant" if rule else "withdrawn", fields)
                self._pacer.note_rule(track, rule)
        elif kind == POLICY and items[0] != self._policy:
            self._policy = items[0]
            self._history.clear()
            self._cache.newest.clear()
            self._pacer.forget_past()
            if self._spool is not None:
                self._spool.set_policy(self._policy)
            self._audit.append("policy", {"digest": items[0]})
            self._audit.sync()
        elif kind == PARTNERS and (partners := partners_of(items[0])) != self._gate.partners:
            self._audit.append("partners", {"names": sorted(partners)})
            if self._gate.refresh(partners):
                self._reopen()
            self._audit.sync()
        elif kind == REPLY:
            self._desk.route_reply(items[0], items[1])

    def _note_subscriptions(self) -> None:
        for frames in _received(self._live, _DRAIN, copy=False):
            if self._gate is None or len(frames) != 1:
                continue
            notice = frames[0].bytes
            topic, who = notice[1:], _user_of(frames[0])
            if notice[:1] == b"\x00":
                if (owner := self._subscribed.pop(topic, None)) is not None:
                    self._topics[owner] -= 1
                    self._topic_bytes[owner] -= len(topic)
            elif notice[:1] == b"\x01" and who is not None and topic not in self._subscribed:
                self._subscribed[topic] = who
                self._topics[who] += 1
                self._topic_bytes[who] += len(topic)
                if self._topics[who] > _MOST_SUBSCRIPTIONS or self._topic_bytes[who] > _MOST_SUBSCRIBED_BYTES:
                    self._put_out(self._gate, who)
                    return  # the socket is another one now

    def _put_out(self, gate: Gate, who: str) -> None:
        """A partner that fills our memory with subscriptions does not come in again while this process lives."""
        self.counts["put_out"] += 1
        fields = {"partner": who, "subscriptions": self._topics[who], "bytes": self._topic_bytes[who]}
        gate.put_out(who, f"{fields['subscriptions']} subscriptions of {fields['bytes']} bytes")
        self._tell(BACK_LOG, "partner_put_out", fields)
        self._reopen()

    def _answer_requests(self) -> None:
        now = time.monotonic()
        kinds = requests.KINDS if self._gate is not None else requests.KINDS[:1]
        for parts in _received(self._requests, _REQUESTS_A_TURN, copy=False):
            route, *frames = (frame.bytes for frame in parts)
            name, partner = "", None
            if self._gate is not None:
                who = _user_of(parts[-1])
                if who is None or not self._gate.may_request(who) or route[:1] != b"\x00":
                    self.counts["strangers"] += (
                        1  # one revoked a moment ago, or one with a route of its own making
                    )
                    continue
                name, partner = who, self._gate.partners[who]
            # A REQ socket puts an empty frame in front; whoever sent one gets one back.
            back = [route, b""] if len(frames) == 2 and not frames[0] else [route]
            try:
                request = requests.read(frames[len(back) - 1 :], kinds)
                if request.kind == schema.TYPE_PACED_ACK and request.fault is None:
                    self._pacer.ack(name, request, now)
                else:
                    self._desk.answer(back, name, partner, request, now)
            except AuditError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever one partner sends, the others go on
                self.counts["faults"] += 1
                self._tell(BACK_LOG, "request_fault", {"partner": name, "error": type(error).__name__})

    def _send(self, envelope: list[bytes], frames: Sequence[bytes]) -> bool:
        # Looking at the events makes libzmq notice what has been read meanwhile; without it, a quick requester
        # seems to have a full queue. One that has gone or does not read loses its reply, and holds up nobody.
        self._requests.getsockopt(zmq.EVENTS)
        try:
            self._requests.send_multipart([*envelope, *frames], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def _from_disk(self, epoch: str, first: int, last: int, most_bytes: int) -> Stretch | None:
        return None if self._spool is None else self._spool.get(epoch, first, last, most_bytes)

    def _tell(self, *message: Any) -> bool:
        """Say something to the daemon; False: it does not listen."""
        if self._back is None:
            return False
        try:
            self._back.send(msgpack.packb(message), zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def _watch(self, gate: Gate) -> None:
        now = time.monotonic()
        self._watch_at = now + _WATCH_S
        if gate.refresh():
            self._reopen()
        gate.tidy()
        if self._spool is not None:
            self._spool.tidy()
            if self._spool.fault != self._spool_fault:
                self._spool_fault = self._spool.fault
                self._tell(
                    BACK_LOG,
                    "spool_fault" if self._spool_fault else "spool_goes_on",
                    {"text": self._spool_fault or ""},
                )
        if now >= self._hour_ends:
            self._count_hour()
        assert self._audit is not None
        self._audit.sync()
        if (self._audit.fault is None) != (self._audit_fault is None):
            text = self._audit.fault or ""
            self._tell(BACK_LOG, "audit_fault" if text else "audit_goes_on", {"text": text})
        self._audit_fault = self._audit.fault

    def _count_hour(self) -> None:
        """What was sent and answered since the last time, into the audit log."""
        assert self._audit is not None
        counts = self.counts - self._hourly
        self._hourly = Counter(self.counts)
        self._hour_ends = time.monotonic() + _HOUR_S
        self._audit.append("counts", dict(counts))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the publisher until its feed ends, its parent dies, or SIGTERM or SIGINT comes."""
    parser = argparse.ArgumentParser(
        prog="fusionnode.release.publisher", description="Publish encoded messages."
    )
    parser.add_argument("--feed", required=True, help="where the daemon pushes to")
    parser.add_argument("--live", required=True, help="address of the stream")
    parser.add_argument("--snapshot", required=True, help="address for requests")
    parser.add_argument("--hwm", type=int, default=20_000, help="messages queued for a subscriber at most")
    parser.add_argument("--group", type=Path, help="file with the settings of a release group")
    parser.add_argument("--back", help="where the daemon listens for what comes back")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="end when this process does")
    args = parser.parse_args(argv)
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _frame: signals.append(caught))
    _raise_file_limit()
    try:
        group = None
        if args.group is not None:
            group = GroupSettings.from_json(args.group.read_text(encoding="utf-8"))
        publisher = Publisher(
            feed=args.feed, live=args.live, snapshot=args.snapshot, high_water_mark=args.hwm, group=group,
            back=args.back,
        )  # fmt: skip
    except (KeyringError, ZapError, AuditError, ValueError) as error:
        return _failed(error, EXIT_NOT_SAFE)
    except OSError as error:
        return _failed(error, EXIT_CANNOT_BIND)
    try:
        publisher.prove_locked()
    except (DoorError, AuditError) as error:
        publisher.drop()
        return _failed(error, EXIT_NOT_SAFE)
    print("ready", flush=True)
    try:
        publisher.run(stop=lambda: bool(signals) or os.getppid() != args.parent)
    except (AuditError, OSError) as error:
        publisher.drop()
        return _failed(error, EXIT_NOT_SAFE if isinstance(error, AuditError) else EXIT_CANNOT_BIND)
    publisher.close()
    with contextlib.suppress(OSError):  # whoever started us may be gone
        print(json.dumps(publisher.counts), flush=True)
    return 0


def _failed(error: Exception, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"error: {error}", flush=True)
    return code


def _raise_file_limit() -> None:
    """Half-open connections take a file each until they time out: let there be room for many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else soft, hard))


def _hello(group: GroupSettings | None) -> dict[str, Any]:
    if group is None:
        return {"group": None, "nodeId": None, "features": [schema.FEATURE_SNAPSHOT], "signingKey": None}
    features = [schema.FEATURE_SNAPSHOT, schema.FEATURE_HISTORY, schema.FEATURE_PACED, schema.FEATURE_COMPACT]
    features.append(schema.FEATURE_CUE)
    if group.spool is not None:
        features.append(schema.FEATURE_SPOOL)
    if group.signing_key is not None:
        features.append(schema.FEATURE_SIGNED)
    return {
        "group": group.name,
        "nodeId": group.node_id,
        "features": features,
        "signingKey": group.signing_key,
    }


def _spool(group: GroupSettings) -> Spool | None:
    if group.spool is None:
        return None
    return Spool(group.spool, group.policy, limit_bytes=group.spool_bytes, age_s=group.spool_age_s)


def _bind(socket: zmq.Socket[bytes], address: str) -> None:
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise OSError(f"cannot publish at {address}: {zmq.strerror(error.errno or 0)}") from None


def _received(socket: zmq.Socket[bytes], limit: int, *, copy: bool = True) -> Iterator[list[Any]]:
    """Up to ``limit`` waiting messages; bytes, or frames with what is known of their sender."""
    for _ in range(limit):
        try:
            yield socket.recv_multipart(zmq.NOBLOCK, copy=copy)
        except zmq.Again:
            return


def _user_of(frame: zmq.Frame) -> str | None:
    """Whose key the sender of a frame has shown; None if that is not known."""
    try:
        return str(frame.get("User-Id")) or None
    except zmq.ZMQError:
        return None


def _pairs(items: list[Any]) -> Iterator[tuple[bytes, bytes]]:
    return zip(items[::2], items[1::2], strict=True)


if __name__ == "__main__":
    sys.exit(main())
