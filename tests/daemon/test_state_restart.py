"""A real daemon that is killed and started again goes on with its tracks; so does a replay of its journal."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

from fusionnode import cli
from fusionnode.core.clock import SystemClock
from fusionnode.core.refframes import EarthOrientation, enu_itrf, site_itrf
from fusionnode.record import state_file
from fusionnode.track.motion.dynamics import MU
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
revisit_s = 0.5
[sensor.other]
id = 2
kind = "radar"
site = "s"
[link.socket]
kind = "zmq"
endpoint = "ipc://{folder}/in"
[publish]
endpoint = "ipc://{folder}/out"
snapshot_endpoint = "ipc://{folder}/snap"
[tracking]
confirm_hits = 4
transit_s = 0.3
[journal]
directory = "journal"
[state]
directory = "state"
interval_s = 0.2
"""


class Object:
    """Something overhead in a circular orbit, by the two-body problem: good for seconds."""

    def __init__(self) -> None:
        self.orientation = EarthOrientation()
        self.start = SystemClock().now_ns()
        lat, lon = np.radians(10.0), np.radians(20.0)
        self.site, self.enu = site_itrf(lat, lon, 0.0), enu_itrf(lat, lon)
        up = self.orientation.gcrf_to_itrf(np.array([self.start]))[0].T @ self.site
        self.u = up / np.linalg.norm(up)
        self.v = np.cross([0.0, 0.0, 1.0], self.u)
        self.v /= np.linalg.norm(self.v)
        self.seq = 0

    def frame(self) -> bytes:
        t = SystemClock().now_ns()
        angle = np.sqrt(MU / 7.2e6**3) * ((t - self.start) * 1e-9 - 40.0)
        r = 7.2e6 * (np.cos(angle) * self.u + np.sin(angle) * self.v)
        rho = self.orientation.gcrf_to_itrf(np.array([t]))[0] @ r - self.site
        d = float(np.linalg.norm(rho))
        east, north, up = self.enu @ (rho / d)
        self.seq += 1
        return wire.frame(
            wire.Radar(
                sensor_id=1,
                seq=self.seq,
                flags=wire.TIME_LOCKED,
                t_ns=t,
                range_mm=round(d * 1e3),
                az_bam32=wire.bam32(float(np.arctan2(east, north)) % (2 * np.pi)),
                el_bam32=wire.bam32_signed(float(np.arcsin(up))),
                range_rate_mm_s=0,
                range_sigma_mm=10_000,
                az_sigma_nrad=50_000,
                el_sigma_nrad=50_000,
                range_rate_sigma_mm_s=1000,
                snr_cdb=2000,
                rcs_cdbsm=0,
                valid=wire.VALID_RANGE | wire.VALID_ANGLES,
                target=0,
            )
        )


class Node:
    """`fusionnode run`, its log, and what it publishes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fusionnode", "run", "--config", str(folder / "node.toml"), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        context = zmq.Context.instance()
        self.push, self.sub = context.socket(zmq.PUSH), context.socket(zmq.SUB)
        self.push.connect(f"ipc://{folder}/in")
        self.sub.subscribe(b"")
        self.sub.connect(f"ipc://{folder}/out")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def wait_for(self, word: str) -> str:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            for line in list(self.log):
                if word in line:
                    return line
            assert self.process.poll() is None, self.log
            time.sleep(0.05)
        pytest.fail(f"no {word} in {self.log}")

    def published(self, kind: str, within_s: float = 30.0) -> dict[str, object]:
        """The next message of a type."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if self.sub.poll(100):
                body = msgpack.unpackb(self.sub.recv_multipart()[1])
                if body["type"] == kind:
                    return dict(body)
        pytest.fail(f"no {kind} within {within_s} s: {self.log}")

    def end(self, number: int) -> dict[str, object]:
        self.process.send_signal(number)
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        self.process.wait(60)
        return dict(json.loads(out)) if out else {}

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        self.push.close(linger=0)
        self.sub.close(linger=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "node.toml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path


def observed_until_published(node: Node, thing: Object, n: int = 60) -> dict[str, object]:
    for _ in range(n):
        node.push.send(thing.frame())
        time.sleep(0.1)
        while node.sub.poll(0):
            body = msgpack.unpackb(node.sub.recv_multipart()[1])
            if body["type"] == "state":
                return dict(body)
    pytest.fail(f"no state: {node.log}")


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on_with_the_same_tracks_and_its_journal_replays(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thing = Object()
    first = Node(folder)
    try:
        first.wait_for("ready")
        before = observed_until_published(first, thing)
        time.sleep(1.0)
        first.end(signal.SIGKILL)
    finally:
        first.close()
    assert cli.main(["state", "show", str(folder / "state"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["numbers_given"] == 1
    second = Node(folder)
    try:
        assert "tracks=1" in second.wait_for("state_restored")
        state = second.published("state")
        assert state["trackId"] == before["trackId"]
        assert state["streamEpoch"] != before["streamEpoch"]
        second.wait_for("ready")
        for _ in range(10):
            second.push.send(thing.frame())
            time.sleep(0.1)
        summary = second.end(signal.SIGTERM)
    finally:
        second.close()
    assert summary["tracks_begun"] == 1
    # stopped in order: the tracks go on with the next start, so nobody is told that they end
    tail = []
    while second.sub.closed is False and second.sub.poll(0):
        tail.append(second.sub.recv_multipart())
    assert not tail
    for run in ("0", "1"):
        assert (
            cli.main(
                [
                    "replay",
                    str(folder / "journal"),
                    "--config",
                    str(folder / "node.toml"),
                    "--run",
                    run,
                    "--json",
                ]
            )
            == 0
        )
        told = json.loads(capsys.readouterr().out)
        assert told["as_published"] in ((None,) if run == "0" else (True,))
    # without the copy of the state there is no replay
    (copy,) = (folder / "journal").glob("*.fns")
    copy.write_bytes(copy.read_bytes()[:-1])
    assert cli.main(["replay", str(folder / "journal"), "--config", str(folder / "node.toml")]) == 1
    assert "damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_a_damaged_file_is_refused_kept_aside_and_the_node_starts_empty(folder: Path) -> None:
    path = folder / "state" / state_file.NAME
    path.parent.mkdir()
    path.write_bytes(state_file.encode({"node": "n1"})[:-3])
    node = Node(folder)
    try:
        line = node.wait_for("state_refused")
        assert "damaged" in line
        node.wait_for("ready")
        node.published("heartbeat")
        node.end(signal.SIGTERM)
    finally:
        node.close()
    assert (folder / "state" / f"{state_file.NAME}.refused").exists()
    state, _ = state_file.read(path)
    assert state["node"] == "n1"
    shutil.rmtree(folder / "state")
