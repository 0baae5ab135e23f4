"""States after the fact: what a track's later updates say of its earlier states (fixed-interval smoothing).

The filter's states, each with its covariance, are all that is needed (Rauch, Tung & Striebel, AIAA Journal 3, 1965;
Gelb, Applied Optimal Estimation, section 5.2). Between two of them transition and process noise are computed anew; each
such interval is on its own, so that eight go side by side on the lanes. Then one pass goes backwards. Its covariance is
summed from terms that cannot be negative: with the smoother's gain G it is
P_s = (I - G Phi) P (I - G Phi)' + G Q G' + G P_s+ G', which is P + G (P_s+ - P_prior+) G' multiplied out.

Where a state was not made from the one before it by prediction and update (a new orbit took the track up again, two
tracks were joined) the run ends, and another begins.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fusionnode.config import Tracking
from fusionnode.core.kernels import kernel
from fusionnode.core.types import TRACK_STATE, Status, StructArray
from fusionnode.track.association.associate import Measurements, make_room
from fusionnode.track.filtering.definite import factor, take_lower
from fusionnode.track.filtering.filter import load_track, try_pairs
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.lanes import LANES, LEFT, TOTAL, P, X, workspace
from fusionnode.track.motion import dynamics
from fusionnode.track.motion.dynamics import Dynamics, predict_lanes, transit_lanes
from fusionnode.track.motion.heaven import Earth

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

DAY_NS = 86_400_000_000_000
BLOCK = 4096
"""States that are in memory at once: a track is smoothed from its end, block by block, in place."""


class DailyDynamics:
    """The dynamics that a configuration asks for, day by day; the last two days are kept."""

    def __init__(self, config: Tracking, earth: Earth) -> None:
        self._config = config
        self._earth = earth
        self._days: dict[int, Dynamics] = {}

    def __call__(self, t_ns: int) -> Dynamics:
        """The dynamics for the day of ``t_ns``, TAI ns."""
        day = t_ns // DAY_NS
        if day not in self._days:
            self._days[day] = dynamics.make(self._config, self._earth, t_ns)
            while len(self._days) > 2:
                del self._days[next(iter(self._days))]
        return self._days[day]


@kernel
def _intervals(W, epoch, to, x, first, last, model, q, phi, noise, prior):
    """Fill transition, process noise (n, 6, 6) and predicted state (n, 6) from states ``first`` to ``last`` (excluded),
    each from its ``epoch`` to the time ``to``, TAI ns.
    """
    zero = np.zeros(36)
    for start in range(first, last, LANES):
        size = min(LANES, last - start)
        for k in range(2):
            for m in range(size):
                i = start + m
                since = (epoch[i] - model.ref_ns) * 1e-9
                load_track(W, m, x[i], zero, since, (to[i] - epoch[i]) * 1e-9, model.terms[2], model.terms[3])
            for m in range(size, LANES):
                W[LEFT + m] = 0.0
            if k == 0:
                predict_lanes(W, model, q)
                for m in range(size):
                    take_lower(W, P, m, noise[start + m])
                    for a in range(6):
                        for b in range(a):
                            noise[start + m, b, a] = noise[start + m, a, b]
            else:
                transit_lanes(W, model)
        for m in range(size):
            for a in range(6):
                prior[start + m, a] = W[X + a * LANES + m]
                for b in range(6):
                    phi[start + m, a, b] = W[TOTAL + (6 * a + b) * LANES + m]


@kernel
def smooth_backwards(x, P_, joined, phi, noise, prior, x_out, P_out):
    """The backward pass over n states x (n, 6), P_ (n, 6, 6), into x_out and P_out of the same shapes.

    ``joined`` (n,): whether a state follows from the one before it. ``phi``, ``noise`` (n, 6, 6) and ``prior`` (n, 6):
    from each state to the next one.
    """
    n = x.shape[0]
    M = np.zeros((6, 6))
    S = np.zeros((6, 6))
    A = np.zeros((6, 6))
    G = np.zeros((6, 6))
    D = np.zeros((6, 6))
    y = np.zeros(6)
    x_out[n - 1] = x[n - 1]
    P_out[n - 1] = P_[n - 1]
    for k in range(n - 2, -1, -1):
        x_out[k] = x[k]
        P_out[k] = P_[k]
        if not joined[k + 1]:
            continue
        for i in range(6):  # A = Phi P, M = Phi P Phi' + Q
            for j in range(6):
                A[i, j] = 0.0
                for c in range(6):
                    A[i, j] += phi[k, i, c] * P_[k, c, j]
        for i in range(6):
            for j in range(i + 1):
                M[i, j] = noise[k, i, j]
                for c in range(6):
                    M[i, j] += 0.5 * (A[i, c] * phi[k, j, c] + A[j, c] * phi[k, i, c])
        if not factor(M, S, 6):
            continue
        for row in range(6):  # G' = M^-1 A, a column at a time
            for i in range(6):
                y[i] = A[i, row]
                for c in range(i):
                    y[i] -= S[i, c] * y[c]
                y[i] /= S[i, i]
            for i in range(5, -1, -1):
                for c in range(i + 1, 6):
                    y[i] -= S[c, i] * y[c]
                y[i] /= S[i, i]
            for i in range(6):
                G[row, i] = y[i]
        for i in range(6):
            for c in range(6):
                x_out[k, i] += G[i, c] * (x_out[k + 1, c] - prior[k, c])
        for i in range(6):  # D = I - G Phi
            for j in range(6):
                D[i, j] = 1.0 if i == j else 0.0
                for c in range(6):
                    D[i, j] -= G[i, c] * phi[k, c, j]
        for i in range(6):
            for j in range(i + 1):
                M[i, j] = 0.0
        _add_square(D, P_[k], A, M)
        for i in range(6):
            for j in range(6):
                D[i, j] = noise[k, i, j] + P_out[k + 1, i, j]
        _add_square(G, D, A, M)
        if factor(M, S, 6):
            for i in range(6):
                for j in range(i + 1):
                    P_out[k, i, j] = M[i, j]
                    P_out[k, j, i] = M[i, j]
        else:
            x_out[k] = x[k]


@kernel
def _add_square(T, C, A, M):
    """Add T C T' to the lower triangle of M; C symmetric, A to work in."""
    for i in range(6):
        for j in range(6):
            A[i, j] = 0.0
            for c in range(6):
                A[i, j] += T[i, c] * C[c, j]
    for i in range(6):
        for j in range(i + 1):
            for c in range(6):
                M[i, j] += 0.5 * (A[i, c] * T[j, c] + A[j, c] * T[i, c])


class States(Protocol):
    """TRACK_STATE[n] that is read and written in parts."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> StructArray: ...

    def __setitem__(self, part: slice, states: StructArray) -> None: ...


def smooth_in_place(states: States, dynamics_at: Callable[[int], Dynamics], psd: float) -> None:
    """Put the states of one track after the fact in the place of those that the tracker gave, in order of time.

    Args:
        states: a state without an update that is no coast begins a new run.
        dynamics_at: the dynamics for the day of a time, TAI ns.
        psd: process noise of the filter, m^2/s^3.
    """
    for start in reversed(range(0, len(states), BLOCK)):
        # and the first of the block after it, which is smoothed already
        block = np.asarray(states[start : start + BLOCK + 1])
        own = min(BLOCK, len(states) - start)
        states[start : start + own] = _smoothed(block, dynamics_at, psd)[:own]


def smooth_states(states: StructArray, dynamics_at: Callable[[int], Dynamics], psd: float) -> StructArray:
    """The states of one track after the fact, TRACK_STATE[n], see `smooth_in_place`."""
    out = states.copy()
    smooth_in_place(out, dynamics_at, psd)
    return out


def _smoothed(block: StructArray, dynamics_at: Callable[[int], Dynamics], psd: float) -> StructArray:
    n = len(block)
    epoch = np.ascontiguousarray(block["epoch_ns"])
    x, P_ = np.ascontiguousarray(block["x"]), np.ascontiguousarray(block["P"])
    coasting = block["status"] == Status.COASTING
    joined = np.isfinite(block["nis"]) | coasting
    joined[1:] &= epoch[1:] >= epoch[:-1]
    to = np.append(epoch[1:], epoch[-1])
    to[:-1] = np.where(joined[1:], to[:-1], epoch[:-1])
    phi, noise, prior = np.zeros((n, 6, 6)), np.zeros((n, 6, 6)), np.zeros((n, 6))
    W = workspace()
    day = epoch // DAY_NS
    edges = [0, *(np.flatnonzero(np.diff(day)) + 1).tolist(), n]
    for first, last in pairwise(edges):
        model = dynamics.alone(dynamics_at(int(epoch[first])))
        _intervals(W, epoch, to, x, first, last, model, psd, phi, noise, prior)
    out = block.copy()
    x_out, P_out = np.empty_like(x), np.empty_like(P_)
    smooth_backwards(x, P_, joined, phi, noise, prior, x_out, P_out)
    out["x"], out["P"] = x_out, P_out
    return out


def smooth_measurements(
    measurements: StructArray,
    x: F64,
    P_: F64,
    t_ns: int,
    dynamics_at: Callable[[int], Dynamics],
    psd: float,
    gates: F64 | None = None,
) -> tuple[StructArray, StructArray]:
    """Filter and smooth one track: the states after each measurement as the filter saw them, and after the fact.

    Args:
        measurements: MEASUREMENT[n] of the track in time order, none before ``t_ns``.
        x: its state (6,) at ``t_ns``, TAI ns, m and m/s, GCRF.
        P_: the covariance (6, 6) of that.
        dynamics_at: as for `smooth_states`.
        psd: process noise, m^2/s^3.
        gates: chi-square gates (5,) by degrees of freedom; a measurement outside makes no state. None: all are taken.

    Returns:
        Two TRACK_STATE arrays with as many rows as there were updates.
    """
    n = len(measurements)
    z = np.ascontiguousarray(measurements).view(np.float64).reshape(n, COLUMNS)
    ms = Measurements(
        z,
        np.ascontiguousarray(measurements["t_meas_ns"]),
        np.ascontiguousarray(measurements["sensor"]),
        np.ascontiguousarray(measurements["channels"]),
    )
    W, room = workspace(), make_room(1, 1)
    limits = np.full(5, np.inf) if gates is None else gates
    at_x, at_P, epoch = np.array([x]), np.asarray(P_).reshape(1, 36).copy(), np.array([t_ns])
    states = np.zeros(n, TRACK_STATE)
    made = 0
    for row in range(n):
        model = dynamics.alone(dynamics_at(int(epoch[0])))
        room.rows[0] = row
        try_pairs(W, 1, room.slots, room.rows, at_x, at_P, epoch, ms.z, ms.t, ms.channels, model, psd,
                  limits, gates is not None, room.trials)  # fmt: skip
        trials = room.trials
        degrees = bin(int(trials.used[0]) & 5).count("1") + (2 if trials.used[0] & 2 else 0)
        if not (np.isfinite(trials.nis[0]) and trials.nis[0] <= limits[degrees]):
            continue
        at_x[:], at_P[:], epoch[0] = trials.x[0], trials.P[0], ms.t[row]
        state = states[made]
        state["epoch_ns"] = state["last_ob_ns"] = epoch[0]
        state["status"] = Status.CONFIRMED
        state["x"], state["P"] = at_x[0], at_P[0].reshape(6, 6)
        state["nis"], state["dof"], state["updates"] = trials.nis[0], degrees, made + 1
        made += 1
    states = states[:made]
    return states, smooth_states(states, dynamics_at, psd)
