"""A release group's publisher with keys, and partners that come in by real sockets."""

import time

import msgpack
import zmq

from fusionnode.core import schema
from fusionnode.release.outlet import Outlet
from fusionnode.release.settings import GroupSettings, Partner
from fusionnode.security.keyring import Keyring, Pair, server_name
from fusionnode.security.zap import unlock

WAIT_MS = 10_000


class Grant:
    def __init__(self, track_id, rule, seq, sat_no=None):
        self.track_id, self.rule, self.seq, self.sat_no = track_id, rule, seq, sat_no


class House:
    """A folder of keys, one group called ``allies``, its outlet."""

    def __init__(self, folder, addresses, partners=("bravo",), **settings):
        self.live, self.request = addresses
        self.folder = folder
        self.keys = Keyring(folder / "keys")
        self.public = self.keys.new(server_name("allies"))
        self.pairs = {}
        self.partners = {name: Partner() for name in partners}
        if isinstance(partners, dict):
            self.partners = partners
        for name in self.partners:
            self.admit(name)
        self.faults = []
        self.settings = GroupSettings(
            **{
                "name": "allies",
                "node_id": "alpha",
                "keys": str(folder / "keys"),
                "audit": str(folder / "audit" / "group-allies.log"),
                "policy": "p1",
                "partners": self.partners,
            }
            | settings
        )
        self.context = zmq.Context()
        self.sockets = []
        self.outlet = None

    def open(self, **changes):
        self.outlet = Outlet(
            live=self.live, snapshot=self.request, on_fault=self.faults.append, group=self.settings, **changes
        )
        self.outlet.start()
        return self.outlet

    def admit(self, name, door="allies"):
        pair = self.pairs[name] = Pair(*zmq.curve_keypair())
        file = self.folder / f"{name}.public"
        file.write_bytes(pair.public + b"\n")
        self.keys.allow(door, name, file)

    def socket(self, kind, pair, server=None, options=()):
        socket = self.context.socket(kind)
        for option, value in options:
            socket.setsockopt(option, value)
        self.sockets.append(socket)
        socket.setsockopt(zmq.LINGER, 0)
        if pair is not None:
            unlock(socket, server or self.public, pair)
        socket.connect(self.live if kind == zmq.SUB else self.request)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        return socket

    def sub(self, name="bravo"):
        return self.socket(zmq.SUB, self.pairs[name])

    def dealer(self, name="bravo"):
        return self.socket(zmq.DEALER, self.pairs[name])

    def audit_text(self):
        return (self.folder / "audit" / "group-allies.log").read_text()

    def close(self):
        for socket in self.sockets:
            socket.close()
        self.context.destroy(linger=0)
        if self.outlet is not None:
            self.outlet.close()


def ask(socket, kind, request_id=1, **fields):
    socket.send(msgpack.packb({"v": 1, "type": kind, "id": request_id} | fields))
    return reply(socket)


def reply(socket, wait_ms=WAIT_MS):
    assert socket.poll(wait_ms), "no answer"
    header, *parts = socket.recv_multipart()
    unpacker = msgpack.Unpacker()
    for part in parts:
        assert len(part) <= schema.MAX_MESSAGE_BYTES
        unpacker.feed(part)
    return msgpack.unpackb(header), list(unpacker)


def received(socket, wait_ms=200):
    """What comes, until nothing does for ``wait_ms``."""
    got = []
    while socket.poll(wait_ms):
        got.append(socket.recv_multipart())
    return got


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := true():
            return value
        time.sleep(0.01)
    raise AssertionError("it never came to be")
