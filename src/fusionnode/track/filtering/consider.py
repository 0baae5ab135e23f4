"""Errors of sensors beside a track's state: biases that are considered, errors that change and are estimated.

A measurement of sensor s is z = h(x) + sum over k of sigma_k e_k + noise. The e are errors of unit variance, one a
channel (range, lon, lat, range rate) and a kind. Each is a first-order Gauss-Markov process of correlation time T
(Gelb, Applied Optimal Estimation, section 3.6): over dt it keeps f = exp(-dt / T) of itself, and its variance goes
towards one again. So an object that comes up again meets an error that is nearly a new one. T may be infinite. What
wanders may be smooth, as a servo's lag is: then it is the second-order process of correlation (1 + u) exp(-u), u = 2 dt
/ T (same book, same section), with its rate beside it, in units of 2 / T.

A track carries its x, and of the SENSORS sensors that updated it last the errors e with the covariance of it all.
Some errors are estimated like the state: innovations are then white. The others are *considered* (the Schmidt-Kalman
filter: Jazwinski, Stochastic Processes and Filtering Theory, section 8.4; Bierman, Factorization Methods, section
VIII): their rows of the gain are set to zero, so that their estimate stays nothing and their variance one, but the
covariance knows of them. So a thousand measurements of one biased radar do not shrink the covariance below its bias.

While a sensor pulls in, it is worse: when it begins to follow an object, or takes it up again after errors.AGAIN
revisits without a detection that was used, what wanders (the second kind) is new and so many times its sigma; its noise
and what drives the wander are as much larger, which dies away.

Errors of unit variance let a sensor's sigmas change at run time. A sensor that was forgotten (more than SENSORS
others since) comes back as if it had never met the track. An error whose sigma is zero takes part in nothing.

What a track keeps (Picture.beside, `kept` numbers; a picture without room for them keeps nothing): its x, by which it
is seen whether someone else has set the track's state, so that there is nothing known of errors in it; the sensors
(index + 1; 0: none), the last to update first; when each did and when it began to follow, TAI s; their errors; the
covariance of those with x, error by error; and the lower triangle of their own, row by row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
from fusionnode.track.filtering.errors import Errors
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
from fusionnode.track.filtering.sensing import FIRST_COLUMN, bend_lanes, linearise_lanes, noise_lanes
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
)
from fusionnode.track.motion.dynamics import predict_lanes, transit_lanes

F64 = npt.NDArray[np.float64]
SENSORS = 4
_SENSOR, _WHEN, _BEGAN, _ERROR = 6, 6 + SENSORS, 6 + 2 * SENSORS, 6 + 3 * SENSORS
_ALL = 7
_RATE = 8
"""Errors of one sensor from here on are the rates of those four before."""
_VAR = FIRST_COLUMN + 17
ASTRAY = 5.0
"""An innovation of so much NIS per degree of freedom, when a sensor begins, says that an orbit is not as well known as
it seems (one in a thousand does so by chance)."""
MOST_WIDER = 25.0


def kept(kinds: int) -> int:
    """How many numbers a track keeps, of errors of so many ``kinds`` (one a channel each)."""
    errors = 4 * kinds * SENSORS
    return _ERROR + 7 * errors + errors * (errors + 1) // 2


@kernel
def _load(beside, x, sensor, now_s, spec, sensors, when, which, free, J, e):
    """What a track knows of errors, the ``sensor`` (index + 1; 0: none) coming first among its sensors.

    Into ``sensors`` (SENSORS,), ``when`` (2, SENSORS) each was used last and began to follow, ``which`` (errors,) the
    place of each error that takes part, ``free`` whether it is estimated, ``e`` their estimates, and ``J`` (6 + errors,
    6 + errors) their covariance with the state and each other. Returns how many take part.
    What wanders in another sensor that pulls in when it comes again, after ``now_s`` (TAI s), is left out.
    """
    sigma, estimated = spec.sigma, spec.estimated
    own = sigma.shape[1]
    errors = own * SENSORS
    known = beside.shape[0] >= _ERROR + 7 * errors
    for i in range(6):
        known = known and beside[i] == x[i]
    was = np.full(SENSORS, -1, np.int64)
    count = 0
    if sensor > 0.0:
        sensors[0] = sensor
        when[:, 0] = -np.inf
        count = 1
    for s in range(SENSORS):
        old = beside[_SENSOR + s] if known else 0.0
        if not old > 0.0:
            continue
        if old == sensor:
            was[0] = s
            when[0, 0] = beside[_WHEN + s]
            when[1, 0] = beside[_BEGAN + s]
        elif count < SENSORS:
            sensors[count] = old
            when[0, count] = beside[_WHEN + s]
            when[1, count] = beside[_BEGAN + s]
            was[count] = s
            count += 1
    for s in range(count, SENSORS):
        sensors[s] = 0.0
        when[:, s] = 0.0
    n = 0
    for s in range(count):
        index = int(sensors[s]) - 1
        stale = sensors[s] != sensor and abs(now_s - when[0, s]) > spec.again_s[index]
        for k in range(own):
            if sigma[index, k] > 0.0 and not (stale and k >= 4):
                which[n] = own * s + k
                free[n] = estimated[index, k]
                n += 1
    cross = _ERROR + errors
    square = cross + 6 * errors
    for a in range(n):
        s = which[a] // own
        at = own * was[s] + which[a] % own if was[s] >= 0 else -1
        if at >= 0 and not beside[square + at * (at + 1) // 2 + at] > 0.0:
            at = -1
        e[a] = beside[_ERROR + at] if at >= 0 else 0.0
        for i in range(6):
            J[6 + a, i] = J[i, 6 + a] = beside[cross + 6 * at + i] if at >= 0 else 0.0
        for b in range(a):
            r = which[b] // own
            bt = own * was[r] + which[b] % own if was[r] >= 0 else -1
            value = 0.0
            if at >= 0 and bt >= 0:
                high, low = max(at, bt), min(at, bt)
                value = beside[square + high * (high + 1) // 2 + low]
            J[6 + a, 6 + b] = J[6 + b, 6 + a] = value
        J[6 + a, 6 + a] = beside[square + at * (at + 1) // 2 + at] if at >= 0 else 1.0
    return n


@kernel
def _store(x, sensors, when, which, n, own, J, e, beside):
    """The other way: what is known now of ``n`` errors, of ``own`` a sensor."""
    errors = own * SENSORS
    if beside.shape[0] < _ERROR + 7 * errors:
        return
    for i in range(6):
        beside[i] = x[i]
    for s in range(SENSORS):
        beside[_SENSOR + s] = sensors[s]
        beside[_WHEN + s] = when[0, s]
        beside[_BEGAN + s] = when[1, s]
    cross = _ERROR + errors
    square = cross + 6 * errors
    for i in range(_ERROR, beside.shape[0]):
        beside[i] = 0.0
    for a in range(n):
        at = which[a]
        beside[_ERROR + at] = e[a]
        for i in range(6):
            beside[cross + 6 * at + i] = J[6 + a, i]
        for b in range(a + 1):
            beside[square + at * (at + 1) // 2 + which[b]] = J[6 + a, 6 + b]


@kernel
def _predict(W, n, x, P_, since, left, model, q, sensors, which, count, times_s, scale, J, e):
    """Predict x (LANES, 6), P_ (LANES, 36) and the errors of the first ``n`` lanes by ``left`` s from ``since``, s
    (both (LANES,)). ``count`` (LANES,) errors take part; ``times_s`` (all sensors, errors of one) correlation times,
    ``scale`` (LANES, 4) factors on the variance of what wanders in the first sensor.
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
    for m in range(n):
        for a in range(count[m]):
            for i in range(6):
                J[m, i, 6 + a] = 0.0
                for j in range(6):
                    J[m, i, 6 + a] += W[TOTAL + (6 * i + j) * LANES + m] * J[m, 6 + a, j]
        for a in range(count[m]):
            for i in range(6):
                J[m, 6 + a, i] = J[m, i, 6 + a]
        _age(abs(left[m]), sensors[m], which[m], count[m], times_s, scale[m], J[m], e[m])


@kernel
def _age(dt, sensors, which, n, times_s, scale, J, e):
    """Let ``n`` errors grow older by ``dt`` s (a track may be taken back: an error is as alike to what it was as to
    what it will be).
    """
    own = times_s.shape[1]
    for a in range(n):
        k = which[a] % own
        if k >= _RATE:
            continue  # goes with the error that it is the rate of
        time_s = times_s[int(sensors[which[a] // own]) - 1, k]
        drive = scale[k % 4] if 4 <= which[a] < own else 1.0
        b = -1
        for other in range(a + 1, n):
            if k >= 4 and which[other] == which[a] + 4:
                b = other
        if b < 0:
            f = np.exp(-dt / time_s)
            e[a] *= f
            for j in range(6 + n):
                J[6 + a, j] *= f
            for j in range(6 + n):
                J[j, 6 + a] *= f
            J[6 + a, 6 + a] += (1.0 - f * f) * drive
            continue
        u = 2.0 * dt / time_s
        f = np.exp(-u)
        aa, ab, ba, bb = f * (1.0 + u), f * u, -f * u, f * (1.0 - u)
        e[a], e[b] = aa * e[a] + ab * e[b], ba * e[a] + bb * e[b]
        for j in range(6 + n):
            J[6 + a, j], J[6 + b, j] = (
                aa * J[6 + a, j] + ab * J[6 + b, j], ba * J[6 + a, j] + bb * J[6 + b, j]
            )  # fmt: skip
        for j in range(6 + n):
            J[j, 6 + a], J[j, 6 + b] = (
                aa * J[j, 6 + a] + ab * J[j, 6 + b], ba * J[j, 6 + a] + bb * J[j, 6 + b]
            )  # fmt: skip
        J[6 + a, 6 + a] += (1.0 - aa * aa - ab * ab) * drive
        J[6 + b, 6 + b] += (1.0 - ba * ba - bb * bb) * drive
        J[6 + a, 6 + b] -= (aa * ba + ab * bb) * drive
        J[6 + b, 6 + a] = J[6 + a, 6 + b]


@kernel
def _loudness(when, now_s, sensor, errors):
    """The factor on the variances of ``sensor`` (index) at ``now_s``, TAI s, because it may be pulling in; sets
    ``when`` (2, SENSORS) of it, the first. Says if it has just begun to.
    """
    begins = abs(now_s - when[0, 0]) > errors.again_s[sensor]
    if begins:
        when[1, 0] = now_s
    when[0, 0] = now_s
    more = errors.pull_in[sensor] ** 2 - 1.0
    return 1.0 + more * np.exp(-abs(now_s - when[1, 0]) / errors.pull_in_s[sensor]), begins


@kernel
def _pull_in(which, n, own, start, J, e):
    """The first sensor has just begun to follow: what wanders in it is new, and of ``start`` sigma."""
    for a in range(n):
        if not 4 <= which[a] < own:
            continue
        e[a] = 0.0
        for j in range(6 + n):
            J[6 + a, j] = J[j, 6 + a] = 0.0
        J[6 + a, 6 + a] = start * start


@kernel
def _update_one(W, m, sigma, which, free, n, J_in, e_in, J, e, h, k, b, v):
    """Update lane ``m``, channel by channel, from J_in and e_in into J and e.

    ``sigma`` (own,) of its sensor, whose errors are the first of the ``n``. Joseph's form, as in `filter`, for any gain
    k: M = P - k b' with b = P h, then P' = M - v k' with v = M h - r k. Says whether every innovation variance was
    above zero. h, k, b, v (6 + errors,): to work in.
    """
    L = LANES
    own = sigma.shape[0]
    size = 6 + n
    d = np.empty(6)
    take_lower(W, P, m, J)
    for i in range(6):
        d[i] = W[X_LIN + i * L + m] - W[X + i * L + m]
        for j in range(i):
            J[j, i] = J[i, j]
    for a in range(n):
        e[a] = e_in[a]
        for j in range(6 + a + 1):
            J[6 + a, j] = J[j, 6 + a] = J_in[6 + a, j]
    nis = 0.0
    det = 1.0
    for c in range(4):
        if not W[USE + c * L + m] > 0.0:
            continue
        r = W[NOISE + c * L + m]
        y = W[Y + c * L + m]
        for i in range(6):
            h[i] = W[H + (6 * c + i) * L + m]
            y += h[i] * d[i]
        for a in range(n):
            h[6 + a] = 0.0
            if which[a] < min(own, _RATE) and which[a] % 4 == c:
                h[6 + a] = sigma[which[a]]
                y -= h[6 + a] * e[a]
        variance = r
        for i in range(size):
            b[i] = 0.0
            for j in range(size):
                b[i] += J[i, j] * h[j]
            variance += h[i] * b[i]
        if not 0.0 < variance < np.inf:
            return False
        for i in range(size):
            k[i] = b[i] / variance if i < 6 or free[i - 6] else 0.0
        for i in range(6):
            d[i] -= k[i] * y
        for a in range(n):
            e[a] += k[6 + a] * y
        nis += y * y / variance
        det *= variance
        for i in range(size):
            for j in range(size):
                J[i, j] -= k[i] * b[j]
        for i in range(size):
            v[i] = -r * k[i]
            for j in range(size):
                v[i] += J[i, j] * h[j]
        for i in range(size):
            for j in range(i + 1):
                J[i, j] = 0.5 * (J[i, j] - v[i] * k[j] + J[j, i] - v[j] * k[i])
                J[j, i] = J[i, j]
    for i in range(6):
        W[X_OUT + i * L + m] = W[X_LIN + i * L + m] - d[i]
    put_lower(W, P_OUT, m, J)
    W[NIS + m] = nis
    W[DET + m] = det
    return nis < np.inf


@kernel
def _update(W, n, own, known, now):
    """Update the first ``n`` lanes; FORM tells of what was refused, whose NIS is infinite.

    ``own`` sigmas (LANES, errors of one sensor); ``known`` is what there is before it, ``now`` (J, e) is filled.
    """
    which, free, count, J_in, e_in = known
    J, e = now
    size = J.shape[1]
    p = np.empty((6, 6))
    S = np.zeros((6, 6))
    h, k, b, v = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    for m in range(n):
        W[FORM + m] = 0.0
        W[SOUND + m] = np.inf
        if not _update_one(
            W, m, own[m], which[m], free[m], count[m], J_in[m], e_in[m], J[m], e[m], h, k, b, v
        ):
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
def _note_innovations(W, n, own, known, out, start):
    """As `filter._note_innovations`; the sensor's errors are part of what is expected and of its spread."""
    which, _, count, J, e = known
    h = np.empty(J.shape[1])
    for m in range(n):
        for i in range(6):
            for j in range(i + 1):
                J[m, i, j] = J[m, j, i] = W[P + (i * (i + 1) // 2 + j) * LANES + m]
        size = 6 + count[m]
        for c in range(4):
            y = W[Y + c * LANES + m]
            for i in range(6):
                h[i] = W[H + (6 * c + i) * LANES + m]
            for a in range(count[m]):
                mine = which[m, a] < min(own.shape[1], _RATE) and which[m, a] % 4 == c
                h[6 + a] = own[m, which[m, a]] if mine else 0.0
                y -= h[6 + a] * e[m, a]
            spread = 0.0
            for i in range(size):
                for j in range(size):
                    spread += h[i] * J[m, i, j] * h[j]
            out.y[start + m, c] = y
            out.spread[start + m, c] = spread + W[NOISE + c * LANES + m] - W[VAR + c * LANES + m]


@kernel
def _widen(W, n, begins, used, count, J):
    """Where a sensor begins to follow a track and finds it far from where it should be: as much uncertainty of orbit as
    explains that, up to MOST_WIDER times what was there. Says whether there was any such lane.

    An orbit that a bad pass has led astray is surer of itself than it ought to be; the next passes are what can tell.
    """
    any_of_them = False
    for m in range(n):
        dof = degrees(used[m])
        nis = W[NIS + m]
        if not begins[m] or not ASTRAY * dof < nis < np.inf:
            continue
        wider = min(nis / dof, MOST_WIDER)
        for i in range(21):
            W[P + i * LANES + m] *= wider
        for a in range(count[m]):
            for j in range(6):
                J[m, 6 + a, j] *= np.sqrt(wider)
                J[m, j, 6 + a] = J[m, 6 + a, j]
        any_of_them = True
    return any_of_them


@kernel
def _leave_one_out(W, n, gates, used, own, known, now):
    """As `filter._leave_one_out`."""
    for drop in (1, 4, 2):
        tried = False
        for m in range(n):
            if used[m] == _ALL and not W[NIS + m] <= gates[degrees(used[m])]:
                set_use(W, m, _ALL ^ drop)
                tried = True
        if not tried:
            return
        _update(W, n, own, known, now)
        for m in range(n):
            if used[m] == _ALL and W[USE + m] * W[USE + LANES + m] * W[USE + 3 * LANES + m] == 0.0:
                if W[NIS + m] <= gates[degrees(_ALL ^ drop)]:
                    used[m] = _ALL ^ drop
                else:
                    set_use(W, m, _ALL)
        _update(W, n, own, known, now)


@kernel
def _iterate(W, n, gates, used, own, known, now):
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
        _update(W, n, own, known, now)


@kernel
def try_pairs_considering(
    W, n, slots, rows, x, P_, beside, epoch, z, t, sensor, channels, model, q, errors, gates, may_drop, out
):  # fmt: skip
    """As `filter.try_pairs`, with errors of sensors.

    ``beside`` (N, kept), ``sensor`` (M,) index of each measurement's sensor; ``errors`` see `Errors`.
    """
    sigma, times_s = errors.sigma, errors.times_s
    own = sigma.shape[1]
    most = own * SENSORS
    x_in = np.zeros((LANES, 6))
    P_in = np.zeros((LANES, 36))
    since = np.zeros(LANES)
    left = np.zeros(LANES)
    sensors = np.zeros((LANES, SENSORS))
    when = np.zeros((LANES, 2, SENSORS))
    loud = np.ones(LANES)
    begins = np.zeros(LANES, np.bool_)
    which = np.zeros((LANES, most), np.int64)
    free = np.zeros((LANES, most), np.bool_)
    count = np.zeros(LANES, np.int64)
    J_in = np.zeros((LANES, 6 + most, 6 + most))
    e_in = np.zeros((LANES, most))
    J = np.zeros((LANES, 6 + most, 6 + most))
    e = np.zeros((LANES, most))
    own_sigma = np.zeros((LANES, own))
    scale = np.ones((LANES, 4))
    used = np.zeros(LANES, np.uint8)
    known = (which, free, count, J_in, e_in)
    now = (J, e)
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
            own_sigma[m] = sigma[sensor[row]]
            count[m] = _load(
                beside[slot], x[slot], sensor[row] + 1.0, t[row] * 1e-9, errors, sensors[m], when[m],
                which[m], free[m], J_in[m], e_in[m],
            )  # fmt: skip
            loud[m], begins[m] = _loudness(when[m], t[row] * 1e-9, sensor[row], errors)
            for c in range(4):
                if out.shaped[start]:
                    out.noise[start + m, c] *= loud[m]
                    scale[m, c] = out.noise[start + m, c] / z[row, _VAR + c]
                else:
                    scale[m, c] = loud[m]
                out.driven[start + m, c] = 0.0
        _predict(
            W, size, x_in, P_in, since, left, model, q, sensors, which, count, times_s, scale, J_in, e_in
        )
        for m in range(size):
            row = rows[start + m]
            if begins[m]:
                _pull_in(which[m], count[m], own, errors.pull_in[sensor[row]], J_in[m], e_in[m])
            for a in range(count[m]):
                if 4 <= which[m, a] < min(own, _RATE):
                    out.driven[start + m, which[m, a] % 4] = (
                        own_sigma[m, which[m, a]] ** 2 * J_in[m, 6 + a, 6 + a]
                    )
            load_measurement(W, m, z[row], used[m])
            for c in range(4):
                W[VAR + c * LANES + m] *= loud[m]
        shape_lanes(W, size, out, start)
        for i in range(6 * LANES):
            W[X_LIN + i] = W[X + i]
        noise_lanes(W)
        linearise_lanes(W)
        _update(W, size, own_sigma, known, now)
        if _widen(W, size, begins, used, count, J_in):
            noise_lanes(W)
            _update(W, size, own_sigma, known, now)
        if out.shaped[start]:
            _note_innovations(W, size, own_sigma, known, out, start)
        if may_drop:
            _leave_one_out(W, size, gates, used, own_sigma, known, now)
        for m in range(size):
            at = start + m
            out.nis[at] = W[NIS + m] if ahead_of_sensor(W, m) else np.inf
            out.det[at] = W[DET + m]
            out.used[at] = used[m]
        if out.shaped[start]:
            for m in range(size):
                for c in range(4):
                    W[NOISE + c * LANES + m] += out.noise[start + m, 4 + c]
            _update(W, size, own_sigma, known, now)
        _iterate(W, size, gates, used, own_sigma, known, now)
        tally(W, size)
        for m in range(size):
            at = start + m
            if W[FORM + m] == REFUSED:
                out.nis[at] = np.inf
            for i in range(6):
                out.x[at, i] = W[X_OUT + i * LANES + m]
            unload(W, P_OUT + m, out.P[at])
            _store(out.x[at], sensors[m], when[m], which[m], count[m], own, J[m], e[m], out.beside[at])


@kernel
def predict_slots_considering(W, slots, n, to_ns, x, P_, beside, epoch, model, q, errors, sensor, factor):
    """As `filter.predict_slots`, with errors of sensors. For a measurement by ``sensor`` (index; -1: for none), on
    whose variances there are ``factor`` (4,), as `try_pairs_considering` predicts.
    """
    times_s = errors.times_s
    own = times_s.shape[1]
    most = own * SENSORS
    x_in = np.zeros((LANES, 6))
    P_in = np.zeros((LANES, 36))
    since = np.zeros(LANES)
    left = np.zeros(LANES)
    sensors = np.zeros((LANES, SENSORS))
    when = np.zeros((LANES, 2, SENSORS))
    which = np.zeros((LANES, most), np.int64)
    free = np.zeros((LANES, most), np.bool_)
    count = np.zeros(LANES, np.int64)
    J = np.zeros((LANES, 6 + most, 6 + most))
    e = np.zeros((LANES, most))
    scale = np.ones((LANES, 4))
    scale[:] = factor
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            slot = slots[start + m]
            x_in[m] = x[slot]
            P_in[m] = P_[slot]
            since[m] = (epoch[slot] - model.ref_ns) * 1e-9
            left[m] = (to_ns - epoch[slot]) * 1e-9
            count[m] = _load(
                beside[slot],
                x[slot],
                sensor + 1.0,
                to_ns * 1e-9,
                errors,
                sensors[m],
                when[m],
                which[m],
                free[m],
                J[m],
                e[m],
            )
        _predict(W, size, x_in, P_in, since, left, model, q, sensors, which, count, times_s, scale, J, e)
        for m in range(size):
            slot = slots[start + m]
            epoch[slot] = to_ns
            for i in range(6):
                x[slot, i] = W[X + i * LANES + m]
            unload(W, P + m, P_[slot])
            _store(x[slot], sensors[m], when[m], which[m], count[m], own, J[m], e[m], beside[slot])


@kernel
def begin(W, z, t, channels, sensor, n, errors, model, x, P_, beside):
    """A track was just begun by a least-squares fit through ``n`` measurements: let its covariance P_ (36,), at the
    last of them, and ``beside`` know of the errors of their sensors.

    ``sensor`` (n,) indices; ``errors`` see `Errors`. An error that stays alike through the
    fit moves it by G b with G = N^-1 sum J' w (consider covariance analysis: Tapley, Schutz & Born, Statistical Orbit
    Determination, section 6.3).
    """
    sigma = errors.sigma
    own_errors = sigma.shape[1]
    most = own_errors * SENSORS
    N = np.zeros((6, 6))
    G = np.zeros((6, 4))
    own = np.zeros(n, np.bool_)
    sensors = np.zeros(SENSORS)
    when = np.zeros((2, SENSORS))
    which = np.zeros(most, np.int64)
    J = np.zeros((6 + most, 6 + most))
    e = np.zeros(most)
    known = 0
    count = 0
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
        when[0, known] = t[last] * 1e-9
        for k in range(n - 1, -1, -1):
            if own[k]:
                when[1, known] = t[k] * 1e-9
        for k in range(own_errors):
            if not sigma[sensor[last], k] > 0.0:
                continue  # of rates the fit says nothing
            which[count] = own_errors * known + k
            for i in range(6):
                moved = 0.0
                for j in range(6):
                    moved += inverse[i, j] * G[j, k % 4]
                J[6 + count, i] = -moved * sigma[sensor[last], k] if k < _RATE else 0.0
            variance = errors.pull_in[sensor[last]] ** 2 if k >= 4 else 1.0
            for i in range(6):
                for j in range(6):
                    P_[6 * i + j] += J[6 + count, i] * J[6 + count, j] * variance
            for i in range(6):
                J[6 + count, i] *= variance
            J[6 + count, 6 + count] = variance
            count += 1
        known += 1
    _store(x, sensors, when, which, count, own_errors, J, e, beside)


@kernel
def _errors_of(beside, x, sensor, t_s, errors, mean, cross, own_covariance):
    sigma = errors.sigma
    own = sigma.shape[1]
    most = own * SENSORS
    when = np.zeros((2, SENSORS))
    which = np.zeros(most, np.int64)
    free = np.zeros(most, np.bool_)
    J = np.zeros((6 + most, 6 + most))
    e = np.zeros(most)
    n = _load(beside, x, sensor + 1.0, t_s, errors, np.zeros(SENSORS), when, which, free, J, e)
    if _loudness(when, t_s, sensor, errors)[1]:
        _pull_in(which, n, own, errors.pull_in[sensor], J, e)
    for a in range(n):
        if which[a] >= min(own, _RATE):
            continue
        s = sigma[sensor, which[a]]
        c = which[a] % 4
        mean[c] += s * e[a]
        for i in range(6):
            cross[i, c] += s * J[i, 6 + a]
        for b in range(n):
            if which[b] < min(own, _RATE):
                own_covariance[c, which[b] % 4] += s * sigma[sensor, which[b]] * J[6 + a, 6 + b]


def errors_of(beside: F64, x: F64, sensor: int, t_ns: int, errors: Errors) -> tuple[F64, F64, F64]:
    """What the track of state ``x`` (6,) at ``t_ns``, TAI ns, that keeps ``beside`` expects of the errors of ``sensor``
    (index): their sum by channel (4,), its covariance with x (6, 4) and its own (4, 4); m, rad, rad, m/s.
    """
    mean, cross, own = np.zeros(4), np.zeros((6, 4)), np.zeros((4, 4))
    _errors_of(beside, x, sensor, t_ns * 1e-9, errors, mean, cross, own)
    return mean, cross, own


@kernel
def _loudness_of(beside, x, sensor, t_s, errors):
    most = errors.sigma.shape[1] * SENSORS
    when = np.zeros((2, SENSORS))
    which, free = np.zeros(most, np.int64), np.zeros(most, np.bool_)
    J, e = np.zeros((6 + most, 6 + most)), np.zeros(most)
    _load(beside, x, sensor + 1.0, t_s, errors, np.zeros(SENSORS), when, which, free, J, e)
    return _loudness(when, t_s, sensor, errors)[0]


def loudness_of(beside: F64, x: F64, sensor: int, t_ns: int, errors: Errors) -> float:
    """The factor on the variances of ``sensor`` (index) at ``t_ns`` because it may be pulling in; as `errors_of`."""
    return float(_loudness_of(beside, x, sensor, t_ns * 1e-9, errors))
