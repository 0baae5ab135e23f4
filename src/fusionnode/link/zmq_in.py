"""A ZeroMQ PULL socket that sensors push to: each message is one link record.

With CURVE, only senders come in whose keys are allowed by the link's door (``keys/allowed/link-NAME``).
"""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from fusionnode.security.keyring import Keyring, KeyringError, link_name
from fusionnode.security.zap import lock, unlock

DRAIN_MESSAGES = 256
"""At most so many at a time, so that one busy sensor does not keep the others waiting."""
MAX_MESSAGE_BYTES = 65_536
"""A sensor that sends a longer message is disconnected by the socket."""


class LinkError(Exception):
    """The link can never work as configured; the text is one line."""


@dataclass(frozen=True)
class LinkKeys:
    """The keys of one link: its own and those of the senders that are allowed."""

    keyring: Keyring
    name: str

    @property
    def door(self) -> str:
        """What the handler of keys and the folder of allowed keys call it."""
        return link_name(self.name)

    def guard(self, socket: zmq.Socket[bytes], *, connect: bool) -> None:
        """Before the socket is bound or connected. One that connects takes the one server whose key is allowed.

        Raises:
            LinkError: a key that is needed is not there.
        """
        try:
            own = self.keyring.pair(self.door)
            if not connect:
                lock(socket, self.door, own)
                return
            servers = self.keyring.allowed(self.door)
            if len(servers.names) != 1:
                folder = self.keyring.directory / "allowed" / self.door
                raise LinkError(
                    f"expected the key of one sender in {folder} (there are {len(servers.names)})"
                )
            (who,) = servers.names.values()
            unlock(socket, self.keyring.public_of(self.door, who), own)
        except KeyringError as error:
            raise LinkError(str(error)) from None

    def senders(self) -> dict[bytes, str]:
        """Names by public key (32 bytes) of all that may send."""
        return self.keyring.allowed(self.door).names


class ZmqPull:
    """Bound, or connected; ZeroMQ itself reconnects.

    Args:
        context: that the socket belongs to; with keys and without ``connect``, its handler of keys is bound already.
        endpoint: the address.
        connect: connect to it; else bind.
        high_water_mark: messages kept at most.
        keys: whom to take messages from; None: from anybody.

    Raises:
        LinkError: the address or a key cannot be had.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        *,
        connect: bool,
        high_water_mark: int,
        keys: LinkKeys | None = None,
    ) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, high_water_mark)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        try:
            if keys is not None:
                keys.guard(self.socket, connect=connect)
            if connect:
                self.socket.connect(endpoint)
            else:
                self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.socket.close()
            verb = "connect to" if connect else "bind"
            raise LinkError(f"cannot {verb} {endpoint}: {error.strerror}") from None
        except LinkError:
            self.socket.close()
            raise
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        """As bound: a port given as ``*`` is the one that was found."""

    def read(self) -> list[bytes]:
        """The messages that have come in, at most ``DRAIN_MESSAGES``; parts of one count as messages."""
        messages: list[bytes] = []
        receive, again = self.socket.recv, zmq.Again
        try:
            for _ in range(DRAIN_MESSAGES):
                messages.append(receive(zmq.NOBLOCK))
        except again:
            pass
        return messages

    def close(self) -> None:
        """Close the socket; what it still holds is lost."""
        self.socket.close()
