"""Known objects by SGP4: where they are, priors for a track's start, and the name of a track.

A row is an object. Where a catalogue has several element sets of one object, the one nearest in time is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sgp4.api import SatrecArray

from fusionnode.catalogue.correlate import (
    NOBODY,
    Correlation,
    Direction,
    log_likelihood,
    posterior,
    seen_from,
    sky_density,
    state_density,
)
from fusionnode.catalogue.elements import Elements, ElementSet, load
from fusionnode.core.kernels import kernel
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.timescales import DAY_NS, SECOND_NS, tai_minus_utc_s, uniform_jd
from fusionnode.core.types import KnownObject

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
BOOL = npt.NDArray[np.bool_]

GM_M3_S2: Final = 3.986004418e14
GRID_NS: Final = 60 * SECOND_NS
MAX_CANDIDATES: Final = 64
"""Objects that one correlation looks at closely, the nearest first."""
REACH_SIGMAS: Final = 6.0
LIGHT_M_S: Final = 299_792_458.0

_CACHED = 4
_COARSE_ERROR_M: Final = 200.0
_FOREVER: Final = 1 << 62


class KnownObjects:
    """A catalogue at work. States are GCRF, SI; times are TAI ns. Not thread-safe: it caches.

    ``sigma_*_m`` are of an element set at its epoch, along-track growing with the days away from it. ``new_ratio``:
    objects that sensors see and the catalogue does not have, for each that it has.
    """

    def __init__(
        self,
        catalogue: Iterable[Elements | ElementSet],
        orientation: EarthOrientation,
        *,
        sigma_radial_m: float = 1_000.0,
        sigma_along_m: float = 3_000.0,
        sigma_cross_m: float = 1_000.0,
        sigma_along_growth_m_per_day: float = 3_000.0,
        max_age_days: float = 30.0,
        new_ratio: float = 0.05,
    ) -> None:
        self._orientation = orientation
        self._sigma = (sigma_radial_m, sigma_along_m, sigma_cross_m, sigma_along_growth_m_per_day)
        self._new_ratio = new_ratio
        self._max_age_ns = round(max_age_days * DAY_NS)
        digest = hashlib.sha256()
        sets: list[ElementSet] = []
        self.n_bad: int = 0
        """Entries of the files that could not be used."""
        for part in catalogue:
            if isinstance(part, Elements):
                digest.update(part.sha256.encode())
                sets.extend(part.sets)
                self.n_bad += part.n_bad
            else:
                digest.update(f"{part.sat_no} {part.epoch_ns}".encode())
                sets.append(part)
        self.sha256: str = digest.hexdigest()
        """Of all inputs, in their order."""
        # By object, then epoch; of several with the same epoch the last one read wins.
        unique = {(s.sat_no, s.epoch_ns): s for s in sets}
        self._sets: list[ElementSet] = [unique[key] for key in sorted(unique)]
        numbers = np.array([s.sat_no for s in self._sets], np.int64)
        self._epoch_ns: I64 = np.array([s.epoch_ns for s in self._sets], np.int64)
        self.sat_no: I64
        """Catalogue numbers by row, ascending."""
        self.sat_no, self._first = np.unique(numbers, return_index=True)
        self._from_ns, self._to_ns = _reigns(numbers, self._epoch_ns)
        self._offset_s: I64 = np.asarray(tai_minus_utc_s(self._epoch_ns), np.int64)
        self._active: I64 = np.zeros(0, np.int64)
        self._groups: list[tuple[I64, Any, int]] = []
        self._grid: dict[int, tuple[F64, F64]] = {}

    @classmethod
    def from_files(
        cls, files: Sequence[str | Path], orientation: EarthOrientation, **options: float
    ) -> KnownObjects:
        """Of TLE and OMM files.

        Raises:
            ValueError: one line naming the file that cannot be used.
        """
        return cls([load(path) for path in files], orientation, **options)

    def __len__(self) -> int:
        return len(self.sat_no)

    def too_old(self, t_ns: int) -> int:
        """How many objects have no element set young enough at ``t_ns``."""
        young = np.abs(t_ns - self._epoch_ns) <= self._max_age_ns
        return int(np.count_nonzero(~np.logical_or.reduceat(young, self._first))) if len(young) else 0

    def object(self, row: int) -> KnownObject:
        """What the object is called."""
        known = self._sets[self._first[row]]
        return KnownObject(known.sat_no, known.name, known.international_designator)

    def states(self, t_ns: int) -> tuple[F64, F64, BOOL]:
        """Positions [n, 3], velocities [n, 3], and which rows are good; rows SGP4 refuses are nan.

        Coarse, for selection: SGP4 on a grid of one minute, a two-body series in between, off by
        metres, near a low perigee by tens of metres.
        """
        r, v = self._on_grid(t_ns)
        out_r, out_v = np.empty_like(r), np.empty_like(v)
        _series(r, v, (t_ns - _grid_time(t_ns)) / SECOND_NS, out_r, out_v)
        return out_r, out_v, np.isfinite(out_r[:, 0])

    def near(
        self,
        los: F64,
        site_r: F64,
        t_ns: int,
        cone_rad: float,
        range_m: float | None = None,
        range_tolerance_m: float = 50_000.0,
    ) -> I64:
        """Rows of objects within ``cone_rad`` of the direction ``los`` [3] from ``site_r`` [3], nearest first.

        With ``range_m``, only those within the tolerance of that distance.
        """
        r, v = self._on_grid(t_ns)
        angle = np.empty(len(r))
        _angles(
            r,
            v,
            (t_ns - _grid_time(t_ns)) / SECOND_NS,
            np.array(los, np.float64),
            np.array(site_r, np.float64),
            -1.0 if range_m is None else range_m,
            range_tolerance_m,
            np.cos(min(cone_rad, np.pi)),
            angle,
        )
        rows = np.flatnonzero(angle <= cone_rad)
        return rows[np.argsort(angle[rows], kind="stable")]

    def exact(self, row: int, t_ns: int) -> F64 | None:
        """State [6] of one object by SGP4 at ``t_ns`` itself; None where there is none."""
        chosen = self._set_at(row, t_ns)
        known = self._sets[chosen]
        if abs(t_ns - known.epoch_ns) > self._max_age_ns:
            return None
        error, r, v = known.satrec.sgp4(*uniform_jd(t_ns, int(self._offset_s[chosen])))
        if error:
            return None
        to_gcrf = self._orientation.teme_to_gcrf(np.array([t_ns]))[0]
        x = np.concatenate((to_gcrf @ r, to_gcrf @ v)) * 1_000.0
        return x if np.isfinite(x).all() else None

    def prior(self, row: int, t_ns: int) -> tuple[F64, F64] | None:
        """State [6] and covariance [6, 6] of one object at ``t_ns``; None where SGP4 has none.

        The along-track error is one of time: it moves the state along its path, velocity included. Radial and
        cross-track errors are independent of it, each with a velocity of the orbit's angular rate times itself.

        The velocity is the rate of change of SGP4's positions. The one that SGP4 gives leaves the secular and
        long-period rates out: 2 m/s of a transfer orbit with drag, which a track would never recover from.
        """
        x = self.exact(row, t_ns)
        before, after = self.exact(row, t_ns - SECOND_NS), self.exact(row, t_ns + SECOND_NS)
        if x is None or before is None or after is None:
            return None
        x[3:] = (after[:3] - before[:3]) / 2.0
        radial, along, cross, growth = self._sigma
        age_days = abs(t_ns - int(self._epoch_ns[self._set_at(row, t_ns)])) / DAY_NS
        r, v = x[:3], x[3:]
        distance, speed = np.linalg.norm(r), np.linalg.norm(v)
        h = np.cross(r, v)
        rate = np.linalg.norm(h) / distance**2
        n = h / np.linalg.norm(h)
        rtn = np.array([r / distance, np.cross(n, r / distance), n])
        P = np.zeros((6, 6))
        P[:3, :3] = (rtn.T * np.array([radial, 0.0, cross]) ** 2) @ rtn
        P[3:, 3:] = (rtn.T * (rate * np.array([radial, radial, cross])) ** 2) @ rtn
        moved = np.concatenate((v, -GM_M3_S2 * r / distance**3)) * ((along + growth * age_days) / speed)
        P += np.outer(moved, moved)
        return x, P

    def correlate(self, x: F64, P: F64, t_ns: int) -> Correlation:
        """Which objects a track of state ``x`` [6] and covariance ``P`` [6, 6] may be, and how probably.

        Candidates are the `MAX_CANDIDATES` nearest in place that are within reach of both covariances; new objects are
        as dense as the catalogue's around the state, times ``new_ratio``.
        """
        r, v, good = self.states(t_ns)
        if not good.any() or not (np.isfinite(x).all() and np.isfinite(P).all()):
            return NOBODY
        distance = np.linalg.norm(r - x[:3], axis=1)
        radial, along, cross, growth = self._sigma
        age_days = np.abs(t_ns - self._epoch_ns[self._active]) / DAY_NS
        variance = np.trace(P[:3, :3]) + radial**2 + cross**2 + (along + growth * age_days) ** 2
        rows = np.flatnonzero(distance <= REACH_SIGMAS * np.sqrt(variance) + _COARSE_ERROR_M)
        rows = rows[np.argsort(distance[rows], kind="stable")][:MAX_CANDIDATES]
        if len(rows) == 0:
            return NOBODY
        found: list[tuple[int, float, float]] = []
        for row in rows.tolist():
            prior = self.prior(row, t_ns)
            if prior is not None:
                found.append((row, *log_likelihood(x - prior[0], P, prior[1])))
        log_none = float(np.log(max(self._new_ratio * state_density(x, r, v), 1e-300)))
        return posterior([f[0] for f in found], [f[1] for f in found], [f[2] for f in found], log_none)

    def correlate_direction(self, direction: Direction, delay: float = 1.0) -> Correlation:
        """Which objects a tracklet of directions may be, and how probably. ``delay``: 1 if the objects were seen
        one light time before its time, 0 if at it.
        """
        r, v, good = self.states(direction.t_ns)
        if not good.any() or not (np.isfinite(direction.value).all() and np.isfinite(direction.cov).all()):
            return NOBODY
        d = r - direction.site_r
        rho = np.linalg.norm(d, axis=1)
        radial, along, cross, growth = self._sigma
        age_days = np.abs(direction.t_ns - self._epoch_ns[self._active]) / DAY_NS
        place = np.sqrt(radial**2 + cross**2 + (along + growth * age_days) ** 2)
        u = direction.axes[0]
        # the light time moves an object by its speed over the rest of its range: 2.6e-5 of it at most
        reach = (
            REACH_SIGMAS * (place + _COARSE_ERROR_M) / rho
            + 1e-4
            + REACH_SIGMAS * np.sqrt(direction.cov[0, 0])
        )
        with np.errstate(invalid="ignore"):
            cosine = (d @ u) / rho
            rows = np.flatnonzero(cosine >= np.cos(np.minimum(reach, 1.0)))
        rows = rows[np.argsort(-cosine[rows], kind="stable")][:MAX_CANDIDATES]
        if len(rows) == 0:
            return NOBODY
        measured = direction.value.T.reshape(4)
        own: F64 = np.kron(direction.cov, np.eye(2)).astype(np.float64)
        found: list[tuple[int, float, float]] = []
        for row in rows.tolist():
            prior = self.prior(row, direction.t_ns)
            if prior is None:
                continue
            light_s = delay * float(np.linalg.norm(prior[0][:3] - direction.site_r)) / LIGHT_M_S
            foretold, J = seen_from(direction, prior[0], light_s)
            found.append((row, *log_likelihood(measured - foretold, own, J @ prior[1] @ J.T)))
        log_none = float(np.log(max(self._new_ratio * sky_density(direction, r, v), 1e-300)))
        return posterior([f[0] for f in found], [f[1] for f in found], [f[2] for f in found], log_none)

    def _set_at(self, row: int, t_ns: int) -> int:
        first = int(self._first[row])
        while t_ns >= self._to_ns[first]:
            first += 1
        return first

    def _on_grid(self, t_ns: int) -> tuple[F64, F64]:
        """Positions and velocities [n, 3] at the nearest point of the grid."""
        at = _grid_time(t_ns)
        if at not in self._grid:
            while len(self._grid) >= _CACHED:
                del self._grid[next(iter(self._grid))]
            self._grid[at] = self._propagate(at)
        self._activate(at)
        return self._grid[at]

    def _activate(self, t_ns: int) -> None:
        """Choose each object's element set for ``t_ns``."""
        active = np.flatnonzero((self._from_ns <= t_ns) & (t_ns < self._to_ns))
        if np.array_equal(active, self._active):
            return
        self._active = active
        self._groups = []
        for offset in np.unique(self._offset_s[active]):
            rows = np.flatnonzero(self._offset_s[active] == offset)
            records = SatrecArray([self._sets[i].satrec for i in active[rows]])
            self._groups.append((rows, records, int(offset)))

    def _propagate(self, t_ns: int) -> tuple[F64, F64]:
        self._activate(t_ns)
        r, v = np.full((len(self), 3), np.nan), np.full((len(self), 3), np.nan)
        for rows, records, offset in self._groups:
            day, fraction = uniform_jd(t_ns, offset)
            error, r_km, v_km = records.sgp4(np.array([float(day)]), np.array([float(fraction)]))
            age = np.abs(t_ns - self._epoch_ns[self._active[rows]])
            good = (error[:, 0] == 0) & np.isfinite(r_km[:, 0, 0]) & (age <= self._max_age_ns)
            r[rows[good]], v[rows[good]] = r_km[good, 0] * 1_000.0, v_km[good, 0] * 1_000.0
        to_gcrf = self._orientation.teme_to_gcrf(np.array([t_ns]))[0]
        return r @ to_gcrf.T, v @ to_gcrf.T


def _grid_time(t_ns: int) -> int:
    return int(t_ns + GRID_NS // 2) // GRID_NS * GRID_NS


def _reigns(numbers: I64, epochs: I64) -> tuple[I64, I64]:
    """From and to which time each element set is the nearest of its object; sorted by number, then epoch."""
    begin, end = np.full(len(epochs), -_FOREVER), np.full(len(epochs), _FOREVER)
    follows = np.flatnonzero(numbers[1:] == numbers[:-1])
    middle = epochs[follows] + (epochs[follows + 1] - epochs[follows]) // 2
    end[follows], begin[follows + 1] = middle, middle
    return begin, end


@kernel
def _series(r: F64, v: F64, dt: float, out_r: F64, out_v: F64) -> None:
    """Two-body motion over ``dt`` seconds, to the third power of time."""
    for i in range(len(r)):
        c = _coefficients(r[i], v[i], dt)
        for j in range(3):
            out_r[i, j] = c[0] * r[i, j] + c[1] * v[i, j]
            out_v[i, j] = c[2] * r[i, j] + c[3] * v[i, j]


@kernel
def _coefficients(r: F64, v: F64, dt: float) -> tuple[float, float, float, float]:
    """Lagrange's f and g series and their rates: state = f r + g v."""
    d2 = r[0] * r[0] + r[1] * r[1] + r[2] * r[2]
    u = GM_M3_S2 / (d2 * np.sqrt(d2))
    p = (r[0] * v[0] + r[1] * v[1] + r[2] * v[2]) / d2
    t2 = dt * dt
    return (
        1.0 - u * t2 / 2.0 + u * p * t2 * dt / 2.0,
        dt - u * t2 * dt / 6.0,
        -u * dt + 1.5 * u * p * t2,
        1.0 - u * t2 / 2.0,
    )


@kernel
def _angles(
    r: F64,
    v: F64,
    dt: float,
    los: F64,
    site_r: F64,
    range_m: float,
    tolerance_m: float,
    cos_cone: float,
    out: F64,
) -> None:
    """Angle of each object from ``los``; infinity outside of the cone or not at ``range_m`` (if 0 or more)."""
    for i in range(len(r)):
        out[i] = np.inf
        f, g, _, _ = _coefficients(r[i], v[i], dt)
        x = f * r[i, 0] + g * v[i, 0] - site_r[0]
        y = f * r[i, 1] + g * v[i, 1] - site_r[1]
        z = f * r[i, 2] + g * v[i, 2] - site_r[2]
        d = np.sqrt(x * x + y * y + z * z)
        dot = x * los[0] + y * los[1] + z * los[2]
        if not dot >= d * (cos_cone - 1e-9) or (range_m >= 0.0 and abs(d - range_m) > tolerance_m):
            continue
        # atan2 of cross and dot: exact for small angles, where the arc cosine is not.
        cx, cy, cz = y * los[2] - z * los[1], z * los[0] - x * los[2], x * los[1] - y * los[0]
        out[i] = np.arctan2(np.sqrt(cx * cx + cy * cy + cz * cz), dot)
