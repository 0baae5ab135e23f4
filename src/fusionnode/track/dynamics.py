"""How a satellite moves: Earth's zonal harmonics J2 to J6 about the true pole, and the prediction that uses them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import inlined, kernel
from fusionnode.track.lanes import GRAD, LANES, LEFT, PHI, STEP, TOTAL, WORK, P, X, dot, lower, six, times

F64 = npt.NDArray[np.float64]

MU = 3.986004415e14
"""Earth's gravitational parameter, m^3/s^2 (EGM2008)."""
RADIUS = 6378136.3
"""Reference radius of the harmonics, m (EGM2008)."""
_C_NORMALISED = (
    -0.484165143790815e-3,
    0.957161207093473e-6,
    0.539965866638991e-6,
    0.686702913736681e-7,
    -0.149953927978527e-6,
)
ZONALS = np.array([-c * np.sqrt(2.0 * n + 1.0) for n, c in enumerate(_C_NORMALISED, start=2)])
"""J2 to J6, shape (5,), unnormalised: from the EGM2008 coefficients C20 to C60, tide-free."""

STEP_S = 20.0
"""Longest step, s, at RADIUS; it grows with (r / RADIUS)^1.5, as the period of an orbit does. At 300 km height it costs
0.01 m in 10 minutes and 0.3 m in a revolution, where what the model leaves out is 14 m and 430 m."""
MAX_STEP_S = 600.0


def model(degree: int, pole: F64) -> F64:
    """The numbers of one gravity model, shape (8,): the pole's unit vector, then mu J_n Re^n for n = 2..6.

    ``degree``: harmonics above it are left out. ``pole``: shape (3,), GCRF; it moves 20 arcsec a year, so one
    serves for days.
    """
    n = np.arange(2, 7)
    terms = np.where(n <= degree, MU * ZONALS * RADIUS ** n.astype(np.float64), 0.0)
    return np.concatenate([pole / np.linalg.norm(pole), terms])


@inlined
def _field(rx, ry, rz, k0, k1, k2, c2, c3, c4, c5, c6):
    """Acceleration (3, m/s^2), unit vector u (3), and alpha, beta, gamma, delta (1/s^2) of its gradient
    ``alpha I + beta u u' + gamma (u k' + k u') + delta k k'``.

    With V_n = -c_n r^-(n+1) P_n(s), s = u.k (Vallado, Fundamentals of Astrodynamics, section 8.6.1), and
    (n+1) P_n + s P'_n = P'_(n+1), the gradient of V_n is c_n r^-(n+2) (P'_(n+1) u - P'_n k).
    """
    r2 = rx * rx + ry * ry + rz * rz
    w = 1.0 / np.sqrt(r2)
    ux = rx * w
    uy = ry * w
    uz = rz * w
    s = ux * k0 + uy * k1 + uz * k2
    s2 = s * s
    w2 = w * w
    w4 = w2 * w2
    t2 = c2 * w4
    t3 = c3 * w4 * w
    t4 = c4 * w4 * w2
    t5 = c5 * w4 * w2 * w
    t6 = c6 * w4 * w4
    # d: first, e: second derivatives of the Legendre polynomials P2 to P7
    d2 = 3.0 * s
    d3 = 7.5 * s2 - 1.5
    d4 = s * (17.5 * s2 - 7.5)
    d5 = s2 * (39.375 * s2 - 26.25) + 1.875
    d6 = s * (s2 * (86.625 * s2 - 78.75) + 13.125)
    d7 = s2 * (s2 * (187.6875 * s2 - 216.5625) + 59.0625) - 2.1875
    e3 = 15.0 * s
    e4 = 52.5 * s2 - 7.5
    e5 = s * (157.5 * s2 - 52.5)
    e6 = s2 * (433.125 * s2 - 236.25) + 13.125
    e7 = s * (s2 * (1126.125 * s2 - 866.25) + 118.125)
    kepler = MU * w2
    a = t2 * d3 + t3 * d4 + t4 * d5 + t5 * d6 + t6 * d7 - kepler
    b = -(t2 * d2 + t3 * d3 + t4 * d4 + t5 * d5 + t6 * d6)
    a_r = 2.0 * kepler * w - w * (
        4.0 * t2 * d3 + 5.0 * t3 * d4 + 6.0 * t4 * d5 + 7.0 * t5 * d6 + 8.0 * t6 * d7
    )
    a_s = t2 * e3 + t3 * e4 + t4 * e5 + t5 * e6 + t6 * e7
    b_s = -(t2 * 3.0 + t3 * e3 + t4 * e4 + t5 * e5 + t6 * e6)
    alpha = a * w
    gamma = a_s * w
    return (
        a * ux + b * k0,
        a * uy + b * k1,
        a * uz + b * k2,
        ux,
        uy,
        uz,
        alpha,
        a_r - alpha - gamma * s,
        gamma,
        b_s * w,
    )


@inlined
def _gradient(ux, uy, uz, al, be, ga, de, k0, k1, k2):
    """Its six terms: xx, xy, xz, yy, yz, zz."""
    return (
        al + be * ux * ux + 2.0 * ga * ux * k0 + de * k0 * k0,
        be * ux * uy + ga * (ux * k1 + uy * k0) + de * k0 * k1,
        be * ux * uz + ga * (ux * k2 + uz * k0) + de * k0 * k2,
        al + be * uy * uy + 2.0 * ga * uy * k1 + de * k1 * k1,
        be * uy * uz + ga * (uy * k2 + uz * k1) + de * k1 * k2,
        al + be * uz * uz + 2.0 * ga * uz * k2 + de * k2 * k2,
    )


@inlined
def _term(i, j):
    """Which of a gradient's six terms is (i, j)."""
    return i + j if i * j == 0 else (3 if i + j == 2 else i + j + 1)


@inlined
def step_length(rx, ry, rz):
    """Longest step, s, allowed at this place (m)."""
    ratio = np.sqrt(rx * rx + ry * ry + rz * rz) / RADIUS
    return min(STEP_S * max(ratio, 0.5) * np.sqrt(max(ratio, 0.5)), MAX_STEP_S)


@kernel
def _move(W, k0, k1, k2, c2, c3, c4, c5, c6):
    """One Runge-Kutta step of X, fourth order, and the gradients at its four stages."""
    L = LANES
    for m in range(L):
        h = W[STEP + m]
        rx = W[X + m]
        ry = W[X + L + m]
        rz = W[X + 2 * L + m]
        vx = W[X + 3 * L + m]
        vy = W[X + 4 * L + m]
        vz = W[X + 5 * L + m]
        g = GRAD + m
        ax1, ay1, az1, ux, uy, uz, al, be, ga, de = _field(rx, ry, rz, k0, k1, k2, c2, c3, c4, c5, c6)
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = _gradient(
            ux, uy, uz, al, be, ga, de, k0, k1, k2
        )
        half = 0.5 * h
        x2 = rx + half * vx
        y2 = ry + half * vy
        z2 = rz + half * vz
        g += 6 * L
        ax2, ay2, az2, ux, uy, uz, al, be, ga, de = _field(x2, y2, z2, k0, k1, k2, c2, c3, c4, c5, c6)
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = _gradient(
            ux, uy, uz, al, be, ga, de, k0, k1, k2
        )
        quarter = half * half
        x3 = x2 + quarter * ax1
        y3 = y2 + quarter * ay1
        z3 = z2 + quarter * az1
        g += 6 * L
        ax3, ay3, az3, ux, uy, uz, al, be, ga, de = _field(x3, y3, z3, k0, k1, k2, c2, c3, c4, c5, c6)
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = _gradient(
            ux, uy, uz, al, be, ga, de, k0, k1, k2
        )
        x4 = rx + h * (vx + half * ax2)
        y4 = ry + h * (vy + half * ay2)
        z4 = rz + h * (vz + half * az2)
        g += 6 * L
        ax4, ay4, az4, ux, uy, uz, al, be, ga, de = _field(x4, y4, z4, k0, k1, k2, c2, c3, c4, c5, c6)
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = _gradient(
            ux, uy, uz, al, be, ga, de, k0, k1, k2
        )
        sixth = h / 6.0
        s = h * sixth
        W[X + m] = rx + h * vx + s * (ax1 + ax2 + ax3)
        W[X + L + m] = ry + h * vy + s * (ay1 + ay2 + ay3)
        W[X + 2 * L + m] = rz + h * vz + s * (az1 + az2 + az3)
        W[X + 3 * L + m] = vx + sixth * (ax1 + 2.0 * ax2 + 2.0 * ax3 + ax4)
        W[X + 4 * L + m] = vy + sixth * (ay1 + 2.0 * ay2 + 2.0 * ay3 + ay4)
        W[X + 5 * L + m] = vz + sixth * (az1 + 2.0 * az2 + 2.0 * az3 + az4)


@kernel
def _transition(W):
    """PHI: the exact derivative of the step in `_move`, from its four gradients.

    The stages of a Runge-Kutta step of r'' = a(r) depend on each other through positions only, so that the
    derivative needs just two products of gradients (of stages 3 and 1, and 4 and 2).
    """
    L = LANES
    for i in range(3):
        for j in range(3):
            one = 1.0 if i == j else 0.0
            ij = GRAD + _term(i, j) * L
            a0 = GRAD + (12 + _term(i, 0)) * L
            a1 = GRAD + (12 + _term(i, 1)) * L
            a2 = GRAD + (12 + _term(i, 2)) * L
            b0 = GRAD + _term(0, j) * L
            b1 = GRAD + _term(1, j) * L
            b2 = GRAD + _term(2, j) * L
            to = PHI + (6 * i + j) * L
            six = 6 * L
            for m in range(L):
                h = W[STEP + m]
                h2 = h * h
                sixth = h / 6.0
                g31 = W[a0 + m] * W[b0 + m] + W[a1 + m] * W[b1 + m] + W[a2 + m] * W[b2 + m]
                g42 = (
                    W[a0 + six + m] * W[b0 + six + m]
                    + W[a1 + six + m] * W[b1 + six + m]
                    + W[a2 + six + m] * W[b2 + six + m]
                )
                g1 = W[ij + m]
                g2 = W[ij + six + m]
                g3 = W[ij + 2 * six + m]
                g4 = W[ij + 3 * six + m]
                W[to + m] = one + h * sixth * (g1 + g2 + g3 + 0.25 * h2 * g31)
                W[to + 3 * L + m] = one * h + 0.5 * h2 * sixth * (g2 + g3)
                W[to + 18 * L + m] = sixth * (g1 + 2.0 * (g2 + g3) + g4 + 0.5 * h2 * (g31 + g42))
                W[to + 21 * L + m] = one + sixth * h * (g2 + g3 + g4 + 0.25 * h2 * g42)


@kernel
def _product(W, a, b, to):
    """The 6 x 6 product of the matrices at ``a`` and ``b`` into ``to``."""
    L = LANES
    for i in range(6):
        f = a + 6 * i * L
        for j in range(6):
            p = b + j * L
            o = to + (6 * i + j) * L
            for m in range(L):
                W[o + m] = (
                    W[f + m] * W[p + m]
                    + W[f + L + m] * W[p + 6 * L + m]
                    + W[f + 2 * L + m] * W[p + 12 * L + m]
                    + W[f + 3 * L + m] * W[p + 18 * L + m]
                    + W[f + 4 * L + m] * W[p + 24 * L + m]
                    + W[f + 5 * L + m] * W[p + 30 * L + m]
                )


@kernel
def _spread(W, q):
    """P = PHI P PHI' + Q; Q that of white acceleration of density ``q``, m^2/s^3."""
    L = LANES
    for m in range(L):
        p = lower(W, P, m)
        step = W[STEP + m]
        qv = q * abs(step)
        qx = 0.5 * qv * step
        qr = qv * step * step / 3.0
        a = six(W, PHI, m)
        b = six(W, PHI + 6 * L, m)
        c = six(W, PHI + 12 * L, m)
        d = six(W, PHI + 18 * L, m)
        e = six(W, PHI + 24 * L, m)
        f = six(W, PHI + 30 * L, m)
        t = times(p, a)
        W[P + m] = dot(t, a) + qr
        t = times(p, b)
        W[P + L + m] = dot(t, a)
        W[P + 2 * L + m] = dot(t, b) + qr
        t = times(p, c)
        W[P + 3 * L + m] = dot(t, a)
        W[P + 4 * L + m] = dot(t, b)
        W[P + 5 * L + m] = dot(t, c) + qr
        t = times(p, d)
        W[P + 6 * L + m] = dot(t, a) + qx
        W[P + 7 * L + m] = dot(t, b)
        W[P + 8 * L + m] = dot(t, c)
        W[P + 9 * L + m] = dot(t, d) + qv
        t = times(p, e)
        W[P + 10 * L + m] = dot(t, a)
        W[P + 11 * L + m] = dot(t, b) + qx
        W[P + 12 * L + m] = dot(t, c)
        W[P + 13 * L + m] = dot(t, d)
        W[P + 14 * L + m] = dot(t, e) + qv
        t = times(p, f)
        W[P + 15 * L + m] = dot(t, a)
        W[P + 16 * L + m] = dot(t, b)
        W[P + 17 * L + m] = dot(t, c) + qx
        W[P + 18 * L + m] = dot(t, d)
        W[P + 19 * L + m] = dot(t, e)
        W[P + 20 * L + m] = dot(t, f) + qv


@kernel
def _next_step(W):
    """Cut what is LEFT into equal steps no longer than allowed here; the next one into STEP. Says if there is one."""
    L = LANES
    any_left = False
    for m in range(L):
        left = W[LEFT + m]
        if left == 0.0:
            W[STEP + m] = 0.0
            continue
        any_left = True
        n = np.ceil(abs(left) / step_length(W[X + m], W[X + L + m], W[X + 2 * L + m]))
        if not n > 1.0:  # so that a state that is not a number ends here too
            W[STEP + m] = left
            W[LEFT + m] = 0.0
        else:
            W[STEP + m] = left / n
            W[LEFT + m] = left - left / n
    return any_left


@kernel
def predict_lanes(W, model, q):
    """Take X and P of every lane ahead by its LEFT, s.

    ``model``: from `model`, shape (8,). ``q``: density of the white acceleration that stands for what the
    model leaves out, m^2/s^3 (state noise compensation: Tapley, Schutz & Born, Statistical Orbit
    Determination, section 4.9). It enters at each step, so that its effect follows the orbit.
    """
    while _next_step(W):
        _move(W, model[0], model[1], model[2], model[3], model[4], model[5], model[6], model[7])
        _transition(W)
        _spread(W, q)


@kernel
def transit_lanes(W, model):
    """Take X of every lane ahead by its LEFT, s, and put the state transition over all of it into TOTAL."""
    L = LANES
    for i in range(36):
        for m in range(L):
            W[TOTAL + i * L + m] = 1.0 if i % 7 == 0 else 0.0
    while _next_step(W):
        _move(W, model[0], model[1], model[2], model[3], model[4], model[5], model[6], model[7])
        _transition(W)
        _product(W, PHI, TOTAL, WORK)
        for i in range(36 * L):
            W[TOTAL + i] = W[WORK + i]


@kernel
def coarse_step(r, v, dt, model):
    """Take one position and velocity, shape (3,) each, ahead by ``dt`` s in place, without a covariance."""
    left = dt
    while left != 0.0:
        n = np.ceil(abs(left) / (3.0 * step_length(r[0], r[1], r[2])))
        h = left / n if n > 1.0 else left
        left = left - h if n > 1.0 else 0.0
        k0, k1, k2 = model[0], model[1], model[2]
        c2, c3, c4, c5, c6 = model[3], model[4], model[5], model[6], model[7]
        a1 = _field(r[0], r[1], r[2], k0, k1, k2, c2, c3, c4, c5, c6)
        half = 0.5 * h
        x2 = r[0] + half * v[0]
        y2 = r[1] + half * v[1]
        z2 = r[2] + half * v[2]
        a2 = _field(x2, y2, z2, k0, k1, k2, c2, c3, c4, c5, c6)
        quarter = half * half
        a3 = _field(
            x2 + quarter * a1[0], y2 + quarter * a1[1], z2 + quarter * a1[2], k0, k1, k2, c2, c3, c4, c5, c6
        )
        a4 = _field(
            r[0] + h * (v[0] + half * a2[0]),
            r[1] + h * (v[1] + half * a2[1]),
            r[2] + h * (v[2] + half * a2[2]),
            k0, k1, k2, c2, c3, c4, c5, c6,
        )  # fmt: skip
        for i in range(3):
            r[i] += h * v[i] + h * h / 6.0 * (a1[i] + a2[i] + a3[i])
            v[i] += h / 6.0 * (a1[i] + 2.0 * (a2[i] + a3[i]) + a4[i])
