"""What the air does to directions and ranges, and how to take it off.

A ray is followed from the site through a spherical atmosphere, as d/ds(n dr/ds) = grad n (Born & Wolf, Principles of
Optics, section 3.2), by Runge-Kutta steps along its length. So there is no formula that fails at the horizon, and no
iteration: a radar's echo comes from where the ray has covered the measured path.

The air is that of Hohenkerk & Sinclair (NAO Technical Note 63, 1985; Explanatory Supplement to the Astronomical
Almanac, 3rd ed., section 7.2.5): hydrostatic, with a lapse of 6.5 K/km up to 11 km above the sea and the same
temperature from there on; water vapour falls by e in 2 km (ITU-R P.835). Refractivity, N = (n - 1) 1e6, with P in hPa,
T in K, and the pressure e of water vapour in hPa:

- radio (ITU-R P.453): 77.6 P/T - 5.6 e/T + 3.75e5 e/T^2;
- light (resolution 3 of the IAG, 1999, phase): (287.6155 + 1.62887/w^2 + 0.01360/w^4) (P/1013.25) (273.15/T)
  - 11.27 e/T, at w = 0.575 micrometres.

Pressure, temperature and humidity at the site come from its configuration; what it does not say is that of the
standard atmosphere (ISO 2533), with 7.5 g/m^3 of water at the sea (ITU-R P.835).

Layers lie on a sphere of the site's mean radius of curvature; the weather elsewhere on the ray is that of the site.
The ionosphere is not in it: at 400 MHz and 50 TECU it adds up to 125 m to a range.

What cannot be known is told to the filter, as added variance: a share of the correction (``refraction_error``); where
no range was measured, half (`NEARNESS`) of what hangs on the target's distance; and of a range rate, which is that
along the ray at the target and not along the straight line, the angle between the two times `ACROSS_M_S`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config, Sensor, Site
from fusionnode.core.kernels import kernel
from fusionnode.core.types import Kind

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

LAPSE_K_M: Final = 0.0065
TROPOPAUSE_M: Final = 11_000.0
GMR_K_M: Final = 0.0341631947
"""g M / R of air, K/m: pressure falls by e in T / GMR_K_M."""
WET_SCALE_M: Final = 2_000.0
WATER_G_M3: Final = 7.5
TOP_M: Final = 90_000.0
"""Above this, what is left of the air adds 2 micrometres to a range."""
WAVELENGTH_UM: Final = 0.575
ACROSS_M_S: Final = 5_000.0
"""How fast targets cross the line of sight up or down, for what a range rate is not known by."""

NEARNESS: Final = 0.5
"""Sigma of the part of a correction that hangs on the target's distance, where that is not known."""

REMOVED, INCLUDED, STELLAR = 0, 1, 2
_MODES: Final = {"removed": REMOVED, "included": INCLUDED, "stellar": STELLAR}

# Columns of a sensor's air.
(
    _MODE,
    _RADIUS,
    _DRY,
    _TEMPERATURE,
    _TROPOPAUSE,
    _DRY_ABOVE,
    _SCALE_ABOVE,
    _WET,
    _GROUND,
    _TARGET,
    _ERROR,
) = range(11)


_STEP: Final = 0.25
"""Steps rise by so much of the height over which the air changes."""
_MOST_STEPS: Final = 1_000
_A: Final = 6_378_137.0
_E2: Final = 6.694379990141317e-3  # WGS 84
_RADEC: Final = int(Kind.OPTICAL_RADEC)


def weather(site: Site) -> tuple[float, float, float]:
    """Pressure (hPa), temperature (K) and pressure of water vapour (hPa) at a site.

    Saturation over water: ITU-R P.453, eq. 9. Vapour by density: e = rho T / 216.7 (ITU-R P.453, eq. 10).
    """
    standard_k = 288.15 - LAPSE_K_M * site.height_m
    kelvin = standard_k if site.temperature_c is None else site.temperature_c + 273.15
    pressure = (
        1013.25 * (standard_k / 288.15) ** (GMR_K_M / LAPSE_K_M)
        if site.pressure_hpa is None
        else site.pressure_hpa
    )
    if site.humidity is None:
        vapour = WATER_G_M3 * np.exp(-site.height_m / WET_SCALE_M) * kelvin / 216.7
    else:
        t = kelvin - 273.15
        more = 1.0 + 1e-4 * (7.2 + pressure * (0.0320 + 5.9e-6 * t * t))
        vapour = site.humidity * more * 6.1121 * np.exp((18.678 - t / 234.5) * t / (t + 257.14))
    return pressure, kelvin, float(vapour)


def refractivity(
    pressure_hpa: float, kelvin: float, vapour_hpa: float, *, radio: bool
) -> tuple[float, float]:
    """N of the air as if dry, which follows its density, and what water vapour adds to it; see above."""
    if radio:
        wet = -5.6 * vapour_hpa / kelvin + 3.75e5 * vapour_hpa / kelvin**2
        return 77.6 * pressure_hpa / kelvin, wet
    n0 = 287.6155 + 1.62887 / WAVELENGTH_UM**2 + 0.01360 / WAVELENGTH_UM**4
    return n0 * pressure_hpa / 1013.25 * 273.15 / kelvin, -11.27 * vapour_hpa / kelvin


def mean_radius(lat_rad: float) -> float:
    """Gaussian mean radius of curvature of WGS 84, m."""
    return float(_A * np.sqrt(1.0 - _E2) / (1.0 - _E2 * np.sin(lat_rad) ** 2))


def air_of(sensor: Sensor, site: Site) -> F64:
    """The numbers by which a sensor's rays are bent, shape (11,)."""
    pressure, kelvin, vapour = weather(site)
    dry, wet = refractivity(pressure, kelvin, vapour, radio=sensor.kind == "radar")
    tropopause = max(TROPOPAUSE_M - site.height_m, 0.0)
    above_k = kelvin - LAPSE_K_M * tropopause
    return np.array(
        [
            _MODES[sensor.refraction],
            mean_radius(np.radians(site.lat_deg)) + site.height_m,
            1e-6 * dry,
            kelvin,
            tropopause,
            1e-6 * dry * (above_k / kelvin) ** (GMR_K_M / LAPSE_K_M - 1.0),
            above_k / GMR_K_M,
            1e-6 * wet,
            -max(site.height_m, 0.0),
            sensor.target_height_m,
            sensor.refraction_error,
        ]
    )


def airs(config: Config) -> F64:
    """`air_of` each sensor, (sensors, 11)."""
    return np.array([air_of(s, config.site[s.site]) for s in config.sensor.values()])


@kernel
def _index(air: F64, height: float, below: bool) -> tuple[float, float]:
    """n - 1 and its derivative (1/m) at a height above the site, m; ``below``: by the tropopause's lower side."""
    if height < air[_GROUND]:
        height = air[_GROUND]  # under the ground there is no air; what a ray does there does not matter
        flat = 0.0
    else:
        flat = 1.0
    if below:
        warmth = 1.0 - LAPSE_K_M * height / air[_TEMPERATURE]
        power = GMR_K_M / LAPSE_K_M - 1.0
        dry = air[_DRY] * warmth**power
        slope = -dry * power * LAPSE_K_M / (air[_TEMPERATURE] * warmth)
    else:
        dry = air[_DRY_ABOVE] * np.exp(-(height - air[_TROPOPAUSE]) / air[_SCALE_ABOVE])
        slope = -dry / air[_SCALE_ABOVE]
    wet = air[_WET] * np.exp(-height / WET_SCALE_M)
    return dry + wet, flat * (slope - wet / WET_SCALE_M)


@kernel
def _slope(air: F64, below: bool, x: float, y: float, tx: float, ty: float) -> tuple[float, float, float]:
    """d/ds of the direction (2), and n - 1, at (x, y) from the site (m, y up) in direction (tx, ty)."""
    up = y + air[_RADIUS]
    r = np.sqrt(x * x + up * up)
    excess, falling = _index(air, r - air[_RADIUS], below)
    gx = falling * x / r
    gy = falling * up / r
    along = gx * tx + gy * ty
    n = 1.0 + excess
    return (gx - along * tx) / n, (gy - along * ty) / n, excess


@kernel
def trace(air: F64, elevation: float, path_m: float) -> tuple[float, float, float, float, float]:
    """Follow the ray that leaves the site at ``elevation`` (rad) until it has covered the optical ``path_m``, or has
    left the air.

    Returns where it is (x, y; m from the site, y up), its direction there (2) and what is left of the path (m).
    """
    x, y, s, delay = 0.0, 0.0, 0.0, 0.0
    tx, ty = np.cos(elevation), np.sin(elevation)
    for _ in range(_MOST_STEPS):
        up = y + air[_RADIUS]
        r = np.sqrt(x * x + up * up)
        height = r - air[_RADIUS]
        if height >= TOP_M:
            break
        sine = (x * tx + up * ty) / r
        rise = _STEP * (WET_SCALE_M + 0.5 * max(height, 0.0))
        # a step ends where the profile has its bend, or it would be worth less than its order
        below = height < air[_TROPOPAUSE] - 1.0
        if sine > 0.0 and below:
            rise = min(rise, air[_TROPOPAUSE] - height)
        h = 2.0 * rise / (abs(sine) + np.sqrt(sine * sine + 2.0 * rise / r))
        left = path_m - s - delay
        n = 1.0 + _index(air, height, below)[0]
        last = h * n >= left
        if last:
            h = left / n
        ax, ay, e1 = _slope(air, below, x, y, tx, ty)
        hh = 0.5 * h
        bx, by, e2 = _slope(air, below, x + hh * tx, y + hh * ty, tx + hh * ax, ty + hh * ay)
        ux, uy = tx + hh * ax, ty + hh * ay
        cx, cy, e3 = _slope(air, below, x + hh * ux, y + hh * uy, tx + hh * bx, ty + hh * by)
        vx, vy = tx + hh * bx, ty + hh * by
        dx, dy, e4 = _slope(air, below, x + h * vx, y + h * vy, tx + h * cx, ty + h * cy)
        wx, wy = tx + h * cx, ty + h * cy
        x += h / 6.0 * (tx + 2.0 * ux + 2.0 * vx + wx)
        y += h / 6.0 * (ty + 2.0 * uy + 2.0 * vy + wy)
        tx += h / 6.0 * (ax + 2.0 * bx + 2.0 * cx + dx)
        ty += h / 6.0 * (ay + 2.0 * by + 2.0 * cy + dy)
        delay += h / 6.0 * (e1 + 2.0 * e2 + 2.0 * e3 + e4)
        s += h
        norm = np.sqrt(tx * tx + ty * ty)
        tx /= norm
        ty /= norm
        if last:
            break
    return x, y, tx, ty, path_m - s - delay


@kernel
def straight(air: F64, elevation: float, range_m: float) -> tuple[float, float, float]:
    """Elevation (rad) and range (m) of where an echo came from that was measured at ``elevation`` and ``range_m``; and
    the angle there between ray and straight line (rad).
    """
    x, y, tx, ty, left = trace(air, elevation, range_m)
    x += left * tx
    y += left * ty
    return np.arctan2(y, x), np.sqrt(x * x + y * y), abs(np.arctan2(ty, tx) - np.arctan2(y, x))


@kernel
def direction(air: F64, elevation: float) -> tuple[float, float]:
    """Elevation of the straight line to a target ``_TARGET`` m high whose light comes in at ``elevation``, and of the
    ray outside the air (as of a star), rad.
    """
    x, y, tx, ty, _ = trace(air, elevation, 1.0e9)
    up = y + air[_RADIUS]
    along = x * tx + up * ty
    # distance on to the sphere that the target is on
    end2 = (air[_RADIUS] + air[_TARGET]) ** 2
    on = max(np.sqrt(max(along * along + end2 - x * x - up * up, 0.0)) - along, 0.0)
    return np.arctan2(y + on * ty, x + on * tx), np.arctan2(ty, tx)


@kernel
def true_elevation(air: F64, elevation: float) -> tuple[float, float]:
    """Elevation of the straight line to a target of which only a direction was measured, ``elevation`` (rad) being as
    the sensor's convention says: as the light came in, or relative to stars whose refraction was taken off. And how far
    that line is from the ray outside the air (rad): it hangs on the target's distance.
    """
    if air[_MODE] == INCLUDED:
        line, star = direction(air, elevation)
        return line, abs(line - star)
    # the elevation at which the light came in: refraction changes slowly, so that this converges
    apparent = elevation
    line = elevation
    for _ in range(20):
        line, star = direction(air, apparent)
        apparent += elevation - star
        if abs(elevation - star) < 1e-11:
            break
    return line, abs(line - elevation)


@kernel
def straighten(index: I32, kind: U8, ranged: Flags, rated: Flags, value: F64, var: F64, air: F64) -> None:
    """Take refraction off elevations and ranges, in place; not of right ascension and declination.

    ``index`` (n,): sensors; ``kind`` (sensors,): what each reports; ``ranged``, ``rated`` (n,): whether there are a
    range and a range rate; ``value``, ``var`` (n, 4): range, azimuth, elevation, range rate and their variances.
    """
    for i in range(len(index)):
        a = air[index[i]]
        if a[_MODE] == REMOVED or kind[index[i]] == _RADEC:
            continue
        before, range_m = value[i, 2], value[i, 0]
        if ranged[i]:
            value[i, 2], value[i, 0], off = straight(a, before, range_m)
            var[i, 0] += (a[_ERROR] * (value[i, 0] - range_m)) ** 2
        else:
            value[i, 2], off = true_elevation(a, before)
            var[i, 2] += (NEARNESS * off) ** 2
        var[i, 2] += (a[_ERROR] * (value[i, 2] - before)) ** 2
        if rated[i]:
            var[i, 3] += (off * ACROSS_M_S) ** 2


@kernel
def straighten_axes(
    index: I32, kind: U8, to_itrf: F64, horizons: F64, los: F64, e_lon: F64, e_lat: F64, var: F64, air: F64
) -> None:
    """Take refraction off directions (n, 3) in GCRF of sensors that report right ascension and declination, in place;
    the tangent plane ``e_lon``, ``e_lat`` (n, 3) goes along.

    ``to_itrf`` (n, 3, 3): turns GCRF into ITRF; ``horizons`` (sensors, 3, 3): rows east, north, up in ITRF.
    """
    up, q = np.empty(3), np.empty(3)
    for i in range(len(index)):
        a = air[index[i]]
        if a[_MODE] == REMOVED or kind[index[i]] != _RADEC:
            continue
        sine = 0.0
        for j in range(3):
            up[j] = 0.0
            for k in range(3):
                up[j] += to_itrf[i, k, j] * horizons[index[i], 2, k]
            sine += up[j] * los[i, j]
        cosine = np.sqrt(max(1.0 - sine * sine, 0.0))
        if cosine < 1e-9:
            continue  # at the zenith there is none
        elevation = np.arctan2(sine, cosine)
        line, near = true_elevation(a, elevation)
        turn = line - elevation
        across = np.sqrt((a[_ERROR] * turn) ** 2 + (NEARNESS * near) ** 2)
        ups_lon, ups_lat = 0.0, 0.0
        for j in range(3):
            q[j] = (up[j] - sine * los[i, j]) / cosine
            ups_lon += q[j] * e_lon[i, j]
            ups_lat += q[j] * e_lat[i, j]
        c, s = np.cos(turn), np.sin(turn)
        for j in range(3):
            # a turn in the plane of los and q takes all three axes along
            lean = (c - 1.0) * q[j] - s * los[i, j]
            e_lon[i, j] += ups_lon * lean
            e_lat[i, j] += ups_lat * lean
            los[i, j] = c * los[i, j] + s * q[j]
        var[i, 1] += (across * ups_lon) ** 2
        var[i, 2] += (across * ups_lat) ** 2
