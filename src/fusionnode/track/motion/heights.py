"""Heights of states and of their orbits' perigees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.track.motion.dynamics import MU

F64 = npt.NDArray[np.float64]

SEMI_MAJOR_M = 6_378_137.0
SEMI_MINOR_M = 6_356_752.3142
"""WGS 84 ellipsoid (NGA.STND.0036, table 3.1 and 3.3)."""
_STEP_R, _STEP_V = 1.0, 1e-3


def height_m(r: F64, pole: F64) -> F64:
    """Height above the ellipsoid of positions (..., 3), m; ``pole`` (3,) in the same frame.

    Along the geocentric radius: at most 20 m too much below 2,000 km.
    """
    distance = np.linalg.norm(r, axis=-1)
    s2 = ((r @ pole) / distance) ** 2
    surface = 1.0 / np.sqrt((1.0 - s2) / SEMI_MAJOR_M**2 + s2 / SEMI_MINOR_M**2)
    return np.asarray(distance - surface)


def perigee_m(x: F64) -> F64:
    """Distance of the osculating perigee from the Earth's centre, of states (n, 6), m, m/s (Vallado, Fundamentals of
    Astrodynamics, section 2.4).
    """
    r, v = x[:, :3], x[:, 3:]
    r2, v2, rv = (np.einsum("ni,ni->n", a, b) for a, b in ((r, r), (v, v), (r, v)))
    h2 = r2 * v2 - rv * rv
    e2 = 1.0 + (v2 - 2.0 * MU / np.sqrt(r2)) * h2 / MU**2
    return np.asarray(h2 / MU / (1.0 + np.sqrt(np.maximum(e2, 0.0))))


def perigee_sigma_m(x: F64, P: F64) -> float:
    """Standard deviation of `perigee_m` of one state (6,), covariance ``P`` (36,), m; differences for derivatives."""
    steps = np.diag([_STEP_R] * 3 + [_STEP_V] * 3)
    high, low = perigee_m(x + steps), perigee_m(x - steps)
    g = (high - low) / (2.0 * np.diag(steps))
    return float(np.sqrt(max(float(g @ P.reshape(6, 6) @ g), 0.0)))
