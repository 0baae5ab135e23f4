"""What pulls and pushes a satellite besides the zonal field: the rest of Earth's gravity, Moon and Sun, tides of the
solid Earth, air, sunlight, relativity.
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import kernel
from fusionnode.track.lanes import AT, COEFFICIENTS, DRAG, LANES, LIGHT, PUSH, WORK
from fusionnode.track.motion.atmosphere import HIGHEST_M, LAG_RAD, density
from fusionnode.track.motion.gravity import MU, PLACE, RADIUS, harmonics
from fusionnode.track.motion.heaven import AU_M, place_in, sine_cosine
from fusionnode.track.motion.zonal import field

MU_SUN = 1.32712440041e20
MU_MOON = 4.902800076e12
"""m^3/s^2 (JPL DE430: Folkner et al., IPN Progress Report 42-196, 2014)."""
LIGHT_PRESSURE = 4.56e-6
"""Of sunlight, N/m^2, at one astronomical unit (Montenbruck & Gill, Satellite Orbits, section 3.4)."""
SUN_RADIUS_M = 6.957e8
EARTH_RADIUS_M = 6_378_137.0
FLATTENING = 1.0 / 298.257223563
LOVE = 0.30190
"""k20 of the solid Earth (IERS Conventions 2010, table 6.3)."""
LIGHT_M_S = 299_792_458.0

_SUN = WORK
_MOON = WORK + 3 * LANES
_AXIS = WORK + 6 * LANES
_TURN = WORK + 9 * LANES


@kernel
def _look_up(W, sky, earth):
    """Sun, Moon (3 rows each, m), the pole's X, Y (2) and the sine and cosine of Earth's rotation (2) at AT's time."""
    L = LANES
    theta0, rate = earth[0], earth[1]
    for m in range(L):
        t = W[AT + 6 * L + m]
        k, u = place_in(sky, t)
        for i in range(6):
            W[_SUN + i * L + m] = sky[k, 3 + i] + u * (sky[k + 1, 3 + i] - sky[k, 3 + i])
        W[_AXIS + m] = sky[k, 0] + u * (sky[k + 1, 0] - sky[k, 0])
        W[_AXIS + L + m] = sky[k, 1] + u * (sky[k + 1, 1] - sky[k, 1])
        W[_AXIS + 2 * L + m] = theta0 + (sky[k, 2] + u * (sky[k + 1, 2] - sky[k, 2])) + rate * t
    for m in range(L):
        s, c = sine_cosine(W[_AXIS + 2 * L + m])
        W[_TURN + m] = s
        W[_TURN + L + m] = c


@kernel
def _to_earth(W, px, py):
    """AT's place into PLACE, body-fixed: the pole, Earth's rotation, polar motion (IERS Conventions 2010, ch. 5)."""
    L = LANES
    for m in range(L):
        rx = W[AT + m]
        ry = W[AT + L + m]
        rz = W[AT + 2 * L + m]
        x = W[_AXIS + m]
        y = W[_AXIS + L + m]
        s = W[_TURN + m]
        c = W[_TURN + L + m]
        z = np.sqrt(1.0 - x * x - y * y)
        a = 1.0 / (1.0 + z)
        b = a * (x * rx + y * ry) + rz
        i = rx - x * b
        j = ry - y * b
        k = x * rx + y * ry + z * rz
        e = c * i + s * j
        f = c * j - s * i
        W[PLACE + m] = e + px * k
        W[PLACE + L + m] = f + py * k
        W[PLACE + 2 * L + m] = k - px * e - py * f


@kernel
def _from_earth(W, px, py):
    """PLACE, a vector in the body-fixed frame, into PUSH, GCRF."""
    L = LANES
    for m in range(L):
        x = W[_AXIS + m]
        y = W[_AXIS + L + m]
        s = W[_TURN + m]
        c = W[_TURN + L + m]
        z = np.sqrt(1.0 - x * x - y * y)
        a = 1.0 / (1.0 + z)
        g = W[PLACE + m]
        h = W[PLACE + L + m]
        k = W[PLACE + 2 * L + m]
        e = g - px * k
        f = h - py * k
        k = k + px * g + py * h
        i = c * e - s * f
        j = s * e + c * f
        b = a * (x * i + y * j) - k
        W[PUSH + m] = i - x * b
        W[PUSH + L + m] = j - y * b
        W[PUSH + 2 * L + m] = z * k - x * i - y * j


@kernel
def _others(W, k0, k1, k2, c2, c3, c4, c5, c6, tides, relativity):
    """Add Moon, Sun, tides and relativity to PUSH, take the zonal field out of it, and fill LIGHT.

    Third bodies: Montenbruck & Gill, section 3.3. Tides: the gradient of the potential k20 GM R^5 P2 / (d^3 r^3) of a
    bulge that points at Moon or Sun. Relativity: the Schwarzschild term (IERS Conventions 2010, eq. 10.12).
    Sunlight on a sphere; across the penumbra it grows in a straight line.
    """
    L = LANES
    for m in range(L):
        rx = W[AT + m]
        ry = W[AT + L + m]
        rz = W[AT + 2 * L + m]
        vx = W[AT + 3 * L + m]
        vy = W[AT + 4 * L + m]
        vz = W[AT + 5 * L + m]
        ax, ay, az, ux, uy, uz, _, _, _, _ = field(rx, ry, rz, k0, k1, k2, c2, c3, c4, c5, c6)
        r2 = rx * rx + ry * ry + rz * rz
        w = 1.0 / np.sqrt(r2)
        kepler = MU * w * w
        px = W[PUSH + m] - ax - kepler * ux
        py = W[PUSH + L + m] - ay - kepler * uy
        pz = W[PUSH + 2 * L + m] - az - kepler * uz

        # relativity
        g = relativity * MU * w * w * w / (LIGHT_M_S * LIGHT_M_S)
        by_r = g * (4.0 * MU * w - (vx * vx + vy * vy + vz * vz))
        by_v = 4.0 * g * (rx * vx + ry * vy + rz * vz)
        px += by_r * rx + by_v * vx
        py += by_r * ry + by_v * vy
        pz += by_r * rz + by_v * vz

        bulge = 0.5 * tides * LOVE * RADIUS * w * w * w * w * RADIUS * RADIUS * RADIUS * RADIUS
        # Moon
        bx = W[_MOON + m]
        by = W[_MOON + L + m]
        bz = W[_MOON + 2 * L + m]
        b2 = 1.0 / (bx * bx + by * by + bz * bz)
        b1 = np.sqrt(b2)
        far = MU_MOON * b2 * b1
        dx = bx - rx
        dy = by - ry
        dz = bz - rz
        d2 = 1.0 / (dx * dx + dy * dy + dz * dz)
        near = MU_MOON * d2 * np.sqrt(d2)
        c = (bx * ux + by * uy + bz * uz) * b1
        up = bulge * far * (3.0 - 15.0 * c * c)
        to = bulge * far * 6.0 * c * b1 - far
        px += near * dx + to * bx + up * ux
        py += near * dy + to * by + up * uy
        pz += near * dz + to * bz + up * uz

        # Sun
        bx = W[_SUN + m]
        by = W[_SUN + L + m]
        bz = W[_SUN + 2 * L + m]
        b2 = 1.0 / (bx * bx + by * by + bz * bz)
        b1 = np.sqrt(b2)
        far = MU_SUN * b2 * b1
        dx = bx - rx
        dy = by - ry
        dz = bz - rz
        d2 = 1.0 / (dx * dx + dy * dy + dz * dz)
        d1 = np.sqrt(d2)
        near = MU_SUN * d2 * d1
        c = (bx * ux + by * uy + bz * uz) * b1
        up = bulge * far * (3.0 - 15.0 * c * c)
        to = bulge * far * 6.0 * c * b1 - far
        px += near * dx + to * bx + up * ux
        py += near * dy + to * by + up * uy
        pz += near * dz + to * bz + up * uz
        W[PUSH + m] = px
        W[PUSH + L + m] = py
        W[PUSH + 2 * L + m] = pz

        # shadow: how far behind Earth, how far off its axis, and where umbra and penumbra end there
        behind = -(rx * bx + ry * by + rz * bz) * b1
        off = np.sqrt(max(r2 - behind * behind, 0.0))
        umbra = EARTH_RADIUS_M - behind * (SUN_RADIUS_M - EARTH_RADIUS_M) * b1
        penumbra = EARTH_RADIUS_M + behind * (SUN_RADIUS_M + EARTH_RADIUS_M) * b1
        lit = min(max((off - umbra) / (penumbra - umbra), 0.0), 1.0)
        lit = lit if behind > 0.0 else 1.0
        p = -lit * LIGHT_PRESSURE * AU_M * AU_M * d2 * d1
        W[LIGHT + m] = p * dx
        W[LIGHT + L + m] = p * dy
        W[LIGHT + 2 * L + m] = p * dz


@kernel
def _air(W, air, rate):
    """DRAG: the push of air that turns with Earth, by Cd A/m (Montenbruck & Gill, section 3.5)."""
    L = LANES
    for m in range(L):
        W[DRAG + m] = 0.0
        W[DRAG + L + m] = 0.0
        W[DRAG + 2 * L + m] = 0.0
        rx = W[AT + m]
        ry = W[AT + L + m]
        rz = W[AT + 2 * L + m]
        r = np.sqrt(rx * rx + ry * ry + rz * rz)
        if not r < EARTH_RADIUS_M + HIGHEST_M:
            continue
        x = W[_AXIS + m]
        y = W[_AXIS + L + m]
        sine = (x * rx + y * ry + rz) / r
        height = r - EARTH_RADIUS_M * (1.0 - FLATTENING * sine * sine)
        sx = W[_SUN + m]
        sy = W[_SUN + L + m]
        sz = W[_SUN + 2 * L + m]
        apex = (
            rx * (sx * np.cos(LAG_RAD) - sy * np.sin(LAG_RAD))
            + ry * (sx * np.sin(LAG_RAD) + sy * np.cos(LAG_RAD))
            + rz * sz
        ) / (r * np.sqrt(sx * sx + sy * sy + sz * sz))
        vx = W[AT + 3 * L + m] - rate * (y * rz - ry)
        vy = W[AT + 4 * L + m] - rate * (rx - x * rz)
        vz = W[AT + 5 * L + m] - rate * (x * ry - y * rx)
        p = -0.5 * density(air, height, apex) * np.sqrt(vx * vx + vy * vy + vz * vz)
        W[DRAG + m] = p * vx
        W[DRAG + L + m] = p * vy
        W[DRAG + 2 * L + m] = p * vz


@kernel
def push_lanes(W, d):
    """PUSH: acceleration beyond the zonal field of ``d`` (Dynamics) at AT, m/s^2, GCRF; DRAG and LIGHT on the way."""
    L = LANES
    z = d.zonal
    _look_up(W, d.sky, d.earth)
    _to_earth(W, d.earth[2], d.earth[3])
    harmonics(W, d.field, d.degree)
    _from_earth(W, d.earth[2], d.earth[3])
    _others(W, z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7], d.terms[0], d.terms[1])
    _air(W, d.air, d.earth[1])
    for i in range(3):
        for m in range(L):
            W[PUSH + i * L + m] += (
                W[COEFFICIENTS + m] * W[DRAG + i * L + m] + W[COEFFICIENTS + L + m] * W[LIGHT + i * L + m]
            )
