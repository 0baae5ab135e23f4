"""The one order in which measurements are taken, whatever way they came: time, sensor, number, arrival."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import MEASUREMENT, StructArray

_COMPARED = [name for name in MEASUREMENT.names or () if name not in ("t_meas_ns", "t_rx_ns")]


def in_order(measurements: StructArray) -> tuple[StructArray, npt.NDArray[np.bool_] | None]:
    """MEASUREMENT[n] sorted by time, sensor and number, and which of them are duplicates, (n,) bool or None: none are.

    A duplicate has the sensor, number and time of one that stood before it in ``measurements``. A sensor that does not
    count sends zeros for numbers: there, only what is equal in all but the time of reception is a duplicate.
    """
    if len(measurements) < 2:
        return measurements, None
    # lexsort is stable: what is equal stays in order of arrival.
    due = measurements[np.lexsort((measurements["seq"], measurements["sensor"], measurements["t_meas_ns"]))]
    same = due["t_meas_ns"][1:] == due["t_meas_ns"][:-1]
    if not same.any():
        return due, None
    same &= (due["sensor"][1:] == due["sensor"][:-1]) & (due["seq"][1:] == due["seq"][:-1])
    numbered = np.flatnonzero(same & (due["seq"][1:] != 0)) + 1
    unnumbered = same & (due["seq"][1:] == 0)
    repeated = np.zeros(len(due), np.bool_)
    repeated[numbered] = True
    if unnumbered.any():
        repeated[_equal_in_all(due, unnumbered)] = True
    return due, repeated if repeated.any() else None


def _equal_in_all(due: StructArray, same: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Of runs that are the ``same`` (n - 1,) as the one before: those equal to an earlier one but for t_rx."""
    suspects = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    parts = [due[name][suspects].reshape(len(suspects), -1).astype(np.float64) for name in _COMPARED]
    parts.insert(0, due["t_meas_ns"][suspects].reshape(-1, 1).view(np.float64))
    rows = np.ascontiguousarray(np.concatenate(parts, axis=1))
    _, first = np.unique(rows.view(f"V{rows.itemsize * rows.shape[1]}").reshape(-1), return_index=True)
    duplicate = np.ones(len(suspects), np.bool_)
    duplicate[first] = False
    return suspects[duplicate]
