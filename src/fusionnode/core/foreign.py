"""What another node says of its tracks, as it enters this one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


class ForeignState(NamedTuple):
    """One track of another node at one moment; SI, TAI ns, GCRF."""

    track_id: str
    stream_epoch: str
    seq: int
    epoch_ns: int
    last_ob_ns: int
    status: int
    x: F64  # (6,)
    P: F64  # (6, 6)
    sat_no: int | None
    updates: int
    existence: float
    provenance: tuple[str, ...]
    """Empty where the message does not say who contributed."""
    releasable_to: tuple[str, ...]
    """Empty where the message does not say."""
    marking: str
    data_mode: str


class ForeignEnd(NamedTuple):
    """A track of another node has ended there."""

    track_id: str
    stream_epoch: str
    seq: int


class ForeignWhole(NamedTuple):
    """As of sequence number ``seq``, the other node has released these tracks and no others."""

    stream_epoch: str
    seq: int
    track_ids: tuple[str, ...]


class ForeignAlive(NamedTuple):
    """The other node's heartbeat."""

    stream_epoch: str
    node_id: str


Foreign = ForeignState | ForeignEnd | ForeignWhole | ForeignAlive
