"""CZML for Cesium, and StateVector records as the Unified Data Library takes them: both plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fusionnode.core import timescales
from fusionnode.release.exports.arcs import Arc, Markings

_UDL = (
    "classificationMarking", "epoch", "source", "dataMode", "uct", "satNo", "idOnOrbit", "referenceFrame",
    "xpos", "ypos", "zpos", "xvel", "yvel", "zvel", "cov", "covReferenceFrame",
)  # fmt: skip
_KNOWN = (255, 215, 0, 255)
_UNKNOWN = (255, 80, 60, 255)


def czml(arcs: Sequence[Arc], markings: Markings) -> str:
    """A document: each track a point with its path, in inertial axes, m and m/s.

    Between states that are not more than 180 s apart Cesium may interpolate; beyond, the object is not shown.
    """
    packets: list[dict[str, Any]] = []
    if arcs:
        first, last = min(int(a.t_ns[0]) for a in arcs), max(int(a.t_ns[-1]) for a in arcs)
        interval = f"{_utc(first)}/{_utc(last)}"
        clock = {"interval": interval, "currentTime": _utc(first), "multiplier": 60, "range": "LOOP_STOP"}
    else:
        clock = {}
    document: dict[str, Any] = {"id": "document", "name": markings.classification, "version": "1.0"}
    if clock:
        document["clock"] = clock
    document["description"] = "\n".join(markings.lines())
    packets.append(document)
    for arc in arcs:
        spans, positions = [], []
        for piece in arc.pieces():
            t = arc.t_ns[piece]
            span = f"{_utc(int(t[0]))}/{_utc(int(t[-1]))}"
            spans.append(span)
            numbers: list[float] = []
            for t_ns, x in zip(t.tolist(), arc.x[piece].tolist(), strict=True):
                numbers += [(t_ns - int(t[0])) / 1e9, *x]
            positions.append(
                {
                    "interval": span,
                    "epoch": _utc(int(t[0])),
                    "referenceFrame": "INERTIAL",
                    "interpolationAlgorithm": "HERMITE",
                    "interpolationDegree": 3,
                    "cartesianVelocity": numbers,
                }
            )
        colour = {"rgba": list(_UNKNOWN if arc.sat_no is None else _KNOWN)}
        name = arc.track_id if arc.sat_no is None else f"{arc.name} ({arc.sat_no})"
        packets.append(
            {
                "id": arc.track_id,
                "name": name,
                "description": _html("\n".join([f"Track {arc.track_id}", *markings.lines()])),
                "availability": spans if len(spans) > 1 else spans[0],
                "position": positions if len(positions) > 1 else positions[0],
                "point": {"pixelSize": 5, "color": {**colour}},
                "path": {"width": 1, "leadTime": 0, "trailTime": 3_000,
                         "material": {"solidColor": {"color": {**colour}}}},
                "label": {"text": name, "font": "10pt sans-serif", "pixelOffset": {"cartesian2": [8, -8]}},
                "properties": {
                    "classificationMarking": markings.classification,
                    "releasableTo": ", ".join(markings.releasable_to or ()),
                },
            }
        )  # fmt: skip
    return json.dumps(packets, allow_nan=False, separators=(",", ":")) + "\n"


def udl(arcs: Sequence[Arc], markings: Markings) -> str:
    """A JSON list of StateVector objects: km and km/s, covariance km, km/s as a lower triangle of 21.

    Names and units are those of the library's StateVector schema. The track's id is ``origObjectId``; who may have
    it, for which that schema has no field, is in ``tags`` as ``REL:`` and the name.
    """
    out = []
    for arc in arcs:
        for body in arc.bodies:
            record: dict[str, Any] = {key: body[key] for key in _UDL if body.get(key) is not None}
            record |= _marks(markings)
            record["origObjectId"] = arc.track_id
            if (last := body.get("lastObEnd")) is not None:
                record["lastObEnd"] = last
            record["tags"] = [f"REL:{who}" for who in markings.releasable_to or ()]
            out.append({key: value for key, value in record.items() if value is not None})
    return json.dumps(out, allow_nan=False, separators=(",", ":")) + "\n"


def _marks(markings: Markings) -> Mapping[str, str]:
    return {
        "classificationMarking": markings.classification,
        "source": markings.source,
        "dataMode": markings.data_mode,
    }


def _utc(t_ns: int) -> str:
    return timescales.utc_text(t_ns)


def _html(text: str) -> str:
    for char, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\n", "<br>")):
        text = text.replace(char, safe)
    return text
