"""What the air does to what an emulated sensor sees: from where an object is to where it seems to be.

Rays in layers that lie on a sphere keep n r cos(elevation) (Bouguer; Born & Wolf, Principles of Optics, section
3.2). So the angle at the Earth's centre and the optical path to a height are integrals over height, done here by
Gauss-Legendre quadrature in its square root (which has no pole at the horizon). The elevation at which the ray to an
object arrives is found by iteration. The node goes the other way, by steps along the ray.

The air is the one that the node assumes where told nothing: hydrostatic, 6.5 K/km colder up to 11 km above the sea and
equally cold above, water vapour falling by e in 2 km (Hohenkerk & Sinclair, NAO Technical Note 63, 1985; ITU-R P.453,
P.835; light: IAG resolution 3 of 1999 at 0.575 micrometres).
"""

from __future__ import annotations

import numpy as np

from fusionnode_hil.config import SiteConfig
from fusionnode_hil.times import FloatArray

_TOP_M = 90_000.0
_LOWEST = np.radians(-0.5)
"""Objects lower than this stay where they are: nobody looks there."""
_KELVIN_PER_M = 6.5e-3
_EXPONENT = 34.1631947 / 6.5
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


class Air:
    """The air over a site, for radio waves or for light."""

    def __init__(self, site: SiteConfig, *, radio: bool) -> None:
        h, lat = site.height_m, np.radians(site.lat_deg)
        usual = 288.15 - _KELVIN_PER_M * h
        t = usual if site.temperature_c is None else 273.15 + site.temperature_c
        p = site.pressure_hpa or 1013.25 * (usual / 288.15) ** _EXPONENT
        if site.humidity is None:
            e = 7.5 * np.exp(-h / 2e3) * t / 216.7
        else:
            c = t - 273.15
            enhancement = 1.0 + 1e-4 * (7.2 + p * (0.0320 + 5.9e-6 * c**2))
            e = site.humidity * enhancement * 6.1121 * np.exp((18.678 - c / 234.5) * c / (c + 257.14))
        if radio:
            self._dry, self._wet = 77.6e-6 * p / t, (-5.6e-6 + 0.375 / t) * e / t
        else:
            standard = 287.6155 + 1.62887 / 0.575**2 + 0.01360 / 0.575**4
            self._dry, self._wet = 1e-6 * standard * (p / 1013.25) * (273.15 / t), -11.27e-6 * e / t
        self._t = t
        self._bend = max(11_000.0 - h, 0.0)
        self._cold = t - _KELVIN_PER_M * self._bend
        a, f = 6_378_137.0, 1.0 / 298.257223563
        e2 = f * (2.0 - f)
        self._r0 = a * np.sqrt(1.0 - e2) / (1.0 - e2 * np.sin(lat) ** 2) + h

    def excess(self, height: FloatArray) -> FloatArray:
        """n - 1 at heights above the site, m; nothing above 90 km."""
        low = np.minimum(height, self._bend)
        dry = self._dry * (1.0 - _KELVIN_PER_M * low / self._t) ** (_EXPONENT - 1.0)
        high = np.maximum(height - self._bend, 0.0)
        dry = dry * np.exp(-high * 34.1631947e-3 / self._cold)
        return np.where(height < _TOP_M, dry + self._wet * np.exp(-height / 2e3), 0.0)

    def seen(self, range_m: FloatArray, elevation: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Optical path, elevation at which the ray comes in, and elevation (in the site's horizon) of the ray where the
        object is; of objects at ``range_m`` and ``elevation``, all of one shape.
        """
        shape = np.shape(range_m)
        rho, el = np.ravel(range_m), np.ravel(elevation)
        path, apparent, ray = rho.copy(), el.copy(), el.copy()
        rows = np.flatnonzero(np.isfinite(rho) & (el > _LOWEST))
        if len(rows):
            path[rows], apparent[rows], ray[rows] = self._solve(rho[rows], el[rows])
        return path.reshape(shape), apparent.reshape(shape), ray.reshape(shape)

    def star(self, apparent: FloatArray) -> FloatArray:
        """Elevation outside of the air of rays that come in at ``apparent``."""
        flat = np.ravel(apparent)
        angle, _, local = self._integrals(flat, np.full(len(flat), self._r0 + 1e9))
        return np.asarray(local - angle).reshape(np.shape(apparent))

    def _solve(self, rho: FloatArray, el: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        x, y = rho * np.cos(el), self._r0 + rho * np.sin(el)
        r = np.hypot(x, y)
        apparent = np.maximum(el, 1e-6)
        for _ in range(30):
            angle, path, local = self._integrals(apparent, r)
            found = np.arctan2(r * np.cos(angle) - self._r0, r * np.sin(angle))
            step = el - found
            apparent = np.maximum(apparent + step, 1e-6)
            if np.max(np.abs(step)) < 1e-12:
                break
        return path, apparent, local - angle

    def _integrals(self, apparent: FloatArray, r: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Angle at the Earth's centre, optical path, and elevation over the local horizon at radius ``r``."""
        bouguer = (1.0 + self.excess(np.zeros(1))[0]) * self._r0 * np.cos(apparent)
        height = r - self._r0
        angle, path = np.zeros_like(r), np.zeros_like(r)
        start = np.zeros_like(r)
        for edge in (2_000.0, self._bend, 30_000.0, _TOP_M):
            end = np.clip(edge, start, np.maximum(height, 0.0))
            w0, w1 = np.sqrt(start), np.sqrt(end)
            w = 0.5 * (w0 + w1) + 0.5 * (w1 - w0) * _NODES[:, None]
            h = w * w
            n = 1.0 + self.excess(h)
            across = bouguer / (n * (self._r0 + h))
            sine = np.sqrt(np.maximum((1.0 - across) * (1.0 + across), 1e-300))
            dh = 2.0 * w * 0.5 * (w1 - w0) * _WEIGHTS[:, None]
            angle += np.sum(dh * across / (sine * (self._r0 + h)), axis=0)
            path += np.sum(dh * n / sine, axis=0)
            start = end
        # beyond, and for objects within the air nothing more: straight
        r_top = self._r0 + np.maximum(start, 0.0)
        n_end = 1.0 + np.where(height < _TOP_M, self.excess(height), 0.0)
        local_top = np.arccos(np.clip(bouguer / r_top, -1.0, 1.0))
        beyond = height >= _TOP_M
        local = np.where(beyond, np.arccos(np.clip(bouguer / r, -1.0, 1.0)),
                         np.arccos(np.clip(bouguer / (n_end * r), -1.0, 1.0)))  # fmt: skip
        rest = np.sqrt(np.maximum(r**2 - bouguer**2, 0.0)) - np.sqrt(np.maximum(r_top**2 - bouguer**2, 0.0))
        angle = np.where(beyond, angle + local - local_top, angle)
        path = np.where(beyond, path + rest, path)
        return angle, path, local
