"""Orbit determination with filterpy as a careful user of it writes it: one filter object a track, Python and numpy.

The same physics as ours: zonals J2 to J6, one classical Runge-Kutta step, white acceleration, range, azimuth,
elevation, range rate. The derivatives of gravity are scalar Python (small numpy arrays are slower), the transition
follows the variational equations (differences of six more orbits are slower).
"""

from __future__ import annotations

from math import asin, atan2, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from filterpy.kalman import ExtendedKalmanFilter

from fusionnode.track.motion.dynamics import MU

F64 = npt.NDArray[np.float64]


def gravity(x: float, y: float, z: float, model: list[float]) -> tuple[list[float], F64]:
    """Acceleration and its gradient (3, 3); ``model``: the pole, then mu J_n Re^n for n = 2..6."""
    kx, ky, kz, c2, c3, c4, c5, c6 = model
    w = 1.0 / sqrt(x * x + y * y + z * z)
    ux, uy, uz = x * w, y * w, z * w
    s = ux * kx + uy * ky + uz * kz
    s2 = s * s
    w4 = w**4
    t2, t3, t4, t5, t6 = c2 * w4, c3 * w4 * w, c4 * w4 * w * w, c5 * w4 * w**3, c6 * w4 * w4
    d2, d3 = 3.0 * s, 7.5 * s2 - 1.5
    d4, d5 = s * (17.5 * s2 - 7.5), s2 * (39.375 * s2 - 26.25) + 1.875
    d6 = s * (s2 * (86.625 * s2 - 78.75) + 13.125)
    d7 = s2 * (s2 * (187.6875 * s2 - 216.5625) + 59.0625) - 2.1875
    e3, e4, e5 = 15.0 * s, 52.5 * s2 - 7.5, s * (157.5 * s2 - 52.5)
    e6 = s2 * (433.125 * s2 - 236.25) + 13.125
    e7 = s * (s2 * (1126.125 * s2 - 866.25) + 118.125)
    kepler = MU * w * w
    a = t2 * d3 + t3 * d4 + t4 * d5 + t5 * d6 + t6 * d7 - kepler
    b = -(t2 * d2 + t3 * d3 + t4 * d4 + t5 * d5 + t6 * d6)
    a_r = w * (2.0 * kepler - 4.0 * t2 * d3 - 5.0 * t3 * d4 - 6.0 * t4 * d5 - 7.0 * t5 * d6 - 8.0 * t6 * d7)
    ga = w * (t2 * e3 + t3 * e4 + t4 * e5 + t5 * e6 + t6 * e7)
    de = -w * (t2 * 3.0 + t3 * e3 + t4 * e4 + t5 * e5 + t6 * e6)
    al = a * w
    be = a_r - al - ga * s
    xy = be * ux * uy + ga * (ux * ky + uy * kx) + de * kx * ky
    xz = be * ux * uz + ga * (ux * kz + uz * kx) + de * kx * kz
    yz = be * uy * uz + ga * (uy * kz + uz * ky) + de * ky * kz
    xx = al + be * ux * ux + 2.0 * ga * ux * kx + de * kx * kx
    yy = al + be * uy * uy + 2.0 * ga * uy * ky + de * ky * ky
    zz = al + be * uz * uz + 2.0 * ga * uz * kz + de * kz * kz
    return (
        [a * ux + b * kx, a * uy + b * ky, a * uz + b * kz],
        np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]),
    )


class PlainTrack(ExtendedKalmanFilter):  # type: ignore[misc]
    """One track. ``model`` as a list, ``psd`` in m^2/s^3."""

    def __init__(self, model: list[float], psd: float) -> None:
        super().__init__(dim_x=6, dim_z=4)
        self._model, self._psd = model, psd
        self._Q_of: dict[float, F64] = {}

    def go(self, h: float) -> None:
        """Predict ``h`` s ahead, in one step."""
        x, y, z, u, v, w = self.x.tolist()
        half = 0.5 * h
        a1, G1 = gravity(x, y, z, self._model)
        u2, v2, w2 = u + half * a1[0], v + half * a1[1], w + half * a1[2]
        a2, G2 = gravity(x + half * u, y + half * v, z + half * w, self._model)
        u3, v3, w3 = u + half * a2[0], v + half * a2[1], w + half * a2[2]
        a3, G3 = gravity(x + half * u2, y + half * v2, z + half * w2, self._model)
        u4, v4, w4 = u + h * a3[0], v + h * a3[1], w + h * a3[2]
        a4, G4 = gravity(x + h * u3, y + h * v3, z + h * w3, self._model)
        s = h / 6.0
        self._next = np.array(
            [
                x + s * (u + 2.0 * (u2 + u3) + u4),
                y + s * (v + 2.0 * (v2 + v3) + v4),
                z + s * (w + 2.0 * (w2 + w3) + w4),
                u + s * (a1[0] + 2.0 * (a2[0] + a3[0]) + a4[0]),
                v + s * (a1[1] + 2.0 * (a2[1] + a3[1]) + a4[1]),
                w + s * (a1[2] + 2.0 * (a2[2] + a3[2]) + a4[2]),
            ]
        )
        # The four stages of the transition's own Runge-Kutta step, multiplied out: they depend on each other
        # through positions only.
        G31, G42 = G3 @ G1, G4 @ G2
        F = np.eye(6)
        F[:3, :3] += h * s * (G1 + G2 + G3 + 0.25 * h * h * G31)
        F[:3, 3:] = h * np.eye(3) + 0.5 * h * h * s * (G2 + G3)
        F[3:, :3] = s * (G1 + 2.0 * (G2 + G3) + G4 + 0.5 * h * h * (G31 + G42))
        F[3:, 3:] += s * h * (G2 + G3 + G4 + 0.25 * h * h * G42)
        self.F = F
        if h not in self._Q_of:
            block = np.array([[h**3 / 3.0, h * h / 2.0], [h * h / 2.0, h]])
            self._Q_of[h] = self._psd * np.kron(block, np.eye(3))
        self.Q = self._Q_of[h]
        self.predict()

    def predict_x(self, u: Any = 0) -> None:
        self.x = self._next


def seen(x: F64, site: F64, site_v: F64, axes: F64) -> F64:
    """Range, azimuth, elevation, range rate; ``axes``: rows east, north, up in GCRF."""
    rho, w = x[:3] - site, x[3:] - site_v
    e, n, up = (axes @ rho).tolist()
    d = sqrt(e * e + n * n + up * up)
    return np.array([d, atan2(e, n), asin(up / d), (rho @ w) / d])


def slope(x: F64, site: F64, site_v: F64, axes: F64) -> F64:
    """The Jacobian (4, 6) of `seen`."""
    rho, w = x[:3] - site, x[3:] - site_v
    e, n, up = (axes @ rho).tolist()
    flat2 = e * e + n * n
    flat = sqrt(flat2)
    d2 = flat2 + up * up
    d = sqrt(d2)
    u = rho / d
    H = np.zeros((4, 6))
    H[0, :3] = H[3, 3:] = u
    k = up / (d2 * flat)
    H[1:3, :3] = np.array([[n / flat2, -e / flat2, 0.0], [-e * k, -n * k, flat / d2]]) @ axes
    H[3, :3] = (w - (u @ w) * u) / d
    return H


def difference(a: F64, b: F64) -> F64:
    """Innovation, with azimuth the short way round."""
    y: F64 = a - b
    y[1] = (y[1] + pi) % (2.0 * pi) - pi
    return y
