"""Where tracks are, roughly: a state to carry on by a parabola, for selection only."""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import inlined, kernel
from fusionnode.core.types import Status
from fusionnode.track.motion.dynamics import MU, coarse_step
from fusionnode.track.picture import next_tick

_COASTING, _TENTATIVE = int(Status.COASTING), int(Status.TENTATIVE)

COARSE_NS = 20_000_000_000
"""A coarse state older than this is taken ahead first (its Taylor series is 15 m off by then in a low orbit)."""
FAR = 4.0
"""Tracks that reach farther than this times the least are held against all others."""


@inlined
def coarse_from(picture, slot):
    """As `refresh_coarse`, written out where it is used: to hand a whole picture to a function costs as much again."""
    for i in range(6):
        picture.coarse[i, slot] = picture.x[slot, i]
    _accelerate(picture.coarse, slot)
    P = picture.P
    picture.coarse_sigma[0, slot] = np.sqrt(P[slot, 0] + P[slot, 7] + P[slot, 14])
    picture.coarse_sigma[1, slot] = np.sqrt(P[slot, 21] + P[slot, 28] + P[slot, 35])
    picture.coarse_ns[slot] = picture.epoch[slot]


@kernel
def refresh_coarse(picture, slot):
    """Take the coarse state of ``slot`` from its track."""
    coarse_from(picture, slot)


@kernel
def refresh_all(picture, t_ns, model):
    """Take every coarse state that is too old for ``t_ns`` there."""
    r = np.zeros(3)
    v = np.zeros(3)
    for slot in range(picture.high[0]):
        if picture.active[slot] and abs(t_ns - picture.coarse_ns[slot]) > COARSE_NS:
            dt = (t_ns - picture.coarse_ns[slot]) * 1e-9
            for i in range(3):
                r[i] = picture.coarse[i, slot]
                v[i] = picture.coarse[3 + i, slot]
            coarse_step(r, v, dt, model)
            for i in range(3):
                picture.coarse[i, slot] = r[i]
                picture.coarse[3 + i, slot] = v[i]
            _accelerate(picture.coarse, slot)
            # along track a velocity error grows three times as fast as on a straight line
            picture.coarse_sigma[0, slot] += 3.0 * abs(dt) * picture.coarse_sigma[1, slot]
            picture.coarse_ns[slot] = t_ns


@kernel
def tracks_within(picture, r, t_ns, reach_m, sigmas):
    """Slots that are not tentative and coarsely within ``reach_m`` and ``sigmas`` of their sigma of ``r`` (3,) m."""
    found = np.empty(picture.high[0], np.int64)
    n = 0
    c = picture.coarse
    for slot in range(picture.high[0]):
        if not picture.active[slot] or picture.status[slot] == _TENTATIVE:
            continue
        dt = (t_ns - picture.coarse_ns[slot]) * 1e-9
        sigma = picture.coarse_sigma[0, slot] + abs(dt) * picture.coarse_sigma[1, slot]
        reach = reach_m + sigmas * sigma
        d2 = 0.0
        for i in range(3):
            d = c[i, slot] + dt * c[3 + i, slot] + 0.5 * dt * dt * c[6 + i, slot] - r[i]
            d2 += d * d
            if d2 >= reach * reach:
                break
        if d2 < reach * reach:
            found[n] = slot
            n += 1
    return found[:n]


@kernel
def alone_within(picture, slots, t_ns, reach_m, sigmas):
    """Which tracks have no other that `tracks_within` would find for them, (k,) bool.

    ``slots`` (k,): tracks that stand at ``t_ns``, TAI ns.
    """
    c = picture.coarse
    n = 0
    place = np.empty((picture.high[0], 3))
    reach = np.empty(picture.high[0])
    whose = np.empty(picture.high[0], np.int64)
    for slot in range(picture.high[0]):
        if not picture.active[slot] or picture.status[slot] == _TENTATIVE:
            continue
        dt = (t_ns - picture.coarse_ns[slot]) * 1e-9
        sigma = picture.coarse_sigma[0, slot] + abs(dt) * picture.coarse_sigma[1, slot]
        reach[n] = reach_m + sigmas * sigma
        for i in range(3):
            place[n, i] = c[i, slot] + dt * c[3 + i, slot] + 0.5 * dt * dt * c[6 + i, slot]
        whose[n] = slot
        n += 1
    # those of long reach come last, the others by their first coordinate
    order = np.argsort(np.where(reach[:n] <= FAR * reach_m, place[:n, 0], np.inf), kind="mergesort")
    key = place[order, 0]
    near = 0
    while near < n and reach[order[near]] <= FAR * reach_m:
        near += 1
    alone = np.ones(slots.shape[0], np.bool_)
    for k in range(slots.shape[0]):
        x = picture.x[slots[k]]
        first = np.searchsorted(key[:near], x[0] - FAR * reach_m)
        last = np.searchsorted(key[:near], x[0] + FAR * reach_m, side="right")
        for at in range(first, last + n - near):
            other = order[at if at < last else near + at - last]
            d2 = 0.0
            for i in range(3):
                d2 += (place[other, i] - x[i]) ** 2
            if d2 < reach[other] * reach[other] and whose[other] != slots[k]:
                alone[k] = False
                break
    return alone


@kernel
def coast_on(picture, slots, t_ns, every_ns, limit_ns, limit_m, least_existence):
    """Tracks that were just predicted to ``t_ns`` for want of measurements now coast; which may go on, (n,) bool.

    Not one unseen for ``limit_ns``, nor one whose position sigma exceeds ``limit_m``, nor one that exists with a
    probability below ``least_existence``.
    """
    kept = np.zeros(slots.shape[0], np.bool_)
    for i in range(slots.shape[0]):
        slot = slots[i]
        picture.status[slot] = _COASTING
        refresh_coarse(picture, slot)
        picture.due[slot] = next_tick(t_ns + 1, every_ns)
        kept[i] = (
            t_ns - picture.last_ob[slot] < limit_ns
            and picture.coarse_sigma[0, slot] <= limit_m
            and picture.exist[slot] >= least_existence
        )
    return kept


@kernel
def _accelerate(c, slot):
    r2 = c[0, slot] ** 2 + c[1, slot] ** 2 + c[2, slot] ** 2
    w = -MU / (r2 * np.sqrt(r2))
    for i in range(3):
        c[6 + i, slot] = w * c[i, slot]
