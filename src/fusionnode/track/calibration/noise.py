"""How noisy a sensor is from one detection to the next, and whether its configured sigmas should be scaled."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.track.calibration.tally import Tally

F64 = npt.NDArray[np.float64]

ENOUGH = 300.0
"""Innovations that a scale stands on."""
HYSTERESIS = 1.25
"""A scale is changed when it is off by more than this factor."""


class Noise(NamedTuple):
    """What is known of one sensor's noise, by channel (4,): range, lon, lat, range rate."""

    white: F64  # sigma from one detection to the next, as a factor on the sigma that came with them
    consistency: F64  # rms innovation in units of what the filter expected
    correlation: F64  # of neighbouring innovations, -1 to 1: 0 if they are white
    samples: F64


class NoiseKeeper:
    """Scale factors on sigmas, within bounds and with hysteresis.

    The white noise is that of second differences of a track's innovations, in which motion, bias and slow wander
    cancel, robustly averaged (Huber's clip); it is right whatever the configured sigma is. The scale that is
    applied makes the innovations as large as the filter expects them, but is never less than the white noise: a
    filter that follows a sensor's wander has small innovations and yet no reason to trust it more.
    """

    def __init__(self, tally: Tally, adapt: bool, least: float, most: float) -> None:
        self._tally = tally
        self._adapt = adapt
        self._least, self._most = least, most
        self.scales = np.ones_like(tally.white)
        """(S, 4) factors on sigmas."""

    def twin(self, tally: Tally) -> NoiseKeeper:
        """A copy that goes its own way, over another ``tally``."""
        new = copy(self)
        new._tally, new.scales = tally, self.scales.copy()
        return new

    def of(self, sensor: int) -> Noise:
        """What is known of one sensor; factors are on the sigmas before scaling."""
        t, scale = self._tally, self.scales[sensor]
        square = np.maximum(t.square[sensor], 1e-12)
        return Noise(
            np.sqrt(t.white[sensor]) * scale,
            np.sqrt(square),
            np.clip(t.lag[sensor] / square, -1.0, 1.0),
            t.square_n[sensor].copy(),
        )

    def review(self) -> bool:
        """Change the scales that are off by more than the hysteresis; says whether one was."""
        if not self._adapt:
            return False
        t = self._tally
        wanted = np.maximum(np.sqrt(np.maximum(t.square, 1e-12)), np.sqrt(t.white)) * self.scales
        wanted = np.clip(wanted, self._least, self._most)
        off = np.maximum(wanted / self.scales, self.scales / wanted)
        change = (t.square_n >= ENOUGH) & (t.white_n >= ENOUGH) & (off > HYSTERESIS)
        if not change.any():
            return False
        grown = np.where(change, wanted / self.scales, 1.0)
        self.scales = self.scales * grown
        # what was counted in the old units is counted in the new ones; consistency starts afresh
        t.white[:] = t.white / grown**2
        t.square[change], t.lag[change], t.square_n[change] = 1.0, 0.0, 0.0
        # innovations kept to be differenced are in the old units: what follows them must not be
        t.depth[:] = 0
        return True

    def export_state(self) -> dict[str, list[list[float]]]:
        """Plain numbers that `import_state` takes."""
        t = self._tally
        return {
            name: array.tolist()
            for name, array in (
                ("white", t.white), ("white_n", t.white_n), ("square", t.square), ("lag", t.lag),
                ("square_n", t.square_n), ("scales", self.scales),
            )
        }  # fmt: skip

    def import_state(self, state: dict[str, list[list[float]]], to: list[int], of: list[int]) -> None:
        """Rows ``of`` the exported state become those of sensors ``to``."""
        t = self._tally
        for name, array in (
            ("white", t.white), ("white_n", t.white_n), ("square", t.square), ("lag", t.lag),
            ("square_n", t.square_n), ("scales", self.scales),
        ):  # fmt: skip
            array[to] = np.array(state[name])[of]
