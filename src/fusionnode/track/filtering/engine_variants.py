"""The engines other than the plain extended filter, on the same lanes; and the choice of one by the configuration.

They settle no scans by themselves: every scan goes the tracker's general way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.config import Tracking
from fusionnode.core.types import StructArray
from fusionnode.track.association.associate import Log, Measurements, Room
from fusionnode.track.association.settle import Settled
from fusionnode.track.filtering import consider, modes
from fusionnode.track.filtering.engine import Engine, NumbaEngine, SensorErrors
from fusionnode.track.filtering.engine_filterpy import FilterpyEngine
from fusionnode.track.filtering.modes import predict_slots_in_modes, try_pairs_in_modes
from fusionnode.track.filtering.noise import shape_noise
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.filtering.unscented import predict_slots_unscented, try_pairs_unscented
from fusionnode.track.picture import Picture, Rules

F64 = npt.NDArray[np.float64]
_ALIKE = np.ones(4)


class _General(NumbaEngine):
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
        """Nothing is settled here."""
        return Settled(start, False, -1, -1, 0)


class UnscentedEngine(_General):
    """The unscented filter (see `unscented`)."""

    def try_pairs(self, picture: Picture, ms: Measurements, n: int, rules: Rules, room: Room) -> None:
        """See `Engine.try_pairs`."""
        if rules.shaped:
            shape_noise(picture, ms, rules, room, n)
        try_pairs_unscented(
            self._w, n, room.slots, room.rows, picture.x, picture.P, picture.epoch,
            ms.z, ms.t, ms.channels, rules.model, rules.psd, rules.gates, rules.may_drop, room.trials,
        )  # fmt: skip

    def predict(self, picture: Picture, slots: npt.NDArray[np.int64], to_ns: int, rules: Rules) -> None:
        """See `Engine.predict`."""
        predict_slots_unscented(
            self._w, slots, len(slots), to_ns, picture.x, picture.P, picture.epoch, rules.model, rules.psd
        )


class ModesEngine(_General):
    """Two modes of motion that interact (see `modes`)."""

    def try_pairs(self, picture: Picture, ms: Measurements, n: int, rules: Rules, room: Room) -> None:
        """See `Engine.try_pairs`."""
        if rules.shaped:
            shape_noise(picture, ms, rules, room, n)
        try_pairs_in_modes(
            self._w, n, room.slots, room.rows, picture.x, picture.P, picture.beside, picture.epoch,
            ms.z, ms.t, ms.channels, rules.model, rules.psd, rules.manoeuvre_psd, rules.sojourn_s,
            rules.gates, rules.may_drop, room.trials,
        )  # fmt: skip

    def predict(self, picture: Picture, slots: npt.NDArray[np.int64], to_ns: int, rules: Rules) -> None:
        """See `Engine.predict`."""
        predict_slots_in_modes(
            self._w, slots, len(slots), to_ns, picture.x, picture.P, picture.beside, picture.epoch,
            rules.model, rules.psd, rules.manoeuvre_psd, rules.sojourn_s,
        )  # fmt: skip


class ConsideringEngine(_General):
    """Errors of sensors beside the state: biases considered, errors that change estimated (see `consider`)."""

    def try_pairs(self, picture: Picture, ms: Measurements, n: int, rules: Rules, room: Room) -> None:
        """See `Engine.try_pairs`."""
        if rules.shaped:
            shape_noise(picture, ms, rules, room, n)
        consider.try_pairs_considering(
            self._w, n, room.slots, room.rows, picture.x, picture.P, picture.beside, picture.epoch,
            ms.z, ms.t, ms.sensor, ms.channels, rules.model, rules.psd,
            rules.errors, rules.gates, rules.may_drop, room.trials,
        )  # fmt: skip

    def predict(self, picture: Picture, slots: npt.NDArray[np.int64], to_ns: int, rules: Rules) -> None:
        """See `Engine.predict`."""
        consider.predict_slots_considering(
            self._w, slots, len(slots), to_ns, picture.x, picture.P, picture.beside, picture.epoch,
            rules.model, rules.psd, rules.errors, -1, _ALIKE,
        )  # fmt: skip

    def begin(self, picture: Picture, slot: int, used: StructArray, rules: Rules) -> None:
        """See `Engine.begin`."""
        n = len(used)
        consider.begin(
            self._w, np.ascontiguousarray(used).view(np.float64).reshape(n, COLUMNS),
            used["t_meas_ns"].copy(), used["channels"].copy(), used["sensor"].copy(), n, rules.errors,
            rules.model, picture.x[slot], picture.P[slot], picture.beside[slot],
        )  # fmt: skip

    def foresee(
        self, picture: Picture, slot: int, t_ns: int, sensor: int, factor: F64, rules: Rules
    ) -> SensorErrors:
        """See `Engine.foresee`."""
        loud = consider.loudness_of(picture.beside[slot], picture.x[slot], sensor, t_ns, rules.errors)
        consider.predict_slots_considering(
            self._w, np.array([slot]), 1, t_ns, picture.x, picture.P, picture.beside, picture.epoch,
            rules.model, rules.psd, rules.errors, sensor, factor * loud,
        )  # fmt: skip
        return SensorErrors(
            *consider.errors_of(picture.beside[slot], picture.x[slot], sensor, t_ns, rules.errors), loud
        )


def kept_beside(tracking: Tracking) -> int:
    """How many numbers a track keeps beside x and P for what ``tracking`` asks for."""
    if tracking.modes == "imm":
        return modes.BESIDE
    return consider.kept(tracking.error_kinds) if tracking.error_kinds else 0


def make_engine(tracking: Tracking) -> Engine:
    """The arithmetic that ``tracking`` asks for."""
    if tracking.engine == "filterpy":
        return FilterpyEngine()
    if tracking.filter == "ukf":
        return UnscentedEngine()
    if tracking.modes == "imm":
        return ModesEngine()
    if tracking.consider_biases:
        return ConsideringEngine()
    return NumbaEngine()
