"""How well each track's innovations fit: a running sum that rises when they stop to, and states from before.

The sum is Page's test (Page, Continuous inspection schemes, Biometrika 41, 1954) on the NIS: it grows by what the NIS
is above its expectation and an allowance, and is never below zero. The NIS is first divided by how the sensor's
innovations have been lately on all tracks, so that wrong sigmas or a step of a bias, which all of its tracks have,
are no fever of one.

A channel that was left out raises the sum too, for a burn shows in the range rate first; but alone it is not believed.
Where what was used fits on and on, the channel is wrong and not the orbit, and a track that was given back its
freedom then would follow it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.track.filtering.filter import degrees

ALLOWANCE = 1.0
ALARM = 80.0
"""With the allowance, and four degrees of freedom, a sum that starts anew reaches it with a probability of 4e-7."""
LEFT_OUT = 10.0
"""What a channel that was left out as an outlier counts for."""
SHOWN = 3.0
"""So many of its standard deviations must the NIS of what was used be above its expectation since the sum left zero."""
HIGHEST = 2.0 * ALARM
"""The sum goes no higher, or it would take as long to come down as the trouble lasted."""
MOST = 30.0
WARM = 12.0
"""A track whose sum is above may have been led astray already."""
ANCHOR_NS = 20_000_000_000
_MEMORY = 1.0 / 256.0
"""Weight of one innovation in a sensor's mean."""


class Fever(NamedTuple):
    """One row a slot (N), or a sensor (S)."""

    total: npt.NDArray[np.float64]  # (N,) the sum
    nis: npt.NDArray[np.float64]  # (N,) of the innovations since it left zero
    dof: npt.NDArray[np.float64]  # (N,)
    sensor: npt.NDArray[np.int64]  # (N,) that raised it last
    alarm: npt.NDArray[np.bool_]  # (N,)
    held: npt.NDArray[np.bool_]  # (N,) its anchors stay as they are
    anchor_ns: npt.NDArray[np.int64]  # (N, 2) TAI ns, the older first; 0: none
    anchor_x: npt.NDArray[np.float64]  # (N, 2, 6)
    anchor_cov: npt.NDArray[np.float64]  # (N, 2, 36)
    ratio: npt.NDArray[np.float64]  # (S,) mean of NIS over its expectation


def make_fever(capacity: int, sensors: int) -> Fever:
    """All calm."""
    n = capacity
    return Fever(
        total=np.zeros(n),
        nis=np.zeros(n),
        dof=np.zeros(n),
        sensor=np.zeros(n, np.int64),
        alarm=np.zeros(n, np.bool_),
        held=np.zeros(n, np.bool_),
        anchor_ns=np.zeros((n, 2), np.int64),
        anchor_x=np.zeros((n, 2, 6)),
        anchor_cov=np.zeros((n, 2, 36)),
        ratio=np.ones(sensors),
    )


@kernel
def heed(fever, log, ms, n):
    """Take the first ``n`` updates of the log, in order; says how many alarms are new."""
    f = fever
    alarms = 0
    for i in range(n):
        slot = log.slot[i]
        row = log.row[i]
        sensor = ms.sensor[row]
        dof = degrees(log.used[i])
        nis = log.nis[i]
        ratio = max(f.ratio[sensor], 1.0)
        f.ratio[sensor] += _MEMORY * (min(nis / dof, MOST) - f.ratio[sensor])
        score = min(nis, MOST) / ratio - dof - ALLOWANCE
        if log.used[i] != ms.channels[row]:
            score += LEFT_OUT
        if score < 0.0 and f.sensor[slot] != sensor:
            # another sensor finds the track where it should be
            f.total[slot] *= 0.5
        elif score > 0.0:
            f.sensor[slot] = sensor
        f.total[slot] += score
        if f.total[slot] <= 0.0:
            f.total[slot] = 0.0
            f.nis[slot] = 0.0
            f.dof[slot] = 0.0
        else:
            f.total[slot] = min(f.total[slot], HIGHEST)
            f.nis[slot] += nis
            f.dof[slot] += dof
        if f.held[slot]:
            continue
        shown = f.nis[slot] / ratio - f.dof[slot] >= SHOWN * np.sqrt(2.0 * f.dof[slot])
        if f.total[slot] >= ALARM and shown:
            if not f.alarm[slot]:
                alarms += 1
            f.alarm[slot] = True
        elif f.total[slot] == 0.0 and not f.alarm[slot]:
            t = ms.t[row]
            if t - f.anchor_ns[slot, 1] >= ANCHOR_NS:
                f.anchor_ns[slot, 0] = f.anchor_ns[slot, 1]
                f.anchor_ns[slot, 1] = t
                for k in range(6):
                    f.anchor_x[slot, 0, k] = f.anchor_x[slot, 1, k]
                    f.anchor_x[slot, 1, k] = log.x[i, k]
                for k in range(36):
                    f.anchor_cov[slot, 0, k] = f.anchor_cov[slot, 1, k]
                    f.anchor_cov[slot, 1, k] = log.P[i, k]
    return alarms
