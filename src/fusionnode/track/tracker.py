"""Measurements in time order to tracks: scan by scan, with a life for every track.

What comes out depends on the measurements and their order alone, not on how they were cut into calls.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.schema import REASON_DROPPED, REASON_MERGED
from fusionnode.core.types import (
    ObjectEvent,
    Status,
    StructArray,
    Tombstone,
)
from fusionnode.track.association.associate import (
    NEAR,
    USED,
    Log,
    Measurements,
    Room,
    commit_pairs,
    make_log,
    make_room,
    scan_end,
)
from fusionnode.track.association.coarse import coast_on, refresh_coarse
from fusionnode.track.association.general import settle_scan
from fusionnode.track.association.looks import note_begun
from fusionnode.track.association.preview import Sighting, sight
from fusionnode.track.association.select import pairs_of_scan
from fusionnode.track.calibration.front import SensorTruth
from fusionnode.track.events.watch import EventWatch
from fusionnode.track.filtering.engine import Engine
from fusionnode.track.filtering.engine_variants import kept_beside, make_engine
from fusionnode.track.filtering.errors import as_noise, wanders
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.identity import (
    alone,
    apart_from,
    are_one,
    continued_by,
    double_of,
    is_sharp,
    recent_hits,
    says_more,
)
from fusionnode.track.initiation.catalogued import Prior, Who, candidacy, start_known, start_named
from fusionnode.track.initiation.initiate import Initiator, NewOrbit, can_all_initiate, can_initiate
from fusionnode.track.initiation.optical import OpticalInitiator, Start
from fusionnode.track.initiation.tracklets import Tracklet
from fusionnode.track.lanes import workspace
from fusionnode.track.motion import coefficients, dynamics
from fusionnode.track.motion.dynamics import Dynamics
from fusionnode.track.motion.heaven import Earth, middle_of_day
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
from fusionnode.track.roster import Roster
from fusionnode.track.told import Event, updates

CHUNK = 4096
DAY_NS = 86_400_000_000_000
REVIEW_HITS = 100
"""A track's identity is looked at again after so many hits, and while young at every doubling of them."""
FITTED_NS = 3_000_000_000
"""A track that a detection fitted so lately is not lost: a fast radar that glitches does not take it over. With slower
sensors, it is twice the time after which a track coasts.
"""
FAR_OFF = 1e6
"""NIS of what does not fit at all."""
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]


def _as_kernels_see(measurements: StructArray) -> Measurements:
    return Measurements(
        np.ascontiguousarray(measurements).view(np.float64).reshape(len(measurements), COLUMNS),
        np.ascontiguousarray(measurements["t_meas_ns"]),
        np.ascontiguousarray(measurements["sensor"]),
        np.ascontiguousarray(measurements["channels"]),
    )


def chunk_end(measurements: StructArray, start: int) -> int:
    """One past the last of the measurements from ``start`` that are worked together: whole scans, about CHUNK."""
    end = start + CHUNK
    if end >= len(measurements):
        return len(measurements)
    t, sensor = measurements["t_meas_ns"], measurements["sensor"]
    while end < len(t):
        stop = min(end + CHUNK, len(t))
        cut = (t[end:stop] != t[end - 1 : stop - 1]) | (sensor[end:stop] != sensor[end - 1 : stop - 1])
        if cut.any():
            return end + int(np.argmax(cut))
        end = stop
    return end


class Tracker:
    """All tracks of a node. Not thread-safe: one owner."""

    APART = (
        "_config",
        "_sensors",
        "_earth",
        "_outcomes",
        "_known",
        "_names",
        "_room",
        "_log",
        "_w",
        "_events",
    )
    """Attributes that are no state of the tracks (see `track.checkpoint`)."""
    SHARED = ("_rules",)
    """Attributes that are replaced, but never changed in place."""

    def __init__(
        self,
        config: Config,
        earth: Earth,
        outcomes: Outcomes,
        known: Prior | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._config = config.tracking
        self._sensors = list(config.sensor)
        self._earth = earth
        self._outcomes = outcomes
        self._known = known if config.catalogue.initiate else None
        self._names = known
        self._name_from = config.catalogue.name_probability
        self._candidacy = candidacy(config)
        self._engine = engine or make_engine(config.tracking)
        self._rules = make_rules(config, dynamics.model(2, np.array([0.0, 0.0, 1.0])))
        self._coast_ns = next_tick(int(config.tracking.coast_publish_s * 1e9), self._rules.tick_ns)
        self._model_until = -NEVER
        self._pole_now = np.array([0.0, 0.0, 1.0])
        self.picture = make_picture(config.tracking.max_tracks, kept_beside(config.tracking))
        self._roster = Roster(self.picture, coefficients.fresh(config.tracking))
        self._room: Room = make_room(config.tracking.max_tracks, 256, kept_beside(config.tracking))
        self._log: Log = make_log(CHUNK)
        self._w = workspace()
        self._initiators = [Initiator(config.tracking, s.revisit_s) for s in config.sensor.values()]
        self._optical = OpticalInitiator(
            config.tracking, [s.revisit_s for s in config.sensor.values()], self._w
        )
        self.approximated = 0
        """Clusters so large that their marginal probabilities are approximate."""
        self._next_due = NEVER  # may be early (a measurement put it off), never late
        self._events: list[Event] = []
        self._watch = EventWatch(config, self.picture, self._merge) if config.events.enabled else None
        self.truth = SensorTruth(config, config.tracking.max_tracks, known)

    # -- what it offers

    def process(self, measurements: StructArray) -> None:
        """Take MEASUREMENT[n] in time order, none older than any before it or than the last `advance`."""
        start = 0
        while start < len(measurements):
            end = chunk_end(measurements, start)
            if end - start > len(self._log.row):
                self._log = make_log(end - start)
            chunk = measurements[start:end]
            for part in self.truth.parts(chunk, self._dynamics_at, self._try_only, self._count_isolated):
                self._process_chunk(part)
            start = end

    def advance(self, t_ns: int) -> None:
        """Let time pass: no measurement at or before ``t_ns`` will come any more."""
        self._sweep_to(t_ns)
        self.truth.advance(t_ns, self._dynamics_at, self._try_only)
        for sensor, initiator in enumerate(self._initiators):
            if initiator.pending:
                self._let_go(sensor, initiator.grow_old(t_ns))

    def finish(self) -> None:
        """Nothing will come any more: give what still waits an outcome."""
        for sensor, initiator in enumerate(self._initiators):
            self._let_go(sensor, initiator.forget(NEVER))
        self._take_optical(self._optical.finish())

    def look(self, measurement: StructArray, slots: npt.NDArray[np.int64] | None = None) -> list[Sighting]:
        """What tracks, as they stand now, expect of MEASUREMENT[1] that is still to be processed; nothing is used.

        Of the tracks in ``slots``, or else of those in whose cone it lies: whether it is in their gate is not asked.
        """
        measurement = self.truth.as_taken(measurement)
        ms = _as_kernels_see(measurement)
        t_ns = int(ms.t[0])
        if t_ns >= self._model_until:
            self._new_day(t_ns)
        if slots is None:
            slots = self._room.slots[: self._pairs_of_scan(ms, 0, 1)].copy()
        return sight(self.picture, self._engine, self._rules, measurement, slots)

    def solve_arcs(self, t_ns: int) -> None:
        """Let the sensors' biases be known from all there is up to ``t_ns``, arcs that are short yet included."""
        self.truth.solve_all(t_ns, self._dynamics_at)

    def take(self) -> list[Event]:
        """What happened to tracks since the last call: states and tombstones, without events of objects."""
        return [event for event in self.take_all() if not isinstance(event, ObjectEvent)]

    def take_all(self) -> list[Event]:
        """All that happened since the last call."""
        events, self._events = self._events, []
        return events

    def pending(self) -> dict[str, int]:
        """By sensor: measurements that wait in an initiator."""
        waiting = {
            name: i.pending + self._optical.pending(sensor)
            for sensor, (name, i) in enumerate(zip(self._sensors, self._initiators, strict=True))
        }
        return {name: n for name, n in waiting.items() if n}

    def give_back(self, events: list[Event]) -> None:
        """Let the next `take` begin with these."""
        self._events = events + self._events

    @property
    def sensor_names(self) -> list[str]:
        """Names of sensors by index."""
        return list(self._sensors)

    @property
    def watch(self) -> EventWatch | None:
        """What tells events of objects, if anything does."""
        return self._watch

    @property
    def free_slots(self) -> list[int]:
        """Slots that were in use, the next one to be used last."""
        return self._roster.free_slots

    @property
    def tick_ns(self) -> int:
        """The grid that tracks without measurements are predicted on."""
        return self._rules.tick_ns

    @property
    def coast_limit_ns(self) -> int:
        """How long a track may go unseen."""
        return int(self._config.coast_limit_s * 1e9)

    def take_up(self, begun: int, free: list[int]) -> None:
        """The picture holds tracks from before: so many numbers were given, these slots are free again."""
        self._roster.take_up(begun, free)

    def identify(self, slot: int, row: int) -> None:
        """The track in ``slot`` is the catalogued object ``row``; -1: it is none."""
        self._roster.identify(slot, row)

    def wake(self, states: StructArray) -> None:
        """Look at once at what is due, and tell TRACK_STATE[n]."""
        watch = self._watch
        self._next_due = min(int(earliest_due(self.picture)), NEVER if watch is None else watch.next_ns)
        if len(states):
            self._events.append(states)

    @property
    def begun(self) -> int:
        """Tracks begun so far, tentative ones included."""
        return self._roster.begun

    @property
    def mended(self) -> dict[str, int]:
        """Trials by what had to be done to keep their covariance definite (see `Engine.mended`)."""
        return self._engine.mended()

    def number_from(self, begun: int) -> None:
        """The next track gets the number after ``begun``."""
        self._roster.begun = begun

    def rename(self, number: dict[int, int]) -> None:
        """Tracks go by other numbers from now on; by old number."""
        for i in np.flatnonzero(np.isin(self.picture.number, list(number))).tolist():
            self.picture.number[i] = number[int(self.picture.number[i])]
        if self._watch is not None:
            self._watch.rename(number)

    @property
    def model(self) -> Dynamics:
        """The dynamics in use now."""
        return self._rules.model

    def slots(self) -> npt.NDArray[np.int64]:
        """Slots in use, ascending."""
        return self._roster.slots()

    # -- one chunk, one scan

    def _process_chunk(self, measurements: StructArray) -> None:
        ms = _as_kernels_see(measurements)
        at = 0
        n = len(measurements)
        while at < n:
            t_ns = int(ms.t[at])
            if self._next_due <= t_ns:
                self._sweep_to(t_ns)
            if t_ns >= self._model_until:
                self._new_day(t_ns)
            until = min(self._next_due, self._model_until)
            settled = self._engine.settle(self.picture, ms, at, until, self._rules, self._room, self._log)
            at = settled.at
            self.approximated += settled.approximate
            self._drain(ms, settled.review)
            if settled.open >= 0:
                self._leave_over(ms, measurements, settled.open, at, settled.pairs)
            elif not settled.review and at < n and ms.t[at] < until:
                end = int(scan_end(ms, at))
                self._scan(ms, measurements, at, end, settled.pairs)
                at = end

    def _scan(self, ms: Measurements, measurements: StructArray, start: int, end: int, tried: int) -> None:
        """Settle the scan from ``start`` to ``end``, of which ``tried`` pairs already stand in the room (-1: none)."""
        n = tried
        if n < 0:
            n = self._pairs_of_scan(ms, start, end)
            self._engine.try_pairs(self.picture, ms, n, self._rules, self._room)
        done = settle_scan(self.picture, self._engine, self._room, n, ms, start, end, self._rules, self._log)
        self.approximated += done.approximate
        self._drain(ms, done.review)
        if done.left:
            self._leave_over(ms, measurements, start, end, n)

    def _pairs_of_scan(self, ms: Measurements, start: int, end: int) -> int:
        """Pairs worth a trial, into a room that is large enough for them."""
        while (n := int(pairs_of_scan(self.picture, ms, start, end, self._rules, self._room))) < 0:
            p = self.picture
            self._room = make_room(len(p.active), 2 * len(self._room.slots), p.beside.shape[1])
        return n

    def _leave_over(self, ms: Measurements, measurements: StructArray, start: int, end: int, n: int) -> None:
        """Of the scan from ``start`` to ``end``, whose ``n`` pairs stand in the room, some found no track."""
        fate = self._log.fate[start:end].copy()
        self.truth.refused(self.picture, ms, self._room, n, (fate & USED) != 0, start)
        left, near = np.flatnonzero((fate & USED) == 0), (fate & NEAR) != 0
        plain = self._known is None and not wanders(self._rules.errors, int(ms.sensor[start]))
        if plain and len(left) > 1 and can_all_initiate(ms.channels[start + left]):
            self._unassociated_together(ms, start + left, near[left])
            return
        for i in left.tolist():
            self._unassociated(ms, measurements, start + i, bool(near[i]))

    def _try_only(self, ms: Measurements) -> Pairs:
        """Rows, slots, NIS and track numbers of the pairs that one scan makes; nothing is updated."""
        n = self._pairs_of_scan(ms, 0, len(ms.t))
        self._engine.try_pairs(self.picture, ms, n, self._rules, self._room)
        slots, rows, trials = self._room.slots[:n].copy(), self._room.rows[:n].copy(), self._room.trials
        # one that fits only without a channel does not fit
        nis = np.where(
            trials.used[:n] == ms.channels[rows], trials.nis[:n], np.maximum(trials.nis[:n], FAR_OFF)
        )
        return rows, slots, nis, self.picture.number[slots]

    def _dynamics_at(self, t_ns: int) -> dynamics.Dynamics:
        """Dynamics that reach some days back from ``t_ns``."""
        if t_ns >= self._model_until:
            self._new_day(t_ns)
        return self._rules.model

    def _count_isolated(self, sensor: int, n: int) -> None:
        self._outcomes.add(self._sensors[sensor], Outcome.SENSOR_ISOLATED, n)

    def _drain(self, ms: Measurements, review: bool) -> None:
        """Turn what was logged into states and outcomes."""
        n = int(self._log.made[0])
        if review:
            self._next_due = min(self._next_due, int(earliest_due(self.picture)))
        if n == 0:
            return
        log = self._log
        slots = log.slot[:n].copy()
        rows = log.row[:n]
        out = updates(self.picture, log, ms, slots)
        self.truth.updates(self.picture, ms, log, slots)
        log.made[0] = 0
        self._events.append(out)
        if self._watch is not None:
            self._watch.heed(log, ms, n)
        self._count_used(ms.sensor[rows], Outcome.USED)
        if review:
            p = self.picture
            self._review_all(list(dict.fromkeys(slots[p.hits[slots] >= p.review[slots]].tolist())))

    def _count_used(self, sensors: npt.NDArray[np.int32], outcome: Outcome) -> None:
        if len(sensors) == 1:
            self._outcomes.add(self._sensors[sensors[0]], outcome)
            return
        for sensor, count in enumerate(np.bincount(sensors, minlength=0)):
            self._outcomes.add(self._sensors[sensor], outcome, int(count))

    # -- what belongs to nothing known

    def _unassociated(self, ms: Measurements, measurements: StructArray, row: int, near: bool) -> None:
        sensor = int(ms.sensor[row])
        if self._known is not None and self._start_known(ms, row):
            return
        if not near:
            self.truth.orphan(self.picture, ms, row)
        measurement = as_noise(self._rules.errors, measurements[row])
        if not can_initiate(measurement):
            self._take_optical(
                self._optical.add(measurement, near, dynamics.alone(self.model), self._rules.psd)
            )
            return
        initiator = self._initiators[sensor]
        orbit, gone = initiator.add(measurement, near, self._w, self._rules.model)
        self._let_go(sensor, gone)
        if orbit is not None:
            self._start(orbit)

    def _unassociated_together(
        self, ms: Measurements, rows: npt.NDArray[np.int64], near: npt.NDArray[np.bool_]
    ) -> None:
        """As `_unassociated`, one after the other, of ``rows`` of one scan that say where something is."""
        sensor, at = int(ms.sensor[rows[0]]), 0
        initiator = self._initiators[sensor]
        while at < len(rows):
            orbit, gone, end = initiator.add_some(ms, rows, near, at, self._w, self._rules.model)
            for i in range(at, end):
                if not near[i]:
                    self.truth.orphan(self.picture, ms, int(rows[i]))
            self._let_go(sensor, gone)
            if orbit is not None:
                self._start(orbit)
            at = end

    def _take_optical(self, start: Start) -> None:
        for sensor, gone in enumerate(start.gone.tolist()):
            self._let_go(sensor, (gone[0], gone[1]))
        for orbit in start.orbits:
            self._start(orbit)
        for tracklet in start.ended:
            if not self._start_named(tracklet):
                self._take_optical(self._optical.suspect(tracklet, self._rules.model))
        self._next_due = min(self._next_due, self._optical.due_ns)

    def _let_go(self, sensor: int, gone: tuple[int, int]) -> None:
        if gone[0]:
            self._outcomes.add(self._sensors[sensor], Outcome.GATED_OUT, gone[0])
        if gone[1]:
            self._outcomes.add(self._sensors[sensor], Outcome.UNASSOCIATED, gone[1])

    def _start(self, orbit: NewOrbit) -> None:
        """Start a track from an orbit, or take up again the one that it continues."""
        t = orbit.used["t_meas_ns"]
        p = self.picture
        slot = continued_by(p, self._engine, self._rules, orbit) if is_sharp(orbit) else None
        if slot is not None and (
            np.count_nonzero(recent_hits(p, slot) >= t[0]) >= min(len(t), RING)
            or t[-1] - p.last_ob[slot]
            < max(FITTED_NS, 2 * self._rules.coast_after_ns[orbit.used["sensor"][-1]])
        ):
            # the track explains at least as much, or did just now; two objects this close cannot be told apart yet
            self._count_used(orbit.used["sensor"], Outcome.GATED_OUT)
            return
        if slot is not None:
            if self._watch is not None:
                self._watch.take_over(slot, int(t[0]), int(orbit.used["sensor"][0]))
            p.x[slot], p.P[slot], p.epoch[slot] = orbit.x, orbit.P, t[-1]
            coefficients.forget_cross(p.coefficients, slot)
            refresh_coarse(p, slot)
        else:
            slot = self._roster.place(orbit.x, orbit.P, int(t[-1]))
            if slot is None:
                self._count_used(orbit.used["sensor"], Outcome.TRACK_LIMIT)
                return
            self._enlist(slot, int(t[0]), int(t[-1]), known=False)
        if orbit.sure:
            p.status[slot] = Status.CONFIRMED
        birth = self._rules.confirm_at if orbit.sure else self._rules.birth
        p.exist[slot], p.exist_ns[slot] = max(p.exist[slot], birth), t[-1]
        self._begin_with(slot, orbit.used)

    def _begin_with(self, slot: int, used: StructArray) -> None:
        """A track's state stands on MEASUREMENT[k]: take note, and tell."""
        p = self.picture
        for sensor, count in enumerate(np.bincount(used["sensor"]).tolist()):
            note_begun(p, sensor, count)
        self._engine.begin(p, slot, used, self._rules)
        for t_ns, sensor in zip(used["t_meas_ns"].tolist(), used["sensor"].tolist(), strict=True):
            touch(p, slot, t_ns, sensor, self._rules)
        self._count_used(used["sensor"], Outcome.USED_INITIATION)
        self._next_due = min(self._next_due, int(p.due[slot]))
        self._events.append(report(p, np.array([slot])))
        if p.hits[slot] >= p.review[slot]:
            self._review(slot)

    def _start_known(self, ms: Measurements, row: int) -> bool:
        """Start the track of the catalogued object that this measurement fits best, if there is one."""
        assert self._known is not None
        slot = start_known(
            self._known, self._candidacy, self._roster, self._engine, self._rules, self._room, ms, row
        )
        if slot is None:
            return False
        t_ns = int(ms.t[row])
        self._enlist(slot, t_ns, t_ns, known=True)
        commit_pairs(self.picture, self._room, np.zeros(1, np.int64), ms, self._rules, self._log)
        self._drain(ms, False)
        self._next_due = min(self._next_due, int(self.picture.due[slot]))
        return True

    def _start_named(self, tracklet: Tracklet) -> bool:
        """Start the track of the catalogued object that a tracklet of directions most probably is, if it is."""
        if self._known is None:
            return False
        rows, ms = tracklet.rows, _as_kernels_see(tracklet.rows)
        slot = start_named(
            self._known, self._candidacy, self._roster, self._engine, self._rules, self._room, tracklet, ms
        )
        if slot is None:
            return False
        self._enlist(slot, int(ms.t[0]), int(ms.t[-1]), known=True)
        self._begin_with(slot, rows)
        return True

    def _enlist(self, slot: int, first_ns: int, now_ns: int, *, known: bool) -> None:
        self._roster.enlist(slot, self._config.confirm_hits)
        if self._watch is not None:
            self._watch.born(slot, first_ns, now_ns, known=known)
            self._next_due = min(self._next_due, self._watch.next_ns)

    def _end(self, slot: int, t_ns: int, reason: str, successor: int | None = None) -> None:
        number = int(self.picture.number[slot])
        self._roster.release(slot)
        if self._watch is not None:
            self._watch.ended(number)
        self._events.append(Tombstone(number, t_ns, reason, successor))

    # -- life without measurements

    def _sweep_to(self, t_ns: int) -> None:
        """Do what is due up to ``t_ns``, at the times it is due."""
        while self._next_due <= t_ns:
            watch = self._watch
            self._next_due = min(
                int(earliest_due(self.picture)),
                self._optical.due_ns,
                NEVER if watch is None else watch.next_ns,
            )
            if self._next_due <= t_ns:
                self._sweep(at := self._next_due)
                if watch is not None and watch.next_ns <= at:
                    self._events += watch.look(at, self._rules, self._pole_now)

    def _sweep(self, t_ns: int) -> None:
        p, c = self.picture, self._config
        if t_ns >= self._model_until:
            self._new_day(t_ns)
        if self._optical.due_ns <= t_ns:
            self._take_optical(self._optical.close(t_ns, dynamics.alone(self.model), self._rules.psd))
        tentative, confirmed = due_slots(p, t_ns)
        for slot in tentative.tolist():
            self._end(slot, t_ns, REASON_DROPPED)
        if len(confirmed) == 0:
            return
        self._engine.predict(p, confirmed, t_ns, self._rules)
        kept = coast_on(
            p, confirmed, t_ns, self._coast_ns, int(c.coast_limit_s * 1e9), c.drop_position_sigma_m,
            self._rules.drop_at if self._rules.by_existence else 0.0,
        )  # fmt: skip
        if kept.any():
            self._events.append(report(p, confirmed[kept]))
        if not kept.all():
            for slot in confirmed[~kept].tolist():
                self._end(slot, t_ns, REASON_DROPPED)

    def _new_day(self, t_ns: int) -> None:
        day = t_ns // DAY_NS
        self._model_until = (day + 1) * DAY_NS
        self._rules = self._rules._replace(
            model=dynamics.make(self._config, self._earth, t_ns, self.picture.coefficients)
        )
        self._pole_now = self._earth.pole(np.array([middle_of_day(t_ns)]))[0]

    # -- identity

    def _review_all(self, slots: list[int]) -> None:
        p, those = self.picture, np.array(slots, np.int64)
        lone = alone(p, self._rules, those)
        for i, slot in enumerate(slots):
            if not p.active[slot] or p.hits[slot] < p.review[slot]:
                continue
            if lone[i] and self._names is None:
                self._review(slot, lone=True)
                continue
            before = p.epoch[: p.high[0]].copy()
            self._review(slot, lone=bool(lone[i]))
            moved = np.flatnonzero(before != p.epoch[: p.high[0]])
            if len(moved) and lone[i + 1 :].any():
                lone[i + 1 :] &= apart_from(p, those[i + 1 :], moved)

    def _review(self, slot: int, *, lone: bool = False) -> None:
        """Is this track another's double, or a known object's? ``lone``: there is no other near it."""
        p = self.picture
        p.review[slot] = p.hits[slot] + min(int(p.hits[slot]), REVIEW_HITS)
        double = None if lone else double_of(p, self._engine, self._rules, slot)
        if double is not None:
            self._merge(slot, double)
        elif self._names is not None and (p.object[slot] < 0 or p.hits[slot] <= REVIEW_HITS):
            self._name(slot, self._names.correlate(p.x[slot], p.P[slot].reshape(6, 6), int(p.epoch[slot])))

    def _name(self, slot: int, who: Who) -> None:
        """Give a track the name it has most probably; a young one may lose that with which it began."""
        p, known = self.picture, int(self.picture.object[slot])
        if known >= 0:
            p.object_p[slot] = who.of(known)
        found = who.best()
        if found is None or found[1] < self._name_from or found[0] == known:
            if known >= 0 and p.object_p[slot] < 1.0 - self._name_from:
                self._roster.identify(slot, -1)
            return
        holder = self._roster.track_of_object.get(found[0])
        if holder is None:
            self._roster.identify(slot, *found)
        elif are_one(p, self._engine, self._rules, slot, holder):
            self._merge(slot, holder)

    def _merge(self, slot: int, other: int) -> None:
        """Two tracks are one object: the older number lives on, with the state that says more."""
        p = self.picture
        kept, gone = (slot, other) if says_more(p, slot, other) else (other, slot)
        number, _ = self._roster.take_over(kept, gone)
        if self._watch is not None:
            self._watch.merged(kept, gone)
        p.review[kept] = p.hits[kept] + REVIEW_HITS
        self._end(gone, int(p.epoch[slot]), REASON_MERGED, number)
        self._events.append(report(p, np.array([kept])))
