"""Measurements in time order to tracks: scan by scan, with a life for every track.

What comes out depends on the measurements and their order alone, not on how they were cut into calls.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.schema import REASON_DROPPED, REASON_MERGED
from fusionnode.core.types import (
    TRACK_STATE,
    Channel,
    KnownObject,
    ObjectEvent,
    Status,
    StructArray,
    Tombstone,
)
from fusionnode.track.association.associate import (
    Log,
    Measurements,
    Room,
    commit,
    commit_pairs,
    gate,
    make_log,
    make_room,
    scan_end,
    weigh,
)
from fusionnode.track.association.cluster import assigned, clusters_of
from fusionnode.track.association.coarse import coast_on, refresh_coarse
from fusionnode.track.association.jpda import share_out
from fusionnode.track.association.looks import note_begun, note_false
from fusionnode.track.association.misses import end_look
from fusionnode.track.association.preview import Sighting, sight
from fusionnode.track.association.select import pairs_of_scan
from fusionnode.track.calibration.front import SensorTruth
from fusionnode.track.events.watch import EventWatch
from fusionnode.track.filtering.engine import Engine
from fusionnode.track.filtering.engine_variants import kept_beside, make_engine
from fusionnode.track.filtering.errors import as_noise
from fusionnode.track.filtering.sensing import COLUMNS, FIRST_COLUMN
from fusionnode.track.identity import are_one, continued_by, double_of, is_sharp, recent_hits
from fusionnode.track.initiation.attributable import sighted
from fusionnode.track.initiation.initiate import Initiator, NewOrbit, can_initiate
from fusionnode.track.initiation.optical import OpticalInitiator, Start
from fusionnode.track.initiation.tracklets import Tracklet
from fusionnode.track.lanes import workspace
from fusionnode.track.motion import coefficients, dynamics
from fusionnode.track.motion.dynamics import Dynamics
from fusionnode.track.motion.heaven import Earth, middle_of_day
from fusionnode.track.picture import (
    NEVER,
    due_slots,
    earliest_due,
    make_picture,
    make_rules,
    next_tick,
    report,
    touch,
)
from fusionnode.track.roster import Roster

CHUNK = 4096
Z_SITE_R, Z_LOS, Z_RANGE, Z_VAR = (FIRST_COLUMN + i for i in (0, 6, 15, 17))
"""Columns of a MEASUREMENT seen as float64."""
DAY_NS = 86_400_000_000_000
REVIEW_HITS = 100
"""A track's identity is looked at again after so many hits, and while young at every doubling of them."""
NEAREST_M = 500_000.0
"""How far a known object is taken to be at least, where no range was measured."""
BESIDE_RAD = 0.1
"""Catalogued objects within this of a direction say how densely objects lie there."""
FAR_OFF = 1e6
"""NIS of what does not fit at all."""
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]
Event = StructArray | Tombstone | ObjectEvent
"""What the tracker gives: TRACK_STATE arrays, tombstones and events of objects, in the order in which they happened."""


def merged(events: list[Event]) -> list[Event]:
    """The same events with arrays that follow each other joined: cheaper to look through."""
    out: list[Event] = []
    run: list[StructArray] = []
    for event in [*events, None]:
        if event is not None and not isinstance(event, Tombstone | ObjectEvent):
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
    while end < len(t) and t[end] == t[end - 1] and sensor[end] == sensor[end - 1]:
        end += 1
    return end


_DEGREES = np.array([bin(c & Channel.RANGE | c & Channel.RANGE_RATE).count("1") + (2 if c & Channel.ANGLES else 0)
                     for c in range(8)])  # fmt: skip


class Who(Protocol):
    """What the tracker asks of a correlation (see `catalogue.correlate.Correlation`)."""

    def best(self) -> tuple[int, float] | None:
        """The likeliest object (row) and its probability, if there is a candidate."""
        ...

    def of(self, row: int) -> float:
        """The probability of one object."""
        ...


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

    def object(self, row: int) -> KnownObject | None:
        """What an object is called."""
        ...

    def correlate(self, x: npt.NDArray[np.float64], P: npt.NDArray[np.float64], t_ns: int) -> Who:
        """Which objects a track may be."""
        ...

    def correlate_direction(self, direction: Any, delay: float = 1.0) -> Who:
        """Which objects a tracklet of directions (`attributable.Sighted`) may be, seen ``delay`` light times ago."""
        ...


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
        c = config.catalogue
        self._name_from = c.name_probability
        self._new_ratio = c.new_object_ratio
        self._known_reach_m = 6.0 * max(c.sigma_radial_m, c.sigma_along_m, c.sigma_cross_m)
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
                self._let_go(sensor, initiator.forget(t_ns - initiator.window_ns))

    def finish(self) -> None:
        """Nothing will come any more: give what still waits an outcome."""
        for sensor, initiator in enumerate(self._initiators):
            self._let_go(sensor, initiator.forget(NEVER))
        self._take_optical(self._optical.finish())

    def look(self, measurement: StructArray, slots: npt.NDArray[np.int64] | None = None) -> list[Sighting]:
        """What tracks, as they stand now, expect of MEASUREMENT[1] that is still to be processed; nothing is used.

        Of the tracks in ``slots``, or else of those in whose cone it lies: whether it is in their gate is not asked.
        """
        ms = _as_kernels_see(measurement)
        t_ns = int(ms.t[0])
        if t_ns >= self._model_until:
            self._new_day(t_ns)
        if slots is None:
            while (n := int(pairs_of_scan(self.picture, ms, 0, 1, self._rules, self._room))) < 0:
                self._room = make_room(len(self.picture.active), 2 * len(self._room.slots))
            slots = self._room.slots[:n].copy()
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
            at, review, tried = self._engine.settle(
                self.picture, ms, at, until, self._rules, self._room, self._log
            )
            self._drain(ms, review)
            if not review and at < n and ms.t[at] < until:
                end = int(scan_end(ms, at))
                self._scan(ms, measurements, at, end, tried)
                at = end

    def _scan(self, ms: Measurements, measurements: StructArray, start: int, end: int, tried: int) -> None:
        """Settle the scan from ``start`` to ``end``, of which ``tried`` pairs already stand in the room (-1: none)."""
        n = tried
        if n < 0:
            while (n := int(pairs_of_scan(self.picture, ms, start, end, self._rules, self._room))) < 0:
                self._room = make_room(
                    len(self.picture.active), 2 * len(self._room.slots), self.picture.beside.shape[1]
                )
            self._engine.try_pairs(self.picture, ms, n, self._rules, self._room)
        p, room, rules = self.picture, self._room, self._rules
        inside = np.empty(n, np.int64)
        inside = inside[: gate(p, room, n, ms, rules, inside)]
        rows = room.rows[inside] - start
        clusters = clusters_of(rows, room.slots[inside], end - start, room.claimed)
        taken = assigned(clusters, room.gain[inside])
        if rules.jpda:
            self.approximated += share_out(p, self._engine, room, inside, clusters, taken, ms, start, rules)
        review = bool(commit_pairs(p, room, inside[taken], ms, rules, self._log))
        done = np.zeros(end - start, np.bool_)
        done[rows[taken]] = True
        near = np.zeros(end - start, np.bool_)
        near[room.rows[:n] - start] = True
        for i in np.flatnonzero(~done).tolist():
            note_false(p, ms.sensor[start], ms.z[start + i], ms.channels[start + i])
        review = bool(end_look(p, ms, start, rules)) or review
        self._drain(ms, review)
        self.truth.refused(self.picture, ms, room, n, done, start)
        for i in np.flatnonzero(~done).tolist():
            self._unassociated(ms, measurements, start + i, bool(near[i]))

    def _try_only(self, ms: Measurements) -> Pairs:
        """Rows, slots, NIS and track numbers of the pairs that one scan makes; nothing is updated."""
        while (n := int(pairs_of_scan(self.picture, ms, 0, len(ms.t), self._rules, self._room))) < 0:
            self._room = make_room(len(self.picture.active), 2 * len(self._room.slots))
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
        out = np.zeros(n, TRACK_STATE)
        out["track"] = self.picture.number[slots]
        out["epoch_ns"] = out["last_ob_ns"] = ms.t[rows]
        out["status"] = log.status[:n]
        out["x"] = log.x[:n]
        out["P"] = log.P[:n].reshape(n, 6, 6)
        out["sensors"] = log.sensors[:n]
        out["object"] = self.picture.object[slots]
        out["object_p"] = self.picture.object_p[slots]
        out["updates"] = log.hits[:n]
        out["nis"] = log.nis[:n]
        out["dof"] = _DEGREES[log.used[:n]]
        out["existence"] = log.exist[:n]
        self.truth.updates(self.picture, ms, log, slots)
        log.made[0] = 0
        self._events.append(out)
        if self._watch is not None:
            self._watch.heed(log, ms, n)
        self._count_used(ms.sensor[rows], Outcome.USED)
        if review:
            p = self.picture
            for slot in dict.fromkeys(slots[p.hits[slots] >= p.review[slots]].tolist()):
                if p.active[slot] and p.hits[slot] >= p.review[slot]:
                    self._review(slot)

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
        if slot is not None and np.count_nonzero(recent_hits(p, slot) >= t[0]) >= len(t):
            # the track explains at least as much; two objects this close cannot be told apart yet
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
        for m in used:
            touch(p, slot, int(m["t_meas_ns"]), int(m["sensor"]), self._rules)
        self._count_used(used["sensor"], Outcome.USED_INITIATION)
        self._next_due = min(self._next_due, int(p.due[slot]))
        self._events.append(report(p, np.array([slot])))
        if p.hits[slot] >= p.review[slot]:
            self._review(slot)

    def _start_known(self, ms: Measurements, row: int) -> bool:
        """Start the track of the catalogued object that this measurement fits best, if there is one."""
        assert self._known is not None
        z, t_ns = ms.z[row], int(ms.t[row])
        distance = z[Z_RANGE] if ms.channels[row] & Channel.RANGE else NEAREST_M
        sigma = float(np.sqrt(z[Z_VAR + 1 : Z_VAR + 3].max()))
        cone = 6.0 * sigma + self._known_reach_m / distance
        best: tuple[float, int, int] | None = None
        likely: list[float] = []  # ln of each candidate's likelihood
        los, site_r = z[Z_LOS : Z_LOS + 3], z[Z_SITE_R : Z_SITE_R + 3]
        for candidate in self._known.near(los, site_r, t_ns, cone).tolist():
            prior = None if candidate in self._roster.track_of_object else self._known.prior(candidate, t_ns)
            slot = None if prior is None else self._roster.place(prior[0], prior[1].reshape(36), t_ns)
            if slot is None:
                continue
            self.picture.exist[slot] = self._rules.birth
            cost = self._try_one(ms, slot, row)
            likely.append(self._log_likelihood() if cost < np.inf else -np.inf)
            if cost < (best[0] if best else np.inf):
                if best is not None:
                    self._roster.release(best[1])
                best = (cost, slot, candidate)
            else:
                self._roster.release(slot)
        if best is None:
            return False
        _, slot, candidate = best
        self._try_one(ms, slot, row)
        likely_new = self._log_density(los, site_r, t_ns, int(self._room.trials.used[0]))
        weight = np.exp(np.array([*likely, likely_new]) - max(*likely, likely_new))
        if weight[-1] > self._name_from * weight.sum():
            self._roster.release(slot)
            return False
        probability = np.exp(self._log_likelihood() - max(*likely, likely_new)) / weight.sum()
        self._roster.identify(slot, candidate, float(probability))
        self._enlist(slot, t_ns, t_ns, known=True)
        commit(self.picture, self._room, 0, ms, self._rules, self._log)
        self._drain(ms, False)
        self._next_due = min(self._next_due, int(self.picture.due[slot]))
        return True

    def _start_named(self, tracklet: Tracklet) -> bool:
        """Start the track of the catalogued object that a tracklet of directions most probably is, if it is."""
        if self._known is None:
            return False
        rows, p = tracklet.rows, self.picture
        who = self._known.correlate_direction(sighted(rows, tracklet.motion), float(rows["target_delay"][-1]))
        best = who.best()
        if best is None or best[1] < self._name_from or best[0] in self._roster.track_of_object:
            return False
        prior = self._known.prior(best[0], int(rows["t_meas_ns"][0]))
        slot = None if prior is None else self._roster.place(
            prior[0], prior[1].reshape(36), int(rows["t_meas_ns"][0])
        )  # fmt: skip
        if slot is None:
            return False
        ms = _as_kernels_see(rows)
        for row in range(len(rows)):
            if not self._try_one(ms, slot, row) < np.inf:
                self._roster.release(slot)
                return False
            trials = self._room.trials
            p.x[slot], p.P[slot], p.epoch[slot] = trials.x[0], trials.P[0], ms.t[row]
        refresh_coarse(p, slot)
        self._roster.identify(slot, *best)
        self._enlist(slot, int(ms.t[0]), int(ms.t[-1]), known=True)
        p.exist[slot], p.exist_ns[slot] = self._rules.birth, ms.t[-1]
        self._begin_with(slot, rows)
        return True

    def _enlist(self, slot: int, first_ns: int, now_ns: int, *, known: bool) -> None:
        self._roster.enlist(slot, self._config.confirm_hits)
        if self._watch is not None:
            self._watch.born(slot, first_ns, now_ns, known=known)
            self._next_due = min(self._next_due, self._watch.next_ns)

    def _log_likelihood(self) -> float:
        """Of the first trial in the room, in the units of its channels."""
        trial = self._room.trials
        return -0.5 * float(
            trial.nis[0] + np.log(trial.det[0]) + _DEGREES[trial.used[0]] * np.log(2.0 * np.pi)
        )

    def _log_density(
        self, los: npt.NDArray[np.float64], site_r: npt.NDArray[np.float64], t_ns: int, used: int
    ) -> float:
        """ln of how densely objects that the catalogue does not have lie around a measurement, in the same units: as
        the catalogue's do around its direction; over a thousand kilometres, and over ten kilometres a second.
        """
        assert self._known is not None
        beside = max(len(self._known.near(los, site_r, t_ns, BESIDE_RAD)), 0.5)
        density = self._new_ratio * beside / (np.pi * BESIDE_RAD**2)
        density *= 1e-6 if used & Channel.RANGE else 1.0
        return float(np.log(density * (1e-4 if used & Channel.RANGE_RATE else 1.0)))

    def _try_one(self, ms: Measurements, slot: int, row: int) -> float:
        """Cost of one pair, which is then the first in the room; inf if it is out of its gate."""
        self._room.slots[0], self._room.rows[0] = slot, row
        self._engine.try_pairs(self.picture, ms, 1, self._rules, self._room)
        trial = self._room.trials
        if not trial.nis[0] <= self._rules.gates[_DEGREES[trial.used[0]]]:
            return np.inf
        weigh(self.picture, self._room, 0, ms, self._rules)
        return -float(self._room.gain[0])

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

    def _review(self, slot: int) -> None:
        """Is this track another's double, or a known object's?"""
        p = self.picture
        p.review[slot] = p.hits[slot] + min(int(p.hits[slot]), REVIEW_HITS)
        double = double_of(p, self._engine, self._rules, slot)
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
        """Two tracks are one object: the older number lives on, with the state that was updated last."""
        p = self.picture
        fresh, stale = (slot, other) if p.last_ob[slot] >= p.last_ob[other] else (other, slot)
        number, _ = self._roster.take_over(fresh, stale)
        if self._watch is not None:
            self._watch.merged(fresh, stale)
        p.review[fresh] = p.hits[fresh] + REVIEW_HITS
        self._end(stale, int(p.epoch[slot]), REASON_MERGED, number)
        self._events.append(report(p, np.array([fresh])))
