"""The same records as a file and over a real serial line: playback emulator -> pty -> daemon -> subscriber."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from radar_truth import CONFIG, process, records

from fusionnode.client import State, Subscriber

RECORDS = 3_000
NUMBERS = ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")
VARIANCES = [i * (i + 1) // 2 + i for i in range(6)]


def fusionnode(*argv: object, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fusionnode", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def killed_at_the_end(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_line(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never blocks
            return
    raise AssertionError(f"no {word!r} on stderr")


def test_recorded_radar_over_a_serial_line_gives_the_states_that_the_file_gives(
    shared_data: Path, tmp_path: Path
) -> None:
    lines = [line for _, _, line in records(shared_data / "ssn_radar" / "22076_dec1996.b3.gz")][:RECORDS]
    observations = tmp_path / "part.b3.gz"
    observations.write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    live, snapshot = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    station = tmp_path / "station.toml"
    station.write_text(
        CONFIG.read_text()
        + f"""
[link.radars]
kind = "serial"
device = "{tmp_path}/radars"
[publish]
endpoint = "{live}"
snapshot_endpoint = "{snapshot}"
[journal]
directory = "journal"
"""
    )
    from_line: dict[tuple[str, str, str], dict[str, Any]] = {}
    with ExitStack() as stack:
        node = stack.enter_context(killed_at_the_end(fusionnode("run", "--config", station, "--json")))
        wait_for_line(node, " ready ")
        subscriber = stack.enter_context(Subscriber(live, snapshot))
        player = stack.enter_context(
            killed_at_the_end(
                fusionnode("playback", observations, "--to", f"pty:{tmp_path}/radars", "--rate", 0)
            )
        )
        stopping = False
        while True:
            events = subscriber.receive(1.0)
            for event in events:
                if isinstance(event, State):
                    key = (event.state["trackId"], event.state["epoch"], event.state["status"])
                    from_line[key] = dict(event.state)
            if not events and not stopping and player.poll() is not None:
                assert player.returncode == 0
                node.send_signal(signal.SIGTERM)
                stopping = True
            elif not events and stopping and node.poll() is not None:
                break
        summary = json.loads(node.communicate()[0].splitlines()[-1])
    assert summary["links"]["radars"]["frame_accepted"] == RECORDS

    out = tmp_path / "states.jsonl"
    from_file_summary: Any = process(observations, out=out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    from_file = {(row["trackId"], row["epoch"], row["status"]): row for row in rows if "status" in row}
    assert len(from_file) > 0.9 * RECORDS
    assert set(from_file) == set(from_line)
    assert summary["sensors"] == from_file_summary["sensors"]
    for key, row in from_file.items():
        sigma = np.sqrt(np.array(row["cov"])[VARIANCES])
        apart = np.array([row[n] - from_line[key][n] for n in NUMBERS])
        assert np.abs(apart / sigma).max() < 0.01

    replay = subprocess.run(
        [sys.executable, "-m", "fusionnode", "replay", tmp_path / "journal", "--config", station, "--json"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert json.loads(replay.stdout.splitlines()[-1])["sha256"] == summary["sha256"]
