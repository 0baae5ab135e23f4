"""Earth orientation: GCRF <-> ITRF, TEME -> GCRF, and where a site stands.

IAU 2006/2000A, CIO based (IERS Conventions 2010, chapter 5). The costly part, the CIP coordinates X, Y and
the locator s, moves slowly: pyerfa gives it on an absolute one-hour grid, a day at a time when first asked
for, and four-point Lagrange interpolation is then right to 1e-13 rad. Since the grid is fixed, a result does
not depend on which other epochs were asked for. UT1 and polar motion are interpolated likewise on a daily
grid. Not modelled: the diurnal terms of UT1 and polar motion (a few centimetres at the ground).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import astropy_iers_data
import erfa
import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.timescales import (
    DAY_NS,
    JD_1970,
    MJD_1970,
    SECOND_NS,
    tai_minus_utc_s,
    tai_ns_from_utc,
    tt_jd,
)

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

EARTH_RATE_RAD_S: Final = 2 * np.pi * 1.00273781191135448 / 86_400
"""Rate of the Earth rotation angle (IERS Conventions 2010, eq. 5.15)."""

SPEED_OF_LIGHT_M_S: Final = 299_792_458.0

_ARCSEC: Final = np.pi / 648_000
_HOUR_NS: Final = 3_600 * SECOND_NS
_GRID_FIRST_DAY: Final = (
    0  # 1970; the grid is allocated lazily by the operating system, so a century is cheap
)
_GRID_DAYS: Final = 36_525


class EarthOrientation:
    """The Earth's orientation from a finals2000A table.

    Outside of the table's dates its first or last row is used, and `clamped` becomes true; that is no error.
    Not thread-safe: the grid is filled on demand.
    """

    def __init__(self, path: str | Path | None = None, *, celestial_pole_offsets: bool = True) -> None:
        """Read ``path``, by default the table inside the package astropy-iers-data.

        Raises:
            ValueError: the file is not a finals2000A table.
            OSError: the file cannot be read.
        """
        data = Path(path or astropy_iers_data.IERS_A_FILE).read_bytes()
        self.sha256: str = hashlib.sha256(data).hexdigest()
        mjd, self._eop, observed = _parse(data)
        if not celestial_pole_offsets:
            self._eop[:, 3:5] = 0.0
        self._eop_day0 = int(mjd[0]) - MJD_1970
        last_day = int(mjd[-1]) - MJD_1970
        self.valid_from_ns: int = int(tai_ns_from_utc(self._eop_day0, 0))
        self.valid_to_ns: int = int(tai_ns_from_utc(last_day, 0))
        self.observed_to_ns: int = int(tai_ns_from_utc(int(mjd[observed]) - MJD_1970, 0))
        """Up to here measured; after it predicted."""
        self.clamped: bool = False
        """Whether a time outside of the table was asked for."""
        self._xys = np.zeros((_GRID_DAYS * 24, 3))
        self._filled = np.zeros(_GRID_DAYS, np.bool_)

    def age_days(self, now_ns: int) -> float:
        """Days from the table's last measured row to ``now_ns``; negative if that lies ahead."""
        return (now_ns - self.observed_to_ns) / DAY_NS

    def covers(self, t_ns: Any) -> Any:
        """Whether the table covers ``t_ns`` (int or array)."""
        return (t_ns >= self.valid_from_ns) & (t_ns <= self.valid_to_ns)

    def gcrf_to_itrf(self, t_ns: I64) -> F64:
        """Rotation matrices [n, 3, 3] at TAI times [n]: ``r_itrf = M @ r_gcrf``."""
        t = self._prepare(t_ns)
        out = np.empty((len(t), 3, 3))
        _gcrf_to_itrf(t, self._eop, self._eop_day0, self._xys, out)
        return out

    def teme_to_gcrf(self, t_ns: I64) -> F64:
        """Rotation matrices [n, 3, 3] at TAI times [n] from SGP4's true equator, mean equinox.

        TEME is tied to the Earth by the 1982 sidereal time at UT1 (Vallado et al.,
        AIAA 2006-6753, appendix C). Good for velocities too: the frame turns by less than 1e-11 rad/s.
        """
        t = self._prepare(t_ns)
        out = np.empty((len(t), 3, 3))
        _teme_to_gcrf(t, self._eop, self._eop_day0, self._xys, out)
        return out

    def pole(self, t_ns: I64) -> F64:
        """The celestial intermediate pole in GCRF, unit vectors [n, 3]."""
        t = self._prepare(t_ns)
        out = np.empty((len(t), 3))
        _pole(t, self._eop, self._eop_day0, self._xys, out)
        return out

    def ut1_minus_tai_s(self, t_ns: I64) -> F64:
        """UT1 - TAI in seconds [n]: continuous over leap seconds."""
        t = self._prepare(t_ns)
        out = np.empty(len(t))
        _ut1(t, self._eop, self._eop_day0, out)
        return out

    def _prepare(self, t_ns: I64) -> I64:
        """Times as a contiguous array, with the grid filled for all of them."""
        t = np.array(t_ns, np.int64).reshape(
            -1
        )  # a copy: writable and contiguous, as the kernels are compiled for
        if len(t) == 0:
            return t
        first, last = (int(t[0]),) * 2 if len(t) == 1 else (int(t.min()), int(t.max()))
        if first < self.valid_from_ns or last > self.valid_to_ns:
            self.clamped = True
        # The four points around a time lie within half a day of it.
        low, high = _grid_day(first - DAY_NS // 2), _grid_day(last + DAY_NS // 2)
        if not self._filled[low : high + 1].all():
            self._fill(np.arange(low, high + 1) if high - low < 8 else self._days_around(t))
        return t

    def _days_around(self, t: I64) -> I64:
        near = np.unique(t // (DAY_NS // 2)) * (DAY_NS // 2)
        around = np.concatenate((near - DAY_NS // 2, near, near + DAY_NS // 2))
        return np.unique(np.clip(around // DAY_NS - _GRID_FIRST_DAY, 0, _GRID_DAYS - 1))

    def _fill(self, days: I64) -> None:
        missing = days[~self._filled[days]]
        hours = (missing[:, None] * 24 + np.arange(24)).reshape(-1)
        xys = erfa.xys06a(*tt_jd((_GRID_FIRST_DAY * 24 + hours) * _HOUR_NS))
        self._xys[hours] = np.stack(xys, axis=-1)
        self._filled[missing] = True


def site_itrf(lat_rad: float, lon_rad: float, height_m: float) -> F64:
    """ITRF position [3] in m of a WGS 84 geodetic place."""
    return np.asarray(erfa.gd2gc(1, lon_rad, lat_rad, height_m), np.float64)


def enu_itrf(lat_rad: float, lon_rad: float) -> F64:
    """Rows east, north, up [3, 3] of the geodetic horizon, in ITRF axes: ``enu = M @ r_itrf``."""
    sin_lat, cos_lat, sin_lon, cos_lon = np.sin(lat_rad), np.cos(lat_rad), np.sin(lon_rad), np.cos(lon_rad)
    return np.array(
        [
            [-sin_lon, cos_lon, 0.0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
        ]
    )


def earth_velocity(t_ns: I64) -> F64:
    """Barycentric velocity of the Earth [n, 3] in m/s, GCRF axes, at the nearest full minute.

    The minute is worth 0.2 m/s, or 0.1 milliarcsecond of aberration; ERFA's epv00 is good to 5 mm/s.
    """
    minutes, which = np.unique(
        (np.asarray(t_ns, np.int64) + 30 * SECOND_NS) // (60 * SECOND_NS), return_inverse=True
    )
    _, barycentric = erfa.epv00(*tt_jd(minutes * 60 * SECOND_NS))
    return np.asarray(barycentric["v"] * (149_597_870_700.0 / 86_400.0), np.float64)[which]


def _grid_day(t_ns: int) -> int:
    return min(max(t_ns // DAY_NS - _GRID_FIRST_DAY, 0), _GRID_DAYS - 1)


def _parse(data: bytes) -> tuple[F64, F64, int]:
    """MJD [n]; UT1-TAI (s), xp, yp, dX, dY (rad) [n, 5] at 0 h TAI; index of the last measured row.

    Byte positions: IERS ReadMe.finals2000A. Bulletin B, the final values, where it is given, else Bulletin A.
    """
    lines = [line.ljust(187) for line in data.splitlines() if line.strip()]
    if len(lines) < 4 or any(len(line) > 200 for line in lines):
        raise ValueError("not a finals2000A table of Earth orientation")
    table = np.array(lines, "S187").view(np.uint8).reshape(len(lines), 187)

    def column(first: int, last: int) -> F64:
        """One column of numbers by the ReadMe's byte positions (from 1, inclusive); nan where blank."""
        text = np.ascontiguousarray(table[:, first - 1 : last]).view(f"S{last - first + 1}").reshape(-1)
        text = np.char.strip(text)
        return np.where(text == b"", b"nan", text).astype(np.float64)

    def best(b: tuple[int, int], a: tuple[int, int]) -> F64:
        final = column(*b)
        return np.where(np.isnan(final), column(*a), final)

    try:
        mjd = column(8, 15)
        ut1_utc = best((155, 165), (59, 68))
        rows = int(np.argmax(np.isnan(ut1_utc))) if np.isnan(ut1_utc).any() else len(mjd)
        mjd = mjd[:rows]
        if rows < 4 or not np.array_equal(mjd, mjd[0] + np.arange(rows)):
            raise ValueError
        eop = np.stack(
            [
                ut1_utc,
                best((135, 144), (19, 27)) * _ARCSEC,
                best((145, 154), (38, 46)) * _ARCSEC,
                best((166, 175), (98, 106)) * (_ARCSEC / 1000),
                best((176, 185), (117, 125)) * (_ARCSEC / 1000),
            ],
            axis=-1,
        )[:rows]
    except ValueError:
        raise ValueError("not a finals2000A table of Earth orientation") from None
    eop[:, 3:5] = np.nan_to_num(eop[:, 3:5])  # predictions of dX, dY end before those of UT1
    if not np.isfinite(eop).all():
        raise ValueError("not a finals2000A table of Earth orientation")
    offset = tai_minus_utc_s(tai_ns_from_utc(mjd.astype(np.int64) - MJD_1970, np.int64(0)))
    eop[:, 0] -= offset
    # Rows are at 0 h UTC; shifted to 0 h TAI they lie on a uniform grid that leap seconds do not touch.
    eop -= np.gradient(eop, axis=0) * (offset / 86_400)[:, None]
    measured = np.flatnonzero(table[:rows, 57] == ord("I"))
    return mjd, eop, int(measured[-1]) if len(measured) else 0


# Kernels. `eop` [days, 5] and `xys` [hours, 3] are the tables of the class.


@kernel
def _place(t: int, step: int, first: int, n: int) -> tuple[int, float]:
    """Index of the second of the four points around ``t``, and the fraction after it; clamped."""
    k = t // step - first
    u = (t - (k + first) * step) / step
    if k < 0:
        return 1, -1.0
    if k >= n - 1:
        return n - 3, 2.0
    # At the ends the stencil is moved inwards.
    if k < 1:
        return 1, u - 1.0
    if k > n - 3:
        return n - 3, u + (k - (n - 3))
    return k, u


@kernel
def _at(table: F64, k: int, u: float, column: int) -> float:
    """Four-point Lagrange interpolation at the place that `_place` gave."""
    a, b, c, d = u + 1.0, u, u - 1.0, u - 2.0
    value: float = (
        -b * c * d / 6.0 * table[k - 1, column]
        + a * c * d / 2.0 * table[k, column]
        - a * b * d / 2.0 * table[k + 1, column]
        + a * b * c / 6.0 * table[k + 2, column]
    )
    return value


@kernel
def _cip(t: int, eop: F64, eop_day0: int, xys: F64) -> tuple[float, float, float]:
    """X, Y of the celestial intermediate pole and the locator s, rad."""
    k, u = _place(t, _HOUR_NS, _GRID_FIRST_DAY * 24, len(xys))
    day, f = _place(t, DAY_NS, eop_day0, len(eop))
    return _at(xys, k, u, 0) + _at(eop, day, f, 3), _at(xys, k, u, 1) + _at(eop, day, f, 4), _at(xys, k, u, 2)


@kernel
def _era_days(t: int, eop: F64, eop_day0: int) -> tuple[float, float]:
    """UT1: days since J2000.0, and the fraction of the day since noon without its loss of digits."""
    day, f = _place(t, DAY_NS, eop_day0, len(eop))
    ut1 = _at(eop, day, f, 0) / 86_400.0
    fraction = (t % DAY_NS) / DAY_NS + ut1
    return (t // DAY_NS) + (JD_1970 - 2_451_545.0) + fraction, fraction + 0.5


@kernel
def _gcrf_to_tirs(t: int, eop: F64, eop_day0: int, xys: F64, turn: float, m: F64) -> None:
    """R3(ERA - s - turn) times GCRF-to-intermediate (IERS Conventions 2010, eqs. 5.6, 5.10, 5.15)."""
    x, y, s = _cip(t, eop, eop_day0, xys)
    days, fraction = _era_days(t, eop, eop_day0)
    angle = 2.0 * np.pi * ((fraction + 0.7790572732640 + 0.00273781191135448 * days) % 1.0) - s - turn
    r2 = x * x + y * y
    z = np.sqrt(1.0 - r2)
    a = 1.0 / (1.0 + z)
    c, d = np.cos(angle), np.sin(angle)
    m00, m01, m02 = 1.0 - a * x * x, -a * x * y, -x
    m11, m12 = 1.0 - a * y * y, -y
    m[0, 0], m[0, 1], m[0, 2] = c * m00 + d * m01, c * m01 + d * m11, c * m02 + d * m12
    m[1, 0], m[1, 1], m[1, 2] = c * m01 - d * m00, c * m11 - d * m01, c * m12 - d * m02
    m[2, 0], m[2, 1], m[2, 2] = x, y, z


@kernel
def _gcrf_to_itrf(t: I64, eop: F64, eop_day0: int, xys: F64, out: F64) -> None:
    m = np.empty((3, 3))
    for i in range(len(t)):
        _gcrf_to_tirs(t[i], eop, eop_day0, xys, 0.0, m)
        day, f = _place(t[i], DAY_NS, eop_day0, len(eop))
        xp, yp = _at(eop, day, f, 1), _at(eop, day, f, 2)
        centuries = (t[i] / DAY_NS + (JD_1970 - 2_451_545.0)) / 36_525.0
        sp = -47e-6 * _ARCSEC * centuries
        cx, sx, cy, sy, cs, ss = np.cos(xp), np.sin(xp), np.cos(yp), np.sin(yp), np.cos(sp), np.sin(sp)
        for j in range(3):
            # R1(-yp) R2(-xp) R3(sp): IERS Conventions 2010, eq. 5.3, transposed.
            a, b, c = cs * m[0, j] + ss * m[1, j], cs * m[1, j] - ss * m[0, j], m[2, j]
            a, c = cx * a + sx * c, cx * c - sx * a
            out[i, 0, j] = a
            out[i, 1, j] = cy * b - sy * c
            out[i, 2, j] = sy * b + cy * c


@kernel
def _teme_to_gcrf(t: I64, eop: F64, eop_day0: int, xys: F64, out: F64) -> None:
    m = np.empty((3, 3))
    for i in range(len(t)):
        days, fraction = _era_days(t[i], eop, eop_day0)
        c = days / 36_525.0
        # Sidereal time of 1982 (Aoki et al.), the whole turns left out.
        gmst_s = 67_310.54841 + (8_640_184.812866 + (0.093104 - 6.2e-6 * c) * c) * c
        gmst = 2.0 * np.pi * ((fraction + gmst_s / 86_400.0) % 1.0)
        _gcrf_to_tirs(t[i], eop, eop_day0, xys, gmst, m)
        for j in range(3):
            for k in range(3):
                out[i, j, k] = m[k, j]


@kernel
def _pole(t: I64, eop: F64, eop_day0: int, xys: F64, out: F64) -> None:
    for i in range(len(t)):
        x, y, _ = _cip(t[i], eop, eop_day0, xys)
        out[i, 0], out[i, 1], out[i, 2] = x, y, np.sqrt(1.0 - x * x - y * y)


@kernel
def _ut1(t: I64, eop: F64, eop_day0: int, out: F64) -> None:
    for i in range(len(t)):
        day, f = _place(t[i], DAY_NS, eop_day0, len(eop))
        out[i] = _at(eop, day, f, 0)
