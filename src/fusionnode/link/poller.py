"""One thread's loop body over all links: serial descriptors and ZeroMQ sockets in one poll.

Stamps what comes in with the time it was read, hands it on undecoded, and looks after ports that come and go.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import zmq

from fusionnode.config import Link, NodeLink, SerialLink, ZmqLink
from fusionnode.core import clock as clock_module
from fusionnode.core.clock import Clock
from fusionnode.core.types import LinkRecord
from fusionnode.link.doors import LinkDoors
from fusionnode.link.node_in import NodeIn, read_keys
from fusionnode.link.serial_port import PortError, SerialPort
from fusionnode.link.zmq_in import DRAIN_MESSAGES, LinkError, ZmqPull
from fusionnode.security.keyring import Keyring

__all__ = ["LinkError", "Poller"]

Sink = Callable[[list[LinkRecord]], None]
OnEvent = Callable[[str, int, bool, str], None]
"""link_id, t_ns (TAI), up, and why in a few words."""

_MAX_WAIT_MS = 1000
_UNSENT_BYTES = 65_536


@dataclass(slots=True)
class _Line:
    """A serial link and its port, if that is there."""

    link_id: str
    config: SerialLink
    port: SerialPort | None = None
    retry_at_ns: int = 0  # monotonic
    reason: str | None = None  # as last reported; None: not yet, or the port is there
    unsent: bytes = b""


class Poller:
    """``run_once`` in a loop, all from one thread; only ``wake`` may be called from others.

    Args:
        links: by name, as configured.
        clock: stamps ``t_rx_ns`` and link events.
        sink: gets the records of one wake-up, in the order they were read.
        on_event: a link came up, or went down, or was never there (reported once for each reason).
        keyring: the keys of links with ``curve``.

    Raises:
        LinkError: a ZeroMQ address or a key that cannot be had, or a door that does not hold.
    """

    def __init__(
        self,
        links: Mapping[str, Link],
        clock: Clock,
        sink: Sink,
        on_event: OnEvent,
        keyring: Keyring | None = None,
    ) -> None:
        self._clock = clock
        self._sink = sink
        self._on_event = on_event
        self._lines = {
            name: _Line(name, link) for name, link in links.items() if isinstance(link, SerialLink)
        }
        self._by_fd: dict[int, _Line] = {}
        self._pulls: dict[zmq.Socket[bytes], tuple[str, ZmqPull]] = {}
        self._zmq_links = {name: link for name, link in links.items() if isinstance(link, ZmqLink)}
        self._nodes: dict[str, NodeIn] = {}
        self._node_of: dict[zmq.Socket[bytes], str] = {}
        self._node_links = {name: link for name, link in links.items() if isinstance(link, NodeLink)}
        self._nodes_up: dict[str, bool] = {}
        self._closed: list[str] = []  # ZeroMQ links whose address is still to be had again
        self._doors: LinkDoors | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poll = zmq.Poller()
        self._posted: deque[tuple[str, bytes]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake_fd, zmq.POLLIN)
        self.endpoints: dict[str, str] = {}
        """Where each ZeroMQ link listens, or what it is connected to."""
        try:
            self._lock_doors(keyring)
            for name in self._zmq_links:
                self._open_socket(name)
            for name in self._node_links:
                self._open_node(name, keyring)
        except LinkError:
            self.close()
            raise
        self._retry()

    def run_once(self, timeout_s: float = 1.0) -> int:
        """Wait for input, a port's next try, or ``wake``; hand on what came. Gives the number of records."""
        wait_ms = min(_MAX_WAIT_MS, max(0, round(timeout_s * 1e3)), self._ms_to_retry())
        records: list[LinkRecord] = []
        gone: list[tuple[_Line, str]] = []
        for source, happened in self._poll.poll(wait_ms):
            pull = self._pulls.get(source) if not isinstance(source, int) else None
            if pull is not None:
                link_id, link = pull
                t_ns = self._clock.now_ns()
                records += [LinkRecord(t_ns, link_id, message) for message in link.read()]
            elif source == self._wake_fd:
                os.eventfd_read(self._wake_fd)
            elif not isinstance(source, int) and (of := self._node_of.get(source)) is not None:
                t_ns = self._clock.now_ns()
                records += [LinkRecord(t_ns, of, message) for message in self._nodes[of].read(source)]
            elif not isinstance(source, int):
                assert self._doors is not None
                self._doors.serve()
            else:
                line = self._by_fd[source]
                try:
                    self._serve(line, happened, records)
                except PortError as down:
                    gone.append((line, str(down)))
        while self._posted:
            self.write(*self._posted.popleft())
        if records:
            self._sink(records)
        # Only now: what a port said last comes before the news that it is gone.
        for line, reason in gone:
            self._lost(line, reason)
        self._retry()
        self._turn_nodes()
        if self._doors is not None:
            self._drop_revoked(self._doors)
        return len(records)

    def write(self, link_id: str, data: bytes) -> bool:
        """Send to the sensor behind a serial link; what the port does not take at once follows later.

        Gives False, and sends nothing, if there is no such port now or it has too much to send already.
        """
        line = self._lines.get(link_id)
        if line is None or line.port is None or len(line.unsent) + len(data) > _UNSENT_BYTES:
            return False
        line.unsent += data
        try:
            self._send(line)
        except PortError as down:
            self._lost(line, str(down))
            return False
        return True

    def post(self, link_id: str, data: bytes) -> None:
        """As `write`, soon, from any thread; what cannot be sent is not."""
        self._posted.append((link_id, data))
        self.wake()

    def wake(self) -> None:
        """Make ``run_once`` return soon. From any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Close all links; no events are reported."""
        for line in self._lines.values():
            if line.port is not None:
                line.port.close()
                line.port = None
        for _, link in self._pulls.values():
            link.close()
        self._pulls.clear()
        for node in self._nodes.values():
            node.close()
        self._nodes.clear()
        self._node_of.clear()
        if self._doors is not None:
            self._doors.close()
            self._doors = None
        self._context.term()
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1

    def _lock_doors(self, keyring: Keyring | None) -> None:
        """The handler of keys, before any address is bound."""
        names = [name for name, link in self._zmq_links.items() if link.curve]
        if not names:
            return
        if keyring is None:
            raise LinkError(f"link.{names[0]}.curve: there is no folder of keys (release.keys_directory)")
        self._doors = LinkDoors(self._context, keyring, names)
        self._poll.register(self._doors.socket, zmq.POLLIN)

    def _open_socket(self, name: str) -> None:
        config = self._zmq_links[name]
        doors = self._doors if config.curve else None
        link = None
        try:
            link = ZmqPull(
                self._context,
                self.endpoints.get(name, config.endpoint),  # one that was found is to be the same again
                connect=config.connect,
                high_water_mark=config.high_water_mark,
                keys=None if doors is None else doors.keys(name),
            )
            if doors is not None and not config.connect:
                doors.prove_locked(name, link)
        except LinkError as error:
            if link is not None:
                link.close()
            raise LinkError(f"link.{name}: {error}") from None
        self._pulls[link.socket] = (name, link)
        self._poll.register(link.socket, zmq.POLLIN)
        self.endpoints[name] = link.endpoint
        self._on_event(name, self._clock.now_ns(), True, link.endpoint)

    def _open_node(self, name: str, keyring: Keyring | None) -> None:
        link = self._node_links[name]
        if keyring is None:
            raise LinkError(f"link.{name}.secret_key: there is no folder of keys (release.keys_directory)")
        try:
            node = NodeIn(self._context, link, read_keys(link, keyring))
        except LinkError as error:
            raise LinkError(f"link.{name}: {error}") from None
        self._nodes[name] = node
        self.endpoints[name] = link.endpoint
        self._register(name, node)

    def _register(self, name: str, node: NodeIn) -> None:
        for socket in node.sockets:
            self._poll.register(socket, zmq.POLLIN)
            self._node_of[socket] = name

    def _turn_nodes(self) -> None:
        """Let each node's link ask for what it misses; tell when one is heard, and when no longer."""
        for name, node in self._nodes.items():
            before = list(node.sockets)
            if node.turn():
                for socket in before:
                    self._poll.unregister(socket)
                    del self._node_of[socket]
                self._register(name, node)
            if node.heard != self._nodes_up.get(name, False):
                self._nodes_up[name] = node.heard
                reason = "heard" if node.heard else "silent: connected anew"
                self._on_event(name, self._clock.now_ns(), node.heard, reason)

    def _drop_revoked(self, doors: LinkDoors) -> None:
        """Cut the connections of links that somebody may not send to any more; the others come back by themselves."""
        for name in doors.lost_senders():
            for socket, (of, link) in list(self._pulls.items()):
                if of == name:
                    self._poll.unregister(socket)
                    del self._pulls[socket]
                    self._take_last(name, link)
                    link.close()
                    self._closed.append(name)
                    self._on_event(name, self._clock.now_ns(), False, "a key was revoked")
        for name in list(self._closed):
            try:
                self._open_socket(name)
            except LinkError:
                continue  # its address is not free yet, or a key is missing: with the next turn
            self._closed.remove(name)

    def _take_last(self, name: str, link: ZmqPull) -> None:
        """What has come in already, from whomever."""
        for _ in range(1 + self._zmq_links[name].high_water_mark // DRAIN_MESSAGES):
            t_ns = self._clock.now_ns()
            if not (messages := link.read()):
                break
            self._sink([LinkRecord(t_ns, name, message) for message in messages])

    def _serve(self, line: _Line, happened: int, records: list[LinkRecord]) -> None:
        assert line.port is not None
        if happened & zmq.POLLOUT:
            self._send(line)
        # A hang-up is readable as well: reading on gives first what is left, then the fault.
        if happened & ~zmq.POLLOUT:
            t_ns = self._clock.now_ns()
            data = line.port.read()
            if data:
                records.append(LinkRecord(t_ns, line.link_id, data))

    def _send(self, line: _Line) -> None:
        assert line.port is not None
        if line.unsent:
            line.unsent = line.unsent[line.port.write(line.unsent) :]
        self._poll.register(line.port.fd, zmq.POLLIN | zmq.POLLOUT if line.unsent else zmq.POLLIN)

    def _ms_to_retry(self) -> int:
        waits = [line.retry_at_ns for line in self._lines.values() if line.port is None]
        if not waits:
            return _MAX_WAIT_MS
        return max(0, -(-(min(waits) - clock_module.monotonic_ns()) // 1_000_000))

    def _retry(self) -> None:
        """Try to open every port that is not there and whose time has come."""
        for line in self._lines.values():
            if line.port is not None or clock_module.monotonic_ns() < line.retry_at_ns:
                continue
            try:
                line.port = SerialPort(line.config.device, line.config.baud)
            except PortError as down:
                line.retry_at_ns = clock_module.monotonic_ns() + round(line.config.retry_s * 1e9)
                if line.reason != str(down):
                    line.reason = str(down)
                    self._on_event(line.link_id, self._clock.now_ns(), False, line.reason)
                continue
            line.reason = None
            self._by_fd[line.port.fd] = line
            self._poll.register(line.port.fd, zmq.POLLIN)
            self._on_event(line.link_id, self._clock.now_ns(), True, line.config.device)

    def _lost(self, line: _Line, reason: str) -> None:
        if line.port is None:
            return
        self._poll.unregister(line.port.fd)
        del self._by_fd[line.port.fd]
        line.port.close()
        line.port = None
        line.unsent = b""
        line.reason = reason
        line.retry_at_ns = clock_module.monotonic_ns() + round(line.config.retry_s * 1e9)
        self._on_event(line.link_id, self._clock.now_ns(), False, reason)
