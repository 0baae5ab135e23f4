"""From detections that belong to nothing known to new tracks.

Radar: per sensor, a short memory of unassociated measurements; when enough of them agree with one motion, an orbit is
fitted. Any sensor: a measurement that fits a catalogued object's prediction starts that object's track.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.config import Tracking
from fusionnode.core.types import MEASUREMENT, Channel, StructArray
from fusionnode.track.association.associate import Measurements
from fusionnode.track.filtering.sensing import COLUMNS, LIGHT_M_S
from fusionnode.track.initiation.angles_only import refine
from fusionnode.track.initiation.fit import consensus, fit_arc, widen_by_bend
from fusionnode.track.initiation.near import around, make_cells, remember, remember_until
from fusionnode.track.motion.dynamics import MU, RADIUS, Dynamics
from fusionnode.track.motion.heights import perigee_m, perigee_sigma_m
from fusionnode.track.motion.kepler import lambert

_LEAST_ROOM = 64
_PLACE = int(Channel.RANGE | Channel.ANGLES)
LEAST_FITTED = 3
"""Detections from which on an orbit is fitted with wild channels left out; fewer have none to spare."""
SHORT_S = 10.0
TWO_LIMIT = 25.0
"""Chi-square that an orbit through two detections may have: of two degrees of freedom at most."""
SPARSE = 64
LONG_S = 120.0
"""So few detections that wait are kept for so long: a noisy radar, or a slow one, needs more than the usual window, and
among so few nothing is found that is not there.
"""
LOWEST_PERIGEE_M = 0.5 * RADIUS
"""Distance from the Earth's centre. What is sure (by three sigma) to come nearer is no satellite and no debris, but an
echo that stands still, or moves with the Earth: a stuck detection falls, by an orbit through it, straight down.
"""
HORIZONTAL, VERTICAL = 0.6, 0.06
"""Variance of the velocity of an object of which one place is known, along each horizontal axis and upwards, over the
square of the circular velocity there: 0.5 and 0 for circular orbits.
"""


class NewOrbit(NamedTuple):
    """An orbit to start a track from, at the time of the newest measurement it stands on."""

    x: npt.NDArray[np.float64]  # (6,)
    P: npt.NDArray[np.float64]  # (36,)
    used: StructArray  # MEASUREMENT[k], in time order
    sure: bool = False  # so much agrees with it that the track is confirmed from the start


class Initiator:
    """The memory of one sensor's unassociated measurements, bounded in time and number."""

    def __init__(self, tracking: Tracking, revisit_s: float) -> None:
        self._enough = tracking.initiation_points
        # a slow sensor needs longer for as many points
        window_s = max(tracking.initiation_window_s, 1.5 * (tracking.initiation_points + 1) * revisit_s)
        self._window_ns = int(window_s * 1e9)
        self._long_ns = max(self._window_ns, int(LONG_S * 1e9))
        self._most = tracking.initiation_buffer
        self._max_velocity_sigma = tracking.initiation_max_velocity_sigma_m_s
        self.pending = 0
        """How many measurements wait here for an outcome."""
        self._first = self._end = 0  # what is remembered lies in between, and is still alive
        self._memory = np.zeros(0, MEASUREMENT)
        self._t = np.zeros(0, np.int64)
        self._channels = np.zeros(0, np.uint8)
        self._near = np.zeros(0, np.bool_)
        self._alive = np.zeros(0, np.bool_)
        self._make_room(_LEAST_ROOM)

    def forget(self, before_ns: int) -> tuple[int, int]:
        """Let go of what is older than ``before_ns``; returns how many had been near a track, and how many not."""
        if self._first == self._end or self._t[self._first] >= before_ns:
            return 0, 0
        return self._let_go(int(np.searchsorted(self._t[self._first : self._end], before_ns)))

    def grow_old(self, t_ns: int) -> tuple[int, int]:
        """It is ``t_ns``: let go of what is older than the window, as long as more than SPARSE wait; and of what is too
        old anyway. As `forget`.
        """
        gone = self.forget(t_ns - self._long_ns)
        before_ns = t_ns - self._window_ns
        if self.pending <= SPARSE or self._t[self._first] >= before_ns:
            return gone
        old = self._alive[self._first : self._end][
            : int(np.searchsorted(self._t[self._first : self._end], before_ns))
        ]
        alive = np.flatnonzero(old)
        surplus = self.pending - SPARSE
        more = self._let_go(len(old) if len(alive) <= surplus else int(alive[surplus - 1]) + 1)
        return gone[0] + more[0], gone[1] + more[1]

    def add(
        self, measurement: np.void, near: bool, W: npt.NDArray[np.float64], model: Dynamics
    ) -> tuple[NewOrbit | None, tuple[int, int]]:
        """Take one more measurement (of this sensor, none older before it); says whether an orbit came of it,
        and how many measurements were let go (near a track, not near one).
        """
        t_ns = int(measurement["t_meas_ns"])
        gone = self.grow_old(t_ns)
        if self.pending == self._most:
            oldest = int(np.argmax(self._alive[self._first : self._end]))
            more = self._let_go(oldest + 1)
            gone = gone[0] + more[0], gone[1] + more[1]
        if self._end == len(self._t):
            self._make_room(2 * (self.pending + 1))
        at = self._end
        self._memory[at] = measurement
        self._t[at], self._channels[at], self._near[at] = t_ns, measurement["channels"], near
        self._alive[at] = True
        self._end += 1
        self.pending += 1
        remember(self._cells, at, self._z()[at])
        if self.pending < self._enough:
            return None, gone
        which = around(self._cells, self._t, self._alive, self._first, at)
        orbit, refused = self._orbit(which, W, model)
        return orbit, (gone[0] + refused[0], gone[1] + refused[1])

    def add_some(
        self,
        ms: Measurements,
        rows: npt.NDArray[np.int64],
        near: npt.NDArray[np.bool_],
        start: int,
        W: npt.NDArray[np.float64],
        model: Dynamics,
    ) -> tuple[NewOrbit | None, tuple[int, int], int]:
        """As `add`, of ``rows[start:]`` (of one scan) until an orbit comes of one; says too where that ended.

        ``near`` (n,), by row: whether it is near a track.
        """
        count = len(rows) - start
        t_ns = int(ms.t[rows[start]])
        gone = self.grow_old(t_ns)
        if self.pending + count > self._most:
            row = int(rows[start])
            measurement = ms.z[row].view(MEASUREMENT)[0]
            orbit, more = self.add(measurement, bool(near[start]), W, model)
            return orbit, (gone[0] + more[0], gone[1] + more[1]), start + 1
        if self._end + count > len(self._t):
            self._make_room(2 * (self.pending + count))
        while start < len(rows):
            start, which = remember_until(
                self._cells, self._z(), self._t, self._channels, self._near, self._alive, self._first, self._end,
                ms.z, ms.t, ms.channels, rows, near, start, self._enough - self.pending, self._enough,
            )  # fmt: skip
            taken = start - (len(rows) - count)
            self._end += taken
            self.pending += taken
            count -= taken
            orbit, refused = self._orbit(which, W, model)
            gone = gone[0] + refused[0], gone[1] + refused[1]
            if orbit is not None:
                return orbit, gone, start
        return None, gone, start

    def _make_room(self, n: int) -> None:
        """Move what is remembered and alive to the front of memory for ``n``."""
        n = max(n, _LEAST_ROOM)
        kept = self._first + np.flatnonzero(self._alive[self._first : self._end])
        count = len(kept)
        memory, t = np.zeros(n, MEASUREMENT), np.zeros(n, np.int64)
        channels, near = np.zeros(n, np.uint8), np.zeros(n, np.bool_)
        memory[:count], t[:count] = self._memory[kept], self._t[kept]
        channels[:count], near[:count] = self._channels[kept], self._near[kept]
        self._memory, self._t, self._channels, self._near = memory, t, channels, near
        self._alive = np.zeros(n, np.bool_)
        self._alive[:count] = True
        self._cells = make_cells(n)
        z = self._z()
        for at in range(count):
            remember(self._cells, at, z[at])
        self._first, self._end = 0, count

    def _z(self) -> npt.NDArray[np.float64]:
        """The memory as the kernels see it."""
        return self._memory.view(np.float64).reshape(len(self._memory), COLUMNS)

    def _let_go(self, count: int) -> tuple[int, int]:
        if count == 0:
            return 0, 0
        gone = slice(self._first, self._first + count)
        alive = int(np.count_nonzero(self._alive[gone]))
        near = int(np.count_nonzero(self._near[gone] & self._alive[gone]))
        self._first += count
        self.pending -= alive
        return near, alive - near

    def _orbit(
        self, every: npt.NDArray[np.int64], W: npt.NDArray[np.float64], model: Dynamics
    ) -> tuple[NewOrbit | None, tuple[int, int]]:
        """The orbit that the last of the places ``every``, the newest, completes; and how many were let go as theirs
        is no orbit in space.

        Those in the window are tried first: a long arc asks more of sigmas than a short one. Of those before it, what
        was near a track is a track's gross error rather than a new object.
        """
        if len(every) < self._enough:
            return None, (0, 0)
        new = self._t[every] >= self._t[every[-1]] - self._window_ns
        recent, every = every[new], every[new | ~self._near[every]]
        for which in (recent, every) if len(recent) < len(every) else (every,):
            found = self._through(which, W, model)
            if found is None:
                continue
            orbit, which = found
            self._alive[which] = False
            self.pending -= len(which)
            if len(which) > 1 and falls(orbit.x, orbit.P):
                near = int(np.count_nonzero(self._near[which]))
                return None, (near, len(which) - near)
            return orbit, (0, 0)
        return None, (0, 0)

    def _through(
        self, which: npt.NDArray[np.int64], W: npt.NDArray[np.float64], model: Dynamics
    ) -> tuple[NewOrbit, npt.NDArray[np.int64]] | None:
        """An orbit through some of the detections at the places ``which``, the newest among them; and through which."""
        n = len(which)
        if n < self._enough:
            return None
        z, t, channels, chosen = (
            self._z()[which],
            self._t[which],
            self._channels[which],
            np.zeros(n, np.bool_),
        )
        if self._enough == 1 and n == 1:
            chosen[0] = True
        elif consensus(z, t, channels, n, chosen) < self._enough:
            return None
        which = which[chosen]
        used = self._memory[which]
        k = len(used)
        if k == 1:
            found = from_one(used[0])
        elif k < LEAST_FITTED:
            found = from_two(used, W, model)
        else:
            found = self._from_many(used, W, model)
        if found is None:
            return None
        x, P = found
        if k > 1 and np.sqrt(P[21] + P[28] + P[35]) > self._max_velocity_sigma:
            return None
        return NewOrbit(x, P, used), which

    def _from_many(
        self, used: StructArray, W: npt.NDArray[np.float64], model: Dynamics
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Orbit and covariance of least squares through detections that agree, wild channels left out."""
        k = len(used)
        x, P, keep = np.zeros(6), np.zeros(36), np.zeros((k, 4), np.bool_)
        z = used.view(np.float64).reshape(k, COLUMNS)
        t, channels = np.ascontiguousarray(used["t_meas_ns"]), np.ascontiguousarray(used["channels"])
        good = fit_arc(W, z, t, channels, k, model, max(self._enough, LEAST_FITTED), x, P, keep)
        return (x, P) if good else None


def falls(x: npt.NDArray[np.float64], P: npt.NDArray[np.float64]) -> bool:
    """Whether a state (6,), covariance (36,), is surely of nothing in orbit (see LOWEST_PERIGEE_M)."""
    return float(perigee_m(x[None])[0]) + 3.0 * perigee_sigma_m(x, P) < LOWEST_PERIGEE_M


def from_one(m: np.void) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """State (6,) and covariance (36,) of what one detection with a range says of an object in orbit.

    Where it is, the detection says. Its velocity is taken to be horizontal, in any direction, and about that of a
    circular orbit; the range rate, if there is one, is then taken in. Wide, and honest for all but the most
    eccentric orbits: the tracker's filter iterates its updates while it is so.
    """
    u, rho = m["los"], float(m["range_m"])
    r = m["site_r"] + rho * u
    d = float(np.linalg.norm(r))
    if d < RADIUS:
        return None
    up = r / d
    circular2 = MU / d
    axes = np.array([u, m["e_lon"], m["e_lat"]])
    across = rho**2 * m["var"][1:3]
    P = np.zeros((6, 6))
    # a sphere of equal range leaves its tangent (see sensing.noise_lanes)
    bend = 0.5 * float(across.sum()) ** 2 / rho**2
    P[:3, :3] = (axes.T * np.array([m["var"][0] + bend, *across])) @ axes
    P[3:, 3:] = circular2 * (HORIZONTAL * (np.eye(3) - np.outer(up, up)) + VERTICAL * np.outer(up, up))
    x = np.concatenate([r, np.zeros(3)])
    if m["channels"] & Channel.RANGE_RATE:
        # of the velocity along the line of sight; the line's own uncertainty counts too
        off = float(m["range_rate_m_s"]) + float(u @ m["site_v"])
        h = np.concatenate([np.zeros(3), u])
        s = float(h @ P @ h) + float(m["var"][3]) + 2.0 * circular2 * float(m["var"][1:3].max())
        gain = P @ h / s
        x += gain * off
        P -= np.outer(gain, gain) * s
    return x, 0.5 * (P + P.T).reshape(36)


def from_two(
    used: StructArray, W: npt.NDArray[np.float64], model: Dynamics
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """State (6,) and covariance (36,) at the last of two detections with ranges: the orbit between the places
    of the first and the last (Lambert's problem), refined by least squares. None where there is none.
    """
    first, last = used[0], used[-1]
    r1 = first["site_r"] + first["range_m"] * first["los"]
    r2 = last["site_r"] + last["range_m"] * last["los"]
    late = (first["target_delay"] * first["range_m"] - last["target_delay"] * last["range_m"]) / LIGHT_M_S
    dt = float(last["t_meas_ns"] - first["t_meas_ns"]) * 1e-9 + float(late)
    v1, v2 = np.zeros(3), np.zeros(3)
    # over so short an arc the chord is as good, and never fails
    if dt <= 0.0:
        return None
    if dt < SHORT_S or not lambert(r1, r2, dt, v1, v2):
        v2 = (r2 - r1) / dt - 0.5 * MU * r2 / np.linalg.norm(r2) ** 3 * dt
    orbit = refine(used, np.concatenate([r2, v2]), W, model)
    if orbit is None or orbit.dof < 0 or orbit.chi2 > TWO_LIMIT:
        return None
    P = orbit.P.reshape(36)
    widen_by_bend(P, np.ascontiguousarray(used[-1:]).view(np.float64).reshape(COLUMNS), orbit.x)
    return orbit.x, P


def can_initiate(measurement: np.void) -> bool:
    """Whether a measurement says where something is, not only in which direction."""
    return int(measurement["channels"]) & _PLACE == _PLACE


def can_all_initiate(channels: npt.NDArray[np.uint8]) -> bool:
    """As `can_initiate`, of measurements with these ``channels`` (n,)."""
    return bool((channels & _PLACE == _PLACE).all())
