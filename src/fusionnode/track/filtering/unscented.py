"""The unscented Kalman filter on the same lanes: thirteen points of a track in place of its derivatives.

Scaled points (Julier & Uhlmann, Unscented Filtering and Nonlinear Estimation, section V; weights as in Wan & van
der Merwe, The Unscented Kalman Filter, section 7.3) with ALPHA, BETA and KAPPA below. All moments are taken from the
centre point: with d_i = f(x_i) - f(x_0) and D = sum w_i d_i the mean is f(x_0) + D, and the covariance is
sum w_i d_i d_i' + (BETA - ALPHA^2) D D', which has no negative term. So an update is one orthogonal transformation of
an array (a square-root form), and what comes out is definite by the way it is made.

Points are taken round by round, one point of eight tracks at a time, and are drawn anew between prediction and update,
so that the process noise is in them.
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.filtering.definite import (
    REFUSED,
    factor,
    put_lower,
    take_lower,
    tally,
    update_from_array,
)
from fusionnode.track.filtering.filter import (
    ahead_of_sensor,
    degrees,
    load_measurement,
    load_track,
    shape_lanes,
    unload,
)
from fusionnode.track.filtering.sensing import linearise_lanes
from fusionnode.track.lanes import DET, FORM, LANES, LEFT, NIS, P_OUT, VAR, X_LIN, X_OUT, P, X, Y
from fusionnode.track.motion.dynamics import predict_lanes

_RANGE, _ANGLES, _RATE = int(Channel.RANGE), int(Channel.ANGLES), int(Channel.RANGE_RATE)
_ALL = _RANGE | _ANGLES | _RATE

ALPHA, BETA, KAPPA = 0.5, 2.0, 0.0
"""Spread, knowledge of the distribution (2: Gaussian), and the secondary scale. Points stand at 1.22 sigma: near
enough for what orbits and angles bend, far enough that differences of positions of 1e7 m keep their digits."""
POINTS = 13
_SPREAD = float(np.sqrt(ALPHA**2 * (6.0 + KAPPA)))
_WEIGHT = 1.0 / (2.0 * _SPREAD**2)
_CENTRE = BETA - ALPHA**2


@kernel
def _draw(k, x, S, point):
    """Point ``k`` of 13 of the state ``x`` (6,) and the factor ``S`` (6, 6) of its covariance into ``point`` (6,)."""
    for i in range(6):
        point[i] = x[i]
    if k > 0:
        j = (k - 1) % 6
        side = _SPREAD if k <= 6 else -_SPREAD
        for i in range(j, 6):
            point[i] += side * S[i, j]


@kernel
def _predict(W, n, x, P_, since, left, model, q, points, S, sound):
    """Predict ``n`` tracks, x (n, 6) and P_ (n, 36), by ``left`` (n,) s from ``since`` (n,), s: x and P of the
    first n lanes.

    ``points`` (13, LANES, 6) and ``S`` (LANES, 6, 6) are filled: the factor is that of the predicted covariance.
    ``sound`` (LANES,): whether the track has a covariance, before and after. The process noise is what the
    prediction of the centre adds to a covariance of zero.
    """
    zero = np.zeros(36)
    point = np.empty(6)
    C = np.zeros((6, 6))
    noise = np.zeros((LANES, 6, 6))
    for m in range(n):
        for i in range(6):
            for j in range(i + 1):
                C[i, j] = P_[m, 6 * i + j]
        sound[m] = factor(C, S[m], 6)
        if not sound[m]:
            S[m] = 0.0
    for k in range(POINTS):
        for m in range(n):
            _draw(k, x[m], S[m], point)
            load_track(W, m, point, zero, since[m], left[m], model.terms[2], model.terms[3])
        for m in range(n, LANES):
            W[LEFT + m] = 0.0
        predict_lanes(W, model, q)
        for m in range(n):
            for i in range(6):
                points[k, m, i] = W[X + i * LANES + m]
            if k == 0:
                take_lower(W, P, m, noise[m])
    shift = np.empty(6)
    for m in range(n):
        for i in range(6):
            shift[i] = 0.0
            for k in range(1, POINTS):
                points[k, m, i] -= points[0, m, i]
                shift[i] += _WEIGHT * points[k, m, i]
        for i in range(6):
            W[X + i * LANES + m] = points[0, m, i] + shift[i]
            for j in range(i + 1):
                total = noise[m, i, j] + _CENTRE * shift[i] * shift[j]
                for k in range(1, POINTS):
                    total += _WEIGHT * points[k, m, i] * points[k, m, j]
                C[i, j] = total
        sound[m] = factor(C, S[m], 6) and sound[m]
        for i in range(6):
            sound[m] = sound[m] and abs(W[X + i * LANES + m]) < np.inf
        put_lower(W, P, m, C)


@kernel
def _observe(W, n, S, seen):
    """Innovations (13, LANES, 4) of every point of the predicted states of the first ``n`` lanes into ``seen``."""
    x = np.empty(6)
    point = np.empty(6)
    for k in range(POINTS):
        for m in range(n):
            for i in range(6):
                x[i] = W[X + i * LANES + m]
            _draw(k, x, S[m], point)
            for i in range(6):
                W[X_LIN + i * LANES + m] = point[i]
        linearise_lanes(W)
        for m in range(n):
            for c in range(4):
                seen[k, m, c] = W[Y + c * LANES + m]


@kernel
def _note_innovations(n, seen, out, start):
    """As `filter._note_innovations`."""
    for m in range(n):
        for c in range(4):
            shift = 0.0
            spread = 0.0
            for k in range(1, POINTS):
                d = seen[0, m, c] - seen[k, m, c]
                shift += _WEIGHT * d
                spread += _WEIGHT * d * d
            out.y[start + m, c] = seen[0, m, c] - shift
            out.spread[start + m, c] = spread + _CENTRE * shift * shift


@kernel
def _update(W, m, channels, S, seen, C, R):
    """Update lane ``m`` with the Channel bits ``channels``; says whether it could be made. C, R (6, 6): to work in."""
    A = np.zeros((10, 17))
    y = np.zeros(4)
    n = 0
    root = np.sqrt(_WEIGHT)
    for c in range(4):
        bit = _RANGE if c == 0 else (_RATE if c == 3 else _ANGLES)
        if not channels & bit:
            continue
        variance = W[VAR + c * LANES + m]
        if not 0.0 <= variance < np.inf:
            return False
        shift = 0.0
        for k in range(1, POINTS):
            d = seen[0, m, c] - seen[k, m, c]
            shift += _WEIGHT * d
            A[n, k - 1] = root * d
        A[n, POINTS - 1] = np.sqrt(_CENTRE) * shift
        A[n, POINTS + n] = np.sqrt(variance)
        y[n] = seen[0, m, c] - shift
        n += 1
    for i in range(6):
        for j in range(i + 1):
            A[n + i, j] = root * _SPREAD * S[m, i, j]
            A[n + i, 6 + j] = -A[n + i, j]
    return update_from_array(W, m, A, n, POINTS + n, y, C, R)


@kernel
def try_pairs_unscented(W, n, slots, rows, x, P_, epoch, z, t, channels, model, q, gates, may_drop, out):
    """As `filter.try_pairs`, by the unscented filter. Nothing is iterated, and no second-order noise is needed."""
    points = np.empty((POINTS, LANES, 6))
    seen = np.empty((POINTS, LANES, 4))
    S = np.zeros((LANES, 6, 6))
    C = np.zeros((6, 6))
    R = np.zeros((6, 6))
    sound = np.zeros(LANES, np.bool_)
    x_in = np.zeros((LANES, 6))
    P_in = np.zeros((LANES, 36))
    since = np.zeros(LANES)
    left = np.zeros(LANES)
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            x_in[m] = x[slot]
            P_in[m] = P_[slot]
            since[m] = (epoch[slot] - model.ref_ns) * 1e-9
            left[m] = (t[rows[start + m]] - epoch[slot]) * 1e-9
        _predict(W, size, x_in, P_in, since, left, model, q, points, S, sound)
        for m in range(size):
            load_measurement(W, m, z[rows[start + m]], channels[rows[start + m]])
        shape_lanes(W, size, out, start)
        _observe(W, size, S, seen)
        if out.shaped[start]:
            _note_innovations(size, seen, out, start)
        for m in range(size):
            at = start + m
            row = rows[at]
            used = channels[row]
            W[FORM + m] = 0.0
            made = sound[m] and _update(W, m, used, S, seen, C, R)
            if made and may_drop and used == _ALL and not W[NIS + m] <= gates[degrees(used)]:
                fits = False
                for drop in (_RANGE, _RATE, _ANGLES):
                    fits = _update(W, m, _ALL ^ drop, S, seen, C, R)
                    if fits and W[NIS + m] <= gates[degrees(_ALL ^ drop)]:
                        used = _ALL ^ drop
                        break
                    fits = False
                if not fits:
                    made = _update(W, m, used, S, seen, C, R)
            out.nis[at] = W[NIS + m] if made and ahead_of_sensor(W, m) else np.inf
            out.det[at] = W[DET + m]
            if made and out.shaped[start]:
                for c in range(4):
                    W[VAR + c * LANES + m] += out.noise[at, 4 + c]
                made = _update(W, m, used, S, seen, C, R)
            if not made:
                W[FORM + m] = REFUSED
                out.nis[at] = np.inf
            out.used[at] = used
            for i in range(6):
                out.x[at, i] = W[X_OUT + i * LANES + m]
            unload(W, P_OUT + m, out.P[at])
        tally(W, size)


@kernel
def predict_slots_unscented(W, slots, n, to_ns, x, P_, epoch, model, q):
    """As `filter.predict_slots`, by the unscented filter."""
    points = np.empty((POINTS, LANES, 6))
    S = np.zeros((LANES, 6, 6))
    sound = np.zeros(LANES, np.bool_)
    x_in = np.zeros((LANES, 6))
    P_in = np.zeros((LANES, 36))
    since = np.zeros(LANES)
    left = np.zeros(LANES)
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            x_in[m] = x[slot]
            P_in[m] = P_[slot]
            since[m] = (epoch[slot] - model.ref_ns) * 1e-9
            left[m] = (to_ns - epoch[slot]) * 1e-9
        _predict(W, size, x_in, P_in, since, left, model, q, points, S, sound)
        for m in range(size):
            slot = slots[start + m]
            epoch[slot] = to_ns
            for i in range(6):
                x[slot, i] = W[X + i * LANES + m]
            unload(W, P + m, P_[slot])
            if not sound[m]:
                P_[slot] = np.nan
