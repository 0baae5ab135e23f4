"""Directions of one sensor that move together across the sky, linked without an orbit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.types import MEASUREMENT, StructArray
from fusionnode.track.filtering.sensing import COLUMNS, FIRST_COLUMN
from fusionnode.track.initiation.attributable import Attributable, attributable

F64 = npt.NDArray[np.float64]

MEMORY = 512
"""Lone directions of a sensor that are remembered at most: every pair of them may be looked at for each new one."""
MOST_POINTS = 128
"""Measurements in a tracklet; a longer one is closed and a new one begun."""
LINKED_BY = 12
"""The newest measurements of a tracklet that foretell its next one."""
GATE_SIGMAS = 4.0

_LOS, _VAR = FIRST_COLUMN + 6, FIRST_COLUMN + 17


@kernel
def agreeing_directions(z, t, n, fastest, chosen):
    """Which of ``n`` directions, in time order, move along one arc with the last one of them.

    Every older direction is taken with the last as the ends of a great circle run through evenly, if that is not
    faster than ``fastest`` (rad/s); the pair that most times in between have a direction for wins. ``z`` (n, 27),
    ``t`` (n,) TAI ns; ``chosen`` (n,) is set. Returns how many were chosen, one a time at most.

    How far from even the motion may be is bounded by five times the square of the rate: a straight pass at an angle
    ``a`` before its middle is slowed by 2 tan(a) of that. To it comes what is left in the highest orbits.
    """
    last = n - 1
    best = 0
    for i in range(n):
        chosen[i] = False
    agrees = np.zeros(n, np.bool_)
    v_last = max(z[last, _VAR + 1], z[last, _VAR + 2])
    for end in range(last):
        if last - end + 1 <= best:
            break
        span = (t[last] - t[end]) * 1e-9
        if span <= 0.0:
            continue
        v_end = max(z[end, _VAR + 1], z[end, _VAR + 2])
        cx = z[end, _LOS + 1] * z[last, _LOS + 2] - z[end, _LOS + 2] * z[last, _LOS + 1]
        cy = z[end, _LOS + 2] * z[last, _LOS] - z[end, _LOS] * z[last, _LOS + 2]
        cz = z[end, _LOS] * z[last, _LOS + 1] - z[end, _LOS + 1] * z[last, _LOS]
        sine = np.sqrt(cx * cx + cy * cy + cz * cz)
        cosine = (
            z[end, _LOS] * z[last, _LOS]
            + z[end, _LOS + 1] * z[last, _LOS + 1]
            + z[end, _LOS + 2] * z[last, _LOS + 2]
        )
        arc = np.arctan2(sine, cosine)
        if arc > fastest * span + GATE_SIGMAS * np.sqrt(v_end + v_last) or arc > 1.0:
            continue
        rate = arc / span
        bend = min(5.0 * rate * rate, fastest * fastest) + 1e-8
        for k in range(n):
            agrees[k] = False
        agrees[end] = True
        count = 2
        held = end
        held_off = 0.0
        for k in range(end + 1, last):
            if t[k] == t[end] or t[k] == t[last]:
                continue
            f = (t[k] - t[end]) * 1e-9 / span
            if sine > 1e-9:
                a = np.sin((1.0 - f) * arc) / sine
                b = np.sin(f * arc) / sine
            else:
                a = 1.0 - f
                b = f
            off2 = 0.0
            for i in range(3):
                d = z[k, _LOS + i] - a * z[end, _LOS + i] - b * z[last, _LOS + i]
                off2 += d * d
            v = max(z[k, _VAR + 1], z[k, _VAR + 2]) + (1.0 - f) ** 2 * v_end + f * f * v_last
            reach = GATE_SIGMAS * np.sqrt(v) + 0.5 * bend * f * (1.0 - f) * span * span
            if off2 > reach * reach:
                continue
            if t[k] == t[held]:
                # two at one time: the nearer one
                if off2 < held_off:
                    agrees[held] = False
                    agrees[k] = True
                    held = k
                    held_off = off2
                continue
            agrees[k] = True
            held = k
            held_off = off2
            count += 1
        if count > best:
            best = count
            for k in range(last):
                chosen[k] = agrees[k]
            chosen[last] = True
    return best


class Tracklet:
    """Measurements of one sensor and presumably one object, in time order; at most `MOST_POINTS`."""

    def __init__(self, rows: StructArray, near: npt.NDArray[np.bool_], motion: Attributable) -> None:
        self.rows, self.near = rows, near
        self.motion = motion

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def last_ns(self) -> int:
        """Time of the newest measurement."""
        return int(self.rows["t_meas_ns"][-1])

    def misses(self, m: np.void) -> float:
        """How far a later measurement is from where this tracklet goes on, in units of its gate; inf if not later."""
        t_ns = int(m["t_meas_ns"])
        if t_ns <= self.last_ns:
            return np.inf
        u, sigma = self.motion.towards(t_ns)
        dt = (t_ns - self.last_ns) * 1e-9
        rate = float(np.linalg.norm(self.motion.rate))
        # the derivative that the polynomial leaves out, bounded as in `agreeing_directions`
        beyond = (5.0 * rate**3 + 1e-12) * dt * (dt + self.motion.span_s) ** 2 / 6.0
        var = float(max(m["var"][1], m["var"][2]))
        off = float(np.linalg.norm(np.cross(u, m["los"])))
        if float(u @ m["los"]) <= 0.0:
            return np.inf
        return off / (GATE_SIGMAS * np.sqrt(var + sigma**2) + min(beyond, 0.05))

    def extended(self, m: np.void, near: bool) -> bool:
        """Take one more measurement; False, and unchanged, if all together are no smooth motion any more."""
        rows = np.append(self.rows, np.array([m], MEASUREMENT))
        motion = smooth(rows[-LINKED_BY:])
        if motion is None:
            return False
        self.rows, self.near, self.motion = rows, np.append(self.near, near), motion
        return True


def smooth(rows: StructArray) -> Attributable | None:
    """The motion of directions that make a smooth one, else None."""
    motion = attributable(rows)
    if motion is None:
        return None
    return motion if motion.dof <= 0 or motion.chi2 <= motion.dof + 5.0 * np.sqrt(2.0 * motion.dof) else None


class Former:
    """One sensor's lone directions, and the tracklets that come of them."""

    def __init__(self, enough: int, fastest_rad_s: float, window_ns: int) -> None:
        self._enough = enough
        self._fastest = fastest_rad_s
        self.window_ns = window_ns
        self._rows = np.zeros(0, MEASUREMENT)
        self._near = np.zeros(0, np.bool_)

    @property
    def pending(self) -> int:
        """Lone directions that wait for others."""
        return len(self._rows)

    @property
    def oldest_ns(self) -> int | None:
        """Time of the oldest of them."""
        return int(self._rows["t_meas_ns"][0]) if len(self._rows) else None

    def forget(self, before_ns: int) -> npt.NDArray[np.bool_]:
        """Let go of what is older; of each whether it had been near a track."""
        return self._let_go(int(np.searchsorted(self._rows["t_meas_ns"], before_ns)))

    def _let_go(self, count: int) -> npt.NDArray[np.bool_]:
        gone = self._near[:count]
        if count:
            self._rows, self._near = self._rows[count:].copy(), self._near[count:].copy()
        return gone

    def add(self, m: np.void, near: bool) -> tuple[Tracklet | None, npt.NDArray[np.bool_]]:
        """Take one more, none older before it: the tracklet that comes of it, and what was let go."""
        gone = self.forget(int(m["t_meas_ns"]) - self.window_ns)
        if len(self._rows) >= MEMORY:
            gone = np.concatenate([gone, self._let_go(len(self._rows) - MEMORY + 1)])
        self._rows = np.append(self._rows, np.array([m], MEASUREMENT))
        self._near = np.append(self._near, near)
        n = len(self._rows)
        chosen = np.zeros(n, np.bool_)
        z = self._rows.view(np.float64).reshape(n, COLUMNS)
        t = np.ascontiguousarray(self._rows["t_meas_ns"])
        if n < self._enough or agreeing_directions(z, t, n, self._fastest, chosen) < self._enough:
            return None, gone
        motion = smooth(self._rows[chosen])
        if motion is None:
            return None, gone
        found = Tracklet(self._rows[chosen], self._near[chosen], motion)
        self._rows, self._near = self._rows[~chosen], self._near[~chosen]
        return found, gone
