"""A clutter scene as Stone Soup wants it: its own models, our dynamics, the same noise."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from bench_sky import LAT, LON, NS
from stonesoup.base import Property
from stonesoup.models.measurement.nonlinear import CartesianToElevationBearingRangeRate
from stonesoup.models.transition.base import TransitionModel
from stonesoup.types.array import CovarianceMatrix, StateVector
from stonesoup.types.detection import Detection

from fusionnode.core.kernels import kernel
from fusionnode.core.refframes import enu_itrf
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.initiation.fit import fit_arc
from fusionnode.track.lanes import workspace
from fusionnode.track.motion.dynamics import coarse_step

F64 = npt.NDArray[np.float64]
REACH = 1_500.0
"""Of the k-d tree, in m of range and m/s of range rate; angles add nothing that matters."""
BEGIN = datetime(2025, 11, 24)  # noqa: DTZ001 - Stone Soup's own examples have none


@kernel
def carried(x, dt, model):
    """``x`` (6,) taken ahead by ``dt`` s, and its derivative (6, 6) by central differences, in one call."""
    out = x.copy()
    coarse_step(out[:3], out[3:], dt, model)
    jacobian = np.empty((6, 6))
    for j in range(6):
        h = 10.0 if j < 3 else 0.01
        up, down = x.copy(), x.copy()
        up[j] += h
        down[j] -= h
        coarse_step(up[:3], up[3:], dt, model)
        coarse_step(down[:3], down[3:], dt, model)
        for i in range(6):
            jacobian[i, j] = (up[i] - down[i]) / (2.0 * h)
    return out, jacobian


class Orbit(TransitionModel):  # type: ignore[misc]
    """J2 to J6, and white acceleration."""

    gravity: Any = Property(doc="from dynamics.model, turned into the scene's frame")
    psd: float = Property(doc="m^2/s^3")
    ndim_state = 6

    def function(self, state: Any, noise: Any = False, **kwargs: Any) -> Any:
        """The state after the interval."""
        x = np.asarray(state.state_vector, dtype=float)[:, 0]
        return StateVector(carried(x, kwargs["time_interval"].total_seconds(), self.gravity)[0])

    def jacobian(self, state: Any, **kwargs: Any) -> F64:
        """Its derivative."""
        x = np.asarray(state.state_vector, dtype=float)[:, 0]
        return np.asarray(carried(x, kwargs["time_interval"].total_seconds(), self.gravity)[1])

    def covar(self, time_interval: Any, **_: Any) -> Any:
        """What white acceleration adds."""
        h = time_interval.total_seconds()
        return CovarianceMatrix(self.psd * np.kron([[h**3 / 3, h**2 / 2], [h**2 / 2, h]], np.eye(3)))

    def rvs(self, num_samples: int = 1, **_: Any) -> Any:
        """Never asked for."""
        raise NotImplementedError

    def pdf(self, state1: Any, state2: Any, **_: Any) -> Any:
        """Never asked for."""
        raise NotImplementedError


class Radar(CartesianToElevationBearingRangeRate):  # type: ignore[misc]
    """Stone Soup's model, with a covariance of each detection's own: the k-d tree wants all models of a scan equal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Radar)

    def __hash__(self) -> int:
        return 1


class Frame:
    """Inertial axes up, north, east of the site at the scene's start: no singular direction is in the field of view."""

    def __init__(self, scene: Any) -> None:
        self._s = scene
        to_itrf = scene.sky.orientation.gcrf_to_itrf(scene.times[:1])[0]
        self.turn = (enu_itrf(LAT, LON)[::-1] @ to_itrf).copy()

    def time(self, k: int) -> datetime:
        """Of scan ``k``."""
        return BEGIN + timedelta(seconds=int(self._s.times[k] - self._s.times[0]) / NS)

    def turned(self, x: F64) -> F64:
        """States (n, 6) in these axes."""
        return np.concatenate([x[:, :3] @ self.turn.T, x[:, 3:] @ self.turn.T], axis=1)

    def dynamics(self, psd: float) -> Orbit:
        """The truth's, in these axes."""
        gravity = self._s.sky.gravity
        zonal = gravity.zonal.copy()
        zonal[:3] = self.turn @ zonal[:3]
        return Orbit(gravity=gravity._replace(zonal=zonal), psd=psd)

    def starts(self, scans: int) -> list[tuple[F64, F64]]:
        """State (6,) and covariance (6, 6) of every object at scan ``scans - 1``, from its own detections."""
        W, gravity = workspace(), self._s.sky.gravity
        out = []
        mine = np.concatenate(self._s.scans[:scans]), np.concatenate(self._s.source[:scans])
        order = np.argsort(mine[1], kind="stable")
        first = np.searchsorted(mine[1][order], np.arange(len(self._s.truth[0]) + 1))
        turn = np.kron(np.eye(2), self.turn)
        for one in range(len(first) - 1):
            used = mine[0][order[first[one] : first[one + 1]]]
            n = len(used)
            x, P, keep = np.zeros(6), np.zeros(36), np.zeros((n, 4), np.bool_)
            z = used.view(np.float64).reshape(n, COLUMNS)
            t = used["t_meas_ns"].copy()
            if n < 3 or not fit_arc(W, z, t, used["channels"].copy(), n, gravity, 3, x, P, keep):
                x, P = (
                    self._s.truth[scans - 1][one].copy(),
                    np.diag([300.0] * 3 + [30.0] * 3).reshape(36) ** 2,
                )
                out.append((turn @ x, turn @ P.reshape(6, 6) @ turn.T))
                continue
            after = (self._s.times[scans - 1] - t[-1]) * 1e-9
            x, F = carried(x, after, gravity)
            out.append((turn @ x, turn @ F @ P.reshape(6, 6) @ F.T @ turn.T))
        return out

    def detections(self, k: int) -> list[Detection]:
        """Scan ``k``: elevation, bearing, range, range rate."""
        out = []
        for m in self._s.scans[k]:
            u = self.turn @ m["los"]
            elevation, bearing = np.arcsin(u[2]), np.arctan2(u[1], u[0])
            var = m["var"]
            R = np.diag([var[2], var[1] / np.cos(elevation) ** 2, var[0], var[3]])
            model = Radar(
                ndim_state=6,
                mapping=(0, 1, 2),
                velocity_mapping=(3, 4, 5),
                noise_covar=R,
                translation_offset=StateVector(self.turn @ m["site_r"]),
                velocity=StateVector(self.turn @ m["site_v"]),
            )
            z = StateVector([elevation, bearing, m["range_m"], m["range_rate_m_s"]])
            out.append(Detection(z, timestamp=self.time(k), measurement_model=model))
        return out
