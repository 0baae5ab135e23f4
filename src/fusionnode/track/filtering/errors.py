"""What is known of the errors of sensors that a filter carries beside a track's state (see `consider`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.config import Sensor

F64 = npt.NDArray[np.float64]
AGAIN = 10.0
"""A sensor that gave nothing that could be used for so many revisits pulls in again."""


class Errors(NamedTuple):
    """What the errors of sensors are like; S sensors, E errors of one: four channels of each kind."""

    sigma: F64  # (S, E) m, rad, rad, m/s
    times_s: F64  # (S, E) correlation times
    estimated: npt.NDArray[np.bool_]  # (S, E) estimated, not only considered
    pull_in: F64  # (S,) how much larger noise and wander are when the sensor begins to follow an object
    pull_in_s: F64  # (S,) and over what time that dies away
    again_s: F64  # (S,) after so long without it a sensor begins again


def make_errors(sensors: Iterable[Sensor], kinds: int, estimated: bool) -> Errors:
    """Of configured sensors, in their order: the biases left, and if there are two ``kinds`` what wanders."""
    all_of_them = list(sensors)
    each = [s.errors(max(kinds, 1), estimated) for s in all_of_them]
    return Errors(
        np.array([e[0] for e in each]),
        np.array([e[1] for e in each]),
        np.array([e[2] for e in each]),
        np.array([s.pull_in_factor if estimated else 1.0 for s in all_of_them]),
        np.array([s.pull_in_s for s in all_of_them]),
        np.array([AGAIN * s.revisit_s for s in all_of_them]),
    )


def as_noise(errors: Errors, measurement: Any) -> Any:
    """A record of MEASUREMENT whose variances hold what wanders too, for a fit that knows of white noise only."""
    wander = errors.sigma[measurement["sensor"], 4:8]
    if not wander.any():
        return measurement
    wide = measurement.copy()
    wide["var"] += wander**2
    return wide
