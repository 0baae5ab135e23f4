"""A ZeroMQ PULL socket that sensors push to: each message is one link record."""

from __future__ import annotations

import zmq

DRAIN_MESSAGES = 256
"""At most so many at a time, so that one busy sensor does not keep the others waiting."""
MAX_MESSAGE_BYTES = 65_536
"""A sensor that sends a longer message is disconnected by the socket."""


class LinkError(Exception):
    """The link can never work as configured; the text is one line."""


class ZmqPull:
    """Bound, or connected; ZeroMQ itself reconnects.

    Raises:
        LinkError: the address cannot be had.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, *, connect: bool, high_water_mark: int
    ) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, high_water_mark)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        try:
            if connect:
                self.socket.connect(endpoint)
            else:
                self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.socket.close()
            verb = "connect to" if connect else "bind"
            raise LinkError(f"cannot {verb} {endpoint}: {error.strerror}") from None
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
