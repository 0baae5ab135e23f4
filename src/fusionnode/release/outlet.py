"""The daemon's side of publishing: starts the publisher, hands it messages, notices when it dies.

Handing over never waits. What does not fit is counted as dropped; the subscribers see the gap in the sequence
numbers, and the publisher's cache is made whole before anything else is sent.

A release group has an outlet and a publisher of its own. Its messages may be signed here, on the way out; its grants
go ahead of the messages that they cover, and all that stand are told again to a publisher that was started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgpack
import zmq

from fusionnode.core import clock
from fusionnode.release import publisher
from fusionnode.release.cache import Cache
from fusionnode.release.settings import GroupSettings, Partner, partners_tree
from fusionnode.release.wire import Message, StreamDigest

_BATCH = 256  # messages in one feed message: bounds what the feed's queue can hold
_FEED_HIGH_WATER = 1_024  # feed messages
_RESTART_NS = 1_000_000_000  # a publisher that cannot live is not started more often than this,
_LONGEST_RESTART_NS = 30_000_000_000  # and less and less often if it refuses to run
_WATCH_NS = 50_000_000
_READY_LINE_BYTES = 4_096
_BACK_A_TURN = 64
_LONGEST_REQUEST = 4_096


class OutletError(Exception):
    """The publisher cannot be started; the text is one line saying why."""


class Granted(Protocol):
    """What is released of a track from a message on, and by which rule; no longer, if that is empty."""

    @property
    def track_id(self) -> str:
        """The track's name in the group."""

    @property
    def sat_no(self) -> int | None:
        """Catalogue number of its object."""

    @property
    def rule(self) -> str:
        """The rule that decided."""

    @property
    def seq(self) -> int:
        """Sequence number of the first message."""


class PartnerRequest(NamedTuple):
    """An observation that a partner asks for: the request as it came, a msgpack map."""

    partner: str
    payload: bytes


class Outlet:
    """Messages in, a running publisher process out. One thread at a time may use it.

    Args:
        live, snapshot: addresses for the subscribers.
        high_water_mark: messages queued for one subscriber at most.
        on_fault: told, in one line each, of a publisher that died and of one that was started again.
        group: the release group whose stream this is; None: the node's own.
        sign: makes a signed payload of a payload; None: they go out as they are.
    """

    def __init__(
        self,
        *,
        live: str,
        snapshot: str,
        high_water_mark: int = 20_000,
        on_fault: Callable[[str], None] = lambda _text: None,
        group: GroupSettings | None = None,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.digest = StreamDigest()
        """Over every message of the node's own stream handed to `send`: what a replay has to reproduce."""
        self.handed = 0
        """Messages ever handed to `send`."""
        self.dropped = 0
        """Messages that never reached the publisher."""
        self.restarts = 0
        self._told = ""
        self.report: dict[str, int] = {}
        """The publisher's own counts, once it has ended."""
        self._addresses = ["--live", live, "--snapshot", snapshot, "--hwm", str(high_water_mark)]
        self._on_fault = on_fault
        self._group = group
        self._sign = sign
        self._grants: dict[str, tuple[str, int | None, str, int]] = {}
        self._cache = Cache()
        self._seeded = True
        self._context = zmq.Context()
        self._folder = Path(tempfile.mkdtemp(prefix="fusionnode-"))  # mode 0700: nobody else can feed
        self._feed: zmq.Socket[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_ns = 0
        self._watch_at_ns = 0
        self._starts = 0
        self._restart_ns = _RESTART_NS
        self._back: zmq.Socket[bytes] | None = None
        if group is not None:
            self._back = self._context.socket(zmq.PULL)
            self._back.setsockopt(zmq.RCVHWM, 256)
            self._back.setsockopt(zmq.MAXMSGSIZE, _LONGEST_REQUEST)
            self._back.bind(f"ipc://{self._folder}/back")

    @property
    def publisher_pid(self) -> int | None:
        """Process id of the publisher; None when there is none."""
        return None if self._process is None else self._process.pid

    def start(self, timeout_s: float = 20.0) -> None:
        """Start the publisher and wait until it publishes.

        Raises:
            OutletError: an address is in use or not an address, or nothing happened for ``timeout_s``.
        """
        self._spawn()
        assert self._process is not None
        assert self._feed is not None
        line = self._first_line(timeout_s)
        if line != "ready":
            self.close()
            reason = line.removeprefix("error: ")
            raise OutletError(reason or f"the publisher was not ready within {timeout_s:g} s")
        # The process is there; now its end of the feed, so that the first message finds it.
        if not self._feed.poll(round(timeout_s * 1000), zmq.POLLOUT):
            self.close()
            raise OutletError(f"the publisher did not take its feed within {timeout_s:g} s")

    def send(self, messages: Sequence[Message], grants: Sequence[Granted] = ()) -> int:
        """Hand over messages, in order, without waiting; gives the number of those dropped.

        ``grants`` go ahead of them, into the publisher's audit log.
        """
        if not messages and not grants:
            return 0
        now = clock.monotonic_ns()
        if now >= self._watch_at_ns:  # asking the kernel each time would cost more than the sending
            self._watch_at_ns = now + _WATCH_NS
            self.watch()
        if grants:
            self._hand_over(grants)
        dropped = 0
        for first in range(0, len(messages), _BATCH):
            batch = messages[first : first + _BATCH]
            if self._sign is not None:
                batch = [(topic, self._sign(payload)) for topic, payload in batch]
            self._seeded = self._seeded or self._seed()
            if not (self._seeded and self._push([publisher.PUBLISH, *chain.from_iterable(batch)])):
                self._seeded = False
                dropped += len(batch)
            for topic, payload in batch:
                self._cache.apply(topic, payload)
        self.dropped += dropped
        self.handed += len(messages)
        if self._group is None:  # a group's stream has its own
            self.digest.update(messages)  # last: the subscribers need not wait for it
        return dropped

    def set_policy(self, digest: str) -> None:
        """From now on this is what the group is released.

        Nothing that was released before is served any more, in a snapshot neither: everything is to be sent again.
        """
        if self._group is not None and digest != self._group.policy:
            self._cache.newest.clear()
            self._group = replace(self._group, policy=digest)
            self._say([publisher.POLICY, digest])

    def set_partners(self, partners: Mapping[str, Partner]) -> None:
        """From now on these are the group's partners; one that is none any more is cut off."""
        if self._group is not None and partners != self._group.partners:
            self._group = replace(self._group, partners=dict(partners))
            self._say([publisher.PARTNERS, partners_tree(partners)])

    def reply(self, partner: str, payload: bytes) -> bool:
        """Answer one who asked for an observation: a map with the request's ``id``. False: it was not handed on."""
        return self._push([publisher.REPLY, partner, payload])

    def requests(self) -> list[PartnerRequest]:
        """What partners have asked for since the last time; up to 64. What else the publisher says goes to the log."""
        taken: list[PartnerRequest] = []
        if self._back is None:
            return taken
        for _ in range(_BACK_A_TURN):
            try:
                message = msgpack.unpackb(self._back.recv(zmq.NOBLOCK))
            except zmq.Again:
                break
            except (ValueError, TypeError, msgpack.UnpackException):
                continue
            match message:
                case [publisher.BACK_REQUEST, str(partner), bytes(payload)]:
                    taken.append(PartnerRequest(partner, payload))
                case [publisher.BACK_LOG, str(event), dict(fields)]:
                    words = ", ".join(f"{key} {value}" for key, value in fields.items())
                    self._on_fault(f"{event}: {words}"[:_LONGEST_REQUEST])
        return taken

    def watch(self) -> bool:
        """Look whether the publisher lives, and start another if not; `send` does this too.

        Returns:
            True if it lives.
        """
        if self._process is None:
            return False
        if (code := self._process.poll()) is None:
            return True
        if clock.monotonic_ns() - self._started_ns >= self._restart_ns:
            how = self._reap().removeprefix("error: ") or _how(code)
            if how != self._told or code != publisher.EXIT_NOT_SAFE:  # a disk that stays full is told once
                self._on_fault(f"the publisher ended by itself ({how}); starting it again")
            self._told = how
            self.restarts += 1
            self._seeded = False
            self._spawn()
            unsafe = code == publisher.EXIT_NOT_SAFE
            self._restart_ns = min(2 * self._restart_ns, _LONGEST_RESTART_NS) if unsafe else _RESTART_NS
        return False

    def close(self, timeout_s: float = 5.0) -> None:
        """Let the publisher send what it has and end; kill it after ``timeout_s``. May be called twice."""
        if self._process is not None:
            if not self._push([publisher.END]):
                self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._reap()
        if not self._context.closed:
            self._context.destroy(linger=0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Outlet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self) -> None:
        # A new address each time: nothing may go into the queue of a publisher that is dead.
        self._starts += 1
        address = f"ipc://{self._folder}/feed{self._starts}"
        self._feed = self._context.socket(zmq.PUSH)
        self._feed.setsockopt(zmq.SNDHWM, _FEED_HIGH_WATER)
        self._feed.bind(address)
        self._started_ns = clock.monotonic_ns()
        command = [sys.executable, "-m", publisher.__name__, "--feed", address, *self._addresses]
        if self._group is not None:
            settings = self._folder / "group.json"
            settings.write_text(self._group.to_json(), encoding="utf-8")
            command += ["--group", str(settings), "--back", f"ipc://{self._folder}/back"]
        self._process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the daemon, which still has tombstones to send
        )

    def _first_line(self, timeout_s: float) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                return ""
        return os.read(self._process.stdout.fileno(), _READY_LINE_BYTES).decode(errors="replace").strip()

    def _reap(self) -> str:
        """Let go of a publisher that has ended and of its feed; gives what it complained of, if it did."""
        assert self._process is not None
        assert self._process.stdout is not None
        words = self._process.stdout.read().decode(errors="replace").split("\n")
        self._process.stdout.close()
        self._process = None
        if self._feed is not None:
            self._feed.close(linger=0)
            self._feed = None
        last = next((line for line in reversed(words) if line), "")
        with contextlib.suppress(ValueError):
            self.report = json.loads(last)
        return last if last.startswith("error: ") else ""

    def _hand_over(self, grants: Sequence[Granted]) -> None:
        feed: list[Any] = [publisher.GRANTS, False]
        for grant in grants:
            entry = (grant.track_id, grant.sat_no, grant.rule, grant.seq)
            feed += entry
            if grant.rule:
                self._grants[grant.track_id] = entry
            else:
                self._grants.pop(grant.track_id, None)
        self._say(feed)

    def _say(self, feed: Sequence[Any]) -> None:
        """Something that must not be lost: if it cannot be handed over now, everything is told again later."""
        self._seeded = self._seeded and self._push(feed)

    def _seed(self) -> bool:
        """Tell a publisher all that one has to know. Order matters: who, what for, then the messages."""
        if self._group is not None:
            partners = partners_tree(self._group.partners)
            for feed in ([publisher.PARTNERS, partners], [publisher.POLICY, self._group.policy]):
                if not self._push(feed):
                    return False
            if not self._push([publisher.GRANTS, True, *chain.from_iterable(self._grants.values())]):
                return False
        newest = chain.from_iterable(self._cache.newest.items())
        return self._push([publisher.SEED, self._cache.last, *newest])

    def _push(self, feed: Sequence[Any]) -> bool:
        if self._feed is None:
            return False
        try:
            self._feed.send(msgpack.packb(feed), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
