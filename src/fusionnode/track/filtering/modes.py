"""Interacting multiple models: a quiet and a manoeuvring mode of every track (Blom & Bar-Shalom; Bar-Shalom, Li &
Kirubarajan, Estimation with Applications to Tracking and Navigation, section 11.6.6).

Both modes have the same dynamics and differ in process noise. Before each prediction the modes are mixed, then each is
predicted and updated by the extended filter on the lanes; the track's x and P are those of the mixture.

The chain is one of continuous time: an object stays quiet, or manoeuvring, for an exponential time of known mean. An
object that ends a long gap manoeuvring has done so for its last part only, and only that part is noisy. While nothing
is measured a quiet object is not said to begin a manoeuvre, so that what is predicted is a quiet orbit; when a
measurement comes, it may have begun one at any time since the last.

What a track keeps (Picture.beside, BESIDE numbers; a picture without room for them keeps nothing): its x, by which it
is seen whether someone else has set the track's state, so that both modes begin anew from it; the two
probabilities; the two states; the two covariances; and for how many seconds it has been predicted since its last
update.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.track.filtering.definite import judge_lanes, mend_predictions
from fusionnode.track.filtering.filter import load_measurement, load_track, try_lanes, unload
from fusionnode.track.lanes import LANES, LEFT, P_OUT, X_OUT, P, X
from fusionnode.track.motion.dynamics import predict_lanes

QUIET, MANOEUVRING = 0, 1
_PROBABILITY, _STATE, _COVARIANCE = 6, 8, 20
_COASTED = 92
BESIDE = 93


def manoeuvre_probability(beside: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probability (n,) that the tracks of ``beside`` (n, BESIDE) are manoeuvring, as of their last update."""
    return beside[:, _PROBABILITY + MANOEUVRING]


@kernel
def transition(dt, gap, sojourn_s, to):
    """Probabilities of the modes after ``dt`` s given those before into ``to`` (2, 2), [before, after].

    ``gap``: s in which an object may have begun to manoeuvre; that of a chain where it is ``dt``.
    """
    leave = 1.0 / sojourn_s[0]
    back = 1.0 / sojourn_s[1]
    both = leave + back
    to[0, 1] = -leave / both * np.expm1(-both * abs(gap))
    to[0, 0] = 1.0 - to[0, 1]
    to[1, 0] = -back / both * np.expm1(-both * abs(dt))
    to[1, 1] = 1.0 - to[1, 0]


@kernel
def effective_psd(dt, psd, manoeuvre_psd, stay_s):
    """Process noise of the manoeuvring mode over ``dt`` s, its last stay being of ``stay_s`` on average."""
    gap = abs(dt)
    if not gap > 0.0:
        return manoeuvre_psd
    share = -stay_s / gap * np.expm1(-gap / stay_s)
    return psd + share * max(manoeuvre_psd - psd, 0.0)


@kernel
def mix(mu, switch, x, P_, mu_out, x_out, P_out):
    """Conditions for each mode to start from: ``mu`` (2,), ``switch`` (2, 2), x (2, 6) and P_ (2, 36) into the same
    shapes; ``mu_out`` are the probabilities ahead of a measurement.
    """
    weight = np.empty(2)
    for j in range(2):
        mu_out[j] = switch[0, j] * mu[0] + switch[1, j] * mu[1]
        for i in range(2):
            weight[i] = switch[i, j] * mu[i] / mu_out[j] if mu_out[j] > 0.0 else (1.0 if i == j else 0.0)
        combine(weight, x, P_, x_out[j], P_out[j])


@kernel
def combine(mu, x, P_, x_out, P_out):
    """Mean and covariance of the mixture of x (2, 6) and P_ (2, 36) with weights ``mu`` (2,): (6,), (36,)."""
    d = np.empty(6)
    for i in range(6):
        d[i] = x[1, i] - x[0, i]
        x_out[i] = x[0, i] + mu[1] * d[i]
    both = mu[0] * mu[1]
    for i in range(6):
        for j in range(i + 1):
            value = mu[0] * P_[0, 6 * i + j] + mu[1] * P_[1, 6 * i + j] + both * d[i] * d[j]
            P_out[6 * i + j] = value
            P_out[6 * j + i] = value


@kernel
def weigh(mu, nis, det, dof, mu_out):
    """Probabilities of the modes after a measurement into ``mu_out`` (2,), from those before, ``mu`` (2,), and the
    ``nis`` (2,) and ``det`` (2,) of each mode. Returns NIS and -2 ln of the likelihood without dof ln 2 pi, both of the
    mixture: infinite where neither mode can explain the measurement.

    The NIS is the mean of the modes', weighted by what is believed after the measurement. So it is that of
    the quiet mode until a manoeuvre explains the measurement better.
    """
    score = np.empty(2)
    for j in range(2):
        score[j] = np.inf
        if mu[j] > 0.0 and det[j] > 0.0 and nis[j] < np.inf:
            score[j] = nis[j] + np.log(det[j]) - 2.0 * np.log(mu[j])
    best = min(score[0], score[1])
    if not best < np.inf:
        mu_out[0], mu_out[1] = mu[0], mu[1]
        return np.inf, np.inf
    total = 0.0
    for j in range(2):
        mu_out[j] = np.exp(-0.5 * (score[j] - best))
        total += mu_out[j]
    mean = 0.0
    for j in range(2):
        mu_out[j] /= total
        if mu_out[j] > 0.0:
            mean += mu_out[j] * nis[j]
    return mean, best - 2.0 * np.log(total)


@kernel
def _load(beside, x, P_, sojourn_s, mu, xs, Ps):
    """The modes of a track into mu (2,), xs (2, 6), Ps (2, 36); returns for how long it has coasted, s."""
    own = beside.shape[0] == BESIDE and beside[_PROBABILITY] + beside[_PROBABILITY + 1] > 0.5
    for i in range(6):
        own = own and beside[i] == x[i]
    both = sojourn_s[0] + sojourn_s[1]
    for j in range(2):
        mu[j] = beside[_PROBABILITY + j] if own else sojourn_s[j] / both
        for i in range(6):
            xs[j, i] = beside[_STATE + 6 * j + i] if own else x[i]
        for i in range(36):
            Ps[j, i] = beside[_COVARIANCE + 36 * j + i] if own else P_[i]
    return beside[_COASTED] if own else 0.0


@kernel
def _store(mu, xs, Ps, x, coasted, beside):
    if beside.shape[0] != BESIDE:
        return
    beside[_COASTED] = coasted
    for i in range(6):
        beside[i] = x[i]
    for j in range(2):
        beside[_PROBABILITY + j] = mu[j]
        for i in range(6):
            beside[_STATE + 6 * j + i] = xs[j, i]
        for i in range(36):
            beside[_COVARIANCE + 36 * j + i] = Ps[j, i]


@kernel
def _predict_mode(W, j, n, x, P_, since, left, gap, model, psd, manoeuvre_psd, stay_s):
    """Predict mode ``j`` of the first ``n`` lanes by ``left`` (LANES,) s from ``since`` (LANES,), s, and its mixed
    conditions x (LANES, 2, 6), P_ (LANES, 2, 36); a manoeuvre makes noise over ``gap`` (LANES,) s, at least as long.

    The lanes share one process noise, and tracks in them may have gaps of their own: the manoeuvring mode's
    lanes are predicted with the quiet noise, and what it lacks is made up for by `_add_noise`.
    """
    for m in range(n):
        load_track(W, m, x[m, j], P_[m, j], since[m], left[m], model.terms[2], model.terms[3])
    for m in range(n, LANES):
        W[LEFT + m] = 0.0
    predict_lanes(W, model, psd)
    if j == MANOEUVRING:
        for m in range(n):
            extra = effective_psd(gap[m], psd, manoeuvre_psd, stay_s) - psd
            _add_noise(W, m, gap[m], extra)
    judge_lanes(W, P)
    mend_predictions(W, n)


@kernel
def _add_noise(W, m, gap, psd):
    """Covariance of white acceleration over the whole gap, as on a straight line, added to P of lane ``m``."""
    qv = psd * abs(gap)
    qx = 0.5 * qv * gap
    qr = qv * gap * gap / 3.0
    for i in range(3):
        W[P + (i * (i + 1) // 2 + i) * LANES + m] += qr
        k = i + 3
        W[P + (k * (k + 1) // 2 + i) * LANES + m] += qx
        W[P + (k * (k + 1) // 2 + k) * LANES + m] += qv


@kernel
def _dof(channels):
    return (1 if channels & 1 else 0) + (2 if channels & 2 else 0) + (1 if channels & 4 else 0)


@kernel
def try_pairs_in_modes(
    W,
    n,
    slots,
    rows,
    x,
    P_,
    beside,
    epoch,
    z,
    t,
    channels,
    model,
    q,
    manoeuvre_psd,
    sojourn_s,
    gates,
    may_drop,
    out,
):
    """As `filter.try_pairs`, in two modes; ``beside`` (N, BESIDE), and out.beside.

    Which channels are used is decided by the manoeuvring mode, the wider one, for both.
    """
    switch = np.empty((2, 2))
    mu = np.empty(2)
    mu_after = np.empty(2)
    before = np.empty((LANES, 2))
    xs = np.empty((2, 6))
    Ps = np.empty((2, 36))
    x_in = np.empty((LANES, 2, 6))
    P_in = np.empty((LANES, 2, 36))
    x_out = np.empty((LANES, 2, 6))
    P_out = np.empty((LANES, 2, 36))
    since = np.empty(LANES)
    left = np.empty(LANES)
    gap = np.empty(LANES)
    used = np.zeros(LANES, np.uint8)
    nis = np.zeros((2, LANES))
    det = np.zeros((2, LANES))
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            row = rows[start + m]
            since[m] = (epoch[slot] - model.ref_ns) * 1e-9
            left[m] = (t[row] - epoch[slot]) * 1e-9
            used[m] = channels[row]
            gap[m] = left[m] + _load(beside[slot], x[slot], P_[slot], sojourn_s, mu, xs, Ps)
            transition(left[m], gap[m], sojourn_s, switch)
            mix(mu, switch, xs, Ps, before[m], x_in[m], P_in[m])
        for k in range(2):
            j = 1 - k
            _predict_mode(W, j, size, x_in, P_in, since, left, gap, model, q, manoeuvre_psd, sojourn_s[1])
            for m in range(size):
                load_measurement(W, m, z[rows[start + m]], used[m])
            try_lanes(W, size, gates, may_drop and j == MANOEUVRING, used, nis[j], det[j], out, start)
            for m in range(size):
                for i in range(6):
                    x_out[m, j, i] = W[X_OUT + i * LANES + m]
                unload(W, P_OUT + m, P_out[m, j])
        for m in range(size):
            at = start + m
            for j in range(2):
                if not nis[j, m] < np.inf:  # what was refused has no state: it stands aside for the other
                    for i in range(6):
                        x_out[m, j, i] = x_out[m, 1 - j, i]
                    for i in range(36):
                        P_out[m, j, i] = P_out[m, 1 - j, i]
            mean, cost = weigh(before[m], nis[:, m], det[:, m], _dof(used[m]), mu_after)
            out.nis[at] = mean
            out.det[at] = np.exp(cost - mean) if mean < np.inf else 1.0
            out.used[at] = used[m]
            combine(mu_after, x_out[m], P_out[m], out.x[at], out.P[at])
            _store(mu_after, x_out[m], P_out[m], out.x[at], 0.0, out.beside[at])


@kernel
def predict_slots_in_modes(W, slots, n, to_ns, x, P_, beside, epoch, model, q, manoeuvre_psd, sojourn_s):
    """As `filter.predict_slots`, in two modes."""
    switch = np.empty((2, 2))
    mu = np.empty(2)
    after = np.empty((LANES, 2))
    xs = np.empty((2, 6))
    Ps = np.empty((2, 36))
    x_in = np.empty((LANES, 2, 6))
    P_in = np.empty((LANES, 2, 36))
    x_out = np.empty((LANES, 2, 6))
    P_out = np.empty((LANES, 2, 36))
    since = np.empty(LANES)
    left = np.empty(LANES)
    gap = np.empty(LANES)
    coasted = np.empty(LANES)
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            since[m] = (epoch[slot] - model.ref_ns) * 1e-9
            left[m] = (to_ns - epoch[slot]) * 1e-9
            gap[m] = left[m]
            coasted[m] = left[m] + _load(beside[slot], x[slot], P_[slot], sojourn_s, mu, xs, Ps)
            transition(left[m], 0.0, sojourn_s, switch)
            mix(mu, switch, xs, Ps, after[m], x_in[m], P_in[m])
        for j in range(2):
            _predict_mode(W, j, size, x_in, P_in, since, left, gap, model, q, manoeuvre_psd, sojourn_s[1])
            for m in range(size):
                for i in range(6):
                    x_out[m, j, i] = W[X + i * LANES + m]
                unload(W, P + m, P_out[m, j])
        for m in range(size):
            slot = slots[start + m]
            epoch[slot] = to_ns
            combine(after[m], x_out[m], P_out[m], x[slot], P_[slot])
            _store(after[m], x_out[m], P_out[m], x[slot], coasted[m], beside[slot])
