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
        self._first = self._end = 0  # what is remembered lies in between
        self._memory = np.zeros(0, MEASUREMENT)
        self._t = np.zeros(0, np.int64)
        self._channels = np.zeros(0, np.uint8)
        self._near = np.zeros(0, np.bool_)
        self._make_room(_LEAST_ROOM)

    @property
    def pending(self) -> int:
        """How many measurements wait here for an outcome."""
        return self._end - self._first

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
            more = self._let_go(1)
            gone = gone[0] + more[0], gone[1] + more[1]
        if self._end == len(self._t):
            self._make_room(2 * (self.pending + 1))
        at = self._end
        self._memory[at] = measurement
        self._t[at], self._channels[at], self._near[at] = t_ns, measurement["channels"], near
        self._end += 1
        return self._orbit(W, model), gone

    def _make_room(self, n: int) -> None:
        """Move what is remembered to the front of memory for ``n``."""
        n = max(n, _LEAST_ROOM)
        kept = slice(self._first, self._end)
        memory, t = np.zeros(n, MEASUREMENT), np.zeros(n, np.int64)
        channels, near = np.zeros(n, np.uint8), np.zeros(n, np.bool_)
        count = self.pending
        memory[:count], t[:count] = self._memory[kept], self._t[kept]
        channels[:count], near[:count] = self._channels[kept], self._near[kept]
        self._memory, self._t, self._channels, self._near = memory, t, channels, near
        self._chosen = np.zeros(n, np.bool_)
        self._first, self._end = 0, count

    def _let_go(self, count: int) -> tuple[int, int]:
        near = int(np.count_nonzero(self._near[self._first : self._first + count])) if count else 0
        self._first += count
        return near, count - near

    def _orbit(self, W: npt.NDArray[np.float64], model: Dynamics) -> NewOrbit | None:
        n = self.pending
        if n < self._enough:
            return None
        here = slice(self._first, self._end)
        t, channels, chosen = self._t[here], self._channels[here], self._chosen[:n]
        z = self._memory.view(np.float64).reshape(len(self._memory), COLUMNS)[here]
        if consensus(z, t, channels, n, chosen) < self._enough:
            return None
        used = self._memory[here][chosen]
        k = len(used)
        x, P, keep = np.zeros(6), np.zeros(36), np.zeros((k, 4), np.bool_)
        z = used.view(np.float64).reshape(k, COLUMNS)
        if not fit_arc(W, z, t[chosen], channels[chosen], k, model, self._enough, x, P, keep):
            return None
        if np.sqrt(P[21] + P[28] + P[35]) > self._max_velocity_sigma:
            return None
        rest = ~chosen
        count = n - k
        for column in (self._memory, self._t, self._channels, self._near):
            column[self._first : self._first + count] = column[here][rest]
        self._end = self._first + count
        return NewOrbit(x, P, used)


def can_initiate(measurement: np.void) -> bool:
    """Whether a measurement says where something is, not only in which direction."""
    return bool(measurement["channels"] & Channel.RANGE and measurement["channels"] & Channel.ANGLES)
