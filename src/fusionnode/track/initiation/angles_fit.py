"""Least squares through directions alone: damped steps, in axes along and across the line of sight.

A short arc of directions says much of an orbit across the line of sight and next to nothing along it. In Cartesian axes
its normal equations cannot be solved in double precision; along and across, they can.
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.filtering.sensing import FIRST_COLUMN
from fusionnode.track.initiation.fit import normal_equations
from fusionnode.track.initiation.normal import inverse_of

_R, _LOS, _LON, _LAT, _RHO, _RR, _VAR = (FIRST_COLUMN + i for i in (0, 6, 9, 12, 15, 16, 17))
_BOTH = int(Channel.RANGE) | int(Channel.RANGE_RATE)

LEAST_PIVOT = 1e-15
"""Of the scaled normal matrix; below it the arc does not determine the orbit to the accuracy of double precision."""
NEAREST_M = 6.0e6
FURTHEST_M = 1.0e9
"""Distances from the centre of the Earth outside of which no step goes."""


@kernel
def _solve_turned(N, b, T, damping, inverse, step):
    """Solve (N + damping diag N) step = b in the axes whose rows are ``T`` (6, 6); says if it can be."""
    A = T @ N @ T.T
    for i in range(6):
        A[i, i] *= 1.0 + damping
    ok, B = inverse_of(A, LEAST_PIVOT)
    if not ok:
        return False
    B = T.T @ B @ T
    for i in range(6):
        step[i] = 0.0
        for j in range(6):
            inverse[i, j] = 0.5 * (B[i, j] + B[j, i])
            step[i] += B[i, j] * b[j]
    return True


@kernel
def fit_directions(W, z, t, channels, keep, n, epoch, model, most, x, P):
    """Orbit at ``epoch`` (TAI ns) of least squares through ``n`` measurements in time order, from ``x`` (6,) on.

    Levenberg and Marquardt's method (Nocedal & Wright, Numerical Optimization, section 10.3), at most ``most`` steps.
    ``z`` (n, 27), ``t`` (n,), ``channels`` (n,): measurements; ranges and rates among them count as well. ``keep``
    (n, 4): which channels count. Fills ``x``, and ``P`` (36,) with the inverse of the normal matrix, which is honest
    only where the arc is long enough for the problem to be linear over it. Returns (converged, chi-square, channels).
    """
    T = np.zeros((6, 6))
    last = n - 1
    for j in range(3):
        T[0, j] = T[3, 3 + j] = z[last, _LOS + j]
        T[1, j] = T[4, 3 + j] = z[last, _LON + j]
        T[2, j] = T[5, 3 + j] = z[last, _LAT + j]
    N, b = np.zeros((6, 6)), np.zeros(6)
    N_new, b_new = np.zeros((6, 6)), np.zeros(6)
    inverse, step = np.zeros((6, 6)), np.zeros(6)
    at = np.empty(6)
    chi2, count = normal_equations(W, z, t, channels, keep, n, x, epoch, model, N, b)
    damping = 1e-4
    settled = False
    for _ in range(most):
        if not chi2 < 1e30:
            return False, chi2, count
        taken = False
        if _solve_turned(N, b, T, damping, inverse, step):
            distance2 = 0.0
            for i in range(6):
                at[i] = x[i] + step[i]
                if i < 3:
                    distance2 += at[i] * at[i]
            if NEAREST_M**2 < distance2 < FURTHEST_M**2:
                chi2_new, _ = normal_equations(W, z, t, channels, keep, n, at, epoch, model, N_new, b_new)
                taken = chi2_new <= chi2
        if not taken:
            damping = max(10.0 * damping, 1e-4)
            if damping > 1e10:
                settled = True
                break
            continue
        gain = chi2 - chi2_new
        small = damping < 1e-2
        damping *= 0.1
        chi2 = chi2_new
        x[:] = at
        N[:, :] = N_new
        b[:] = b_new
        if gain < 1e-3 + 1e-6 * chi2 and small:
            settled = True
            break
    if not _solve_turned(N, b, T, 0.0, inverse, step):
        return False, chi2, count
    for i in range(6):
        for j in range(6):
            P[6 * i + j] = inverse[i, j]
    ahead = 0.0
    for i in range(3):
        ahead += z[last, _LOS + i] * (x[i] - z[last, _R + i])
    return settled and ahead > 0.0, chi2, count


@kernel
def fit_hypotheses(W, z, t, channels, n, model, most, places, x, P, chi2, good):
    """One fit for each row of ``places`` (h, 4): range, m, and its rate, m/s, at the last measurement, and the sigmas
    they are taken to be known by; as a pseudo-measurement in row ``n - 1`` (a copy of the last real one).

    ``x`` (h, 6) holds first guesses at that time; it, ``P`` (h, 36), ``chi2`` (h,), the pseudo-measurement's share
    included, and ``good`` (h,) are filled.
    """
    last = n - 1
    channels[last] = _BOTH
    keep = np.ones((n, 4), np.bool_)
    for h in range(len(places)):
        z[last, _RHO] = places[h, 0]
        z[last, _RR] = places[h, 1]
        z[last, _VAR] = places[h, 2] ** 2
        z[last, _VAR + 3] = places[h, 3] ** 2
        good[h], chi2[h], _ = fit_directions(W, z, t, channels, keep, n, t[last], model, most, x[h], P[h])
