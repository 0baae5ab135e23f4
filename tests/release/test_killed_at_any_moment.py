"""Node, publisher and subscriber are killed at random moments: nothing that went out is lost, or the loss is told."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import zmq
from group_support import House, wait_until
from wire_checker import read

from fusionnode.record import audit
from fusionnode.release.settings import Partner

HERE = Path(__file__).parent


class Parts:
    """The processes, and one who listens without a break."""

    def __init__(self, house, folder):
        self.house, self.folder, self.epochs = house, folder, 0
        house.settings = replace(house.settings, spool=str(folder / "spool"))
        (folder / "settings.json").write_text(house.settings.to_json())
        (folder / "server.public").write_bytes(house.public + b"\n")
        secret = folder / "bravo.secret"
        secret.touch(0o600)
        secret.write_bytes(house.pairs["bravo"].secret + b"\n")
        self.running = {}
        self.went_out = set()
        self.listener = house.socket(zmq.SUB, house.pairs["witness"])

    def start(self, role):
        words = [role, str(self.folder)]
        if role == "node":
            self.epochs += 1
            words.append(f"alpha-{self.epochs}")
        words += [self.house.live, self.house.request]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        self.running[role] = subprocess.Popen(
            [sys.executable, str(HERE / "parts_to_kill.py"), *words], env=environment
        )

    def listen(self, seconds=0.0):
        end = time.monotonic() + seconds
        while self.listener.poll(max(0, round(1e3 * (end - time.monotonic())))):
            body, _ = read(self.listener.recv_multipart()[1])
            self.went_out.add((body["streamEpoch"], body["seq"]))
            if seconds and time.monotonic() > end:
                break

    def kill(self, role):
        if role == "publisher":
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self.folder / "publisher").read_text()), signal.SIGKILL)
            return
        self.running[role].kill()
        self.running[role].wait()
        self.start(role)

    def heard(self):
        file = self.folder / "heard"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines]

    def close(self):
        for process in self.running.values():
            process.kill()
            process.wait()
        self.house.close()


@pytest.fixture
def parts(tmp_path, addresses):
    house = House(tmp_path, addresses, partners={"bravo": Partner(), "witness": Partner()})
    parts = Parts(house, tmp_path)
    yield parts
    parts.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_that_went_out_is_lost_or_the_loss_is_told(parts, seed):
    rng = random.Random(seed)
    parts.start("node")
    parts.start("client")
    wait_until(lambda: parts.listen(0.05) or ["message"] in [line[:1] for line in parts.heard()], 30)
    victims = ["publisher", "client", "node", "publisher", "client"]
    rng.shuffle(victims)
    for victim in victims:
        parts.listen(rng.uniform(0.1, 1.2))
        parts.kill(victim)
    parts.listen(1.5)
    (parts.folder / "quiet").touch()

    def caught_up():
        parts.listen(0.2)
        newest = max((n for epoch, n in parts.went_out if epoch == f"alpha-{parts.epochs}"), default=None)
        return newest is not None and ["message", f"alpha-{parts.epochs}", newest] in parts.heard()

    wait_until(caught_up, 40)
    lines = parts.heard()
    heard = {(line[1], line[2]) for line in lines if line[0] == "message"}
    told = set()
    unfinished = {line[1] for line in lines if line[0] == "epoch" and not line[3]}
    anew = {line[2] for line in lines if line[0] == "epoch" and not line[3]}
    for line in lines:
        if line[0] == "gap":
            told |= {(line[1], n) for n in range(line[2] - line[3], line[2])}
    first = next(line[1:] for line in lines if line[0] == "message")
    lost = sorted(
        (epoch, n)
        for epoch, n in parts.went_out - heard - told
        if [epoch, n] > first and epoch not in unfinished and epoch not in anew
    )
    assert lost == []
    assert len(heard) > 50
    audit.verify(parts.folder / "audit")  # over all lives of the publisher the chain is whole,
    granted = [json.loads(line) for line in parts.house.audit_text().splitlines()]
    assert len([line for line in granted if line["kind"] == "grant"]) > 20  # and what was granted is in it
