"""Which ranges and range rates a short tracklet of directions allows, as a bank of weighted hypotheses.

The admissible region holds what is bound to the Earth and stays above the atmosphere (Milani & Gronchi, Theory of
Orbit Determination, chapter 8; Tommei, Milani & Rossi, Celestial Mechanics 97, 2007). It is cut into cells, cells that
the curvature of the tracklet speaks against are left out, and each that remains becomes one term of a Gaussian
mixture (DeMars & Jah, Journal of Guidance, Control and Dynamics 36, 2013): range and range rate known to the size of
the cell, everything else from least squares over the tracklet. The bank is then a multi-hypothesis filter: one extended
Kalman filter a term, weighted by how well it foretells what comes, until little else is left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import StructArray
from fusionnode.track.filtering.filter import make_trials, try_pairs
from fusionnode.track.filtering.sensing import COLUMNS, LIGHT_M_S
from fusionnode.track.initiation.angles_fit import fit_hypotheses
from fusionnode.track.initiation.angles_only import LEAST_PERIGEE_M, thinned
from fusionnode.track.initiation.attributable import Attributable, attributable
from fusionnode.track.motion.dynamics import MU, Dynamics
from fusionnode.track.motion.kepler import kepler_all

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

MOST_FITTED = 12
"""Measurements of the tracklet that the terms are fitted to."""
CELL_SIGMA = 0.5
"""Sigma of a term in either coordinate, in sides of its cell: the sum of such terms is flat to within 2 %."""
UNLIKELY = 25.0
"""Cells whose curvature is further than this (chi-square) from the tracklet's, and terms this far behind in ln of
weight, are let go."""
MERGE_D2 = 0.25
"""Terms this near to each other (Mahalanobis, by the wider) become one."""
OPEN = 1e30


class Region(NamedTuple):
    """What an object may be: bounds of the admissible region."""

    min_range_m: float = 1.0e5
    max_range_m: float = 6.0e7
    min_perigee_m: float = LEAST_PERIGEE_M  # distance from the Earth's centre
    max_semi_major_axis_m: float = 6.0e7
    max_eccentricity: float = 0.95

    def holds(self, x: F64) -> npt.NDArray[np.bool_]:
        """Which of the states (n, 6) are within it."""
        r, v = x[:, :3], x[:, 3:]
        d = np.linalg.norm(r, axis=1)
        alpha = 2.0 / d - (v**2).sum(axis=1) / MU
        h2 = (np.cross(r, v) ** 2).sum(axis=1)
        e = np.sqrt(np.maximum(1.0 - alpha * h2 / MU, 0.0))
        bound = alpha >= 1.0 / self.max_semi_major_axis_m
        a = 1.0 / np.where(bound, alpha, 1.0)
        return bound & (e <= self.max_eccentricity) & (a * (1.0 - e) >= self.min_perigee_m)


class Cells(NamedTuple):
    """Rectangles in ln(range) and range rate."""

    log_range: F64  # (n,) middles
    range_rate: F64  # (n,) m/s
    log_side: F64  # (n,)
    rate_side: F64  # (n,) m/s


def _places(a: Attributable, site_r: F64, site_v: F64, log_range: F64, range_rate: F64) -> F64:
    """States (n, 6) at the tracklet's last time of these ranges and range rates."""
    rho = np.exp(log_range)[:, None]
    u = a.axes[0]
    v = site_v + range_rate[:, None] * u + rho * a.rate
    return np.hstack([site_r + rho * u + v * (rho / LIGHT_M_S), v])


def _curvature_misfit(a: Attributable, site_r: F64, site_a: F64, cells: Cells) -> F64:
    """Chi-square (n,) of the tracklet's angular acceleration against that of two-body motion in each cell, the
    acceleration's change over the cell counted as a sigma.
    """
    if a.value.shape[1] < 3:
        return np.zeros(len(cells.log_range))

    def foretold(log_range: F64, range_rate: F64) -> F64:
        rho = np.exp(log_range)
        r = site_r + rho[:, None] * a.axes[0]
        d = np.linalg.norm(r, axis=1)
        acc = -MU * r / d[:, None] ** 3 - site_a
        return (acc @ a.axes[1:].T - 2.0 * range_rate[:, None] * a.value[:, 1]) / rho[:, None]

    middle = foretold(cells.log_range, cells.range_rate)
    over = np.abs(foretold(cells.log_range + 0.5 * cells.log_side, cells.range_rate) - middle)
    over += np.abs(foretold(cells.log_range, cells.range_rate + 0.5 * cells.rate_side) - middle)
    # what the polynomial leaves out, over its span
    beyond = 0.05 * np.abs(middle) + 1e-9
    variance = a.cov[2, 2] * max(1.0, a.chi2 / a.dof if a.dof > 0 else 1.0) + over**2 + beyond**2
    return ((a.value[:, 2] - middle) ** 2 / variance).sum(axis=1)


def admissible_cells(a: Attributable, site_r: F64, site_v: F64, region: Region, enough: int) -> Cells:
    """Cells that cover the admissible region of an attributable as far as its curvature allows: about ``enough`` of
    them, or as many as four times that; none where nothing is admissible.
    """
    omega = np.array([-site_v[1], site_v[0]]) @ site_r[:2] / max(float(site_r[:2] @ site_r[:2]), 1.0)
    site_a = -(omega**2) * np.array([site_r[0], site_r[1], 0.0])
    logs = np.linspace(np.log(region.min_range_m), np.log(region.max_range_m), 33)
    log_side = np.full(32, logs[1] - logs[0])
    cells = _first_cells(a, site_r, site_v, region, logs[:-1] + 0.5 * log_side, log_side)
    for _ in range(6):
        n = len(cells.log_range)
        if n == 0:
            return cells
        touched = np.zeros(n, np.bool_)
        for i, j in ((0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1), (0, 1), (1, 0), (0, -1), (-1, 0)):
            at = _places(
                a, site_r, site_v,
                cells.log_range + 0.5 * i * cells.log_side, cells.range_rate + 0.5 * j * cells.rate_side,
            )  # fmt: skip
            touched |= region.holds(at)
        misfit = _curvature_misfit(a, site_r, site_a, cells)
        kept = touched & (misfit <= (misfit[touched].min() if touched.any() else 0.0) + UNLIKELY)
        cells = Cells(*(column[kept] for column in cells))
        if len(cells.log_range) >= enough:
            break
        cells = _quartered(cells)
    return cells


def _first_cells(
    a: Attributable, site_r: F64, site_v: F64, region: Region, logs: F64, log_side: F64
) -> Cells:
    """Eight cells for each range, over the range rates that leave the object bound."""
    rho = np.exp(logs)[:, None]
    r = np.linalg.norm(site_r + rho * a.axes[0], axis=1)
    across = site_v + rho * a.rate
    b = across @ a.axes[0]
    most2 = 2.0 * MU / r - MU / region.max_semi_major_axis_m
    room = b**2 - (across**2).sum(axis=1) + most2
    some = room > 0.0
    half = np.sqrt(np.where(some, room, 0.0))[some]
    steps = (np.arange(8) + 0.5) / 4.0 - 1.0
    n = len(half)
    return Cells(
        np.repeat(logs[some], 8),
        (-b[some][:, None] + half[:, None] * steps).reshape(8 * n),
        np.repeat(log_side[some], 8),
        np.repeat(half / 4.0, 8),
    )


def _quartered(cells: Cells) -> Cells:
    parts = [
        (cells.log_range + i * cells.log_side, cells.range_rate + j * cells.rate_side)
        for i in (-0.25, 0.25)
        for j in (-0.25, 0.25)
    ]
    return Cells(
        np.concatenate([p[0] for p in parts]),
        np.concatenate([p[1] for p in parts]),
        np.tile(0.5 * cells.log_side, 4),
        np.tile(0.5 * cells.rate_side, 4),
    )


class Bank:
    """Weighted hypotheses of one object's orbit: a Gaussian mixture at ``epoch_ns``.

    ``x`` (n, 6), ``P`` (n, 36), ``weight`` (n,), their sum 1: the likeliest first.
    """

    def __init__(self, x: F64, P: F64, log_weight: F64, epoch_ns: int) -> None:
        self.x, self.P, self.epoch_ns = x, P, epoch_ns
        self.weight = np.zeros(len(x))
        self._keep(log_weight)

    def __len__(self) -> int:
        return len(self.x)

    def moments(self) -> tuple[F64, F64]:
        """Mean (6,) and covariance (6, 6) of the mixture: wide where the hypotheses differ."""
        mean = self.weight @ self.x
        d = self.x - mean
        P = np.tensordot(self.weight, self.P.reshape(-1, 6, 6), 1) + (self.weight[:, None] * d).T @ d
        return mean, 0.5 * (P + P.T)

    def at(self, t_ns: int) -> F64:
        """Where its hypotheses are at another time, by two-body motion: (n, 6), nan where that fails."""
        out = np.empty_like(self.x)
        kepler_all(self.x, (t_ns - self.epoch_ns) * 1e-9, out)
        return out

    def offsets(self, m: np.void) -> tuple[F64, F64]:
        """How far the line of sight of one measurement is from each hypothesis (n,), and how far a sigma of
        that hypothesis reaches (n,), both rad and both rough: for selection.
        """
        dt = abs(int(m["t_meas_ns"]) - self.epoch_ns) * 1e-9
        d = self.at(int(m["t_meas_ns"]))[:, :3] - m["site_r"]
        rho = np.linalg.norm(d, axis=1)
        apart = np.arctan2(np.linalg.norm(np.cross(d, m["los"]), axis=1), d @ m["los"])
        P = self.P.reshape(-1, 6, 6)
        place = np.sqrt(np.trace(P[:, :3, :3], axis1=1, axis2=2))
        speed = np.sqrt(np.trace(P[:, 3:, 3:], axis1=1, axis2=2))
        return np.where(np.isfinite(apart), apart, np.pi), (place + 3.0 * dt * speed) / rho

    def updated(self, tracklet: StructArray, W: F64, model: Dynamics, q: float) -> tuple[Bank, float] | None:
        """The bank after the measurements MEASUREMENT[n], in time order and none before its epoch, and ln of the
        likelihood of their directions under it (rad^-2 each); None where no hypothesis is left.
        """
        n = len(self)
        x, P = self.x.copy(), self.P.copy()
        epoch = np.full(n, self.epoch_ns)
        with np.errstate(divide="ignore"):
            log_weight = np.log(self.weight)
        z = np.ascontiguousarray(tracklet).view(np.float64).reshape(len(tracklet), COLUMNS)
        t = np.ascontiguousarray(tracklet["t_meas_ns"])
        channels = np.ascontiguousarray(tracklet["channels"])
        gates = np.full(5, OPEN)
        slots = np.arange(n)
        for row in range(len(tracklet)):
            trials = make_trials(len(slots))
            try_pairs(
                W, len(slots), slots, np.full(len(slots), row), x, P, epoch, z, t, channels, model, q, gates, False,
                trials,
            )  # fmt: skip
            degrees = 2 + int(bool(channels[row] & 1)) + int(bool(channels[row] & 4))
            with np.errstate(divide="ignore", invalid="ignore"):
                cost = trials.nis + np.log(trials.det) + degrees * np.log(2.0 * np.pi)
            good = np.isfinite(cost) & np.isfinite(trials.x).all(axis=1) & np.isfinite(trials.P).all(axis=1)
            slots = slots[good]
            if len(slots) == 0:
                return None
            x[slots], P[slots], epoch[slots] = trials.x[good], trials.P[good], t[row]
            log_weight[slots] -= 0.5 * cost[good]
            slots = slots[log_weight[slots] >= log_weight[slots].max() - UNLIKELY]
        best = log_weight[slots].max()
        total = float(best + np.log(np.exp(log_weight[slots] - best).sum()))
        return Bank(x[slots], P[slots], log_weight[slots], int(t[-1])), total

    def _keep(self, log_weight: F64) -> None:
        """Let the unlikely go, join those that say the same, sort."""
        order = np.argsort(-log_weight, kind="stable")
        order = order[log_weight[order] >= log_weight[order[0]] - UNLIKELY] if len(order) else order
        w = np.exp(log_weight[order] - log_weight[order[0]]) if len(order) else np.zeros(0)
        x, P = self.x[order], self.P[order]
        out_x, out_P, out_w = [], [], []
        left = np.ones(len(x), np.bool_)
        for i in range(len(x)):
            if not left[i]:
                continue
            d = x - x[i]
            try:
                near = left & ((d * np.linalg.solve(P[i].reshape(6, 6), d.T).T).sum(axis=1) <= MERGE_D2)
            except np.linalg.LinAlgError:
                near = np.zeros(len(x), np.bool_)
            near[i] = True
            left &= ~near
            share = w[near] / w[near].sum()
            mean = share @ x[near]
            off = x[near] - mean
            out_x.append(mean)
            out_P.append(share @ P[near] + ((share[:, None] * off).T @ off).reshape(36))
            out_w.append(w[near].sum())
        self.x, self.P = np.array(out_x).reshape(-1, 6), np.array(out_P).reshape(-1, 36)
        self.weight = np.array(out_w) / max(float(np.sum(out_w)), 1e-300)


def bank_of(
    tracklet: StructArray, W: F64, model: Dynamics, region: Region | None = None, enough: int = 64
) -> Bank | None:
    """The hypotheses that a tracklet of directions, MEASUREMENT[n], n >= 2 in time order, leaves; None if none.

    Each is fitted to the tracklet, with its cell's range and range rate as a measurement of the cell's size; its weight
    is the evidence for the cell, over a prior that is even in ln(range) and in the range rates that are possible.
    """
    region = region or Region()
    a = attributable(tracklet)
    if a is None:
        return None
    last = tracklet[-1]
    site_r, site_v = last["site_r"], last["site_v"]
    cells = admissible_cells(a, site_r, site_v, region, enough)
    n = len(cells.log_range)
    if n == 0:
        return None
    few = thinned(tracklet, MOST_FITTED)
    # residuals larger than the sigmas say, of whatever origin, are no evidence for one cell over another
    excess = max(1.0, a.chi2 / a.dof) if a.dof > 0 and a.value.shape[1] > 2 else 1.0
    rows = np.concatenate([few, few[-1:]])
    rows["var"][:-1] *= excess
    z = rows.view(np.float64).reshape(len(rows), COLUMNS)
    rho = np.exp(cells.log_range)
    places = np.column_stack(
        [rho, cells.range_rate, CELL_SIGMA * rho * cells.log_side, CELL_SIGMA * cells.rate_side]
    )
    x = _places(a, site_r, site_v, cells.log_range, cells.range_rate)
    P, chi2, good = np.zeros((n, 36)), np.zeros(n), np.zeros(n, np.bool_)
    t, channels = np.ascontiguousarray(rows["t_meas_ns"]), np.ascontiguousarray(rows["channels"])
    fit_hypotheses(W, z, t, channels, len(rows), model, 8, places, x, P, chi2, good)
    good = (
        np.isfinite(chi2)
        & np.isfinite(x).all(axis=1)
        & np.isfinite(P).all(axis=1)
        & (P[:, ::7] > 0.0).all(axis=1)
    )
    good[good] &= region.holds(x[good])
    if not good.any():
        return None
    sign, log_det = np.linalg.slogdet(P[good].reshape(-1, 6, 6) / np.outer(_UNITS, _UNITS))
    # evidence of the cell: prior x best fit x how much of the cell the fit leaves (Laplace's approximation)
    log_weight = -0.5 * chi2[good] + 0.5 * np.where(sign > 0, log_det, -np.inf)
    log_weight += np.log(cells.log_side[good] * cells.rate_side[good])
    log_weight -= np.log(places[good, 2] * places[good, 3])
    if not np.isfinite(log_weight).any():
        return None
    fine = np.isfinite(log_weight)
    return Bank(x[good][fine], P[good][fine], log_weight[fine], a.t_ns)


_UNITS = np.array([1e5] * 3 + [1e2] * 3)
