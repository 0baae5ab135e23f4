"""Hold-back by measurement time: sensors and links have their own delays, the tracker wants one order.

The order is (t_meas, sensor, seq, arrival), whatever way the measurements came in batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.sequence import in_order
from fusionnode.core.types import MEASUREMENT, StructArray

_NEVER = -(1 << 63)


class Ordering:
    """Holds measurements until they are released in order; counts and drops late ones and duplicates.

    A duplicate has the sensor, number and time of an earlier one. Late ones that are at most ``late_age_ns`` older than
    what was released last are put aside for `take_late`; older ones are refused.

    ``names`` are the sensors' names, by the index that measurements carry.
    """

    def __init__(
        self, hold_back_ns: int, names: Sequence[str], outcomes: Outcomes, late_age_ns: int = 0
    ) -> None:
        if hold_back_ns < 0 or late_age_ns < 0:
            raise ValueError("hold_back_ns and late_age_ns are 0 or more")
        self._late_age_ns = late_age_ns
        self._late: list[StructArray] = []  # put aside, in order of arrival
        self._hold_back_ns = hold_back_ns
        self._names = tuple(names)
        self._outcomes = outcomes
        self._held: list[StructArray] = []  # in order of arrival, none empty
        self._oldest_ns = -_NEVER
        self.newest_ns: int | None = None
        """Latest t_meas pushed so far, TAI ns."""
        self.released_to_ns: int = _NEVER
        """Measurements at or before this are late."""

    @property
    def horizon_ns(self) -> int | None:
        """The newest measurement's time less the hold-back: up to here, `release` may be called."""
        return None if self.newest_ns is None else self.newest_ns - self._hold_back_ns

    @property
    def oldest_ns(self) -> int | None:
        """Time of the oldest that is held, TAI ns; None if none is."""
        return self._oldest_ns if self._held else None

    @property
    def pending(self) -> npt.NDArray[np.int64]:
        """How many are held, by sensor index."""
        counts = np.zeros(len(self._names), np.int64)
        for batch in (*self._held, *self._late):
            counts += np.bincount(batch["sensor"], minlength=len(counts))
        return counts

    def __len__(self) -> int:
        return sum(map(len, self._held))

    def push(self, measurements: StructArray) -> int:
        """Take MEASUREMENT[n]; the number of those that are too late, which are counted and dropped."""
        if len(measurements) == 0:
            return 0
        late = measurements["t_meas_ns"] <= self.released_to_ns
        n_late = 0
        if late.any():
            n_late = self._put_aside(measurements[late])
            measurements = measurements[~late]
            if len(measurements) == 0:
                return n_late
        times = measurements["t_meas_ns"]
        newest = int(times.max())
        self.newest_ns = newest if self.newest_ns is None else max(self.newest_ns, newest)
        self._oldest_ns = min(self._oldest_ns, int(times.min()))
        self._held.append(measurements.copy())
        return n_late

    def begin(self, t_ns: int) -> None:
        """If nothing was released yet, what is not later than ``t_ns`` is late from the beginning."""
        if self.released_to_ns == _NEVER:
            self.released_to_ns = t_ns

    def take_late(self) -> StructArray:
        """MEASUREMENT[n] that came late, but not too late, since the last call; in order of arrival."""
        late, self._late = self._late, []
        return np.concatenate(late) if late else np.zeros(0, MEASUREMENT)

    def _put_aside(self, late: StructArray) -> int:
        """Keep what is not too late; how many were."""
        too_late = late["t_meas_ns"] <= self.released_to_ns - self._late_age_ns
        if too_late.any():
            self._count(late[too_late], Outcome.LATE)
            late = late[~too_late]
        if len(late):
            self._late.append(late)
        return int(np.count_nonzero(too_late))

    def release(self, up_to_ns: int) -> StructArray:
        """MEASUREMENT[m], in order, with t_meas <= ``up_to_ns``; what comes later from before it is late."""
        self.released_to_ns = max(self.released_to_ns, up_to_ns)
        if up_to_ns < self._oldest_ns:
            return np.zeros(0, MEASUREMENT)
        held = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        due = held["t_meas_ns"] <= up_to_ns
        if due.all():
            self._held, self._oldest_ns = [], -_NEVER
        else:
            kept = held[~due]
            self._held, self._oldest_ns = [kept], int(kept["t_meas_ns"].min())
            held = held[due]
        return self._in_order(held)

    def refuse_after(self, t_ns: int) -> None:
        """Drop what is held from after ``t_ns``, as in the future: no clock ever came near it."""
        for i, batch in enumerate(self._held):
            wild = batch["t_meas_ns"] > t_ns
            if wild.any():
                self._count(batch[wild], Outcome.TIME_IN_FUTURE)
                self._held[i] = batch[~wild]
        self._held = [batch for batch in self._held if len(batch)]
        self._oldest_ns = min((int(b["t_meas_ns"].min()) for b in self._held), default=-_NEVER)
        if self.newest_ns is not None:
            self.newest_ns = min(self.newest_ns, t_ns)

    def flush(self) -> StructArray:
        """Everything held, in order."""
        return np.zeros(0, MEASUREMENT) if self.newest_ns is None else self.release(self.newest_ns)

    def _in_order(self, due: StructArray) -> StructArray:
        due, repeated = in_order(due)
        if repeated is None:
            return due
        self._count(due[repeated], Outcome.DUPLICATE)
        return due[~repeated]

    def _count(self, measurements: StructArray, outcome: Outcome) -> None:
        counts = np.bincount(measurements["sensor"], minlength=len(self._names))
        for sensor in np.flatnonzero(counts):
            self._outcomes.add(self._names[sensor], outcome, int(counts[sensor]))
