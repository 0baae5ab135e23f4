"""Where two orbits come together: the moment, the gap, and the change of velocity that would join them.

Both states, with their covariances, are taken along a grid of times by the filter's prediction, so that process noise
counts. Nothing here changes the picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.track.distance import distance2
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.picture import Picture, Rules, make_picture

F64 = npt.NDArray[np.float64]

MOST_OLD = 15
"""Orbits that can be held against one at a time."""
_GRID = 48
_FINER = 8
_AS_GOOD = 9.0
"""What is no worse than the best by so much (chi-square) is as good: three sigma."""


class Orbit(NamedTuple):
    """A state and its covariance at a time."""

    x: F64  # (6,) m, m/s, GCRF
    P: F64  # (36,)
    t_ns: int


class Crossing(NamedTuple):
    """Two orbits at one time; ``new`` less ``old``."""

    t_ns: int
    from_ns: int
    to_ns: int
    """The bounds within which the orbits fit as well."""
    gap: F64  # (3,) m
    gap_sigma_m: float
    """Along the largest axis of the gap's covariance."""
    d2: float
    """Squared normalised gap: chi-square of three degrees of freedom if the orbits do cross."""
    delta_v: F64  # (3,) m/s, given that they cross
    delta_v_cov: F64  # (3, 3)

    @property
    def delta_v_d2(self) -> float:
        """Squared normalised change of velocity; 0 where its covariance is none."""
        d2 = distance2(self.delta_v, self.delta_v_cov)
        return d2 if np.isfinite(d2) else 0.0

    @property
    def delta_v_sigma_m_s(self) -> float:
        """Standard deviation of the change of velocity along itself."""
        size = float(np.linalg.norm(self.delta_v))
        along = self.delta_v / size if size > 0.0 else np.array([1.0, 0.0, 0.0])
        return float(np.sqrt(max(float(along @ self.delta_v_cov @ along), 0.0)))


class Bench:
    """Room to take a few orbits along without touching the picture: by the plain filter's prediction, whatever the
    tracks are filtered with.
    """

    def __init__(self) -> None:
        self._engine = NumbaEngine()
        self._room: Picture = make_picture(MOST_OLD + 1)

    def burn(self, old: Orbit, new: Orbit, from_ns: int, to_ns: int, rules: Rules) -> Crossing:
        """The impulsive change from ``old`` to ``new`` between two times that explains both best.

        The time is where the gap is least in units of its sigma. The change of velocity is the conditional mean of the
        difference given that there is no gap (Bar-Shalom, Li & Kirubarajan, Estimation with Applications, section
        1.4.14), which a plain difference of two uncertain velocities is far from.
        """
        times = _times(from_ns, to_ns, _GRID)
        found = [self._at(t, rules, old, new) for t in times]
        best = int(np.argmin([c.d2 for c in found]))
        low, high = times[max(best - 1, 0)], times[min(best + 1, len(times) - 1)]
        if high > low:
            found += [self._at(t, rules, old, new) for t in _times(low, high, _FINER)]
        least = min(found, key=lambda c: (c.d2, c.t_ns))
        fitting = [c.t_ns for c in found if c.d2 <= least.d2 + _AS_GOOD]
        return least._replace(from_ns=min(fitting), to_ns=max(fitting))

    def carried(self, orbit: Orbit, t_ns: int, rules: Rules) -> Orbit:
        """What ``orbit`` is at ``t_ns``."""
        self._put(0, orbit)
        self._predict(np.array([0]), t_ns, rules)
        return self._take(0)

    def closest(
        self,
        old: list[Orbit],
        since_ns: list[int],
        new: Orbit,
        to_ns: int,
        step_s: float,
        near_m: float,
        rules: Rules,
    ) -> list[tuple[int, Crossing]]:
        """The passages of ``new`` by each of up to `MOST_OLD` orbits, each since its ``since_ns`` and until ``to_ns``:
        index and closest approach, of those that came within ``near_m`` or six sigma.
        """  # fmt: skip
        n = len(old)
        self._put(0, new)
        for i, orbit in enumerate(old):
            self._put(1 + i, orbit)
        slots = np.arange(n + 1)
        times = _times(min(since_ns), to_ns, max(2, int((to_ns - min(since_ns)) * 1e-9 / step_s) + 1))[::-1]
        xs, Ps = np.empty((len(times), n + 1, 6)), np.empty((len(times), n + 1, 36))
        for k, t in enumerate(times):
            self._predict(slots, t, rules)
            xs[k], Ps[k] = self._room.x[: n + 1], self._room.P[: n + 1]
        apart = np.linalg.norm(xs[:, 1:, :3] - xs[:, :1, :3], axis=2)
        speed = np.linalg.norm(xs[:, 1:, 3:] - xs[:, :1, 3:], axis=2)
        spread = Ps[:, 1:] + Ps[:, :1]
        sigma = np.sqrt(spread[:, :, 0] + spread[:, :, 7] + spread[:, :, 14])
        out = []
        for i in range(n):
            d = apart[:, i]
            held = sum(t >= since_ns[i] for t in times)  # the first ones: time runs back
            for k in range(held):
                if (k > 0 and d[k - 1] < d[k]) or (k + 1 < held and d[k + 1] < d[k]):
                    continue
                if d[k] > near_m + 6.0 * sigma[k, i] + speed[k, i] * step_s:
                    continue
                a = Orbit(xs[k, 1 + i], Ps[k, 1 + i], times[k])
                b = Orbit(xs[k, 0], Ps[k, 0], times[k])
                out.append((i, self._approach(a, b, since_ns[i], to_ns, rules)))
        return out

    def ahead(self, orbit: Orbit, t_ns: int, rules: Rules) -> Orbit:
        """An orbit at another time."""
        self._put(0, orbit)
        self._predict(np.arange(1), t_ns, rules)
        return self._take(0)

    def _approach(self, old: Orbit, new: Orbit, from_ns: int, to_ns: int, rules: Rules) -> Crossing:
        """Closest approach, from a time near it (relative motion taken as straight, twice)."""
        t = new.t_ns
        for _ in range(2):
            d = self.ahead(new, t, rules).x - self.ahead(old, t, rules).x
            v2 = float(d[3:] @ d[3:])
            if v2 > 0.0:
                t = int(min(max(t - int(1e9 * float(d[:3] @ d[3:]) / v2), from_ns), to_ns))
        return self._at(t, rules, old, new)

    def _at(self, t_ns: int, rules: Rules, old: Orbit, new: Orbit) -> Crossing:
        self._put(0, old)
        self._put(1, new)
        self._predict(np.arange(2), t_ns, rules)
        d = self._room.x[1] - self._room.x[0]
        S = (self._room.P[0] + self._room.P[1]).reshape(6, 6)
        try:
            gain = np.linalg.solve(S[:3, :3], S[:3, 3:]).T
            sigma = float(np.sqrt(max(np.linalg.eigvalsh(S[:3, :3])[-1], 0.0)))
        except np.linalg.LinAlgError:  # a state that is not a number, or none at all
            gain, sigma = np.zeros((3, 3)), np.inf
        return Crossing(
            t_ns=t_ns,
            from_ns=t_ns,
            to_ns=t_ns,
            gap=d[:3].copy(),
            gap_sigma_m=sigma,
            d2=distance2(d[:3], S[:3, :3]),
            delta_v=d[3:] - gain @ d[:3],
            delta_v_cov=S[3:, 3:] - gain @ S[:3, 3:],
        )

    def _predict(self, slots: npt.NDArray[np.int64], t_ns: int, rules: Rules) -> None:
        # the rows here are not the picture's: its tracks' coefficients are none of ours, and stay as they are
        plain = rules._replace(model=rules.model._replace(estimate=False))
        self._engine.predict(self._room, slots, t_ns, plain)

    def _put(self, slot: int, orbit: Orbit) -> None:
        self._room.x[slot], self._room.P[slot], self._room.epoch[slot] = orbit

    def _take(self, slot: int) -> Orbit:
        return Orbit(self._room.x[slot].copy(), self._room.P[slot].copy(), int(self._room.epoch[slot]))


def _times(from_ns: int, to_ns: int, n: int) -> list[int]:
    """``n`` times from the one to the other, whole nanoseconds."""
    if to_ns <= from_ns:
        return [from_ns]
    return [from_ns + (to_ns - from_ns) * k // (n - 1) for k in range(n)]
