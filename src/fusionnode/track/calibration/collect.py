"""Thinned measurements of tracks, kept until their arc can be solved: bounded, in order, and cheap to gather."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel, StructArray
from fusionnode.track.calibration.arcs import Points
from fusionnode.track.filtering.sensing import COLUMNS

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

BOTH = 4
"""Sensors that see one track at the same time and are still told apart when it is thinned."""
PASS_GAP_NS = 600_000_000_000
LOOK_NS = 60_000_000_000
LEAST_POINTS = 3
"""A pass with fewer points is left out."""
SEALED = 64
"""Points that are put into one array when there are as many: memory holds little besides the numbers themselves."""
_ANGLES = int(Channel.ANGLES)
_POINT = np.dtype([("t", "i8"), ("sensor", "i8"), ("channels", "u1"), ("z", "f8", (COLUMNS,))])


class _Kept(NamedTuple):
    track: I64  # (N, BOTH) number and 1
    when: I64  # (N, BOTH) TAI ns


@kernel
def _thin(kept, n, slots, numbers, rows, used, channels, t, sensor, spacing_ns, out):
    count = 0
    for i in range(n):
        row = rows[i]
        # a detection with a channel out of its gate is no witness
        if used[i] != channels[row] or not used[i] & _ANGLES:
            continue
        slot = slots[i]
        at = sensor[row] % kept.when.shape[1]
        if kept.track[slot, at] == numbers[i] + 1 and t[row] - kept.when[slot, at] < spacing_ns:
            continue
        kept.track[slot, at] = numbers[i] + 1
        kept.when[slot, at] = t[row]
        out[count] = i
        count += 1
    return count


class Arc:
    """What is kept of one track."""

    def __init__(self, t_ns: int) -> None:
        self.first_ns = t_ns
        self.last_ns = t_ns
        self._sealed: list[StructArray] = []  # never changed any more: shared with copies
        self._open: list[tuple[int, int, int, F64]] = []  # time, sensor, channels, measurement
        self.x = np.zeros(6)
        self.object = -1

    def twin(self) -> Arc:
        """A copy that goes its own way; what is kept is shared, for it does not change."""
        new = copy(self)
        new._sealed = list(self._sealed)
        new._open = list(self._open)
        return new

    def __len__(self) -> int:
        return SEALED * len(self._sealed) + len(self._open)

    def keep(self, t_ns: int, sensor: int, channels: int, z: F64) -> None:
        """One more point: a measurement (27,) as the kernels see it."""
        self._open.append((t_ns, sensor, channels, z))
        if len(self._open) == SEALED:
            self._sealed.append(np.array(self._open, _POINT))
            self._open = []

    def points(self) -> Points | None:
        """In order of time, cut into passes; None if no pass has enough points."""
        kept = np.concatenate([*self._sealed, np.array(self._open, _POINT)])
        t, sensor, channels = kept["t"], kept["sensor"], kept["channels"]
        passage = np.full(len(t), -1, np.int64)
        begun: list[int] = []
        for s in np.unique(sensor).tolist():
            mine = np.flatnonzero(sensor == s)
            cuts = np.flatnonzero(np.diff(t[mine]) > PASS_GAP_NS) + 1
            for part in np.split(mine, cuts):
                if len(part) >= LEAST_POINTS:
                    passage[part] = len(begun)
                    begun.append(int(t[part[0]]))
        if not begun:
            return None
        # passes in order of their beginnings, points in order of passes: a pass is one run of rows
        rank = np.empty(len(begun), np.int64)
        rank[np.argsort(np.array(begun), kind="stable")] = np.arange(len(begun))
        rows = np.flatnonzero(passage >= 0)
        rows = rows[np.lexsort((t[rows], rank[passage[rows]]))]
        return Points(t[rows], kept["z"][rows], channels[rows], sensor[rows], rank[passage[rows]])


class Collector:
    """Arcs of at most ``tracks`` tracks, each of at most ``points`` points, one point in ``spacing_s`` a sensor."""

    def __init__(self, slots: int, spacing_s: float, tracks: int, points: int) -> None:
        self._kept = _Kept(np.zeros((slots, BOTH), np.int64), np.zeros((slots, BOTH), np.int64))
        self._spacing_ns = round(spacing_s * 1e9)
        self._tracks = tracks
        self._points = points
        self._out = np.zeros(4096, np.int64)
        self._looked_ns = 0
        self.arcs: dict[int, Arc] = {}

    def twin(self, high: int) -> Collector:
        """A copy that goes its own way; slots from ``high`` on were never used."""
        new = copy(self)
        # not zeros_like, which writes to all of it
        new._kept = _Kept(*(np.zeros(array.shape, array.dtype) for array in self._kept))
        new._kept.track[:high], new._kept.when[:high] = self._kept.track[:high], self._kept.when[:high]
        new.arcs = {number: arc.twin() for number, arc in self.arcs.items()}
        return new

    def take(
        self,
        slots: I64,
        numbers: I64,
        rows: I64,
        used: npt.NDArray[np.uint8],
        x: F64,
        objects: I64,
        z: F64,
        t: I64,
        sensor: npt.NDArray[np.int32],
        channels: npt.NDArray[np.uint8],
        undo: Callable[[F64, int, int], tuple[F64, int]],
        alive: Callable[[], I64],
    ) -> None:
        """Updates in order: slot, number, row of the measurement, channels used, state after it, catalogue row; and
        the measurements (z, t, sensor, channels) that the rows are of. ``undo`` gives z and t of a sensor's
        measurement as they were before they were corrected, ``alive`` the numbers of all tracks there are."""
        n = len(slots)
        if n > len(self._out):
            self._out = np.zeros(n, np.int64)
        count = int(
            _thin(self._kept, n, slots, numbers, rows, used, channels, t, sensor, self._spacing_ns, self._out)
        )
        for i in self._out[:count].tolist():
            number, row = int(numbers[i]), int(rows[i])
            arc = self.arcs.get(number)
            if arc is None:
                if len(self.arcs) >= self._tracks and not self._make_room(int(t[row]), alive):
                    continue
                arc = self.arcs[number] = Arc(int(t[row]))
            if len(arc) >= self._points:
                continue
            raw, raw_t = undo(z[row], int(t[row]), int(sensor[row]))
            arc.keep(raw_t, int(sensor[row]), int(channels[row]), raw.copy())
            arc.last_ns = int(t[row])
            arc.x = x[i].copy()
            arc.object = int(objects[i])

    def _make_room(self, t_ns: int, alive: Callable[[], I64]) -> bool:
        """Let go of arcs whose tracks have ended after no more than a pass: they would keep others out until they are
        ripe, and say nothing then. Looks for them at most every `LOOK_NS`.
        """
        if t_ns - self._looked_ns < LOOK_NS:
            return False
        self._looked_ns = t_ns
        there = set(alive().tolist())
        self.arcs = {
            number: arc
            for number, arc in self.arcs.items()
            if number in there or arc.last_ns - arc.first_ns > PASS_GAP_NS
        }
        return len(self.arcs) < self._tracks

    def ripe(self, t_ns: int, length_ns: int) -> tuple[int, Arc] | None:
        """The first arc that is ``length_ns`` old at ``t_ns``; it is kept no longer."""
        for number, arc in self.arcs.items():
            if t_ns - arc.first_ns >= length_ns:
                return number, self.arcs.pop(number)
        return None
