"""The gate of a release group: which key may come in by which of its two doors.

A partner is let in if there is a file of its key under ``allowed/GROUP`` and the configuration names it as a partner
of the group. One that is to be paced is let in to requests only, never to the live stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

import zmq

from fusionnode.record.audit import Audit
from fusionnode.release.settings import GroupSettings, Partner
from fusionnode.security.keyring import Keyring, server_name
from fusionnode.security.zap import ZapHandler, fingerprint, lock

LIVE = "live"
REQUEST = "request"
_LINES_A_MINUTE = 120
_MINUTE_S = 60.0


class Gate:
    """Keys of one group and the handler that looks at them.

    Args:
        context: that of the group's sockets.
        settings: the group's.
        audit: where comings and goings are written.

    Raises:
        KeyringError: the server's key is not there or not secret.
        ZapError: the handler cannot be bound.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], settings: GroupSettings, audit: Audit
    ) -> None:
        self._group = settings.name
        self._keys = Keyring(settings.keys)
        self._pair = self._keys.pair(server_name(settings.name))
        self._audit = audit
        self.partners: dict[str, Partner] = dict(settings.partners)
        self._names: dict[bytes, str] = {}
        self._faults: tuple[str, ...] = ()
        self._listed = 0
        self._unlisted: dict[str, int] = {}
        self._minute_ends = monotonic() + _MINUTE_S
        self.zap = ZapHandler(context, self._note)
        self.zap.guard(self.domain(LIVE), self._admit_live)
        self.zap.guard(self.domain(REQUEST), self._admit_request)
        self._probing = False
        self._put_out: list[str] = []
        self.refresh()

    @property
    def public(self) -> bytes:
        """The server's public key, Z85."""
        return self._pair.public

    def domain(self, door: str) -> str:
        """The name that the handler knows a door by."""
        return f"{self._group}.{door}"

    def lock(self, socket: zmq.Socket[bytes], door: str) -> None:
        """Before the socket is bound."""
        lock(socket, self.domain(door), self._pair)

    def refresh(self, partners: Mapping[str, Partner] | None = None) -> bool:
        """Look at the keys again, and at ``partners`` if they are others now.

        Returns:
            True if somebody may not come in any more where he could before: connections are to be dropped.
        """
        before = self._doors_open()
        if partners is not None:
            self.partners = dict(partners)
        found = self._keys.allowed(self._group)
        for fault in found.faults:
            if fault not in self._faults:
                self._audit.append("key_fault", {"text": fault})
        self._faults = found.faults
        for key, name in found.names.items():
            if self._names.get(key) != name:
                self._audit.append("key_allowed", {"partner": name, "key": fingerprint(key)})
        for key, name in self._names.items():
            if found.names.get(key) != name:
                self._audit.append("key_revoked", {"partner": name, "key": fingerprint(key)})
        self._names = dict(found.names)
        now = self._doors_open()
        return any(door not in now for door in before)

    def may_request(self, name: str) -> bool:
        """Whether the partner of that name is one now, and its key is allowed."""
        allowed = name in self.partners and name in self._names.values()
        return allowed and name not in self._put_out

    def put_out(self, name: str, why: str) -> None:
        """Somebody abuses the group: he comes in no more while this process lives."""
        self._put_out.append(name)
        self._audit.append("put_out", {"partner": name, "why": why})

    def probing(self, yes: bool) -> None:
        """The self test dials in now: its refusals are no news."""
        self._probing = yes

    def tidy(self) -> None:
        """Once in a while: tell of what was not listed one by one."""
        if monotonic() < self._minute_ends:
            return
        if self._unlisted:
            self._audit.append("unlisted", dict(self._unlisted))
        self._unlisted = {}
        self._listed = 0
        self._minute_ends = monotonic() + _MINUTE_S

    def _doors_open(self) -> dict[tuple[bytes, str, str], None]:
        doors: dict[tuple[bytes, str, str], None] = {}
        for key, name in self._names.items():
            for door in (LIVE, REQUEST):
                if self._admit(key, door) is not None:
                    doors[key, name, door] = None
        return doors

    def _admit_live(self, key: bytes) -> str | None:
        return self._admit(key, LIVE)

    def _admit_request(self, key: bytes) -> str | None:
        return self._admit(key, REQUEST)

    def _admit(self, key: bytes, door: str) -> str | None:
        name = self._names.get(key)
        partner = self.partners.get(name) if name is not None else None
        if partner is None or name in self._put_out or (door == LIVE and partner.paced_bytes_per_s > 0):
            return None
        return name

    def _note(self, domain: str, address: str, key: bytes, who: str | None) -> None:
        if self._probing and who is None:
            return
        kind = "refused" if who is None else "connected"
        if self._listed >= _LINES_A_MINUTE:
            self._unlisted[kind] = self._unlisted.get(kind, 0) + 1
            return
        self._listed += 1
        fields = {"door": domain.rpartition(".")[2], "address": address[:64], "key": fingerprint(key)}
        if who is not None:
            fields["partner"] = who
        elif (name := self._names.get(key)) is not None:
            fields["known_as"] = name  # a key that is allowed, but not by this door, or of no partner
        self._audit.append(kind, fields)
