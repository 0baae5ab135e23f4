"""Messages a second through one publisher process: the node's own stream beside a release group's (CURVE), in one run.

    python tests/bench/publishing.py [--messages 40000] [--rounds 3] [--sign]

States of 400 tracks are handed to an outlet as fast as it takes them; a process reads them all over loopback TCP.
Rounds of the kinds alternate. Printed are the median rates, their ratio, and the CPU time that the publisher process
takes for a message.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import zmq

from fusionnode.core.types import TRACK_STATE, Status
from fusionnode.release.outlet import Outlet
from fusionnode.release.settings import GroupSettings, Partner
from fusionnode.release.signing import Signer
from fusionnode.release.wire import Message, StreamEncoder
from fusionnode.security.keyring import Keyring, Pair, server_name
from fusionnode.security.zap import unlock

_TRACKS = 400
_BATCH = 256
_HIGH_WATER = 1_000_000


def read(live: str, server: bytes | None, own: Pair | None, n: int, say: Connection) -> None:
    """Read ``n`` messages; say when the first and the last came."""
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        if server is not None and own is not None:
            unlock(sub, server, own)
        sub.connect(live)
        sub.subscribe(b"")
        sub.recv_multipart()
        say.send("there")
        while sub.recv_multipart()[0] == b"wait":
            pass
        begun = time.perf_counter()
        for _ in range(n - 1):
            sub.recv_multipart()
        say.send(time.perf_counter() - begun)


def messages(n: int) -> list[Message]:
    """``n`` messages of states."""
    rng = np.random.default_rng(1)
    states = np.zeros(_TRACKS, TRACK_STATE)
    states["track"] = np.arange(_TRACKS)
    states["x"] = rng.normal(size=(_TRACKS, 6)) * np.repeat([7e6, 7e3], 3)
    states["P"] = np.eye(6)
    states["status"] = Status.CONFIRMED
    states["object"] = -1
    encoder = StreamEncoder(node_id="bench", stream_epoch="bench-1", sensor_names=["north"])
    out: list[Message] = []
    while len(out) < n:
        out += encoder.states(states)
    return out[:n]


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one(kind: str, sent: list[Message], folder: Path, *, sign: bool) -> tuple[float, float]:
    """Messages a second, and the publisher's CPU seconds for each."""
    addresses = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            addresses.append(f"tcp://127.0.0.1:{probe.getsockname()[1]}")
    group, server, own = None, None, None
    signer = Signer(bytes(32)).sign if sign and kind == "group" else None
    if kind == "group":
        keys = Keyring(folder / "keys")
        server = keys.new(server_name("g"))
        own = Pair(*zmq.curve_keypair())
        (folder / "p.public").write_bytes(own.public)
        keys.allow("g", "p", folder / "p.public")
        group = GroupSettings(
            "g", "bench", str(folder / "keys"), str(folder / "g.log"), partners={"p": Partner()}
        )
    here, there = multiprocessing.Pipe()
    with Outlet(
        live=addresses[0], snapshot=addresses[1], high_water_mark=_HIGH_WATER, group=group, sign=signer
    ) as outlet:
        outlet.start()
        reader = multiprocessing.Process(target=read, args=(addresses[0], server, own, len(sent), there))
        reader.start()
        while not here.poll(0.02):
            outlet.send([(b"wait", sent[0][1])])
        here.recv()
        time.sleep(0.2)
        pid = outlet.publisher_pid
        assert pid is not None
        before = cpu_s(pid)
        for first in range(0, len(sent), _BATCH):
            batch = sent[first : first + _BATCH]
            while outlet.send(batch):  # the feed is full
                time.sleep(0.001)
        seconds = here.recv()
        used = cpu_s(pid) - before
        reader.join()
    return (len(sent) - 1) / seconds, used / len(sent)


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sign", action="store_true")
    args = parser.parse_args()
    sent = messages(args.messages)
    size = sum(len(topic) + len(payload) for topic, payload in sent) / len(sent)
    rates: dict[str, list[float]] = {"plain": [], "group": []}
    costs: dict[str, list[float]] = {"plain": [], "group": []}
    for _ in range(args.rounds):
        for kind in rates:
            with tempfile.TemporaryDirectory() as folder:
                rate, cost = one(kind, sent, Path(folder), sign=args.sign)
            rates[kind].append(rate)
            costs[kind].append(cost)
    for kind, each in rates.items():
        spread = f"{min(each):.0f}..{max(each):.0f}"
        print(
            f"{kind}: {statistics.median(each):.0f} messages/s ({spread}), "
            f"{statistics.median(costs[kind]) * 1e6:.1f} us CPU a message, {size:.0f} bytes each"
        )
    print(f"group/plain: {statistics.median(rates['group']) / statistics.median(rates['plain']):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
