"""All release groups of a node: built from its configuration, fed alike, reloaded together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import KnownObject, ObjectEvent, StructArray, Tombstone
from fusionnode.release import lists
from fusionnode.release.batch import Context, StateBatch
from fusionnode.release.group_wire import GroupEncoder, Markings
from fusionnode.release.policy import Policy, policies
from fusionnode.release.precision import Offsets
from fusionnode.release.stream import SECOND_NS, GroupStream

_STATE_KEY = "release"
_NO_KEY = bytes(32)
_SLACK_NS = 60 * SECOND_NS


class Numbered(Protocol):
    """What is needed of a catalogue."""

    @property
    def sat_no(self) -> npt.NDArray[np.int64]:
        """Catalogue numbers by row."""


class Others(Protocol):
    """What is needed of the origins of what other nodes contribute."""

    @property
    def remote(self) -> int:
        """The bits of states that stand for other nodes."""

    def nodes(self, mask: int) -> list[str]:
        """Names of the nodes that bits stand for."""

    def forbidden(self, releasable_to: Sequence[str], marking: str) -> int:
        """Bits of what may not go to a group with these markings."""


class Groups:
    """The groups' streams, in the order of the configuration.

    Args:
        config: the node's.
        orientation, known, known_object: what the node knows of the Earth and of catalogued objects.
        outcomes: where is counted what becomes of states.
        stream_epoch: of this run.
        key: the node's offset key.
        others: the other nodes whose tracks are in the fused picture, if there are any.

    Raises:
        ValueError: there are groups and no key, or a file cannot be used.
    """

    def __init__(
        self,
        config: Config,
        orientation: EarthOrientation,
        known: Numbered | None,
        known_object: Callable[[int], KnownObject | None],
        outcomes: Outcomes,
        *,
        stream_epoch: str,
        key: bytes | None,
        others: Others | None = None,
    ) -> None:
        if config.group and key is None:
            raise ValueError("release groups need the node's offset key")
        self._config = config
        self.context = Context(
            orientation=orientation,
            known_object=known_object,
            sat_numbers=np.zeros(0, np.int64) if known is None else np.asarray(known.sat_no, np.int64),
            sensor_names=tuple(config.sensor),
            provenance=(config.node.id,),
            offsets=Offsets(key or _NO_KEY, stream_epoch),
            nodes=None if others is None else others.nodes,
        )
        self._others = others
        self._gone: deque[tuple[int, int]] = deque()
        decided = policies(config, lists.read(config), 0 if others is None else others.remote)
        self.streams = tuple(
            GroupStream(
                policy,
                GroupEncoder(
                    node_id=config.node.id,
                    group=name,
                    stream_epoch=stream_epoch,
                    markings=_markings(config, name),
                ),
                self.context,
                outcomes,
                **_intervals(config, name),
            )
            for name, policy in decided.items()
        )

    def states(self, states: StructArray, t_ns: int) -> None:
        """TRACK_STATE[n] of own tracks, that the node publishes at tick ``t_ns``."""
        if streams := self._of("local"):
            batch = StateBatch(states, self.context)
            for stream in streams:
                stream.states(batch, t_ns)

    def fused(self, states: StructArray, own: StructArray, t_ns: int) -> None:
        """TRACK_STATE[n] of the fused picture. Who may not have what another node contributed gets ``own`` (n,), what
        own sensors make of the same object, where its number is not 0.
        """
        whole: StateBatch | None = None
        for stream in self._of("fused"):
            self._forbid(stream)
            closed = (states["sensors"] & np.uint64(stream.policy.foreign)) != 0
            instead = closed & (own["track"] != 0)
            if instead.any():
                rows = states.copy()
                rows[instead] = own[instead]
                stream.states(StateBatch(rows, self.context), t_ns)
                continue
            whole = StateBatch(states, self.context) if whole is None else whole
            stream.states(whole, t_ns)

    def fused_end(self, tombstone: Tombstone, t_ns: int) -> None:
        """An object of the fused picture has ended."""
        for stream in self._of("fused"):
            stream.end(tombstone, t_ns)
        self._forget_later(tombstone, t_ns)

    def _of(self, picture: str) -> list[GroupStream]:
        """The streams that get a picture; without other nodes, both are one."""
        return [s for s in self.streams if self._others is None or s.policy.group.picture == picture]

    def _forbid(self, stream: GroupStream) -> None:
        if self._others is not None:
            group = stream.policy.group
            stream.policy.foreign = self._others.forbidden(group.releasable_to, group.classification_marking)

    def end(self, tombstone: Tombstone, t_ns: int) -> None:
        """An own track has ended."""
        for stream in self._of("local"):
            stream.end(tombstone, t_ns)
        self._forget_later(tombstone, t_ns)

    def _forget_later(self, tombstone: Tombstone, t_ns: int) -> None:
        if self.streams:
            # What of it waits for a delay still needs to know how it was moved.
            longest_ns = max((r.effects.delay_ns for s in self.streams for r in s.policy.rules), default=0)
            self._gone.append((max(t_ns, tombstone.t_ns) + longest_ns + _SLACK_NS, tombstone.track))

    def event(self, event: ObjectEvent, t_ns: int) -> None:
        """Something happened to an object."""
        for stream in self.streams:
            stream.event(event, t_ns)

    def turn(
        self, t_ns: int, sensors: Callable[[], Mapping[str, Mapping[str, Any]]], *, force: bool = False
    ) -> None:
        """What comes by the clock."""
        for stream in self.streams:
            stream.turn(t_ns, sensors, force=force)
        while self._gone and self._gone[0][0] <= t_ns:
            self.context.offsets.forget(self._gone.popleft()[1])

    def stop(self, t_ns: int) -> None:
        """The tracks end with the node."""
        for stream in self.streams:
            stream.stop(t_ns)

    def reload(self, config: Config, t_ns: int) -> str:
        """Other rules, markings and intervals hold from now on; gives the SHA-256 of the files they name.

        Raises:
            ValueError: the groups are not the same, or a file cannot be used; nothing has changed then.
        """
        if tuple(config.group) != tuple(self._config.group):
            raise ValueError("group: other groups than at the start need a restart")
        if tuple(config.sensor) != tuple(self._config.sensor):
            raise ValueError("sensor: other sensors than at the start need a restart")
        files = lists.read(config)
        decided = policies(config, files, 0 if self._others is None else self._others.remote)
        self._config = config
        for stream in self.streams:
            if self._others is not None:
                group = config.group[stream.name]
                decided[stream.name].foreign = self._others.forbidden(
                    group.releasable_to, group.classification_marking
                )
            stream.reload(
                decided[stream.name], _markings(config, stream.name), t_ns, **_intervals(config, stream.name)
            )
        return files.sha256

    def policy(self, name: str) -> Policy:
        """The policy of one group."""
        return next(stream.policy for stream in self.streams if stream.name == name)

    def summary(self) -> dict[str, object]:
        """Counts by group."""
        return {stream.name: stream.summary() for stream in self.streams}

    def export(self) -> dict[str, Any]:
        """What has to outlive the node, as an entry of its state; nothing where there are no groups."""
        if not self.streams:
            return {}
        return {
            _STATE_KEY: {
                "offsets": self.context.offsets.export(),
                "groups": {stream.name: stream.export() for stream in self.streams},
            }
        }

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `export` is in.

        Raises:
            ValueError: what it has of releases is damaged.
        """
        kept = state.get(_STATE_KEY)
        if kept is None or not self.streams:
            return
        try:
            self.context.offsets.take_up(kept["offsets"])
            for stream in self.streams:
                stream.take_up(kept["groups"].get(stream.name, {}))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not what a node keeps of its releases: {error!r}") from None


def _markings(config: Config, name: str) -> Markings:
    group, node = config.group[name], config.node
    return Markings(
        group.classification_marking,
        group.data_mode or node.data_mode,
        group.source or node.source,
        group.releasable_to,
    )


def _intervals(config: Config, name: str) -> dict[str, int]:
    group, publish = config.group[name], config.publish
    return {
        "heartbeat_ns": round((group.heartbeat_s or publish.heartbeat_s) * SECOND_NS),
        "sensor_state_ns": round((group.sensor_state_s or publish.sensor_state_s) * SECOND_NS),
    }
