"""How probable it is that a track, or a tracklet, is a certain known object, or none of those known.

Bayes' rule over the catalogued objects near it and one further hypothesis: that it is an object which the catalogue
does not have. How densely such objects lie around a state is taken from the catalogue itself: as its own objects do,
times the ratio of unknown to known ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

GM_M3_S2: Final = 3.986004418e14
TAILS: Final = ((0.85, 1.0), (0.15, 16.0))
"""Element sets are worse than they should be now and then: weight and factor of variance of two Gaussians."""
SHELL_M: Final = 50_000.0
SHELL_RATIO: Final = 0.01
"""Objects within this of a place's height, or this times its distance from the centre, count for its density."""
BAND: Final = 0.1
"""And within this of its sine of latitude."""
KERNEL_M_S: Final = 500.0
"""Sigma by which their velocities are smeared."""
UNIFORM: Final = 0.1
"""Share of unknown objects whose velocity is anything that stays bound."""
SKY_RAD: Final = 0.1
"""Objects within this of a direction are counted for the sky's density."""
RATE_FACTOR: Final = 0.5
"""Sigma by which their angular rates are smeared, times the rate."""


class Correlation(NamedTuple):
    """Who it may be: rows of the catalogue, the likeliest first, each with its probability and squared distance (of the
    prior's own covariance), and the probability that it is none of the catalogue's objects. Together they are 1.
    """

    rows: I64
    probability: F64
    d2: F64
    none: float

    def best(self) -> tuple[int, float] | None:
        """The likeliest object with its probability; None where there is no candidate."""
        return (int(self.rows[0]), float(self.probability[0])) if len(self.rows) else None

    def of(self, row: int) -> float:
        """The probability of one object."""
        return float(self.probability[self.rows == row].sum())


NOBODY = Correlation(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), 1.0)


def posterior(
    rows: Sequence[int], log_likelihood: Sequence[float], d2: Sequence[float], log_none: float
) -> Correlation:
    """Probabilities from ln of the likelihoods of candidates and of there being a new object, in the same units."""
    every = np.array([*log_likelihood, log_none])
    top = float(every.max())
    if not np.isfinite(top):
        return NOBODY
    weight = np.exp(every - top)
    share = weight / weight.sum()
    order = np.argsort(-share[:-1], kind="stable")
    return Correlation(
        np.array(rows, np.int64)[order], share[:-1][order], np.array(d2)[order], float(share[-1])
    )


def log_likelihood(d: F64, own: F64, prior: F64) -> tuple[float, float]:
    """ln of the density of the difference ``d`` (k,) between what has covariance ``own`` (k, k) and a prediction of
    covariance ``prior`` with heavy tails; and the squared distance. (-inf, inf) where a matrix is no covariance.
    """
    distance = np.inf
    logs = []
    for weight, factor in TAILS:
        S = own + factor * prior
        if not (np.diag(S) > 0.0).all():
            return -np.inf, np.inf
        scale = np.sqrt(np.diag(S))
        sign, log_det = np.linalg.slogdet(S / np.outer(scale, scale))
        if not sign > 0:
            return -np.inf, np.inf
        d2 = float((d / scale) @ np.linalg.solve(S / np.outer(scale, scale), d / scale))
        if not d2 >= 0.0:
            return -np.inf, np.inf
        if factor == 1.0:
            distance = d2
        log_det += 2.0 * float(np.log(scale).sum())
        logs.append(np.log(weight) - 0.5 * (d2 + log_det + len(d) * np.log(2.0 * np.pi)))
    top = max(logs)
    return float(top + np.log(sum(np.exp(one - top) for one in logs))), distance


def state_density(x: F64, r: F64, v: F64) -> float:
    """Objects per m^3 (m/s)^3 at the state ``x`` (6,), from the states ``r``, ``v`` (n, 3) of a catalogue (nan where
    there is none): those in a shell and a band of latitude, their velocities, in local axes, smeared.
    """
    d = float(np.linalg.norm(x[:3]))
    distance = np.sqrt(np.einsum("ij,ij->i", r, r))
    half = max(SHELL_M, SHELL_RATIO * d)
    sine = x[2] / d
    with np.errstate(invalid="ignore"):
        here = np.flatnonzero((np.abs(distance - d) <= half) & (np.abs(r[:, 2] / distance - sine) <= BAND))
    low, high = max(sine - BAND, -1.0), min(sine + BAND, 1.0)
    volume = 2.0 * np.pi * (high - low) * 2.0 * half * d**2
    # at the edge of what is known: as if half an object were there
    n = max(len(here), 0.5)
    escape = np.sqrt(2.0 * GM_M3_S2 / d)
    p = UNIFORM / (4.0 / 3.0 * np.pi * escape**3)
    if len(here):
        off = _local(r[here], v[here]) - _local(x[None, :3], x[None, 3:])
        e = np.exp(-0.5 * np.einsum("ij,ij->i", off, off) / KERNEL_M_S**2)
        p += (1.0 - UNIFORM) * float(e.mean()) / (2.0 * np.pi * KERNEL_M_S**2) ** 1.5
    return float(n / volume * p)


def _local(r: F64, v: F64) -> F64:
    """Velocities towards up, east and north, (n, 3)."""
    up = r / np.linalg.norm(r, axis=1)[:, None]
    east = np.column_stack([-up[:, 1], up[:, 0], np.zeros(len(r))])
    east /= np.maximum(np.linalg.norm(east, axis=1), 1e-9)[:, None]
    north = np.cross(up, east)
    return np.column_stack([np.einsum("ij,ij->i", v, a) for a in (up, east, north)])


class Direction(NamedTuple):
    """A tracklet of directions, in few numbers: where it is and how it moves in the plane that touches the sky."""

    t_ns: int
    site_r: F64  # (3,) m, GCRF
    site_v: F64  # (3,) m/s
    axes: F64  # (3, 3) line of sight and the two unit vectors of its tangent plane
    value: F64  # (2, 2) the two coordinates there, rad, and their rates, rad/s; measured
    cov: F64  # (2, 2) of either coordinate and its rate


def seen_from(direction: Direction, x: F64, light_s: float) -> tuple[F64, F64]:
    """Lon, lat and their rates (4,) of a state (6,) in the tangent plane of ``direction``, and their derivatives by the
    state (4, 6). ``light_s``: by how much earlier the object was seen.
    """
    d = x[:3] - x[3:] * light_s - direction.site_r
    v = x[3:] - direction.site_v
    u, e = direction.axes[0], direction.axes[1:]
    depth, closing = float(d @ u), float(v @ u)
    at = e @ d / depth
    rate = e @ v / depth - at * closing / depth
    J = np.zeros((4, 6))
    J[:2, :3] = (e - at[:, None] * u) / depth
    J[2:, 3:] = J[:2, :3]
    J[2:, :3] = -J[:2, :3] * closing / depth - rate[:, None] * u / depth
    return np.concatenate([at, rate]), J


def sky_density(direction: Direction, r: F64, v: F64) -> float:
    """Objects per rad^2 (rad/s)^2 at a measured direction and rate, from the states (n, 3) of a catalogue."""
    d = r - direction.site_r
    rho = np.sqrt(np.einsum("ij,ij->i", d, d))
    with np.errstate(invalid="ignore"):
        here = np.flatnonzero(d @ direction.axes[0] > np.cos(SKY_RAD) * rho)
    area = np.pi * SKY_RAD**2
    n = max(len(here), 0.5)
    measured = direction.value[:, 1]
    size = max(float(np.linalg.norm(measured)), 1e-5)
    p = UNIFORM / (np.pi * (10.0 * size) ** 2)
    if len(here):
        u = d[here] / rho[here][:, None]
        w = (v[here] - direction.site_v) / rho[here][:, None]
        w -= np.einsum("ij,ij->i", w, u)[:, None] * u
        off = w @ direction.axes[1:].T - measured
        h = RATE_FACTOR * size
        p += (1.0 - UNIFORM) * float(np.exp(-0.5 * (off**2).sum(axis=1) / h**2).mean()) / (2.0 * np.pi * h**2)
    return n / area * p
