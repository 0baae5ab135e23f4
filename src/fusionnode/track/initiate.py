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
from fusionnode.track.dynamics import Dynamics
from fusionnode.track.fit import consensus, fit_arc
from fusionnode.track.near import around, make_cells, remember
from fusionnode.track.sensing import COLUMNS

_LEAST_ROOM = 64


class NewOrbit(NamedTuple):
    """An orbit to start a track from, at the time of the newest measurement it stands on."""

    x: npt.NDArray[np.float64]  # (6,)
    P: npt.NDArray[np.float64]  # (36,)
    used: StructArray  # MEASUREMENT[k], in time order
    sure: bool = False  # so much agrees with it that the track is confirmed from the start


class Initiator:
    """The memory of one sensor's unassociated measurements, bounded in time and number."""

    def __init__(self, tracking: Tracking, revisit_s: float) -> None:
        self._enough = tracking.initiation_points
        # a slow sensor needs longer for as many points
        window_s = max(tracking.initiation_window_s, 1.5 * (tracking.initiation_points + 1) * revisit_s)
        self.window_ns = int(window_s * 1e9)
        self._most = tracking.initiation_buffer
        self._max_velocity_sigma = tracking.initiation_max_velocity_sigma_m_s
        self.pending = 0
        """How many measurements wait here for an outcome."""
        self._first = self._end = 0  # what is remembered lies in between, and is still alive
        self._memory = np.zeros(0, MEASUREMENT)
        self._t = np.zeros(0, np.int64)
        self._channels = np.zeros(0, np.uint8)
        self._near = np.zeros(0, np.bool_)
        self._alive = np.zeros(0, np.bool_)
        self._make_room(_LEAST_ROOM)

    def forget(self, before_ns: int) -> tuple[int, int]:
        """Let go of what is older than ``before_ns``; returns how many had been near a track, and how many not."""
        return self._let_go(int(np.searchsorted(self._t[self._first : self._end], before_ns)))

    def add(
        self, measurement: np.void, near: bool, W: npt.NDArray[np.float64], model: Dynamics
    ) -> tuple[NewOrbit | None, tuple[int, int]]:
        """Take one more measurement (of this sensor, none older before it); says whether an orbit came of it,
        and how many measurements were let go (near a track, not near one).
        """
        t_ns = int(measurement["t_meas_ns"])
        gone = self.forget(t_ns - self.window_ns)
        if self.pending == self._most:
            oldest = int(np.argmax(self._alive[self._first : self._end]))
            more = self._let_go(oldest + 1)
            gone = gone[0] + more[0], gone[1] + more[1]
        if self._end == len(self._t):
            self._make_room(2 * (self.pending + 1))
        at = self._end
        self._memory[at] = measurement
        self._t[at], self._channels[at], self._near[at] = t_ns, measurement["channels"], near
        self._alive[at] = True
        self._end += 1
        self.pending += 1
        remember(self._cells, at, self._z()[at])
        return self._orbit(W, model), gone

    def _make_room(self, n: int) -> None:
        """Move what is remembered and alive to the front of memory for ``n``."""
        n = max(n, _LEAST_ROOM)
        kept = self._first + np.flatnonzero(self._alive[self._first : self._end])
        count = len(kept)
        memory, t = np.zeros(n, MEASUREMENT), np.zeros(n, np.int64)
        channels, near = np.zeros(n, np.uint8), np.zeros(n, np.bool_)
        memory[:count], t[:count] = self._memory[kept], self._t[kept]
        channels[:count], near[:count] = self._channels[kept], self._near[kept]
        self._memory, self._t, self._channels, self._near = memory, t, channels, near
        self._alive = np.zeros(n, np.bool_)
        self._alive[:count] = True
        self._cells = make_cells(n)
        z = self._z()
        for at in range(count):
            remember(self._cells, at, z[at])
        self._first, self._end = 0, count

    def _z(self) -> npt.NDArray[np.float64]:
        """The memory as the kernels see it."""
        return self._memory.view(np.float64).reshape(len(self._memory), COLUMNS)

    def _let_go(self, count: int) -> tuple[int, int]:
        if count == 0:
            return 0, 0
        gone = slice(self._first, self._first + count)
        alive = int(np.count_nonzero(self._alive[gone]))
        near = int(np.count_nonzero(self._near[gone] & self._alive[gone]))
        self._first += count
        self.pending -= alive
        return near, alive - near

    def _orbit(self, W: npt.NDArray[np.float64], model: Dynamics) -> NewOrbit | None:
        if self.pending < self._enough:
            return None
        which = around(self._cells, self._t, self._alive, self._first, self._end - 1)
        n = len(which)
        if n < self._enough:
            return None
        z, t, channels, chosen = (
            self._z()[which],
            self._t[which],
            self._channels[which],
            np.zeros(n, np.bool_),
        )
        if consensus(z, t, channels, n, chosen) < self._enough:
            return None
        which = which[chosen]
        used = self._memory[which]
        k = len(used)
        x, P, keep = np.zeros(6), np.zeros(36), np.zeros((k, 4), np.bool_)
        if not fit_arc(W, z[chosen], t[chosen], channels[chosen], k, model, self._enough, x, P, keep):
            return None
        if np.sqrt(P[21] + P[28] + P[35]) > self._max_velocity_sigma:
            return None
        self._alive[which] = False
        self.pending -= k
        return NewOrbit(x, P, used)


def can_initiate(measurement: np.void) -> bool:
    """Whether a measurement says where something is, not only in which direction."""
    return bool(measurement["channels"] & Channel.RANGE and measurement["channels"] & Channel.ANGLES)
