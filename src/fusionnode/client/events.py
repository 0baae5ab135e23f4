"""What a subscriber is told, one frozen dataclass for each kind of event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fusionnode.core.schema import ObjectState

REASON_MISSED = "missed"
"""Reason of a `Tombstone` made here: the track ended unheard, and is absent from a newer snapshot."""


@dataclass(frozen=True, slots=True)
class State:
    """A state of one track; km and km/s, GCRF. Normally its newest; right after a snapshot, states that were already
    on their way may still come in, and the picture, which knows newer ones, ignores them.
    """

    seq: int
    state: ObjectState
    from_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A track ended and is out of the picture; ``successor`` is the track that goes on in its place."""

    seq: int
    track_id: str
    reason: str
    epoch: str | None = None  # UTC; None where reason is "missed"
    successor: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """Something happened to a tracked object (``manoeuvre``, ``new_object_near``, ``breakup``, ``decay``, ``reentry``,
    or a kind that is newer than this client); ``fields`` as in the message, see docs/WIRE.md. km, km/s, UTC.
    """

    seq: int
    kind: str
    track_id: str
    fields: dict[str, Any]
    from_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class SensorState:
    """How one sensor of the node is doing; ``fields`` as in the message, see docs/WIRE.md."""

    seq: int
    sensor: str
    time: str
    fields: dict[str, Any]
    from_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The node lives: its time (UTC), the number of tracks it publishes, messages sent so far by type.

    ``details``: ``intervalS``, ``links`` and ``unknownSensors``, as far as the node gives them (docs/WIRE.md).
    """

    seq: int
    node_id: str
    time: str
    tracks: int
    messages: dict[str, int]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gap:
    """``missed`` messages are lost; ``seq`` is the first one after the gap.

    With a snapshot address the picture is mended by itself (a `Synced` follows); without one it is emptied.
    """

    seq: int
    missed: int


@dataclass(frozen=True, slots=True)
class Filled:
    """Messages ``from_seq`` to ``to_seq`` had been missing and have come from the node's history: they follow."""

    stream_epoch: str
    from_seq: int
    to_seq: int


@dataclass(frozen=True, slots=True)
class EpochChange:
    """The node started a new stream: the picture is empty, sequence numbers start again.

    ``complete``: everything of the old stream has come, and everything of the new one follows. Else what the old
    one brought last is lost, and nobody can tell how much.
    """

    old: str
    new: str
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Synced:
    """A snapshot was merged: the picture of ``tracks`` tracks is whole as of ``seq``."""

    stream_epoch: str
    seq: int
    tracks: int


@dataclass(frozen=True, slots=True)
class Stale:
    """Nothing came for ``silent_s`` seconds, not even a heartbeat; said once for each silence."""

    silent_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The node does not let this subscriber in, or not do something; ``text`` says why, and what to do about it.

    ``what``: ``key`` (it is not allowed there), ``connection`` (another server key, or one side not encrypted),
    ``version`` (none in common), ``paced``, ``cue``, ``signing_key`` (the node has another one). It is tried again
    every ``retry_s``; None: it is not.
    """

    what: str
    address: str
    text: str
    retry_s: float | None = None


@dataclass(frozen=True, slots=True)
class CueReply:
    """What became of `Subscriber.request_observation`; ``state`` and ``fields`` as in docs/WIRE.md.

    ``last``: no further reply comes.
    """

    request_id: int
    state: str
    reason: str
    last: bool
    fields: dict[str, Any] = field(default_factory=dict)


Event = (
    State
    | Tombstone
    | ObjectEvent
    | SensorState
    | Heartbeat
    | Gap
    | Filled
    | EpochChange
    | Synced
    | Stale
    | Refused
    | CueReply
)
