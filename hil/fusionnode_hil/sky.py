"""Light: where the Sun is, what the Earth shades, and how bright a lit object looks."""

from __future__ import annotations

import erfa
import numpy as np
import numpy.typing as npt

from fusionnode_hil.times import TT_MINUS_TAI_NS, FloatArray, IntArray, julian

C = 299_792_458.0
AU = 149_597_870_700.0
SUN_RADIUS = 6.957e8
EARTH_RADIUS = 6_378_137.0
SUN_MAGNITUDE = -26.74  # apparent, V band, at 1 au


def sun_gcrf(t_ns: IntArray) -> FloatArray:
    """The Sun's geocentric position (T, 3), m, GCRF axes, from ERFA's Earth ephemeris; no light time."""
    helio, _ = erfa.epv00(*julian(t_ns, TT_MINUS_TAI_NS))
    position: FloatArray = -helio["p"] * AU
    return position


def earth_velocity(t_ns: IntArray) -> FloatArray:
    """The Earth's barycentric velocity (T, 3), m/s, GCRF axes."""
    _, bary = erfa.epv00(*julian(t_ns, TT_MINUS_TAI_NS))
    velocity: FloatArray = bary["v"] * (AU / 86_400.0)
    return velocity


def sunlit_fraction(r: FloatArray, sun: FloatArray) -> FloatArray:
    """Part of the Sun's disc that is seen from ``r`` (..., 3), m: 1 in full light, 0 in the umbra.

    Conical shadow of a spherical Earth: two overlapping discs, as in Montenbruck and Gill, Satellite Orbits,
    eqs. 3.85 to 3.94.
    """
    to_sun = sun - r
    sun_distance = np.linalg.norm(to_sun, axis=-1)
    height = np.linalg.norm(r, axis=-1)
    a = np.arcsin(SUN_RADIUS / sun_distance)
    b = np.arcsin(np.minimum(EARTH_RADIUS / height, 1.0))
    c = np.arccos(np.clip(-np.sum(r * to_sun, axis=-1) / (height * sun_distance), -1.0, 1.0))
    safe = np.clip(c, np.abs(b - a), a + b)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (safe**2 + a**2 - b**2) / (2.0 * safe)
        y = np.sqrt(np.maximum(a**2 - x**2, 0.0))
        overlap = (
            a**2 * np.arccos(np.clip(x / a, -1.0, 1.0))
            + b**2 * np.arccos(np.clip((safe - x) / b, -1.0, 1.0))
            - safe * y
        )
    hidden = np.where(c >= a + b, 0.0, np.where(c <= b - a, 1.0, overlap / (np.pi * a**2)))
    hidden = np.where(c <= a - b, (b / a) ** 2, hidden)  # so far away that the Earth leaves a ring
    return 1.0 - np.clip(hidden, 0.0, 1.0)


def in_cylinder(r: FloatArray, sun: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether ``r`` (..., 3) is in the Earth's shadow taken as a cylinder: `sunlit_fraction` made plain."""
    axis = sun / np.linalg.norm(sun, axis=-1, keepdims=True)
    along = np.sum(r * axis, axis=-1)
    across = np.linalg.norm(r - along[..., None] * axis, axis=-1)
    return np.asarray((along < 0.0) & (across < EARTH_RADIUS))


def diffuse_sphere_magnitude(
    *, distance_m: FloatArray, phase_rad: FloatArray, diameter_m: FloatArray, albedo: FloatArray
) -> FloatArray:
    """Apparent V magnitude of a sphere that scatters by Lambert's law, at 1 au from the Sun.

    ``phase_rad`` is the angle Sun-object-observer. Phase function of McCue, Williams and Morford, Planet.
    Space Sci. 19, 851 (1971): F = 2 albedo a^2 / (3 pi d^2) [sin p + (pi - p) cos p], with radius a and
    distance d.
    """
    phase = np.sin(phase_rad) + (np.pi - phase_rad) * np.cos(phase_rad)
    ratio = 2.0 * albedo * (diameter_m / 2.0) ** 2 * phase / (3.0 * np.pi * distance_m**2)
    with np.errstate(divide="ignore"):
        return SUN_MAGNITUDE - 2.5 * np.log10(np.maximum(ratio, 0.0))
