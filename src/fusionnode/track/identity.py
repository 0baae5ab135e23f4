"""When two tracks are one object, and when a new orbit is the old track's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from fusionnode.core.types import Status
from fusionnode.track.coarse import refresh_all, refresh_coarse
from fusionnode.track.engine import Engine
from fusionnode.track.initiate import NewOrbit
from fusionnode.track.picture import RING, Picture, Rules

GATE = float(chi2.ppf(0.9999, 6))
MERGE_M = 3_000.0
"""Tracks further apart than this are not the same object, whatever their covariances say."""
CONTINUE_FACTOR = 25.0
CONTINUE_FLOOR = np.diag([1.0e6] * 3 + [1.0e2] * 3)
"""An orbit continues a track within the track's covariance times the factor plus this floor (m^2, m^2/s^2)."""


def seen_beside(picture: Picture, slot: int, times_ns: npt.NDArray[np.int64]) -> bool:
    """Whether the track in ``slot`` was updated at one of these times: then what else was seen there is another."""
    return bool(np.intersect1d(recent_hits(picture, slot), times_ns).size)


def recent_hits(picture: Picture, slot: int) -> npt.NDArray[np.int64]:
    """Times of the newest hits, TAI ns, in no order."""
    return picture.ring[slot, : min(RING, int(picture.hits[slot]))]


def double_of(picture: Picture, engine: Engine, rules: Rules, slot: int) -> int | None:
    """Another track that is the one in ``slot`` within both covariances, and was not seen beside it."""
    p = picture
    t_ns = int(p.epoch[slot])
    for other in _within(p, rules, p.x[slot, :3], t_ns, 1.0):
        if other == slot or p.epoch[other] > t_ns or seen_beside(p, other, recent_hits(p, slot)):
            continue
        _bring(p, engine, rules, other, t_ns)
        d = p.x[slot] - p.x[other]
        both = (p.P[slot] + p.P[other]).reshape(6, 6)
        if np.linalg.norm(d[:3]) < MERGE_M and _distance2(d, both) <= GATE:
            return other
    return None


def continued_by(picture: Picture, engine: Engine, rules: Rules, orbit: NewOrbit) -> int | None:
    """The track that this orbit most likely belongs to, though its detections did not: its object has manoeuvred, or
    the track had been led astray. Not one that was seen beside them.
    """
    p = picture
    t = orbit.used["t_meas_ns"]
    end = int(t[-1])
    best, best_d2 = None, GATE
    for other in _within(p, rules, orbit.x[:3], end, CONTINUE_FACTOR):
        if p.epoch[other] > end or seen_beside(p, other, t):
            continue
        _bring(p, engine, rules, other, end)
        both = (orbit.P + CONTINUE_FACTOR * p.P[other]).reshape(6, 6) + CONTINUE_FLOOR
        d2 = _distance2(orbit.x - p.x[other], both)
        if d2 <= best_d2:
            best, best_d2 = other, d2
    return best


def _within(p: Picture, rules: Rules, r: npt.NDArray[np.float64], t_ns: int, factor: float) -> list[int]:
    """Tracks that were confirmed, whose coarse position is within reach of ``r`` (3,), m."""
    refresh_all(p, t_ns, rules.model)
    high = int(p.high[0])
    dt = (t_ns - p.coarse_ns[:high]) * 1e-9
    where = p.coarse[:3, :high] + dt * p.coarse[3:6, :high] + 0.5 * dt * dt * p.coarse[6:9, :high]
    apart = np.linalg.norm(where - r[:, None], axis=0)
    sigma = p.coarse_sigma[0, :high] + np.abs(dt) * p.coarse_sigma[1, :high]
    reach = 2.0 * MERGE_M + 6.0 * np.sqrt(factor) * sigma
    near = p.active[:high] & (p.status[:high] != Status.TENTATIVE) & (apart < reach)
    return [int(slot) for slot in np.flatnonzero(near)]


def _bring(p: Picture, engine: Engine, rules: Rules, slot: int, t_ns: int) -> None:
    engine.predict(p, np.array([slot]), t_ns, rules)
    refresh_coarse(p, slot)


def _distance2(d: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64]) -> float:
    return float(d @ np.linalg.solve(covariance, d))
