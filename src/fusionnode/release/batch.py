"""States on their way out: what rules look at, what offsets make of them, and their bodies in bytes, each made once.

Several groups get the same states. What they ask for alike (fields, precision) is computed and packed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgpack
import numpy as np
import numpy.typing as npt

from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import KnownObject, Status, StructArray
from fusionnode.release import wire
from fusionnode.release.precision import EARTH_RADIUS_M, EXACT, MU, Offset, Offsets

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

FIELDS = (
    "uct", "satNo", "idOnOrbit", "name", "objectProbability", "sensors", "lastObEnd", "nis", "dof", "updates",
    "existence", "provenance",
)  # fmt: skip
"""What of a state a rule may withhold."""

GEO_PERIOD_S = 86_164.0905
_FLATTENING = 1.0 / 298.257223563
_LEO_KM = 2_000.0
_HEO_E = 0.25


class Traits(NamedTuple):
    """What rules look at, of the osculating orbits of states (n, 6) in GCRF; a number that is not one is nan."""

    inclination_deg: F64
    perigee_km: F64
    apogee_km: F64
    regime: npt.NDArray[np.int64]  # index into REGIMES, -1: none


REGIMES = ("leo", "meo", "geo", "heo")


class Context(NamedTuple):
    """What the node knows that states do not say."""

    orientation: EarthOrientation
    known_object: Callable[[int], KnownObject | None]
    sat_numbers: npt.NDArray[np.int64]  # of the catalogue's rows
    sensor_names: Sequence[str]
    provenance: Sequence[str]
    offsets: Offsets


class Body(NamedTuple):
    """One state without envelope, names of the track, and markings: packed pairs of key and value."""

    packed: bytes
    pairs: int
    own_id: bool  # idOnOrbit is still to come, and is the track's id


class StateBatch:
    """TRACK_STATE[n], looked at from all sides."""

    def __init__(self, states: StructArray, context: Context) -> None:
        self.states = states
        self._context = context
        self._moved: dict[int, tuple[F64, F64]] = {EXACT: (states["x"], states["P"])}
        self._traits: dict[int, Traits] = {}
        self._below: dict[int, tuple[F64, F64]] = {}
        self._columns: dict[int, list[tuple[Any, ...]]] = {}
        self._bodies: dict[tuple[int, frozenset[str] | None], dict[int, Body]] = {}
        self.offsets: list[Offset] | None = None

    def __len__(self) -> int:
        return len(self.states)

    @cached_property
    def finite(self) -> Bool:
        """(n,) whether all numbers of the state and its covariance are."""
        s = self.states
        return wire.finite_rows(s["x"], s["P"])

    @cached_property
    def rows(self) -> list[tuple[int, int, int, int]]:
        """Track, epoch (TAI ns), row of the catalogue, and catalogue number (0: none) of each state."""
        s = self.states
        columns = (s["track"], s["epoch_ns"], s["object"], self.sat_no)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def copy_of(self, row: int) -> bytes:
        """The bytes of one state: TRACK_STATE[1], apart from the batch."""
        size = self.states.dtype.itemsize
        return self._raw[row * size : (row + 1) * size]

    @cached_property
    def _raw(self) -> bytes:
        return self.states.tobytes()

    @cached_property
    def sat_no(self) -> npt.NDArray[np.int64]:
        """(n,) catalogue numbers, 0: uncorrelated."""
        rows = self.states["object"]
        out = np.zeros(len(rows), np.int64)
        numbers = self._context.sat_numbers
        found = (rows >= 0) & (rows < len(numbers))
        out[found] = numbers[rows[found]]
        return out

    def moved(self, level: int) -> tuple[F64, F64]:
        """States and covariances (n, 6), (n, 6, 6) as a level of precision has them."""
        made = self._moved.get(level)
        if made is None:
            s = self.states
            x = np.where(self.finite[:, None], s["x"], _SOMEWHERE)
            P = np.where(self.finite[:, None, None], s["P"], 0.0)
            settled = self.finite & (s["status"] != int(Status.TENTATIVE))
            y, cov, self.offsets = self._context.offsets.apply(
                level, s["track"], self.sat_no, s["epoch_ns"], x, P, settled
            )
            bad = ~self.finite
            y[bad], cov[bad] = np.nan, np.nan
            made = self._moved[level] = (y, cov)
        return made

    def traits(self, level: int) -> Traits:
        """Of the states as a level of precision has them: a rule's edge must not tell where an object really is."""
        made = self._traits.get(level)
        if made is None:
            made = self._traits[level] = traits_of(self.moved(level)[0])
        return made

    def below(self, level: int) -> tuple[F64, F64]:
        """Geodetic latitude and longitude (deg, -180 to 180) of the points below the objects."""
        made = self._below.get(level)
        if made is None:
            r = self.moved(level)[0][:, :3]
            turn = self._context.orientation.gcrf_to_itrf(np.ascontiguousarray(self.states["epoch_ns"]))
            made = self._below[level] = geodetic_deg((turn * r[:, None, :]).sum(axis=2))
        return made

    def body(self, row: int, level: int, fields: frozenset[str] | None) -> Body:
        """The packed body of one row; ``fields`` None: all."""
        bodies = self._bodies.setdefault((level, fields), {})
        made = bodies.get(row)
        if made is None:
            made = bodies[row] = self._make(row, level, fields)
        return made

    def _make(self, row: int, level: int, fields: frozenset[str] | None) -> Body:
        columns = self._columns.get(level)
        if columns is None:
            y, cov = self.moved(level)
            columns = self._columns[level] = list(wire.state_columns(self.states, y, cov))
        body = wire.state_body("", columns[row], self._known(row), self._names(row))
        del body["trackId"]
        if fields is not None:
            body = {key: value for key, value in body.items() if key in fields or key not in _MAY_BE_WITHHELD}
        if fields is None or "provenance" in fields:
            body["provenance"] = list(self._context.provenance)
        if level != EXACT:
            # Of the exact state's update: they belong to no other. What is withheld stays away.
            body |= {key: None for key in ("nis", "dof") if key in body}
        own_id = body.get("idOnOrbit") == ""
        if own_id:
            del body["idOnOrbit"]
        return Body(pairs(body), len(body), own_id)

    def _known(self, row: int) -> KnownObject | None:
        which = int(self.states["object"][row])
        return self._context.known_object(which) if which >= 0 else None

    def _names(self, row: int) -> list[str]:
        mask = int(self.states["sensors"][row])
        return [name for i, name in enumerate(self._context.sensor_names) if mask >> i & 1]


_MAY_BE_WITHHELD = frozenset(FIELDS)
_SOMEWHERE = np.array([7.0e6, 0.0, 0.0, 0.0, 5.3e3, 5.3e3])
"""Stands in for states that are not finite, which are never released."""
_pack = msgpack.Packer(autoreset=True).pack


def pairs(items: Mapping[str, Any]) -> bytes:
    """Keys and values of a map, packed one after the other, without the map's head."""
    head = 1 if len(items) < 16 else 3
    return bytes(_pack(items))[head:]


def traits_of(x: F64) -> Traits:
    """Of states (n, 6) in GCRF, m and m/s (Vallado, Fundamentals of Astrodynamics, section 2.5)."""
    r, v = x[:, :3], x[:, 3:]
    h = np.cross(r, v)
    with np.errstate(all="ignore"):
        a = 1.0 / (2.0 / np.sqrt((r * r).sum(axis=1)) - (v * v).sum(axis=1) / MU)
        h2 = (h * h).sum(axis=1)
        e = np.sqrt(np.maximum(1.0 - h2 / (MU * a), 0.0))
        bound = np.isfinite(a) & (a > 0.0)
        inclination = np.degrees(np.arccos(np.clip(h[:, 2] / np.sqrt(h2), -1.0, 1.0)))
        perigee = np.where(bound, a * (1.0 - e) - EARTH_RADIUS_M, np.nan) / 1e3
        apogee = np.where(bound, a * (1.0 + e) - EARTH_RADIUS_M, np.nan) / 1e3
        period = 2.0 * math.pi * np.sqrt(np.where(bound, a, np.nan) ** 3 / MU)
        geo = (np.abs(period / GEO_PERIOD_S - 1.0) < 0.1) & (e < 0.1)
        regime = np.select([~bound, geo, e >= _HEO_E, apogee < _LEO_KM], [-1, 2, 3, 0], 1)
    return Traits(inclination, perigee, apogee, regime)


def geodetic_deg(r: F64) -> tuple[F64, F64]:
    """Latitude and longitude of positions (n, 3) in ITRF, on the WGS 84 ellipsoid; by iteration, to 1e-9 deg."""
    lon = np.degrees(np.arctan2(r[:, 1], r[:, 0]))
    e2 = _FLATTENING * (2.0 - _FLATTENING)
    across = np.hypot(r[:, 0], r[:, 1])
    lat = np.arctan2(r[:, 2], across * (1.0 - e2))
    for _ in range(6):
        n = EARTH_RADIUS_M / np.sqrt(1.0 - e2 * np.sin(lat) ** 2)
        lat = np.arctan2(r[:, 2] + e2 * n * np.sin(lat), across)
    return np.degrees(lat), lon
