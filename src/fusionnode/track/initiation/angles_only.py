"""Orbits from directions alone: first guesses by Gauss and by Gooding, then least squares over the whole tracklet.

Gauss's method starts from nothing but is off by kilometres even on perfect data; Gooding's is exact (for two-body
motion) but wants the ranges guessed. Both only begin what least squares with the tracker's dynamics ends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import Channel, StructArray
from fusionnode.track.filtering.sensing import COLUMNS, LIGHT_M_S
from fusionnode.track.initiation.angles_fit import fit_directions
from fusionnode.track.initiation.gooding import vary_ranges
from fusionnode.track.motion.dynamics import MU, RADIUS, Dynamics
from fusionnode.track.motion.kepler import kepler, lambert

F64 = npt.NDArray[np.float64]

LEAST_PERIGEE_M = RADIUS + 80_000.0
MOST_RANGE_M = 1.0e8
SAME_ORBIT = 1e-3
"""Two solutions whose places differ by less than this, relative to their range, are one."""
RANGE_KNOWN = 0.05
"""Largest sigma of the range, relative to it, with which a fit is an orbit: beyond it, the problem is not linear."""
CLEARLY_BETTER = 16.0
"""By how much a solution's chi-square has to be below all others' to be the only one."""
FIT_LIMIT = 3.0
"""Largest accepted mean square of the normalised residuals."""
MOST_POINTS = 24
"""A tracklet is thinned to so many measurements for the search of solutions; the last fit is over all of it."""
_GUESSES_M = (3e5, 5e5, 8e5, 1.2e6, 2e6, 3.5e6, 7e6, 1.4e7, 2.2e7, 3.6e7, 4.2e7)


class Orbit(NamedTuple):
    """An orbit through a tracklet at the time of its last measurement."""

    x: F64  # (6,) m, m/s, GCRF
    P: F64  # (6, 6)
    chi2: float
    dof: int
    range_m: float
    range_sigma_m: float

    @property
    def known(self) -> bool:
        """Whether the arc determines it, so that its covariance means what it says."""
        return self.range_sigma_m <= RANGE_KNOWN * self.range_m


def is_possible(x: F64) -> bool:
    """Whether a state is of a closed orbit that stays above the atmosphere's bottom."""
    r, v = x[:3], x[3:]
    d = float(np.linalg.norm(r))
    alpha = 2.0 / d - float(v @ v) / MU
    if not (np.isfinite(d) and alpha > 0.0):
        return False
    h = np.cross(r, v)
    e2 = max(1.0 - alpha * float(h @ h) / MU, 0.0)
    return (1.0 - np.sqrt(e2)) / alpha > LEAST_PERIGEE_M


def thinned(tracklet: StructArray, most: int) -> StructArray:
    """At most ``most`` of the measurements, evenly over the tracklet, the first and the last among them."""
    if len(tracklet) <= most:
        return tracklet
    return tracklet[np.unique(np.linspace(0, len(tracklet) - 1, most).round().astype(np.int64))]


def refine(tracklet: StructArray, x: F64, W: F64, model: Dynamics, most: int = 40) -> Orbit | None:
    """Least squares through all of ``tracklet`` (MEASUREMENT[n]) from ``x`` (6,) at its last time on; None where it
    does not converge to a possible orbit.

    Residuals larger than they should be widen the covariance in proportion.
    """
    n = len(tracklet)
    z = np.ascontiguousarray(tracklet).view(np.float64).reshape(n, COLUMNS)
    t = np.ascontiguousarray(tracklet["t_meas_ns"])
    channels = np.ascontiguousarray(tracklet["channels"])
    x, P = x.copy(), np.zeros(36)
    keep = np.ones((n, 4), np.bool_)
    good, chi2, count = fit_directions(W, z, t, channels, keep, n, t[-1], model, most, x, P)
    if not good or not is_possible(x):
        return None
    cov = P.reshape(6, 6)
    dof = int(count) - 6
    if dof > 0:
        cov = cov * max(1.0, chi2 / dof)
    rho = x[:3] - tracklet["site_r"][-1]
    distance = float(np.linalg.norm(rho))
    u = rho / distance
    return Orbit(x, cov, float(chi2), dof, distance, float(np.sqrt(max(u @ cov[:3, :3] @ u, 0.0))))


def three_of(tracklet: StructArray) -> StructArray:
    """The first, the last, and the one nearest to the middle of their times."""
    t = tracklet["t_meas_ns"]
    middle = t[0] + (t[-1] - t[0]) // 2
    k = 1 + int(np.argmin(np.abs(t[1:-1] - middle)))
    return tracklet[[0, k, len(tracklet) - 1]]


def gauss(three: StructArray) -> list[F64]:
    """States (6,) at the last of three measurements by Gauss's method (Vallado, Fundamentals of Astrodynamics and
    Applications, section 7.3.2), with the light time of each range taken off its time.

    Zero to three of them, one for each root of the equation of eighth degree that gives ranges in front.
    """
    t = (three["t_meas_ns"] - three["t_meas_ns"][1]) * 1e-9
    R, L = three["site_r"], three["los"]
    out: list[F64] = []
    for rho in _gauss_ranges(t, R, L):
        found: F64 | None = rho
        # the times at which the light left, then the same again
        for _ in range(3):
            assert found is not None
            late = t - three["target_delay"] * found / LIGHT_M_S
            again = _gauss_ranges(late - late[1], R, L)
            found = min(again, key=lambda other: abs(other[1] - rho[1]), default=None)
            if found is None:
                break
        if found is None:
            continue
        late = t - three["target_delay"] * found / LIGHT_M_S
        r = R + found[:, None] * L
        v1, v2 = np.zeros(3), np.zeros(3)
        if lambert(r[1], r[2], late[2] - late[1], v1, v2):
            out.append(
                _at_reception(np.concatenate([r[2], v2]), float(found[2]), float(three["target_delay"][2]))
            )
    return out


def _gauss_ranges(t: F64, R: F64, L: F64) -> list[F64]:
    """Ranges (3,), m, at times ``t`` (3,), s, the middle one 0: one for each root."""
    t1, t3 = float(t[0]), float(t[2])
    tau = t3 - t1
    try:
        M = np.linalg.inv(L.T) @ R.T
    except np.linalg.LinAlgError:
        return []
    a1, a3 = t3 / tau, -t1 / tau
    a1u, a3u = t3 * (tau**2 - t3**2) / (6.0 * tau), -t1 * (tau**2 - t1**2) / (6.0 * tau)
    d1 = M[1, 0] * a1 - M[1, 1] + M[1, 2] * a3
    d2 = M[1, 0] * a1u + M[1, 2] * a3u
    C = float(L[1] @ R[1])
    # in units of the Earth's radius, for the sake of the eighth power
    q, m = RADIUS, MU / RADIUS**3
    e1, e2, c, R2 = d1 / q, d2, C / q, float(R[1] @ R[1]) / q**2
    e2 /= q
    coefficients = [
        1,
        0,
        -(e1**2 + 2 * c * e1 + R2),
        0,
        0,
        -2 * m * (c * e2 + e1 * e2),
        0,
        0,
        -((m * e2) ** 2),
    ]
    if not np.isfinite(coefficients).all():
        return []
    out = []
    for root in np.roots(coefficients):
        if abs(root.imag) > 1e-8 or root.real < 0.5:
            continue
        u = m / root.real**3
        c1, c3 = a1 + a1u * u, a3 + a3u * u
        if c1 == 0.0 or c3 == 0.0:
            continue
        rho = M @ np.array([-c1, 1.0, -c3]) / np.array([c1, -1.0, c3])
        if (rho > 0.0).all() and (rho < MOST_RANGE_M).all():
            out.append(rho)
    return out


def _at_reception(x: F64, range_m: float, delay: float) -> F64:
    """The state one light time later, if the target was seen that much earlier."""
    out = np.zeros(6)
    kepler(x, delay * range_m / LIGHT_M_S, out)
    return out


def gooding(three: StructArray, ranges_m: tuple[float, float]) -> F64 | None:
    """State (6,) at the last of three measurements such that the orbit passes through all three directions; from
    guesses ``ranges_m`` of the ranges at the first and the last. None if it does not converge (`gooding.vary_ranges`).
    """
    x = np.zeros(6)
    found = vary_ranges(
        (three["t_meas_ns"] - three["t_meas_ns"][0]) * 1e-9,
        np.ascontiguousarray(three["site_r"]),
        np.ascontiguousarray(three["los"]),
        np.array([three["e_lon"][1], three["e_lat"][1]]),
        three["target_delay"] / LIGHT_M_S,
        np.log(np.array(ranges_m, np.float64)),
        np.log(MOST_RANGE_M),
        x,
    )
    return x if found else None


def solutions(tracklet: StructArray, W: F64, model: Dynamics, more: tuple[F64, ...] = ()) -> list[Orbit]:
    """Orbits through a tracklet of at least three directions, MEASUREMENT[n] in time order, the best first.

    Different ones where the data allow them; none where they allow none, or where the arc is too short for any.
    ``more``: further first guesses, states (6,) at the time of the last measurement.
    """
    if len(tracklet) < 3 or not (tracklet["channels"] & Channel.ANGLES).all():
        return []
    three = three_of(tracklet)
    if not (np.diff(three["t_meas_ns"]) > 0).all():
        return []
    guesses = [*gauss(three), *more]
    for a in _GUESSES_M:
        found = gooding(three, (a, a))
        if found is not None and is_possible(found):
            guesses.append(found)
    few = thinned(tracklet, MOST_POINTS)
    out: list[Orbit] = []
    starts: list[F64] = []
    for guess in guesses:
        if any(_same(guess, other, tracklet) for other in starts):
            continue
        starts.append(guess)
        orbit = refine(few, guess, W, model)
        if orbit is None or any(_same(orbit.x, other.x, tracklet) for other in out):
            continue
        out.append(orbit)
    out.sort(key=lambda orbit: orbit.chi2)
    if len(few) < len(tracklet):
        again = [refine(tracklet, orbit.x, W, model) for orbit in out]
        out = sorted((o for o in again if o is not None), key=lambda orbit: orbit.chi2)
    return out


def _same(a: F64, b: F64, tracklet: StructArray) -> bool:
    reach = SAME_ORBIT * float(np.linalg.norm(a[:3] - tracklet["site_r"][-1]))
    return float(np.linalg.norm(a[:3] - b[:3])) < reach


def the_one(orbits: list[Orbit]) -> Orbit | None:
    """The orbit, if the data leave one: determined by the arc, in agreement with it, and clearly the best."""
    if not orbits:
        return None
    best = orbits[0]
    fits = best.dof <= 0 or best.chi2 <= FIT_LIMIT * best.dof
    alone = len(orbits) == 1 or orbits[1].chi2 - best.chi2 > CLEARLY_BETTER
    return best if fits and alone and best.known else None
