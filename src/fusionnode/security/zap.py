"""Who may come in: a handler of ZeroMQ's authentication protocol (RFC 27), for CURVE only.

libzmq asks over an in-process socket before it lets a connection send or receive anything. This handler is a socket
in its owner's one poll loop and nothing else: there is no thread that could die, and while the loop is busy
handshakes wait. With ``ZMQ_ZAP_ENFORCE_DOMAIN`` set, as `lock` does, nobody passes where nobody answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import zmq
from zmq.utils import z85

from fusionnode.security.keyring import Pair

ADDRESS = "inproc://zeromq.zap.01"
_ENFORCE_DOMAIN = 93  # ZMQ_ZAP_ENFORCE_DOMAIN; pyzmq has no name for it
_VERSION = b"1.0"
_CURVE = b"CURVE"
_KEY_BYTES = 32
_MOST_A_TURN = 64

Admit = Callable[[bytes], str | None]
"""From a public key (32 bytes) to whose it is, if that one may come in; None if not."""


class ZapError(Exception):
    """There can be no handler; the text is one line."""


class ZapHandler:
    """Answers for the doors it was told of; everybody else's is refused.

    Bind it before any socket it guards, and call `serve` whenever ``socket`` has something to read.

    Args:
        context: that of the sockets to be guarded.
        on_answer: told of each answer: domain, peer's address, public key (empty: none was shown), whose it is or
            None.

    Raises:
        ZapError: the context has a handler already.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        on_answer: Callable[[str, str, bytes, str | None], None] = lambda *_: None,
    ) -> None:
        self._doors: dict[bytes, Admit] = {}
        self._on_answer = on_answer
        self.admitted = 0
        self.refused = 0
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        try:
            self.socket.bind(ADDRESS)
        except zmq.ZMQError as error:
            self.socket.close()
            raise ZapError(f"the handler of keys cannot be bound: {zmq.strerror(error.errno or 0)}") from None

    def guard(self, domain: str, admit: Admit) -> None:
        """From now on ``admit`` answers for ``domain``."""
        self._doors[domain.encode()] = admit

    def serve(self) -> None:
        """Answer what waits, up to 64 of them. Never raises: what cannot be answered is refused."""
        for _ in range(_MOST_A_TURN):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            self._answer(frames)

    def close(self) -> None:
        """Answer no more: nobody comes in any more."""
        self.socket.close()

    def _answer(self, frames: list[bytes]) -> None:
        # route, empty, version, request id, domain, address, identity, mechanism, credentials...
        if len(frames) < 8:
            return
        route, _, _, request_id, domain, address, _, mechanism = frames[:8]
        key = frames[8] if len(frames) == 9 else b""
        who: str | None = None
        if frames[2] == _VERSION and mechanism == _CURVE and len(key) == _KEY_BYTES:
            admit = self._doors.get(domain)
            try:
                who = None if admit is None else admit(key)
            except Exception:  # noqa: BLE001 - whatever goes wrong, nobody passes and the handler goes on
                who = None
        if who is None:
            self.refused += 1
            reply = [b"400", b"not allowed", b"", b""]
        else:
            self.admitted += 1
            reply = [b"200", b"", who.encode(), b""]
        with contextlib.suppress(zmq.ZMQError):
            self.socket.send_multipart([route, b"", _VERSION, request_id, *reply], zmq.NOBLOCK)
        with contextlib.suppress(Exception):
            self._on_answer(domain.decode(errors="replace"), address.decode(errors="replace"), key, who)


def lock(socket: zmq.Socket[bytes], domain: str, pair: Pair) -> None:
    """Let a socket that is not bound yet take CURVE connections only, each after the handler's word for ``domain``."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
    socket.setsockopt(_ENFORCE_DOMAIN, 1)


def unlock(socket: zmq.Socket[bytes], server_public: bytes, own: Pair) -> None:
    """Let a socket that is not connected yet show the key ``own`` and take this server (Z85) only."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_public)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, own.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, own.secret)


def fingerprint(key: bytes) -> str:
    """A public key (32 bytes) as people compare it: Z85; empty if there is none."""
    return z85.encode(key).decode() if len(key) == _KEY_BYTES else ""
