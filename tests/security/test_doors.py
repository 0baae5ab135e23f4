"""The handler of keys and the self test, over real sockets."""

import socket as plain
import threading

import msgpack
import pytest
import zmq

from fusionnode.security.keyring import Keyring, Pair
from fusionnode.security.selftest import DoorError, require_locked
from fusionnode.security.zap import ADDRESS, ZapError, ZapHandler, lock, unlock


@pytest.fixture
def server_pair(tmp_path):
    keys = Keyring(tmp_path / "keys")
    keys.new("group-allies")
    return keys.pair("group-allies")


@pytest.fixture
def context():
    with zmq.Context() as context:
        yield context


def locked(context, pair, kind=zmq.XPUB, domain="allies.live"):
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    lock(socket, domain, pair)
    socket.bind("tcp://127.0.0.1:*")
    return socket


def test_the_self_test_passes_where_the_handler_refuses(context, server_pair):
    zap = ZapHandler(context)
    zap.guard("allies.live", lambda _key: None)
    with locked(context, server_pair) as socket:
        require_locked(socket.last_endpoint.decode(), server_pair.public, zmq.SUB, zap.serve)
    zap.close()
    assert (zap.admitted, zap.refused) == (0, 1)


def test_a_door_that_lets_everybody_in_is_noticed(context, server_pair):
    zap = ZapHandler(context)
    zap.guard("allies.live", lambda _key: "anybody")
    with locked(context, server_pair) as socket, pytest.raises(DoorError, match="a random key was admitted"):
        require_locked(socket.last_endpoint.decode(), server_pair.public, zmq.SUB, zap.serve)
    zap.close()


def test_a_door_without_a_handler_is_noticed_and_lets_nobody_in(context, server_pair):
    with locked(context, server_pair) as socket, pytest.raises(DoorError, match="does not answer"):
        require_locked(socket.last_endpoint.decode(), server_pair.public, zmq.SUB, lambda: None, 1.0)


def test_curve_without_a_domain_is_noticed(context, server_pair):
    """The way that fails open: CURVE alone."""
    with context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, server_pair.secret)
        socket.bind("tcp://127.0.0.1:*")
        with pytest.raises(DoorError, match="a random key was admitted"):
            require_locked(socket.last_endpoint.decode(), server_pair.public, zmq.SUB, lambda: None)


def test_a_door_without_a_lock_is_noticed(context, server_pair):
    with context.socket(zmq.XPUB) as socket:
        socket.bind("tcp://127.0.0.1:*")
        with pytest.raises(DoorError):
            require_locked(socket.last_endpoint.decode(), server_pair.public, zmq.SUB, lambda: None, 1.0)


def test_a_handler_that_stops_in_its_sleep_lets_nobody_in(context, server_pair):
    allowed = Pair(*zmq.curve_keypair())
    zap = ZapHandler(context)
    zap.guard("allies.live", lambda _key: "bravo")
    with locked(context, server_pair) as socket, zmq.Context() as outside, outside.socket(zmq.SUB) as sub:
        zap.close()
        sub.setsockopt(zmq.LINGER, 0)
        unlock(sub, server_pair.public, allowed)
        sub.connect(socket.last_endpoint.decode())
        sub.subscribe(b"")
        for _ in range(20):
            socket.send(b"secret")
            assert not sub.poll(10)


def test_there_is_one_handler_a_context(context):
    zap = ZapHandler(context)
    with pytest.raises(ZapError, match="cannot be bound"):
        ZapHandler(context)
    zap.close()


class Asker:
    """Asks a handler as libzmq does."""

    def __init__(self, context):
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(ADDRESS)

    def ask(self, zap, frames):
        self.socket.send_multipart([b"", *frames])
        zap.serve()
        return self.socket.recv_multipart(zmq.NOBLOCK)[1:] if self.socket.poll(20) else None


def test_whatever_is_asked_nobody_passes_and_the_handler_goes_on(context):
    zap = ZapHandler(context, on_answer=lambda *_: 1 / 0)
    key = bytes(range(32))

    def admit(shown):
        if shown == key:
            return "bravo"
        raise RuntimeError("broken")

    zap.guard("allies.live", admit)
    asker = Asker(context)
    good = [b"1.0", b"1", b"allies.live", b"127.0.0.1", b"", b"CURVE", key]
    assert asker.ask(zap, good) == [b"1.0", b"1", b"200", b"", b"bravo", b""]
    for at, other in (
        (0, b"2.0"), (2, b"*"), (2, b""), (2, b"allies.request"), (2, b"\xff"), (5, b"NULL"), (5, b"PLAIN"),
        (6, bytes(32)), (6, key + b"x"), (6, b""),
    ):  # fmt: skip
        asked = [*good[:at], other, *good[at + 1 :]]
        assert asker.ask(zap, asked)[2] == b"400"
    for frames in ([], [b"1.0"], good[:5]):
        assert asker.ask(zap, frames) is None
    assert asker.ask(zap, [*good, b"more"])[2] == b"400"
    assert asker.ask(zap, good)[2] == b"200"
    asker.socket.close()
    zap.close()


class Tap(threading.Thread):
    """A wire-tap: hands one connection through and keeps what the client said."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.listener = plain.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.to = port
        self.said = b""
        self.start()

    def run(self):
        inner, _ = self.listener.accept()
        outer = plain.create_connection(("127.0.0.1", self.to))

        def back():
            while data := outer.recv(65536):
                inner.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        while data := inner.recv(65536):
            self.said += data
            outer.sendall(data)
        for one in (inner, outer, self.listener):
            one.close()


def test_a_recorded_handshake_played_again_gets_nothing(context, server_pair):
    allowed = Pair(*zmq.curve_keypair())
    zap = ZapHandler(context)
    zap.guard("allies.live", lambda _key: "bravo")
    with locked(context, server_pair, zmq.ROUTER) as socket, zmq.Context() as outside:
        port = int(socket.last_endpoint.decode().rpartition(":")[2])
        tap = Tap(port)
        with outside.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            unlock(dealer, server_pair.public, allowed)
            dealer.connect(f"tcp://127.0.0.1:{tap.port}")
            dealer.send(msgpack.packb({"secret": 1}))
            while not socket.poll(10):
                zap.serve()
            socket.recv_multipart()
        tap.join(5)
        assert zap.admitted == 1
        with plain.create_connection(("127.0.0.1", port)) as again:
            again.sendall(tap.said)
            again.settimeout(0.3)
            heard = b""
            try:
                while data := again.recv(65536):
                    heard += data
                    zap.serve()
            except TimeoutError:
                pass
            except ConnectionResetError:
                pass
        assert not socket.poll(100)
        assert zap.admitted == 1
        assert b"READY" not in heard
    zap.close()
