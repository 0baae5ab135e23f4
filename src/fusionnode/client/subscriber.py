"""`Subscriber`: the sockets and timers around a `Picture`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic  # the node's clock module needs numpy, a subscriber does not; only durations here
from typing import Any, Final, NamedTuple

import msgpack
import zmq

from fusionnode.client import decode, resume
from fusionnode.client.asking import Cues, Question
from fusionnode.client.decode import Message, Refused, Reply
from fusionnode.client.events import Event, Stale
from fusionnode.client.events import Refused as RefusedEvent
from fusionnode.client.following import Following, Stretch, Wanted
from fusionnode.client.keys import load as load_keys
from fusionnode.client.pacing import Pacing
from fusionnode.client.picture import Picture
from fusionnode.client.resume import Position
from fusionnode.client.signature import Signer
from fusionnode.client.sockets import Socket, has_something
from fusionnode.core import schema
from fusionnode.core.schema import ObjectState

_DRAIN: Final = 256  # messages read before events are handed out
_REPLIES_A_TURN: Final = 16
_RETRY_S: Final = 0.5  # after a reply that was of no use
_BUSY_S: Final = 1.0
_REFUSED_S: Final = 60.0
_SAVE_EVERY_S: Final = 1.0
_STALE_S, _STALE_PACED_S = 5.0, 30.0


class NodeInfo(NamedTuple):
    """What the node says of itself (``hello``, docs/WIRE.md)."""

    node_id: str | None
    group: str | None
    features: tuple[str, ...]
    paced_only: bool
    max_bytes_per_s: int | None


class Subscriber:
    """A subscription to one node: iterate over it for events; ``picture`` is kept up to date meanwhile.

    ``for event in subscriber`` and ``async for event in subscriber`` alike. Nothing happens between calls: whoever
    does not iterate for long may find a `Gap`. Where the node keeps a history, gaps are filled from it: events come in
    order and once, and a `Gap` is what is lost for good. Messages that are malformed, too large, of another schema
    version, or not signed as they should be are counted in ``counts`` and otherwise ignored. Not thread-safe.

    Args:
        live: address of the stream, e.g. ``tcp://127.0.0.1:5600``. None: only in the paced mode.
        snapshot: address for requests. Without it the picture starts empty, and is emptied by a gap.
        topics: topic prefixes, e.g. ``["state."]``; empty: all. Tombstones and heartbeats always come with
            them, or the picture could keep ghosts. With a filter, gaps are noticed at the next heartbeat.
        stale_after_s: silence after which a `Stale` is reported; 5, in the paced mode 30.
        request_timeout_s: how long to wait for a reply before asking again (doubled each time in vain); live
            messages wait no longer for those that are missing before them.
        high_water_mark: messages kept while the caller is busy; beyond it they are lost, which is a gap.
        server_key: the group's public key (40 characters, or a file that holds them): the stream is then encrypted.
        secret_key_file: this subscriber's own secret key; needed with ``server_key``.
        signing_key: the node's Ed25519 public key (64 hexadecimal digits, or a file that holds them): what is not
            signed with it is refused. Needs the package ``cryptography``.
        resume_file: where the subscriber stands is kept here; the next one goes on from there, hours later too.
        since: go on from here instead (a `Position`, or stream epoch and sequence number).
        paced_bytes_per_s: the paced mode, for thin links: the newest of each object, at most so many bytes a second.
        compact: in the paced mode, states may be rounded to a twentieth of their own uncertainty.
        name: said to the node, for its log.
        context: a ZeroMQ context to use; one of its own if None.

    Raises:
        ValueError: an address is none, a key cannot be used, or a file holds no position; the text is one line.
    """

    def __init__(
        self,
        live: str | None,
        snapshot: str | None = None,
        *,
        topics: Sequence[str] = (),
        stale_after_s: float | None = None,
        request_timeout_s: float = 10.0,
        high_water_mark: int = 20_000,
        server_key: str | Path | None = None,
        secret_key_file: str | Path | None = None,
        signing_key: str | Path | None = None,
        resume_file: str | Path | None = None,
        since: tuple[str, int] | None = None,
        paced_bytes_per_s: int | None = None,
        compact: bool = True,
        name: str = "",
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        monotonic_s: Callable[[], float] = monotonic,
    ) -> None:
        paced = paced_bytes_per_s is not None
        if snapshot is None and (paced or live is None):
            raise ValueError("the paced mode needs the node's address for requests")
        if (server_key is None) != (secret_key_file is None):
            raise ValueError("server_key and secret_key_file go together: give both or none")
        if since is not None and resume_file is not None:
            raise ValueError("since and resume_file: give one of them")
        keys = load_keys(server_key, secret_key_file) if server_key and secret_key_file else None
        self._signer = None if signing_key is None else Signer(_text_or_file(signing_key))
        self._verify = None if self._signer is None else self._signer.verify
        self._resume_file = None if resume_file is None else Path(resume_file)
        start = None if since is None else Position(*since)
        if self._resume_file is not None:
            start = resume.load(self._resume_file)
            if not os.access(self._resume_file.absolute().parent, os.W_OK):
                raise ValueError(f"{self._resume_file}: its folder cannot be written")
        prefixes = [topic.encode() for topic in topics]
        if prefixes:
            prefixes += [schema.TOPIC_TOMBSTONE, schema.TOPIC_HEARTBEAT]
        since_then = start if snapshot is not None and not paced else None
        mendable = snapshot is not None and not paced
        self._view = Picture(prefixes=prefixes, mendable=mendable, since=since_then)
        self._following = Following(
            self._view, prefixes=prefixes, since=since_then, most_held=max(high_water_mark, 1)
        )
        self._pacing: Pacing | None = None
        if paced_bytes_per_s is not None:
            if paced_bytes_per_s < 1:
                raise ValueError("paced_bytes_per_s: expected a number above 0")
            self._pacing = Pacing(
                self._view, bytes_per_s=paced_bytes_per_s, compact=compact, verify=self._verify
            )
        self._counts: Counter[str] = Counter()
        self._now = monotonic_s
        self._stale_after_s = stale_after_s or (_STALE_PACED_S if paced else _STALE_S)
        self._heard_at = self._now()
        self.stale = False
        """Nothing has come for ``stale_after_s``."""
        self.reached = False
        """A message has come, or a snapshot."""
        self._node: NodeInfo | None = None
        self._name = name[:64]
        self._next_id = (
            int.from_bytes(os.urandom(6), "big") << 12
        )  # no reply to an earlier life is taken for ours
        self._hello = Question(request_timeout_s)
        self._snapshot = Question(request_timeout_s)
        self._history = Question(request_timeout_s)
        self._history_wanted: Wanted | None = None
        self._hold_s = request_timeout_s  # live messages wait for history no longer
        self._waits_since: float | None = None
        self._hello_said = 0  # connections on which it was
        self._cues = Cues()
        self._handed: Position | None = None
        self._dealt: Position | None = None
        self._saved: Position | None = start
        self._save_at = self._now()
        self._closed = False
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._live: Socket | None = None
        self._requests: Socket | None = None
        self._poller = zmq.Poller()
        try:
            if live is not None and not paced:
                self._live = Socket(self._context, zmq.SUB, live, keys, high_water_mark=high_water_mark)
                for prefix in prefixes or [b""]:
                    self._live.zmq.subscribe(prefix)
            if snapshot is not None:
                self._requests = Socket(
                    self._context, zmq.DEALER, snapshot, keys, high_water_mark=64, slow=paced
                )
        except ValueError:
            self.close()
            raise
        for socket in self._sockets():
            self._poller.register(socket.zmq, zmq.POLLIN)
            self._poller.register(socket.monitor, zmq.POLLIN)

    @property
    def picture(self) -> dict[str, ObjectState]:
        """Newest state of each live track by track id. Read only: it belongs to the subscriber."""
        return self._view.states

    @property
    def sensors(self) -> dict[str, dict[str, Any]]:
        """Newest state of each sensor by its name."""
        return self._view.sensors

    @property
    def alive(self) -> dict[str, bool | None]:
        """By sensor: whether the node hears from it; None while the node itself is silent."""
        return {
            name: None if self.stale else bool(fields.get("alive"))
            for name, fields in self._view.sensors.items()
        }

    @property
    def stream_epoch(self) -> str | None:
        """Id of the stream being received; None before the first message."""
        return self._view.stream_epoch

    @property
    def seq(self) -> int | None:
        """Sequence number of the newest message taken; in the paced mode, of the newest whole picture."""
        return self._view.seq

    @property
    def whole(self) -> bool:
        """The picture holds everything that the node publishes (never without an address for requests)."""
        return self._view.whole and self._following.wanted is None

    @property
    def position(self) -> Position | None:
        """Up to where everything has come; what ``since`` takes. None while something is missing."""
        return self._view.position

    @property
    def node(self) -> NodeInfo | None:
        """What the node says of itself; None before it did. An older node says nothing but what it can do."""
        return self._node

    @property
    def rtt_s(self) -> float | None:
        """Round trip of the paced mode as the node measured it; None elsewhere."""
        return None if self._pacing is None else self._pacing.rtt_s

    @property
    def counts(self) -> dict[str, int]:
        """Messages used, refused by reason, and repeated, so far."""
        return {**self._counts, "duplicates": self._view.duplicates}

    def __iter__(self) -> Iterator[Event]:
        """Events for ever; waits where there is none."""
        while True:
            yield from self.receive()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events for ever, in asyncio."""
        while True:
            for event in await self.receive_async():
                yield event

    def receive(self, timeout_s: float | None = None) -> list[Event]:
        """The next events, in order; waits until there is one, or ``timeout_s`` are over (then empty).

        The events of the call before are taken as dealt with: with ``resume_file``, they do not come again.
        """
        give_up_at = None if timeout_s is None else self._now() + timeout_s
        self._note_dealt()
        while True:
            events, now = self._turn()
            if events or (give_up_at is not None and now >= give_up_at):
                return events
            self._poller.poll(self._wait_ms(now, give_up_at))

    async def receive_async(self, timeout_s: float | None = None) -> list[Event]:
        """`receive`, in asyncio (its event loop has to watch file descriptors, as all but Windows' default do)."""
        give_up_at = None if timeout_s is None else self._now() + timeout_s
        self._note_dealt()
        while True:
            events, now = self._turn()
            if events or (give_up_at is not None and now >= give_up_at):
                return events
            await self._wait(self._wait_ms(now, give_up_at) / 1e3)

    def request_observation(
        self,
        *,
        track_id: str | None = None,
        sat_no: int | None = None,
        from_utc: str,
        to_utc: str,
        sensor: str | None = None,
    ) -> int:
        """Ask the node to look at an object; what becomes of it comes as `CueReply` events with the number given here.

        Args:
            track_id, sat_no: which object; one of the two.
            from_utc, to_utc: when, as ``2026-03-01T12:00:00.000000Z``.
            sensor: which one; None: the node chooses.

        Raises:
            ValueError: not one object, a time that is none, too many requests open, or no address for requests.
        """
        if self._requests is None:
            raise ValueError("no address for requests was given")
        request_id = self._new_id()
        self._cues.add(request_id, track_id, sat_no, from_utc, to_utc, sensor)
        return request_id

    def checkpoint(self) -> None:
        """All events that were returned are dealt with: note that in the ``resume_file`` now.

        Raises:
            OSError: it cannot be written.
        """
        self._note_dealt()
        self._save()

    def close(self) -> None:
        """Let go of the sockets; may be called twice. The events of the last `receive` may come again."""
        for socket in self._sockets():
            socket.close()
        if self._own_context and not self._context.closed:
            self._context.destroy(linger=0)
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._save()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Subscriber:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _sockets(self) -> list[Socket]:
        return [socket for socket in (self._live, self._requests) if socket is not None]

    def _turn(self) -> tuple[list[Event], float]:
        """Whatever there is to do now: what came in, what is to be asked."""
        events: list[Event] = []
        now = self._now()
        for socket in self._sockets():
            events += socket.watch(now)
        events += self._read_live() + self._read_replies()
        now = self._now()
        events += self._ask(now)
        if not self.stale and now - self._heard_at >= self._stale_after_s:
            self.stale = True
            events.append(Stale(now - self._heard_at))
        self._handed = self._view.position
        if self._resume_file is not None and now >= self._save_at and self._dealt != self._saved:
            self._save_at = now + _SAVE_EVERY_S
            try:
                self._save()
            except OSError:
                self._counts["resume_file_not_written"] += 1
        return events, now

    def _note_dealt(self) -> None:
        if self._handed is not None:
            self._dealt = self._handed

    def _save(self) -> None:
        if self._resume_file is not None and self._dealt is not None and self._dealt != self._saved:
            resume.save(self._resume_file, self._dealt)
            self._saved = self._dealt

    def _heard(self) -> None:
        self._heard_at = self._now()
        self.stale = False
        self.reached = True

    def _read_live(self) -> list[Event]:
        events: list[Event] = []
        if self._live is None:
            return events
        for _ in range(_DRAIN):
            try:
                frames = self._live.zmq.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                if len(frames) != 2:
                    raise Refused(decode.MALFORMED)
                message = decode.live(frames[0], frames[1], self._verify)
            except Refused as refused:
                self._counts[str(refused)] += 1
                continue
            self._counts["messages"] += 1
            self._heard()
            events += self._following.live(message)
        return events

    def _read_replies(self) -> list[Event]:
        events: list[Event] = []
        if self._requests is None:
            return events
        for _ in range(_REPLIES_A_TURN):
            try:
                head, *parts = self._requests.zmq.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                events += self._take(decode.reply(head), parts)
            except Refused as refused:
                self._counts[str(refused)] += 1
        return events

    def _take(self, reply: Reply, parts: list[bytes]) -> list[Event]:
        """One reply; of a request given up it is left."""
        if reply.type == schema.TYPE_ERROR:
            return self._take_error(reply)
        if reply.type == schema.TYPE_HELLO:
            return self._take_hello(reply) if self._hello.is_answered_by(reply.id) else []
        if reply.type == schema.TYPE_SNAPSHOT:
            return self._take_snapshot(reply, parts) if self._snapshot.is_answered_by(reply.id) else []
        if reply.type == schema.TYPE_HISTORY:
            return self._take_history(reply, parts) if self._history.is_answered_by(reply.id) else []
        if reply.type == schema.TYPE_CUE_REPLY:
            return list(self._cues.reply(reply.id, reply.fields))
        if self._pacing is not None and self._pacing.is_mine(reply.id):
            return self._take_paced(self._pacing, reply)
        return []

    def _take_error(self, reply: Reply) -> list[Event]:
        reason, now = reply.fields["reason"], self._now()
        wait = reason in (schema.ERROR_BUSY, schema.ERROR_NOTHING_YET)
        if self._hello.is_answered_by(reply.id):
            if wait:
                self._hello.put_off(now + _BUSY_S)
            else:  # an older node
                self._node = NodeInfo(None, None, (schema.FEATURE_SNAPSHOT,), False, None)
        elif self._snapshot.is_answered_by(reply.id):
            self._snapshot.put_off(now + _RETRY_S)
        elif self._history.is_answered_by(reply.id):
            self._history.put_off(now + _BUSY_S)
            if not wait:
                self._counts["history_not_kept"] += 1
                return self._following.give_up()
        elif self._pacing is not None and self._pacing.is_mine(reply.id):
            retry_s = _BUSY_S if wait else _REFUSED_S
            self._pacing.put_off(now + retry_s)
            if not wait:
                text = f"the node refuses the paced mode: {reason}; its operator sets paced_bytes_per_s for a partner"
                return [RefusedEvent("paced", self._address(), text, retry_s)]
        else:
            return list(self._cues.error(reply.id, reason))
        return []

    def _take_hello(self, reply: Reply) -> list[Event]:
        said = reply.fields
        self._node = NodeInfo(
            said["nodeId"],
            said["group"],
            tuple(said["features"]),
            bool(said["paced"]),
            said["maxBytesPerS"],
        )
        self._following.offered = schema.FEATURE_HISTORY in said["features"]
        events: list[Event] = []
        if said["version"] is None:
            spoken = ", ".join(map(str, said["versions"]))
            text = (
                f"the node speaks schema version {spoken}, this client {schema.SCHEMA_VERSION}: nothing that comes can "
                "be read. Take a client of that version, or ask the node's operator for an address that speaks this one"
            )
            events.append(RefusedEvent("version", self._address(), text))
        if said["paced"] and self._pacing is None:
            text = (
                "the node admits this key to the paced mode only: give paced_bytes_per_s"
                f" (at most {said['maxBytesPerS']})"
            )
            events.append(RefusedEvent("paced", self._address(), text))
        theirs = said["signingKey"]
        if self._signer is not None and (theirs or "").lower() != self._signer.public_key:
            has = f"names another signing key ({theirs})" if theirs else "names no signing key"
            text = f"the node {has}: what it sends is refused. Ask its operator for the key it signs with"
            events.append(RefusedEvent("signing_key", self._address(), text))
        return events

    def _take_snapshot(self, reply: Reply, parts: list[bytes]) -> list[Event]:
        self._snapshot.put_off(self._now() + _RETRY_S)
        messages = self._messages(reply, parts)
        events = self._view.snapshot(Position(reply.fields["streamEpoch"], reply.fields["seq"]), messages)
        if events:
            self._counts["snapshots"] += 1
            self.reached = True
            self._snapshot.was_of_use()
        return events

    def _take_history(self, reply: Reply, parts: list[bytes]) -> list[Event]:
        asked, wanted = self._history_wanted, self._following.wanted
        if asked is None or wanted is None or asked[:2] != wanted[:2]:
            return []  # what was missing has come meanwhile
        said = reply.fields
        self._following.offered = True
        try:
            if sum(map(len, parts)) > schema.MAX_HISTORY_REPLY_BYTES:
                raise Refused(decode.TOO_LARGE)
            messages = self._messages(reply, parts)
        except Refused as refused:
            self._counts[str(refused)] += 1
            return self._following.give_up()
        stretch = Stretch(said["streamEpoch"], said["from"], said["to"], said["next"], said["nextEpoch"])
        events = self._following.history(stretch, messages)
        self._counts["histories"] += 1
        self._counts["filled"] += len(messages)
        self._history.was_of_use()
        self._waits_since = None
        self._heard()
        return events

    def _messages(self, reply: Reply, parts: list[bytes]) -> list[Message]:
        messages = [message for part in parts for message in decode.snapshot_part(part, self._verify)]
        if len(messages) != reply.fields["count"]:
            raise Refused(decode.MALFORMED)
        return messages

    def _take_paced(self, pacing: Pacing, reply: Reply) -> list[Event]:
        events, acknowledgement = pacing.take(reply.fields, self._now())
        for reason in pacing.refused:
            self._counts[reason] += 1
        pacing.refused.clear()
        self._counts["paced"] = pacing.messages
        self._heard()
        if acknowledgement is not None:
            self._send(acknowledgement)
        return events

    def _ask(self, now: float) -> list[Event]:
        """Send what is due; gives what happened because nobody answered."""
        requests = self._requests
        if requests is None:
            return []
        events: list[Event] = []
        if requests.connections != self._hello_said:
            first, self._hello_said = self._hello_said == 0, requests.connections
            if not first:
                self._begin_dialogue_anew(now)
        if self._node is None and self._hello.is_due(now):
            body = {
                "type": schema.TYPE_HELLO_REQUEST,
                "versions": [schema.SCHEMA_VERSION],
                "client": self._name,
            }
            self._ask_one(self._hello, body, now)
        if self._pacing is not None:
            body_or_none = self._pacing.request(now, self._new_id())
            if body_or_none is not None and not self._send(body_or_none):
                self._pacing.not_sent(now)
        else:
            events += self._ask_for_messages(now)
        for cue in self._cues.due(now):
            if not self._send(cue):
                break
            self._cues.was_sent(cue["id"], now)
        return events + list(self._cues.given_up(now))

    def _begin_dialogue_anew(self, now: float) -> None:
        """The connection is another one: a reply to what was asked on the old one does not come any more."""
        for question in (self._hello, self._snapshot, self._history):
            question.put_off(now)
        self._node = None
        if self._pacing is not None:
            self._pacing.renew(now)
        self._cues.renew(now)

    def _ask_for_messages(self, now: float) -> list[Event]:
        wanted = self._following.wanted
        if wanted is None or not self._following.held:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since > self._hold_s:
            self._waits_since = None
            return self._following.give_up()
        if wanted is not None:
            if self._history.is_due(now):
                body = {
                    "type": schema.TYPE_HISTORY_REQUEST,
                    "streamEpoch": wanted.stream_epoch,
                    "from": wanted.first,
                    "to": wanted.last,
                }
                if self._ask_one(self._history, body, now):
                    self._history_wanted = wanted
        elif self._view.wants_snapshot and self._snapshot.is_due(now):
            self._ask_one(self._snapshot, {"type": schema.TYPE_SNAPSHOT_REQUEST}, now)
        return []

    def _ask_one(self, question: Question, body: dict[str, Any], now: float) -> bool:
        request_id = self._new_id()
        if not self._send({**body, "id": request_id}):
            question.put_off(now + 0.05)  # not connected yet
            return False
        question.asked(request_id, now)
        return True

    def _send(self, body: dict[str, Any]) -> bool:
        assert self._requests is not None
        try:
            self._requests.zmq.send(msgpack.packb({"v": schema.SCHEMA_VERSION, **body}), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _address(self) -> str:
        return "" if self._requests is None else self._requests.address

    def _wait_ms(self, now: float, give_up_at: float | None) -> int:
        """Until the next moment at which something is to be done even if nothing comes."""
        moments = [now + 1.0] if give_up_at is None else [now + 1.0, give_up_at]
        if not self.stale:
            moments.append(self._heard_at + self._stale_after_s)
        moments += [socket.due_at for socket in self._sockets() if socket.due_at is not None]
        if self._requests is not None:
            if self._node is None:
                moments.append(self._hello.due_at)
            if self._pacing is not None:
                moments.append(self._pacing.due_at)
            elif self._following.wanted is not None:
                moments.append(self._history.due_at)
            elif self._view.wants_snapshot:
                moments.append(self._snapshot.due_at)
            moments += [due_at for due_at in (self._cues.due_at,) if due_at is not None]
        return max(0, round((min(moments) - now) * 1000) + 1)

    async def _wait(self, timeout_s: float) -> None:
        """Until a socket has something, or the time is over."""
        sockets = [s for socket in self._sockets() for s in (socket.zmq, socket.monitor)]
        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        # ZeroMQ's descriptors tell of changes only: so watch first, look then, wait last.
        for socket in sockets:
            loop.add_reader(socket.fileno(), wake)
        try:
            if not any(has_something(socket) for socket in sockets):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken, timeout_s)
            else:
                await asyncio.sleep(0)
        finally:
            for socket in sockets:
                if not socket.closed:
                    loop.remove_reader(socket.fileno())


def _text_or_file(key: str | Path) -> str:
    text = str(key)
    if isinstance(key, str) and len(text) == 64 and not Path(text).exists():
        return text
    try:
        return Path(key).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError(
            f"signing key {text}: expected 64 hexadecimal digits, or a file that holds them"
        ) from None
