"""What tracks expect of a measurement before it is used: innovation and its covariance, gate or no gate.

For calibration, acceptance and the curious. It stands beside the hot path: a track is copied, predicted by the same
engine and held against the measurement by the same function; nothing of the picture changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import Channel, StructArray
from fusionnode.track.filtering.engine import Engine
from fusionnode.track.filtering.filter import load_measurement
from fusionnode.track.filtering.noise import noise_of
from fusionnode.track.filtering.sensing import COLUMNS, linearise_lanes, noise_lanes
from fusionnode.track.lanes import LANES, NOISE, ROWS, VAR, X_LIN, H, P, X, Y, workspace
from fusionnode.track.picture import Picture, Rules

F64 = npt.NDArray[np.float64]
CHANNELS = ("range", "lon", "lat", "range_rate")
"""Order of what a measurement holds; angles are on the sky."""


_WORKSPACE = workspace()


class Sighting(NamedTuple):
    """One measurement against one track, the track as it stood before."""

    slot: int
    track: int  # its number
    unseen_ns: int  # since the newest measurement that the track used
    x: F64  # (6,) predicted state, m, m/s, GCRF
    P: F64  # (6, 6) its covariance
    y: F64  # (4,) measured minus predicted, the sensor's errors as they are estimated included: m, rad on the sky,
    # rad, m/s; 0 where a channel is absent
    H: F64  # (4, 6) Jacobian of the measurement
    S: F64  # (4, 4) covariance of y: H P H' + R, second-order terms and the sensor's errors included
    present: npt.NDArray[np.bool_]  # (4,) channels there are
    nis: float  # y' S^-1 y over the channels there are
    dof: int


def sight(
    picture: Picture, engine: Engine, rules: Rules, measurement: StructArray, slots: npt.NDArray[np.int64]
) -> list[Sighting]:
    """MEASUREMENT[1] against the tracks in ``slots``, in their order."""
    z = np.ascontiguousarray(measurement).view(np.float64).reshape(1, COLUMNS)[0]
    t_ns = int(measurement["t_meas_ns"][0])
    channels = int(measurement["channels"][0])
    present = np.array(
        [bool(channels & bit) for bit in (Channel.RANGE, Channel.ANGLES, Channel.ANGLES, Channel.RANGE_RATE)]
    )
    W = _WORKSPACE.copy()
    out = []
    for slot in slots.tolist():
        alone = _alone(picture, slot)
        sensor = int(measurement["sensor"][0])
        shaped = np.ones(8)
        shaped[:4] = measurement["var"][0]
        if rules.shaped:
            noise_of(picture, slot, z, t_ns, sensor, rules, shaped)
        errors = engine.foresee(alone, 0, t_ns, sensor, shaped[:4] / measurement["var"][0], rules)
        x, covariance = alone.x[0], alone.P[0].reshape(6, 6)
        _put(W, X, x)
        _put(W, X_LIN, x)
        _put(W, P, covariance[np.tril_indices(6)])
        load_measurement(W, 0, z, np.uint8(channels))
        W.reshape(ROWS, LANES)[VAR // LANES : VAR // LANES + 4, 0] = shaped[:4] * errors.loud
        noise_lanes(W)
        linearise_lanes(W)
        rows = W.reshape(ROWS, LANES)[:, 0]
        y = np.where(present, rows[Y // LANES : Y // LANES + 4], 0.0)
        jacobian = rows[H // LANES : H // LANES + 24].reshape(4, 6).copy()
        y = y - np.where(present, errors.mean, 0.0)
        both = jacobian @ errors.cross
        S = jacobian @ covariance @ jacobian.T + both + both.T + errors.own
        S += np.diag(rows[NOISE // LANES : NOISE // LANES + 4])
        there = S[np.ix_(present, present)]
        out.append(
            Sighting(
                slot,
                int(picture.number[slot]),
                t_ns - int(picture.last_ob[slot]),
                x,
                covariance,
                y,
                jacobian,
                S,
                present,
                float(y[present] @ np.linalg.solve(there, y[present])),
                int(np.count_nonzero(present)),
            )
        )
    return out


def _put(W: F64, at: int, values: F64) -> None:
    W.reshape(ROWS, LANES)[at // LANES : at // LANES + len(values), 0] = values


def _alone(picture: Picture, slot: int) -> Picture:
    """A picture of the one track in ``slot``, as its slot 0."""
    capacity = len(picture.active)
    columns: list[Any] = []
    for column in picture:
        if column.shape[0] == capacity:
            columns.append(column[slot : slot + 1].copy())
        elif column.ndim == 2 and column.shape[1] == capacity:
            columns.append(column[:, slot : slot + 1].copy())
        else:
            columns.append(column.copy())
    return Picture(*columns)._replace(high=np.ones(1, np.int64))
