"""A node's publishing side: a real publisher process, fed by an outlet."""

import socket
import time

import numpy as np
import pytest

from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import TRACK_STATE, Status, Tombstone
from fusionnode.release.outlet import Outlet
from fusionnode.release.wire import StreamEncoder

T0_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


class Node:
    """What a daemon does for its subscribers."""

    def __init__(self, live, snapshot, **options):
        self.live, self.snapshot = live, snapshot
        self.outlet = Outlet(live=live, snapshot=snapshot, **options)
        self.outlet.start()
        self.new_stream("alpha-1")

    def new_stream(self, stream_epoch):
        self.encoder = StreamEncoder(node_id="alpha", stream_epoch=stream_epoch, sensor_names=["north"])

    def states(self, *tracks):
        out = np.zeros(len(tracks), TRACK_STATE)
        out["track"] = tracks
        out["epoch_ns"] = out["last_ob_ns"] = T0_NS
        out["status"] = Status.CONFIRMED
        out["x"] = [7e6, 0, 0, 0, 7.5e3, 0]
        out["P"] = np.eye(6)
        out["sensors"], out["object"] = 1, -1
        out["updates"] = self.encoder.seq
        return self.outlet.send(self.encoder.states(out))

    def end(self, track, reason="dropped", successor=None):
        return self.outlet.send(self.encoder.tombstones([Tombstone(track, T0_NS, reason, successor)]))

    def sensor(self, **fields):
        return self.outlet.send(self.encoder.sensors(T0_NS, {"north": fields}))

    def beat(self):
        return self.outlet.send([self.encoder.heartbeat(T0_NS, 0)])


@pytest.fixture
def free_addresses():
    with socket.socket() as a, socket.socket() as b:
        for one in (a, b):
            one.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{one.getsockname()[1]}" for one in (a, b)]


@pytest.fixture
def make_node(free_addresses):
    """A function that starts a node; what it started is ended after the test."""
    nodes = []

    def make(live=free_addresses[0], snapshot=free_addresses[1], **options):
        nodes.append(Node(live, snapshot, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        node.outlet.close()


@pytest.fixture
def until():
    """A function that reads events, doing ``meanwhile`` before each read, until ``true()``."""

    def read(subscriber, true, meanwhile=lambda: None, seconds=20.0):
        events, give_up_at = [], time.monotonic() + seconds
        while not true():
            assert time.monotonic() < give_up_at, events[-5:]
            meanwhile()
            events += subscriber.receive(0.1)
        return events

    return read
