"""Biases of sensors that are considered, not estimated: the Schmidt-Kalman filter (Jazwinski, Stochastic Processes and
Filtering Theory, section 8.4; Bierman, Factorization Methods, section VIII).

A measurement of sensor s is z = h(x) + sigma_s b_s + noise, b_s being four constants of unit variance, one a channel. A
track carries the cross covariance C_s = E[(x - x_estimated) b_s'] (6, 4) with the biases of the SENSORS sensors that
updated it last. Prediction: C = Phi C. Update by a channel with row h, c being its column of C: the innovation
variance is h' P h + 2 sigma h' c + sigma^2 + r, the gain k = (P h + sigma c) / that, and the biases' own gain is set to
zero. So a thousand measurements of one biased radar do not shrink the covariance below its bias.

Biases of unit variance let a sensor's sigma change at run time. A sensor that was forgotten (more than SENSORS
others since) comes back as if its bias had never met the track.

What a track keeps (Picture.beside, BESIDE numbers; a picture without room for them keeps nothing): its x, by which it
is seen whether someone else has set the track's state, so that there is nothing known of biases in it; the sensors
(index + 1; 0: none), the last to update first; their C, row by row.
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import kernel
from fusionnode.track.filtering.definite import (
    REFUSED,
    factor,
    judge_lanes,
    mend_predictions,
    put_lower,
    take_lower,
    tally,
)
from fusionnode.track.filtering.filter import (
    BENT,
    MOST_ITERATIONS,
    ahead_of_sensor,
    degrees,
    load_measurement,
    load_track,
    set_use,
    shape_lanes,
    unload,
)
from fusionnode.track.filtering.sensing import bend_lanes, linearise_lanes, noise_lanes
from fusionnode.track.initiation.fit import solve, weigh_arc
from fusionnode.track.lanes import (
    BEND,
    DET,
    FORM,
    LANES,
    LEFT,
    NIS,
    NOISE,
    P_OUT,
    SOUND,
    TOTAL,
    USE,
    VAR,
    X_LIN,
    X_OUT,
    H,
    P,
    X,
    Y,
    dot,
    lower,
    six,
    times,
)
from fusionnode.track.motion.dynamics import predict_lanes, transit_lanes

SENSORS = 4
_SENSOR, _CROSS = 6, 6 + SENSORS
BESIDE = _CROSS + 24 * SENSORS
_ALL = 7


@kernel
def _load(beside, x, sensors, C):
    """What a track knows of biases into ``sensors`` (SENSORS,) and ``C`` (SENSORS, 6, 4)."""
    own = beside.shape[0] == BESIDE
    for i in range(6):
        own = own and beside[i] == x[i]
    at = _CROSS
    for s in range(SENSORS):
        sensors[s] = beside[_SENSOR + s] if own else 0.0
        for i in range(6):
            for j in range(4):
                C[s, i, j] = beside[at] if sensors[s] > 0.0 else 0.0
                at += 1


@kernel
def _store(x, sensors, C, beside):
    if beside.shape[0] != BESIDE:
        return
    for i in range(6):
        beside[i] = x[i]
    at = _CROSS
    for s in range(SENSORS):
        beside[_SENSOR + s] = sensors[s]
        for i in range(6):
            for j in range(4):
                beside[at] = C[s, i, j]
                at += 1


@kernel
def _to_front(sensor, sensors, C):
    """Make ``sensor`` (index + 1) the first of the remembered ones; the last one is forgotten if it is new."""
    at = SENSORS - 1
    known = False
    for s in range(SENSORS):
        if sensors[s] == sensor and not known:
            at = s
            known = True
    own = C[at].copy()
    if not known:
        own[:] = 0.0
    for s in range(at, 0, -1):
        sensors[s] = sensors[s - 1]
        C[s] = C[s - 1]
    sensors[0] = sensor
    C[0] = own


@kernel
def _predict(W, n, x, P_, since, left, model, q, sensors, C):
    """Predict x (LANES, 6), P_ (LANES, 36) and C (LANES, SENSORS, 6, 4) of the first ``n`` lanes by ``left`` s from
    ``since``, s (both (LANES,)).
    """
    for k in range(2):
        for m in range(n):
            load_track(W, m, x[m], P_[m], since[m], left[m], model.terms[2], model.terms[3])
        for m in range(n, LANES):
            W[LEFT + m] = 0.0
        if k == 0:
            transit_lanes(W, model)
        else:
            predict_lanes(W, model, q)
    judge_lanes(W, P)
    mend_predictions(W, n)
    column = np.empty(6)
    for m in range(n):
        for s in range(SENSORS):
            if not sensors[m, s] > 0.0:
                continue
            for c in range(4):
                for i in range(6):
                    column[i] = 0.0
                    for j in range(6):
                        column[i] += W[TOTAL + (6 * i + j) * LANES + m] * C[m, s, j, c]
                for i in range(6):
                    C[m, s, i, c] = column[i]


@kernel
def _update_one(W, m, sigma, C_in, C, p, v):
    """Update lane ``m``, channel by channel; its sensor's biases, of ``sigma`` (4,), are the first block of C
    (SENSORS, 6, 4).

    Joseph's form as in `filter`: M = P - k b' with b = P h + sigma c, then P' = M - v k' with v = M h - r k + sigma c',
    c' being the column of C after the update. Says whether every innovation variance was above zero. p (6, 6), v
    (6,): to work in.
    """
    L = LANES
    h = np.empty(6)
    k = np.empty(6)
    d = np.empty(6)
    b = np.empty(6)
    take_lower(W, P, m, p)
    for i in range(6):
        d[i] = W[X_LIN + i * L + m] - W[X + i * L + m]
        for j in range(i):
            p[j, i] = p[i, j]
    for s in range(SENSORS):
        C[s] = C_in[s]
    nis = 0.0
    det = 1.0
    for c in range(4):
        if not W[USE + c * L + m] > 0.0:
            continue
        r = W[NOISE + c * L + m]
        y = W[Y + c * L + m]
        hb = 0.0
        hc = 0.0
        for i in range(6):
            h[i] = W[H + (6 * c + i) * L + m]
            y += h[i] * d[i]
            hc += h[i] * C[0, i, c]
        for i in range(6):
            b[i] = 0.0
            for j in range(6):
                b[i] += p[i, j] * h[j]
            hb += h[i] * b[i]
            b[i] += sigma[c] * C[0, i, c]
        variance = hb + 2.0 * sigma[c] * hc + sigma[c] * sigma[c] + r
        if not 0.0 < variance < np.inf:
            return False
        for i in range(6):
            k[i] = b[i] / variance
            d[i] -= k[i] * y
        nis += y * y / variance
        det *= variance
        for i in range(6):
            for j in range(i + 1):
                p[i, j] -= 0.5 * (k[i] * b[j] + k[j] * b[i])
                p[j, i] = p[i, j]
        for s in range(SENSORS):
            for j in range(4):
                seen = sigma[c] if s == 0 and j == c else 0.0
                for i in range(6):
                    seen += h[i] * C[s, i, j]
                for i in range(6):
                    C[s, i, j] -= k[i] * seen
        for i in range(6):
            v[i] = sigma[c] * C[0, i, c] - r * k[i]
            for j in range(6):
                v[i] += p[i, j] * h[j]
        for i in range(6):
            for j in range(i + 1):
                p[i, j] -= 0.5 * (v[i] * k[j] + v[j] * k[i])
                p[j, i] = p[i, j]
    for i in range(6):
        W[X_OUT + i * L + m] = W[X_LIN + i * L + m] - d[i]
    put_lower(W, P_OUT, m, p)
    W[NIS + m] = nis
    W[DET + m] = det
    return nis < np.inf


@kernel
def _update(W, n, sigma, C_in, C):
    """Update the first ``n`` lanes; FORM tells of what was refused, whose NIS is infinite."""
    p = np.empty((6, 6))
    S = np.zeros((6, 6))
    v = np.empty(6)
    for m in range(n):
        W[FORM + m] = 0.0
        W[SOUND + m] = np.inf
        if not _update_one(W, m, sigma[m], C_in[m], C[m], p, v):
            W[SOUND + m] = -1.0
    judge_lanes(W, P_OUT)
    for m in range(n):
        if W[SOUND + m] > 0.0:
            continue
        take_lower(W, P_OUT, m, p)
        finite = W[SOUND + m] <= 0.0 and W[SOUND + m] != -1.0
        if finite and factor(p, S, 6):
            put_lower(W, P_OUT, m, p)
            W[FORM + m] = 1.0
        else:
            W[FORM + m] = REFUSED
            W[NIS + m] = np.inf


@kernel
def _note_innovations(W, n, sigma, C, out, start):
    """As `filter._note_innovations`; the sensor's biases are part of the spread."""
    for m in range(n):
        p = lower(W, P, m)
        for c in range(4):
            h = six(W, H + 6 * c * LANES, m)
            biased = sigma[m, c] * sigma[m, c]
            for i in range(6):
                biased += 2.0 * sigma[m, c] * W[H + (6 * c + i) * LANES + m] * C[m, 0, i, c]
            bend = W[NOISE + c * LANES + m] - W[VAR + c * LANES + m]
            out.y[start + m, c] = W[Y + c * LANES + m]
            out.spread[start + m, c] = dot(times(p, h), h) + biased + bend


@kernel
def _leave_one_out(W, n, gates, used, sigma, C_in, C):
    """As `filter._leave_one_out`."""
    for drop in (1, 4, 2):
        tried = False
        for m in range(n):
            if used[m] == _ALL and not W[NIS + m] <= gates[degrees(used[m])]:
                set_use(W, m, _ALL ^ drop)
                tried = True
        if not tried:
            return
        _update(W, n, sigma, C_in, C)
        for m in range(n):
            if used[m] == _ALL and W[USE + m] * W[USE + LANES + m] * W[USE + 3 * LANES + m] == 0.0:
                if W[NIS + m] <= gates[degrees(_ALL ^ drop)]:
                    used[m] = _ALL ^ drop
                else:
                    set_use(W, m, _ALL)
        _update(W, n, sigma, C_in, C)


@kernel
def _iterate(W, n, gates, used, sigma, C_in, C):
    """As `filter._iterate`."""
    want = np.zeros(LANES, np.bool_)
    for m in range(n):
        want[m] = W[NIS + m] <= gates[degrees(used[m])]  # noise that was loosened since only makes it less
    for _ in range(MOST_ITERATIONS):
        bend_lanes(W)
        again = False
        for m in range(n):
            want[m] = want[m] and W[BEND + m] > BENT
            if want[m]:
                again = True
                for i in range(6):
                    W[X_LIN + i * LANES + m] = W[X_OUT + i * LANES + m]
        if not again:
            return
        linearise_lanes(W)
        _update(W, n, sigma, C_in, C)


@kernel
def try_pairs_considering(
    W, n, slots, rows, x, P_, beside, epoch, z, t, sensor, channels, model, q, consider, gates, may_drop, out
):
    """As `filter.try_pairs`, with biases considered.

    ``beside`` (N, BESIDE), ``sensor`` (M,) index of each measurement's sensor, ``consider`` (sensors, 4) sigmas of
    their biases (m, rad, rad, m/s).
    """
    x_in = np.zeros((LANES, 6))
    P_in = np.zeros((LANES, 36))
    since = np.zeros(LANES)
    left = np.zeros(LANES)
    sensors = np.zeros((LANES, SENSORS))
    C_in = np.zeros((LANES, SENSORS, 6, 4))
    C = np.zeros((LANES, SENSORS, 6, 4))
    sigma = np.zeros((LANES, 4))
    used = np.zeros(LANES, np.uint8)
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            row = rows[start + m]
            x_in[m] = x[slot]
            P_in[m] = P_[slot]
            since[m] = (epoch[slot] - model.ref_ns) * 1e-9
            left[m] = (t[row] - epoch[slot]) * 1e-9
            used[m] = channels[row]
            sigma[m] = consider[sensor[row]]
            _load(beside[slot], x[slot], sensors[m], C_in[m])
            _to_front(sensor[row] + 1.0, sensors[m], C_in[m])
        _predict(W, size, x_in, P_in, since, left, model, q, sensors, C_in)
        for m in range(size):
            load_measurement(W, m, z[rows[start + m]], used[m])
        shape_lanes(W, size, out, start)
        for i in range(6 * LANES):
            W[X_LIN + i] = W[X + i]
        noise_lanes(W)
        linearise_lanes(W)
        _update(W, size, sigma, C_in, C)
        if out.shaped[start]:
            _note_innovations(W, size, sigma, C_in, out, start)
        if may_drop:
            _leave_one_out(W, size, gates, used, sigma, C_in, C)
        for m in range(size):
            at = start + m
            out.nis[at] = W[NIS + m] if ahead_of_sensor(W, m) else np.inf
            out.det[at] = W[DET + m]
            out.used[at] = used[m]
        if out.shaped[start]:
            for m in range(size):
                for c in range(4):
                    W[NOISE + c * LANES + m] += out.noise[start + m, 4 + c]
            _update(W, size, sigma, C_in, C)
        _iterate(W, size, gates, used, sigma, C_in, C)
        tally(W, size)
        for m in range(size):
            at = start + m
            if W[FORM + m] == REFUSED:
                out.nis[at] = np.inf
            for i in range(6):
                out.x[at, i] = W[X_OUT + i * LANES + m]
            unload(W, P_OUT + m, out.P[at])
            _store(out.x[at], sensors[m], C[m], out.beside[at])


@kernel
def predict_slots_considering(W, slots, n, to_ns, x, P_, beside, epoch, model, q):
    """As `filter.predict_slots`, with biases considered."""
    x_in = np.zeros((LANES, 6))
    P_in = np.zeros((LANES, 36))
    since = np.zeros(LANES)
    left = np.zeros(LANES)
    sensors = np.zeros((LANES, SENSORS))
    C = np.zeros((LANES, SENSORS, 6, 4))
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            x_in[m] = x[slot]
            P_in[m] = P_[slot]
            since[m] = (epoch[slot] - model.ref_ns) * 1e-9
            left[m] = (to_ns - epoch[slot]) * 1e-9
            _load(beside[slot], x[slot], sensors[m], C[m])
        _predict(W, size, x_in, P_in, since, left, model, q, sensors, C)
        for m in range(size):
            slot = slots[start + m]
            epoch[slot] = to_ns
            for i in range(6):
                x[slot, i] = W[X + i * LANES + m]
            unload(W, P + m, P_[slot])
            _store(x[slot], sensors[m], C[m], beside[slot])


@kernel
def begin(W, z, t, channels, sensor, n, consider, model, x, P_, beside):
    """A track was just begun by a least-squares fit through ``n`` measurements: let its covariance P_ (36,), at the
    last of them, and ``beside`` know of the biases of their sensors.

    ``sensor`` (n,) indices, ``consider`` (sensors, 4) sigmas. A bias moves a fit by G b with G = N^-1 sum J' w
    (consider covariance analysis: Tapley, Schutz & Born, Statistical Orbit Determination, section 6.3).
    """
    N = np.zeros((6, 6))
    G = np.zeros((6, 4))
    own = np.zeros(n, np.bool_)
    sensors = np.zeros(SENSORS)
    C = np.zeros((SENSORS, 6, 4))
    known = 0
    for last in range(n - 1, -1, -1):
        seen = False
        for s in range(known):
            seen = seen or sensors[s] == sensor[last] + 1.0
        if seen or known == SENSORS:
            continue
        for k in range(n):
            own[k] = sensor[k] == sensor[last]
        weigh_arc(W, z, t, channels, own, n, x, t[n - 1], model, N, G)
        ok, inverse, _ = solve(N, G[:, 0].copy())
        if not ok:
            break
        sensors[known] = sensor[last] + 1.0
        for c in range(4):
            for i in range(6):
                moved = 0.0
                for j in range(6):
                    moved += inverse[i, j] * G[j, c]
                C[known, i, c] = -moved * consider[sensor[last], c]
        for i in range(6):
            for j in range(6):
                for c in range(4):
                    P_[6 * i + j] += C[known, i, c] * C[known, j, c]
        known += 1
    _store(x, sensors, C, beside)
