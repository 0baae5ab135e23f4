"""Tracks of catalogued objects: a measurement, or a tracklet, that fits what the catalogue predicts begins one."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config
from fusionnode.core.types import Channel, KnownObject
from fusionnode.track.association.associate import Measurements, Room, gate
from fusionnode.track.association.coarse import refresh_coarse
from fusionnode.track.filtering.engine import Engine
from fusionnode.track.filtering.sensing import FIRST_COLUMN
from fusionnode.track.initiation.attributable import sighted
from fusionnode.track.initiation.tracklets import Tracklet
from fusionnode.track.picture import Rules
from fusionnode.track.roster import Roster
from fusionnode.track.told import DEGREES

Z_SITE_R, Z_LOS, Z_RANGE, Z_VAR = (FIRST_COLUMN + i for i in (0, 6, 15, 17))
"""Columns of a MEASUREMENT seen as float64."""
NEAREST_M = 500_000.0
"""How far a known object is taken to be at least, where no range was measured."""
BESIDE_RAD = 0.1
"""Catalogued objects within this of a direction say how densely objects lie there."""


class Who(Protocol):
    """What the tracker asks of a correlation (see `catalogue.correlate.Correlation`)."""

    def best(self) -> tuple[int, float] | None:
        """The likeliest object (row) and its probability, if there is a candidate."""
        ...

    def of(self, row: int) -> float:
        """The probability of one object."""
        ...


class Prior(Protocol):
    """What the tracker asks of the catalogue (see `catalogue.known.KnownObjects`)."""

    def near(
        self, los: npt.NDArray[np.float64], site_r: npt.NDArray[np.float64], t_ns: int, cone_rad: float
    ) -> npt.NDArray[np.int64]:
        """Rows of the objects whose prediction is within ``cone_rad`` of a line of sight."""
        ...

    def prior(self, row: int, t_ns: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """State (6,) and covariance (6, 6) of one object, if there is a prediction."""
        ...

    def object(self, row: int) -> KnownObject | None:
        """What an object is called."""
        ...

    def correlate(self, x: npt.NDArray[np.float64], P: npt.NDArray[np.float64], t_ns: int) -> Who:
        """Which objects a track may be."""
        ...

    def correlate_direction(self, direction: Any, delay: float = 1.0) -> Who:
        """Which objects a tracklet of directions (`attributable.Sighted`) may be, seen ``delay`` light times ago."""
        ...


class Candidacy(NamedTuple):
    """When a catalogued object may be what was measured."""

    reach_m: float  # how far from its prediction it is looked for
    name_from: float  # probability from which it is taken to be that one
    new_ratio: float  # how many objects the catalogue does not have, for each that it has


def candidacy(config: Config) -> Candidacy:
    """What ``config`` says of it."""
    c = config.catalogue
    reach_m = 6.0 * max(c.sigma_radial_m, c.sigma_along_m, c.sigma_cross_m)
    return Candidacy(reach_m, c.name_probability, c.new_object_ratio)


def start_known(
    known: Prior,
    may: Candidacy,
    roster: Roster,
    engine: Engine,
    rules: Rules,
    room: Room,
    ms: Measurements,
    row: int,
) -> int | None:
    """A slot for the catalogued object that the measurement ``row`` fits best; its trial is the first in ``room``.

    None if it fits none, or is more probably of an object that the catalogue does not have.
    """
    p, z, t_ns = roster.picture, ms.z[row], int(ms.t[row])
    distance = z[Z_RANGE] if ms.channels[row] & Channel.RANGE else NEAREST_M
    sigma = float(np.sqrt(z[Z_VAR + 1 : Z_VAR + 3].max()))
    cone = 6.0 * sigma + may.reach_m / distance
    best: tuple[float, int, int] | None = None
    likely: list[float] = []  # ln of each candidate's likelihood
    los, site_r = z[Z_LOS : Z_LOS + 3], z[Z_SITE_R : Z_SITE_R + 3]
    for candidate in known.near(los, site_r, t_ns, cone).tolist():
        prior = None if candidate in roster.track_of_object else known.prior(candidate, t_ns)
        slot = None if prior is None else roster.place(prior[0], prior[1].reshape(36), t_ns)
        if slot is None:
            continue
        p.exist[slot] = rules.birth
        cost = _try_one(roster, engine, rules, room, ms, slot, row)
        likely.append(_log_likelihood(room) if cost < np.inf else -np.inf)
        if cost < (best[0] if best else np.inf):
            if best is not None:
                roster.release(best[1])
            best = (cost, slot, candidate)
        else:
            roster.release(slot)
    if best is None:
        return None
    _, slot, candidate = best
    _try_one(roster, engine, rules, room, ms, slot, row)
    likely_new = _log_density(known, may, los, site_r, t_ns, int(room.trials.used[0]))
    weight = np.exp(np.array([*likely, likely_new]) - max(*likely, likely_new))
    if weight[-1] > may.name_from * weight.sum():
        roster.release(slot)
        return None
    probability = np.exp(_log_likelihood(room) - max(*likely, likely_new)) / weight.sum()
    roster.identify(slot, candidate, float(probability))
    return slot


def start_named(
    known: Prior,
    may: Candidacy,
    roster: Roster,
    engine: Engine,
    rules: Rules,
    room: Room,
    tracklet: Tracklet,
    ms: Measurements,
) -> int | None:
    """A slot for the catalogued object that a tracklet of directions most probably is, updated with all of them.

    ``ms``: the tracklet's measurements. None if there is no such object, or it does not fit them all.
    """
    rows, p = tracklet.rows, roster.picture
    who = known.correlate_direction(sighted(rows, tracklet.motion), float(rows["target_delay"][-1]))
    best = who.best()
    if best is None or best[1] < may.name_from or best[0] in roster.track_of_object:
        return None
    first_ns = int(ms.t[0])
    prior = known.prior(best[0], first_ns)
    slot = None if prior is None else roster.place(prior[0], prior[1].reshape(36), first_ns)
    if slot is None:
        return None
    for row in range(len(rows)):
        if not _try_one(roster, engine, rules, room, ms, slot, row) < np.inf:
            roster.release(slot)
            return None
        p.x[slot], p.P[slot], p.epoch[slot] = room.trials.x[0], room.trials.P[0], ms.t[row]
    refresh_coarse(p, slot)
    roster.identify(slot, *best)
    p.exist[slot], p.exist_ns[slot] = rules.birth, ms.t[-1]
    return slot


def _try_one(
    roster: Roster, engine: Engine, rules: Rules, room: Room, ms: Measurements, slot: int, row: int
) -> float:
    """Cost of one pair, which is then the first in the room; inf if it is out of its gate."""
    room.slots[0], room.rows[0] = slot, row
    engine.try_pairs(roster.picture, ms, 1, rules, room)
    held = gate(roster.picture, room, 1, ms, rules)
    return -float(room.gain[0]) if held else np.inf


def _log_likelihood(room: Room) -> float:
    """Of the first trial in the room, in the units of its channels."""
    trial = room.trials
    return -0.5 * float(trial.nis[0] + np.log(trial.det[0]) + DEGREES[trial.used[0]] * np.log(2.0 * np.pi))


def _log_density(
    known: Prior,
    may: Candidacy,
    los: npt.NDArray[np.float64],
    site_r: npt.NDArray[np.float64],
    t_ns: int,
    used: int,
) -> float:
    """ln of how densely objects that the catalogue does not have lie around a measurement, in the same units: as the
    catalogue's do around its direction; over a thousand kilometres, and over ten kilometres a second.
    """
    beside = max(len(known.near(los, site_r, t_ns, BESIDE_RAD)), 0.5)
    density = may.new_ratio * beside / (np.pi * BESIDE_RAD**2)
    density *= 1e-6 if used & Channel.RANGE else 1.0
    return float(np.log(density * (1e-4 if used & Channel.RANGE_RATE else 1.0)))
