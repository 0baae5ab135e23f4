"""The extended Kalman filter on lanes: update, and the trial of measurements against tracks.

A *trial* is one measurement against one track: predict to the measurement's time, update, and say what the
normalised innovation squared (NIS) was. Gating needs the NIS, and the winner's update is then already there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.dynamics import predict_lanes
from fusionnode.track.lanes import (
    BEND,
    DET,
    LANES,
    LEFT,
    LOS,
    NIS,
    NOISE,
    P_OUT,
    SITE_DELAY,
    USE,
    WORK,
    X_LIN,
    X_OUT,
    H,
    P,
    X,
    Y,
)
from fusionnode.track.sensing import FIRST_COLUMN, bend_lanes, linearise_lanes, noise_lanes

_RANGE, _ANGLES, _RATE = int(Channel.RANGE), int(Channel.ANGLES), int(Channel.RANGE_RATE)
_ALL = _RANGE | _ANGLES | _RATE

BENT = 0.1
"""An update is iterated while the measurement function departs from its linearisation by more sigma than this."""
MOST_ITERATIONS = 6


class Trials(NamedTuple):
    """What came of n trials."""

    x: npt.NDArray[np.float64]  # (n, 6) updated state
    P: npt.NDArray[np.float64]  # (n, 36) its covariance
    nis: npt.NDArray[np.float64]  # (n,) of the channels used; inf where nothing can be said
    det: npt.NDArray[np.float64]  # (n,) determinant of their innovation covariance
    used: npt.NDArray[np.uint8]  # (n,) Channel bits used


def make_trials(n: int) -> Trials:
    """Room for ``n`` trials."""
    return Trials(np.zeros((n, 6)), np.zeros((n, 36)), np.zeros(n), np.zeros(n), np.zeros(n, np.uint8))


@kernel
def update_lanes(W):
    """X_OUT, P_OUT, NIS, DET from X, P and Y, H at X_LIN: one channel after the other, R being diagonal.

    With X_LIN = X an EKF update; with X_LIN an earlier X_OUT one iteration of the iterated EKF (Bar-Shalom,
    Li & Kirubarajan, Estimation with Applications, section 10.5.2). The covariance is taken down in Joseph's
    form for a scalar measurement, written out as P - K b' - b K' + S K K' with b = P h.
    """
    L = LANES
    b, k, s, gain, y = WORK, WORK + 6 * L, WORK + 12 * L, WORK + 13 * L, WORK + 14 * L
    for i in range(36 * L):
        W[P_OUT + i] = W[P + i]
    for i in range(6 * L):
        W[X_OUT + i] = W[X + i]
    for m in range(L):
        W[NIS + m] = 0.0
        W[DET + m] = 1.0
    for channel in range(4):
        h = H + 6 * channel * L
        use = USE + channel * L
        for i in range(6):
            p = P_OUT + 6 * i * L
            for m in range(L):
                W[b + i * L + m] = (
                    W[p + m] * W[h + m]
                    + W[p + L + m] * W[h + L + m]
                    + W[p + 2 * L + m] * W[h + 2 * L + m]
                    + W[p + 3 * L + m] * W[h + 3 * L + m]
                    + W[p + 4 * L + m] * W[h + 4 * L + m]
                    + W[p + 5 * L + m] * W[h + 5 * L + m]
                )
        for m in range(L):
            W[s + m] = W[NOISE + channel * L + m]
            W[y + m] = W[Y + channel * L + m]
        for i in range(6):
            for m in range(L):
                W[s + m] += W[h + i * L + m] * W[b + i * L + m]
                W[y + m] += W[h + i * L + m] * (W[X_LIN + i * L + m] - W[X_OUT + i * L + m])
        for m in range(L):
            W[gain + m] = W[use + m] / W[s + m]
            W[NIS + m] += W[gain + m] * W[y + m] * W[y + m]
            W[DET + m] *= W[use + m] * W[s + m] + (1.0 - W[use + m])
        for i in range(6):
            for m in range(L):
                W[k + i * L + m] = W[b + i * L + m] * W[gain + m]
                W[X_OUT + i * L + m] += W[k + i * L + m] * W[y + m]
        for i in range(6):
            ki = k + i * L
            bi = b + i * L
            for j in range(i + 1):
                kj = k + j * L
                bj = b + j * L
                lower = P_OUT + (6 * i + j) * L
                upper = P_OUT + (6 * j + i) * L
                for m in range(L):
                    value = (
                        W[lower + m]
                        - W[ki + m] * W[bj + m]
                        - W[bi + m] * W[kj + m]
                        + W[s + m] * W[ki + m] * W[kj + m]
                    )
                    W[lower + m] = value
                    W[upper + m] = value


@kernel
def load_track(W, m, x, P_, left):
    """Put a state (6,), its covariance (36,) and the time to predict (s) into lane ``m``."""
    for i in range(6):
        W[X + i * LANES + m] = x[i]
    for i in range(36):
        W[P + i * LANES + m] = P_[i]
    W[LEFT + m] = left


@kernel
def _set_use(W, m, channels):
    angles = 1.0 if channels & _ANGLES else 0.0
    W[USE + m] = 1.0 if channels & _RANGE else 0.0
    W[USE + LANES + m] = angles
    W[USE + 2 * LANES + m] = angles
    W[USE + 3 * LANES + m] = 1.0 if channels & _RATE else 0.0


@kernel
def load_measurement(W, m, z, channels):
    """Put a measurement (a row of MEASUREMENT seen as float64) into lane ``m``, with the ``channels`` to use."""
    for i in range((SITE_DELAY - LOS) // LANES + 1):
        W[LOS + i * LANES + m] = z[_COLUMN[i]]
    _set_use(W, m, channels)


# MEASUREMENT has site_r and site_v before the line of sight; the lanes have them after it
_COLUMN = tuple(FIRST_COLUMN + i for i in (*range(6, 15), *range(6), *range(15, 23)))


@kernel
def degrees(channels):
    """Degrees of freedom of a set of Channel bits."""
    n = 0
    if channels & _RANGE:
        n += 1
    if channels & _ANGLES:
        n += 2
    if channels & _RATE:
        n += 1
    return n


@kernel
def _first_update(W):
    for i in range(6 * LANES):
        W[X_LIN + i] = W[X + i]
    noise_lanes(W)
    linearise_lanes(W)
    update_lanes(W)


@kernel
def _iterate(W, want):
    """Iterate the update of the lanes in ``want`` that are bent; others come out as they went in."""
    for _ in range(MOST_ITERATIONS):
        bend_lanes(W)
        again = False
        for m in range(LANES):
            if want[m] and W[BEND + m] > BENT:
                again = True
                for i in range(6):
                    W[X_LIN + i * LANES + m] = W[X_OUT + i * LANES + m]
            else:
                want[m] = False
        if not again:
            return
        linearise_lanes(W)
        update_lanes(W)


@kernel
def _leave_one_out(W, n, gates, out_of_gate, used):
    """For lanes out of their gate: do the others hold without the range, the range rate, or the angles?

    Real radars lose one of them for seconds at a time while the rest stays good, and the rest is worth having.
    Only detections with all channels are looked at, so that at least two kinds always agree.
    """
    for drop in (_RANGE, _RATE, _ANGLES):
        tried = False
        for m in range(n):
            if out_of_gate[m] and used[m] == _ALL:
                _set_use(W, m, _ALL ^ drop)
                tried = True
        if not tried:
            break
        update_lanes(W)
        for m in range(n):
            if out_of_gate[m] and used[m] == _ALL:
                if W[NIS + m] <= gates[degrees(_ALL ^ drop)]:
                    used[m] = _ALL ^ drop
                    out_of_gate[m] = False
                else:
                    _set_use(W, m, _ALL)
    update_lanes(W)


@kernel
def try_pairs(W, n, slots, rows, x, P_, epoch, z, t, channels, model, q, gates, may_drop, out):
    """Try measurement ``rows[i]`` against track ``slots[i]`` for i < n, into ``out`` (Trials).

    ``x`` (N, 6), ``P_`` (N, 36), ``epoch`` (N,) int64 TAI ns: the tracks. ``z`` (M, 27): MEASUREMENT seen as
    float64; ``t`` (M,) int64 TAI ns; ``channels`` (M,) uint8. ``gates``: (5,) chi-square gate by degrees of freedom.
    """
    out_of_gate = np.zeros(LANES, np.bool_)
    want = np.zeros(LANES, np.bool_)
    used = np.zeros(LANES, np.uint8)
    first = np.zeros((2, LANES))
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            row = rows[start + m]
            load_track(W, m, x[slot], P_[slot], (t[row] - epoch[slot]) * 1e-9)
            load_measurement(W, m, z[row], channels[row])
            used[m] = channels[row]
        for m in range(size, LANES):
            W[LEFT + m] = 0.0
        predict_lanes(W, model, q)
        _first_update(W)
        any_out = False
        for m in range(size):
            out_of_gate[m] = not W[NIS + m] <= gates[degrees(used[m])]
            any_out = any_out or out_of_gate[m]
        if any_out and may_drop:
            _leave_one_out(W, size, gates, out_of_gate, used)
        for m in range(LANES):
            first[0, m] = W[NIS + m]
            first[1, m] = W[DET + m]
            want[m] = m < size and not out_of_gate[m]
        _iterate(W, want)
        for m in range(size):
            at = start + m
            ahead = 0.0
            for i in range(3):
                ahead += W[LOS + i * LANES + m] * (W[X + i * LANES + m] - z[rows[at], FIRST_COLUMN + i])
            out.nis[at] = first[0, m] if ahead > 0.0 and first[0, m] >= 0.0 else np.inf
            out.det[at] = first[1, m]
            out.used[at] = used[m]
            for i in range(6):
                out.x[at, i] = W[X_OUT + i * LANES + m]
            for i in range(36):
                out.P[at, i] = W[P_OUT + i * LANES + m]


@kernel
def predict_slots(W, slots, n, to_ns, x, P_, epoch, model, q):
    """Take tracks ``slots[:n]`` ahead to ``to_ns`` in place."""
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            load_track(W, m, x[slot], P_[slot], (to_ns - epoch[slot]) * 1e-9)
        for m in range(size, LANES):
            W[LEFT + m] = 0.0
        predict_lanes(W, model, q)
        for m in range(size):
            slot = slots[start + m]
            epoch[slot] = to_ns
            for i in range(6):
                x[slot, i] = W[X + i * LANES + m]
            for i in range(36):
                P_[slot, i] = W[P + i * LANES + m]
