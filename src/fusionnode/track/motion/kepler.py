"""Two-body motion in universal variables: from a state to a later one, and from two places to the orbit between.

For first guesses only; what is kept is refined with the tracker's own dynamics.
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import inlined, kernel
from fusionnode.track.motion.dynamics import MU

_SERIES = 1e-3


@inlined
def _stumpff(z):
    """Stumpff's functions C and S of ``z`` (Curtis, Orbital Mechanics for Engineering Students, section 3.7)."""
    if z > _SERIES:
        s = np.sqrt(z)
        return (1.0 - np.cos(s)) / z, (s - np.sin(s)) / (s * z)
    if z < -_SERIES:
        s = np.sqrt(-z)
        return (np.cosh(s) - 1.0) / -z, (np.sinh(s) - s) / (s * -z)
    return (
        0.5 - z / 24.0 + z * z / 720.0 - z * z * z / 40320.0,
        1.0 / 6.0 - z / 120.0 + z * z / 5040.0 - z * z * z / 362880.0,
    )


@kernel
def kepler(x, dt, out):
    """Take the state ``x`` (6,), m and m/s, ahead by ``dt`` s on its two-body orbit, into ``out`` (6,).

    Universal variables with Newton's method (Vallado, Fundamentals of Astrodynamics and Applications, section 2.3.1).
    Returns False, and ``out`` as nan, where it does not converge.
    """
    r0 = np.sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2])
    v2 = x[3] * x[3] + x[4] * x[4] + x[5] * x[5]
    rv = (x[0] * x[3] + x[1] * x[4] + x[2] * x[5]) / np.sqrt(MU)
    alpha = 2.0 / r0 - v2 / MU
    if alpha > 1e-12:
        period = 2.0 * np.pi / np.sqrt(MU * alpha * alpha * alpha)
        dt -= np.round(dt / period) * period
        chi = np.sqrt(MU) * dt * alpha
    else:
        chi = np.sqrt(MU) * dt / r0
    for _ in range(60):
        z = alpha * chi * chi
        c, s = _stumpff(z)
        c2 = chi * chi * c
        c3 = chi * chi * chi * s
        r = c2 + rv * chi * (1.0 - z * s) + r0 * (1.0 - z * c)
        step = (np.sqrt(MU) * dt - c3 - rv * c2 - r0 * chi * (1.0 - z * s)) / r
        # a step over more than a quarter of a revolution is one that Newton's method overshoots with
        most = 0.5 * np.pi * np.sqrt(max(r0, 1.0 / max(alpha, 1e-12)))
        step = min(max(step, -most), most)
        chi += step
        if abs(step) <= 1e-10 * (1.0 + abs(chi)):
            z = alpha * chi * chi
            c, s = _stumpff(z)
            f = 1.0 - chi * chi * c / r0
            g = dt - chi * chi * chi * s / np.sqrt(MU)
            r2 = 0.0
            for i in range(3):
                out[i] = f * x[i] + g * x[3 + i]
                r2 += out[i] * out[i]
            r = np.sqrt(r2)
            fd = np.sqrt(MU) / (r * r0) * chi * (z * s - 1.0)
            gd = 1.0 - chi * chi * c / r
            for i in range(3):
                out[3 + i] = fd * x[i] + gd * x[3 + i]
            return True
    out[:] = np.nan
    return False


@kernel
def kepler_all(x, dt, out):
    """`kepler` for each row of ``x`` (n, 6) into ``out`` (n, 6); nan where it does not converge."""
    for i in range(len(x)):
        kepler(x[i], dt, out[i])


@kernel
def lambert(r1, r2, dt, v1, v2):
    """Velocities ``v1``, ``v2`` (3,) at the ends of the orbit from ``r1`` to ``r2`` (3,) in ``dt`` > 0 s, over less
    than half a revolution; says if there is one.

    Universal variables by bisection (Vallado, Fundamentals of Astrodynamics and Applications, section 7.6.2).
    """
    d1 = np.sqrt(r1[0] ** 2 + r1[1] ** 2 + r1[2] ** 2)
    d2 = np.sqrt(r2[0] ** 2 + r2[1] ** 2 + r2[2] ** 2)
    cosine = (r1[0] * r2[0] + r1[1] * r2[1] + r1[2] * r2[2]) / (d1 * d2)
    a = np.sqrt(d1 * d2 * (1.0 + cosine))
    if not a > 1e-9 * d1 or not dt > 0.0:
        return False
    target = np.sqrt(MU) * dt
    low, high = -4.0e3, 4.0 * np.pi * np.pi
    y = 0.0
    for _ in range(90):
        z = 0.5 * (low + high)
        c, s = _stumpff(z)
        y = d1 + d2 + a * (z * s - 1.0) / np.sqrt(c)
        if not y > 0.0:
            low = z
            continue
        chi = np.sqrt(y / c)
        if chi * chi * chi * s + a * np.sqrt(y) <= target:
            low = z
        else:
            high = z
    if not (y > 0.0 and low > -3.9e3 and high < 4.0 * np.pi * np.pi * (1.0 - 1e-9)):
        return False
    f = 1.0 - y / d1
    g = a * np.sqrt(y / MU)
    gd = 1.0 - y / d2
    for i in range(3):
        v1[i] = (r2[i] - f * r1[i]) / g
        v2[i] = (gd * r2[i] - r1[i]) / g
    return True
