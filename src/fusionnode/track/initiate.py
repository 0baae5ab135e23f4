"""From detections that belong to nothing known to new tracks.

Radar: per sensor, a short memory of unassociated measurements; when enough of them agree with one motion, an orbit is
fitted. Any sensor: a measurement that fits a catalogued object's prediction starts that object's track.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.config import Tracking
from fusionnode.core.types import MEASUREMENT, Channel, StructArray
from fusionnode.track.fit import consensus, fit_arc
from fusionnode.track.sensing import COLUMNS


class NewOrbit(NamedTuple):
    """An orbit to start a track from, at the time of the newest measurement it stands on."""

    x: npt.NDArray[np.float64]  # (6,)
    P: npt.NDArray[np.float64]  # (36,)
    used: StructArray  # MEASUREMENT[k], in time order


class Initiator:
    """The memory of one sensor's unassociated measurements, bounded in time and number."""

    def __init__(self, tracking: Tracking) -> None:
        self._enough = tracking.initiation_points
        self._window_ns = int(tracking.initiation_window_s * 1e9)
        self._capacity = tracking.initiation_buffer
        self._max_velocity_sigma = tracking.initiation_max_velocity_sigma_m_s
        self._memory = np.zeros(self._capacity, MEASUREMENT)
        self._near = np.zeros(self._capacity, np.bool_)
        self._n = 0

    @property
    def pending(self) -> int:
        """How many measurements wait here for an outcome."""
        return self._n

    def forget(self, before_ns: int) -> tuple[int, int]:
        """Let go of what is older than ``before_ns``; returns how many had been near a track, and how many not."""
        n = self._n
        old = int(np.searchsorted(self._memory["t_meas_ns"][:n], before_ns))
        return self._let_go(old)

    def add(
        self, measurement: np.void, near: bool, W: npt.NDArray[np.float64], model: npt.NDArray[np.float64]
    ) -> tuple[NewOrbit | None, tuple[int, int]]:
        """Take one more measurement (of this sensor, none older before it); says whether an orbit came of it,
        and how many measurements were let go (near a track, not near one).
        """
        t_ns = int(measurement["t_meas_ns"])
        near_gone, far_gone = self.forget(t_ns - self._window_ns)
        if self._n == self._capacity:
            more = self._let_go(1)
            near_gone, far_gone = near_gone + more[0], far_gone + more[1]
        self._memory[self._n] = measurement
        self._near[self._n] = near
        self._n += 1
        return self._orbit(W, model), (near_gone, far_gone)

    def _let_go(self, count: int) -> tuple[int, int]:
        if count == 0:
            return 0, 0
        near = int(np.count_nonzero(self._near[:count]))
        rest = self._n - count
        self._memory[:rest] = self._memory[count : self._n].copy()
        self._near[:rest] = self._near[count : self._n].copy()
        self._n = rest
        return near, count - near

    def _orbit(self, W: npt.NDArray[np.float64], model: npt.NDArray[np.float64]) -> NewOrbit | None:
        n = self._n
        if n < self._enough:
            return None
        memory = self._memory[:n]
        z = memory.view(np.float64).reshape(n, COLUMNS)
        t = memory["t_meas_ns"].copy()
        channels = memory["channels"].copy()
        chosen = np.zeros(n, np.bool_)
        if consensus(z, t, channels, n, chosen) < self._enough:
            return None
        used = memory[chosen]
        k = len(used)
        x, P, keep = np.zeros(6), np.zeros(36), np.zeros((k, 4), np.bool_)
        z = used.view(np.float64).reshape(k, COLUMNS)
        if not fit_arc(W, z, t[chosen], channels[chosen], k, model, self._enough, x, P, keep):
            return None
        if np.sqrt(P[21] + P[28] + P[35]) > self._max_velocity_sigma:
            return None
        rest = ~chosen
        count = int(np.count_nonzero(rest))
        self._memory[:count] = memory[rest]
        self._near[:count] = self._near[:n][rest]
        self._n = count
        return NewOrbit(x, P, used)


def can_initiate(measurement: np.void) -> bool:
    """Whether a measurement says where something is, not only in which direction."""
    return bool(measurement["channels"] & Channel.RANGE and measurement["channels"] & Channel.ANGLES)
