"""The arithmetic behind the tracker, in two builds: ours, and filterpy's (see engine_filterpy).

An engine tries pairs, settles plain scans as fast as it can, and predicts. All else is the tracker's.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import StructArray
from fusionnode.track.association.associate import Log, Measurements, Room
from fusionnode.track.association.settle import Settled, settle_scans
from fusionnode.track.filtering.filter import predict_slots, try_pairs
from fusionnode.track.filtering.noise import shape_noise
from fusionnode.track.lanes import TALLY, workspace
from fusionnode.track.picture import Picture, Rules

F64 = npt.NDArray[np.float64]


class SensorErrors(NamedTuple):
    """What a track expects of the errors of a sensor that it carries beside its state."""

    mean: npt.NDArray[np.float64]  # (4,) by channel: m, rad, rad, m/s
    cross: npt.NDArray[np.float64]  # (6, 4) covariance of the state with them
    own: npt.NDArray[np.float64]  # (4, 4) and their own
    loud: float  # the factor on the variances of its noise


def no_errors() -> SensorErrors:
    """Of a filter that knows of none."""
    return SensorErrors(np.zeros(4), np.zeros((6, 4)), np.zeros((4, 4)), 1.0)


class Engine(Protocol):
    """What the tracker asks of its arithmetic. Arrays are changed in place."""

    def settle(
        self,
        picture: Picture,
        ms: Measurements,
        start: int,
        until_ns: int,
        rules: Rules,
        room: Room,
        log: Log,
    ) -> Settled:
        """As `settle.settle_scans`; may settle nothing."""
        ...

    def try_pairs(self, picture: Picture, ms: Measurements, n: int, rules: Rules, room: Room) -> None:
        """Try the first ``n`` pairs in ``room``, into ``room.trials``."""
        ...

    def predict(self, picture: Picture, slots: npt.NDArray[np.int64], to_ns: int, rules: Rules) -> None:
        """Take the tracks in ``slots`` to ``to_ns``, TAI ns."""
        ...

    def begin(self, picture: Picture, slot: int, used: StructArray, rules: Rules) -> None:
        """The track in ``slot`` was just set to an orbit fitted to MEASUREMENT[n] ``used``."""
        ...

    def foresee(
        self, picture: Picture, slot: int, t_ns: int, sensor: int, factor: F64, rules: Rules
    ) -> SensorErrors:
        """Take the track in ``slot`` to ``t_ns``, TAI ns, as for a trial of a measurement by ``sensor`` (index), on
        whose variances there are ``factor`` (4,); and say what is expected of that sensor's errors.
        """
        ...

    def mended(self) -> dict[str, int]:
        """Trials whose covariance had to be made in ``square_root`` form, and trials ``refused``, so far."""
        ...


class NumbaEngine:
    """As many tracks at a time as there are lanes, compiled."""

    def __init__(self) -> None:
        self._w = workspace()

    def settle(
        self,
        picture: Picture,
        ms: Measurements,
        start: int,
        until_ns: int,
        rules: Rules,
        room: Room,
        log: Log,
    ) -> Settled:
        """See `Engine.settle`."""
        return Settled(*settle_scans(self._w, picture, ms, start, until_ns, rules, room, log))

    def try_pairs(self, picture: Picture, ms: Measurements, n: int, rules: Rules, room: Room) -> None:
        """See `Engine.try_pairs`."""
        if rules.shaped:
            shape_noise(picture, ms, rules, room, n)
        try_pairs(
            self._w, n, room.slots, room.rows, picture.x, picture.P, picture.epoch,
            ms.z, ms.t, ms.channels, rules.model, rules.psd, rules.gates, rules.may_drop, room.trials,
        )  # fmt: skip

    def predict(self, picture: Picture, slots: npt.NDArray[np.int64], to_ns: int, rules: Rules) -> None:
        """See `Engine.predict`."""
        predict_slots(
            self._w, slots, len(slots), to_ns, picture.x, picture.P, picture.epoch, rules.model, rules.psd
        )

    def begin(self, picture: Picture, slot: int, used: StructArray, rules: Rules) -> None:
        """Nothing is to be done."""

    def foresee(
        self, picture: Picture, slot: int, t_ns: int, sensor: int, factor: F64, rules: Rules
    ) -> SensorErrors:
        """None are known."""
        self.predict(picture, np.array([slot]), t_ns, rules)
        return no_errors()

    def mended(self) -> dict[str, int]:
        """See `Engine.mended`."""
        return {"square_root": int(self._w[TALLY]), "refused": int(self._w[TALLY + 1])}
