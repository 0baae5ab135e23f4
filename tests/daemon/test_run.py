"""The real daemon: a process of its own, a real serial line, a real socket, a real subscriber's publisher."""

from __future__ import annotations

import json
import os
import pty
import queue
import signal
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from fusionnode.core.clock import SystemClock
from fusionnode.core.types import LinkRecord
from fusionnode.record.entries import Finish, Tick
from fusionnode.record.reader import one_run, runs
from fusionnode_hil import wire

CONFIG = """
[node]
id = "n1"
[site.s]
lat_deg = 10.0
lon_deg = 20.0
[sensor.radar]
id = 1
kind = "radar"
site = "s"
[sensor.scope]
id = 2
kind = "radar"
site = "s"
[link.line]
kind = "serial"
device = "{folder}/sensor"
retry_s = 0.05
[link.socket]
kind = "zmq"
endpoint = "ipc://{folder}/in"
[publish]
endpoint = "ipc://{folder}/out"
snapshot_endpoint = "ipc://{folder}/snap"
[journal]
directory = "journal"
segment_bytes = 20000
"""


def radar_frame(sensor_id: int, seq: int) -> bytes:
    """A detection of something that goes straight up, now."""
    return wire.frame(
        wire.Radar(
            sensor_id=sensor_id,
            seq=seq,
            flags=wire.TIME_LOCKED,
            t_ns=SystemClock().now_ns(),
            range_mm=800_000_000 + seq * 1000,
            az_bam32=wire.bam32(1.0),
            el_bam32=wire.bam32_signed(1.0),
            range_rate_mm_s=100,
            range_sigma_mm=10_000,
            az_sigma_nrad=100_000,
            el_sigma_nrad=100_000,
            range_rate_sigma_mm_s=1000,
            snr_cdb=2000,
            rcs_cdbsm=0,
            valid=wire.VALID_RANGE | wire.VALID_ANGLES | wire.VALID_RANGE_RATE,
            target=0,
        )
    )


class Daemon:
    """`fusionnode run` and its log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "node.toml"
        self.config.write_text(CONFIG.format(folder=folder))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fusionnode", "run", "--config", str(self.config), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.push = zmq.Context.instance().socket(zmq.PUSH)
        self.push.connect(f"ipc://{folder}/in")
        self.master = -1

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.put(line)

    def wait_for(self, *words: str) -> None:
        """The next line of the log with all of these words."""
        while True:
            try:
                self.log.append(self.lines.get(timeout=120))
            except queue.Empty:
                pytest.fail(f"no line with {words} in {self.log}")
            if all(word in self.log[-1] for word in words):
                return

    def plug(self) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(self.master)
        (self.folder / "sensor").symlink_to(os.ttyname(slave))
        os.close(slave)
        self.wait_for("link_up", "line")

    def unplug(self) -> None:
        (self.folder / "sensor").unlink()
        os.close(self.master)
        self.master = -1
        self.wait_for("link_down", "line")

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        return self.process.wait(60), out

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.push.close(0)
        if self.master >= 0:
            os.close(self.master)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    try:
        daemon.wait_for("ready")
        yield daemon
    finally:
        daemon.close()


def fusionnode(*argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fusionnode", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def journalled(folder: Path, link_id: str) -> bytes:
    items = [entry.item for entry in one_run(folder / "journal")]
    return b"".join(i.data for i in items if isinstance(i, LinkRecord) and i.link_id == link_id)


def ticks_last(folder: Path) -> bool:
    """Whether what was journalled has been processed."""
    *_, last = one_run(folder / "journal")
    return isinstance(last.item, Tick)


def wait(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_port_unplugged_and_back_is_read_on_and_a_replay_gives_what_was_published(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.plug()
    sent = bytearray()
    for seq in range(60):
        if seq == 30:
            wait(lambda: journalled(tmp_path, "line") == sent)
            daemon.unplug()
            daemon.plug()
        frame = radar_frame(1, seq)
        sent.extend(frame)
        os.write(daemon.master, frame)
        daemon.push.send(radar_frame(2, seq))
        time.sleep(0.01)
    wait(lambda: journalled(tmp_path, "line") == sent)
    code, out = daemon.end(signal.SIGTERM)
    assert code == 0, daemon.log
    summary = json.loads(out.splitlines()[-1])
    assert summary["faults"] == []
    assert summary["publisher"]["published"] == summary["published"] > 0
    assert summary["journal"]["acknowledged"] == summary["journal"]["records"]
    for _ in range(2):
        done = fusionnode(
            "replay", tmp_path / "journal", "--config", daemon.config, "--json", "--out", tmp_path / "s"
        )
        assert done.returncode == 0, done.stderr
        replay = json.loads(done.stdout)
        assert replay["as_published"] is True
        assert (replay["published"], replay["sha256"]) == (summary["published"], summary["sha256"])
    done = fusionnode("process", tmp_path / "journal", "--config", daemon.config, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["records"] > 0
    daemon.config.write_text(daemon.config.read_text() + "\n# changed\n")
    done = fusionnode("replay", tmp_path / "journal", "--config", daemon.config)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the configuration is not the one the journal was written with" in done.stderr


def test_after_kill_9_the_journal_reads_back_and_replays_to_its_last_complete_record(
    daemon: Daemon, tmp_path: Path
) -> None:
    for seq in range(200):
        daemon.push.send(radar_frame(2, seq))
    wait(lambda: len(journalled(tmp_path, "socket")) > 10_000 and ticks_last(tmp_path))
    daemon.end(signal.SIGKILL)
    done = fusionnode("replay", tmp_path / "journal", "--config", daemon.config, "--json")
    assert done.returncode == 0, done.stderr
    replay = json.loads(done.stdout)
    assert replay["as_published"] is None
    assert replay["records"] > 0
    assert replay["ticks"] > 0
    # And the next run begins behind it.
    again = Daemon(tmp_path)
    try:
        again.wait_for("ready")
        assert again.end(signal.SIGINT)[0] == 0
    finally:
        again.close()
    assert len(runs(tmp_path / "journal")) == 2
    assert [type(entry.item) for entry in one_run(tmp_path / "journal")][-1] is Finish


def test_an_address_in_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    taken = zmq.Context.instance().socket(zmq.PUB)
    port = taken.bind_to_random_port("tcp://127.0.0.1")
    config = tmp_path / "node.toml"
    text = CONFIG.format(folder=tmp_path)
    config.write_text(text.replace(f"ipc://{tmp_path}/out", f"tcp://127.0.0.1:{port}"))
    done = fusionnode("run", "--config", config)
    taken.close(0)
    assert done.returncode == 1
    assert f"cannot publish at tcp://127.0.0.1:{port}: Address already in use" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
