"""An orbit through a handful of radar detections: consensus first, then batch least squares.

A Kalman filter started from one or two radar points diverges (the orbit's curvature is many sigma of the range
rate within a second). So a track starts from several points that agree with one motion, fitted at once.
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.filtering.filter import load_measurement, load_track
from fusionnode.track.filtering.sensing import FIRST_COLUMN, LIGHT_M_S, linearise_lanes
from fusionnode.track.initiation.normal import inverse_of
from fusionnode.track.lanes import LANES, LEFT, TOTAL, USE, VAR, X_LIN, H, X, Y
from fusionnode.track.motion.dynamics import MU, transit_lanes

_RANGE, _RATE = int(Channel.RANGE), int(Channel.RANGE_RATE)
_R, _V, _LOS, _LON, _LAT, _RHO, _RR, _VAR, _DELAY = (
    FIRST_COLUMN + i for i in (0, 3, 6, 9, 12, 15, 16, 17, 21)
)

AGREE = 16.27
"""Chi-square of three degrees of freedom at 99.9 %."""
JERK_M_S3 = 0.02
"""Third derivative of the position in the lowest orbits, about twice v^3/r^2 (margin of the parabola)."""
ESCAPE_MARGIN = 1.1
OUTLIER_SIGMAS = 4.0
MOST_ITERATIONS = 10
FIT_LIMIT = 3.0
"""Largest accepted mean square of the normalised residuals."""


@kernel
def consensus(z, t, channels, n, chosen):
    """Which of ``n`` detections of one radar, in time order, move together with the last one of them.

    Every older detection is taken with the last as two ends of a parabola (gravity at the last); the pair
    that most others in between agree with, in position and range rate, wins (random sample consensus
    with all samples taken). Most pairs are no orbit, or not with the range rates at their ends: those cost little.
    ``chosen`` (n,) is set; returns how many were chosen.
    """
    last = n - 1
    best = 0
    for i in range(n):
        chosen[i] = False
    if not channels[last] & _RANGE:
        return 0
    pz = np.empty(3)
    v = np.empty(3)
    g = np.empty(3)
    tz = -z[last, _DELAY] * z[last, _RHO] / LIGHT_M_S
    for i in range(3):
        pz[i] = z[last, _R + i] + z[last, _RHO] * z[last, _LOS + i]
    r2 = pz[0] ** 2 + pz[1] ** 2 + pz[2] ** 2
    for i in range(3):
        g[i] = -MU * pz[i] / (r2 * np.sqrt(r2))
    escape = ESCAPE_MARGIN * np.sqrt(2.0 * MU / np.sqrt(r2))
    agrees = np.zeros(n, np.bool_)
    for end in range(last):
        if last - end + 1 <= best:
            break
        if not channels[end] & _RANGE:
            continue
        te = (t[end] - t[last]) * 1e-9 - z[end, _DELAY] * z[end, _RHO] / LIGHT_M_S - tz
        if te >= 0.0:
            continue
        speed2 = 0.0
        for i in range(3):
            pe = z[end, _R + i] + z[end, _RHO] * z[end, _LOS + i]
            v[i] = (pe - pz[i]) / te - 0.5 * g[i] * te
            speed2 += v[i] * v[i]
        spread2 = 0.0  # variance of the velocity, all directions
        for k in (end, last):
            spread2 += (z[k, _VAR] + z[k, _RHO] ** 2 * (z[k, _VAR + 1] + z[k, _VAR + 2])) / te**2
        fastest = escape + 3.0 * np.sqrt(spread2)
        if speed2 > fastest * fastest:
            continue
        if not _agrees(z, channels, last, 0.0, te, pz, v, g, end, last):
            continue
        if not _agrees(z, channels, end, te, te, pz, v, g, end, last):
            continue
        count = 0
        for k in range(n):
            agrees[k] = False
            if k < end or not channels[k] & _RANGE:
                continue
            if k in (end, last):
                agrees[k] = True
                count += 1
                continue
            tk = (t[k] - t[last]) * 1e-9 - z[k, _DELAY] * z[k, _RHO] / LIGHT_M_S - tz
            if te < tk < 0.0 and _agrees(z, channels, k, tk, te, pz, v, g, end, last):
                agrees[k] = True
                count += 1
        if count > best:
            best = count
            for k in range(n):
                chosen[k] = agrees[k]
    return best


@kernel
def _agrees(z, channels, k, tk, te, pz, v, g, end, last):
    """Whether detection ``k``, at ``tk`` s, lies on the parabola from ``te`` s (``end``) to 0 s (``last``)."""
    margin = JERK_M_S3 / 6.0 * abs(tk) * te * te
    d_los = 0.0
    d_lon = 0.0
    d_lat = 0.0
    rate = 0.0
    for i in range(3):
        d = z[k, _R + i] + z[k, _RHO] * z[k, _LOS + i] - (pz[i] + v[i] * tk + 0.5 * g[i] * tk * tk)
        d_los += d * z[k, _LOS + i]
        d_lon += d * z[k, _LON + i]
        d_lat += d * z[k, _LAT + i]
        rate += (v[i] + g[i] * tk - z[k, _V + i]) * z[k, _LOS + i]
    v_los = margin * margin + z[k, _VAR]
    v_lon = margin * margin + z[k, _RHO] ** 2 * z[k, _VAR + 1]
    v_lat = margin * margin + z[k, _RHO] ** 2 * z[k, _VAR + 2]
    v_rate = z[k, _VAR + 3] + (JERK_M_S3 * te * te) ** 2
    for j in range(2):
        e = end if j == 0 else last
        along = 0.0
        lon_a = 0.0
        lat_a = 0.0
        for i in range(3):
            along += z[e, _LOS + i] * z[k, _LOS + i]
            lon_a += z[e, _LON + i] * z[k, _LOS + i]
            lat_a += z[e, _LAT + i] * z[k, _LOS + i]
        across = z[e, _RHO] ** 2
        leak = across * (z[e, _VAR + 1] * lon_a**2 + z[e, _VAR + 2] * lat_a**2)
        side = z[e, _VAR] * (1.0 - along * along) + across * max(z[e, _VAR + 1], z[e, _VAR + 2])
        v_los += z[e, _VAR] + leak
        v_lon += side
        v_lat += side
        v_rate += (z[e, _VAR] * along**2 + leak) / te**2
    if d_los**2 / v_los + d_lon**2 / v_lon + d_lat**2 / v_lat > AGREE:
        return False
    return not channels[k] & _RATE or (rate - z[k, _RR]) ** 2 <= 25.0 * v_rate


@kernel
def _look_back(W, z, t, channels, start, size, x, epoch, model):
    """Put ``size`` measurements from ``start`` into lanes, each with the orbit ``x`` at ``epoch`` taken to its time."""
    zero = np.zeros(36)
    since = (epoch - model.ref_ns) * 1e-9
    for m in range(size):
        left = (t[start + m] - epoch) * 1e-9
        load_track(W, m, x, zero, since, left, model.terms[2], model.terms[3])
        load_measurement(W, m, z[start + m], channels[start + m])
    for m in range(size, LANES):
        W[LEFT + m] = 0.0
    transit_lanes(W, model)
    for i in range(6 * LANES):
        W[X_LIN + i] = W[X + i]
    linearise_lanes(W)


@kernel
def normal_equations(W, z, t, channels, keep, n, x, epoch, model, N, b):
    """Fill N (6, 6) and b (6,) of the step from ``x``; returns the sum of squares and the number of channels."""
    L = LANES
    N[:, :] = 0.0
    b[:] = 0.0
    chi2 = 0.0
    count = 0
    J = np.empty(6)
    for start in range(0, n, L):
        size = min(L, n - start)
        _look_back(W, z, t, channels, start, size, x, epoch, model)
        for m in range(size):
            for c in range(4):
                if W[USE + c * L + m] == 0.0 or not keep[start + m, c]:
                    continue
                for j in range(6):
                    J[j] = 0.0
                    for k in range(6):
                        J[j] += W[H + (6 * c + k) * L + m] * W[TOTAL + (6 * k + j) * L + m]
                w = 1.0 / W[VAR + c * L + m]
                y = W[Y + c * L + m]
                chi2 += w * y * y
                count += 1
                for j in range(6):
                    b[j] += J[j] * w * y
                    for k in range(6):
                        N[j, k] += J[j] * w * J[k]
    return chi2, count


@kernel
def weigh_arc(W, z, t, channels, own, n, x, epoch, model, N, G):
    """How the fit of ``x`` at ``epoch`` to all channels of ``n`` measurements weighs them: N (6, 6) = sum J' w J, and
    G (6, 4) = sum of J' w by channel, of those in ``own`` (n,).
    """
    L = LANES
    N[:, :] = 0.0
    G[:, :] = 0.0
    J = np.empty(6)
    for start in range(0, n, L):
        size = min(L, n - start)
        _look_back(W, z, t, channels, start, size, x, epoch, model)
        for m in range(size):
            for c in range(4):
                if W[USE + c * L + m] == 0.0:
                    continue
                w = 1.0 / W[VAR + c * L + m]
                for j in range(6):
                    J[j] = 0.0
                    for k in range(6):
                        J[j] += W[H + (6 * c + k) * L + m] * W[TOTAL + (6 * k + j) * L + m]
                for j in range(6):
                    if own[start + m]:
                        G[j, c] += J[j] * w
                    for k in range(6):
                        N[j, k] += J[j] * w * J[k]


@kernel
def _mark_outliers(W, z, t, channels, keep, n, x, epoch, model):
    """Clear ``keep`` (n, 4) where a residual is beyond OUTLIER_SIGMAS; a bad angle takes the whole point out."""
    L = LANES
    changed = False
    for start in range(0, n, L):
        size = min(L, n - start)
        _look_back(W, z, t, channels, start, size, x, epoch, model)
        for m in range(size):
            for c in range(4):
                y = W[Y + c * L + m]
                bad = y * y > OUTLIER_SIGMAS**2 * W[VAR + c * L + m]
                if bad and keep[start + m, c] and W[USE + c * L + m] != 0.0:
                    changed = True
                    if c in (1, 2):
                        for k in range(4):
                            keep[start + m, k] = False
                    else:
                        keep[start + m, c] = False
    return changed


@kernel
def solve(N, b):
    """Inverse of N (6, 6) and N^-1 b; ok says whether N is positive definite."""
    ok, inverse = inverse_of(N, 1e-13)
    return ok, inverse, inverse @ b


@kernel
def fit_arc(W, z, t, channels, n, model, enough, x, P, keep):
    """Least-squares orbit at the time of the last of ``n`` detections of a radar (Gauss-Newton; Tapley, Schutz &
    Born, Statistical Orbit Determination, section 4.3), outlying channels left out once.

    ``z`` (n, 27), ``t`` (n,), ``channels`` (n,): measurements in time order. Fills ``x`` (6,), ``P`` (36,) and
    ``keep`` (n, 4), the channels the fit stands on. Returns True if it converged, at least ``enough``
    detections remain and what remains agrees.
    """
    first = 0
    last = n - 1
    epoch = t[last]
    dt = (t[first] - t[last]) * 1e-9
    for i in range(n):
        for c in range(4):
            keep[i, c] = True
    pz = np.empty(3)
    for i in range(3):
        pz[i] = z[last, _R + i] + z[last, _RHO] * z[last, _LOS + i]
    r = np.sqrt(pz[0] ** 2 + pz[1] ** 2 + pz[2] ** 2)
    for i in range(3):
        x[i] = pz[i]
        pe = z[first, _R + i] + z[first, _RHO] * z[first, _LOS + i]
        x[3 + i] = (pe - pz[i]) / dt + 0.5 * MU * pz[i] / (r * r * r) * dt
    N = np.zeros((6, 6))
    b = np.zeros(6)
    chi2 = np.inf
    count = 0
    for attempt in range(2):
        settled = False
        for _ in range(MOST_ITERATIONS):
            chi2, count = normal_equations(W, z, t, channels, keep, n, x, epoch, model, N, b)
            ok, inverse, step = solve(N, b)
            if not ok:
                return False
            gain = 0.0
            for i in range(6):
                x[i] += step[i]
                gain += step[i] * b[i]
                for j in range(6):
                    P[6 * i + j] = inverse[i, j]
            if not gain < 1e30:
                return False
            if gain < 1e-4:
                settled = True
                break
        if not settled:
            return False
        if attempt == 0 and not _mark_outliers(W, z, t, channels, keep, n, x, epoch, model):
            break
        left = 0
        for i in range(n):
            if keep[i, 1] and keep[i, 0]:
                left += 1
        if left < enough:
            return False
    if count <= 6:
        return False
    scale = chi2 / (count - 6)
    if not scale <= FIT_LIMIT:
        return False
    if scale > 1.0:
        for i in range(36):
            P[i] *= scale
    widen_by_bend(P, z[last], x)
    return True


@kernel
def widen_by_bend(P, z, x):
    """Widen P (36,) along the line of sight by how far a sphere leaves its tangent over P (see sensing.noise_lanes)."""
    u = np.empty(3)
    rho = 0.0
    for i in range(3):
        u[i] = x[i] - z[_R + i]
        rho += u[i] * u[i]
    rho = np.sqrt(rho)
    across = P[0] + P[7] + P[14]
    for i in range(3):
        u[i] /= rho
    for i in range(3):
        for j in range(3):
            across -= u[i] * P[6 * i + j] * u[j]
    speed = P[21] + P[28] + P[35]
    for i in range(3):
        for j in range(3):
            P[6 * i + j] += 0.5 * (across / rho) ** 2 * u[i] * u[j]
            P[6 * (i + 3) + j + 3] += across * speed / rho**2 * u[i] * u[j]
