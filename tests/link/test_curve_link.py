"""Sensors over ZeroMQ that have to show a key."""

import contextlib
import time

import pytest
import zmq

from fusionnode.config import ZmqLink
from fusionnode.core.clock import SystemClock
from fusionnode.link.poller import LinkError, Poller
from fusionnode.security.keyring import Keyring, Pair
from fusionnode.security.zap import unlock


class Station:
    """A poller with one link that knows its senders."""

    def __init__(self, folder, **link):
        self.folder = folder
        self.keys = Keyring(folder / "keys")
        self.public = self.keys.new("link-radar")
        self.senders = {name: self.admit(name) for name in ("one", "two")}
        self.records, self.events = [], []
        link = {"kind": "zmq", "endpoint": "tcp://127.0.0.1:*", "curve": True} | link
        self.link = ZmqLink(**link)
        self.context = zmq.Context()
        self.poller = None

    def admit(self, name):
        pair = Pair(*zmq.curve_keypair())
        (self.folder / f"{name}.public").write_bytes(pair.public)
        self.keys.allow("link-radar", name, self.folder / f"{name}.public")
        return pair

    def open(self):
        self.poller = Poller(
            {"radar": self.link}, SystemClock(), self.records.extend,
            lambda name, _t, up, reason: self.events.append((name, up, reason)), self.keys,
        )  # fmt: skip

    def push(self, pair):
        socket = self.context.socket(zmq.PUSH)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 10_000)
        if pair is not None:
            unlock(socket, self.public, pair)
        socket.connect(self.poller.endpoints["radar"])
        return socket

    def run(self, until=lambda: False, seconds=0.3):
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end:
            self.poller.run_once(0.02)
        return until()

    def data(self):
        return [record.data for record in self.records]

    def close(self):
        self.context.destroy(linger=0)
        if self.poller is not None:
            self.poller.close()


@pytest.fixture
def station(tmp_path):
    made = []

    def make(**link):
        made.append(Station(tmp_path, **link))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_only_known_senders_come_in(station):
    here = station()
    here.open()
    pairs = (Pair(*zmq.curve_keypair()), None, here.senders["one"])
    with here.push(pairs[0]) as bad, here.push(pairs[1]) as plain, here.push(pairs[2]) as good:
        for socket, data in ((bad, b"bad"), (plain, b"plain"), (good, b"good")):
            socket.send(data)
        assert here.run(lambda: here.data(), 5)
        here.run()
    assert here.data() == [b"good"]


def test_a_revoked_sender_is_cut_off_while_the_others_come_back(station):
    here = station()
    here.open()
    with here.push(here.senders["one"]) as one, here.push(here.senders["two"]) as two:
        one.send(b"1")
        two.send(b"2")
        assert here.run(lambda: len(here.records) == 2, 5)
        here.keys.revoke("link-radar", "one")
        assert here.run(lambda: len(here.events) == 3, 5)
        assert [event[:2] for event in here.events] == [("radar", True), ("radar", False), ("radar", True)]
        here.records.clear()

        def again():
            for socket, data in ((one, b"1"), (two, b"2")):
                with contextlib.suppress(zmq.Again):  # who is cut off has nobody to send to
                    socket.send(data, zmq.NOBLOCK)
            return here.records

        assert here.run(again, 5)
        here.run()
    assert dict.fromkeys(here.data()) == {b"2": None}


def test_a_node_that_connects_takes_its_one_sender_only(station):
    here = station(endpoint="tcp://127.0.0.1:1", connect=True)
    with pytest.raises(LinkError, match="expected the key of one sender"):
        here.open()
    here.keys.revoke("link-radar", "two")
    with here.context.socket(zmq.PUSH) as sensor:
        sensor.setsockopt(zmq.LINGER, 0)
        sensor.curve_server = True
        sensor.curve_secretkey = here.senders["one"].secret
        sensor.bind("tcp://127.0.0.1:*")
        here.link = here.link.model_copy(update={"endpoint": sensor.last_endpoint.decode()})
        here.open()
        sensor.send(b"mine")
        assert here.run(lambda: here.data() == [b"mine"], 5)


def test_keys_that_are_missing_are_one_line(station, tmp_path):
    here = station()
    (here.keys.directory / "link-radar.secret").chmod(0o644)
    with pytest.raises(LinkError, match=r"link\.radar: .*chmod 600"):
        here.open()
    with pytest.raises(LinkError, match="no folder of keys"):
        Poller({"radar": here.link}, SystemClock(), list, lambda *_: None)
