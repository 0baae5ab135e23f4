"""The arithmetic behind the tracker, in two builds: ours, and filterpy's (see engine_filterpy).

An engine tries pairs, settles plain scans as fast as it can, and predicts. All else is the tracker's.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import StructArray
from fusionnode.track.association.associate import Log, Measurements, Room
from fusionnode.track.association.settle import Settled, settle_scans
from fusionnode.track.filtering.filter import predict_slots, try_pairs
from fusionnode.track.filtering.noise import shape_noise
from fusionnode.track.lanes import TALLY, workspace
from fusionnode.track.picture import Picture, Rules


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

    def mended(self) -> dict[str, int]:
        """See `Engine.mended`."""
        return {"square_root": int(self._w[TALLY]), "refused": int(self._w[TALLY + 1])}
