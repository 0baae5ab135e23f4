"""What a sensor sees of a state: h and its Jacobian, for every kind of sensor there is.

Four channels: range; two angles as coordinates in the plane that touches the sky at the measured direction
(along growing azimuth or right ascension, along growing elevation or declination); range rate. So the angles of
radar and telescope are the same formula, zenith and poles are ordinary places, and nothing wraps.
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import inlined, kernel
from fusionnode.track.lanes import (
    BEND,
    E_LAT,
    E_LON,
    LANES,
    LOS,
    NOISE,
    RANGE,
    RANGE_RATE,
    SITE_DELAY,
    SITE_R,
    SITE_V,
    TARGET_DELAY,
    USE,
    VAR,
    X_LIN,
    X_OUT,
    H,
    P,
    X,
    Y,
)

LIGHT_M_S = 299_792_458.0

FIRST_COLUMN = 4
"""A MEASUREMENT seen as float64: its first float is the fifth of the row's words."""
COLUMNS = 27
"""A MEASUREMENT seen as float64: words in a row."""


@inlined
def _line_of_sight(W, x, m):
    """Vector from site to target (3, m), their relative velocity (3, m/s), distance (m) and light time (s).

    Light time to first order: the target is taken back by its velocity over the time the light took, and so
    is the site of a radar that stamps the echo's arrival (error below 0.01 m for all Earth orbits).
    """
    L = LANES
    vx = W[x + 3 * L + m] - W[SITE_V + m]
    vy = W[x + 4 * L + m] - W[SITE_V + L + m]
    vz = W[x + 5 * L + m] - W[SITE_V + 2 * L + m]
    dx = W[x + m] - W[SITE_R + m]
    dy = W[x + L + m] - W[SITE_R + L + m]
    dz = W[x + 2 * L + m] - W[SITE_R + 2 * L + m]
    tau = np.sqrt(dx * dx + dy * dy + dz * dz) / LIGHT_M_S
    back = tau * W[TARGET_DELAY + m]
    site = tau * W[SITE_DELAY + m]
    dx += site * W[SITE_V + m] - back * W[x + 3 * L + m]
    dy += site * W[SITE_V + L + m] - back * W[x + 4 * L + m]
    dz += site * W[SITE_V + 2 * L + m] - back * W[x + 5 * L + m]
    return dx, dy, dz, vx, vy, vz, np.sqrt(dx * dx + dy * dy + dz * dz), back


@kernel
def linearise_lanes(W):
    """Y (measured minus predicted at X_LIN) and H (4 x 6: range, lon, lat, range rate) of every lane."""
    L = LANES
    for m in range(L):
        dx, dy, dz, vx, vy, vz, rho, back = _line_of_sight(W, X_LIN, m)
        w = 1.0 / rho
        ux = dx * w
        uy = dy * w
        uz = dz * w
        rate = ux * vx + uy * vy + uz * vz
        W[Y + m] = W[RANGE + m] - rho
        W[H + m] = ux
        W[H + L + m] = uy
        W[H + 2 * L + m] = uz
        W[H + 3 * L + m] = -back * ux
        W[H + 4 * L + m] = -back * uy
        W[H + 5 * L + m] = -back * uz
        depth = dx * W[LOS + m] + dy * W[LOS + L + m] + dz * W[LOS + 2 * L + m]
        wd = 1.0 / depth
        lon = (dx * W[E_LON + m] + dy * W[E_LON + L + m] + dz * W[E_LON + 2 * L + m]) * wd
        lat = (dx * W[E_LAT + m] + dy * W[E_LAT + L + m] + dz * W[E_LAT + 2 * L + m]) * wd
        W[Y + L + m] = -lon
        W[Y + 2 * L + m] = -lat
        for i in range(3):
            e = (W[E_LON + i * L + m] - lon * W[LOS + i * L + m]) * wd
            n = (W[E_LAT + i * L + m] - lat * W[LOS + i * L + m]) * wd
            W[H + (6 + i) * L + m] = e
            W[H + (9 + i) * L + m] = -back * e
            W[H + (12 + i) * L + m] = n
            W[H + (15 + i) * L + m] = -back * n
        W[Y + 3 * L + m] = W[RANGE_RATE + m] - rate
        W[H + 18 * L + m] = (vx - rate * ux) * w
        W[H + 19 * L + m] = (vy - rate * uy) * w
        W[H + 20 * L + m] = (vz - rate * uz) * w
        W[H + 21 * L + m] = ux
        W[H + 22 * L + m] = uy
        W[H + 23 * L + m] = uz


@kernel
def noise_lanes(W):
    """NOISE: VAR plus the second-order terms of h over the predicted covariance, half tr(H'' P H'' P) (the Gaussian
    second-order filter: Jazwinski, Stochastic Processes and Filtering Theory, section 9.3).

    Nothing for a track that is well known. For one that is wide across the line of sight, the sphere of equal range
    bends away from its tangent by more than a good radar's sigma, and a filter not told of it is far too sure.
    """
    L = LANES
    for m in range(L):
        dx = W[X + m] - W[SITE_R + m]
        dy = W[X + L + m] - W[SITE_R + L + m]
        dz = W[X + 2 * L + m] - W[SITE_R + 2 * L + m]
        w2 = 1.0 / (dx * dx + dy * dy + dz * dz)
        p = P + m
        along = (
            W[p] * dx * dx
            + W[p + 2 * L] * dy * dy
            + W[p + 5 * L] * dz * dz
            + 2.0 * (W[p + L] * dx * dy + W[p + 3 * L] * dx * dz + W[p + 4 * L] * dy * dz)
        ) * w2
        across = max(W[p] + W[p + 2 * L] + W[p + 5 * L] - along, 0.0)
        speed = W[p + 9 * L] + W[p + 14 * L] + W[p + 20 * L]
        angle = across * along * w2 * w2
        W[NOISE + m] = W[VAR + m] + 0.5 * across * across * w2
        W[NOISE + L + m] = W[VAR + L + m] + angle
        W[NOISE + 2 * L + m] = W[VAR + 2 * L + m] + angle
        W[NOISE + 3 * L + m] = W[VAR + 3 * L + m] + across * speed * w2


@kernel
def bend_lanes(W):
    """BEND: how far h at X_OUT departs from its linearisation at X_LIN, in sigma, worst channel in use."""
    L = LANES
    for m in range(L):
        dx, dy, dz, vx, vy, vz, rho, _ = _line_of_sight(W, X_OUT, m)
        w = 1.0 / rho
        rate = (dx * vx + dy * vy + dz * vz) * w
        wd = 1.0 / (dx * W[LOS + m] + dy * W[LOS + L + m] + dz * W[LOS + 2 * L + m])
        lon = (dx * W[E_LON + m] + dy * W[E_LON + L + m] + dz * W[E_LON + 2 * L + m]) * wd
        lat = (dx * W[E_LAT + m] + dy * W[E_LAT + L + m] + dz * W[E_LAT + 2 * L + m]) * wd
        d0 = W[RANGE + m] - rho - W[Y + m]
        d1 = -lon - W[Y + L + m]
        d2 = -lat - W[Y + 2 * L + m]
        d3 = W[RANGE_RATE + m] - rate - W[Y + 3 * L + m]
        for j in range(6):
            step = W[X_OUT + j * L + m] - W[X_LIN + j * L + m]
            d0 += W[H + j * L + m] * step
            d1 += W[H + (6 + j) * L + m] * step
            d2 += W[H + (12 + j) * L + m] * step
            d3 += W[H + (18 + j) * L + m] * step
        b0 = W[USE + m] * d0 * d0 / W[VAR + m]
        b1 = W[USE + L + m] * d1 * d1 / W[VAR + L + m]
        b2 = W[USE + 2 * L + m] * d2 * d2 / W[VAR + 2 * L + m]
        b3 = W[USE + 3 * L + m] * d3 * d3 / W[VAR + 3 * L + m]
        W[BEND + m] = np.sqrt(max(max(b0, b1), max(b2, b3)))
