"""A field of view in numbers: which directions are in it, and random ones from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode_hil.config import FieldOfView
from fusionnode_hil.earth import from_lon_lat, lon_lat
from fusionnode_hil.times import FloatArray

TURN = 2.0 * np.pi


class SkyField:
    """`FieldOfView`, ready for arrays of directions (azimuth, elevation), rad."""

    def __init__(self, config: FieldOfView) -> None:
        self._low, self._high = np.radians([config.min_elevation_deg, config.max_elevation_deg])
        self._from = np.radians(config.azimuth_from_deg)
        width = config.azimuth_to_deg - config.azimuth_from_deg
        self._width = TURN if abs(width) >= 360.0 else np.radians(width % 360.0)
        self._axes: FloatArray | None = None  # rows: two across, then the boresight
        self._cosine = -1.0
        az, el, half = config.boresight_azimuth_deg, config.boresight_elevation_deg, config.half_angle_deg
        if az is not None and el is not None and half is not None:
            lon, lat = np.radians(az), np.radians(el)
            across = np.array([-np.sin(lon), np.cos(lon), 0.0])
            axis = from_lon_lat(lon, lat)
            self._axes = np.stack([across, np.cross(axis, across), axis])
            self._cosine = float(np.cos(np.radians(half)))

    def contains(self, az: FloatArray, el: FloatArray) -> npt.NDArray[np.bool_]:
        """Which directions are inside; NaN is outside."""
        inside = (el >= self._low) & (el <= self._high) & ((az - self._from) % TURN <= self._width)
        if self._axes is not None:
            inside &= from_lon_lat(az, el) @ self._axes[2] >= self._cosine
        return np.asarray(inside)

    def sample(self, rng: np.random.Generator, n: int) -> tuple[FloatArray, FloatArray]:
        """``n`` directions uniform over the field; fewer only if cone and mask hardly overlap."""
        az, el = np.empty(0), np.empty(0)
        for _ in range(64):
            if len(az) >= n:
                break
            turn, height = rng.random(4 * n), rng.random(4 * n)
            if self._axes is None:
                a = (self._from + self._width * turn) % TURN
                e = np.arcsin(np.sin(self._low) + (np.sin(self._high) - np.sin(self._low)) * height)
            else:
                z = self._cosine + (1.0 - self._cosine) * height
                a, e = lon_lat(from_lon_lat(TURN * turn, np.arcsin(z)) @ self._axes)
            inside = self.contains(a, e)
            az, el = np.concatenate([az, a[inside]]), np.concatenate([el, e[inside]])
        return az[:n], el[:n]
