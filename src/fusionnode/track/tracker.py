"""Measurements in time order to tracks: scan by scan, with a life for every track.

What comes out depends on the measurements and their order alone, not on how they were cut into calls.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from fusionnode.config import Config
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.schema import REASON_DROPPED, REASON_MERGED
from fusionnode.core.types import TRACK_STATE, Channel, Status, StructArray, Tombstone
from fusionnode.track.associate import (
    Log,
    Measurements,
    Room,
    assign,
    coast_on,
    commit,
    cost_of,
    make_log,
    make_room,
    pairs_of_scan,
    refresh_all,
    refresh_coarse,
    scan_end,
)
from fusionnode.track.dynamics import model as gravity_model
from fusionnode.track.engine import Engine, NumbaEngine
from fusionnode.track.initiate import Initiator, NewOrbit, can_initiate
from fusionnode.track.lanes import workspace
from fusionnode.track.picture import (
    NEVER,
    RING,
    due_slots,
    earliest_due,
    make_picture,
    make_rules,
    next_tick,
    report,
    touch,
)
from fusionnode.track.sensing import COLUMNS

CHUNK = 4096
DAY_NS = 86_400_000_000_000
MERGE_GATE = float(chi2.ppf(0.9999, 6))
MERGE_M = 3_000.0
"""Tracks further apart than this are not the same object, whatever their covariances say."""
NEAREST_M = 500_000.0
"""How far a known object is taken to be at least, where no range was measured."""
REACQUIRE_FACTOR = 25.0
REACQUIRE_FLOOR = np.diag([1.0e6] * 3 + [1.0e2] * 3)
"""A lost track is taken up again by an orbit within its covariance times the factor plus this floor (m^2, m^2/s^2)."""

Event = StructArray | Tombstone
"""What the tracker gives: TRACK_STATE arrays and tombstones, in the order in which things happened."""


def merged(events: list[Event]) -> list[Event]:
    """The same events with arrays that follow each other joined: cheaper to look through."""
    out: list[Event] = []
    run: list[StructArray] = []
    for event in [*events, None]:
        if event is not None and not isinstance(event, Tombstone):
            run.append(event)
            continue
        if run:
            # as bytes: numpy joins records field by field
            out.append(
                np.concatenate([r.view(np.uint8) for r in run]).view(TRACK_STATE) if len(run) > 1 else run[0]
            )
            run = []
        if event is not None:
            out.append(event)
    return out


_DEGREES = np.array([bin(c & Channel.RANGE | c & Channel.RANGE_RATE).count("1") + (2 if c & Channel.ANGLES else 0)
                     for c in range(8)])  # fmt: skip


class Prior(Protocol):
    """What the tracker asks of the catalogue (see `catalogue.known.KnownObjects`)."""

    def near(
        self, los: npt.NDArray[np.float64], site_r: npt.NDArray[np.float64], t_ns: int, cone_rad: float
    ) -> npt.NDArray[np.int64]:
        """Rows of the objects whose prediction is within ``cone_rad`` of a line of sight."""
        ...

    def prior(self, row: int, t_ns: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """State (6,) and covariance (6, 6) of one object, if there is a prediction."""
        ...

    def correlate(
        self, x: npt.NDArray[np.float64], P: npt.NDArray[np.float64], t_ns: int, gate: float
    ) -> tuple[int, float] | None:
        """The one object that a track can be, with its squared distance, if there is just one."""
        ...


class Pole(Protocol):
    """What the tracker asks of Earth orientation."""

    def pole(self, t_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Unit vectors of the celestial intermediate pole, GCRF, shape (n, 3), at TAI ns (n,)."""
        ...


class Tracker:
    """All tracks of a node. Not thread-safe: one owner."""

    def __init__(
        self,
        config: Config,
        pole: Pole,
        outcomes: Outcomes,
        known: Prior | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._config = config.tracking
        self._sensors = list(config.sensor)
        self._pole = pole
        self._outcomes = outcomes
        self._known = known if config.catalogue.initiate else None
        self._names = known
        c = config.catalogue
        self._known_reach_m = 6.0 * max(c.sigma_radial_m, c.sigma_along_m, c.sigma_cross_m)
        self._engine = engine or NumbaEngine()
        self._rules = make_rules(config, np.zeros(8))
        self._coast_ns = next_tick(int(config.tracking.coast_publish_s * 1e9), self._rules.tick_ns)
        self._model_until = -NEVER
        self.picture = make_picture(config.tracking.max_tracks)
        self._room: Room = make_room(config.tracking.max_tracks, 256)
        self._log: Log = make_log(CHUNK)
        self._w = workspace()
        self._initiators = [Initiator(config.tracking) for _ in self._sensors]
        self._next_number = 1
        self._next_due = NEVER  # may be early (a measurement put it off), never late
        self._free: list[int] = []
        self._row_of_object: dict[int, int] = {}
        self._events: list[Event] = []

    # -- what it offers

    def process(self, measurements: StructArray) -> None:
        """Take MEASUREMENT[n] in time order, none older than any before it or than the last `advance`."""
        for start in range(0, len(measurements), CHUNK):
            self._process_chunk(measurements[start : start + CHUNK])

    def advance(self, t_ns: int) -> None:
        """Let time pass: no measurement at or before ``t_ns`` will come any more."""
        self._sweep_to(t_ns)
        for sensor, initiator in enumerate(self._initiators):
            if initiator.pending:
                self._let_go(sensor, initiator.forget(t_ns - int(self._config.initiation_window_s * 1e9)))

    def finish(self) -> None:
        """Nothing will come any more: give what still waits an outcome."""
        for sensor, initiator in enumerate(self._initiators):
            self._let_go(sensor, initiator.forget(NEVER))

    def take(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def pending(self) -> dict[str, int]:
        """By sensor: measurements that wait in an initiator."""
        return {name: i.pending for name, i in zip(self._sensors, self._initiators, strict=True) if i.pending}

    @property
    def begun(self) -> int:
        """Tracks begun so far, tentative ones included."""
        return self._next_number - 1

    def slots(self) -> npt.NDArray[np.int64]:
        """Slots in use, ascending."""
        return np.flatnonzero(self.picture.active[: self.picture.high[0]])

    # -- one chunk, one scan

    def _process_chunk(self, measurements: StructArray) -> None:
        ms = Measurements(
            np.ascontiguousarray(measurements).view(np.float64).reshape(len(measurements), COLUMNS),
            np.ascontiguousarray(measurements["t_meas_ns"]),
            np.ascontiguousarray(measurements["sensor"]),
            np.ascontiguousarray(measurements["channels"]),
        )
        at = 0
        n = len(measurements)
        while at < n:
            t_ns = int(ms.t[at])
            if self._next_due <= t_ns:
                self._sweep_to(t_ns)
            if t_ns >= self._model_until:
                self._new_day(t_ns)
            until = min(self._next_due, self._model_until)
            at, review = self._engine.settle(self.picture, ms, at, until, self._rules, self._room, self._log)
            self._drain(ms, review)
            if not review and at < n and ms.t[at] < until:
                end = int(scan_end(ms, at))
                self._scan(ms, measurements, at, end)
                at = end

    def _scan(self, ms: Measurements, measurements: StructArray, start: int, end: int) -> None:
        while (n := int(pairs_of_scan(self.picture, ms, start, end, self._rules, self._room))) < 0:
            self._room = make_room(len(self.picture.active), 2 * len(self._room.slots))
        room = self._room
        self._engine.try_pairs(self.picture, ms, n, self._rules, room)
        trials = room.trials
        inside = np.flatnonzero(trials.nis[:n] <= self._rules.gates[_DEGREES[trials.used[:n]]])
        cost = np.array([cost_of(trials.nis[i], trials.det[i], trials.used[i]) for i in inside])
        taken = inside[assign(room.rows[inside], room.slots[inside], cost)]
        done = np.zeros(end - start, np.bool_)
        review = False
        for pair in taken:
            review = bool(commit(self.picture, room, pair, ms, self._rules, self._log)) or review
            done[room.rows[pair] - start] = True
        near = np.zeros(end - start, np.bool_)
        near[room.rows[:n] - start] = True
        self._drain(ms, review)
        for i in np.flatnonzero(~done):
            self._unassociated(ms, measurements, start + int(i), bool(near[i]))

    def _drain(self, ms: Measurements, review: bool) -> None:
        """Turn what was logged into states and outcomes."""
        n = int(self._log.made[0])
        if n == 0:
            return
        log = self._log
        slots = log.slot[:n].copy()
        rows = log.row[:n]
        out = np.zeros(n, TRACK_STATE)
        out["track"] = self.picture.number[slots]
        out["epoch_ns"] = out["last_ob_ns"] = ms.t[rows]
        out["status"] = log.status[:n]
        out["x"] = log.x[:n]
        out["P"] = log.P[:n].reshape(n, 6, 6)
        out["sensors"] = log.sensors[:n]
        out["object"] = self.picture.object[slots]
        out["updates"] = log.hits[:n]
        out["nis"] = log.nis[:n]
        out["dof"] = _DEGREES[log.used[:n]]
        log.made[0] = 0
        self._events.append(out)
        self._count_used(ms.sensor[rows], Outcome.USED)
        if review:
            hits, due, due_ns = self.picture.hits, self.picture.review, self.picture.due
            for slot in dict.fromkeys(slots.tolist()):
                self._next_due = min(self._next_due, int(due_ns[slot]))
                if self.picture.active[slot] and hits[slot] >= due[slot]:
                    self._review(slot)

    def _count_used(self, sensors: npt.NDArray[np.int32], outcome: Outcome) -> None:
        for sensor, count in enumerate(np.bincount(sensors, minlength=0)):
            self._outcomes.add(self._sensors[sensor], outcome, int(count))

    # -- what belongs to nothing known

    def _unassociated(self, ms: Measurements, measurements: StructArray, row: int, near: bool) -> None:
        sensor = int(ms.sensor[row])
        if self._known is not None and self._start_known(ms, row):
            return
        measurement = measurements[row]
        if not can_initiate(measurement):
            self._let_go(sensor, (1, 0) if near else (0, 1))
            return
        initiator = self._initiators[sensor]
        orbit, gone = initiator.add(measurement, near, self._w, self._rules.model)
        self._let_go(sensor, gone)
        if orbit is not None:
            self._start(orbit)

    def _let_go(self, sensor: int, gone: tuple[int, int]) -> None:
        self._outcomes.add(self._sensors[sensor], Outcome.GATED_OUT, gone[0])
        self._outcomes.add(self._sensors[sensor], Outcome.UNASSOCIATED, gone[1])

    def _start(self, orbit: NewOrbit) -> None:
        t = orbit.used["t_meas_ns"]
        p = self.picture
        slot = self._continues(orbit)
        if slot is not None and self._hits_since(slot, int(t[0])) >= len(t):
            # the track explains at least as much; two objects this close cannot be told apart yet
            self._count_used(orbit.used["sensor"], Outcome.GATED_OUT)
            return
        if slot is not None:
            p.x[slot], p.P[slot], p.epoch[slot] = orbit.x, orbit.P, t[-1]
            refresh_coarse(p, slot)
        else:
            slot = self._new_slot()
            if slot is None:
                self._count_used(orbit.used["sensor"], Outcome.TRACK_LIMIT)
                return
            self._place(slot, orbit.x, orbit.P, int(t[-1]))
            p.number[slot] = self._number()
            p.review[slot] = self._config.confirm_hits
        for m in orbit.used:
            touch(p, slot, int(m["t_meas_ns"]), int(m["sensor"]), self._rules)
        self._count_used(orbit.used["sensor"], Outcome.USED_INITIATION)
        self._next_due = min(self._next_due, int(p.due[slot]))
        self._events.append(report(p, np.array([slot])))
        if p.hits[slot] >= p.review[slot]:
            self._review(slot)

    def _continues(self, orbit: NewOrbit) -> int | None:
        """The track that this orbit most likely belongs to, though its detections did not: its object has
        manoeuvred, or the track had been led astray. Not one that was seen beside them.
        """
        p = self.picture
        t = orbit.used["t_meas_ns"]
        best, best_d2 = None, MERGE_GATE
        for other in self._within(orbit.x[:3], int(t[-1]), REACQUIRE_FACTOR):
            if p.epoch[other] > t[-1] or np.intersect1d(t, p.ring[other]).size:
                continue
            self._engine.predict(p, np.array([other]), int(t[-1]), self._rules)
            refresh_coarse(p, other)
            d = orbit.x - p.x[other]
            both = (orbit.P + REACQUIRE_FACTOR * p.P[other]).reshape(6, 6) + REACQUIRE_FLOOR
            d2 = float(d @ np.linalg.solve(both, d))
            if d2 <= best_d2:
                best, best_d2 = other, d2
        return best

    def _hits_since(self, slot: int, t_ns: int) -> int:
        ring = self.picture.ring[slot, : min(RING, self.picture.hits[slot])]
        return int(np.count_nonzero(ring >= t_ns))

    def _start_known(self, ms: Measurements, row: int) -> bool:
        """Start the track of a catalogued object that this measurement fits best, if there is one."""
        assert self._known is not None
        z, t_ns = ms.z[row], int(ms.t[row])
        distance = z[19] if ms.channels[row] & Channel.RANGE else NEAREST_M
        cone = 6.0 * float(np.sqrt(max(z[22], z[23]))) + self._known_reach_m / distance
        best, best_cost, best_object = -1, np.inf, -1
        for candidate in self._known.near(z[10:13], z[4:7], t_ns, cone).tolist():
            if candidate in self._row_of_object:
                continue
            prior = self._known.prior(candidate, t_ns)
            slot = None if prior is None else self._new_slot()
            if prior is None or slot is None:
                continue
            self._place(slot, prior[0], prior[1].reshape(36), t_ns)
            self._room.slots[0], self._room.rows[0] = slot, row
            self._engine.try_pairs(self.picture, ms, 1, self._rules, self._room)
            trial = self._room.trials
            cost = float(cost_of(trial.nis[0], trial.det[0], trial.used[0]))
            if trial.nis[0] <= self._rules.gates[_DEGREES[trial.used[0]]] and cost < best_cost:
                if best >= 0:
                    self._release(best)
                best, best_cost, best_object = slot, cost, candidate
            else:
                self._release(slot)
        if best < 0:
            return False
        self._room.slots[0], self._room.rows[0] = best, row
        self._engine.try_pairs(self.picture, ms, 1, self._rules, self._room)
        self.picture.object[best] = best_object
        self._row_of_object[best_object] = best
        self.picture.number[best] = self._number()
        commit(self.picture, self._room, 0, ms, self._rules, self._log)
        self.picture.review[best] = self._config.confirm_hits
        self._drain(ms, False)
        self._next_due = min(self._next_due, int(self.picture.due[best]))
        return True

    # -- slots

    def _new_slot(self) -> int | None:
        if self._free:
            return self._free.pop()
        slot = int(self.picture.high[0])
        if slot == len(self.picture.active):
            return None
        self.picture.high[0] = slot + 1
        return slot

    def _number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number

    def _place(self, slot: int, x: npt.NDArray[np.float64], P: npt.NDArray[np.float64], t_ns: int) -> None:
        p = self.picture
        p.active[slot] = True
        p.x[slot], p.P[slot], p.epoch[slot] = x, P, t_ns
        p.last_ob[slot], p.status[slot], p.hits[slot], p.sensors[slot] = t_ns, Status.TENTATIVE, 0, 0
        p.object[slot], p.due[slot], p.review[slot] = -1, NEVER, NEVER
        refresh_coarse(p, slot)

    def _release(self, slot: int) -> None:
        self.picture.active[slot] = False
        self.picture.due[slot] = NEVER
        self._row_of_object.pop(int(self.picture.object[slot]), None)
        self._free.append(slot)

    def _end(self, slot: int, t_ns: int, reason: str, successor: int | None = None) -> None:
        number = int(self.picture.number[slot])
        self._release(slot)
        self._events.append(Tombstone(number, t_ns, reason, successor))

    # -- life without measurements

    def _sweep_to(self, t_ns: int) -> None:
        """Do what is due up to ``t_ns``, at the times it is due."""
        while self._next_due <= t_ns:
            self._next_due = int(earliest_due(self.picture))
            if self._next_due <= t_ns:
                self._sweep(self._next_due)

    def _sweep(self, t_ns: int) -> None:
        p, c = self.picture, self._config
        if t_ns >= self._model_until:
            self._new_day(t_ns)
        tentative, confirmed = due_slots(p, t_ns)
        for slot in tentative.tolist():
            self._end(slot, t_ns, REASON_DROPPED)
        if len(confirmed) == 0:
            return
        self._engine.predict(p, confirmed, t_ns, self._rules)
        kept = coast_on(
            p, confirmed, t_ns, self._coast_ns, int(c.coast_limit_s * 1e9), c.drop_position_sigma_m
        )
        if kept.any():
            self._events.append(report(p, confirmed[kept]))
        if not kept.all():
            for slot in confirmed[~kept].tolist():
                self._end(slot, t_ns, REASON_DROPPED)

    def _new_day(self, t_ns: int) -> None:
        day = t_ns // DAY_NS
        self._model_until = (day + 1) * DAY_NS
        pole = self._pole.pole(np.array([day * DAY_NS + DAY_NS // 2]))[0]
        self._rules = self._rules._replace(model=gravity_model(self._config.zonal_degree, pole))

    # -- identity

    def _review(self, slot: int) -> None:
        """Is this track another's double, or a known object's?"""
        p = self.picture
        p.review[slot] = 2 * p.hits[slot]
        t_ns = int(p.epoch[slot])
        other = self._double(slot, t_ns)
        if other is not None:
            self._merge(slot, other, t_ns)
            return
        if p.object[slot] >= 0:
            p.review[slot] = NEVER
        elif self._names is not None:
            found = self._names.correlate(p.x[slot], p.P[slot].reshape(6, 6), t_ns, MERGE_GATE)
            if found is not None:
                holder = self._row_of_object.get(found[0])
                if holder is not None:
                    self._merge(slot, holder, t_ns)
                else:
                    p.object[slot] = found[0]
                    self._row_of_object[found[0]] = slot

    def _within(self, r: npt.NDArray[np.float64], t_ns: int, factor: float) -> list[int]:
        """Tracks that were confirmed, whose coarse position is within reach of ``r`` (3,), m."""
        p = self.picture
        refresh_all(p, t_ns, self._rules.model)
        high = int(p.high[0])
        dt = (t_ns - p.coarse_ns[:high]) * 1e-9
        where = p.coarse[:3, :high] + dt * p.coarse[3:6, :high] + 0.5 * dt * dt * p.coarse[6:9, :high]
        apart = np.linalg.norm(where - r[:, None], axis=0)
        sigma = p.coarse_sigma[0, :high] + np.abs(dt) * p.coarse_sigma[1, :high]
        reach = 2.0 * MERGE_M + 6.0 * np.sqrt(factor) * sigma
        near = p.active[:high] & (p.status[:high] != Status.TENTATIVE) & (apart < reach)
        return [int(slot) for slot in np.flatnonzero(near)]

    def _double(self, slot: int, t_ns: int) -> int | None:
        """Another track that is this one within both covariances, and was not seen beside it."""
        p = self.picture
        for other in self._within(p.x[slot, :3], t_ns, 1.0):
            if other == slot or np.intersect1d(p.ring[slot, : min(RING, p.hits[slot])], p.ring[other]).size:
                continue
            self._engine.predict(p, np.array([other]), t_ns, self._rules)
            refresh_coarse(p, other)
            d = p.x[slot] - p.x[other]
            both = (p.P[slot] + p.P[other]).reshape(6, 6)
            if np.linalg.norm(d[:3]) < MERGE_M and float(d @ np.linalg.solve(both, d)) <= MERGE_GATE:
                return other
        return None

    def _merge(self, slot: int, other: int, t_ns: int) -> None:
        """Two tracks are one object: the older number lives on, with the state that was updated last."""
        p = self.picture
        elder, younger = sorted((slot, other), key=lambda s: int(p.number[s]))
        number, gone = int(p.number[elder]), int(p.number[younger])
        fresh, stale = (slot, other) if p.last_ob[slot] >= p.last_ob[other] else (other, slot)
        obj = int(p.object[elder] if p.object[elder] >= 0 else p.object[younger])
        p.number[fresh], p.number[stale] = number, gone
        p.sensors[fresh] |= p.sensors[stale]
        p.hits[fresh] += p.hits[stale]
        p.review[fresh] = 2 * p.hits[fresh]
        self._end(stale, t_ns, REASON_MERGED, number)
        self._row_of_object.pop(int(p.object[fresh]), None)
        p.object[fresh] = obj
        if obj >= 0:
            self._row_of_object[obj] = fresh
        self._events.append(report(p, np.array([fresh])))
