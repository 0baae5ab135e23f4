"""Which tracks are worth a trial for a measurement: those whose cone holds its line of sight.

No pairs of sigma-accurate predictions are built. A track is held against a line of sight by its coarse position, with
a generous cone: a few nanoseconds a track. In a scan of many measurements, tracks are first sorted along one
coordinate of their direction, so that a measurement meets only those beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.track.association.coarse import refresh_all
from fusionnode.track.filtering.sensing import FIRST_COLUMN

CONE_M = 500.0
"""Added to every cone."""
CONE_SIGMAS = 6.0


MANY = 8
"""Measurements in a scan from which on sorting pays."""
WIDE_SINE = 0.05
"""A cone wider than this is held against every measurement."""


@kernel
def pairs_of_scan(picture, ms, start, end, rules, room):
    """Pairs worth a trial for measurements ``start`` to ``end`` of one scan, into ``room``; -1: too many."""
    refresh_all(picture, ms.t[start], rules.model)
    many = end - start >= MANY
    order = _sorted_by_direction(picture, ms.z[start], ms.t[start]) if many else _all_in_use(picture)
    n = 0
    for row in range(start, end):
        after = _select(picture, ms.z[row], ms.t[row], order, many, room.slots, n)
        if after < 0:
            return -1
        for i in range(n, after):
            room.rows[i] = row
        n = after
    return n


class _Order(NamedTuple):
    """Slots in use. The first ``wide`` are to be looked at for any line of sight; the rest ascend in ``key``,
    coordinate ``axis`` of their direction, and have cones of at most ``reach`` (sine).
    """

    slots: npt.NDArray[np.int64]
    key: npt.NDArray[np.float64]
    wide: int
    axis: int
    reach: float


@kernel
def _all_in_use(picture):
    slots = np.empty(picture.high[0], np.int64)
    n = 0
    for slot in range(picture.high[0]):
        if picture.active[slot]:
            slots[n] = slot
            n += 1
    return _Order(slots[:n], np.empty(0), n, 0, 0.0)


@kernel
def _sorted_by_direction(picture, z, t_ns):
    """Slots in use as seen from the site of ``z`` at ``t_ns``, sorted along the coordinate that spreads them most."""
    in_use = _all_in_use(picture).slots
    n = in_use.shape[0]
    direction = np.empty((3, n))
    narrow = np.empty(n, np.bool_)
    reach = 0.0
    wide = 0
    for i in range(n):
        slot = in_use[i]
        dx, dy, dz, sigma = _offset(picture, slot, z, t_ns)
        distance = np.sqrt(dx * dx + dy * dy + dz * dz)
        direction[0, i] = dx / distance
        direction[1, i] = dy / distance
        direction[2, i] = dz / distance
        sine = (CONE_M + CONE_SIGMAS * sigma) / distance
        narrow[i] = sine <= WIDE_SINE
        if narrow[i]:
            reach = max(reach, sine)
        else:
            wide += 1
    axis = 0
    spread = -1.0
    for k in range(3):
        width = np.std(direction[k]) if n else 0.0
        if width > spread:
            axis, spread = k, width
    slots = np.empty(n, np.int64)
    key = np.empty(n - wide)
    at_wide = 0
    at = 0
    rest = np.empty(n - wide, np.int64)
    for i in range(n):
        if narrow[i]:
            rest[at] = in_use[i]
            key[at] = direction[axis, i]
            at += 1
        else:
            slots[at_wide] = in_use[i]
            at_wide += 1
    by_key = np.argsort(key, kind="mergesort")
    slots[wide:] = rest[by_key]
    return _Order(slots, key[by_key], wide, axis, reach)


@kernel
def _offset(picture, slot, z, t_ns):
    """Where a track is from the site of ``z``: three components, m, and the sigma of its position, m."""
    c = picture.coarse
    dt = (t_ns - picture.coarse_ns[slot]) * 1e-9
    half = 0.5 * dt * dt
    return (
        c[0, slot] + dt * c[3, slot] + half * c[6, slot] - z[FIRST_COLUMN],
        c[1, slot] + dt * c[4, slot] + half * c[7, slot] - z[FIRST_COLUMN + 1],
        c[2, slot] + dt * c[5, slot] + half * c[8, slot] - z[FIRST_COLUMN + 2],
        picture.coarse_sigma[0, slot] + abs(dt) * picture.coarse_sigma[1, slot],
    )


@kernel
def _select(picture, z, t_ns, order, many, slots, n):
    """Append the tracks whose cone holds the line of sight of ``z`` to ``slots`` from ``n``; the new count, or -1."""
    lx, ly, lz = z[FIRST_COLUMN + 6], z[FIRST_COLUMN + 7], z[FIRST_COLUMN + 8]
    angle = np.sqrt(max(z[FIRST_COLUMN + 18], z[FIRST_COLUMN + 19]))
    first, last = order.wide, order.slots.shape[0]
    if many and CONE_SIGMAS * angle <= WIDE_SINE:
        # two directions whose angle has this sine differ by at most 1.01 of it in any coordinate
        reach = 1.01 * (order.reach + CONE_SIGMAS * angle)
        here = z[FIRST_COLUMN + 6 + order.axis]
        first = order.wide + np.searchsorted(order.key, here - reach)
        last = order.wide + np.searchsorted(order.key, here + reach, side="right")
    for i in range(order.wide + last - first):
        slot = order.slots[i] if i < order.wide else order.slots[first + i - order.wide]
        dx, dy, dz, sigma = _offset(picture, slot, z, t_ns)
        along = dx * lx + dy * ly + dz * lz
        across2 = dx * dx + dy * dy + dz * dz - along * along
        cone = CONE_M + CONE_SIGMAS * (sigma + angle * along)
        if along > 0.0 and across2 <= cone * cone:
            if n >= slots.shape[0]:
                return -1
            slots[n] = slot
            n += 1
    return n
