"""A TCP relay that is a thin, slow, lossy link, as what speaks TCP over one sees it: late, in bursts, never incomplete.

    python -m fusionnode_hil.relay --route 127.0.0.1:6610=127.0.0.1:5610 --route 127.0.0.1:6611=127.0.0.1:5611
        [--rate-bit-s 64000] [--delay-ms 300] [--jitter-ms 20] [--loss 0.05] [--seed 1]

All connections of all routes share one line in each direction. A segment of up to 1,448 bytes takes its time on the
line, then the delay and a jitter. With the probability of a loss it has to be sent again: it takes the line once more,
and comes later by the time after which TCP notices, doubled for each further loss of it (RFC 6298, section 5). What
was sent after it on the same connection waits for it (head-of-line blocking). So a loss costs time; no byte is ever
dropped, changed or put out of order. Seeded: the same bytes in the same pieces are delayed alike.

A line of text on standard input commands it: ``cut`` (nothing passes, what is under way is sent again later), ``cut
600`` (heals by itself after as many seconds), ``heal``, ``drop`` (all connections end at once), ``quit``. While cut, a
new connection is made to wait. At the end it prints its counts, as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

SEGMENT = 1_448
"""Bytes of a TCP segment on an Ethernet path (RFC 879; 52 bytes of headers with time stamps)."""
LEAST_TIMEOUT_S = 0.2
MOST_TIMEOUT_S = 60.0
WINDOW_BYTES = 65_536
"""As much of one connection may be under way or wait in front of the line; the rest waits with its sender."""
_READ_A_TURN = 16
_WAIT_S = 0.1


@dataclass(frozen=True)
class Shape:
    """What a line does.

    Attributes:
        rate_bit_s: bits a second in each direction; 0: no limit.
        delay_s: one way.
        jitter_s: up to so much more, evenly.
        loss: probability that a segment has to be sent again.
        seed: of losses and jitter.
        window_bytes: of one connection, in one direction.
    """

    rate_bit_s: float = 64_000.0
    delay_s: float = 0.3
    jitter_s: float = 0.0
    loss: float = 0.05
    seed: int = 1
    window_bytes: int = WINDOW_BYTES

    def __post_init__(self) -> None:
        if self.rate_bit_s < 0 or self.delay_s < 0 or self.jitter_s < 0 or not 0 <= self.loss < 1:
            raise ValueError("expected a rate, delay and jitter not below 0, and a loss from 0 to below 1")


class Line:
    """One direction: when does a segment arrive? Pure; time is what it is told."""

    def __init__(self, shape: Shape, name: str) -> None:
        self.shape = shape
        self.free_at = 0.0
        """Until then it is busy, seconds."""
        self.sent_again = 0
        """Segments, counted each time."""
        self._rng = random.Random(f"{shape.seed} {name}")

    def arrival(self, n_bytes: int, now: float) -> float:
        """When a segment that is ready at ``now`` arrives, if nothing before it holds it up."""
        shape = self.shape
        takes = n_bytes * 8.0 / shape.rate_bit_s if shape.rate_bit_s else 0.0
        self.free_at = max(self.free_at, now) + takes
        at = self.free_at + shape.delay_s + self._rng.random() * shape.jitter_s
        timeout = max(LEAST_TIMEOUT_S, 2.0 * shape.delay_s + shape.jitter_s + takes)
        while self._rng.random() < shape.loss:
            self.sent_again += 1
            self.free_at += takes
            at += timeout + takes
            timeout = min(2.0 * timeout, MOST_TIMEOUT_S)
        return at


@dataclass(eq=False)
class _Flow:
    """One direction of one connection."""

    line: Line
    source: socket.socket
    sink: socket.socket
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    n_bytes: int = 0
    newest: float = 0.0
    ended: bool = False
    closed: bool = False
    blocked: bool = False

    def put(self, data: bytes, now: float) -> None:
        """It comes after what came before it."""
        self.newest = max(self.newest, self.line.arrival(len(data), now))
        self.waiting.append((self.newest, data))
        self.n_bytes += len(data)


@dataclass(frozen=True)
class Route:
    """Where is listened, and where it leads to: host and port each."""

    listen: tuple[str, int]
    to: tuple[str, int]


class Relay:
    """The link. ``run`` in one thread; ``cut``, ``heal``, ``drop`` and ``stop`` may be called from any.

    Args:
        routes: what it connects.
        shape: what it does to it.

    Raises:
        OSError: an address cannot be listened at.
    """

    def __init__(self, routes: Sequence[Route], shape: Shape) -> None:
        self.counts = {"connections": 0, "bytes_up": 0, "bytes_down": 0, "cuts": 0}
        self._shape = shape
        self._lines = Line(shape, "up"), Line(shape, "down")
        self._flows: list[_Flow] = []
        self._commands: deque[tuple[str, float]] = deque()
        self._cut_at: float | None = None
        self._heal_at: float | None = None
        self._listening: list[tuple[socket.socket, Route]] = []
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        for route in routes:
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Small, so that it is the sender's own queue that grows, as on a real link.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES // 2)
            try:
                one.bind(route.listen)
            except OSError as error:
                one.close()
                self._close()
                raise OSError(f"cannot listen at {route.listen[0]}:{route.listen[1]}: {error}") from None
            one.listen(64)
            one.setblocking(False)
            self._listening.append((one, route))

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where is listened, as bound (a port 0 is another one then)."""
        return [one.getsockname()[:2] for one, _ in self._listening]

    def cut(self, seconds: float = 0.0) -> None:
        """Nothing passes any more; 0: until `heal`."""
        self._command("cut", seconds)

    def heal(self) -> None:
        """Things pass again; what was under way is sent again from now on."""
        self._command("heal")

    def drop(self) -> None:
        """All connections end, as when a box on the way is restarted."""
        self._command("drop")

    def stop(self) -> None:
        """Let `run` return."""
        self._command("stop")

    def report(self) -> dict[str, int]:
        """Counts so far."""
        return self.counts | {"segments_sent_again": sum(line.sent_again for line in self._lines)}

    def run(self) -> None:
        """Relay until `stop`."""
        try:
            while self._obey(time.monotonic()):
                self._turn()
        finally:
            self._close()

    def _command(self, what: str, value: float = 0.0) -> None:
        self._commands.append((what, value))
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def _obey(self, now: float) -> bool:
        if self._heal_at is not None and now >= self._heal_at:
            self._healed(now)
        while self._commands:
            what, value = self._commands.popleft()
            if what == "stop":
                return False
            if what == "drop":
                for flow in self._flows:
                    _end(flow)
                self._flows.clear()
            elif what == "heal":
                self._healed(now)
            elif what == "cut":
                self.counts["cuts"] += self._cut_at is None
                self._cut_at = now if self._cut_at is None else self._cut_at
                self._heal_at = now + value if value > 0 else None
        return True

    def _healed(self, now: float) -> None:
        """What had not arrived is sent again, in order, at the line's pace."""
        if self._cut_at is None:
            return
        self._cut_at = self._heal_at = None
        for line in self._lines:
            line.free_at = now
        for flow in self._flows:
            under_way, flow.newest = list(flow.waiting), 0.0
            flow.waiting.clear()
            flow.n_bytes = 0
            for _, data in under_way:
                flow.put(data, now)

    def _turn(self) -> None:
        cut = self._cut_at is not None
        now = time.monotonic()
        wait = _WAIT_S if self._heal_at is None else max(0.0, min(_WAIT_S, self._heal_at - now))
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            if not cut:
                for one, route in self._listening:
                    selector.register(one, selectors.EVENT_READ, route)
                wanted: dict[socket.socket, int] = {}
                for flow in self._flows:
                    if not flow.ended and flow.n_bytes < self._shape.window_bytes:
                        wanted[flow.source] = wanted.get(flow.source, 0) | selectors.EVENT_READ
                    if flow.blocked:
                        wanted[flow.sink] = wanted.get(flow.sink, 0) | selectors.EVENT_WRITE
                    elif flow.waiting:
                        wait = min(wait, max(0.0, flow.waiting[0][0] - now))
                for which, events in wanted.items():
                    selector.register(which, events)
            ready = {key.fileobj: (events, key.data) for key, events in selector.select(wait)}
        if self._woken in ready:
            with contextlib.suppress(OSError):
                self._woken.recv(4_096)
        if cut:
            return
        for one, route in self._listening:
            if one in ready:
                self._accept(one, route)
        now = time.monotonic()
        for flow in self._flows:
            if ready.get(flow.source, (0,))[0] & selectors.EVENT_READ:
                self._read(flow, now)
            self._deliver(flow, now)
        self._flows = [flow for flow in self._flows if not flow.closed]

    def _accept(self, listening: socket.socket, route: Route) -> None:
        try:
            near, _ = listening.accept()
        except OSError:
            return
        try:
            far = socket.create_connection(route.to, timeout=5.0)
        except OSError:
            near.close()
            return
        for one in (near, far):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.counts["connections"] += 1
        up, down = self._lines
        self._flows += [_Flow(up, near, far), _Flow(down, far, near)]

    def _read(self, flow: _Flow, now: float) -> None:
        for _ in range(_READ_A_TURN):
            if flow.n_bytes >= self._shape.window_bytes:
                return
            try:
                data = flow.source.recv(SEGMENT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                flow.ended = True
                flow.newest = max(flow.newest, now + self._shape.delay_s)
                flow.waiting.append((flow.newest, b""))
                return
            self.counts["bytes_up" if flow.line is self._lines[0] else "bytes_down"] += len(data)
            flow.put(data, now)

    def _deliver(self, flow: _Flow, now: float) -> None:
        flow.blocked = False
        while flow.waiting and flow.waiting[0][0] <= now:
            due, data = flow.waiting[0]
            if not data:  # the sender has ended
                flow.waiting.popleft()
                with contextlib.suppress(OSError):
                    flow.sink.shutdown(socket.SHUT_WR)
                self._close_if_done(flow)
                return
            try:
                n = flow.sink.send(data)
            except BlockingIOError:
                flow.blocked = True
                return
            except OSError:  # the receiver has gone: its sender is told so
                self._both_end(flow)
                return
            flow.n_bytes -= n
            if n < len(data):
                flow.waiting[0] = due, data[n:]
                flow.blocked = True
                return
            flow.waiting.popleft()

    def _other(self, flow: _Flow) -> _Flow | None:
        return next((f for f in self._flows if f.source is flow.sink and f.sink is flow.source), None)

    def _close_if_done(self, flow: _Flow) -> None:
        other = self._other(flow)
        if other is None or (other.ended and not other.waiting):
            self._both_end(flow)

    def _both_end(self, flow: _Flow) -> None:
        other = self._other(flow)
        for one in (flow, other):
            if one is not None:
                _end(one)

    def _close(self) -> None:
        for flow in self._flows:
            _end(flow)
        for one, _ in self._listening:
            one.close()
        self._wake.close()
        self._woken.close()


def _end(flow: _Flow) -> None:
    flow.closed = flow.ended = True
    flow.waiting.clear()
    flow.source.close()
    flow.sink.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def route_of(text: str) -> Route:
    """``HOST:PORT=HOST:PORT`` as a route.

    Raises:
        ValueError: it is none.
    """
    listen, found, to = text.partition("=")
    if not found:
        raise ValueError(f"expected HOST:PORT=HOST:PORT (is {text!r})")
    return Route(_address(listen), _address(to))


def _listen_to(relay: Relay) -> None:
    """Commands from standard input; its end is no command."""
    for line in sys.stdin:
        words = line.split()
        try:
            match words:
                case ["cut"]:
                    relay.cut()
                case ["cut", seconds]:
                    relay.cut(float(seconds))
                case ["heal"]:
                    relay.heal()
                case ["drop"]:
                    relay.drop()
                case ["quit"]:
                    relay.stop()
                case []:
                    pass
                case _:
                    raise ValueError
        except ValueError:
            print(f"not a command: {line.strip()!r}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Relay until told to quit."""
    parser = argparse.ArgumentParser(prog="fusionnode_hil.relay", description="A thin, lossy link for TCP.")
    parser.add_argument(
        "--route", action="append", required=True, help="HOST:PORT=HOST:PORT; may be given again"
    )
    parser.add_argument("--rate-bit-s", type=float, default=64_000.0)
    parser.add_argument("--delay-ms", type=float, default=300.0, help="one way")
    parser.add_argument("--jitter-ms", type=float, default=20.0)
    parser.add_argument("--loss", type=float, default=0.05, help="of segments; each costs time only")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    shape = (args.rate_bit_s, args.delay_ms / 1e3, args.jitter_ms / 1e3, args.loss, args.seed)
    try:
        relay = Relay([route_of(text) for text in args.route], Shape(*shape))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("ready", flush=True)
    threading.Thread(target=_listen_to, args=(relay,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        relay.run()
    print(json.dumps(relay.report()), flush=True)
    sys.stdout.flush()
    os._exit(0)  # the thread at standard input cannot be woken


if __name__ == "__main__":
    sys.exit(main())
