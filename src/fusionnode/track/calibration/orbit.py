"""An orbit over days, and what sensors should have seen of it: the linear model that biases are solved from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.refframes import EARTH_RATE_RAD_S
from fusionnode.core.types import Channel
from fusionnode.track.filtering.filter import load_measurement, load_track
from fusionnode.track.filtering.sensing import COLUMNS, FIRST_COLUMN, linearise_lanes
from fusionnode.track.lanes import LANES, LEFT, TOTAL, X_LIN, H, X, Y, workspace
from fusionnode.track.motion.dynamics import Dynamics, transit_lanes

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

IMPULSE_S = 300.0
"""An acceleration along the track is applied as one push in so many seconds."""
_R, _V, _LOS, _E_LON, _E_LAT = (FIRST_COLUMN + i for i in (0, 3, 6, 9, 12))


class Flow(NamedTuple):
    """An orbit at n times."""

    x: F64  # (n, 6) m, m/s, GCRF
    phi: F64  # (n, 6, 6) derivative by the state at the first time
    push: F64  # (n, 6) derivative by the acceleration along the track, per m/s^2


@kernel
def _flow(W, x0, t0_ns, t, model, along, x, phi, push):
    state = x0.copy()
    total = np.eye(6)
    pushed = np.zeros(6)
    step = np.empty((6, 6))
    zero = np.zeros(36)
    drag, light = model.terms[2], model.terms[3]
    for m in range(LANES):
        load_track(W, m, state, zero, 0.0, 0.0, drag, light)
    now = t0_ns
    for i in range(t.shape[0]):
        while now != t[i]:
            left = (t[i] - now) * 1e-9
            if abs(left) > IMPULSE_S:
                hop = np.sign(left) * IMPULSE_S
                then = now + np.int64(np.round(hop * 1e9))
            else:
                hop = left
                then = t[i]
            load_track(W, 0, state, zero, (now - model.ref_ns) * 1e-9, hop, drag, light)
            transit_lanes(W, model)
            for j in range(6):
                state[j] = W[X + j * LANES]
                for k in range(6):
                    step[j, k] = W[TOTAL + (6 * j + k) * LANES]
            speed = np.sqrt(state[3] ** 2 + state[4] ** 2 + state[5] ** 2)
            total = step @ total
            pushed = step @ pushed
            for j in range(3, 6):
                direction = state[j] / speed
                pushed[j] += hop * direction
                state[j] += along * hop * direction
            now = then
        x[i] = state
        phi[i] = total
        push[i] = pushed


@kernel
def _observe(W, x, z, channels, y, h):
    zero = np.zeros(36)
    n = x.shape[0]
    for start in range(0, n, LANES):
        size = min(LANES, n - start)
        for m in range(size):
            load_track(W, m, x[start + m], zero, 0.0, 0.0, 0.0, 0.0)
            load_measurement(W, m, z[start + m], channels[start + m])
        for m in range(size, LANES):
            W[LEFT + m] = 0.0
        for i in range(6 * LANES):
            W[X_LIN + i] = W[X + i]
        linearise_lanes(W)
        for m in range(size):
            for c in range(4):
                y[start + m, c] = W[Y + c * LANES + m]
                for j in range(6):
                    h[start + m, c, j] = W[H + (6 * c + j) * LANES + m]


class Orbit:
    """The node's own dynamics over an arc. ``model``: Dynamics, for a day not far from the arc."""

    def __init__(self, model: Dynamics) -> None:
        self._model = model
        self._w = workspace()

    def flow(self, x0: F64, t0_ns: int, t_ns: I64, along_m_s2: float) -> Flow:
        """The orbit through ``x0`` (6,) at ``t0_ns`` at the times ``t_ns`` (n,), each after the one before."""
        n = len(t_ns)
        out = Flow(np.empty((n, 6)), np.empty((n, 6, 6)), np.empty((n, 6)))
        _flow(self._w, x0, t0_ns, t_ns, self._model, along_m_s2, out.x, out.phi, out.push)
        return out


_WORKSPACE = workspace()


def observe(x: F64, z: F64, channels: U8) -> tuple[F64, F64]:
    """Measured minus predicted (n, 4) of range, lon, lat, range rate, and the derivative of what is predicted by the
    state (n, 4, 6); states ``x`` (n, 6), measurements ``z`` (n, COLUMNS)."""
    assert z.shape[1] == COLUMNS
    y, h = np.empty((len(x), 4)), np.empty((len(x), 4, 6))
    _observe(_WORKSPACE, x, z, channels, y, h)
    return y, h


def rehearse(model: Dynamics, at: F64, rows: F64) -> None:
    """Run the kernels here: from state ``at`` (6,) at the reference time of ``model``, on measurements ``rows``
    (n, COLUMNS).
    """
    flow = Orbit(model).flow(at, model.ref_ns, model.ref_ns + 10_000_000_000 * np.arange(len(rows)), 0.0)
    observe(flow.x, rows, np.full(len(rows), int(Channel.ANGLES), np.uint8))


def bias_columns(x: F64, z: F64, inertial: npt.NDArray[np.bool_]) -> F64:
    """Derivative (n, 3, 4) of measured range, lon and lat by the bias of range (m), lon (rad), lat (rad) and time
    (s).

    A bias of lon is one of azimuth or right ascension itself, so on the sky it counts times cos(lat). A time stamp
    that is late by tau tells of where the target was tau before. ``inertial``: (n,) where angles are right
    ascension and declination; elsewhere the axes turn with the Earth.
    """
    site, los = z[:, _R : _R + 3], z[:, _LOS : _LOS + 3]
    e_lon, e_lat = z[:, _E_LON : _E_LON + 3], z[:, _E_LAT : _E_LAT + 3]
    up = site / np.linalg.norm(site, axis=1)[:, None]
    sine = np.where(inertial, los[:, 2], np.einsum("ni,ni->n", up, los))
    v = x[:, 3:] - z[:, _V : _V + 3]
    turning = x[:, 3:] - np.cross([0.0, 0.0, EARTH_RATE_RAD_S], x[:, :3])
    seen = np.where(inertial[:, None], v, turning)
    d = x[:, :3] - site
    rho = np.linalg.norm(d, axis=1)
    out = np.zeros((len(x), 3, 4))
    out[:, 0, 0] = out[:, 2, 2] = 1.0
    out[:, 1, 1] = np.sqrt(np.maximum(1.0 - sine * sine, 0.0))
    out[:, 0, 3] = -np.einsum("ni,ni->n", turning, d) / rho
    out[:, 1, 3] = -np.einsum("ni,ni->n", seen, e_lon) / rho
    out[:, 2, 3] = -np.einsum("ni,ni->n", seen, e_lat) / rho
    return out
