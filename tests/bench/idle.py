"""CPU time of a node that has nothing to do, over the time that passes.

    python tests/bench/idle.py [--seconds 60]

The real daemon with its publisher, one serial port that is not there, one ZeroMQ socket that nobody sends to, journal
and state on.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
[node]
id = "idle"
[site.s]
lat_deg = 10.0
lon_deg = 20.0
[sensor.radar]
id = 1
kind = "radar"
site = "s"
[link.line]
kind = "serial"
device = "{folder}/none"
[link.socket]
kind = "zmq"
endpoint = "ipc://{folder}/in"
[publish]
endpoint = "ipc://{folder}/out"
snapshot_endpoint = "ipc://{folder}/snap"
[journal]
directory = "journal"
[state]
directory = "state"
"""


def cpu_s(pid: int) -> float:
    """User and system time of a process, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [
        int(p)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for p in (task / "children").read_text().split()
    ]


def main() -> None:
    """Start, wait, measure, stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "node.toml"
        config.write_text(CONFIG.format(folder=folder))
        command = [sys.executable, "-m", "fusionnode", "run", "--config", str(config)]
        node = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert node.stderr is not None
        while "ready" not in node.stderr.readline():
            assert node.poll() is None, "the node did not start"
        time.sleep(5.0)
        pids = [node.pid, *children(node.pid)]
        before, start = [cpu_s(pid) for pid in pids], time.monotonic()
        time.sleep(args.seconds)
        wall = time.monotonic() - start
        for name, pid, was in zip(("daemon", "publisher"), pids, before, strict=True):
            used = 100.0 * (cpu_s(pid) - was) / wall
            print(
                f"{name:9}  {used:5.2f} % of one core over {wall:.0f} s, {resident_mb(pid):.0f} MB resident"
            )
        node.send_signal(signal.SIGTERM)
        node.wait(60)


if __name__ == "__main__":
    main()
