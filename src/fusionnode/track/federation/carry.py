"""States taken to another time by the node's own dynamics and process noise, beside the tracker, not touching it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.config import Tracking
from fusionnode.track.filtering.filter import predict_slots
from fusionnode.track.lanes import workspace
from fusionnode.track.motion import dynamics
from fusionnode.track.motion.heaven import Earth

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
_DAY_NS = 86_400_000_000_000


class Carry:
    """Calling it gives states at another time.

    Args:
        tracking: says which dynamics, and how much they leave out.
        earth: Earth orientation.
    """

    def __init__(self, tracking: Tracking, earth: Earth) -> None:
        self._tracking = tracking
        self._earth = earth
        self._w = workspace()
        self._day: int | None = None
        self._model: dynamics.Dynamics | None = None

    def __call__(self, x: F64, P: F64, epoch_ns: I64, to_ns: int) -> tuple[F64, F64]:
        """``x`` (n, 6) and ``P`` (n, 6, 6) of ``epoch_ns`` (n,) at ``to_ns``, TAI; the arguments stay as they are."""
        y, C = np.array(x, np.float64), np.array(P, np.float64).reshape(len(x), 36)
        if len(y):
            epochs = np.array(epoch_ns, np.int64)
            psd = self._tracking.process_noise_psd_m2_s3
            predict_slots(self._w, np.arange(len(y)), len(y), to_ns, y, C, epochs, self._at(to_ns), psd)
        return y, C.reshape(-1, 6, 6)

    def _at(self, t_ns: int) -> dynamics.Dynamics:
        """Dynamics that reach some days to both sides of a time's day."""
        day = t_ns // _DAY_NS
        if self._model is None or day != self._day:
            self._day = day
            self._model = dynamics.alone(dynamics.make(self._tracking, self._earth, t_ns))
        return self._model
