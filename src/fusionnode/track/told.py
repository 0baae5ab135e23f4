"""What the tracker tells: states, the ends of tracks, events of objects."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import TRACK_STATE, Channel, ObjectEvent, StructArray, Tombstone
from fusionnode.track.association.associate import Log, Measurements
from fusionnode.track.picture import Picture

DEGREES = np.array(
    [
        bin(c & Channel.RANGE | c & Channel.RANGE_RATE).count("1") + (2 if c & Channel.ANGLES else 0)
        for c in range(8)
    ]
)
"""Degrees of freedom by Channel bits."""
Event = StructArray | Tombstone | ObjectEvent
"""What the tracker gives: TRACK_STATE arrays, tombstones and events of objects, in the order in which they happened."""


def merged(events: list[Event]) -> list[Event]:
    """The same events with arrays that follow each other joined: cheaper to look through."""
    out: list[Event] = []
    run: list[StructArray] = []
    for event in [*events, None]:
        if event is not None and not isinstance(event, Tombstone | ObjectEvent):
            run.append(event)
            continue
        if run:
            # as bytes: numpy joins records field by field
            out.append(
                np.concatenate([r.view(np.uint8) for r in run]).view(TRACK_STATE) if len(run) > 1 else run[0]
            )
            run = []
        if event is not None:
            out.append(event)
    return out


def updates(picture: Picture, log: Log, ms: Measurements, slots: npt.NDArray[np.int64]) -> StructArray:
    """The updates in the log, in the order they were made: TRACK_STATE[n]. ``slots`` (n,): theirs."""
    n = len(slots)
    rows = log.row[:n]
    out = np.zeros(n, TRACK_STATE)
    out["track"] = picture.number[slots]
    out["epoch_ns"] = out["last_ob_ns"] = ms.t[rows]
    out["status"] = log.status[:n]
    out["x"] = log.x[:n]
    out["P"] = log.P[:n].reshape(n, 6, 6)
    out["sensors"] = log.sensors[:n]
    out["object"] = picture.object[slots]
    out["object_p"] = picture.object_p[slots]
    out["updates"] = log.hits[:n]
    out["nis"] = log.nis[:n]
    out["dof"] = DEGREES[log.used[:n]]
    out["existence"] = log.exist[:n]
    return out
