"""The outlets of all release groups, from the configuration."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgpack

from fusionnode.config import Config, Group
from fusionnode.core.types import LinkRecord
from fusionnode.release.outlet import Granted, Outlet, OutletError
from fusionnode.release.settings import GroupSettings, Partner
from fusionnode.release.wire import Message, StreamDigest
from fusionnode.security.keyring import Keyring, KeyringError, server_name

LINK_PREFIX = "group:"
"""Requests of a group's partners are link records of a link of this name and the group's."""
_HOUR_S = 3_600.0
_NO_MATTER_OF_POLICY = (
    "endpoint", "request_endpoint", "sign", "history_bytes", "spool_directory", "spool_bytes", "spool_age_h",
    "high_water_mark", "heartbeat_s", "sensor_state_s",
)  # fmt: skip


class Released(Protocol):
    """What a group is given at one time."""

    @property
    def messages(self) -> Sequence[Message]:
        """In order."""

    @property
    def grants(self) -> Sequence[Granted]:
        """What opened or closed since the last time."""


class GroupStream(Protocol):
    """Where a group's messages come from."""

    @property
    def name(self) -> str:
        """The group's."""

    @property
    def digest(self) -> StreamDigest:
        """Over all messages taken."""

    def take(self) -> Released:
        """What there is since the last time."""


class Outlets:
    """One publisher process a group, in the order of the configuration. One thread at a time may use it.

    Args:
        config: as loaded.
        on_fault: told in one line of whatever goes wrong with a group's publisher.

    Raises:
        OutletError: a key that is needed is not there; the text is one line.
    """

    def __init__(self, config: Config, on_fault: Callable[[str, str], None]) -> None:
        self._node_id = config.node.id
        self._by_name: dict[str, Outlet] = {}
        try:
            sign, public = _signer(config)
            for name, group in config.group.items():
                self._by_name[name] = Outlet(
                    live=group.endpoint,
                    snapshot=group.request_endpoint,
                    high_water_mark=group.high_water_mark,
                    on_fault=_told(on_fault, name),
                    group=settings_of(config, name, public if group.sign else None),
                    sign=sign if group.sign else None,
                )
        except KeyringError as error:
            self.close()
            raise OutletError(str(error)) from None

    def start(self) -> None:
        """Start all publishers and wait until each has proved that its doors are locked.

        Raises:
            OutletError: one cannot be started; the text is one line naming the group.
        """
        for name, outlet in self._by_name.items():
            try:
                outlet.start()
            except OutletError as error:
                raise OutletError(f"group.{name}: {error}") from None

    def send(self, groups: Sequence[GroupStream]) -> None:
        """Hand each group what it is to get; never waits."""
        for outlet, group in zip(self._by_name.values(), groups, strict=True):
            released = group.take()
            outlet.send(released.messages, released.grants)

    def requests(self, t_rx_ns: int) -> list[LinkRecord]:
        """What partners asked of the node since the last time, as records of the links ``group:NAME``.

        Each holds a msgpack array of the partner's name, by its key, and the request as it came.
        """
        return [
            LinkRecord(t_rx_ns, LINK_PREFIX + name, msgpack.packb(list(request)))
            for name, outlet in self._by_name.items()
            for request in outlet.requests()
        ]

    def reply(self, group: str, partner: str, payload: bytes) -> bool:
        """Answer a partner's request; False if it cannot be handed on."""
        outlet = self._by_name.get(group)
        return outlet is not None and outlet.reply(partner, payload)

    def prepare(self, config: Config) -> dict[str, GroupSettings]:
        """What `reload` takes of another configuration with the same groups; changes nothing yet.

        Raises:
            OutletError: as for `settings_of`.
        """
        return {name: settings_of(config, name, None) for name in self._by_name}

    def reload(self, prepared: Mapping[str, GroupSettings]) -> None:
        """Policies and partners of what `prepare` gave hold from the next message on."""
        for name, settings in prepared.items():
            self._by_name[name].set_partners(settings.partners)
            self._by_name[name].set_policy(settings.policy)

    def report(self) -> dict[str, dict[str, object]]:
        """By group: how many messages were handed over, and the publisher's own counts once it has ended."""
        return {
            name: {
                "handed_over": outlet.handed,
                "dropped": outlet.dropped,
                "restarts": outlet.restarts,
                **outlet.report,
            }
            for name, outlet in self._by_name.items()
        }

    def close(self) -> None:
        """Let all end; may be called twice."""
        for outlet in self._by_name.values():
            outlet.close()

    def __iter__(self) -> Iterator[Outlet]:
        return iter(self._by_name.values())


def require_keys(config: Config) -> None:
    """Look whether each group has its keys, before anything else takes its time.

    Raises:
        OutletError: one is not there or cannot be used; the text is one line naming the group.
    """
    if config.release.keys_directory is None:
        return
    keys = Keyring(config.release.keys_directory)
    for name, group in config.group.items():
        try:
            keys.pair(server_name(name))
            if group.sign:
                keys.signing_secret()
        except KeyringError as error:
            raise OutletError(f"group.{name}: {error}") from None


def settings_of(config: Config, name: str, signing_key: str | None) -> GroupSettings:
    """What the publisher of one group is told.

    Raises:
        OutletError: the configuration names no folder of keys.
    """
    group = config.group[name]
    keys, audit = config.release.keys_directory, config.release.audit_directory
    if keys is None or audit is None:
        raise OutletError("release.keys_directory and release.audit_directory: needed where there are groups")
    return GroupSettings(
        name=name,
        node_id=config.node.id,
        keys=keys,
        audit=str(Path(audit) / f"group-{name}.log"),
        policy=policy_digest(config, group),
        partners={
            who: Partner(round(partner.paced_bytes_per_s), partner.may_request, partner.priority)
            for who, partner in config.partner.items()
            if partner.group == name
        },
        history_bytes=group.history_bytes,
        spool=group.spool_directory,
        spool_bytes=group.spool_bytes,
        spool_age_s=group.spool_age_h * _HOUR_S,
        signing_key=signing_key,
        audit_rotate_bytes=config.release.audit_rotate_bytes,
        audit_go_on=config.release.audit_on_full == "go_on",
    )


def policy_digest(config: Config, group: Group) -> str:
    """SHA-256 over everything that decides what the group is released, files that rules name included.

    Where such a file cannot be read it is like no other: nothing of before is served then.
    """
    tree = group.model_dump(mode="json", exclude=set(_NO_MATTER_OF_POLICY))
    caveats = {name: sensor.releasable_to for name, sensor in config.sensor.items()}
    node = config.node.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps([tree, caveats, node], sort_keys=True).encode())
    files = [rule.objects_file for rule in group.rule]
    if any(rule.owners is not None for rule in group.rule):
        files.append(config.catalogue.owners_file)
    try:
        for file in files:
            if file is not None:
                digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    except OSError:
        digest.update(os.urandom(32))
    if any(rule.precision_m for rule in group.rule) and config.release.keys_directory is not None:
        try:
            digest.update(hashlib.sha256(Keyring(config.release.keys_directory).offset_secret()).digest())
        except KeyringError:
            digest.update(os.urandom(32))
    return digest.hexdigest()


def _signer(config: Config) -> tuple[Callable[[bytes], bytes] | None, str | None]:
    if not any(group.sign for group in config.group.values()):
        return None, None
    assert config.release.keys_directory is not None
    from fusionnode.release.signing import Signer  # late: who does not sign needs no package for it

    signer = Signer(Keyring(config.release.keys_directory).signing_secret())
    return signer.sign, signer.public


def _told(on_fault: Callable[[str, str], None], name: str) -> Callable[[str], None]:
    return lambda text: on_fault(name, text)
