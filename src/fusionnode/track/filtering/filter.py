"""The extended Kalman filter on lanes: update, and the trial of measurements against tracks.

A *trial* is one measurement against one track: predict to the measurement's time, update, and say what the
normalised innovation squared (NIS) was. Gating needs the NIS, and the winner's update is then already there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import inlined, kernel
from fusionnode.core.types import Channel
from fusionnode.track.filtering.definite import REFUSED, judge_lanes, mend_predictions, mend_updates, tally
from fusionnode.track.filtering.sensing import FIRST_COLUMN, bend_lanes, linearise_lanes, noise_lanes
from fusionnode.track.lanes import (
    BEND,
    COEFFICIENTS,
    CROSS,
    DET,
    FORM,
    LANES,
    LEFT,
    LOS,
    NIS,
    NOISE,
    P_OUT,
    SITE_DELAY,
    SITE_R,
    SOUND,
    USE,
    VAR,
    X_LIN,
    X_OUT,
    H,
    P,
    T,
    X,
    Y,
    dot,
    lower,
    six,
    times,
)
from fusionnode.track.motion.coefficients import PRIOR, load_coefficients, unload_coefficients, unload_prior
from fusionnode.track.motion.dynamics import predict_lanes

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
    prior: npt.NDArray[np.float64]  # (n, PRIOR) what was predicted, where coefficients are estimated
    shaped: npt.NDArray[np.bool_]  # (n,) whether the next three are in use (see `noise`)
    noise: npt.NDArray[np.float64]  # (n, 8) taken: variances for the gate, and what an update adds to them
    y: npt.NDArray[np.float64]  # (n, 4) innovations
    spread: npt.NDArray[np.float64]  # (n, 4) their variances but for the noise: h P h' and the bend of h
    driven: npt.NDArray[
        np.float64
    ]  # (n, 4) of the spread: what wandered since, as noisy as the sensor is just now
    beside: npt.NDArray[np.float64]  # (n, B) what the track keeps beside x and P afterwards (Picture.beside)


def make_trials(n: int, beside: int = 0) -> Trials:
    """Room for ``n`` trials of tracks that keep ``beside`` numbers beside their state."""
    return Trials(
        np.zeros((n, 6)),
        np.zeros((n, 36)),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n, np.uint8),
        np.zeros((n, PRIOR)),
        np.zeros(n, np.bool_),
        np.zeros((n, 8)),
        np.zeros((n, 4)),
        np.zeros((n, 4)),
        np.zeros((n, 4)),
        np.zeros((n, beside)),
    )


@inlined
def _take_in(p, d, h, noise, use, y0):
    """One channel: P (lower triangle), X_LIN - X, the factors of NIS and DET; ``use`` is 1, or 0 for no change.

    Joseph's form in two steps: M = (I - k h') P, then P' = M (I - k h')' + r k k' = M - (M h - r k) k', in which M h is
    computed from M, so that what rounding did to M is taken back (the stabilised Kalman update of Bierman,
    Factorization Methods for Discrete Sequential Estimation).
    """
    b = times(p, h)
    s = noise + dot(h, b)
    y = y0 + dot(h, d)
    g = use / s if use > 0.0 else 0.0
    k = (b[0] * g, b[1] * g, b[2] * g, b[3] * g, b[4] * g, b[5] * g)
    p = (
        p[0] - k[0] * b[0],
        p[1] - k[1] * b[0], p[2] - k[1] * b[1],
        p[3] - k[2] * b[0], p[4] - k[2] * b[1], p[5] - k[2] * b[2],
        p[6] - k[3] * b[0], p[7] - k[3] * b[1], p[8] - k[3] * b[2], p[9] - k[3] * b[3],
        p[10] - k[4] * b[0], p[11] - k[4] * b[1], p[12] - k[4] * b[2], p[13] - k[4] * b[3], p[14] - k[4] * b[4],
        p[15] - k[5] * b[0], p[16] - k[5] * b[1], p[17] - k[5] * b[2], p[18] - k[5] * b[3], p[19] - k[5] * b[4],
        p[20] - k[5] * b[5],
    )  # fmt: skip
    v = times(p, h)
    c = (
        v[0] - noise * k[0], v[1] - noise * k[1], v[2] - noise * k[2],
        v[3] - noise * k[3], v[4] - noise * k[4], v[5] - noise * k[5],
    )  # fmt: skip
    f = (0.5 * c[0], 0.5 * c[1], 0.5 * c[2], 0.5 * c[3], 0.5 * c[4], 0.5 * c[5])
    q = (0.5 * k[0], 0.5 * k[1], 0.5 * k[2], 0.5 * k[3], 0.5 * k[4], 0.5 * k[5])
    p = (
        p[0] - c[0] * k[0],
        p[1] - f[1] * k[0] - q[1] * c[0], p[2] - c[1] * k[1],
        p[3] - f[2] * k[0] - q[2] * c[0], p[4] - f[2] * k[1] - q[2] * c[1], p[5] - c[2] * k[2],
        p[6] - f[3] * k[0] - q[3] * c[0], p[7] - f[3] * k[1] - q[3] * c[1], p[8] - f[3] * k[2] - q[3] * c[2],
        p[9] - c[3] * k[3],
        p[10] - f[4] * k[0] - q[4] * c[0], p[11] - f[4] * k[1] - q[4] * c[1], p[12] - f[4] * k[2] - q[4] * c[2],
        p[13] - f[4] * k[3] - q[4] * c[3], p[14] - c[4] * k[4],
        p[15] - f[5] * k[0] - q[5] * c[0], p[16] - f[5] * k[1] - q[5] * c[1], p[17] - f[5] * k[2] - q[5] * c[2],
        p[18] - f[5] * k[3] - q[5] * c[3], p[19] - f[5] * k[4] - q[5] * c[4], p[20] - c[5] * k[5],
    )  # fmt: skip
    d = (d[0] - k[0] * y, d[1] - k[1] * y, d[2] - k[2] * y, d[3] - k[3] * y, d[4] - k[4] * y, d[5] - k[5] * y)
    return p, d, g * y * y, s if use > 0.0 else 1.0


@kernel
def update_lanes(W):
    """X_OUT, P_OUT, NIS, DET from X, P and Y, H at X_LIN: one channel after the other, R being diagonal.

    With X_LIN = X an EKF update; with X_LIN an earlier X_OUT one iteration of the iterated EKF (Bar-Shalom,
    Li & Kirubarajan, Estimation with Applications, section 10.5.2). SOUND is the least innovation variance.
    """
    L = LANES
    for m in range(L):
        p = lower(W, P, m)
        x = six(W, X, m)
        at = six(W, X_LIN, m)
        d = (at[0] - x[0], at[1] - x[1], at[2] - x[2], at[3] - x[3], at[4] - x[4], at[5] - x[5])
        p, d, n0, s0 = _take_in(p, d, six(W, H, m), W[NOISE + m], W[USE + m], W[Y + m])
        p, d, n1, s1 = _take_in(p, d, six(W, H + 6 * L, m), W[NOISE + L + m], W[USE + L + m], W[Y + L + m])
        p, d, n2, s2 = _take_in(
            p, d, six(W, H + 12 * L, m), W[NOISE + 2 * L + m], W[USE + 2 * L + m], W[Y + 2 * L + m]
        )
        p, d, n3, s3 = _take_in(
            p, d, six(W, H + 18 * L, m), W[NOISE + 3 * L + m], W[USE + 3 * L + m], W[Y + 3 * L + m]
        )
        W[NIS + m] = n0 + n1 + n2 + n3
        W[DET + m] = s0 * s1 * s2 * s3
        W[SOUND + m] = min(min(s0, s1), min(s2, s3))
        o = X_OUT + m
        W[o], W[o + L], W[o + 2 * L] = at[0] - d[0], at[1] - d[1], at[2] - d[2]
        W[o + 3 * L], W[o + 4 * L], W[o + 5 * L] = at[3] - d[3], at[4] - d[4], at[5] - d[5]
        o = P_OUT + m
        (
            W[o], W[o + L], W[o + 2 * L], W[o + 3 * L], W[o + 4 * L], W[o + 5 * L], W[o + 6 * L],
            W[o + 7 * L], W[o + 8 * L], W[o + 9 * L], W[o + 10 * L], W[o + 11 * L], W[o + 12 * L], W[o + 13 * L],
            W[o + 14 * L], W[o + 15 * L], W[o + 16 * L], W[o + 17 * L], W[o + 18 * L], W[o + 19 * L], W[o + 20 * L],
        ) = p  # fmt: skip


@kernel
def load_track(W, m, x, P_, t, left, drag, light):
    """Put a state (6,), its covariance (36,), its time (s, from the dynamics' reference), the time to predict (s) and
    its Cd A/m and Cr A/m (m^2/kg) into lane ``m``.
    """
    for i in range(6):
        W[X + i * LANES + m] = x[i]
    to = P + m
    for i in range(6):
        for j in range(i + 1):
            W[to] = P_[6 * i + j]
            to += LANES
    W[LEFT + m] = left
    W[T + m] = t
    W[COEFFICIENTS + m] = drag
    W[COEFFICIENTS + LANES + m] = light
    for i in range(15):
        W[CROSS + i * LANES + m] = 0.0


@kernel
def unload(W, at, P_):
    """Write the lower triangle at ``at`` into both halves of ``P_`` (36,)."""
    for i in range(6):
        for j in range(i + 1):
            P_[6 * i + j] = P_[6 * j + i] = W[at]
            at += LANES


@kernel
def set_use(W, m, channels):
    """Let lane ``m`` use the Channel bits ``channels``."""
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
    set_use(W, m, channels)


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
def _update(W, n):
    """Update, and see to it that what comes out in the first ``n`` lanes is finite and positive definite."""
    update_lanes(W)
    judge_lanes(W, P_OUT)
    mend_updates(W, n)


@kernel
def _note_innovations(W, out, start, n):
    """Into ``out.y`` and ``out.spread`` from ``start``, of the first ``n`` lanes."""
    L = LANES
    for m in range(n):
        p = lower(W, P, m)
        for c in range(4):
            h = six(W, H + 6 * c * L, m)
            out.y[start + m, c] = W[Y + c * L + m]
            out.spread[start + m, c] = dot(times(p, h), h) + W[NOISE + c * L + m] - W[VAR + c * L + m]


@kernel
def _loosen(W, out, start, n):
    """Add to NOISE of the first ``n`` lanes what the wander of the errors adds in an update, and update again."""
    for m in range(n):
        for c in range(4):
            W[NOISE + c * LANES + m] += out.noise[start + m, 4 + c]
    _update(W, n)


@kernel
def _first_update(W, n):
    for i in range(6 * LANES):
        W[X_LIN + i] = W[X + i]
    noise_lanes(W)
    linearise_lanes(W)
    _update(W, n)


@kernel
def _iterate(W, n, want):
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
        _update(W, n)


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
                set_use(W, m, _ALL ^ drop)
                tried = True
        if not tried:
            break
        _update(W, n)
        for m in range(n):
            if out_of_gate[m] and used[m] == _ALL:
                if W[NIS + m] <= gates[degrees(_ALL ^ drop)]:
                    used[m] = _ALL ^ drop
                    out_of_gate[m] = False
                else:
                    set_use(W, m, _ALL)
    _update(W, n)


@kernel
def ahead_of_sensor(W, m):
    """Whether the predicted state of lane ``m`` lies on the side of its site that the sensor looked to."""
    ahead = 0.0
    for i in range(3):
        ahead += W[LOS + i * LANES + m] * (W[X + i * LANES + m] - W[SITE_R + i * LANES + m])
    return ahead > 0.0


@kernel
def shape_lanes(W, n, out, start):
    """Give the measurements in the first ``n`` lanes the noise that stands for them in ``out`` (Trials), if any."""
    if out.shaped[start]:
        for m in range(n):
            for c in range(4):
                W[VAR + c * LANES + m] = out.noise[start + m, c]


@kernel
def try_lanes(W, n, gates, may_drop, used, nis, det, out, start):
    """Update the first ``n`` lanes, predicted and with their measurements loaded: X_OUT and P_OUT.

    ``used`` (LANES,) Channel bits to use, and then those used; ``nis`` and ``det`` (LANES,) are filled. The lanes are
    trials of ``out`` (Trials) from ``start``: their noise is taken from there, their innovations are written there.
    """
    out_of_gate = np.zeros(LANES, np.bool_)
    want = np.zeros(LANES, np.bool_)
    shape_lanes(W, n, out, start)
    _first_update(W, n)
    if out.shaped[start]:
        _note_innovations(W, out, start, n)
    any_out = False
    for m in range(n):
        out_of_gate[m] = not W[NIS + m] <= gates[degrees(used[m])]
        any_out = any_out or out_of_gate[m]
    if any_out and may_drop:
        _leave_one_out(W, n, gates, out_of_gate, used)
    for m in range(n):
        nis[m] = W[NIS + m] if W[NIS + m] >= 0.0 and ahead_of_sensor(W, m) else np.inf
        det[m] = W[DET + m]
        want[m] = not out_of_gate[m]
    if out.shaped[start]:
        _loosen(W, out, start, n)
    _iterate(W, n, want)
    for m in range(n):
        if W[FORM + m] == REFUSED:
            nis[m] = np.inf
    tally(W, n)


@kernel
def try_pairs(W, n, slots, rows, x, P_, epoch, z, t, channels, model, q, gates, may_drop, out):
    """Try measurement ``rows[i]`` against track ``slots[i]`` for i < n, into ``out`` (Trials).

    A trial whose covariance is not finite and positive definite in any form is refused: its NIS is infinite.

    ``x`` (N, 6), ``P_`` (N, 36), ``epoch`` (N,) int64 TAI ns: the tracks. ``z`` (M, 27): MEASUREMENT seen as
    float64; ``t`` (M,) int64 TAI ns; ``channels`` (M,) uint8. ``gates``: (5,) chi-square gate by degrees of freedom.
    """
    used = np.zeros(LANES, np.uint8)
    nis = np.zeros(LANES)
    det = np.zeros(LANES)
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            row = rows[start + m]
            since = (epoch[slot] - model.ref_ns) * 1e-9
            left = (t[row] - epoch[slot]) * 1e-9
            load_track(W, m, x[slot], P_[slot], since, left, model.terms[2], model.terms[3])
            if model.estimate:
                load_coefficients(W, m, model.tracks, slot, model.terms[4], model.terms[5], left)
            load_measurement(W, m, z[row], channels[row])
            used[m] = channels[row]
        for m in range(size, LANES):
            W[LEFT + m] = 0.0
        predict_lanes(W, model, q)
        try_lanes(W, size, gates, may_drop, used, nis, det, out, start)
        for m in range(size):
            at = start + m
            out.nis[at] = nis[m]
            out.det[at] = det[m]
            out.used[at] = used[m]
            for i in range(6):
                out.x[at, i] = W[X_OUT + i * LANES + m]
            if model.estimate:
                unload_prior(W, m, out.prior[at])
            unload(W, P_OUT + m, out.P[at])


@kernel
def predict_slots(W, slots, n, to_ns, x, P_, epoch, model, q):
    """Take tracks ``slots[:n]`` ahead to ``to_ns`` in place.

    A covariance that rounding took the definiteness of is mended; one beyond that comes out as not a number.
    """
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            since = (epoch[slot] - model.ref_ns) * 1e-9
            left = (to_ns - epoch[slot]) * 1e-9
            load_track(W, m, x[slot], P_[slot], since, left, model.terms[2], model.terms[3])
            if model.estimate:
                load_coefficients(W, m, model.tracks, slot, model.terms[4], model.terms[5], left)
        for m in range(size, LANES):
            W[LEFT + m] = 0.0
        predict_lanes(W, model, q)
        judge_lanes(W, P)
        mend_predictions(W, size)
        for m in range(size):
            slot = slots[start + m]
            epoch[slot] = to_ns
            if model.estimate:
                unload_coefficients(W, m, model.tracks[slot])
            for i in range(6):
                x[slot, i] = W[X + i * LANES + m]
            unload(W, P + m, P_[slot])
