"""One socket of a subscriber: connected, watched, and connected anew where libzmq gives up by itself.

libzmq tells of a refused handshake on the socket's monitor only, and does not try a refused one again.
"""

from __future__ import annotations

import contextlib
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from fusionnode.client.events import Refused
from fusionnode.client.keys import Keys
from fusionnode.core import schema

# A message over the schema's limit is counted and left; libzmq hangs up only on what would hurt, because
# hanging up costs the good messages behind it too.
_HARD_LIMIT_BYTES: Final = 16 * schema.MAX_MESSAGE_BYTES
_WATCHED: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_HANGUPS: Final = 3  # in a row, before the server key is suspected: one alone may be a node that is stopping
_RETRY_S: Final = 5.0
_MOST_RETRY_S: Final = 60.0


class Socket:
    """A connected socket that says why it is not let in.

    Args:
        context, kind: as for ZeroMQ.
        address: to connect to.
        keys: for CURVE; None: not encrypted.
        high_water_mark: messages received and not read at most.
        slow: a thin link: silence is taken for death later.

    Raises:
        ValueError: the address is none; the text is one line.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        kind: int,
        address: str,
        keys: Keys | None,
        *,
        high_water_mark: int,
        slow: bool = False,
    ) -> None:
        self.address = address
        self.connections = 0
        """How often a connection was made."""
        self.connected = False
        self._keys = keys
        self._hangups = 0
        self._retry_s = _RETRY_S
        self._again_at: float | None = None
        self.zmq = socket = context.socket(kind)
        self.monitor = socket.get_monitor_socket(_WATCHED | zmq.EVENT_DISCONNECTED)
        socket.setsockopt(zmq.RCVHWM, high_water_mark)
        socket.setsockopt(zmq.MAXMSGSIZE, _HARD_LIMIT_BYTES)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, 1)
        if kind == zmq.DEALER:
            socket.setsockopt(zmq.IMMEDIATE, 1)  # no request waits in a queue for a node that is not there
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
        # A connection that died without a word is noticed and made anew.
        socket.setsockopt(zmq.HEARTBEAT_IVL, 15_000 if slow else 5_000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60_000 if slow else 15_000)
        if keys is not None:
            keys.apply(socket)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            reason = zmq.strerror(error.errno or 0)
            raise ValueError(f"{address}: {reason}; expected an address like tcp://127.0.0.1:5600") from None

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if not self.zmq.closed:
            self.zmq.disable_monitor()
            self.monitor.close(linger=0)
            self.zmq.close(linger=0)

    def watch(self, now: float) -> list[Refused]:
        """What has become of the connection; connects anew where that is due."""
        refusals = []
        while has_something(self.monitor):
            told = recv_monitor_message(self.monitor, zmq.NOBLOCK)
            refusal = self._take(told["event"], told["value"], now)
            if refusal is not None:
                refusals.append(refusal)
        if self._again_at is not None and now >= self._again_at:
            self._again_at = None
            with contextlib.suppress(zmq.ZMQError):  # libzmq may have forgotten it already
                self.zmq.disconnect(self.address)
            self.zmq.connect(self.address)
        return refusals

    @property
    def due_at(self) -> float | None:
        """When `watch` has something to do even if nothing happens."""
        return self._again_at

    def _take(self, event: int, value: int, now: float) -> Refused | None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connected = True
            self.connections += 1
            self._hangups, self._retry_s = 0, _RETRY_S
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return self._refused("key", self._why_key(value), now)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return self._refused("connection", self._why_protocol(), now)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._hangups += 1
            if self._hangups == _HANGUPS:  # libzmq goes on trying by itself
                return Refused("connection", self.address, self._why_hangup())
        else:
            self.connected = False
        return None

    def _refused(self, what: str, text: str, now: float) -> Refused:
        retry_s = self._retry_s
        self._again_at = now + retry_s
        self._retry_s = min(2.0 * retry_s, _MOST_RETRY_S)
        return Refused(what, self.address, text, retry_s)

    def _why_key(self, status: int) -> str:
        if self._keys is None:
            return f"{self.address} refuses this subscriber (status {status}): it asks for a key"
        own = self._keys.public.decode()
        return (
            f"{self.address} refuses the key {own} (status {status}): it is not allowed there, or not any more. Send "
            "this public key to the node's operator, who lets it in with: fusionnode keys allow GROUP PARTNER FILE"
        )

    def _why_hangup(self) -> str:
        begin = f"{self.address} hangs up before the handshake is done: "
        if self._keys is None:
            return (
                begin
                + "it may speak only encrypted (give a server key and a secret key file), or be no stream at all"
            )
        return begin + (
            "either the server key is not that of the node (ask its operator for the group's public key file), or it "
            "does not speak encrypted, or another program is listening there"
        )

    def _why_protocol(self) -> str:
        if self._keys is None:
            return (
                f"{self.address} speaks only encrypted, or it is no stream: give the group's server key and this "
                "subscriber's secret key file"
            )
        return f"{self.address} does not speak encrypted, or it is no stream: is this the address of a release group?"


def has_something(socket: zmq.Socket[bytes]) -> bool:
    """A message is there to be read."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
