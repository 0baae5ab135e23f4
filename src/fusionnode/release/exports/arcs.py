"""What all exports are made from: published states, gathered by track, in SI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fusionnode.core import timescales

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

GAP_NS = 180_000_000_000
"""States that are further apart are not joined: what lies between was not observed."""
_AXES = ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")
_ROWS, _COLUMNS = np.tril_indices(6)


@dataclass(frozen=True)
class Markings:
    """What has to stand on everything that leaves.

    Attributes:
        originator: the node's id.
        classification, source, data_mode: as configured for the node or the group.
        releasable_to: of the group; None: the node's own, released to nobody by this.
        group: whose policy the states went through; None: nobody's.
    """

    originator: str
    classification: str
    source: str
    data_mode: str
    releasable_to: tuple[str, ...] | None
    group: str | None = None

    def lines(self) -> list[str]:
        """One line each, for formats that have no place for them."""
        to = "not marked for release (the node's own)"
        if self.releasable_to is not None:
            to = ", ".join(self.releasable_to)
        out = [
            f"Classification marking: {self.classification}",
            f"Releasable to: {to}",
            f"Source: {self.source}",
            f"Data mode: {self.data_mode}",
            f"Originator: {self.originator}",
        ]
        return out if self.group is None else [*out, f"Release group: {self.group}"]


@dataclass
class Arc:
    """States of one track, in order of time, one an epoch.

    Attributes:
        track_id, name, object_id: names; ``object_id`` is the international designator, else the track's.
        sat_no: catalogue number, or None.
        t_ns: (n,) TAI ns.
        x: (n, 6) m, m/s, GCRF.
        P: (n, 6, 6) SI.
        bodies: n states as published.
        events: of the track, as published.
    """

    track_id: str
    name: str
    object_id: str
    sat_no: int | None
    t_ns: I64
    x: F64
    P: F64
    bodies: list[Mapping[str, Any]]
    events: list[Mapping[str, Any]] = field(default_factory=list)

    def pieces(self) -> list[slice]:
        """Runs of states without a gap of more than `GAP_NS`."""
        cuts = [0, *(np.flatnonzero(np.diff(self.t_ns) > GAP_NS) + 1).tolist(), len(self.t_ns)]
        return [slice(a, b) for a, b in pairwise(cuts)]


def arcs(
    states: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]] = (), *, tentative: bool = False
) -> list[Arc]:
    """States as published (UDL field names, km) by track, in order of track id.

    Of several at one epoch the last counts: a late measurement has put it right. Names are those of the newest state.
    States without covariance, and tentative ones unless asked for, are left out.

    Raises:
        ValueError: a state is not one; the text is one line.
    """
    by_track: dict[str, dict[int, Mapping[str, Any]]] = {}
    for body in states:
        try:
            if (body["status"] == "tentative" and not tentative) or len(body["cov"]) != 21:
                continue
            t_ns = timescales.tai_ns_from_utc_text(body["epoch"])
            by_track.setdefault(str(body["trackId"]), {})[t_ns] = body
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a published state: {error!r}") from None
    told: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        told.setdefault(str(event.get("trackId")), []).append(event)
    return [_arc(track, by_track[track], told.get(track, [])) for track in sorted(by_track)]


def _arc(track: str, by_time: Mapping[int, Mapping[str, Any]], events: list[Mapping[str, Any]]) -> Arc:
    times = sorted(by_time)
    bodies = [by_time[t] for t in times]
    newest = bodies[-1]
    lower = np.zeros((len(times), 6, 6))
    try:
        lower[:, _ROWS, _COLUMNS] = np.array([body["cov"] for body in bodies], float) * 1e6
        x = np.array([[body[axis] for axis in _AXES] for body in bodies], float) * 1e3
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{track}: not a published state: {error!r}") from None
    number = newest.get("satNo")
    return Arc(
        track_id=track,
        name=str(newest.get("name") or ("UNKNOWN" if number is None else number)),
        object_id=str(newest.get("idOnOrbit") or track),
        sat_no=None if number is None else int(number),
        t_ns=np.array(times, np.int64),
        x=x,
        P=lower + np.tril(lower, -1).transpose(0, 2, 1),
        bodies=bodies,
        events=events,
    )


def rtn(x: F64) -> F64:
    """(n, 3, 3) rows: radial, transverse, normal unit vectors of states (n, 6) (CCSDS 502.0-B-3, annex B)."""
    r, v = x[:, :3], x[:, 3:]
    radial = r / np.linalg.norm(r, axis=1, keepdims=True)
    normal = np.cross(r, v)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return np.stack([radial, np.cross(normal, radial), normal], axis=1)


def in_rtn(x: F64, P: F64) -> F64:
    """Covariances (n, 6, 6) along the axes of `rtn` at their instants; the axes are taken as not turning."""
    turn = np.zeros((len(x), 6, 6))
    turn[:, :3, :3] = turn[:, 3:, 3:] = rtn(x)
    return np.asarray(turn @ P @ turn.transpose(0, 2, 1))


def epoch(t_ns: int) -> str:
    """UTC as CCSDS writes it: no zone."""
    return timescales.utc_text(t_ns).removesuffix("Z")


def plain(text: str) -> str:
    """Printable ASCII on one line, as keyword=value text allows it."""
    out = "".join(c if " " <= c <= "~" else "?" for c in text).strip()
    return out or "UNKNOWN"


def names(values: Sequence[str]) -> str:
    """Joined by commas."""
    return ", ".join(values)
