"""Density of the upper air: Harris and Priester's table with the Sun's bulge.

It knows height, the Sun's direction and mean solar activity; what the activity of a day makes of it (a factor of two at
400 km is common) is part of an object's ballistic coefficient.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import inlined

_TABLE = np.array(
    [
        (100, 497400.0, 497400.0), (120, 24900.0, 24900.0), (130, 8377.0, 8710.0), (140, 3899.0, 4059.0),
        (150, 2122.0, 2215.0), (160, 1263.0, 1344.0), (170, 800.8, 875.8), (180, 528.3, 601.0),
        (190, 361.7, 429.7), (200, 255.7, 316.2), (210, 183.9, 239.6), (220, 134.1, 185.3),
        (230, 99.49, 145.5), (240, 74.88, 115.7), (250, 57.09, 93.08), (260, 44.03, 75.55),
        (270, 34.30, 61.82), (280, 26.97, 50.95), (290, 21.39, 42.26), (300, 17.08, 35.26),
        (320, 10.99, 25.11), (340, 7.214, 18.19), (360, 4.824, 13.37), (380, 3.274, 9.955),
        (400, 2.249, 7.492), (420, 1.558, 5.684), (440, 1.091, 4.355), (460, 0.7701, 3.362),
        (480, 0.5474, 2.612), (500, 0.3916, 2.042), (520, 0.2819, 1.605), (540, 0.2042, 1.267),
        (560, 0.1488, 1.005), (580, 0.1092, 0.7997), (600, 0.08070, 0.6390), (620, 0.06012, 0.5123),
        (640, 0.04519, 0.4121), (660, 0.03430, 0.3325), (680, 0.02632, 0.2691), (700, 0.02043, 0.2185),
        (720, 0.01607, 0.1779), (740, 0.01281, 0.1452), (760, 0.01036, 0.1190), (780, 0.008496, 0.09776),
        (800, 0.007069, 0.08059), (840, 0.004680, 0.05741), (880, 0.003200, 0.04210), (920, 0.002210, 0.03130),
        (960, 0.001560, 0.02360), (1000, 0.001150, 0.01810),
    ]
)  # fmt: skip
"""Height, km; least and greatest density, g/km^3 (Montenbruck & Gill, Satellite Orbits, table 3.3)."""

LOWEST_M, HIGHEST_M, _SPACING_M = 100e3, 2_500e3, 10e3
_THINNER_M = 268e3
"""Above the table the air thins by e in so many metres (Vallado, Fundamentals of Astrodynamics, table 8-4)."""
LAG_RAD = np.radians(30.0)
"""The bulge stands this far east of the Sun (Montenbruck & Gill, section 3.5.2)."""


def table() -> npt.NDArray[np.float64]:
    """Logarithms of least and greatest density, kg/m^3, every 10 km from LOWEST_M, shape (241, 2).

    The table's own law is exponential between its heights, and these are among the rows. Above its last one both
    columns go on as one exponential: little air, but what it does in a day is metres, and an object's estimated
    coefficient there answers for any other slow push along its path, too.
    """
    heights = np.arange(LOWEST_M, HIGHEST_M + 1.0, _SPACING_M) / 1e3
    columns = [np.interp(heights, _TABLE[:, 0], np.log(1e-12 * _TABLE[:, i])) for i in (1, 2)]
    beyond = np.maximum(heights - _TABLE[-1, 0], 0.0) * 1e3 / _THINNER_M
    return np.ascontiguousarray(np.stack(columns, axis=1) - beyond[:, None])


@inlined
def density(air, height, bulge):
    """Density, kg/m^3, at ``height`` (m) where the cosine of the angle from the bulge's apex is ``bulge``.

    The share of the greatest density is cos^6 of half the angle, which is right for inclined orbits. Nothing above
    HIGHEST_M; below it the lowest row.
    """
    rho = 0.0
    if height < HIGHEST_M:
        f = (max(height, LOWEST_M) - LOWEST_M) / _SPACING_M
        k = min(int(f), air.shape[0] - 2)
        u = f - k
        least = np.exp(air[k, 0] + u * (air[k + 1, 0] - air[k, 0]))
        most = np.exp(air[k, 1] + u * (air[k + 1, 1] - air[k, 1]))
        half = 0.5 + 0.5 * bulge
        rho = least + (most - least) * half * half * half
    return rho
