"""What an object's drag and radiation coefficients are, estimated beside its state.

Two parameters p = (Cd A/m, Cr A/m) of a track, with their covariance PP (2 x 2) and their covariance C (6 x 2) with
the state. They move nothing but the forces, and a measurement sees them through the state only. So the filter goes on
with six states, and what an update does to these is carried over to the parameters by regression: the Kalman filter of
states and parameters together, with what is zero left out (Jazwinski, Stochastic Processes and Filtering Theory,
section 8.4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.config import Tracking
from fusionnode.core.kernels import kernel
from fusionnode.track.lanes import COEFFICIENTS, CROSS, DRAG, LANES, LIGHT, PHI, SPREAD, P, X, six

F64 = npt.NDArray[np.float64]

COLUMNS = 17
"""Of one track: p, then C row by row, then PP as (drag, both, radiation)."""
_C, _PP = 2, 14
PRIOR = 27 + COLUMNS
"""Of one trial: the predicted state, the lower triangle of its covariance, then as above."""
MOST = (10.0, 50.0)
"""Beyond these, m^2/kg, nothing in orbit is known; nor below zero."""
_LEAST_SHARE = 1e-6
_DAY_S = 86_400.0


def fresh(config: Tracking) -> F64:
    """What is known of a new track's coefficients, shape (COLUMNS,)."""
    row = np.zeros(COLUMNS)
    row[:2] = config.ballistic_m2_kg, config.srp_m2_kg
    row[_PP] = config.ballistic_sigma_m2_kg**2 * ("ballistic" in config.estimate)
    row[_PP + 2] = config.srp_sigma_m2_kg**2 * ("srp" in config.estimate)
    return row


def walk(config: Tracking) -> F64:
    """Variance that the two coefficients gain in a second, (m^2/kg)^2/s, shape (2,)."""
    return fresh(config)[[_PP, _PP + 2]] * config.coefficient_walk_per_day**2 / _DAY_S


@kernel
def load_coefficients(W, m, rows, slot, walk0, walk1, left):
    """Put the coefficients of the track in ``slot`` into lane ``m``, as uncertain as they are ``left`` s later."""
    for i in range(2):
        W[COEFFICIENTS + i * LANES + m] = rows[slot, i]
    for i in range(12):
        W[CROSS + i * LANES + m] = rows[slot, _C + i]
    for i in range(3):
        W[SPREAD + i * LANES + m] = rows[slot, _PP + i]
    W[SPREAD + m] += walk0 * abs(left)
    W[SPREAD + 2 * LANES + m] += walk1 * abs(left)


@kernel
def unload_coefficients(W, m, row):
    """Write what a prediction made of lane ``m``'s coefficients into ``row`` (COLUMNS,)."""
    for i in range(2):
        row[i] = W[COEFFICIENTS + i * LANES + m]
    for i in range(12):
        row[_C + i] = W[CROSS + i * LANES + m]
    for i in range(3):
        row[_PP + i] = W[SPREAD + i * LANES + m]


@kernel
def unload_prior(W, m, row):
    """Write the predicted state of lane ``m`` and its coefficients into ``row`` (PRIOR,)."""
    for i in range(6):
        row[i] = W[X + i * LANES + m]
    for i in range(21):
        row[6 + i] = W[P + i * LANES + m]
    unload_coefficients(W, m, row[27:])


@kernel
def forget_cross(rows, slot):
    """The track's state was replaced by one that knows nothing of its coefficients."""
    for i in range(12):
        rows[slot, _C + i] = 0.0


@kernel
def carry_coefficients(W, of_place, of_speed):
    """C and P of every lane over a step whose PHI they have not seen (C) or have (P), and over its kick.

    A kick moves place and velocity by the rows ``of_place`` and ``of_speed`` (s^2, s) times the derivatives in DRAG
    and LIGHT, K (6 x 2): P gains K C' + C K' + K PP K', C gains K PP.
    """
    L = LANES
    for m in range(L):
        f0 = six(W, PHI, m)
        f1 = six(W, PHI + 6 * L, m)
        f2 = six(W, PHI + 12 * L, m)
        f3 = six(W, PHI + 18 * L, m)
        f4 = six(W, PHI + 24 * L, m)
        f5 = six(W, PHI + 30 * L, m)
        for b in range(2):
            at = CROSS + b * L + m
            c0, c1, c2 = W[at], W[at + 2 * L], W[at + 4 * L]
            c3, c4, c5 = W[at + 6 * L], W[at + 8 * L], W[at + 10 * L]
            W[at] = f0[0] * c0 + f0[1] * c1 + f0[2] * c2 + f0[3] * c3 + f0[4] * c4 + f0[5] * c5
            W[at + 2 * L] = f1[0] * c0 + f1[1] * c1 + f1[2] * c2 + f1[3] * c3 + f1[4] * c4 + f1[5] * c5
            W[at + 4 * L] = f2[0] * c0 + f2[1] * c1 + f2[2] * c2 + f2[3] * c3 + f2[4] * c4 + f2[5] * c5
            W[at + 6 * L] = f3[0] * c0 + f3[1] * c1 + f3[2] * c2 + f3[3] * c3 + f3[4] * c4 + f3[5] * c5
            W[at + 8 * L] = f4[0] * c0 + f4[1] * c1 + f4[2] * c2 + f4[3] * c3 + f4[4] * c4 + f4[5] * c5
            W[at + 10 * L] = f5[0] * c0 + f5[1] * c1 + f5[2] * c2 + f5[3] * c3 + f5[4] * c4 + f5[5] * c5
    K = np.empty((6, 2))
    G = np.empty((6, 2))
    for m in range(L):
        s00, s01, s11 = W[SPREAD + m], W[SPREAD + L + m], W[SPREAD + 2 * L + m]
        for i in range(3):
            d = W[DRAG + i * L + m]
            e = W[LIGHT + i * L + m]
            K[i, 0], K[i, 1] = of_place[m] * d, of_place[m] * e
            K[3 + i, 0], K[3 + i, 1] = of_speed[m] * d, of_speed[m] * e
        for i in range(6):
            G[i, 0] = K[i, 0] * s00 + K[i, 1] * s01
            G[i, 1] = K[i, 0] * s01 + K[i, 1] * s11
        to = P + m
        for i in range(6):
            a0 = W[CROSS + 2 * i * L + m] + 0.5 * G[i, 0]
            a1 = W[CROSS + (2 * i + 1) * L + m] + 0.5 * G[i, 1]
            for j in range(i + 1):
                b0 = W[CROSS + 2 * j * L + m] + 0.5 * G[j, 0]
                b1 = W[CROSS + (2 * j + 1) * L + m] + 0.5 * G[j, 1]
                W[to] += K[i, 0] * b0 + K[i, 1] * b1 + K[j, 0] * a0 + K[j, 1] * a1
                to += L
        for i in range(6):
            W[CROSS + 2 * i * L + m] += G[i, 0]
            W[CROSS + (2 * i + 1) * L + m] += G[i, 1]


@kernel
def regress(row, prior, x, P_):
    """Carry an update of the state, from ``prior`` (PRIOR,) to ``x`` (6,) and ``P_`` (36,), over to ``row`` (COLUMNS,).

    With G = C' P^-1 of the prior: p gains G (x - x_prior), C becomes P_ G', PP loses G (P - P_) G'. If the prior cannot
    be inverted, the coefficients stay as predicted and what they share with the state is forgotten.
    """
    for i in range(COLUMNS):
        row[i] = prior[27 + i]
    if row[_PP] == 0.0 and row[_PP + 2] == 0.0:
        return
    # Cholesky of the prior, rows scaled
    A = np.zeros((6, 6))
    s = np.empty(6)
    at = 6
    for i in range(6):
        for j in range(i + 1):
            A[i, j] = prior[at]
            at += 1
        s[i] = 1.0 / np.sqrt(A[i, i]) if A[i, i] > 0.0 else 0.0
    ok = True
    for i in range(6):
        for j in range(i + 1):
            value = A[i, j] * s[i] * s[j]
            for k in range(j):
                value -= A[i, k] * A[j, k]
            if i != j:
                A[i, j] = value / A[j, j]
            elif value > 1e-13:
                A[i, i] = np.sqrt(value)
            else:
                ok = False
                A[i, i] = 1.0
    G = np.empty((2, 6))
    for b in range(2):
        for i in range(6):
            value = row[_C + 2 * i + b] * s[i]
            for k in range(i):
                value -= A[i, k] * G[b, k]
            G[b, i] = value / A[i, i]
        for i in range(5, -1, -1):
            value = G[b, i]
            for k in range(i + 1, 6):
                value -= A[k, i] * G[b, k]
            G[b, i] = value / A[i, i]
        for i in range(6):
            G[b, i] *= s[i]
    if not ok:
        for i in range(12):
            row[_C + i] = 0.0
        return
    less = np.zeros((2, 2))
    for b in range(2):
        step = 0.0
        for i in range(6):
            step += G[b, i] * (x[i] - prior[i])
        row[b] = min(max(row[b] + step, 0.0), MOST[b])
        for i in range(6):
            value = 0.0
            for j in range(6):
                value += P_[6 * i + j] * G[b, j]
                lower = 6 + (i * (i + 1) // 2 + j if j <= i else j * (j + 1) // 2 + i)
                less[b, 0] += G[b, i] * (prior[lower] - P_[6 * i + j]) * G[0, j]
                less[b, 1] += G[b, i] * (prior[lower] - P_[6 * i + j]) * G[1, j]
            row[_C + 2 * i + b] = value
    row[_PP] = max(row[_PP] - less[0, 0], _LEAST_SHARE * row[_PP])
    row[_PP + 2] = max(row[_PP + 2] - less[1, 1], _LEAST_SHARE * row[_PP + 2])
    most = 0.999 * np.sqrt(row[_PP] * row[_PP + 2])
    row[_PP + 1] = min(max(row[_PP + 1] - less[0, 1], -most), most)
