"""Which tracks are worth a trial for a measurement: those whose cone holds its line of sight.

No pairs of sigma-accurate predictions are built. A track is held against a line of sight by its coarse position, with
a generous cone: a few nanoseconds a track. In a scan of many measurements, tracks are first carried to its time and
put into cells of the sky, so that a measurement meets only those around it.
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
"""Measurements in a scan from which on cells pay."""
WIDEST = (0.003, 0.012, 0.05)
"""Tracks are told apart by the sine of their cone: up to so much. A wider one is held against every measurement."""
MOST_CELLS = 64
"""Along each of two coordinates of the direction."""
BLOCK = 64
"""Tracks that a lone line of sight is held against at a time, without a branch between them."""


@kernel
def pairs_of_scan(picture, ms, start, end, rules, room):
    """Pairs worth a trial for measurements ``start`` to ``end`` of one scan, into ``room``; -1: too many."""
    t_ns = ms.t[start]
    refresh_all(picture, t_ns, rules.model)
    high, active = picture.high[0], picture.active
    coarse, sigma, coarse_ns = picture.coarse, picture.coarse_sigma, picture.coarse_ns
    many = end - start >= MANY
    sky = _sky(high if many else 0, active, coarse, sigma, coarse_ns, ms.z[start], t_ns)
    site = start
    n = 0
    for row in range(start, end):
        z = ms.z[row]
        if many:
            if not _same_site(z, ms.z[site]):
                site = row
                sky = _sky(high, active, coarse, sigma, coarse_ns, z, t_ns)
            after = _select(sky, z, room.slots, n)
        else:
            after = _select_of_all(high, active, coarse, sigma, coarse_ns, z, t_ns, room.slots, n)
        if after < 0:
            return -1
        for i in range(n, after):
            room.rows[i] = row
        n = after
    return n


class _Sky(NamedTuple):
    """Tracks in use as seen from a site, by cells of two coordinates of their direction.

    Cell (i, j) of class c holds those from ``begin[(c * side + i) * side + j]`` on; those with the widest cones come
    after all cells.
    """

    slots: npt.NDArray[np.int64]  # (n,)
    seen: npt.NDArray[np.float64]  # (n, 4) where each is from the site, m, and the sigma of its position, m
    begin: npt.NDArray[np.int64]  # (classes * side * side + 1,)
    side: int
    axes: tuple[int, int]
    reach: npt.NDArray[np.float64]  # (classes,) largest sine of a cone


@kernel
def _same_site(z, other):
    x, y, w = FIRST_COLUMN, FIRST_COLUMN + 1, FIRST_COLUMN + 2
    return z[x] == other[x] and z[y] == other[y] and z[w] == other[w]


@kernel
def _cell(direction, side):
    """Of a coordinate of a direction."""
    return min(max(int((direction + 1.0) * 0.5 * side), 0), side - 1)


@kernel
def _sky(high, active, coarse, coarse_sigma, coarse_ns, z, t_ns):
    """Tracks in use as seen from the site of ``z`` at ``t_ns``."""
    n = 0
    for slot in range(high):
        n += active[slot]
    in_use = np.empty(n, np.int64)
    seen = np.empty((n, 4))
    direction = np.empty((3, n))
    kind = np.empty(n, np.int64)
    classes = len(WIDEST)
    reach = np.full(classes, -1.0)
    i = 0
    for slot in range(high):
        if not active[slot]:
            continue
        dt = (t_ns - coarse_ns[slot]) * 1e-9
        half = 0.5 * dt * dt
        dx = coarse[0, slot] + dt * coarse[3, slot] + half * coarse[6, slot] - z[FIRST_COLUMN]
        dy = coarse[1, slot] + dt * coarse[4, slot] + half * coarse[7, slot] - z[FIRST_COLUMN + 1]
        dz = coarse[2, slot] + dt * coarse[5, slot] + half * coarse[8, slot] - z[FIRST_COLUMN + 2]
        sigma = coarse_sigma[0, slot] + abs(dt) * coarse_sigma[1, slot]
        distance = np.sqrt(dx * dx + dy * dy + dz * dz)
        in_use[i] = slot
        seen[i, 0], seen[i, 1], seen[i, 2], seen[i, 3] = dx, dy, dz, sigma
        direction[0, i], direction[1, i], direction[2, i] = dx / distance, dy / distance, dz / distance
        sine = (CONE_M + CONE_SIGMAS * sigma) / distance
        kind[i] = classes
        for c in range(classes):
            if sine <= WIDEST[c]:
                kind[i] = c
                reach[c] = max(reach[c], sine)
                break
        i += 1
    narrowest, least = 0, np.inf
    for k in range(3):
        width = np.std(direction[k]) if n else 0.0
        if width < least:
            narrowest, least = k, width
    axes = ((narrowest + 1) % 3, (narrowest + 2) % 3)
    side = min(max(int(np.sqrt(n)), 1), MOST_CELLS)
    cells = classes * side * side
    begin = np.zeros(cells + 2, np.int64)
    cell = np.empty(n, np.int64)
    for i in range(n):
        cell[i] = cells
        if kind[i] < classes:
            row = kind[i] * side + _cell(direction[axes[0], i], side)
            cell[i] = row * side + _cell(direction[axes[1], i], side)
        begin[cell[i] + 1] += 1
    for k in range(cells + 1):
        begin[k + 1] += begin[k]
    at = begin.copy()
    slots = np.empty(n, np.int64)
    by_cell = np.empty((n, 4))
    for i in range(n):
        to = at[cell[i]]
        at[cell[i]] += 1
        slots[to] = in_use[i]
        for k in range(4):
            by_cell[to, k] = seen[i, k]
    return _Sky(slots, by_cell, begin, side, axes, reach)


@kernel
def _of_cells(sky, first, last, lx, ly, lz, angle, slots, n):
    """Append those from ``first`` to ``last`` whose cone holds the line of sight to ``slots``; the new count, or -1."""
    for k in range(first, last):
        dx, dy, dz, sigma = sky.seen[k, 0], sky.seen[k, 1], sky.seen[k, 2], sky.seen[k, 3]
        along = dx * lx + dy * ly + dz * lz
        across2 = dx * dx + dy * dy + dz * dz - along * along
        cone = CONE_M + CONE_SIGMAS * (sigma + angle * along)
        if along > 0.0 and across2 <= cone * cone:
            if n >= slots.shape[0]:
                return -1
            slots[n] = sky.slots[k]
            n += 1
    return n


@kernel
def _select(sky, z, slots, n):
    """Append the tracks whose cone holds the line of sight of ``z`` to ``slots`` from ``n``; the new count, or -1."""
    lx, ly, lz = z[FIRST_COLUMN + 6], z[FIRST_COLUMN + 7], z[FIRST_COLUMN + 8]
    angle = np.sqrt(max(z[FIRST_COLUMN + 18], z[FIRST_COLUMN + 19]))
    cells = sky.begin.shape[0] - 2
    if CONE_SIGMAS * angle > WIDEST[-1]:
        return _of_cells(sky, 0, sky.slots.shape[0], lx, ly, lz, angle, slots, n)
    a, b = z[FIRST_COLUMN + 6 + sky.axes[0]], z[FIRST_COLUMN + 6 + sky.axes[1]]
    side = sky.side
    for c in range(len(WIDEST)):
        if sky.reach[c] < 0.0:
            continue
        # two directions whose angle has this sine differ by at most 1.01 of it in any coordinate
        reach = 1.01 * (sky.reach[c] + CONE_SIGMAS * angle)
        low, high = _cell(b - reach, side), _cell(b + reach, side)
        for i in range(_cell(a - reach, side), _cell(a + reach, side) + 1):
            row = (c * side + i) * side
            n = _of_cells(sky, sky.begin[row + low], sky.begin[row + high + 1], lx, ly, lz, angle, slots, n)
            if n < 0:
                return -1
    return _of_cells(sky, sky.begin[cells], sky.slots.shape[0], lx, ly, lz, angle, slots, n)


@kernel
def _select_of_all(high, active, coarse, coarse_sigma, coarse_ns, z, t_ns, slots, n):
    """As `_select`, of all tracks, in the order of their slots."""
    lx, ly, lz = z[FIRST_COLUMN + 6], z[FIRST_COLUMN + 7], z[FIRST_COLUMN + 8]
    sx, sy, sz = z[FIRST_COLUMN], z[FIRST_COLUMN + 1], z[FIRST_COLUMN + 2]
    angle = np.sqrt(max(z[FIRST_COLUMN + 18], z[FIRST_COLUMN + 19]))
    inside = np.empty(BLOCK, np.uint8)
    for first in range(0, high, BLOCK):
        size = min(BLOCK, high - first)
        end = first + size
        x, y, w = coarse[0][first:end], coarse[1][first:end], coarse[2][first:end]
        vx, vy, vz = coarse[3][first:end], coarse[4][first:end], coarse[5][first:end]
        ax, ay, az = coarse[6][first:end], coarse[7][first:end], coarse[8][first:end]
        spread, grows = coarse_sigma[0][first:end], coarse_sigma[1][first:end]
        at, used = coarse_ns[first:end], active[first:end]
        some = np.uint8(0)
        for i in range(size):
            dt = (t_ns - at[i]) * 1e-9
            half = 0.5 * dt * dt
            dx = x[i] + dt * vx[i] + half * ax[i] - sx
            dy = y[i] + dt * vy[i] + half * ay[i] - sy
            dz = w[i] + dt * vz[i] + half * az[i] - sz
            along = dx * lx + dy * ly + dz * lz
            across2 = dx * dx + dy * dy + dz * dz - along * along
            cone = CONE_M + CONE_SIGMAS * (spread[i] + abs(dt) * grows[i] + angle * along)
            here = np.uint8(along > 0.0) & np.uint8(across2 <= cone * cone) & np.uint8(used[i])
            inside[i] = here
            some |= here
        if some == 0:
            continue
        for i in range(size):
            if inside[i]:
                if n >= slots.shape[0]:
                    return -1
                slots[n] = first + i
                n += 1
    return n
