"""The doors of links that take messages from known senders only."""

from __future__ import annotations

from collections.abc import Iterable

import zmq

from fusionnode.core import clock
from fusionnode.link.zmq_in import LinkError, LinkKeys, ZmqPull
from fusionnode.security.keyring import Keyring, KeyringError
from fusionnode.security.selftest import DoorError, require_locked
from fusionnode.security.zap import Admit, ZapError, ZapHandler

_LOOK_NS = 1_000_000_000


class LinkDoors:
    """The handler of keys for all links of one context, and what it knows; keys are looked at once a second.

    Args:
        context: that of the links' sockets; none of them is bound yet.
        keyring: where the keys are.
        names: the links that take messages from known senders only.

    Raises:
        LinkError: there can be no handler; the text is one line.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], keyring: Keyring, names: Iterable[str]
    ) -> None:
        self._links = {name: LinkKeys(keyring, name) for name in names}
        self._senders = {name: keys.senders() for name, keys in self._links.items()}
        self._look_at_ns = clock.monotonic_ns() + _LOOK_NS
        try:
            self._zap = ZapHandler(context)
        except ZapError as error:
            raise LinkError(str(error)) from None
        self.socket = self._zap.socket
        for name, keys in self._links.items():
            self._zap.guard(keys.door, self._admitter(name))

    def keys(self, name: str) -> LinkKeys:
        """The keys of one link."""
        return self._links[name]

    def serve(self) -> None:
        """Answer who knocks."""
        self._zap.serve()

    def prove_locked(self, name: str, link: ZmqPull) -> None:
        """Try a bound link from outside, with a random key and with none.

        Raises:
            LinkError: it is open, or its handler does not answer.
        """
        try:
            own = self._links[name].keyring.pair(self._links[name].door)
            require_locked(link.endpoint, own.public, zmq.PUSH, self._zap.serve)
        except (DoorError, KeyringError) as error:
            raise LinkError(str(error)) from None

    def lost_senders(self) -> list[str]:
        """The links that somebody may not send to any more since the last look: their connections are to be dropped."""
        now = clock.monotonic_ns()
        if now < self._look_at_ns:
            return []
        self._look_at_ns = now + _LOOK_NS
        lost = []
        for name, keys in self._links.items():
            before, senders = self._senders[name], keys.senders()
            self._senders[name] = senders
            if any(senders.get(key) != who for key, who in before.items()):
                lost.append(name)
        return lost

    def close(self) -> None:
        """Nobody comes in any more."""
        self._zap.close()

    def _admitter(self, name: str) -> Admit:
        return lambda key: self._senders[name].get(key)
