"""The real daemon with release groups: keys, partners, a reload, a replay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from fusionnode.client import Heartbeat, Subscriber
from fusionnode.record import audit
from fusionnode.security.keyring import Keyring, Pair, server_name

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
[publish]
endpoint = "ipc://{folder}/out"
snapshot_endpoint = "ipc://{folder}/snap"
[journal]
directory = "journal"
[release]
keys_directory = "keys"
audit_directory = "audit"
[group.allies]
endpoint = "ipc://{folder}/allies"
request_endpoint = "ipc://{folder}/allies-request"
classification_marking = "U"
releasable_to = ["GBR"]
heartbeat_s = 0.2
[[group.allies.rule]]
name = "all"
[partner.bravo]
group = "allies"
"""


class Station:
    """A running daemon in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "node.toml"
        self.config.write_text(CONFIG.format(folder=folder))
        self.keys = Keyring(folder / "keys")
        self.server = self.keys.new(server_name("allies"))
        self.keys.new("offset")
        for name in ("bravo", "charlie"):
            pair = Pair(*zmq.curve_keypair())
            (folder / f"{name}.public").write_bytes(pair.public)
            (folder / f"{name}.secret").write_bytes(pair.secret)
            (folder / f"{name}.secret").chmod(0o600)
            self.keys.allow("allies", name, folder / f"{name}.public")
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.log = (self.folder / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fusionnode", "run", "--config", str(self.config), "--json"],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def wait_for(self, word: str, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while word not in (self.folder / "log").read_text():
            assert time.monotonic() < end, (self.folder / "log").read_text()
            assert self.process is not None
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        assert word in (self.folder / "log").read_text()

    def subscriber(self, name: str) -> Subscriber:
        return Subscriber(
            f"ipc://{self.folder}/allies",
            f"ipc://{self.folder}/allies-request",
            server_key=self.server.decode() if self.server else "",
            secret_key_file=self.folder / f"{name}.secret",
        )

    def end(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        self.log.close()
        return self.process.returncode


def beats(subscriber: Subscriber, n: int, seconds: float = 20.0) -> list[Heartbeat]:
    got: list[Heartbeat] = []
    end = time.monotonic() + seconds
    while len(got) < n and time.monotonic() < end:
        got += [event for event in subscriber.receive(0.1) if isinstance(event, Heartbeat)]
    return got


def test_partners_come_in_by_key_and_change_by_a_reload(tmp_path):
    station = Station(tmp_path)
    station.start()
    try:
        station.wait_for("ready")
        with station.subscriber("bravo") as bravo, station.subscriber("charlie") as charlie:
            assert beats(bravo, 3)
            assert not beats(charlie, 1, 1.0)
        text = station.config.read_text()
        station.config.write_text(text + '[partner.charlie]\ngroup = "allies"\n')
        assert station.process is not None
        os.kill(station.process.pid, signal.SIGHUP)
        station.wait_for("reloaded")
        with station.subscriber("charlie") as charlie:
            assert beats(charlie, 3)
    finally:
        code = station.end()
    assert code == 0
    station.config.write_text(text)  # the reload itself is in the journal
    assert audit.verify(tmp_path / "audit")["group-allies.log"] > 5
    replay = subprocess.run(
        [sys.executable, "-m", "fusionnode", "replay", str(tmp_path / "journal"), "--config", str(station.config)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert replay.returncode == 0, replay.stdout + replay.stderr


@pytest.mark.parametrize("fault", ["readable", "absent"])
def test_a_key_that_is_not_safe_keeps_the_node_from_starting(tmp_path, fault):
    station = Station(tmp_path)
    path = tmp_path / "keys" / "group-allies.secret"
    if fault == "readable":
        path.chmod(0o644)
    else:
        path.unlink()
    station.start()
    assert station.process is not None
    try:
        station.process.wait(120)
    finally:
        code = station.end()
    assert code == 1
    text = (tmp_path / "log").read_text()
    assert "group.allies" in text
    assert str(path) in text
    assert "Traceback" not in text
