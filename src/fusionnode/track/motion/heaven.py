"""Where Earth's axes, the Sun and the Moon are over some days: tables for the force kernels."""

from __future__ import annotations

from typing import Protocol

import erfa
import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import inlined
from fusionnode.core.refframes import EARTH_RATE_RAD_S
from fusionnode.core.timescales import DAY_NS, SECOND_NS, tt_jd

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

STEP_S = 1_800.0
"""Between rows. Straight lines between them are off by 1 km for the Moon and 2 km for the Sun."""
DAYS = 8
"""Rows reach this far to both sides of the reference time; beyond them the last row stands, and Earth turns on."""
FIRST_S = -DAYS * 86_400.0
AU_M = 149_597_870_700.0
COLUMNS = 9
"""X, Y of the celestial pole; what Earth's rotation is off a uniform one (rad); Sun, Moon (GCRF, m)."""


class Earth(Protocol):
    """What is asked of Earth orientation (`core.refframes.EarthOrientation`)."""

    def pole(self, t_ns: I64) -> F64:
        """Unit vectors of the celestial intermediate pole, GCRF, shape (n, 3), at TAI ns (n,)."""
        ...

    def gcrf_to_itrf(self, t_ns: I64) -> F64:
        """Rotation matrices (n, 3, 3) at TAI ns (n,)."""
        ...


def tables(earth: Earth, ref_ns: int) -> tuple[F64, F64]:
    """The sky around ``ref_ns`` (TAI ns), shape (n, COLUMNS), a row every STEP_S from FIRST_S on; and Earth's rotation
    angle at ``ref_ns`` (rad), its rate (rad/s) and the two angles of polar motion (rad), shape (4,).

    Sun and Moon are those of erfa's ``epv00`` and ``moon98`` (good to about 5 and 30 km).
    """
    n = int(2 * DAYS * 86_400.0 / STEP_S) + 1
    offset_s = FIRST_S + STEP_S * np.arange(n)
    t_ns = ref_ns + (offset_s * SECOND_NS).astype(np.int64)
    pole = np.asarray(earth.pole(t_ns))
    to_itrf = np.asarray(earth.gcrf_to_itrf(t_ns))
    x, y, z = pole.T
    # the intermediate axes (IERS Conventions 2010, eq. 5.10), and the Earth-fixed ones before polar motion
    a = 1.0 / (1.0 + z)
    first = np.stack([1.0 - a * x * x, -a * x * y, -x], axis=1)
    second = np.stack([-a * x * y, 1.0 - a * y * y, -y], axis=1)
    figure = np.einsum("nij,nj->ni", to_itrf, pole)
    px, py = figure[:, 0], figure[:, 1]
    meridian = to_itrf[:, 0] - px[:, None] * to_itrf[:, 2]
    angle = np.arctan2(np.sum(meridian * second, axis=1), np.sum(meridian * first, axis=1))
    middle = n // 2
    uniform = angle[middle] + EARTH_RATE_RAD_S * offset_s
    off = np.remainder(angle - uniform + np.pi, 2.0 * np.pi) - np.pi
    jd = tt_jd(t_ns)
    sun = -erfa.epv00(*jd)[0]["p"] * AU_M
    moon = erfa.moon98(*jd)["p"] * AU_M
    sky = np.ascontiguousarray(np.column_stack([x, y, off, sun, moon]))
    return sky, np.array([angle[middle], EARTH_RATE_RAD_S, px[middle], py[middle]])


def middle_of_day(t_ns: int) -> int:
    """TAI ns of the noon of the day of ``t_ns``."""
    return t_ns // DAY_NS * DAY_NS + DAY_NS // 2


@inlined
def place_in(sky, t):
    """Index of the row before ``t`` (s from the reference time), and how far towards the next one, 0 to 1."""
    f = (t - FIRST_S) / STEP_S
    f = f if f > 0.0 else 0.0
    last = float(sky.shape[0] - 1)
    f = f if f < last else last
    k = min(int(f), sky.shape[0] - 2)
    return k, f - k


@inlined
def sine_cosine(angle):
    """Sine and cosine of any angle, rad, to 1e-15, without a call: a polynomial for a quarter of it, doubled twice."""
    turns = angle * 0.15915494309189535
    turns = turns - np.floor(turns + 0.5)
    x = turns * 1.5707963267948966
    q = x * x
    s = x * (1.0 + q * (-1.0 / 6.0 + q * (1.0 / 120.0 + q * (-1.0 / 5040.0 + q * (1.0 / 362880.0 + q * (
        -1.0 / 39916800.0 + q * (1.0 / 6227020800.0 - q / 1307674368000.0)))))))  # fmt: skip
    c = 1.0 + q * (-0.5 + q * (1.0 / 24.0 + q * (-1.0 / 720.0 + q * (1.0 / 40320.0 + q * (-1.0 / 3628800.0 + q * (
        1.0 / 479001600.0 - q / 87178291200.0))))))  # fmt: skip
    s, c = 2.0 * s * c, 1.0 - 2.0 * s * s
    return 2.0 * s * c, 1.0 - 2.0 * s * s
