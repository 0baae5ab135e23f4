"""A small picture, as a subscriber would have it."""

from __future__ import annotations

from typing import Any

from fusionnode.client import Heartbeat, State
from fusionnode.core.schema import ObjectState
from fusionnode.ops.live_view import View
from fusionnode.ops.stream_watch import StreamWatch


def state(track: str, **changes: Any) -> ObjectState:
    """A state over the equator at the Greenwich meridian of a day in 2006, changed as asked."""
    fields: dict[str, Any] = {
        "trackId": track,
        "epoch": "2006-06-25T12:40:00.000000Z",
        "referenceFrame": "GCRF",
        "xpos": 7000.0,
        "ypos": 0.0,
        "zpos": 0.0,
        "xvel": 0.0,
        "yvel": 7.546,
        "zvel": 0.0,
        "cov": [1e-4 if i in (0, 2, 5) else 0.0 for i in range(21)],
        "covReferenceFrame": "GCRF",
        "status": "confirmed",
        "uct": False,
        "satNo": 5,
        "idOnOrbit": "1958-002B",
        "name": "VANGUARD 1",
        "objectProbability": 0.99,
        "sensors": ["radar"],
        "lastObEnd": "2006-06-25T12:39:30.000000Z",
        "nis": 3.0,
        "dof": 4,
        "updates": 12,
        "existence": 0.9999,
        "classificationMarking": "U",
        "dataMode": "TEST",
        "source": "test",
    }
    return {**fields, **changes}  # type: ignore[typeddict-item]


SENSORS: dict[str, dict[str, Any]] = {
    "radar": {
        "kind": "radar",
        "alive": True,
        "latDeg": 14.6,
        "lonDeg": 121.0,
        "heightM": 60.0,
        "rateHz": 2.5,
        "latencyP50S": 0.21,
        "silentS": 0.4,
        "detections": 120,
        "outcomes": {"used": 100, "used_initiation": 4, "gated_out": 3, "unassociated": 6, "pending": 7},
    },
    "telescope": {"kind": "optical", "alive": False, "silentS": 75.0, "outcomes": {}, "detections": 0},
}


def view(*states: ObjectState, **changes: Any) -> View:
    """A view of these states, with a heartbeat heard."""
    stream = StreamWatch()
    stream.take(State(i + 1, s) for i, s in enumerate(states))
    stream.take([Heartbeat(99, "test", "2006-06-25T12:40:00.000000Z", len(states), {})])
    pieces: dict[str, Any] = {
        "states": {s["trackId"]: s for s in states},
        "sensors": SENSORS,
        "stream": stream,
        "seq": 99,
        "whole": True,
    }
    return View(**{**pieces, **changes})
