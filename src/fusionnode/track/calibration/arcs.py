"""One arc of one track: its orbit solved for together with the biases of the sensors that saw it.

Errors of a sensor come in three sorts, and a thousand detections of one pass know nothing of the first two: its
*bias* is the same in every pass; its *pass error* is drawn anew each pass (refraction left over, servo set-up, the
orbit's own model error as seen from there) and constant in it; its *wander* goes through a pass, from point to
point more or less alike. So a pass is worth about one sample of the pass error, however many points it has. The
variances of pass error and wander are estimated with the biases (restricted maximum likelihood by the fixed point
of Fellner 1986 and Schall 1991), so that a bias's sigma comes from the scatter between passes.
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
MOST_ITERATIONS = 40
MOST_ORBITS = 8
STRAIGHT_M = 50.0
"""An orbit is gone through anew where the solution moves it by more than this: less is linear over days."""
_ARC_S2 = 1e10
SETTLED = 0.05
NEARLY_SETTLED = 0.3
"""A step of less than this, in sigma, is the last one; or of less than that, when there were enough."""
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
    settled: bool
    kept: float  # part of the channels' points that count


class Prior(NamedTuple):
    """What is known before an arc: information on the biases of its sensors (4k, 4k), and their values (4k,)."""

    information: F64
    value: F64
    along_sigma_m_s2: float
    orbit: tuple[F64, F64] | None = (
        None  # state (6,) at the first point and its information (6, 6), from outside
    )


class Linear(NamedTuple):
    """An arc's measurements about an orbit: ``y`` (n, 3) measured less predicted, no bias taken off; ``design`` (n,
    3, 7 + 4k) its derivative by the orbit, the acceleration along the track, and the biases of ``sensors`` (k,)."""

    x: F64  # (6,) at the first point
    along_m_s2: float
    y: F64
    design: F64
    sensors: I64


def linearise(
    points: Points,
    x0: F64,
    t0_ns: int,
    along_m_s2: float,
    propagate: Propagate,
    inertial: npt.NDArray[np.bool_],
) -> Linear | None:
    """The arc about the orbit ``x0`` at ``t0_ns``; None where that leads nowhere."""
    flow = propagate(x0, t0_ns, points.t, along_m_s2)
    if not np.isfinite(flow.x).all():
        return None
    sensors = np.unique(points.sensor)
    where = np.searchsorted(sensors, points.sensor)
    y, h = observe(flow.x, points.z, points.channels)
    if not np.isfinite(y).all():
        return None
    design = np.zeros((len(where), CHANNELS, 7 + BIASES * len(sensors)))
    design[:, :, :6] = h[:, :CHANNELS] @ flow.phi
    design[:, :, 6] = np.einsum("nij,nj->ni", h[:, :CHANNELS], flow.push)
    columns = bias_columns(flow.x, points.z, inertial[points.sensor])
    rows = np.arange(len(where))
    for j in range(BIASES):
        design[rows, :, 7 + BIASES * where + j] = columns[:, :, j]
    return Linear(x0, along_m_s2, y[:, :CHANNELS], design, sensors)


def solve(
    points: Points,
    x0: F64,
    t0_ns: int,
    propagate: Propagate,
    spread: Spread,
    prior: Prior,
    inertial: npt.NDArray[np.bool_],
) -> tuple[Linear, Solved] | None:
    """Gauss-Newton over the orbit (6), an acceleration along the track, and four biases a sensor; the arc about its
    solution. None where it does not settle."""
    along = 0.0
    for _ in range(MOST_ORBITS):
        arc = linearise(points, x0, t0_ns, along, propagate, inertial)
        solved = None if arc is None else solve_linear(arc, points, spread, prior)
        if arc is None or solved is None:
            return None
        moved = float(np.linalg.norm(solved.x[:3] - arc.x[:3])) + abs(solved.along_m_s2 - along) * _ARC_S2
        if moved < STRAIGHT_M:
            return (arc, solved) if solved.settled else None
        x0, along = solved.x, solved.along_m_s2
    return None


def solve_linear(arc: Linear, points: Points, spread: Spread, prior: Prior) -> Solved | None:
    """The linear problem, robustly: Huber's weights for points, redescending beyond REDESCEND; a pass that is off
    as a whole counts less by Huber's weight too. While the residuals are far larger than the spread can explain,
    all sigmas are widened alike, so that it starts from kilometres off.
    """
    passage = points.passage
    k = len(arc.sensors)
    n_pass = int(passage.max()) + 1
    sensor_of = points.sensor[np.searchsorted(passage, np.arange(n_pass))]
    q = (spread.within * np.sqrt((1.0 + spread.alike) / (1.0 - spread.alike)))[points.sensor]
    s = spread.between[sensor_of]
    plain = spread.within[points.sensor]
    angles = points.channels & _ANGLES > 0
    has = np.stack([points.channels & _RANGE > 0, angles, angles], 1)
    unknown = np.concatenate([np.zeros(7), prior.value])
    own_prior = np.zeros((len(unknown), len(unknown)))
    own_prior[6, 6] = 1.0 / prior.along_sigma_m_s2**2
    assumed = np.concatenate([np.zeros(6), [-arc.along_m_s2], prior.value])
    if prior.orbit is not None:
        assumed[:6] = prior.orbit[0] - arc.x
        own_prior[:6, :6] = prior.orbit[1]
    whole_prior = own_prior.copy()
    whole_prior[7:, 7:] = prior.information
    weight = np.where(has, 1.0, 0.0)
    expected = np.sqrt(plain**2 + s[passage] ** 2)
    wide = np.inf
    moved = np.inf
    for iteration in range(MOST_ITERATIONS):
        y = arc.y - arc.design @ unknown
        scale = 1.4826 * float(np.median(np.abs(y / expected)[has]))
        wide = max(1.0, min(scale, 0.5 * wide)) if scale > 1.5 else 1.0
        off = _pass_errors(y, weight, passage, s * wide, q * wide, n_pass)
        u = np.abs(y - off[passage]) / (plain * wide)
        weight = np.where(has, np.where(u > HUBER, HUBER / np.maximum(u, HUBER), 1.0), 0.0)
        if wide == 1.0 and iteration > 2:
            # the range and the angles of a radar that has lost its target for a moment go together
            weight[np.max(np.where(has, u, 0.0), axis=1) > REDESCEND] = 0.0
        loose = np.maximum(1.0, np.abs(off) / (HUBER * s * wide))
        normal, right = _normal(arc.design, y, weight, passage, s * wide * np.sqrt(loose), q * wide, n_pass)
        covariance, step = _solve(normal + whole_prior, right + whole_prior @ (assumed - unknown))
        if step is None:
            return None
        unknown = unknown + step
        moved = float(np.max(np.abs(step) / np.sqrt(np.diag(covariance))))
        if wide == 1.0 and iteration > 3 and moved < SETTLED:
            break
    y = arc.y - arc.design @ unknown
    sums, rms = _sums(
        y, arc.design, covariance, weight, points, s * np.sqrt(loose), q, spread, sensor_of, n_pass
    )
    normal, right = _normal(arc.design, y, weight, passage, s * np.sqrt(loose), q, n_pass)
    information, weighted = _eliminate(normal + own_prior, right + own_prior @ (assumed - unknown))
    b = unknown[7:]
    return Solved(
        sensors=arc.sensors,
        information=information,
        weighted=weighted + information @ b,
        sums=sums,
        x=arc.x + unknown[:6],
        along_m_s2=arc.along_m_s2 + float(unknown[6]),
        biases=b.reshape(k, BIASES),
        rms_sigma=rms,
        iterations=iteration + 1,
        settled=moved < NEARLY_SETTLED,
        kept=int(np.count_nonzero(weight > 0.5)) / max(int(np.count_nonzero(has)), 1),
    )


def _pass_errors(y: F64, weight: F64, passage: I64, s: F64, q: F64, n_pass: int) -> F64:
    """The likeliest pass errors (passes, 3), orbit and biases taken as they are."""
    total, count = np.zeros((n_pass, CHANNELS)), np.zeros((n_pass, CHANNELS))
    np.add.at(total, passage, weight * y / q**2)
    np.add.at(count, passage, weight / q**2)
    return total / (count + 1.0 / s**2)


def _normal(design: F64, y: F64, weight: F64, passage: I64, s: F64, q: F64, n_pass: int) -> tuple[F64, F64]:
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
    residual: F64, design: F64, covariance: F64, weight: F64, points: Points,
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
