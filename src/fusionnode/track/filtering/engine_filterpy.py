"""The same arithmetic by filterpy's extended Kalman filter, one track at a time and in plain numpy.

Slow, short, and written independently of the kernels: the oracle they are held to, and an engine for those who want
to see a textbook filter run through the whole pipeline (``engine = "filterpy"``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from filterpy.kalman import ExtendedKalmanFilter
from numpy.polynomial.legendre import Legendre

from fusionnode.core.types import MEASUREMENT, Channel, StructArray
from fusionnode.track.association.associate import Log, Measurements, Room
from fusionnode.track.association.coarse import refresh_coarse
from fusionnode.track.association.settle import Settled
from fusionnode.track.filtering.engine import SensorErrors, no_errors
from fusionnode.track.filtering.filter import BENT, MOST_ITERATIONS, predict_slots
from fusionnode.track.filtering.sensing import LIGHT_M_S
from fusionnode.track.lanes import workspace
from fusionnode.track.motion.dynamics import MU, Dynamics, alone
from fusionnode.track.motion.zonal import step_length
from fusionnode.track.picture import Picture, Rules

F64 = npt.NDArray[np.float64]

_ALL = int(Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE)
_LEGENDRE = [Legendre.basis(n) for n in range(8)]
_FIRST = [p.deriv() for p in _LEGENDRE]
_SECOND = [p.deriv(2) for p in _LEGENDRE]


def acceleration(r: F64, zonal: F64) -> tuple[F64, F64]:
    """Acceleration (3,), m/s^2, and its gradient (3, 3), 1/s^2, at ``r`` (3,), m; ``zonal`` (8,) from
    zonal.zonal_terms.
    """
    k, c = zonal[:3], zonal[3:]
    d = float(np.linalg.norm(r))
    u = r / d
    s = float(u @ k)
    a, b = -MU / d**2, 0.0
    a_r, a_s, b_s = 2.0 * MU / d**3, 0.0, 0.0
    for n, cn in enumerate(c, start=2):
        t = cn / d ** (n + 2)
        a += t * _FIRST[n + 1](s)
        b -= t * _FIRST[n](s)
        a_r -= (n + 2) / d * t * _FIRST[n + 1](s)
        a_s += t * _SECOND[n + 1](s)
        b_s -= t * _SECOND[n](s)
    ds = (k - s * u) / d
    b_r = (a_s + b_s * s) / d  # the gradient of a potential is symmetric
    gradient = a * (np.eye(3) - np.outer(u, u)) / d
    gradient += np.outer(u, a_r * u + a_s * ds) + np.outer(k, b_r * u + b_s * ds)
    return a * u + b * k, gradient


def step(x: F64, h: float, zonal: F64) -> tuple[F64, F64]:
    """One classical Runge-Kutta step of ``x`` (6,) and of its state transition (6, 6)."""

    def slope(state: F64, phi: F64) -> tuple[F64, F64]:
        acc, gradient = acceleration(state[:3], zonal)
        F = np.zeros((6, 6))
        F[:3, 3:] = np.eye(3)
        F[3:, :3] = gradient
        return np.concatenate([state[3:], acc]), F @ phi

    eye = np.eye(6)
    k1, p1 = slope(x, eye)
    k2, p2 = slope(x + h / 2 * k1, eye + h / 2 * p1)
    k3, p3 = slope(x + h / 2 * k2, eye + h / 2 * p2)
    k4, p4 = slope(x + h * k3, eye + h * p3)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), eye + h / 6 * (p1 + 2 * p2 + 2 * p3 + p4)


def noise(h: float, psd: float) -> F64:
    """Covariance (6, 6) that white acceleration of density ``psd`` (m^2/s^3) adds in ``h`` s."""
    h = abs(h)
    return psd * np.kron(np.array([[h**3 / 3, h**2 / 2], [h**2 / 2, h]]), np.eye(3))


def observe(x: F64, m: Any) -> tuple[F64, F64]:
    """Channels (4,) range, lon, lat, range rate that MEASUREMENT ``m`` would have of ``x``, and H (4, 6).

    Angles are tangents from the measured direction, so that they are measured as zero.
    """
    r, v = x[:3], x[3:]
    tau = float(np.linalg.norm(r - m["site_r"])) / LIGHT_M_S
    back = tau * float(m["target_delay"])
    rho = (r - back * v) - (m["site_r"] - tau * float(m["site_delay"]) * m["site_v"])
    w = v - m["site_v"]
    d = float(np.linalg.norm(rho))
    u = rho / d
    depth = float(rho @ m["los"])
    lon, lat = float(rho @ m["e_lon"]) / depth, float(rho @ m["e_lat"]) / depth
    rate = float(u @ w)
    by_r = np.array([u, (m["e_lon"] - lon * m["los"]) / depth, (m["e_lat"] - lat * m["los"]) / depth])
    H = np.zeros((4, 6))
    H[:3, :3] = by_r
    H[:3, 3:] = -back * by_r
    H[3, :3] = (w - rate * u) / d
    H[3, 3:] = u
    return np.array([d, lon, lat, rate]), H


class _OrbitFilter(ExtendedKalmanFilter):  # type: ignore[misc]
    """filterpy's EKF whose prediction is an orbit, not a matrix."""

    def __init__(self, x: F64, P: F64, channels: int) -> None:
        super().__init__(dim_x=6, dim_z=channels)
        self.x, self.P = x.copy(), P.copy()

    def predict_orbit(self, epoch_ns: int, to_ns: int, model: Dynamics, psd: float) -> None:
        """By our own steps in the zonal tier; the full one's forces are only in the kernels."""
        if model.full:
            x, P, epoch = self.x[None].copy(), self.P.reshape(1, 36).copy(), np.array([epoch_ns])
            model = alone(model)
            predict_slots(workspace(), np.zeros(1, np.int64), 1, to_ns, x, P, epoch, model, psd)
            self.x, self.P = x[0], P[0].reshape(6, 6)
            return
        dt = (to_ns - epoch_ns) * 1e-9
        while dt != 0.0:
            n = int(np.ceil(abs(dt) / step_length(*self.x[:3])))
            h = dt / n if n > 1 else dt
            self._next, self.F = step(self.x, h, model.zonal)
            self.Q = noise(h, psd)
            self.predict()
            dt = dt - h if n > 1 else 0.0

    def predict_x(self, u: Any = 0) -> None:
        self.x = self._next


def _channels(bits: int) -> list[int]:
    return (
        [0] * bool(bits & Channel.RANGE)
        + [1, 2] * bool(bits & Channel.ANGLES)
        + [3] * bool(bits & Channel.RANGE_RATE)
    )


def _measured(m: Any, used: list[int]) -> F64:
    return np.array([m["range_m"], 0.0, 0.0, m["range_rate_m_s"]])[used]


def second_order(x: F64, P: F64, m: Any) -> F64:
    """Variances (4,) that the bend of the channels over ``P`` adds to their noise."""
    rho = x[:3] - m["site_r"]
    d = float(np.linalg.norm(rho))
    along = float(rho @ P[:3, :3] @ rho) / d**2
    across = float(np.trace(P[:3, :3])) - along
    angle = across * along / d**4
    return np.array([0.5 * (across / d) ** 2, angle, angle, across * float(np.trace(P[3:, 3:])) / d**2])


def update(x: F64, P: F64, m: Any, bits: int, x_lin: F64) -> tuple[F64, F64, float, float]:
    """Update ``x``, ``P`` with the channels ``bits`` of ``m``, linearised at ``x_lin``: x, P, NIS, det S."""
    used = _channels(bits)
    kf = _OrbitFilter(x, P, len(used))
    h, H = observe(x_lin, m)
    h, H = h[used], H[used]
    kf.R = np.diag((m["var"] + second_order(x, P, m))[used])
    kf.update(_measured(m, used), HJacobian=lambda _: H, Hx=lambda at: h + H @ (at - x_lin))
    return kf.x, kf.P, float(kf.y @ kf.SI @ kf.y), float(np.linalg.det(kf.S))


def _sound(P: F64) -> bool:
    """Whether ``P`` (6, 6) is finite and positive definite."""
    try:
        sigma = np.sqrt(np.diag(P))
        return bool(np.isfinite(np.linalg.cholesky(P / np.outer(sigma, sigma))).all())
    except np.linalg.LinAlgError:
        return False


class FilterpyEngine:
    """filterpy's filters, one by one; see `engine.Engine`. What comes out with no sound covariance is refused."""

    def __init__(self) -> None:
        self._refused = 0

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
        """Nothing is settled here: every scan goes the tracker's general way."""
        return Settled(start, False, -1, -1, 0)

    def try_pairs(self, picture: Picture, ms: Measurements, n: int, rules: Rules, room: Room) -> None:
        """See `Engine.try_pairs`."""
        records: StructArray = ms.z.view(MEASUREMENT).reshape(-1)
        for i in range(n):
            slot, row = room.slots[i], room.rows[i]
            m = records[row]
            kf = _OrbitFilter(picture.x[slot], picture.P[slot].reshape(6, 6), 4)
            kf.predict_orbit(int(picture.epoch[slot]), int(ms.t[row]), rules.model, rules.psd)
            out = self._trial(kf.x, kf.P, m, int(ms.channels[row]), rules)
            ahead = float(m["los"] @ (kf.x[:3] - m["site_r"])) > 0.0
            room.trials.x[i], room.trials.P[i] = out[0], out[1].reshape(36)
            sound = _sound(out[1])
            self._refused += not sound
            room.trials.nis[i] = out[2] if ahead and sound else np.inf
            room.trials.det[i], room.trials.used[i] = out[3], out[4]

    def _trial(self, x: F64, P: F64, m: Any, bits: int, rules: Rules) -> tuple[F64, F64, float, float, int]:
        new_x, new_P, nis, det = update(x, P, m, bits, x)
        inside = nis <= rules.gates[len(_channels(bits))]
        if not inside and rules.may_drop and bits == _ALL:
            for drop in (Channel.RANGE, Channel.RANGE_RATE, Channel.ANGLES):
                fewer = update(x, P, m, bits ^ drop, x)
                if fewer[2] <= rules.gates[len(_channels(bits ^ drop))]:
                    (new_x, new_P, nis, det), bits, inside = fewer, bits ^ drop, True
                    break
        x_lin = x
        used = _channels(bits)
        for _ in range(MOST_ITERATIONS if inside else 0):
            h, H = observe(x_lin, m)
            bend = observe(new_x, m)[0] - h - H @ (new_x - x_lin)
            if not np.sqrt(np.max(bend[used] ** 2 / m["var"][used])) > BENT:
                break
            x_lin = new_x
            new_x, new_P, _, _ = update(x, P, m, bits, x_lin)
        return new_x, new_P, nis, det, bits

    def predict(self, picture: Picture, slots: npt.NDArray[np.int64], to_ns: int, rules: Rules) -> None:
        """See `Engine.predict`."""
        for slot in slots:
            kf = _OrbitFilter(picture.x[slot], picture.P[slot].reshape(6, 6), 4)
            kf.predict_orbit(int(picture.epoch[slot]), to_ns, rules.model, rules.psd)
            picture.x[slot], picture.P[slot], picture.epoch[slot] = kf.x, kf.P.reshape(36), to_ns
            refresh_coarse(picture, slot)

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
        return {"square_root": 0, "refused": self._refused}
