"""Hold-back by measurement time: sensors and links have their own delays, the tracker wants one order.

The order is (t_meas, sensor, seq, arrival), whatever way the measurements came in batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import MEASUREMENT, StructArray

_NEVER = -(1 << 63)
_COMPARED = [name for name in MEASUREMENT.names or () if name != "t_rx_ns"]


class Ordering:
    """Holds measurements until they are released in order; counts and drops late ones and duplicates.

    A duplicate has the sensor, number and time of an earlier one.

    ``names`` are the sensors' names, by the index that measurements carry.
    """

    def __init__(self, hold_back_ns: int, names: Sequence[str], outcomes: Outcomes) -> None:
        if hold_back_ns < 0:
            raise ValueError("hold_back_ns is 0 or more")
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
    def pending(self) -> npt.NDArray[np.int64]:
        """How many are held, by sensor index."""
        counts = np.zeros(len(self._names), np.int64)
        for batch in self._held:
            counts += np.bincount(batch["sensor"], minlength=len(counts))
        return counts

    def __len__(self) -> int:
        return sum(map(len, self._held))

    def push(self, measurements: StructArray) -> int:
        """Take MEASUREMENT[n]; the number of late ones, which are counted and dropped."""
        if len(measurements) == 0:
            return 0
        late = measurements["t_meas_ns"] <= self.released_to_ns
        n_late = int(np.count_nonzero(late))
        if n_late:
            self._count(measurements[late], Outcome.LATE)
            measurements = measurements[~late]
            if len(measurements) == 0:
                return n_late
        times = measurements["t_meas_ns"]
        newest = int(times.max())
        self.newest_ns = newest if self.newest_ns is None else max(self.newest_ns, newest)
        self._oldest_ns = min(self._oldest_ns, int(times.min()))
        self._held.append(measurements.copy())
        return n_late

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
        if len(due) < 2:
            return due
        # lexsort is stable: what is equal stays in order of arrival.
        due = due[np.lexsort((due["seq"], due["sensor"], due["t_meas_ns"]))]
        same = due["t_meas_ns"][1:] == due["t_meas_ns"][:-1]
        if not same.any():
            return due
        same &= (due["sensor"][1:] == due["sensor"][:-1]) & (due["seq"][1:] == due["seq"][:-1])
        # a sensor that does not count sends zeros: there, only what is equal in all is the same
        numbered = np.flatnonzero(same & (due["seq"][1:] != 0)) + 1
        unnumbered = same & (due["seq"][1:] == 0)
        repeated = np.zeros(len(due), np.bool_)
        repeated[numbered] = True
        if unnumbered.any():
            repeated[self._equal_in_all(due, unnumbered)] = True
        if not repeated.any():
            return due
        self._count(due[repeated], Outcome.DUPLICATE)
        return due[~repeated]

    def _equal_in_all(self, due: StructArray, same: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Of runs that are the ``same`` (n - 1,) as the one before: those equal to an earlier one but for t_rx."""
        suspects = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        parts = [due[name][suspects].reshape(len(suspects), -1).astype(np.float64) for name in _COMPARED[1:]]
        parts.insert(0, due["t_meas_ns"][suspects].reshape(-1, 1).view(np.float64))
        rows = np.ascontiguousarray(np.concatenate(parts, axis=1))
        _, first = np.unique(rows.view(f"V{rows.itemsize * rows.shape[1]}").reshape(-1), return_index=True)
        duplicate = np.ones(len(suspects), np.bool_)
        duplicate[first] = False
        return suspects[duplicate]

    def _count(self, measurements: StructArray, outcome: Outcome) -> None:
        counts = np.bincount(measurements["sensor"], minlength=len(self._names))
        for sensor in np.flatnonzero(counts):
            self._outcomes.add(self._names[sensor], outcome, int(counts[sensor]))
