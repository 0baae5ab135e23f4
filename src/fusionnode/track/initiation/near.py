"""Which remembered detections can be of one object with a new one: those that it can have come from in the time.

Detections are kept in cells of space, so that a new one meets those around it, and not all there are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.track.filtering.sensing import FIRST_COLUMN
from fusionnode.track.initiation.fit import ESCAPE_MARGIN, JERK_M_S3
from fusionnode.track.motion.dynamics import MU

_R, _LOS, _RHO, _VAR = (FIRST_COLUMN + i for i in (0, 6, 15, 17))

CELL_M = 100_000.0
SIGMAS = 8.0
"""Of the worst detection remembered: more than `fit.consensus` allows to the two ends and to one in between."""
_OFFSET = 1 << 20


class Cells(NamedTuple):
    """``capacity`` remembered detections by where they are; those of a cell are chained, newest first."""

    where: npt.NDArray[np.float64]  # (capacity, 3) m, GCRF
    cell: npt.NDArray[np.int64]  # (capacity,) key of the cell
    older: npt.NDArray[np.int64]  # (capacity,) the next one with the same hash, or -1
    newest: npt.NDArray[np.int64]  # (buckets,) or -1
    worst: npt.NDArray[np.float64]  # (1,) largest position sigma so far, m


def make_cells(capacity: int) -> Cells:
    """Empty cells."""
    buckets = 1 << max(int(2 * capacity - 1).bit_length(), 4)
    return Cells(
        np.zeros((capacity, 3)),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.int64),
        np.full(buckets, -1, np.int64),
        np.zeros(1),
    )


@kernel
def _key(i, j, k):
    return ((i + _OFFSET) << 42) | ((j + _OFFSET) << 21) | (k + _OFFSET)


@kernel
def _bucket(key, cells):
    return ((key * 0x1E3779B97F4A7C15) >> 32) & (cells.newest.shape[0] - 1)


@kernel
def remember(cells, at, z):
    """Put detection ``z`` (a row of MEASUREMENT as float64, with range and angles) into place ``at``, the newest."""
    rho = z[_RHO]
    for i in range(3):
        cells.where[at, i] = z[_R + i] + rho * z[_LOS + i]
    sigma = np.sqrt(z[_VAR] + rho * rho * (z[_VAR + 1] + z[_VAR + 2]))
    cells.worst[0] = max(cells.worst[0], sigma)
    w = cells.where[at] / CELL_M
    key = _key(np.int64(np.floor(w[0])), np.int64(np.floor(w[1])), np.int64(np.floor(w[2])))
    bucket = _bucket(key, cells)
    cells.cell[at] = key
    cells.older[at] = cells.newest[bucket]
    cells.newest[bucket] = at


@kernel
def _reachable(cells, t_ns, at, k, escape, gravity):
    age = (t_ns[at] - t_ns[k]) * 1e-9
    # light time, taken off both, changes their distance in time by less than this
    age += 0.01
    reach = escape * age + 0.5 * gravity * age * age + JERK_M_S3 * age**3 + SIGMAS * cells.worst[0]
    d2 = 0.0
    for i in range(3):
        d2 += (cells.where[at, i] - cells.where[k, i]) ** 2
    return d2 <= reach * reach


@kernel
def around(cells, t_ns, alive, first, at):
    """Places from ``first`` to ``at`` whose detections can be of one object with the one at ``at``: ascending, with it.

    ``t_ns`` (capacity,): their times; ``alive`` (capacity,): only those are looked at.
    """
    here = cells.where[at]
    r = np.sqrt(here[0] ** 2 + here[1] ** 2 + here[2] ** 2)
    gravity = MU / (r * r)
    escape = ESCAPE_MARGIN * np.sqrt(2.0 * MU / r)
    age = (t_ns[at] - t_ns[first]) * 1e-9 + 0.01
    most = escape * age + 0.5 * gravity * age * age + JERK_M_S3 * age**3 + SIGMAS * cells.worst[0]
    n = at - first + 1
    found = np.empty(n, np.int64)
    count = 0
    side = 2.0 * most / CELL_M + 2.0
    if side * side * side >= n:
        for k in range(first, at + 1):
            if alive[k] and _reachable(cells, t_ns, at, k, escape, gravity):
                found[count] = k
                count += 1
        return found[:count]
    low = np.empty(3, np.int64)
    high = np.empty(3, np.int64)
    for i in range(3):
        low[i] = np.int64(np.floor((here[i] - most) / CELL_M))
        high[i] = np.int64(np.floor((here[i] + most) / CELL_M))
    for i in range(low[0], high[0] + 1):
        for j in range(low[1], high[1] + 1):
            for m in range(low[2], high[2] + 1):
                key = _key(i, j, m)
                k = cells.newest[_bucket(key, cells)]
                while k >= first:
                    if cells.cell[k] == key and alive[k] and _reachable(cells, t_ns, at, k, escape, gravity):
                        found[count] = k
                        count += 1
                    k = cells.older[k]
    return np.sort(found[:count])


@kernel
def remember_until(
    cells, memory, t_ns, channels, near, alive, first, end, z, t, bits, rows, is_near, start, short, enough
):
    """Put measurements ``rows[start:]`` into memory from place ``end`` on, until one may be of a new object.

    ``z`` (M, 27), ``t``, ``bits`` (M,): all there are, times and Channel bits; ``is_near`` as ``rows``. Stops after one
    that ``enough`` detections, itself included, can be of one object with: returns one past it, and their places as
    `around` gives them (none, if there was no such row). As long as ``short`` more are missing, none is looked for.
    ``memory`` (capacity, 27), ``t_ns``, ``channels``, ``near``, ``alive``: (capacity,), changed in place.
    """
    for i in range(start, rows.shape[0]):
        row = rows[i]
        at = end + i - start
        for k in range(z.shape[1]):
            memory[at, k] = z[row, k]
        t_ns[at], channels[at], near[at], alive[at] = t[row], bits[row], is_near[i], True
        remember(cells, at, z[row])
        if i - start + 1 < short:
            continue
        which = around(cells, t_ns, alive, first, at)
        if which.shape[0] >= enough:
            return i + 1, which
    return rows.shape[0], np.empty(0, np.int64)
