"""Eight release groups (CURVE, a publisher process each) fed at a rate: what a partner costs, what a stalled one does.

    python tests/bench/fan_out.py [--groups 8] [--states-s 10000] [--seconds 2] [--pairs 10] [--most 4]

``--states-s`` is the number of messages a second over all groups; each goes to one. They are handed over every 5 ms, as
a daemon's cycle does, and read by one process that notes when each came. Latency is from before `Outlet.send` to after
the reception, beside the bare floor: the same messages at the same rate over one plain PUB socket, read by the same
process. A partner costs what the publishers take more CPU for with each, from one a group to ``--most``.

Then pairs of runs, in turn: a further partner of the first group reads, or is stopped by a signal with all queues
towards it full. Compared is the p99 of all the others: median of the pairs' ratios, with a 95 % interval by bootstrap.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
import zmq

from fusionnode.core.types import TRACK_STATE, Status
from fusionnode.release.outlet import Outlet
from fusionnode.release.settings import GroupSettings, Partner
from fusionnode.release.wire import Message, StreamEncoder
from fusionnode.security.keyring import Keyring, Pair, server_name
from fusionnode.security.zap import unlock

F64 = npt.NDArray[np.float64]
_CYCLE_S = 0.005
_TRACKS = 400
_STALL_HIGH_WATER = 500
_FILL = 20_000
_BUFFER = 32_768
_FLOOR = "floor"


class Encoder:
    """States of always the same tracks, as one stream."""

    def __init__(self, epoch: str) -> None:
        rng = np.random.default_rng(1)
        self._states = np.zeros(_TRACKS, TRACK_STATE)
        self._states["track"] = np.arange(_TRACKS)
        self._states["x"] = rng.normal(size=(_TRACKS, 6)) * np.repeat([7e6, 7e3], 3)
        self._states["P"], self._states["status"], self._states["object"] = np.eye(6), Status.CONFIRMED, -1
        self._encoder = StreamEncoder(node_id="bench", stream_epoch=epoch, sensor_names=["north"])
        self._ahead: list[Message] = []

    def prepare(self, n: int) -> None:
        """Have ``n`` messages ready."""
        while len(self._ahead) < n:
            self._ahead += self._encoder.states(self._states)

    def take(self, n: int) -> list[Message]:
        """The next ones."""
        self.prepare(n)
        out, self._ahead = self._ahead[:n], self._ahead[n:]
        return out


def seq_of(payload: bytes) -> int:
    """Of a message, without unpacking it all: it comes after its key, early."""
    at = payload.index(b"\xa3seq") + 4
    unpacker = msgpack.Unpacker()
    unpacker.feed(payload[at : at + 9])
    return int(unpacker.unpack())


def reader(doors: Sequence[tuple[str, str, bytes | None, Pair | None]], say: Connection) -> None:
    """Read all sockets; on a word, give (door, seq, when) of what came since the last."""
    context = zmq.Context()
    poller, names = zmq.Poller(), {}
    for name, address, server, own in doors:
        sub = context.socket(zmq.SUB)
        sub.setsockopt(zmq.RCVHWM, 0)
        if server is not None and own is not None:
            unlock(sub, server, own)
        sub.connect(address)
        sub.subscribe(b"")
        poller.register(sub, zmq.POLLIN)
        names[sub] = name
    poller.register(say.fileno(), zmq.POLLIN)
    came: dict[str, list[tuple[bytes, float]]] = {name: [] for name in names.values()}
    while True:
        for which, _ in poller.poll():
            if which == say.fileno():
                if say.recv() == "end":
                    context.destroy(linger=0)
                    return
                say.send({n: [(seq_of(p), t) for p, t in got] for n, got in came.items()})
                for got in came.values():
                    got.clear()
                continue
            got = came[names[which]]
            with contextlib.suppress(zmq.Again):
                for _ in range(256):
                    payload = which.recv_multipart(zmq.NOBLOCK)[1]
                    got.append((payload, time.monotonic()))


def one_who_may_stall(address: str, server: bytes, own: Pair) -> None:
    """Reads and forgets, until it is stopped."""
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.setsockopt(zmq.RCVBUF, _BUFFER)
        sub.setsockopt(zmq.RCVHWM, 10)
        unlock(sub, server, own)
        sub.connect(address)
        sub.subscribe(b"")
        while True:
            sub.recv_multipart()


def port() -> int:
    """One that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    """The groups, their partners, and the floor."""

    def __init__(self, folder: Path, groups: int, partners: int, *, stall: bool) -> None:
        self.encoders, self.outlets, doors = {}, {}, []
        keys = Keyring(folder / "keys")
        for g in range(groups):
            name = f"g{g}"
            server = keys.new(server_name(name))
            assert server is not None
            live = f"tcp://127.0.0.1:{port()}"
            who = [f"{name}-{n}" for n in range(partners)] + (["stalls"] if stall and not g else [])
            pairs = {}
            for one in who:
                pairs[one] = Pair(*zmq.curve_keypair())
                (folder / "one.public").write_bytes(pairs[one].public)
                keys.allow(name, one, folder / "one.public")
            doors += [(one, live, server, pairs[one]) for one in who if one != "stalls"]
            settings = GroupSettings(
                name, "bench", str(folder / "keys"), str(folder / f"{name}.log"),
                partners={one: Partner() for one in who},
            )  # fmt: skip
            # A stalled partner's queue is to be full soon; that of others must hold a cycle.
            mark = _STALL_HIGH_WATER if stall and not g else 20_000
            outlet = Outlet(
                live=live, snapshot=f"tcp://127.0.0.1:{port()}", high_water_mark=mark, group=settings,
                on_fault=lambda text: print("fault:", text),
            )  # fmt: skip
            outlet.start()
            self.outlets[name], self.encoders[name] = outlet, Encoder(f"{name}-1")
            if stall and not g:
                args = (live, server, pairs["stalls"])
        self.context = zmq.Context()
        self.bare = self.context.socket(zmq.PUB)
        self.bare.setsockopt(zmq.SNDHWM, 0)
        self.bare.bind(f"tcp://127.0.0.1:{port()}")
        doors.append((_FLOOR, self.bare.getsockopt_string(zmq.LAST_ENDPOINT), None, None))
        self.encoders[_FLOOR] = Encoder("floor-1")
        self.here, there = multiprocessing.Pipe()
        self.reader = multiprocessing.Process(target=reader, args=(doors, there), daemon=True)
        self.reader.start()
        self.stalls: multiprocessing.Process | None = None
        if stall:
            self.stalls = multiprocessing.Process(target=one_who_may_stall, args=args, daemon=True)
            self.stalls.start()
        waiting = {name for name, *_ in doors}
        while waiting:
            self.send(self.outlets, 1)
            self.send([_FLOOR], 1)
            time.sleep(0.05)
            waiting -= {name for name, got in self.came().items() if got}
        time.sleep(0.5)
        self.came()

    def came(self) -> dict[str, list[tuple[int, float]]]:
        """What the reader has had since the last time, by partner."""
        self.here.send("give")
        return dict(self.here.recv())

    def send(self, names: Sequence[str] | dict[str, Outlet], n: int) -> dict[str, tuple[int, float]]:
        """``n`` messages to each; gives the number of the first and when."""
        out = {}
        for name in names:
            batch = self.encoders[name].take(n)
            out[name] = seq_of(batch[0][1]), time.monotonic()
            if name == _FLOOR:
                for message in batch:
                    self.bare.send_multipart(message)
            else:
                self.outlets[name].send(batch)
        return out

    def run(self, names: Sequence[str], rate: float, seconds: float) -> tuple[F64, int]:
        """Latencies of all that came, and how many messages did not."""
        cycles = round(seconds / _CYCLE_S)
        for name in names:
            self.encoders[name].prepare(round(rate * seconds / len(names)) + cycles)
        self.came()
        sent: dict[tuple[str, int], float] = {}
        begun, due, n_sent = time.monotonic(), 0.0, dict.fromkeys(names, 0)
        for cycle in range(cycles):
            time.sleep(max(0.0, begun + cycle * _CYCLE_S - time.monotonic()))
            due += rate * _CYCLE_S / len(names)
            n, due = int(due), due - int(due)
            if not n:
                continue
            for name, (first, at) in self.send(names, n).items():
                sent.update({(name, first + k): at for k in range(n)})
                n_sent[name] += n
        time.sleep(0.5)
        latencies, missing = [], 0
        for who, got in self.came().items():
            name = who.partition("-")[0]
            found = [at - sent[name, seq] for seq, at in got if (name, seq) in sent]
            latencies += found
            missing += n_sent.get(name, 0) - len(found)
        return np.array(latencies), missing

    def stall(self, yes: bool) -> None:
        """The one who may stall does, with everything towards it full; or reads again."""
        assert self.stalls is not None
        assert self.stalls.pid is not None
        os.kill(self.stalls.pid, signal.SIGSTOP if yes else signal.SIGCONT)
        for _ in range(_FILL // 200):
            self.send(["g0"], 200)
            time.sleep(0.01)
        time.sleep(0.5)
        self.came()

    def cpu_s(self) -> float:
        """Of all publishers."""
        return sum(cpu_s(outlet.publisher_pid) for outlet in self.outlets.values() if outlet.publisher_pid)

    def close(self) -> None:
        """End it all."""
        if self.stalls is not None and self.stalls.pid is not None:
            os.kill(self.stalls.pid, signal.SIGCONT)
            self.stalls.terminate()
        self.here.send("end")
        self.reader.join(5)
        for outlet in self.outlets.values():
            outlet.close()
        self.context.destroy(linger=0)


def words(latencies: F64) -> str:
    """p50 and p99."""
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def cost(args: argparse.Namespace) -> None:
    """Latency beside the floor, and what a partner costs."""
    used: dict[int, Any] = {}
    for partners in (1, args.most):
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), args.groups, partners, stall=False)
            each = []
            for _ in range(3):
                floor, _ = bench.run([_FLOOR], args.states_s, args.seconds)
                before = bench.cpu_s()
                latencies, missing = bench.run(list(bench.outlets), args.states_s, args.seconds)
                each.append((bench.cpu_s() - before) / (args.states_s * args.seconds))
                print(
                    f"{args.groups} groups, {partners} partners each, {args.states_s}/s: {words(latencies)}, "
                    f"{missing} missing; floor {words(floor)}; publishers {each[-1] * 1e6:.1f} us CPU a message",
                    flush=True,
                )
            used[partners] = np.median(each)
            bench.close()
    slope = (used[args.most] - used[1]) / (args.most - 1)
    print(f"a further partner: {slope * 1e6:.1f} us CPU a message", flush=True)


def stalled(args: argparse.Namespace) -> None:
    """Pairs of runs."""
    rng = np.random.default_rng(5)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args.groups, 1, stall=True)
        ratios, lost = [], 0
        for pair in range(args.pairs):
            p99 = {}
            for yes in (False, True) if pair % 2 else (True, False):
                bench.stall(yes)
                latencies, missing = bench.run(list(bench.outlets), args.states_s, args.seconds)
                p99[yes] = float(np.percentile(latencies, 99))
                lost += missing
            ratios.append(p99[True] / p99[False])
            print(f"pair {pair}: p99 {p99[False] * 1e3:.2f} ms, stalled {p99[True] * 1e3:.2f} ms", flush=True)
        bench.close()
    draws = np.median(rng.choice(np.array(ratios), (10_000, len(ratios))), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    print(
        f"p99 with a stalled partner / without: {np.median(ratios):.3f} ({low:.3f} to {high:.3f}), {lost} missing"
    )


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--states-s", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--only", choices=("cost", "stalled"))
    args = parser.parse_args()
    if args.only != "stalled":
        cost(args)
    if args.only != "cost":
        stalled(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
