"""One arc of one track: its orbit solved for together with the biases of the sensors that saw it.

Errors of a sensor come in three sorts, and a thousand detections of one pass know nothing of the first two:
its *bias* is the same in every pass; its *pass error* is drawn anew each pass (refraction left over, servo set-up,
the orbit's own model error as seen from there) and constant in it; its *wander* goes through a pass, from point to point
more or less alike. So a pass is worth about one sample of the pass error, however many points it has.
The variances of pass error and wander are estimated with the biases (restricted maximum likelihood by the
fixed point of Fellner 1986 and Schall 1991), so that a bias's sigma comes from the scatter between passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import Channel
from fusionnode.track.calibration.orbit import Flow, bias_columns, observe

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

CHANNELS = 3
"""Range, lon, lat. A range rate says little of biases."""
BIASES = 4
"""Range (m), lon (rad), lat (rad), time (s)."""
HUBER = 2.5
REDESCEND = 6.0
"""A point further off than this, in sigma of its wander, does not count."""
MOST_ITERATIONS = 15
SETTLED = 0.02
"""A step of less than this, in sigma, is the last one."""
LEAST_WEIGHT = 1e-3
_RANGE, _ANGLES = int(Channel.RANGE), int(Channel.ANGLES)

Propagate = Callable[[F64, int, I64, float], Flow]


class Points(NamedTuple):
    """What is kept of an arc's measurements, in order of time. Passes are numbered from 0."""

    t: I64  # (n,) TAI ns
    z: F64  # (n, COLUMNS) a MEASUREMENT seen as float64
    channels: npt.NDArray[np.uint8]  # (n,)
    sensor: I64  # (n,)
    passage: I64  # (n,) to which pass it belongs


class Spread(NamedTuple):
    """How a sensor's errors spread, by sensor and channel, (S, 3) each; m, rad on the sky."""

    between: F64  # sigma of the pass error
    within: F64  # sigma of the wander from point to point
    alike: F64  # correlation of the wander at neighbouring points, 0 to 1


class Sums(NamedTuple):
    """What an arc tells of the spread, (S, 3) each: sums over passes or points."""

    between2: F64
    between_n: F64
    within2: F64
    within_n: F64
    lag: F64
    lag_n: F64


class Solved(NamedTuple):
    """An arc's solution. ``information`` (4k, 4k) and ``weighted`` (4k,) are of the biases alone, the orbit
    eliminated, without a prior: biases b of ``sensors`` (k,) are such that information @ b = weighted."""

    sensors: I64
    information: F64
    weighted: F64
    sums: Sums
    x: F64  # (6,) at the first point
    along_m_s2: float
    biases: F64  # (k, 4) with the prior
    rms_sigma: float  # of the points that count, in sigma
    iterations: int
    kept: float  # part of the channels' points that count


class Prior(NamedTuple):
    """What is known before an arc: information on the biases of its sensors (4k, 4k), and their values (4k,)."""

    information: F64
    value: F64
    along_sigma_m_s2: float


def solve(
    points: Points,
    x0: F64,
    t0_ns: int,
    propagate: Propagate,
    spread: Spread,
    prior: Prior,
    inertial: npt.NDArray[np.bool_],
) -> Solved | None:
    """Gauss-Newton over the orbit (6), an acceleration along the track, and four biases a sensor; None where it does
    not settle.

    Huber's weights for points, redescending beyond REDESCEND; a pass that is off as a whole counts less by Huber's weight too. While
    the residuals are far larger than the spread can explain, all sigmas are widened alike, so that it starts from kilometres off.
    """
    sensors = np.unique(points.sensor)
    where = np.searchsorted(sensors, points.sensor)
    k = len(sensors)
    unknowns = 7 + BIASES * k
    n_pass = int(points.passage.max()) + 1
    first_of = np.searchsorted(points.passage, np.arange(n_pass))
    sensor_of = points.sensor[first_of]
    within = spread.within / np.sqrt((1.0 - spread.alike) / (1.0 + spread.alike))
    q = within[points.sensor]
    s = spread.between[sensor_of]
    plain = spread.within[points.sensor]
    has = np.stack([points.channels & _RANGE > 0, points.channels & _ANGLES > 0, points.channels & _ANGLES > 0], 1)
    turning = inertial[points.sensor]
    x, along, b = x0.copy(), 0.0, prior.value.copy()
    weight = np.where(has, 1.0, 0.0)
    loose = np.ones((n_pass, CHANNELS))
    rows = np.arange(len(where))
    wide = np.inf
    for iteration in range(MOST_ITERATIONS):
        flow = propagate(x, t0_ns, points.t, along)
        if not np.isfinite(flow.x).all():
            return None
        y, h = observe(flow.x, points.z, points.channels)
        y = y[:, :CHANNELS]
        design = np.zeros((len(where), CHANNELS, unknowns))
        design[:, :, :6] = h[:, :CHANNELS] @ flow.phi
        design[:, :, 6] = np.einsum("nij,nj->ni", h[:, :CHANNELS], flow.push)
        columns = bias_columns(flow.x, points.z, turning)
        for j in range(BIASES):
            design[rows, :, 7 + BIASES * where + j] = columns[:, :, j]
        y = y - design[:, :, 7:] @ b
        expected = np.sqrt(plain**2 + s[points.passage] ** 2)
        scale = max(1.0, 1.4826 * float(np.median(np.abs(y / expected)[has])))
        wide = min(scale, 0.5 * wide) if scale > 1.5 else 1.0
        wide = max(wide, 1.0)
        off = _pass_errors(y, weight, points.passage, s * wide, q * wide, n_pass)
        u = np.abs(y - off[points.passage]) / (plain * wide)
        weight = np.where(has, np.where(u > HUBER, HUBER / np.maximum(u, HUBER), 1.0), 0.0)
        if wide == 1.0 and iteration > 3:
            weight[u > REDESCEND] = 0.0
        # the range and the angles of a radar that has lost its target for a moment go together
        sane = weight.min(axis=1, where=has, initial=1.0) > 0.0
        weight[~sane] = 0.0
        loose = np.maximum(1.0, np.abs(off) / (HUBER * s * wide))
        normal, right = _normal(design, y, weight, points.passage, s * wide * np.sqrt(loose), q * wide, n_pass)
        own, own_right = normal.copy(), right.copy()
        normal[6, 6] += 1.0 / prior.along_sigma_m_s2**2
        right[6] -= along / prior.along_sigma_m_s2**2
        own[6, 6], own_right[6] = normal[6, 6], right[6]
        normal[7:, 7:] += prior.information
        right[7:] += prior.information @ (prior.value - b)
        covariance, step = _solve(normal, right)
        if step is None:
            return None
        x, along, b = x + step[:6], along + float(step[6]), b + step[7:]
        if wide == 1.0 and iteration > 4 and np.max(np.abs(step) / np.sqrt(np.diag(covariance))) < SETTLED:
            break
    else:
        return None
    residual = y - design @ step
    sums, rms = _sums(residual, design, covariance, weight, has, points, s * np.sqrt(loose), q, spread, sensor_of, n_pass)
    information, weighted = _eliminate(own, own_right)
    weighted = weighted + information @ (b - step[7:])
    return Solved(
        sensors, information, weighted, sums, x, along, b.reshape(k, BIASES), rms, iteration + 1,
        float(np.count_nonzero(weight > 0.5) / max(np.count_nonzero(has), 1)),
    )  # fmt: skip


def _pass_errors(y: F64, weight: F64, passage: I64, s: F64, q: F64, n_pass: int) -> F64:
    """The likeliest pass errors (passes, 3), orbit and biases taken as they are."""
    total, count = np.zeros((n_pass, CHANNELS)), np.zeros((n_pass, CHANNELS))
    np.add.at(total, passage, weight * y / q**2)
    np.add.at(count, passage, weight / q**2)
    return total / (count + 1.0 / s**2)


def _normal(
    design: F64, y: F64, weight: F64, passage: I64, s: F64, q: F64, n_pass: int
) -> tuple[F64, F64]:
    """Normal equations with the pass errors eliminated (Sherman and Morrison)."""
    w = weight / q**2
    normal = np.einsum("nci,nc,ncj->ij", design, w, design, optimize=True)
    right = np.einsum("nci,nc->i", design, w * y)
    ones = np.zeros((n_pass, CHANNELS, design.shape[2]))
    np.add.at(ones, passage, design * w[:, :, None])
    count, total = np.zeros((n_pass, CHANNELS)), np.zeros((n_pass, CHANNELS))
    np.add.at(count, passage, w)
    np.add.at(total, passage, w * y)
    factor = 1.0 / (1.0 / s**2 + count)
    normal -= np.einsum("pci,pc,pcj->ij", ones, factor, ones, optimize=True)
    right -= np.einsum("pci,pc->i", ones, factor * total)
    return normal, right


def _solve(normal: F64, right: F64) -> tuple[F64, F64 | None]:
    """Inverse and solution, rows scaled first."""
    diagonal = np.diag(normal)
    if not (diagonal > 0.0).all() or not np.isfinite(normal).all():
        return normal, None
    scale = 1.0 / np.sqrt(diagonal)
    try:
        factor = np.linalg.cholesky(normal * np.outer(scale, scale) + 1e-14 * np.eye(len(scale)))
    except np.linalg.LinAlgError:
        return normal, None
    half = np.linalg.solve(factor, np.diag(scale))
    inverse = half.T @ half
    return inverse, inverse @ right


def _eliminate(normal: F64, right: F64) -> tuple[F64, F64]:
    """What is left for the biases when the orbit is eliminated (Schur complement)."""
    scale = 1.0 / np.sqrt(np.diag(normal)[:7])
    orbit = normal[:7, :7] * np.outer(scale, scale) + 1e-12 * np.eye(7)
    cross = normal[:7, 7:] * scale[:, None]
    gain = np.linalg.solve(orbit, np.column_stack([cross, right[:7] * scale]))
    information = normal[7:, 7:] - cross.T @ gain[:, :-1]
    return 0.5 * (information + information.T), right[7:] - cross.T @ gain[:, -1]


def _sums(
    residual: F64, design: F64, covariance: F64, weight: F64, has: npt.NDArray[np.bool_], points: Points,
    s: F64, q: F64, spread: Spread, sensor_of: I64, n_pass: int,
) -> tuple[Sums, float]:  # fmt: skip
    """What the residuals say of the spread, and their rms in sigma."""
    shape = spread.between.shape
    passage = points.passage
    w = weight / q**2
    count, total = np.zeros((n_pass, CHANNELS)), np.zeros((n_pass, CHANNELS))
    np.add.at(count, passage, w)
    np.add.at(total, passage, w * residual)
    ones = np.zeros((n_pass, CHANNELS, design.shape[2]))
    np.add.at(ones, passage, design * w[:, :, None])
    variance = 1.0 / (1.0 / s**2 + count)
    error = variance * total
    unsure = variance + variance**2 * np.einsum("pci,ij,pcj->pc", ones, covariance, ones, optimize=True)
    seen = count > 0.0
    freedom = np.where(seen, np.clip(1.0 - unsure / s**2, 0.0, 1.0), 0.0)
    between2, between_n = np.zeros(shape), np.zeros(shape)
    limit = (HUBER * spread.between[sensor_of]) ** 2
    np.add.at(between2, sensor_of, np.where(seen, np.minimum(error**2, limit * freedom + limit), 0.0))
    np.add.at(between_n, sensor_of, freedom)
    left = residual - error[passage]
    within2, within_n = np.zeros(shape), np.zeros(shape)
    np.add.at(within2, points.sensor, weight * left**2)
    np.add.at(within_n, points.sensor, weight)
    used = np.zeros(shape)
    np.add.at(used, sensor_of, np.where(seen, 1.0, 0.0))
    lag, lag_n = np.zeros(shape), np.zeros(shape)
    same = passage[1:] == passage[:-1]
    both = np.where(same[:, None], np.minimum(weight[1:], weight[:-1]), 0.0)
    np.add.at(lag, points.sensor[1:], both * left[1:] * left[:-1])
    np.add.at(lag_n, points.sensor[1:], both * 0.5 * (left[1:] ** 2 + left[:-1] ** 2))
    within = np.where(within_n > 0.0, np.maximum(within_n - used, 0.0), 0.0)
    plain = spread.within[points.sensor]
    rms = float(np.sqrt(np.sum(weight * (left / plain) ** 2) / max(float(np.sum(weight)), 1.0)))
    return Sums(between2, between_n, within2, within, lag, lag_n), rms
