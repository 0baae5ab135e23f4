from __future__ import annotations

import contextlib
import itertools
import os
import pty
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from fusionnode.config import Link, SerialLink, ZmqLink
from fusionnode.core.clock import SystemClock
from fusionnode.core.types import LinkRecord
from fusionnode.link.poller import LinkError, Poller
from fusionnode.link.zmq_in import DRAIN_MESSAGES, MAX_MESSAGE_BYTES


class Device:
    """A serial device that can be plugged in and out: a pty behind a name that stays the same."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sensor"
        self.master = -1

    def plug(self) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(self.master)
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)

    def unplug(self) -> None:
        self.path.unlink(missing_ok=True)
        if self.master >= 0:
            os.close(self.master)
        self.master = -1


class Bench:
    """A poller and what it gave."""

    def __init__(self, links: dict[str, Link]) -> None:
        self.records: list[LinkRecord] = []
        self.log: list[object] = []  # records and events in their order
        self.events: list[tuple[str, bool, str]] = []
        self.poller = Poller(links, SystemClock(), self._sink, self._event)

    def _sink(self, records: list[LinkRecord]) -> None:
        self.records += records
        self.log += records

    def _event(self, link_id: str, t_ns: int, up: bool, reason: str) -> None:
        assert t_ns > 1_600_000_000 * 10**9
        self.events.append((link_id, up, reason))
        self.log.append(up)

    def run_until(self, true: Callable[[], bool], limit_s: float = 20.0) -> None:
        give_up = time.monotonic() + limit_s
        while not true():
            assert time.monotonic() < give_up, f"{self.events} {len(self.records)}"
            self.poller.run_once(0.05)

    def bytes_of(self, link_id: str) -> bytes:
        return b"".join(r.data for r in self.records if r.link_id == link_id)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    device.unplug()


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**links: Link) -> Bench:
        made.append(Bench(links))
        return made[-1]

    yield make
    for one in made:
        one.poller.close()


def serial_link(device: Device) -> SerialLink:
    return SerialLink(kind="serial", device=str(device.path), retry_s=0.02)


def zmq_link(endpoint: str = "tcp://127.0.0.1:*", connect: bool = False) -> ZmqLink:
    return ZmqLink(kind="zmq", endpoint=endpoint, connect=connect)


def pusher(endpoint: str) -> zmq.Socket[bytes]:
    socket = zmq.Context.instance().socket(zmq.PUSH)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(endpoint)
    return socket


def test_bytes_on_a_line_arrive_unchanged_whatever_they_are(
    device: Device, bench: Callable[..., Bench]
) -> None:
    device.plug()
    node = bench(radar=serial_link(device))
    assert node.events == [("radar", True, str(device.path))]
    data = bytes(range(256)) * 8
    os.write(device.master, data)
    node.run_until(lambda: len(node.bytes_of("radar")) == len(data))
    assert node.bytes_of("radar") == data


def test_a_port_absent_at_start_is_reported_once_and_used_when_it_appears(
    device: Device, bench: Callable[..., Bench]
) -> None:
    node = bench(radar=serial_link(device))
    for _ in range(5):
        node.poller.run_once(0.05)
    assert node.events == [("radar", False, "No such file or directory")]
    device.plug()
    node.run_until(lambda: len(node.events) == 2)
    assert node.events[1][:2] == ("radar", True)
    os.write(device.master, b"hello")
    node.run_until(lambda: node.bytes_of("radar") == b"hello")


def test_a_port_unplugged_and_back_is_reported_reopened_and_read_on(
    device: Device, bench: Callable[..., Bench]
) -> None:
    device.plug()
    node = bench(radar=serial_link(device))
    for turn in range(3):
        os.write(device.master, b"turn%d" % turn)
        node.run_until(lambda turn=turn: node.bytes_of("radar").endswith(b"turn%d" % turn))  # type: ignore[misc]
        device.unplug()
        node.run_until(lambda: not node.events[-1][1])
        device.plug()
        node.run_until(lambda: node.events[-1][1])
    assert node.bytes_of("radar") == b"turn0turn1turn2"
    ups = [what for what in node.log if isinstance(what, bool)]
    assert ups[0] is True
    assert ups[-1] is True
    assert ups.count(True) == 4


def test_what_a_port_said_last_comes_before_the_news_that_it_is_gone(
    device: Device, bench: Callable[..., Bench]
) -> None:
    device.plug()
    node = bench(radar=serial_link(device))
    os.write(device.master, b"last words")
    node.run_until(lambda: bool(node.records))
    device.unplug()
    node.run_until(lambda: not node.events[-1][1])
    kinds = [what if isinstance(what, bool) else what.data for what in node.log]  # type: ignore[attr-defined]
    assert kinds[:3] == [True, b"last words", False]


def test_something_that_is_no_serial_port_is_a_link_that_is_down(
    tmp_path: Path, bench: Callable[..., Bench]
) -> None:
    (tmp_path / "sensor").write_text("not a port")
    node = bench(radar=serial_link(Device(tmp_path)), scope=zmq_link())
    assert [event[:2] for event in node.events] == [("scope", True), ("radar", False)]


def test_messages_of_many_sockets_and_lines_come_through_one_poll(
    device: Device, bench: Callable[..., Bench]
) -> None:
    device.plug()
    node = bench(radar=serial_link(device), a=zmq_link(), b=zmq_link())
    a, b = pusher(node.poller.endpoints["a"]), pusher(node.poller.endpoints["b"])
    for i in range(DRAIN_MESSAGES + 50):
        a.send(b"a%d" % i)
        b.send(b"b%d" % i)
    os.write(device.master, b"line")
    node.run_until(lambda: len(node.records) >= 2 * (DRAIN_MESSAGES + 50) + 1)
    for name in ("a", "b"):
        of = [r for r in node.records if r.link_id == name]
        assert [r.data for r in of] == [name.encode() + b"%d" % i for i in range(DRAIN_MESSAGES + 50)]
        assert all(x.t_rx_ns <= y.t_rx_ns for x, y in itertools.pairwise(of))
    assert node.bytes_of("radar") == b"line"
    a.close()
    b.close()


def test_a_link_may_connect_before_its_sensor_has_bound(tmp_path: Path, bench: Callable[..., Bench]) -> None:
    endpoint = f"ipc://{tmp_path}/sensor.sock"
    node = bench(scope=zmq_link(endpoint, connect=True))
    socket = zmq.Context.instance().socket(zmq.PUSH)
    socket.bind(endpoint)
    socket.send(b"report")
    node.run_until(lambda: node.bytes_of("scope") == b"report")
    socket.close(0)


def test_a_message_too_long_costs_its_sensor_the_connection_and_nobody_else(
    bench: Callable[..., Bench],
) -> None:
    node = bench(scope=zmq_link())
    rude, polite = (pusher(node.poller.endpoints["scope"]) for _ in range(2))
    rude.send(bytes(MAX_MESSAGE_BYTES + 1))
    polite.send(bytes(MAX_MESSAGE_BYTES))
    node.run_until(lambda: bool(node.records))
    node.poller.run_once(0.05)
    assert [len(r.data) for r in node.records] == [MAX_MESSAGE_BYTES]
    rude.close()
    polite.close()


def test_an_address_in_use_is_one_clear_error_naming_the_link(bench: Callable[..., Bench]) -> None:
    node = bench(scope=zmq_link())
    with pytest.raises(
        LinkError, match=r"^link\.other: cannot bind tcp://127.0.0.1:\d+: Address already in use"
    ):
        bench(other=zmq_link(node.poller.endpoints["scope"]))


def test_wake_ends_a_wait_from_another_thread(bench: Callable[..., Bench]) -> None:
    node = bench(scope=zmq_link())
    node.poller.wake()
    assert node.poller.run_once(1.0) == 0
    done = threading.Event()

    def loop() -> None:
        while not done.is_set():
            node.poller.run_once(1.0)

    thread = threading.Thread(target=loop)
    thread.start()
    done.set()
    node.poller.wake()
    thread.join(20)
    assert not thread.is_alive()


def test_what_is_written_reaches_the_sensor_even_if_the_port_takes_it_in_pieces(
    device: Device, bench: Callable[..., Bench]
) -> None:
    device.plug()
    node = bench(radar=serial_link(device))
    data = os.urandom(50_000)
    assert node.poller.write("radar", data)
    assert not node.poller.write("radar", bytes(65_536))
    got = bytearray()
    os.set_blocking(device.master, False)

    def arrived() -> bool:
        with contextlib.suppress(BlockingIOError):
            got.extend(os.read(device.master, 65_536))
        return len(got) >= len(data)

    node.run_until(arrived)
    assert bytes(got) == data
    device.unplug()
    node.run_until(lambda: not node.events[-1][1])
    assert not node.poller.write("radar", b"x")
    assert not node.poller.write("nobody", b"x")
