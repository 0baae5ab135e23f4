"""What the full dynamics leave out, as process noise whose strength follows from what it is.

Three things are left out of an orbit whose drag and radiation coefficients are estimated:

- the gravity field beyond the chosen degree. How strong it is follows from Kaula's rule (Theory of Satellite Geodesy,
  1966: each coefficient of degree n is about 1e-5 / n^2), and falls off with height as the rule says. A harmonic of
  degree n is met at all multiples of the revolution up to n; the mean of 1 / f^2 over these makes of an acceleration a
  a velocity a / (omega sqrt(n)), which is taken to be another one after each revolution.
- air that is not as dense as the table says, from one part of a revolution to the next: a share of the drag itself,
  along the drag. What stays the same is the estimated coefficient's, and what changes slowly its walk's.
- Earth's radiation, the tides of the sea, panels that turn: small, and much the same anywhere (FLOOR).

An error of standard deviation s that stays alike for a time T is as white noise of density 2 s^2 T to an orbit
(first-order Gauss-Markov: Tapley, Schutz & Born, Statistical Orbit Determination, section 4.9).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.track.lanes import COEFFICIENTS, DRAG, LANES, STEP, P, X
from fusionnode.track.motion.gravity import MU, RADIUS

F64 = npt.NDArray[np.float64]

FLOOR = 2.0e-14
"""m^2/s^3: 3e-9 m/s^2, alike for 1,000 s."""
DENSITY_SHARE, ALIKE_S = 0.3, 1_500.0
"""Density is off by this share of itself, for a quarter of a low revolution."""
_FIRST_M, _SPACING_M, _ROWS = 100e3, 25e3, 200
_KAULA = 1e-5
_BEYOND = 600
"""Degrees beyond the chosen one that are summed: what follows is nothing at any height of an orbit."""


def gravity_psd(degree: int, radius_m: F64) -> F64:
    """Density of the noise on each axis, m^2/s^3, that stands for gravity beyond ``degree`` at ``radius_m`` (n,)."""
    n = np.arange(degree + 1.0, degree + _BEYOND)
    ratio = (RADIUS / radius_m)[:, None]
    own = (2.0 * n + 1.0) * (_KAULA / n**2) ** 2
    # radial (n + 1)^2, and n (n + 1) across
    accelerations = (MU / radius_m**2)[:, None] ** 2 * ratio ** (2.0 * n) * (n + 1.0) * (2.0 * n + 1.0) * own
    omega = np.sqrt(MU / radius_m**3)
    out: F64 = np.sum(accelerations / n, axis=1) / (3.0 * 2.0 * np.pi * omega)
    return out


def table(degree: int) -> F64:
    """`gravity_psd` as logarithms, by heights above RADIUS from 100 km on, for `add_omitted`, shape (n,)."""
    heights: F64 = _FIRST_M + _SPACING_M * np.arange(_ROWS, dtype=np.float64)
    return np.log(gravity_psd(degree, RADIUS + heights))


@kernel
def add_omitted(W, rows, of_place, of_speed):
    """Add to P what the step just taken leaves out beside FLOOR: gravity by the table ``rows`` over STEP; air along
    DRAG, whose kick moved place and velocity by ``of_place`` (s^2) and ``of_speed`` (s) of an acceleration.
    """
    L = LANES
    last = float(len(rows) - 1)
    strength = DENSITY_SHARE * np.sqrt(2.0 * ALIKE_S)
    for m in range(L):
        h = W[STEP + m]
        x = W[X + m]
        y = W[X + L + m]
        z = W[X + 2 * L + m]
        f = (np.sqrt(x * x + y * y + z * z) - (RADIUS + _FIRST_M)) / _SPACING_M
        f = f if f > 0.0 else 0.0
        f = f if f < last else last
        k = min(int(f), len(rows) - 2)
        qv = np.exp(rows[k] + (f - k) * (rows[k + 1] - rows[k])) * abs(h)
        qx = 0.5 * qv * h
        qr = qv * h * h / 3.0
        g = strength * W[COEFFICIENTS + m]
        g0 = g * W[DRAG + m]
        g1 = g * W[DRAG + L + m]
        g2 = g * W[DRAG + 2 * L + m]
        sv = abs(of_speed[m])
        sx = of_place[m] if of_speed[m] > 0.0 else -of_place[m]
        sr = sx * sx / (0.75 * sv) if sv > 0.0 else 0.0
        W[P + m] += qr + sr * g0 * g0
        W[P + L + m] += sr * g1 * g0
        W[P + 2 * L + m] += qr + sr * g1 * g1
        W[P + 3 * L + m] += sr * g2 * g0
        W[P + 4 * L + m] += sr * g2 * g1
        W[P + 5 * L + m] += qr + sr * g2 * g2
        W[P + 6 * L + m] += qx + sx * g0 * g0
        W[P + 7 * L + m] += sx * g0 * g1
        W[P + 8 * L + m] += sx * g0 * g2
        W[P + 9 * L + m] += qv + sv * g0 * g0
        W[P + 10 * L + m] += sx * g1 * g0
        W[P + 11 * L + m] += qx + sx * g1 * g1
        W[P + 12 * L + m] += sx * g1 * g2
        W[P + 13 * L + m] += sv * g1 * g0
        W[P + 14 * L + m] += qv + sv * g1 * g1
        W[P + 15 * L + m] += sx * g2 * g0
        W[P + 16 * L + m] += sx * g2 * g1
        W[P + 17 * L + m] += qx + sx * g2 * g2
        W[P + 18 * L + m] += sv * g2 * g0
        W[P + 19 * L + m] += sv * g2 * g1
        W[P + 20 * L + m] += qv + sv * g2 * g2
