"""The rotating Earth: GCRF, ITRF and TEME by pyerfa, sites and their horizons.

Independent of the node's own frames, so that emulated truth can serve as their oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import astropy_iers_data
import erfa
import numpy as np

from fusionnode_hil.times import (
    DAY_NS,
    TT_MINUS_TAI_NS,
    FloatArray,
    IntArray,
    julian,
    tai_minus_utc_ns,
)

OMEGA = np.array([0.0, 0.0, 7.292115146706979e-5])
"""Earth's rotation about its pole, rad/s (IERS Conventions 2010, table 1.2); length of day held constant."""

_ARCSEC = np.pi / 648_000.0
_MJD_1970 = 40_587


class Orientation(NamedTuple):
    """Rotation matrices at T times; each turns vectors of the second frame named into the first."""

    itrf_gcrf: FloatArray  # (T, 3, 3)
    gcrf_teme: FloatArray  # (T, 3, 3)
    spin_itrf: FloatArray  # (T, 3) rad/s, about the celestial intermediate pole


class EarthOrientation:
    """Earth orientation parameters and the matrices they give. Outside the table the nearest day serves."""

    def __init__(self, table: FloatArray) -> None:
        """``table`` is (n, 6): MJD UTC, x_p, y_p (arcsec), UT1-UTC (s), dX, dY (milliarcsec)."""
        self._mjd = table[:, 0]
        day_ns = ((self._mjd - _MJD_1970) * DAY_NS).astype(np.int64)
        # UT1-TAI has no steps at leap seconds, so it can be interpolated
        tai_minus_utc = tai_minus_utc_ns(day_ns + 60_000_000_000) / 1e9
        self._columns = np.column_stack(
            [
                table[:, 1] * _ARCSEC,
                table[:, 2] * _ARCSEC,
                table[:, 3] - tai_minus_utc,
                table[:, 4] * _ARCSEC * 1e-3,
                table[:, 5] * _ARCSEC * 1e-3,
            ]
        )

    def at(self, t_ns: IntArray) -> Orientation:
        """Matrices at TAI times (T,): IAU 2006/2000A with CIO, polar motion, dX and dY.

        TEME is turned by the 1982 mean sidereal time into the pseudo Earth-fixed frame (Vallado,
        Fundamentals of Astrodynamics and Applications, 4th ed., sec. 3.7.3), then by polar motion into ITRF.
        """
        t_ns = np.asarray(t_ns, np.int64)
        utc_days = (t_ns - tai_minus_utc_ns(t_ns)) / DAY_NS + _MJD_1970
        xp, yp, ut1_tai, dx, dy = (np.interp(utc_days, self._mjd, column) for column in self._columns.T)
        tt = julian(t_ns, TT_MINUS_TAI_NS)
        ut1 = julian(t_ns, np.rint(ut1_tai * 1e9).astype(np.int64))
        x, y, s = erfa.xys06a(*tt)
        celestial = erfa.c2ixys(x + dx, y + dy, s)
        polar = erfa.pom00(xp, yp, erfa.sp00(*tt))
        itrf_gcrf = polar @ _rotation_z(erfa.era00(*ut1)) @ celestial
        itrf_teme = polar @ _rotation_z(erfa.gmst82(*ut1))
        return Orientation(itrf_gcrf, np.swapaxes(itrf_gcrf, -1, -2) @ itrf_teme, rotate(polar, OMEGA))


@cache
def bundled_orientation() -> EarthOrientation:
    """From the finals2000A table that ships in astropy-iers-data."""
    return EarthOrientation(read_finals2000a(Path(astropy_iers_data.IERS_A_FILE)))


def read_finals2000a(path: Path) -> FloatArray:
    """Table for `EarthOrientation` from an IERS finals2000A file: Bulletin A, columns as in its readme."""
    rows = []
    for line in path.read_text(encoding="ascii").splitlines():
        if not line[58:68].strip():
            continue  # days beyond the prediction
        fields = (line[7:15], line[18:27], line[37:46], line[58:68], line[97:106], line[116:125])
        rows.append([float(field) if field.strip() else 0.0 for field in fields])
    return np.array(rows)


def gcrf_from_itrf(itrf_gcrf: FloatArray, state: FloatArray, spin: FloatArray = OMEGA) -> FloatArray:
    """Position and velocity (..., T, 6) from ITRF to GCRF, m and m/s.

    ``spin`` (T, 3): the axis Earth turns about, rad/s; polar motion is worth 0.7 mm/s in a low orbit.
    """
    r, v = state[..., :3], state[..., 3:]
    v = v + np.cross(spin, r)
    back = np.swapaxes(itrf_gcrf, -1, -2)
    return np.concatenate([rotate(back, r), rotate(back, v)], axis=-1)


def rotate(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """``matrix`` (..., 3, 3) applied to ``vector`` (..., 3), broadcast."""
    turned: FloatArray = np.einsum("...ij,...j->...i", matrix, vector)
    return turned


def unit(vector: FloatArray) -> FloatArray:
    """Unit vectors along the last axis."""
    return np.asarray(vector / np.linalg.norm(vector, axis=-1, keepdims=True))


def lon_lat(vector: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Longitude 0..2 pi and latitude of vectors (..., 3), rad."""
    lon = np.arctan2(vector[..., 1], vector[..., 0]) % (2.0 * np.pi)
    return lon, np.arctan2(vector[..., 2], np.hypot(vector[..., 0], vector[..., 1]))


def from_lon_lat(lon: FloatArray, lat: FloatArray) -> FloatArray:
    """Unit vectors (..., 3) of longitude and latitude, rad."""
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


@dataclass(frozen=True)
class Place:
    """A site on WGS 84: position in ITRF (3,) and the rows north, east, up of its horizon (3, 3).

    Azimuth from north towards east is then the longitude of a vector in these axes, elevation its latitude.
    """

    itrf: FloatArray
    horizon: FloatArray

    @classmethod
    def geodetic(cls, lat_deg: float, lon_deg: float, height_m: float) -> Place:
        """From WGS 84 geodetic coordinates."""
        lat, lon = np.radians(lat_deg), np.radians(lon_deg)
        up = from_lon_lat(lon, lat)
        east = np.array([-np.sin(lon), np.cos(lon), 0.0])
        return cls(erfa.gd2gc(1, lon, lat, height_m), np.stack([np.cross(up, east), east, up]))

    def gcrf(self, itrf_gcrf: FloatArray) -> FloatArray:
        """The site's position and velocity (T, 6) in GCRF at T orientations, m and m/s."""
        state = np.broadcast_to(np.concatenate([self.itrf, np.zeros(3)]), (*itrf_gcrf.shape[:-2], 6))
        return gcrf_from_itrf(itrf_gcrf, state)


def _rotation_z(angle: FloatArray) -> FloatArray:
    c, s, z = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.stack([c, s, z, -s, c, z, z, z, z + 1.0], axis=-1).reshape(*angle.shape, 3, 3)
