"""When two tracks are one object, and when a new orbit is the old track's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from fusionnode.core.types import Status
from fusionnode.track.association.coarse import alone_within, refresh_all, refresh_coarse, tracks_within
from fusionnode.track.distance import distance2
from fusionnode.track.filtering.engine import Engine
from fusionnode.track.initiation.initiate import NewOrbit
from fusionnode.track.picture import RING, Picture, Rules

GATE = float(chi2.ppf(0.9999, 6))
JUST_NOW_NS = 10_000_000_000
AGREE = float(chi2.ppf(0.99, 6))
MERGE_M = 3_000.0
"""Tracks further apart than this are not the same object, whatever their covariances say."""
CONTINUE_FACTOR = 25.0
MANOEUVRE_M_S = 10.0
ASTRAY_M = 300.0
"""What continues a track that lost its object lies within the track's covariance times the factor, plus what being led
astray, or a manoeuvre since its last measurement, can make (at most MERGE_M / 3).
"""
MANY = 16
"""Tracks from which on it pays to look for the neighbours of all of them at once."""
_REACH_SIGMAS = 6.0 * float(np.sqrt(CONTINUE_FACTOR))


def same_scan(
    picture: Picture, slot: int, sensors: npt.NDArray[np.int64], times_ns: npt.NDArray[np.int64]
) -> bool:
    """Whether the track in ``slot`` was updated by one of these sensors at its time here: then what else the sensor
    saw at that time is another object.
    """
    n = min(RING, int(picture.ring_n[slot]))
    mine = set(zip(picture.ring_sensor[slot, :n].tolist(), picture.ring[slot, :n].tolist(), strict=True))
    return any(hit in mine for hit in zip(sensors.tolist(), times_ns.tolist(), strict=True))


def seen_beside(picture: Picture, slot: int, other: int) -> bool:
    """Whether two tracks were updated in the same scan lately: then they are two objects."""
    n = min(RING, int(picture.ring_n[other]))
    return same_scan(picture, slot, picture.ring_sensor[other, :n], picture.ring[other, :n])


def recent_hits(picture: Picture, slot: int) -> npt.NDArray[np.int64]:
    """Times of the newest hits, TAI ns, in no order."""
    return picture.ring[slot, : min(RING, int(picture.ring_n[slot]))]


def double_of(picture: Picture, engine: Engine, rules: Rules, slot: int) -> int | None:
    """Another track that is the one in ``slot``, and was not seen beside it."""
    for other in _within(picture, rules, picture.x[slot, :3], int(picture.epoch[slot])):
        if other != slot and are_one(picture, engine, rules, slot, other):
            return other
    return None


def alone(picture: Picture, rules: Rules, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of the tracks in ``slots`` (k,) have no other near that `double_of` would look at; False if that costs more
    to know than to look.
    """
    t_ns = int(picture.epoch[slots[0]]) if len(slots) else 0
    if len(slots) < MANY or (picture.epoch[slots] != t_ns).any():
        return np.zeros(len(slots), np.bool_)
    refresh_all(picture, t_ns, rules.model)
    found: npt.NDArray[np.bool_] = alone_within(picture, slots, t_ns, 2.0 * MERGE_M, _REACH_SIGMAS)
    return found


def apart_from(
    picture: Picture, slots: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Which of the tracks in ``slots`` are out of reach of all ``others``, which stand where they do, (k,) bool."""
    p = picture
    reach = 2.0 * MERGE_M + _REACH_SIGMAS * p.coarse_sigma[0, others]
    apart = np.linalg.norm(p.x[slots, None, :3] - p.coarse[:3, others].T, axis=2)
    out: npt.NDArray[np.bool_] = (apart > 1.001 * reach).all(axis=1)
    return out


def are_one(picture: Picture, engine: Engine, rules: Rules, slot: int, other: int) -> bool:
    """Whether the tracks are one object: within both covariances, never seen beside each other. ``other`` is taken to
    the time of the one in ``slot``; if nothing has seen it for a while, it may have gone astray.
    """
    p = picture
    t_ns = int(p.epoch[slot])
    if p.epoch[other] > t_ns or seen_beside(p, slot, other):
        return False
    _bring(p, engine, rules, other, t_ns)
    d = p.x[slot] - p.x[other]
    P = p.P[other].reshape(6, 6)
    if p.status[other] == Status.COASTING:
        P = _loosened(P, t_ns - int(p.last_ob[other]))
    both = p.P[slot].reshape(6, 6) + P
    return bool(np.linalg.norm(d[:3]) < MERGE_M) and distance2(d, both) <= GATE


def says_more(picture: Picture, slot: int, other: int) -> bool:
    """Of two tracks that are one object, at one time: whether the one in ``slot`` is to go on.

    Where the two agree, or were both updated just now, it is the one that is known better: a few detections that a
    track of days did not take, at the end of a pass, must not put their orbit in its place. Else one has gone astray,
    and it is the one that was updated last.
    """
    p = picture
    P, Q = p.P[slot].reshape(6, 6), p.P[other].reshape(6, 6)
    both_now = abs(int(p.last_ob[slot]) - int(p.last_ob[other])) < JUST_NOW_NS
    if p.epoch[slot] == p.epoch[other] and (both_now or distance2(p.x[slot] - p.x[other], P + Q) <= AGREE):
        volume, of_other = np.linalg.slogdet(P), np.linalg.slogdet(Q)
        if volume[0] > 0 and of_other[0] > 0 and volume[1] != of_other[1]:
            return bool(volume[1] < of_other[1])
    return bool(p.last_ob[slot] >= p.last_ob[other])


def is_sharp(orbit: NewOrbit) -> bool:
    """Whether a new orbit is known well enough to say which track it continues; a wide one could continue any."""
    return bool(
        orbit.P[0] + orbit.P[7] + orbit.P[14] <= MERGE_M**2 and orbit.P[21] + orbit.P[28] + orbit.P[35] <= 1e5
    )


def continued_by(picture: Picture, engine: Engine, rules: Rules, orbit: NewOrbit) -> int | None:
    """The track that this orbit most likely belongs to, though its detections did not: its object has manoeuvred, or
    the track had been led astray. Not one that was seen beside them.
    """
    p = picture
    t = orbit.used["t_meas_ns"]
    end = int(t[-1])
    best, best_d2 = None, GATE
    for other in _within(p, rules, orbit.x[:3], end):
        if p.epoch[other] > end or same_scan(p, other, orbit.used["sensor"], t):
            continue
        _bring(p, engine, rules, other, end)
        both = orbit.P.reshape(6, 6) + _loosened(p.P[other].reshape(6, 6), end - int(p.last_ob[other]))
        d2 = distance2(orbit.x - p.x[other], both)
        if d2 <= best_d2:
            best, best_d2 = other, d2
    return best


def _loosened(P: npt.NDArray[np.float64], unseen_ns: int) -> npt.NDArray[np.float64]:
    drift = min(ASTRAY_M + MANOEUVRE_M_S * unseen_ns * 1e-9, MERGE_M / 3.0)
    return CONTINUE_FACTOR * P + np.diag([drift**2] * 3 + [MANOEUVRE_M_S**2] * 3)


def _within(p: Picture, rules: Rules, r: npt.NDArray[np.float64], t_ns: int) -> list[int]:
    """Tracks that were confirmed, whose coarse position is within reach of ``r`` (3,), m."""
    refresh_all(p, t_ns, rules.model)
    found: list[int] = tracks_within(p, r, t_ns, 2.0 * MERGE_M, _REACH_SIGMAS).tolist()
    return found


def _bring(p: Picture, engine: Engine, rules: Rules, slot: int, t_ns: int) -> None:
    engine.predict(p, np.array([slot]), t_ns, rules)
    refresh_coarse(p, slot)
