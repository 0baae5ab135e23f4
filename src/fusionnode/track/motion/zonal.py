"""Earth's zonal harmonics J2 to J6 about the true pole: the field, its gradient, and how long a step may be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import inlined
from fusionnode.track.motion.gravity import MU, RADIUS

F64 = npt.NDArray[np.float64]

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


def zonal_terms(degree: int, pole: F64) -> F64:
    """The numbers of one gravity model, shape (8,): the pole's unit vector, then mu J_n Re^n for n = 2..6.

    ``degree``: harmonics above it are left out. ``pole``: shape (3,), GCRF; it moves 20 arcsec a year, so one
    serves for days.
    """
    n = np.arange(2, 7)
    terms = np.where(n <= degree, MU * ZONALS * RADIUS ** n.astype(np.float64), 0.0)
    return np.concatenate([pole / np.linalg.norm(pole), terms])


@inlined
def field(rx, ry, rz, k0, k1, k2, c2, c3, c4, c5, c6):
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
def gradient(ux, uy, uz, al, be, ga, de, k0, k1, k2):
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
def step_length(rx, ry, rz):
    """Longest step, s, allowed at this place (m)."""
    ratio = np.sqrt(rx * rx + ry * ry + rz * rz) / RADIUS
    return min(STEP_S * max(ratio, 0.5) * np.sqrt(max(ratio, 0.5)), MAX_STEP_S)
