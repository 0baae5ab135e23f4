"""Does the door hold? A dial-in with a key that nobody has allowed, before anything is published.

CURVE lets everybody in where no handler answers or no domain is enforced, and says nothing of it. So the owner of a
door tries it, from outside, over the very address that partners use.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import zmq
from zmq.utils.monitor import recv_monitor_message

from fusionnode.security.keyring import Pair
from fusionnode.security.zap import unlock

_REFUSED = int(zmq.Event.HANDSHAKE_FAILED_AUTH)
_ADMITTED = int(zmq.Event.HANDSHAKE_SUCCEEDED)
_FAILED_OTHERWISE = int(zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL)


class DoorError(Exception):
    """The door does not hold, or that cannot be told; the text is one line."""


def require_locked(
    endpoint: str, server_public: bytes, kind: int, serve: Callable[[], None], timeout_s: float = 5.0
) -> None:
    """Dial in with a random key, then with none at all.

    Args:
        endpoint: as bound.
        server_public: the door's own key, Z85.
        kind: type of the socket to dial in with, e.g. ``zmq.SUB``.
        serve: lets the door's handler answer what waits; called again and again.
        timeout_s: for each try.

    Raises:
        DoorError: a stranger was admitted, or was not refused by the handler's word.
    """
    public, secret = zmq.curve_keypair()
    address = _from_here(endpoint)
    outcome = _dial(address, kind, serve, timeout_s, server_public, Pair(public, secret))
    if outcome == _ADMITTED:
        raise DoorError(f"{endpoint}: a random key was admitted: refusing to run")
    if outcome != _REFUSED:
        raise DoorError(f"{endpoint}: the handler of keys does not answer: refusing to run")
    if _dial(address, kind, serve, timeout_s, None, None) in (_ADMITTED, None):
        raise DoorError(f"{endpoint}: a connection without a key was not refused: refusing to run")


def _dial(
    address: str,
    kind: int,
    serve: Callable[[], None],
    timeout_s: float,
    server_public: bytes | None,
    own: Pair | None,
) -> int | None:
    """What became of the handshake; None: nothing within the time."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, 1)
        if server_public is not None and own is not None:
            unlock(socket, server_public, own)
        monitor = socket.get_monitor_socket(_REFUSED | _ADMITTED | _FAILED_OTHERWISE)
        try:
            socket.connect(address)
            give_up_at = monotonic() + timeout_s
            while monotonic() < give_up_at:
                serve()
                if monitor.poll(2):
                    return int(recv_monitor_message(monitor)["event"])
            return None
        finally:
            socket.disable_monitor()
            monitor.close(linger=0)


def _from_here(endpoint: str) -> str:
    """The address of a bound endpoint as seen from this computer."""
    if not endpoint.startswith("tcp://"):
        return endpoint
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "*": "127.0.0.1"}.get(host, host)
    return f"tcp://{here}:{port}"
