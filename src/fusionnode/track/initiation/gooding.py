"""Gooding's method: the orbit through three directions, by varying the ranges at its ends.

R. H. Gooding, A new procedure for the solution of the classical problem of minimal orbit determination from three lines
of sight, Celestial Mechanics and Dynamical Astronomy 66 (1997).
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import kernel
from fusionnode.track.motion.kepler import kepler, lambert

MOST_ITERATIONS = 30
SOLVED_RAD = 1e-7
LEAST_RANGE_M = 5e4
_AHEAD = 1e-5


@kernel
def _misses(t, R, L, plane, delay, logs, miss, x):
    """How far the orbit with ranges exp(``logs``) (2,) at the ends passes from the middle direction, rad, into ``miss``
    (2,); its state at the last time into ``x`` (6,). False where there is no such orbit, or it is behind.
    """
    rho1 = np.exp(logs[0])
    rho3 = np.exp(logs[1])
    r1 = np.empty(3)
    r3 = np.empty(3)
    v1 = np.empty(3)
    v3 = np.empty(3)
    for i in range(3):
        r1[i] = R[0, i] + rho1 * L[0, i]
        r3[i] = R[2, i] + rho3 * L[2, i]
    t1 = t[0] - delay[0] * rho1
    t3 = t[2] - delay[2] * rho3
    if not lambert(r1, r3, t3 - t1, v1, v3):
        return False
    start = np.empty(6)
    middle = np.empty(6)
    start[:3] = r1
    start[3:] = v1
    if not kepler(start, t[1] - t1, middle):
        return False
    distance = 0.0
    for i in range(3):
        distance += (middle[i] - R[1, i]) ** 2
    late = delay[1] * np.sqrt(distance)
    depth = 0.0
    miss[0] = 0.0
    miss[1] = 0.0
    for i in range(3):
        d = middle[i] - R[1, i] - late * middle[3 + i]
        depth += d * L[1, i]
        miss[0] += d * plane[0, i]
        miss[1] += d * plane[1, i]
    if not depth > 0.0:
        return False
    miss[0] /= depth
    miss[1] /= depth
    start[:3] = r3
    start[3:] = v3
    return kepler(start, delay[2] * rho3, x)


@kernel
def vary_ranges(t, R, L, plane, delay, logs, furthest, x):
    """Newton's method in the logarithms of the ranges at both ends, steps cut back until they help.

    ``t`` (3,): times, s. ``R``, ``L`` (3, 3): sites, m, and lines of sight. ``plane`` (2, 3): unit vectors of the
    middle direction's tangent plane. ``delay`` (3,): s the object was seen earlier for each m of range. ``logs`` (2,):
    ln of the ranges to begin with, m; changed. ``furthest``: ln of the largest range. Fills ``x`` (6,), the state at
    the last time; says if the orbit meets the middle direction. The orbit between the ends (Lambert's problem) is over
    less than half a revolution.
    """
    miss = np.empty(2)
    there = np.empty(2)
    at = np.empty(2)
    step = np.empty(2)
    J = np.empty((2, 2))
    scratch = np.empty(6)
    if not _misses(t, R, L, plane, delay, logs, miss, x):
        return False
    size = miss[0] ** 2 + miss[1] ** 2
    for _ in range(MOST_ITERATIONS):
        for k in range(2):
            at[:] = logs
            at[k] += _AHEAD
            if not _misses(t, R, L, plane, delay, at, there, scratch):
                return False
            J[0, k] = (there[0] - miss[0]) / _AHEAD
            J[1, k] = (there[1] - miss[1]) / _AHEAD
        det = J[0, 0] * J[1, 1] - J[0, 1] * J[1, 0]
        if det == 0.0:
            return False
        step[0] = -(J[1, 1] * miss[0] - J[0, 1] * miss[1]) / det
        step[1] = -(J[0, 0] * miss[1] - J[1, 0] * miss[0]) / det
        longest = max(abs(step[0]), abs(step[1]))
        if not longest < 1e30:
            return False
        factor = min(1.0, 0.5 / longest) if longest > 0.0 else 0.0
        better = False
        for _ in range(12):
            at[0] = logs[0] + factor * step[0]
            at[1] = logs[1] + factor * step[1]
            if _misses(t, R, L, plane, delay, at, there, scratch):
                new = there[0] ** 2 + there[1] ** 2
                if new < size:
                    better = True
                    break
            factor *= 0.5
        if not better:
            break
        logs[:] = at
        miss[:] = there
        x[:] = scratch
        size = new
        if size < 1e-20 or min(logs[0], logs[1]) < np.log(LEAST_RANGE_M) or max(logs[0], logs[1]) > furthest:
            break
    return size <= SOLVED_RAD**2
