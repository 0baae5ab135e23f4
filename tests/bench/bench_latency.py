"""Sensor-to-subscriber latency of the real daemon, next to the bare pyzmq+msgpack floor, in one run.

    node:   sensor process -> `fusionnode run` (and its publisher process) -> fusionnode.client in a process
    floor:  sensor process -> relay process (PULL, unpack, pack, PUB)      -> SUB, unpack in a process

Single detections as frames, on an absolute schedule, at the same pace, the same message sizes, over loopback TCP. A
latency runs from the moment a message was really sent to the moment the subscriber has the state made of it.
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import zmq
from bench_sky import NS, RADARS, STATION, Scene, Sky, as_messages, station

from fusionnode.client import Heartbeat, State, Subscriber
from fusionnode.core.clock import SystemClock
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import TRACK_STATE, StructArray
from fusionnode.release.wire import StreamEncoder
from fusionnode.track.picture import report as track_states
from fusionnode_hil import wire, wire_msgpack

GROUP = 480  # objects started at a time: 30 a radar
SCANS, SCAN_S = 7, 0.25  # what starts them
DAEMON = """
[link.sensors]
kind = "zmq"
endpoint = "tcp://127.0.0.1:{0}"
[publish]
endpoint = "tcp://127.0.0.1:{1}"
snapshot_endpoint = "tcp://127.0.0.1:{2}"
[journal]
directory = "journal"
"""


class Plan(NamedTuple):
    """Messages, and when (TAI ns) each is to be sent."""

    t_ns: list[int]
    messages: list[bytes]


# -- the processes


def _sensor(address: str, pipe: Connection) -> None:
    """Send plans as they come; answer each with the (monotonic) times of sending."""
    push = zmq.Context().socket(zmq.PUSH)
    push.setsockopt(zmq.SNDHWM, 0)
    push.connect(address)
    while (plan := pipe.recv()) is not None:
        offset = SystemClock().now_ns() - time.monotonic_ns()
        sent = []
        for t_ns, message in zip(*plan, strict=True):
            wait = t_ns - offset - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait * 1e-9)
            sent.append(time.monotonic_ns())
            push.send(message)
        pipe.send(sent)
    push.close(linger=1000)


def _client(live: str, snapshot: str, pipe: Connection) -> None:
    """Note when each state came, until told to give what was noted, which may be asked for again."""
    with Subscriber(live, snapshot) as subscriber:
        came: list[tuple[str, int]] = []
        tracks = 0
        while True:
            events = subscriber.receive(0.05)
            now = time.monotonic_ns()
            for event in events:
                if isinstance(event, State):
                    came.append((event.state["lastObEnd"], now))
                elif isinstance(event, Heartbeat):
                    tracks = event.tracks
            if pipe.poll():
                if pipe.recv() is None:
                    return
                pipe.send((came, tracks))
                came = []


def _relay(take: str, give: str, size: int) -> None:
    context: zmq.Context[Any] = zmq.Context()
    pull, pub = context.socket(zmq.PULL), context.socket(zmq.PUB)
    pull.setsockopt(zmq.RCVHWM, 0)
    pub.setsockopt(zmq.SNDHWM, 0)
    pull.bind(take)
    pub.bind(give)
    body = bytes(size)
    while True:
        number, _ = msgpack.unpackb(pull.recv())
        pub.send(b"state.bench-000001", zmq.SNDMORE)
        pub.send(msgpack.packb([number, body]))


def _sub(address: str, pipe: Connection) -> None:
    sub = zmq.Context().socket(zmq.SUB)
    sub.setsockopt(zmq.RCVHWM, 0)
    sub.subscribe(b"")
    sub.connect(address)
    came: list[tuple[int, int]] = []
    while True:
        while sub.poll(50):
            _, payload = sub.recv_multipart()
            number, _ = msgpack.unpackb(payload)
            came.append((number, time.monotonic_ns()))
        if pipe.poll():
            if pipe.recv() is None:
                return
            pipe.send((came, 0))
            came = []


# -- both chains


class Chain:
    """A sensor and a subscriber with something in between."""

    def __init__(self, take: str, subscriber: Any, *addresses: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._sensor, far_sensor = spawn.Pipe()
        self._subscriber, far_subscriber = spawn.Pipe()
        self._processes: list[BaseProcess] = [
            spawn.Process(target=_sensor, args=(take, far_sensor), daemon=True),
            spawn.Process(target=subscriber, args=(*addresses, far_subscriber), daemon=True),
        ]
        for process in self._processes:
            process.start()
        time.sleep(2.0)  # until both are there

    def play(self, plan: Plan, settle_s: float = 1.0) -> tuple[list[int], list[tuple[Any, int]], int]:
        """Send a plan: times of sending, what the subscriber noted, tracks by the last heartbeat."""
        self._sensor.send(plan)
        sent = self._sensor.recv()
        time.sleep(settle_s)
        self._subscriber.send(True)
        came, tracks = self._subscriber.recv()
        return sent, came, tracks

    def close(self) -> None:
        for pipe, process in zip((self._sensor, self._subscriber), self._processes, strict=True):
            pipe.send(None)
            process.join(10)


@contextmanager
def node() -> Iterator[Chain]:
    """The daemon in the middle."""
    ports = _free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "bench.toml"
        text = DAEMON.format(*ports)
        station(text)  # a fault in it should be told here
        config.write_text(STATION + text)
        daemon = subprocess.Popen(
            [sys.executable, "-m", "fusionnode", "run", "--config", str(config), "--log-json"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert daemon.stderr is not None
        try:
            for line in daemon.stderr:
                if '"ready"' in line:
                    break
            else:
                raise RuntimeError("the daemon did not start")
            take, live, snapshot = (f"tcp://127.0.0.1:{port}" for port in ports)
            chain = Chain(take, _client, live, snapshot)
            yield chain
            chain.close()
        finally:
            daemon.send_signal(signal.SIGINT)
            daemon.communicate(timeout=60)


@contextmanager
def floor(state_bytes: int) -> Iterator[Chain]:
    """The relay in the middle."""
    take, give = (f"tcp://127.0.0.1:{port}" for port in _free_ports(2))
    relay = multiprocessing.get_context("spawn").Process(
        target=_relay, args=(take, give, state_bytes), daemon=True
    )
    relay.start()
    chain = Chain(take, _sub, give)
    yield chain
    chain.close()
    relay.terminate()
    relay.join(10)


# -- what is sent


class Traffic:
    """Plans of one sky's detections."""

    def __init__(self, objects: int) -> None:
        self.n = objects
        self.start_ns = SystemClock().now_ns()
        self._sky = Sky(objects, self.start_ns)

    def start_tracks(self) -> Plan:
        """Enough scans of every object for a track, in columnar batches."""
        t_ns, messages = [], []
        began = _soon(self.n * SCANS)
        for first in range(0, self.n, GROUP):
            which = np.arange(first, min(first + GROUP, self.n))
            radar = which % RADARS + 1
            for _ in range(SCANS):
                t = began + radar * 1000
                detections = self._sky.detections(which, t, radar)
                for k in range(1, RADARS + 1):
                    for batch in wire_msgpack.encode(as_messages(detections[radar == k]), "columnar"):
                        t_ns.append(began)
                        messages.append(batch)
                began += round(SCAN_S * NS)
        return Plan(t_ns, messages)

    def singles(self, rate_hz: int, seconds: float) -> Plan:
        """One detection after the other, all objects in turn."""
        n = round(rate_hz * seconds)
        which = np.arange(n) % self.n
        t = _soon(n) + np.arange(n) * (NS // rate_hz)
        detections = self._sky.detections(which, t, which % RADARS + 1)
        return Plan(t.tolist(), [wire.frame(message) for message in as_messages(detections)])


def _soon(n: int) -> int:
    """When ``n`` detections will have been made, TAI ns, in whole microseconds as on the wire."""
    return (SystemClock().now_ns() + 2 * NS + n * 100_000) // 1000 * 1000


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _state_bytes() -> int:
    """Length of a published state."""
    scene = Scene(1)
    states: StructArray = np.zeros(1, TRACK_STATE)
    states[:] = track_states(scene.tracks, np.array([0]))
    states["nis"], states["dof"], states["sensors"] = 3.21, 4, 1
    encoder = StreamEncoder(
        node_id="bench", stream_epoch="bench-18b000000000", sensor_names=tuple(station().sensor)
    )
    return len(encoder.states(states)[0][1])


# -- the figures


class Figures(NamedTuple):
    """Of one run."""

    p50_us: float
    p99_us: float
    worst_us: float
    sent_hz: float
    lost: int

    def line(self) -> str:
        """For people."""
        return (
            f"p50 {self.p50_us:9.0f} us, p99 {self.p99_us:9.0f} us, worst {self.worst_us:9.0f} us;"
            f" {self.sent_hz:6.0f}/s sent, {self.lost} gave no state"
        )


def figures(plan: Plan, sent: list[int], came: dict[int, int]) -> Figures:
    """``came``: time of arrival by the plan's t_ns."""
    took = np.array([came[t] - at for t, at in zip(plan.t_ns, sent, strict=True) if t in came], np.float64)
    if len(took) == 0:
        return Figures(np.nan, np.nan, np.nan, 0.0, len(sent))
    p50, p99, worst = (np.percentile(took, (50, 99, 100)) / 1e3).tolist()
    return Figures(p50, p99, worst, (len(sent) - 1) / (sent[-1] - sent[0]) * 1e9, len(sent) - len(took))


def through_node(chain: Chain, traffic: Traffic, rate_hz: int, seconds: float) -> Figures:
    """One run of singles."""
    plan = traffic.singles(rate_hz, seconds)
    sent, noted, _ = chain.play(plan)
    came: dict[int, int] = {}
    for text, at in noted:
        came.setdefault(tai_ns_from_utc_text(text), at)
    return figures(plan, sent, came)


def through_floor(chain: Chain, rate_hz: int, seconds: float, frame_bytes: int) -> Figures:
    """The same pace through the relay."""
    n = round(rate_hz * seconds)
    t = (_soon(0) + np.arange(n) * (NS // rate_hz)).tolist()
    body = bytes(frame_bytes - 12)
    plan = Plan(t, [msgpack.packb([at, body]) for at in t])
    sent, noted, _ = chain.play(plan)
    return figures(plan, sent, dict(noted))


def report(seconds: float = 8.0, rounds: int = 2) -> None:
    """Print the tables."""
    state_bytes = _state_bytes()
    few = Traffic(100)
    frame_bytes = len(few.singles(1000, 0.001).messages[0])
    print(
        f"Sensor to subscriber, single frames of {frame_bytes} bytes in, states of {state_bytes} bytes out."
    )
    few = Traffic(100)
    with floor(state_bytes) as relay, node() as chain:
        tracks = chain.play(few.start_tracks(), 2.0)[2]
        chain.play(few.singles(1000, 1.0))
        for rate in (1_000, 10_000):
            print(f"\n{rate} detections/s, {tracks} tracks held, {seconds:g} s")
            for _ in range(rounds):
                bare = through_floor(relay, rate, seconds, frame_bytes)
                ours = through_node(chain, few, rate, seconds)
                print(f"  floor {bare.line()}")
                print(f"  node  {ours.line()}")
                print(
                    f"        p50 {ours.p50_us / bare.p50_us:.2f} x, p99 {ours.p99_us / bare.p99_us:.2f} x the floor"
                )
    many = Traffic(10_000)
    with floor(state_bytes) as relay, node() as chain:
        tracks = chain.play(many.start_tracks(), 3.0)[2]
        print(f"\n1000 detections/s, {tracks} tracks held, {seconds:g} s")
        for _ in range(rounds):
            bare = through_floor(relay, 1000, seconds, frame_bytes)
            ours = through_node(chain, many, 1000, seconds)
            print(f"  floor {bare.line()}")
            print(f"  node  {ours.line()}")
            print(
                f"        p50 {ours.p50_us / bare.p50_us:.2f} x, p99 {ours.p99_us / bare.p99_us:.2f} x the floor"
            )


if __name__ == "__main__":
    report()
