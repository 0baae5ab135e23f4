"""New tracks from directions alone: tracklets, hypotheses of what they are, and the orbit that is left in the end.

A direction that belongs to nothing known joins a tracklet of its sensor. A tracklet that is long enough gives an orbit
at once. One that ends before becomes a bank of hypotheses (`admissible`), or part of the bank that foretold it; when
the measurements of a bank leave one orbit, a track begins. Banks are shared by all sensors of the node.

All of it happens at times that measurements give, whenever the node's ticks come.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.config import Tracking
from fusionnode.core.types import MEASUREMENT, Channel, StructArray
from fusionnode.track.initiation.admissible import Bank, Region, bank_of
from fusionnode.track.initiation.angles_only import Orbit, refine, solutions, the_one, thinned
from fusionnode.track.initiation.attributable import attributable
from fusionnode.track.initiation.initiate import NewOrbit
from fusionnode.track.initiation.tracklets import MOST_POINTS, Former, Tracklet
from fusionnode.track.motion.dynamics import Dynamics
from fusionnode.track.picture import NEVER

F64 = npt.NDArray[np.float64]

TRIED_AT = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Lengths at which a tracklet that goes on is tried for an orbit."""
LINK_ODDS = 3.0
"""ln of the odds, a tracklet being foretold by a bank against its being something new, from which it belongs to the
bank; and by which it has to be better foretold by it than by any other bank."""
OVERLAP_NS = 600_000_000_000
"""How far a tracklet may begin before the last measurement of a bank: two sensors see an object at the same time."""
REACH_SIGMAS = 6.0
WIDEST_RAD = 0.5
"""A bank lives until a sigma of its middling hypothesis has grown to this, as seen from its site."""
MOST_TRIED = 6
"""Hypotheses of a bank that least squares starts from."""
MOST_KEPT = 256
"""Measurements of a bank, beyond which it is thinned for least squares."""


class Start(NamedTuple):
    """What came of a step: orbits to start tracks from; tracklets that ended without one, which may be those of a known
    object, and else are to be given to `suspect`; and how many measurements were let go, by sensor (near a track, not
    near one).
    """

    orbits: list[NewOrbit]
    ended: list[Tracklet]
    gone: npt.NDArray[np.int64]  # (sensors, 2)


class _Suspect:
    """A bank, the measurements it stands on, and until when it is kept."""

    def __init__(self, bank: Bank, rows: StructArray, near: npt.NDArray[np.bool_], memory_ns: int) -> None:
        self.bank, self.rows, self.near = bank, rows, near
        self.until_ns = bank.epoch_ns + min(memory_ns, _life_ns(bank, rows[-1]))


def _life_ns(bank: Bank, last: np.void) -> int:
    P = bank.P.reshape(-1, 6, 6)
    rho = np.linalg.norm(bank.x[:, :3] - last["site_r"], axis=1)
    place = np.sqrt(np.trace(P[:, :3, :3], axis1=1, axis2=2))
    speed = np.sqrt(np.trace(P[:, 3:, 3:], axis1=1, axis2=2))
    life = np.median((WIDEST_RAD * rho - place) / (3.0 * np.maximum(speed, 1e-3)))
    return int(np.clip(life, 60.0, 1e7) * 1e9)


class OpticalInitiator:
    """All directions of a node that belong to nothing known. Bounded in number and time; not thread-safe: one owner."""

    def __init__(self, tracking: Tracking, revisit_s: list[float], W: F64) -> None:
        c = tracking
        self._c = c
        self._W = W
        self._formers = [
            Former(
                c.tracklet_points,
                float(np.radians(c.tracklet_max_rate_deg_s)),
                int(max(c.initiation_window_s, 1.5 * (c.tracklet_points + 1) * revisit) * 1e9),
            )
            for revisit in revisit_s
        ]
        self._open: list[list[Tracklet]] = [[] for _ in revisit_s]
        self._suspects: list[_Suspect] = []
        self._memory_ns = int(c.optical_memory_s * 1e9)
        self.due_ns = NEVER
        """When `close` has something to do, if nothing comes before; may be early, never late."""

    # -- what it offers

    def pending(self, sensor: int) -> int:
        """How many measurements of a sensor wait here for an outcome."""
        suspects = sum(int(np.count_nonzero(s.rows["sensor"] == sensor)) for s in self._suspects)
        return self._formers[sensor].pending + sum(len(t) for t in self._open[sensor]) + suspects

    @property
    def banks(self) -> int:
        """Objects that are suspected: too little is known of them for a track."""
        return len(self._suspects)

    def add(self, m: np.void, near: bool, model: Dynamics, q: float) -> Start:
        """Take one more measurement, none older before it."""
        out = self._nothing()
        model = model._replace(estimate=False)
        sensor = int(m["sensor"])
        tracklet = self._taken_up(sensor, m, near)
        if tracklet is None:
            tracklet, gone = self._formers[sensor].add(m, near)
            _count(out, sensor, gone)
            if tracklet is None:
                self._note(int(m["t_meas_ns"]) + self._formers[sensor].window_ns)
                return out
            if len(self._open[sensor]) >= self._c.optical_banks:
                self._settle(self._open[sensor].pop(0), model, q, out)
            self._open[sensor].append(tracklet)
        orbit = self._alone(tracklet, model) if len(tracklet) in TRIED_AT else None
        if orbit is not None:
            self._open[sensor].remove(tracklet)
            out.orbits.append(_new(orbit, tracklet.rows))
        elif len(tracklet) >= MOST_POINTS:
            self._open[sensor].remove(tracklet)
            self._settle(tracklet, model, q, out)
        self._note(tracklet.last_ns + self._formers[sensor].window_ns)
        return out

    def close(self, t_ns: int, model: Dynamics, q: float) -> Start:
        """It is ``t_ns``: close tracklets that nothing continued, and let go of what is too old."""
        out = self._nothing()
        model = model._replace(estimate=False)  # the picture's coefficients are not those of hypotheses
        for sensor, former in enumerate(self._formers):
            _count(out, sensor, former.forget(t_ns - former.window_ns + 1))
            ended = [t for t in self._open[sensor] if t.last_ns + former.window_ns <= t_ns]
            self._open[sensor] = [t for t in self._open[sensor] if t.last_ns + former.window_ns > t_ns]
            for tracklet in ended:
                self._settle(tracklet, model, q, out)
        for suspect in [s for s in self._suspects if s.until_ns <= t_ns]:
            self._drop(suspect, out)
        self._renote()
        return out

    def suspect(self, tracklet: Tracklet, model: Dynamics) -> Start:
        """Keep what a tracklet allows as hypotheses, until more is known."""
        out = self._nothing()
        found = bank_of(tracklet.rows, self._W, model._replace(estimate=False), self._region())
        if found is None:
            _count(out, int(tracklet.rows["sensor"][0]), tracklet.near)
            return out
        while len(self._suspects) >= self._c.optical_banks:
            self._drop(self._suspects[0], out)
        self._suspects.append(_Suspect(found, tracklet.rows, tracklet.near, self._memory_ns))
        self._note(self._suspects[-1].until_ns)
        return out

    def finish(self) -> Start:
        """Nothing will come any more: let go of everything."""
        out = self._nothing()
        for sensor, former in enumerate(self._formers):
            _count(out, sensor, former.forget(NEVER))
            for tracklet in self._open[sensor]:
                _count(out, sensor, tracklet.near)
            self._open[sensor] = []
        for suspect in list(self._suspects):
            self._drop(suspect, out)
        self.due_ns = NEVER
        return out

    # -- tracklets

    def _taken_up(self, sensor: int, m: np.void, near: bool) -> Tracklet | None:
        """The open tracklet that the measurement continues, extended by it."""
        best = sorted(((t.misses(m), i) for i, t in enumerate(self._open[sensor])))
        for miss, i in best:
            if miss > 1.0:
                break
            if self._open[sensor][i].extended(m, near):
                return self._open[sensor][i]
        return None

    def _alone(self, tracklet: Tracklet, model: Dynamics) -> Orbit | None:
        """The orbit that a tracklet gives by itself, if it does."""
        orbit = the_one(solutions(tracklet.rows, self._W, model))
        return orbit if orbit is not None and self._sharp(orbit) else None

    def _sharp(self, orbit: Orbit) -> bool:
        """Whether an orbit is known well enough for a track: one filter will do, and it will not be dropped."""
        place = float(np.sqrt(np.trace(orbit.P[:3, :3])))
        speed = float(np.sqrt(np.trace(orbit.P[3:, 3:])))
        return (
            orbit.dof >= 2
            and place <= 0.5 * self._c.drop_position_sigma_m
            and speed <= self._c.initiation_max_velocity_sigma_m_s
        )

    # -- banks

    def _settle(self, tracklet: Tracklet, model: Dynamics, q: float, out: Start) -> None:
        """A tracklet has ended: it is part of a suspect, gives an orbit, or just ended."""
        foretold = self._foretold(tracklet, model, q)
        if foretold is not None:
            suspect, bank, orbit = foretold
            rows = np.concatenate([suspect.rows, tracklet.rows])
            order = np.argsort(rows["t_meas_ns"], kind="stable")
            rows, near = rows[order], np.concatenate([suspect.near, tracklet.near])[order]
            self._suspects.remove(suspect)
            if orbit is not None:
                out.orbits.append(_new(orbit, rows))
            else:
                self._suspects.append(_Suspect(bank, rows, near, self._memory_ns))
            return
        orbit = self._alone(tracklet, model)
        if orbit is not None:
            out.orbits.append(_new(orbit, tracklet.rows))
            return
        out.ended.append(tracklet)

    def _region(self) -> Region:
        return Region(max_range_m=self._c.optical_max_range_m)

    def _foretold(
        self, tracklet: Tracklet, model: Dynamics, q: float
    ) -> tuple[_Suspect, Bank, Orbit | None] | None:
        """The suspect that foretold the tracklet, its bank after that, and the one orbit through all, if there is."""
        by_chance = _evidence_of_something_new(tracklet.rows)
        first = tracklet.rows[0]
        sigma = float(np.sqrt(max(first["var"][1], first["var"][2])))
        found: list[tuple[float, int, Bank]] = []
        for i, suspect in enumerate(self._suspects):
            if int(first["t_meas_ns"]) < suspect.bank.epoch_ns - OVERLAP_NS:
                continue
            apart, reach = suspect.bank.offsets(first)
            if not (apart <= REACH_SIGMAS * (reach + sigma)).any():
                continue
            after = suspect.bank.updated(tracklet.rows, self._W, model, q)
            if after is not None and after[1] - by_chance > LINK_ODDS:
                found.append((after[1], i, after[0]))
        found.sort(key=lambda one: -one[0])
        if not found or (len(found) > 1 and found[0][0] - found[1][0] < LINK_ODDS):
            return None
        _, i, bank = found[0]
        suspect = self._suspects[i]
        rows = np.concatenate([suspect.rows, tracklet.rows])
        rows = thinned(rows[np.argsort(rows["t_meas_ns"], kind="stable")], MOST_KEPT)
        guesses = bank.at(int(rows["t_meas_ns"][-1]))[:MOST_TRIED]
        orbits = [refine(rows, x, self._W, model) for x in guesses if np.isfinite(x).all()]
        good = sorted((o for o in orbits if o is not None), key=lambda o: o.chi2)
        if good and good[0].dof > 0 and good[0].chi2 > good[0].dof + 5.0 * np.sqrt(2.0 * good[0].dof):
            return None  # no orbit passes through both
        different = [o for k, o in enumerate(good) if k == 0 or not _alike(o, good[0])]
        orbit = the_one(different)
        return suspect, bank, orbit if orbit is not None and self._sharp(orbit) else None

    def _drop(self, suspect: _Suspect, out: Start) -> None:
        self._suspects.remove(suspect)
        for sensor in np.unique(suspect.rows["sensor"]).tolist():
            _count(out, sensor, suspect.near[suspect.rows["sensor"] == sensor])

    # -- small matters

    def _nothing(self) -> Start:
        return Start([], [], np.zeros((len(self._formers), 2), np.int64))

    def _note(self, t_ns: int) -> None:
        self.due_ns = min(self.due_ns, t_ns)

    def _renote(self) -> None:
        self.due_ns = NEVER
        for sensor, former in enumerate(self._formers):
            if former.oldest_ns is not None:
                self._note(former.oldest_ns + former.window_ns)
            for tracklet in self._open[sensor]:
                self._note(tracklet.last_ns + former.window_ns)
        for suspect in self._suspects:
            self._note(suspect.until_ns)


def _count(out: Start, sensor: int, near: npt.NDArray[np.bool_]) -> None:
    n = int(np.count_nonzero(near))
    out.gone[sensor] += (n, len(near) - n)


def _new(orbit: Orbit, rows: StructArray) -> NewOrbit:
    return NewOrbit(orbit.x, orbit.P.reshape(36), rows, sure=True)


def _alike(a: Orbit, b: Orbit) -> bool:
    return float(np.linalg.norm(a.x[:3] - b.x[:3])) < 1e-3 * max(a.range_m, b.range_m)


def _evidence_of_something_new(rows: StructArray) -> float:
    """ln of the probability density of a tracklet's directions (rad^-2 each) if it is of an object not seen before:
    anywhere on the sky, at a rate of about what was measured, moving smoothly.

    Laplace's approximation: the best polynomials' likelihood times the share of the prior that they leave.
    """
    a = attributable(rows)
    if a is None:
        return 0.0
    var = np.maximum(rows["var"][:, 1], rows["var"][:, 2])
    best = -0.5 * a.chi2 - float(np.log(2.0 * np.pi * var).sum())
    k = a.value.shape[1]
    rate = max(float(np.linalg.norm(a.rate)), 1e-5)
    # prior densities of each derivative, a plane's worth: the sky; a disc of three times the rate; likewise beyond
    densities = [1.0 / (4.0 * np.pi)] + [1.0 / (np.pi * (3.0 * rate**order) ** 2) for order in range(1, k)]
    scale = np.sqrt(np.diag(a.cov))
    _, log_det = np.linalg.slogdet(a.cov / np.outer(scale, scale))
    share = k * np.log(2.0 * np.pi) + float(log_det) + 2.0 * float(np.log(scale).sum())
    return best + min(share + float(np.log(densities).sum()), 0.0)


def rehearse(W: F64, model: Dynamics, q: float) -> None:
    """Run every kernel that starts a track from directions alone: a made-up geostationary object, seen twice.

    ``W``, ``model``, ``q``: workspace, dynamics and process noise as the tracker would give them.
    """
    rows = np.concatenate([_made_up(model.ref_ns + 60_000_000_000 * k) for k in range(6)])
    model = model._replace(estimate=False)
    former = Former(4, 0.01, 10**12)
    for m in rows:
        former.add(m, False)
    solutions(rows, W, model)
    bank = bank_of(rows, W, model)
    if bank is not None:
        later = np.concatenate([_made_up(model.ref_ns + 60_000_000_000 * k) for k in range(60, 64)])
        bank.offsets(later[0])
        bank.updated(later, W, model, q)


def _made_up(t_ns: int) -> StructArray:
    """A direction of an object above the equator, from a site there that does not turn."""
    angle = 7.29e-5 * (t_ns % 10**13) * 1e-9
    d = np.array([4.2164e7 * np.cos(angle), 4.2164e7 * np.sin(angle), 1e5]) - np.array([6.378e6, 0.0, 0.0])
    out = np.zeros(1, MEASUREMENT)
    u = d / np.linalg.norm(d)
    east = np.cross([0.0, 0.0, 1.0], u)
    east /= np.linalg.norm(east)
    out["t_meas_ns"], out["channels"], out["site_r"], out["target_delay"] = (
        t_ns,
        Channel.ANGLES,
        [6.378e6, 0, 0],
        1.0,
    )
    out["los"], out["e_lon"], out["e_lat"], out["var"] = u, east, np.cross(u, east), [1.0, 1e-10, 1e-10, 1.0]
    return out
