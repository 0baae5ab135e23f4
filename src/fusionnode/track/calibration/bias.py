"""What is known of the sensors' biases: arcs added up, with forgetting, and sigmas that the scatter bears out."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.track.calibration.arcs import (
    BIASES,
    CHANNELS,
    Points,
    Prior,
    Propagate,
    Solved,
    Spread,
    Sums,
    solve,
    solve_linear,
)

F64 = npt.NDArray[np.float64]

DAY_NS = 86_400_000_000_000
PRIOR_PASSES = 2.0
"""The spread that is assumed at first counts as so many passes."""
PRIOR_POINTS = 10.0
PRIOR_FREEDOM = 4.0
"""That arcs agree as their sigmas say is worth so many degrees of freedom at first."""
MOST_ALIKE = 0.95
LEAST_BETWEEN = 0.05
"""No pass error is taken to be smaller than this part of what was assumed at first."""


class Limits(NamedTuple):
    """What is assumed before anything is known. Per sensor: (S, ...)."""

    bias_sigma: F64  # (S, 4) m, rad, rad, s
    between: F64  # (S, 3) m, rad on the sky
    within: F64  # (S, 3)
    inertial: npt.NDArray[np.bool_]  # (S,) angles are right ascension and declination
    memory_days: float
    along_sigma_m_s2: float


class BiasEstimator:
    """Biases (measured minus true) of S sensors, from arcs that `arcs.solve` solves one by one.

    Information adds up over arcs and is forgotten with ``memory_days``. What the arcs do not tell keeps the
    prior's sigma. If arcs disagree by more than their sigmas allow, all sigmas grow by as much.
    """

    def __init__(self, limits: Limits) -> None:
        s = len(limits.bias_sigma)
        self._limits = limits
        self.information = np.zeros((s * BIASES, s * BIASES))
        self.weighted = np.zeros(s * BIASES)
        self._prior = np.diag(1.0 / limits.bias_sigma.reshape(-1) ** 2)
        self._between = np.zeros((2, s, CHANNELS))
        self._within = np.zeros((2, s, CHANNELS))
        self._lag = np.zeros((2, s, CHANNELS))
        self._agreement = np.zeros(2)
        self.arcs = 0
        self.failed = 0
        self.passes = np.zeros(s)
        self.t_ns = 0
        self._told: tuple[F64, F64] | None = None

    def spread(self) -> Spread:
        """Pass error and wander of every sensor as known so far."""
        first = self._limits
        between = np.sqrt(
            (PRIOR_PASSES * first.between**2 + self._between[0]) / (PRIOR_PASSES + self._between[1])
        )
        within = np.sqrt(
            (PRIOR_POINTS * first.within**2 + self._within[0]) / (PRIOR_POINTS + self._within[1])
        )
        start = PRIOR_POINTS * first.within**2
        alike = np.clip((0.5 * start + self._lag[0]) / (start + self._lag[1]), 0.0, MOST_ALIKE)
        return Spread(np.maximum(between, LEAST_BETWEEN * first.between), within, alike)

    def _add_sums(self, sums: Sums, sign: float) -> None:
        self._between += sign * np.array([sums.between2, sums.between_n])
        self._within += sign * np.array([sums.within2, sums.within_n])
        self._lag += sign * np.array([sums.lag, sums.lag_n])

    def estimate(self) -> tuple[F64, F64]:
        """Biases (S, 4) and their sigmas (S, 4): m, rad, rad, s."""
        if self._told is None:
            value, covariance = self.joint()
            sigma = np.sqrt(np.diag(covariance)) * np.sqrt(self.disagreement)
            sigma = np.minimum(sigma, self._limits.bias_sigma.reshape(-1))
            self._told = value.reshape(-1, BIASES), sigma.reshape(-1, BIASES)
        return self._told

    def joint(self) -> tuple[F64, F64]:
        """Biases (4S,) and their covariance (4S, 4S), by the arcs' own sigmas."""
        scale = 1.0 / np.sqrt(np.diag(self._prior))
        normal = (self.information + self._prior) * np.outer(scale, scale)
        covariance = np.linalg.inv(normal) * np.outer(scale, scale)
        covariance = 0.5 * (covariance + covariance.T)
        return covariance @ self.weighted, covariance

    @property
    def disagreement(self) -> float:
        """By how much the arcs' squared differences exceed what their sigmas allow; at least 1."""
        return max(1.0, float((PRIOR_FREEDOM + self._agreement[0]) / (PRIOR_FREEDOM + self._agreement[1])))

    def add(
        self,
        points: Points,
        x0: F64,
        t0_ns: int,
        propagate: Propagate,
        reference: tuple[F64, F64] | None = None,
    ) -> Solved | None:
        """Solve an arc and take in what it tells; None (and counted) where it cannot be solved.

        ``x0`` (6,): about where the object was at ``t0_ns``, the time of the first point. ``reference``: its state
        (6,) and covariance (6, 6) then, as somebody else knows them.
        """
        self._told = None
        self.forget(int(points.t[-1]))
        sensors = np.unique(points.sensor)
        at = (sensors[:, None] * BIASES + np.arange(BIASES)).reshape(-1)
        value, covariance = self.joint()
        outside: tuple[F64, F64] | None = None
        if reference is not None:
            # one that is no covariance says nothing
            with suppress(np.linalg.LinAlgError):
                outside = reference[0], np.asarray(np.linalg.inv(reference[1]), np.float64)
        own = np.linalg.inv(covariance[np.ix_(at, at)])
        prior = Prior(own, value[at], self._limits.along_sigma_m_s2, outside)
        found = solve(points, x0, t0_ns, propagate, self.spread(), prior, self._limits.inertial)
        solved = None
        if found is not None:
            # once more, with the spread that the arc itself bears out
            self._add_sums(found[1].sums, 1.0)
            spread = self.spread()
            self._add_sums(found[1].sums, -1.0)
            solved = solve_linear(found[0], points, spread, prior)
        if solved is None or not solved.settled:
            self.failed += 1
            return None
        self._compare(solved, value[at], covariance[np.ix_(at, at)])
        self.information[np.ix_(at, at)] += solved.information
        self.weighted[at] += solved.weighted
        self._add_sums(solved.sums, 1.0)
        self.arcs += 1
        ends = np.flatnonzero(np.diff(points.passage, append=-1))
        np.add.at(self.passes, points.sensor[ends], 1.0)
        return solved

    def forget(self, t_ns: int) -> None:
        """Let what is known age to ``t_ns``, TAI; it never gets younger."""
        if self.t_ns and t_ns > self.t_ns:
            self._told = None
            keep = float(np.exp(-(t_ns - self.t_ns) / (self._limits.memory_days * DAY_NS)))
            for sums in (
                self.information,
                self.weighted,
                self._between,
                self._within,
                self._lag,
                self._agreement,
            ):
                sums *= keep
        self.t_ns = max(self.t_ns, t_ns)

    def _compare(self, solved: Solved, value: F64, covariance: F64) -> None:
        """Does the new arc agree with all before it, as far as both their sigmas go?"""
        gap = solved.weighted - solved.information @ value
        spread = solved.information + solved.information @ covariance @ solved.information
        scale = np.sqrt(np.maximum(np.diag(spread), 1e-300))
        values, vectors = np.linalg.eigh(spread / np.outer(scale, scale))
        good = values > 1e-9
        along = vectors[:, good].T @ (gap / scale)
        square = float(np.sum(np.minimum(along**2 / values[good], 16.0)))
        self._agreement += [square, float(np.count_nonzero(good))]

    # -- what outlives a run

    def export_state(self) -> dict[str, Any]:
        """Plain numbers that `import_state` takes."""
        return {
            "information": self.information.reshape(-1).tolist(),
            "weighted": self.weighted.tolist(),
            "between": self._between.reshape(-1).tolist(),
            "within": self._within.reshape(-1).tolist(),
            "lag": self._lag.reshape(-1).tolist(),
            "agreement": self._agreement.tolist(),
            "arcs": self.arcs,
            "failed": self.failed,
            "passes": self.passes.tolist(),
            "t_ns": self.t_ns,
        }

    def import_state(self, state: dict[str, Any], to: list[int], of: list[int], were: int) -> None:
        """Take up again what was exported by an estimator of ``were`` sensors: its sensors ``of`` are now ``to``."""

        def rows(name: str, *shape: int) -> F64:
            return np.array(state[name], np.float64).reshape(shape)

        self._told = None
        new = np.array(to, np.int64)[:, None] * BIASES + np.arange(BIASES)
        old = np.array(of, np.int64)[:, None] * BIASES + np.arange(BIASES)
        size = were * BIASES
        information, weighted = rows("information", size, size), rows("weighted", size)
        self.information[np.ix_(new.reshape(-1), new.reshape(-1))] = information[
            np.ix_(old.reshape(-1), old.reshape(-1))
        ]
        self.weighted[new.reshape(-1)] = weighted[old.reshape(-1)]
        for name, array in (("between", self._between), ("within", self._within), ("lag", self._lag)):
            array[:, to] = rows(name, 2, were, CHANNELS)[:, of]
        self._agreement[:] = rows("agreement", 2)
        self.passes[to] = rows("passes", were)[of]
        self.arcs, self.failed, self.t_ns = int(state["arcs"]), int(state["failed"]), int(state["t_ns"])
