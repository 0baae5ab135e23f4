"""Another node's release group as an input: its live stream, and its snapshot where something was missed.

Payloads go on undecoded, one link record each; a snapshot is one record, its reply's head in front. After a gap the
snapshot says what there is and what is not, so no history is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgpack
import zmq

from fusionnode.config import NodeLink
from fusionnode.core import clock as clock_module
from fusionnode.core import schema
from fusionnode.link.zmq_in import DRAIN_MESSAGES, LinkError
from fusionnode.security.keyring import Keyring, KeyringError

MAX_SNAPSHOT_BYTES = 32 << 20
_NS = 1_000_000_000
_SILENCE_NS = (
    15 * _NS
)  # of a stream that has heartbeats: then it is connected anew, for libzmq gives up on a refusal
_ANSWER_NS = 10 * _NS
_BETWEEN_NS = 1 * _NS


@dataclass(frozen=True)
class NodeKeys:
    """Whom to speak to, and as whom; Z85."""

    server: bytes
    public: bytes
    secret: bytes


def read_keys(link: NodeLink, keyring: Keyring) -> NodeKeys:
    """The keys of one link.

    Raises:
        LinkError: one is not there or is none; the text is one line.
    """
    try:
        own = keyring.pair(link.secret_key)
        server = Path(link.server_key).read_bytes()[:256].strip()
        if len(server) != 40:
            raise LinkError(f"{link.server_key}: not a key: expected 40 characters of Z85")
    except KeyringError as error:
        raise LinkError(str(error)) from None
    except OSError as error:
        raise LinkError(f"{link.server_key}: {error.strerror}") from None
    return NodeKeys(server, own.public, own.secret)


class NodeIn:
    """Two sockets to one node; to be read when something has come, and turned from time to time.

    Args:
        context: that the sockets belong to.
        link: as configured.
        keys: of the link.

    Raises:
        LinkError: an address or a key cannot be had.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], link: NodeLink, keys: NodeKeys) -> None:
        self._context = context
        self._link = link
        self._keys = keys
        self.heard = False
        """Something has come over the connection as it is now."""
        self._position: tuple[str, int] | None = None
        self._wanted = False
        self._asked: int | None = None
        self._asked_ns = 0
        self._next_id = 0
        self._heard_ns = clock_module.monotonic_ns()
        self.sockets: list[zmq.Socket[bytes]] = []
        self._open()

    def read(self, socket: zmq.Socket[bytes]) -> list[bytes]:
        """Payloads that have come over one of the sockets, at most `DRAIN_MESSAGES`."""
        records: list[bytes] = []
        for _ in range(DRAIN_MESSAGES):
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._heard_ns, self.heard = clock_module.monotonic_ns(), True
            if socket is self.sockets[0]:
                payload = frames[-1]
                self._follow(payload)
                records.append(payload)
            elif (whole := self._answer(frames)) is not None:
                records.append(whole)
        return records

    def turn(self) -> bool:
        """Ask for what is missing. True: nothing came for too long, and the sockets are others now."""
        now_ns = clock_module.monotonic_ns()
        if now_ns - self._heard_ns > _SILENCE_NS:
            self._heard_ns = now_ns
            self.close()
            self._open()
            return True
        if self._asked is not None and now_ns - self._asked_ns > _ANSWER_NS:
            self._asked = None
        if self._wanted and self._asked is None and now_ns - self._asked_ns > _BETWEEN_NS:
            self._next_id += 1
            request = {"v": schema.SCHEMA_VERSION, "type": schema.TYPE_SNAPSHOT_REQUEST, "id": self._next_id}
            try:
                self.sockets[1].send(msgpack.packb(request), zmq.NOBLOCK)
            except zmq.Again:
                return False
            self._asked, self._asked_ns, self._wanted = self._next_id, now_ns, False
        return False

    def close(self) -> None:
        """Close the sockets."""
        for socket in self.sockets:
            socket.close(linger=0)
        self.sockets = []

    def _open(self) -> None:
        self.heard, self._position, self._wanted, self._asked = False, None, False, None
        for kind, endpoint in ((zmq.SUB, self._link.endpoint), (zmq.DEALER, self._link.request_endpoint)):
            socket = self._context.socket(kind)
            self.sockets.append(socket)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.IPV6, 1)
            socket.setsockopt(zmq.RCVHWM, self._link.high_water_mark)
            socket.setsockopt(zmq.MAXMSGSIZE, 16 * schema.MAX_MESSAGE_BYTES)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
            if kind == zmq.SUB:
                socket.setsockopt(zmq.SUBSCRIBE, b"")
            else:
                socket.setsockopt(zmq.IMMEDIATE, 1)
            try:
                socket.curve_serverkey = self._keys.server
                socket.curve_publickey = self._keys.public
                socket.curve_secretkey = self._keys.secret
                socket.connect(endpoint)
            except (zmq.ZMQError, ValueError) as error:
                self.close()
                raise LinkError(f"cannot connect to {endpoint}: {error}") from None

    def _follow(self, payload: bytes) -> None:
        """Notice what was missed. What is no message is left to the decoder, which counts it."""
        try:
            message = msgpack.unpackb(payload)
            epoch, seq = message["streamEpoch"], message["seq"]
        except Exception:  # noqa: BLE001 - any bytes may come
            return
        if type(epoch) is not str or type(seq) is not int:
            return
        if self._position is None or self._position[0] != epoch or seq != self._position[1] + 1:
            self._wanted = True
        self._position = (epoch, seq)

    def _answer(self, frames: list[bytes]) -> bytes | None:
        """The record of a snapshot that was asked for; None: it is none."""
        try:
            head = msgpack.unpackb(frames[0])
            kind, request = head["type"], head["id"]
        except Exception:  # noqa: BLE001 - any bytes may come
            return None
        if request is None or request != self._asked:
            return None
        self._asked = None
        if kind != schema.TYPE_SNAPSHOT or sum(map(len, frames)) > MAX_SNAPSHOT_BYTES:
            self._wanted = True  # busy, or nothing yet: again, later
            return None
        return b"".join(frames)
