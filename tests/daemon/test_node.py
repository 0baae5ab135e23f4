from __future__ import annotations

import os
import pty
import threading
import time
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zmq

from fusionnode import config as config_module
from fusionnode.core.clock import SystemClock
from fusionnode.core.types import LinkRecord
from fusionnode.daemon import Node, Wake
from fusionnode.link.inbox import Inbox, PortEvent
from fusionnode.record.entries import Finish, LinkEvent, Meta, QueueDrop, Tick
from fusionnode.record.journal import Journal
from fusionnode.record.reader import one_run
from fusionnode.record.replay import Message, Replay
from fusionnode.release.outlet import Outlet
from fusionnode.release.wire import StreamDigest
from fusionnode.tasking.desk import Orders


class Echo:
    """A pipeline that publishes everything it is told, so that any difference in order shows."""

    def __init__(self, fail_at: bytes | None = None, slow_s: float = 0.0) -> None:
        self.may_feed = threading.Event()
        self.may_feed.set()
        self.out: list[Message] = []
        self.seen: list[bytes] = []
        self.fail_at = fail_at
        self.slow_s = slow_s

    newest_ns = 0
    due_ns = 0  # it always holds something back
    groups = ()

    def feed(self, records: Sequence[LinkRecord]) -> None:
        self.may_feed.wait()
        time.sleep(self.slow_s)
        for record in records:
            if self.fail_at is not None and self.fail_at in record.data:
                raise ValueError("a fault\nof two lines")
            self.seen.append(record.data)
        self.out.append((b"feed", repr(list(records)).encode()))

    def link_event(self, link_id: str, t_ns: int, up: bool) -> None:
        self.out.append((b"event", f"{link_id} {t_ns} {up}".encode()))

    def count_queue_drops(self, link_id: str, n: int) -> None:
        self.out.append((b"drop", f"{link_id} {n}".encode()))

    def tick(self, t_ns: int) -> list[Message]:
        out, self.out = self.out, []
        return [*out, (b"tick", b"%d" % t_ns)]

    def finish(self, t_ns: int) -> list[Message]:
        return [*self.tick(t_ns), (b"finish", b"%d" % t_ns)]

    def take_orders(self) -> Orders:
        return Orders([], [], [])

    def summary(self) -> dict[str, object]:
        return {"seen": len(self.seen)}


class Running:
    """A node in a thread of its own, with a real line, a real socket, a real journal and a real publisher."""

    def __init__(self, folder: Path, pipeline: Echo, extra: str = "") -> None:
        self.folder = folder
        self.device = folder / "sensor"
        text = f"""
            [node]
            id = "n1"
            [site.s]
            lat_deg = 0.0
            lon_deg = 0.0
            [sensor.r]
            id = 1
            kind = "radar"
            site = "s"
            [link.line]
            kind = "serial"
            device = "{self.device}"
            retry_s = 0.02
            [link.socket]
            kind = "zmq"
            endpoint = "ipc://{folder}/in"
            [publish]
            endpoint = "ipc://{folder}/out"
            snapshot_endpoint = "ipc://{folder}/snap"
            [journal]
            directory = "journal"
            {extra}
        """
        self.config = config_module.parse(text, folder / "config.toml")
        self.pipeline = pipeline
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.wake = Wake()
        self.master = -1
        self.outlet = Outlet(
            live=self.config.publish.endpoint, snapshot=self.config.publish.snapshot_endpoint
        )
        self.outlet.start()
        self.journal = Journal(folder / "journal", Meta("0", "e", 0, "c", "o"))
        self.node = Node(
            self.config,
            SystemClock(),
            pipeline,
            self.outlet,
            self.journal,
            lambda e, **f: self.log.append((e, f)),
        )
        self.code: int | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        self.push = zmq.Context.instance().socket(zmq.PUSH)
        self.push.connect(f"ipc://{folder}/in")
        self.wait_for_log("ready")

    def _run(self) -> None:
        self.code = self.node.run(self.wake, debug=False)

    def plug(self) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(self.master)
        self.device.symlink_to(os.ttyname(slave))
        os.close(slave)
        self.wait_for_log("link_up", link="line")

    def unplug(self) -> None:
        self.device.unlink()
        os.close(self.master)
        self.master = -1
        self.wait_for_log("link_down", link="line")

    def wait_for_log(self, event: str, **fields: object) -> None:
        """The next such event after those that were waited for before."""
        wait(lambda: any(e == event and fields.items() <= f.items() for e, f in self.log), self.log)
        while True:
            e, f = self.log.pop(0)
            if e == event and fields.items() <= f.items():
                return

    def stop(self) -> int:
        self.wake.up(15)
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.journal.close()
        self.outlet.close()
        assert self.code is not None
        return self.code

    def close(self) -> None:
        if self.thread.is_alive():
            self.stop()
        self.journal.close()
        self.outlet.close()
        self.push.close(0)
        self.wake.close()
        if self.master >= 0:
            os.close(self.master)


def wait(true: Any, shown: object = "", limit_s: float = 30.0) -> None:
    give_up = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < give_up, shown
        time.sleep(0.005)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Any]:
    made: list[Running] = []

    def make(pipeline: Echo, extra: str = "") -> Running:
        made.append(Running(tmp_path, pipeline, extra))
        return made[-1]

    yield make
    for one in made:
        one.close()


def replay_of(folder: Path, pipeline: Echo) -> tuple[StreamDigest, Replay]:
    digest, replay = StreamDigest(), Replay(one_run(folder / "journal"), pipeline)
    for messages in replay:
        digest.update(messages)
    return digest, replay


def test_a_replay_of_the_journal_publishes_the_same_bytes(running: Any, tmp_path: Path) -> None:
    node = running(Echo())
    node.plug()
    for i in range(300):
        node.push.send(b"m%d" % i)
        os.write(node.master, b"l%d;" % i)
    wait(lambda: b"m299" in node.pipeline.seen and b"".join(node.pipeline.seen).count(b";") == 300)
    node.unplug()
    node.plug()
    os.write(node.master, b"again;")
    wait(lambda: b"".join(node.pipeline.seen).count(b";") == 301)
    assert node.stop() == 0
    live = node.outlet.digest
    digest, replay = replay_of(tmp_path, Echo())
    assert (digest.messages, digest.hexdigest()) == (live.messages, live.hexdigest())
    assert replay.finish is not None
    assert (replay.finish.published, replay.finish.sha256) == (live.messages, live.hexdigest())
    events = [entry.item for entry in one_run(tmp_path / "journal") if isinstance(entry.item, LinkEvent)]
    assert [(e.link_id, e.up) for e in events if e.link_id == "line"][-3:] == [
        ("line", True),
        ("line", False),
        ("line", True),
    ]
    assert node.outlet.report["published"] == live.messages


def test_what_the_sensors_sent_before_the_stop_is_processed(running: Any) -> None:
    node = running(Echo(slow_s=0.02))
    for i in range(500):
        node.push.send(b"m%d" % i)
    wait(lambda: node.pipeline.seen)
    time.sleep(0.2)  # let all of it reach the socket's queue
    assert node.stop() == 0
    assert node.pipeline.seen == [b"m%d" % i for i in range(500)]


def test_ticks_go_on_without_input_and_never_back_in_time(running: Any, tmp_path: Path) -> None:
    node = running(Echo(), "[tracking]\ntick_s = 0.04\nhold_back_s = 0.0")
    wait(lambda: node.outlet.digest.messages > 20)
    assert node.stop() == 0
    ticks = [entry.item.t_ns for entry in one_run(tmp_path / "journal") if isinstance(entry.item, Tick)]
    assert len(ticks) > 10
    assert ticks == sorted(ticks)


def test_a_backlog_is_not_overtaken_by_the_nodes_own_ticks(running: Any, tmp_path: Path) -> None:
    pipeline = Echo()
    pipeline.may_feed.clear()
    node = running(pipeline, "[daemon]\nbatch_records = 7")
    node.push.send(b"first")
    wait(lambda: any(isinstance(e.item, LinkRecord) for e in one_run(tmp_path / "journal")))
    for i in range(100):
        node.push.send(b"m%d" % i)
    wait(lambda: len(node.node._inbox) == 100)
    pipeline.may_feed.set()
    assert node.stop() == 0
    assert len(pipeline.seen) == 101
    tick_ns = 0
    for entry in one_run(tmp_path / "journal"):
        if isinstance(entry.item, Tick):
            tick_ns = entry.item.t_ns
        elif isinstance(entry.item, LinkRecord):
            assert entry.item.t_rx_ns >= tick_ns


def test_an_overload_is_dropped_counted_journalled_and_replayed(running: Any, tmp_path: Path) -> None:
    node = running(Echo(slow_s=0.1), "[daemon]\nqueue_records = 16\nbatch_records = 4")
    for i in range(400):
        node.push.send(b"m%d" % i)
    node.wait_for_log("queue_full")
    assert node.stop() == 0
    entries = [entry.item for entry in one_run(tmp_path / "journal")]
    dropped = sum(item.n for item in entries if isinstance(item, QueueDrop))
    assert dropped > 0
    assert dropped + len(node.pipeline.seen) == 400
    assert isinstance(entries[-1], Finish)
    digest, _ = replay_of(tmp_path, Echo())
    assert digest.hexdigest() == node.outlet.digest.hexdigest()


def test_a_fault_in_a_thread_ends_the_node_with_one_clear_line_and_no_finish(
    running: Any, tmp_path: Path
) -> None:
    node = running(Echo(fail_at=b"poison"))
    node.push.send(b"fine")
    node.push.send(b"poison")
    node.thread.join(30)
    assert node.code == 1
    assert node.stop() == 1
    faults = [f for e, f in node.log if e == "fault"]
    assert faults == [{"thread": "fusion", "error": "ValueError: a fault\nof two lines"}]
    items = [entry.item for entry in one_run(tmp_path / "journal")]
    assert any(isinstance(item, LinkRecord) and item.data == b"poison" for item in items)
    assert not any(isinstance(item, Finish) for item in items)


def test_an_inbox_keeps_order_and_drops_the_newest_beyond_its_limits() -> None:
    inbox = Inbox(3, limit_bytes=1000)
    records = [LinkRecord(i, "a" if i % 2 else "b", b"x") for i in range(5)]
    event = PortEvent("a", 9, False, "gone")
    inbox.put(records)
    inbox.put_event(event)
    assert inbox.take(2, 0.0) == (records[:2], {"b": 1, "a": 1})
    assert inbox.take(9, 0.0) == ([records[2], event], {})
    inbox.put([LinkRecord(0, "a", bytes(1001)), LinkRecord(1, "a", b"")])
    assert inbox.take(9, 0.0) == ([LinkRecord(0, "a", bytes(1001))], {"a": 1})
    inbox.put([records[0]])
    inbox.close()
    assert inbox.take(9, 5.0) == ([records[0]], {})
    assert inbox.take(9, 5.0) is None
