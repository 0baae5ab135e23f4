"""What happens to objects: manoeuvres, new objects beside known ones, break-ups, decay and re-entry.

Fed with what the tracker knows anyway, looked at on a grid of data time, so that what it tells does not depend on how
the measurements were cut into calls. Nothing is told of a tentative track.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config
from fusionnode.core import schema
from fusionnode.core.types import ObjectEvent, Status
from fusionnode.track.association.associate import Log, Measurements
from fusionnode.track.association.coarse import refresh_coarse
from fusionnode.track.distance import distance2
from fusionnode.track.events.crossing import MOST_OLD, Bench, Crossing, Orbit
from fusionnode.track.events.fever import WARM, Fever, heed, make_fever
from fusionnode.track.motion.coefficients import forget_cross
from fusionnode.track.motion.dynamics import MU
from fusionnode.track.motion.heights import SEMI_MAJOR_M, height_m, perigee_m, perigee_sigma_m
from fusionnode.track.picture import NEVER, RING, Picture, Rules, next_tick

F64 = npt.NDArray[np.float64]

LOOK_NS = 2_000_000_000
HEIGHTS_NS = 10_000_000_000
CROSSES = 21.1
"""Chi-square of three degrees of freedom at 99.99 %: two orbits whose normalised gap is below it may have met."""
LEAST_HITS = 12
"""A new orbit is followed for so many hits before it is held against others."""
SETTLED_HITS = 12
PATIENCE_NS = 60_000_000_000
"""A manoeuvre that has not shown by then is none that can be told."""
AGREES = 10.64
"""Chi-square of six degrees of freedom at 90 %."""
WATCHED_NS = 900_000_000_000
"""A track that has fitted this lately is being watched. After a longer while what does not fit is the error of its
orbit, or a burn that nobody saw, and the track is not loosened: it finds its way, or its detections begin a new orbit.
"""
LOOSE_M = 300.0
LOOSE_M_S = 10.0
"""Standard deviations of position and velocity that a track are given back when its innovations stop to fit."""
KNOWN_NS = 600_000_000_000
"""An object is known that was there so long before the new one."""
BESIDE_M = 100_000.0
"""A sensor that sees something there would have seen the track, if it were there."""
BLUR_M = 30_000.0
"""Orbits that are no better known than this where they meet say nothing."""
SHARED_NS = 60_000_000_000
SHARED = 0.34
"""More than one, and more than this share of a sensor's tracks in trouble at once: it is the sensor."""
GRID_S = 30.0
LOW_HITS = 30
"""Hits from which on a track's perigee is believed: the orbits of the first seconds are not."""
RISES_M = 10_000.0
"""A perigee or height that has risen so far above its limit may be told of again."""
FALLS_M = 80_000.0
"""No orbit that is so far above a height comes below it within four steps of the grid by a grazing passage only."""
CERTAIN = 2.0
_MANOEUVRE_SLACK = 1.2
_J2_SLACK = 0.005
_TOLD_DECAY, _TOLD_REENTRY = 1, 2
_TENTATIVE, _COASTING = int(Status.TENTATIVE), int(Status.COASTING)


class Births(NamedTuple):
    """One row a slot."""

    first_ns: npt.NDArray[np.int64]  # (N,) TAI ns of its first measurement
    open: npt.NDArray[np.bool_]  # (N,) where it came from is still to be looked at
    tried: npt.NDArray[np.int64]  # (N,) hits it had when that was looked at
    told: npt.NDArray[np.uint8]  # (N,) what of its height has been told


class Pending(NamedTuple):
    """A track that may have manoeuvred."""

    number: int
    old: Orbit
    from_ns: int
    until_ns: int
    """The burn was in between; TAI ns."""
    hits: int
    sensor: int
    nis: float | None
    dof: float | None
    loosened: bool
    """Whether the track was given back its freedom."""


class EventWatch:
    """Tells what happens to the tracks of a picture.

    Args:
        config: the station's configuration.
        picture: the tracks.
        merge: called with two slots that are one object; the older number goes on.
    """

    def __init__(self, config: Config, picture: Picture, merge: Callable[[int, int], None]) -> None:
        self._config = config.events
        self._p = picture
        self._bench = Bench()
        self._merge = merge
        n = len(picture.active)
        self.fever = make_fever(n, len(config.sensor))
        self.births = Births(
            np.zeros(n, np.int64),
            np.zeros(n, np.bool_),
            np.zeros(n, np.int64),
            np.zeros(n, np.uint8),
        )
        self.next_ns = NEVER
        """When to call `look`, TAI ns; NEVER as long as there are no tracks."""
        self._heights_ns = 0
        self._alarms = 0
        self._any_open = False
        self._merges = 0
        self._kept = False  # a copy that only copies are made of
        self._pending: list[Pending] = []
        self._troubles: list[tuple[int, int, int]] = []  # TAI ns, sensor, number
        self._partings: dict[int, list[tuple[int, int]]] = {}  # known number: (TAI ns, new number)
        self._broken: dict[int, int] = {}  # known number: count told

    # -- what the tracker tells

    def born(self, slot: int, first_ns: int, now_ns: int, *, known: bool) -> None:
        """The track in ``slot`` has begun, with measurements from ``first_ns`` to ``now_ns``; ``known``: of a
        catalogued object.
        """
        b = self.births
        b.first_ns[slot], b.open[slot] = first_ns, not known
        b.tried[slot] = b.told[slot] = 0
        self._cool(slot)
        self._any_open = self._any_open or not known
        if self.next_ns == NEVER:
            self.next_ns = int(next_tick(now_ns + 1, LOOK_NS))

    def heed(self, log: Log, ms: Measurements, n: int) -> None:
        """The first ``n`` updates of the log were made."""
        self._alarms += int(heed(self.fever, log, ms, n))

    def take_over(self, slot: int, first_ns: int, sensor: int) -> None:
        """The track in ``slot`` is about to go on in another orbit, first measured at ``first_ns``."""
        number = int(self._p.number[slot])
        self._troubles.append((first_ns, sensor, number))
        old, from_ns = self._before(slot)
        self._await(slot, old, from_ns, first_ns, sensor)
        f = self.fever
        f.total[slot] = f.nis[slot] = f.dof[slot] = 0.0

    def merged(self, fresh: int, stale: int) -> None:
        """The track in ``fresh`` goes on for both; called once the numbers have changed."""
        b = self.births
        self._merges += 1
        b.first_ns[fresh] = min(int(b.first_ns[fresh]), int(b.first_ns[stale]))
        b.told[fresh] |= b.told[stale]
        b.open[fresh] = b.open[fresh] and b.open[stale]

    def _cool(self, slot: int) -> None:
        f = self.fever
        f.total[slot] = f.nis[slot] = f.dof[slot] = 0.0
        f.alarm[slot] = f.held[slot] = False
        f.anchor_ns[slot] = 0

    def rename(self, number: dict[int, int]) -> None:
        """Tracks go by other numbers from now on; by old number."""

        def now(n: int) -> int:
            return number.get(n, n)

        self._pending = [pending._replace(number=now(pending.number)) for pending in self._pending]
        self._troubles = [(t, s, now(n)) for t, s, n in self._troubles]
        self._partings = {now(k): [(t, now(n)) for t, n in list_] for k, list_ in self._partings.items()}
        self._broken = {now(k): count for k, count in self._broken.items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> EventWatch:
        """A copy to be kept, whose arrays reach as far as there are tracks; and of such a one, a copy to go on with."""
        twin = copy.copy(self)
        twin._kept = not self._kept
        rows = len(self._p.active) if self._kept else int(self._p.high[0])
        twin.births = Births(*(_as_far(a, rows) for a in self.births))
        twin.fever = Fever(*(_as_far(a, rows) for a in self.fever))._replace(ratio=self.fever.ratio.copy())
        twin._pending, twin._troubles = list(self._pending), list(self._troubles)
        twin._partings = {known: list(list_) for known, list_ in self._partings.items()}
        twin._broken = dict(self._broken)
        return twin

    def ended(self, number: int) -> None:
        """There is no track of this number any more."""
        self._pending = [pending for pending in self._pending if pending.number != number]
        self._broken.pop(number, None)
        self._partings.pop(number, None)

    # -- what it tells

    def look(self, t_ns: int, rules: Rules, pole: F64) -> list[ObjectEvent]:
        """Look at what is due at ``t_ns``, all measurements before which have been taken."""
        p = self._p
        high = int(p.high[0])
        if not p.active[:high].any():
            self.next_ns = NEVER
            return []
        self.next_ns = t_ns + LOOK_NS
        out: list[ObjectEvent] = []
        if self._troubles or self._partings:
            self._forget(t_ns)
        if self._alarms:
            self._alarms = 0
            for slot in np.flatnonzero(self.fever.alarm[:high] & p.active[:high]).tolist():
                self._alarmed(slot, t_ns)
        if self._pending:
            out += self._manoeuvres(t_ns, rules)
        if self._any_open:
            out += self._newcomers(t_ns, rules)
        if t_ns >= self._heights_ns:
            self._heights_ns = t_ns + HEIGHTS_NS
            out += self._heights(t_ns, rules, pole)
        return out

    # -- manoeuvres

    def _alarmed(self, slot: int, t_ns: int) -> None:
        """The innovations of one track do not fit any more: give it back its freedom, unless it is the sensor."""
        f, p = self.fever, self._p
        sensor, number = int(f.sensor[slot]), int(p.number[slot])
        f.alarm[slot] = False
        f.total[slot] = 0.0
        if p.status[slot] == _TENTATIVE:
            return
        self._troubles.append((t_ns, sensor, number))
        if self._shared(sensor, t_ns):
            return
        old = self._anchor(slot)
        if old is None or t_ns - old.t_ns > WATCHED_NS:
            return
        f.held[slot] = True
        self._await(slot, old, old.t_ns, t_ns, sensor, loosened=True)
        for i in range(6):
            p.P[slot, 7 * i] += LOOSE_M**2 if i < 3 else LOOSE_M_S**2
        p.beside[slot] = 0.0  # what the filter keeps beside it begins anew
        refresh_coarse(p, slot)

    def _orbit(self, slot: int) -> Orbit:
        p = self._p
        return Orbit(p.x[slot].copy(), p.P[slot].copy(), int(p.epoch[slot]))

    def _before(self, slot: int) -> tuple[Orbit, int]:
        """The orbit that a track was last borne out in, and until when: not what led it astray."""
        anchored = self._anchor(slot) if self.fever.total[slot] >= WARM else None
        if anchored is not None:
            return anchored, anchored.t_ns
        return self._orbit(slot), int(self._p.last_ob[slot])

    def _anchor(self, slot: int) -> Orbit | None:
        f = self.fever
        k = 0 if f.anchor_ns[slot, 0] else 1
        if f.anchor_ns[slot, k] == 0:
            return None
        return Orbit(f.anchor_x[slot, k].copy(), f.anchor_cov[slot, k].copy(), int(f.anchor_ns[slot, k]))

    def _await(
        self, slot: int, old: Orbit, from_ns: int, until_ns: int, sensor: int, *, loosened: bool = False
    ) -> None:
        p, f = self._p, self.fever
        number = int(p.number[slot])
        if any(pending.number == number for pending in self._pending):
            return  # one burn at a time
        hot = f.dof[slot] > 0
        self._pending.append(
            Pending(
                number,
                old,
                from_ns,
                until_ns,
                int(p.hits[slot]),
                sensor,
                float(f.nis[slot]) if hot else None,
                float(f.dof[slot]) if hot else None,
                loosened,
            )
        )

    def _shared(self, sensor: int, t_ns: int) -> bool:
        """Whether what befell a track befalls most that this sensor sees: then it is the sensor's doing."""
        troubled = {n for t, s, n in self._troubles if s == sensor and t_ns - t <= SHARED_NS}
        if len(troubled) < 2:
            return False
        p = self._p
        high = int(p.high[0])
        newest = (p.ring_n[:high] - 1) % RING
        by = p.ring_sensor[np.arange(high), newest] == sensor
        seen = p.active[:high] & by & (t_ns - p.last_ob[:high] <= SHARED_NS)
        return len(troubled) > SHARED * int(np.count_nonzero(seen))

    def _manoeuvres(self, t_ns: int, rules: Rules) -> list[ObjectEvent]:
        p = self._p
        out: list[ObjectEvent] = []
        kept: list[Pending] = []
        slots = {int(p.number[s]): s for s in np.flatnonzero(p.active[: p.high[0]]).tolist()}
        for pending in self._pending:
            slot = slots.get(pending.number)
            if slot is None:
                continue
            late = t_ns - pending.until_ns >= PATIENCE_NS or p.status[slot] == _COASTING
            if p.hits[slot] - pending.hits < SETTLED_HITS and not late:
                kept.append(pending)
                continue
            event = self._manoeuvre(pending, slot, t_ns, rules)
            if event is not None:
                out.append(event)
            elif not self._calmed(pending, slot, rules, late):
                kept.append(pending)
                continue
            self.fever.held[slot] = False
            self.fever.anchor_ns[slot] = 0
        self._pending = kept
        return out

    def _calmed(self, pending: Pending, slot: int, rules: Rules, late: bool) -> bool:
        """Whether it is over, with nothing to tell. A track that is again where it was going takes up its orbit from
        before the trouble. So does one whose trouble no change of velocity explains in time: it was the sensor's.
        """
        if not pending.loosened:
            return late
        p = self._p
        now = self._orbit(slot)
        before = self._bench.carried(pending.old, now.t_ns, rules)
        apart = now.x - before.x
        both = (now.P + before.P).reshape(6, 6)
        if not late and distance2(apart, both) > AGREES:
            return False
        if np.trace(before.P.reshape(6, 6)[3:, 3:]) < np.trace(now.P.reshape(6, 6)[3:, 3:]):
            p.x[slot], p.P[slot] = before.x, before.P
            p.beside[slot] = 0.0
            forget_cross(p.coefficients, slot)
            refresh_coarse(p, slot)
        return True

    def _manoeuvre(self, pending: Pending, slot: int, t_ns: int, rules: Rules) -> ObjectEvent | None:
        if self._shared(pending.sensor, t_ns):
            return None
        burn = self._bench.burn(pending.old, self._orbit(slot), pending.from_ns, pending.until_ns, rules)
        if not self._is_burn(burn):
            return None
        event = self._burnt(burn, slot, t_ns, pending.sensor, pending.nis, pending.dof)
        anchored = pending.old.t_ns == pending.from_ns
        # a slow change may have begun before the state it is measured against
        return replace(event, from_ns=None) if anchored and event.from_ns == pending.from_ns else event

    def _is_burn(self, burn: Crossing) -> bool:
        c = self._config
        size = float(np.linalg.norm(burn.delta_v))
        return bool(
            burn.d2 <= CROSSES
            and burn.gap_sigma_m <= BLUR_M
            and c.manoeuvre_min_m_s <= size <= c.manoeuvre_max_m_s
            and burn.delta_v_d2 >= c.manoeuvre_sigma**2
        )

    def _burnt(
        self,
        burn: Crossing,
        slot: int,
        t_ns: int,
        sensor: int,
        nis: float | None = None,
        dof: float | None = None,
    ) -> ObjectEvent:
        p = self._p
        dv = burn.delta_v.tolist()
        return ObjectEvent(
            kind=schema.EVENT_MANOEUVRE,
            track=int(p.number[slot]),
            t_ns=t_ns,
            epoch_ns=burn.t_ns,
            from_ns=burn.from_ns,
            to_ns=burn.to_ns,
            delta_v=(dv[0], dv[1], dv[2]),
            delta_v_sigma_m_s=burn.delta_v_sigma_m_s,
            distance_m=float(np.linalg.norm(burn.gap)),
            distance_sigma_m=burn.gap_sigma_m,
            sensors=1 << sensor if sensor >= 0 else 0,  # -1: one that the configuration no longer has
            nis=nis,
            dof=dof,
            object=int(p.object[slot]),
        )

    # -- new objects near known ones

    def _newcomers(self, t_ns: int, rules: Rules) -> list[ObjectEvent]:
        p, b = self._p, self.births
        high = int(p.high[0])
        open_ = p.active[:high] & b.open[:high]
        self._any_open = bool(open_.any())
        out: list[ObjectEvent] = []
        merges = self._merges
        ready, at = self._ready(0), 0
        while at < len(ready):
            slot = int(ready[at])
            at += 1
            if not p.active[slot] or not b.open[slot]:
                continue  # merged meanwhile
            if p.object[slot] >= 0:
                b.open[slot] = False
                continue
            b.tried[slot] = p.hits[slot]
            out += self._origin(slot, t_ns, rules)
            if t_ns - b.first_ns[slot] > self._lookback_ns:
                b.open[slot] = False
            if self._merges != merges:  # which adds hits
                merges = self._merges
                ready, at = self._ready(slot + 1), 0
        return out

    def _ready(self, first: int) -> npt.NDArray[np.int64]:
        """Slots from ``first`` on of newcomers that were named, or have enough hits more to be looked at again."""
        p, b = self._p, self.births
        these = slice(first, int(p.high[0]))
        status, hits, tried = p.status[these], p.hits[these], b.tried[these]
        more = hits >= np.maximum(LEAST_HITS, 2 * tried)
        more |= (status == _COASTING) & (hits > tried)
        open_ = p.active[these] & b.open[these] & (status != _TENTATIVE)
        return first + np.flatnonzero(open_ & (more | (p.object[these] >= 0)))

    @property
    def _lookback_ns(self) -> int:
        return round(self._config.parting_lookback_s * 1e9)

    def _origin(self, slot: int, t_ns: int, rules: Rules) -> list[ObjectEvent]:
        """Which known object this one comes from, if it does."""
        p, b, c = self._p, self.births, self._config
        first = int(b.first_ns[slot])
        parents = self._relatives(slot, first)
        if not parents:
            return []
        new, old = self._orbit(slot), [self._orbit(s) for s in parents]
        # the state of a track that has not been seen since is of no use for before it was seen last
        since = [
            max(
                first - self._lookback_ns,
                int(b.first_ns[s]),
                int(p.last_ob[s]) if p.last_ob[s] < first else 0,
            )
            for s in parents
        ]
        near = c.parting_distance_m
        best: tuple[float, int, Crossing] | None = None
        for i, crossing in self._bench.closest(old, since, new, first, GRID_S, near, rules):
            # a known object that was seen where it always was has its own orbit; within the limit all is as near
            gap = float(np.linalg.norm(crossing.gap))
            d2 = crossing.d2 * max(gap - near, 0.0) ** 2 / max(gap, 1.0) ** 2
            if d2 > CROSSES or crossing.gap_sigma_m > BLUR_M:
                continue
            if np.linalg.norm(crossing.delta_v) > c.parting_speed_m_s:
                continue
            if best is None or (crossing.d2, i) < best[:2]:
                best = (crossing.d2, i, crossing)
        if best is None:
            return []
        _, i, crossing = best
        parent = parents[i]
        sensor = int(p.ring_sensor[slot, (p.ring_n[slot] - 1) % RING])
        if p.last_ob[parent] < first and self._would_be_seen(parent, slot):
            before, from_ns = self._before(parent)
            burn = self._bench.burn(before, new, from_ns, first, rules)
            if self._is_burn(burn) and not self._shared(sensor, t_ns):
                event = self._burnt(burn, parent, t_ns, sensor)
                b.open[slot] = False
                self._merge(slot, parent)
                return [event]
        if b.first_ns[parent] > first - KNOWN_NS:
            return []
        b.open[slot] = False
        return self._parted(slot, parent, crossing, t_ns)

    def _relatives(self, slot: int, first_ns: int) -> list[int]:
        """Known tracks in like orbits: bounds on angular momentum and energy that any parting at less than the
        configured speed keeps. At most `MOST_OLD` of them, the likest.
        """
        p, b, c = self._p, self.births, self._config
        high = int(p.high[0])
        known = p.active[:high] & (p.status[:high] != _TENTATIVE)
        known &= b.first_ns[:high] < first_ns
        # a track that is as young is of use only if it has vanished since
        known &= (b.first_ns[:high] <= first_ns - KNOWN_NS) | (p.last_ob[:high] < first_ns)
        known[slot] = False
        rows = np.flatnonzero(known)
        if len(rows) == 0:
            return []
        x, y = p.x[slot], p.x[rows]
        r, v = float(np.linalg.norm(x[:3])), float(np.linalg.norm(x[3:]))
        h, hs = np.cross(x[:3], x[3:]), np.cross(y[:, :3], y[:, 3:])
        sigma_r = float(np.sqrt(p.P[slot, [0, 7, 14]].sum()))
        sigma_v = float(np.sqrt(p.P[slot, [21, 28, 35]].sum()))
        speed = c.parting_speed_m_s + 3.0 * sigma_v
        distance = c.parting_distance_m + 3.0 * sigma_r
        apart = np.linalg.norm(hs - h, axis=1)
        energy = 0.5 * v * v - MU / r
        energies = 0.5 * (y[:, 3:] ** 2).sum(axis=1) - MU / np.linalg.norm(y[:, :3], axis=1)
        # either may happen anywhere along the orbit: radius and speed at perigee or apogee bound both
        a = -MU / (2.0 * energy) if energy < 0.0 else r
        e = np.sqrt(max(1.0 - float(h @ h) / (MU * a), 0.0)) if energy < 0.0 else 0.0
        r_most, r_least = max(a * (1.0 + e), r), min(a * (1.0 - e), r)
        v_most = float(np.linalg.norm(h)) / max(r_least, 1.0)
        alike = apart <= _MANOEUVRE_SLACK * (r_most * speed + v_most * distance) + _J2_SLACK * np.linalg.norm(
            h
        )
        alike &= np.abs(energies - energy) <= _MANOEUVRE_SLACK * (
            v_most * speed + MU / r_least**2 * distance
        ) + _J2_SLACK * abs(energy)
        rows, apart = rows[alike], apart[alike]
        return [int(s) for s in rows[np.argsort(apart, kind="stable")][:MOST_OLD]]

    def _would_be_seen(self, parent: int, slot: int) -> bool:
        """Whether who sees the track in ``slot`` would see the ``parent`` too, if it were still in its old orbit."""
        p = self._p
        dt = (int(p.epoch[slot]) - int(p.epoch[parent])) * 1e-9
        at = p.x[parent, :3] + dt * p.x[parent, 3:]
        return abs(dt) <= 60.0 and bool(np.linalg.norm(at - p.x[slot, :3]) <= BESIDE_M)

    def _parted(self, slot: int, parent: int, crossing: Crossing, t_ns: int) -> list[ObjectEvent]:
        p, c = self._p, self._config
        number, known = int(p.number[slot]), int(p.number[parent])
        events = [
            ObjectEvent(
                kind=schema.EVENT_NEW_OBJECT_NEAR,
                track=number,
                t_ns=t_ns,
                epoch_ns=crossing.t_ns,
                related=known,
                distance_m=float(np.linalg.norm(crossing.gap)),
                distance_sigma_m=crossing.gap_sigma_m,
                speed_m_s=float(np.linalg.norm(crossing.delta_v)),
                delta_v_sigma_m_s=crossing.delta_v_sigma_m_s,
                sensors=int(p.sensors[slot]),
                object=int(p.object[slot]),
            )
        ]
        partings = self._partings.setdefault(known, [])
        partings.append((t_ns, number))
        count = len(partings)
        told = self._broken.get(known, 0)
        if count >= c.breakup_count and count >= 2 * told:
            self._broken[known] = count
            events.append(
                ObjectEvent(
                    kind=schema.EVENT_BREAKUP,
                    track=known,
                    t_ns=t_ns,
                    epoch_ns=crossing.t_ns,
                    related=number,
                    count=count,
                    sensors=int(p.sensors[slot]),
                    object=int(p.object[parent]),
                )
            )
        return events

    def _forget(self, t_ns: int) -> None:
        self._troubles = [trouble for trouble in self._troubles if t_ns - trouble[0] <= SHARED_NS]
        window = round(self._config.breakup_window_s * 1e9)
        for known in list(self._partings):
            kept = [parting for parting in self._partings[known] if t_ns - parting[0] <= window]
            self._partings[known] = kept
            if not kept:
                del self._partings[known]
                self._broken.pop(known, None)

    # -- decay and re-entry

    def _heights(self, t_ns: int, rules: Rules, pole: F64) -> list[ObjectEvent]:
        p, b, c = self._p, self.births, self._config
        high = int(p.high[0])
        rows = np.flatnonzero(p.active[:high] & (p.status[:high] != _TENTATIVE))
        x = p.x[rows]
        perigees = perigee_m(x) - SEMI_MAJOR_M
        low = (perigees < c.decay_height_m) | (b.told[rows] != 0)
        out: list[ObjectEvent] = []
        for slot, perigee in zip(rows[low].tolist(), perigees[low].tolist(), strict=True):
            sigma = perigee_sigma_m(p.x[slot], p.P[slot])
            height = float(height_m(p.x[slot, :3], pole))
            height_sigma = float(np.sqrt(p.P[slot, [0, 7, 14]].sum()))
            if perigee > c.decay_height_m + RISES_M:
                b.told[slot] = 0
            elif p.hits[slot] < LOW_HITS:
                continue
            elif not b.told[slot] & _TOLD_DECAY and perigee + CERTAIN * sigma < c.decay_height_m:
                b.told[slot] |= _TOLD_DECAY
                when = None if height < c.reentry_height_m else self._crossing_of(slot, rules, pole)
                out.append(self._low(schema.EVENT_DECAY, slot, t_ns, when, height, perigee))
            if (
                not b.told[slot] & _TOLD_REENTRY
                and height + CERTAIN * height_sigma < c.reentry_height_m
                and p.x[slot, :3] @ p.x[slot, 3:] < 0.0
            ):
                b.told[slot] |= _TOLD_REENTRY
                out.append(self._low(schema.EVENT_REENTRY, slot, t_ns, int(p.epoch[slot]), height, perigee))
        return out

    def _low(
        self, kind: str, slot: int, t_ns: int, epoch_ns: int | None, height: float, perigee: float
    ) -> ObjectEvent:
        p = self._p
        return ObjectEvent(
            kind=kind,
            track=int(p.number[slot]),
            t_ns=t_ns,
            epoch_ns=epoch_ns,
            height_m=height,
            perigee_m=perigee,
            sensors=int(p.sensors[slot]),
            object=int(p.object[slot]),
        )

    def _crossing_of(self, slot: int, rules: Rules, pole: F64) -> int | None:
        """When the prediction comes below the re-entry height, TAI ns; None if not within the time looked ahead."""
        c = self._config
        orbit = self._orbit(slot)
        end = orbit.t_ns + round(c.reentry_ahead_s * 1e9)
        before = float(height_m(orbit.x[:3], pole)) - c.reentry_height_m
        while orbit.t_ns < end:
            step = round(GRID_S * 1e9) * (1 if before < FALLS_M else 4)
            orbit = self._bench.ahead(orbit, orbit.t_ns + step, rules)
            now = float(height_m(orbit.x[:3], pole)) - c.reentry_height_m
            if not now >= 0.0:
                return orbit.t_ns - int(step * min(max(-now / max(before - now, 1.0), 0.0), 1.0))
            before = now
        return None

    # -- what survives

    def export_state(self) -> dict[str, Any]:
        """All that `import_state` needs, of plain types; the arrays are not in it."""
        return {
            "next_ns": self.next_ns,
            "heights_ns": self._heights_ns,
            "pending": [
                [q.number, q.old.x.tolist(), q.old.P.tolist(), q.old.t_ns, *q[2:]] for q in self._pending
            ],
            "troubles": [list(trouble) for trouble in self._troubles],
            "partings": [[known, [list(one) for one in list_]] for known, list_ in self._partings.items()],
            "broken": [list(item) for item in self._broken.items()],
        }

    def import_state(self, state: dict[str, Any], sensor_of: dict[int, int]) -> None:
        """Take up what `export_state` gave; ``sensor_of``: new index of a sensor by its old one."""
        self.next_ns, self._heights_ns = int(state["next_ns"]), int(state["heights_ns"])
        self._pending = [
            Pending(
                number,
                Orbit(np.array(x), np.array(P), t_ns),
                from_ns,
                until_ns,
                hits,
                sensor_of[sensor],
                nis,
                dof,
                loosened,
            )
            for number, x, P, t_ns, from_ns, until_ns, hits, sensor, nis, dof, loosened in state["pending"]
            if sensor in sensor_of
        ]
        self._troubles = [(t, sensor_of[s], n) for t, s, n in state["troubles"] if s in sensor_of]
        self._partings = {known: [(t, n) for t, n in list_] for known, list_ in state["partings"]}
        self._broken = dict(state["broken"])
        self._any_open = bool(self.births.open.any())
        self._alarms = int(np.count_nonzero(self.fever.alarm))


def _as_far(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """A copy with so many rows: the first ones, or all and further ones of zeros."""
    if rows <= len(array):
        return array[:rows].copy()
    out = np.zeros((rows, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out
