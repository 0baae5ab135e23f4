"""A tracklet in few numbers: direction, its rate and its acceleration at one time (the attributable and its curvature).

Milani & Gronchi, Theory of Orbit Determination, chapter 8.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import StructArray

F64 = npt.NDArray[np.float64]


class Attributable(NamedTuple):
    """What a tracklet says of a direction at ``t_ns``, the time of its last measurement.

    ``axes``: the line of sight and the two unit vectors of its tangent plane, as rows. ``value`` (2, d + 1): the two
    coordinates there and their derivatives by time up to order ``d``, rad/s^k. ``cov`` (d + 1, d + 1): covariance of
    the derivatives of either coordinate. ``chi2``, ``dof``: of the polynomials through the directions.
    """

    t_ns: int
    axes: F64
    value: F64
    cov: F64
    chi2: float
    dof: int
    span_s: float

    @property
    def rate(self) -> F64:
        """Of the line of sight, (3,), rad/s."""
        return self.value[0, 1] * self.axes[1] + self.value[1, 1] * self.axes[2]

    def towards(self, t_ns: int) -> tuple[F64, float]:
        """The direction at another time (3,), and its sigma, rad: what the polynomial says, no more."""
        dt = (t_ns - self.t_ns) * 1e-9
        powers = _powers(np.array([dt]), self.value.shape[1] - 1)[0]
        at = self.value @ powers
        u = self.axes[0] + at[0] * self.axes[1] + at[1] * self.axes[2]
        return u / np.linalg.norm(u), float(np.sqrt(max(powers @ self.cov @ powers, 0.0)))


class Sighted(NamedTuple):
    """A direction and its rate as the catalogue is asked about them."""

    t_ns: int
    site_r: F64  # (3,) m, GCRF
    site_v: F64  # (3,) m/s
    axes: F64  # (3, 3)
    value: F64  # (2, 2) coordinates, rad, and rates, rad/s
    cov: F64  # (2, 2) of either


def sighted(tracklet: StructArray, motion: Attributable) -> Sighted:
    """What the motion of a tracklet, MEASUREMENT[n], says at its last time, and where from."""
    last = tracklet[-1]
    excess = max(1.0, motion.chi2 / motion.dof) if motion.dof > 0 else 1.0
    return Sighted(
        motion.t_ns,
        last["site_r"].copy(),
        last["site_v"].copy(),
        motion.axes,
        motion.value[:, :2],
        excess * motion.cov[:2, :2],
    )


def _powers(dt: F64, degree: int) -> F64:
    """dt^k / k! for k = 0..degree, shape (n, degree + 1)."""
    out = np.ones((len(dt), degree + 1))
    for k in range(1, degree + 1):
        out[:, k] = out[:, k - 1] * dt / k
    return out


def attributable(tracklet: StructArray) -> Attributable | None:
    """Of a tracklet MEASUREMENT[n], n >= 2, in time order; None where its times or directions allow none.

    Polynomials of the lowest degree that agrees with the directions: 1 for two of them, from 2 up to 7 for more.
    """
    n = len(tracklet)
    last = tracklet[-1]
    axes = np.array([last["los"], last["e_lon"], last["e_lat"]])
    along = tracklet["los"] @ axes[0]
    t_ns = int(last["t_meas_ns"])
    dt = (tracklet["t_meas_ns"] - t_ns) * 1e-9
    different = len(np.unique(dt))
    if different < 2 or not (along > 0.1).all():
        return None
    # in the tangent plane a direction at an angle a from its middle counts cos(a) (radially cos^2) less
    xy = (tracklet["los"] @ axes[1:].T) / along[:, None]
    var = np.maximum(tracklet["var"][:, 1], tracklet["var"][:, 2]) / along**4
    weight = 1.0 / np.sqrt(var)
    span = float(-dt[0])
    best: Attributable | None = None
    for degree in range(min(2, different - 1), min(8, different)):
        A = _powers(dt, degree)
        scale = span ** np.arange(degree + 1)
        As = A / scale * weight[:, None]
        N = As.T @ As
        if np.linalg.cond(N) > 1e13:
            break
        inverse = np.linalg.inv(N)
        value = (inverse @ As.T @ (xy * weight[:, None])).T
        residual = (xy - (A / scale) @ value.T) * weight[:, None]
        chi2, dof = float((residual**2).sum()), 2 * (n - degree - 1)
        best = Attributable(t_ns, axes, value / scale, inverse / np.outer(scale, scale), chi2, dof, span)
        if dof <= 0 or chi2 <= dof + 3.0 * np.sqrt(2.0 * dof):
            break
    return best
