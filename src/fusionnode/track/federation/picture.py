"""The fused picture: own tracks, and beside each the tracks that other nodes have of the same object.

Own tracks stay as they are; here, what is published of them beyond the house is made anew at each tick from the newest
states of all nodes, by covariance intersection. Nothing is remembered from one fusion to the next but who goes with
whom: errors that stay the same (offsets of a partner's precision, biases) are never averaged as if they were noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from fusionnode.config import Config, NodeLink
from fusionnode.core.foreign import Foreign
from fusionnode.core.outcome import Outcomes
from fusionnode.core.schema import REASON_DROPPED, REASON_MERGED
from fusionnode.core.types import TRACK_STATE, Status, StructArray, Tombstone
from fusionnode.track.federation.carry import Carry
from fusionnode.track.federation.intersection import NotDefinite, intersect
from fusionnode.track.federation.matching import assign, candidates, distances2
from fusionnode.track.federation.origins import Origins
from fusionnode.track.federation.partners import ForeignTrack, Partner

F64 = npt.NDArray[np.float64]

SECOND_NS = 1_000_000_000
FIRST_FOREIGN = 1_000_000_000
"""Objects that only other nodes see have numbers above this one; own tracks have those below."""
_DEGREES = 6
_JOIN_AT = 2
_PART_AT = 3
_PART_FACTOR = 2.0
_MATCH_NS = SECOND_NS


class Fused(NamedTuple):
    """States of the fused picture, and for each what the own sensors alone make of it."""

    states: StructArray  # TRACK_STATE[n]
    own: StructArray  # TRACK_STATE[n]; number 0: nothing, or nothing new


class _Entity:
    """One object: the own track of it, if there is one, and at most one track of each other node."""

    __slots__ = ("foreign", "number", "own", "published", "reference_P", "reference_ns", "reference_x")

    def __init__(self, number: int) -> None:
        self.number = number
        self.own: StructArray | None = None
        self.foreign: dict[str, ForeignTrack] = {}
        self.published = False
        self.reference_ns = 0
        self.reference_x: F64 = np.zeros(6)
        self.reference_P: F64 = np.zeros((6, 6))

    def refer(self) -> None:
        """What it is matched by: the own state, or else the newest of another node."""
        if self.own is not None:
            row = self.own[0]
            self.reference_ns, self.reference_x, self.reference_P = int(row["epoch_ns"]), row["x"], row["P"]
        elif self.foreign:
            f = max(self.foreign.values(), key=lambda f: (f.epoch_ns, f.link))
            self.reference_ns, self.reference_x, self.reference_P = f.epoch_ns, f.x, f.P


class Federation:
    """All partners' tracks beside the own ones.

    Args:
        config: the node's.
        carry: how states are taken to one time.
        outcomes: where is counted what becomes of foreign states.
        row_of: catalogue number to row of the own catalogue, -1: not there.
    """

    def __init__(
        self, config: Config, carry: Carry, outcomes: Outcomes, row_of: Callable[[int], int]
    ) -> None:
        self.origins = Origins(len(config.sensor))
        self.begun = 0
        """Objects so far that only other nodes saw."""
        ahead_ns = round(config.tracking.future_tolerance_s * SECOND_NS)
        self.partners: dict[str, Partner] = {
            name: Partner(name, link, config.node.id, config.node.data_mode, self.origins, outcomes, ahead_ns)
            for name, link in config.link.items()
            if isinstance(link, NodeLink)
        }
        self._carry = carry
        self._row_of = row_of
        self._gate2 = float(chi2.ppf(config.tracking.gate_probability, _DEGREES))
        self._coast_ns = round(config.tracking.coast_publish_s * SECOND_NS)
        self._entities: dict[int, _Entity] = {}
        self._changed: dict[int, None] = {}
        self._told: list[Tombstone] = []
        self._next_match_ns = 0
        self._sent_ns: dict[int, int] = {}
        self.parted = self.joined = 0

    # -- in

    def take(self, link_id: str, items: list[Foreign], t_ns: int) -> None:
        """What came over a link, at ``t_ns``."""
        self.partners[link_id].take(items, t_ns)

    def own(self, states: StructArray) -> None:
        """TRACK_STATE[n] of own tracks."""
        for row, number in enumerate(states["track"].tolist()):
            entity = self._entities.get(number)
            if entity is None:
                entity = self._entities[number] = _Entity(number)
            if entity.own is None or states["epoch_ns"][row] >= entity.own["epoch_ns"][0]:
                entity.own = states[row : row + 1].copy()
                entity.refer()
            self._changed[number] = None

    def end(self, tombstone: Tombstone) -> None:
        """An own track has ended. What other nodes have of it goes on under another number."""
        entity = self._entities.pop(tombstone.track, None)
        self._changed.pop(tombstone.track, None)
        self._sent_ns.pop(tombstone.track, None)
        if entity is None:
            return
        heir = None
        if tombstone.successor is None and entity.foreign:
            heir = self._begin(list(entity.foreign.values()))
        else:
            for track in entity.foreign.values():
                self._let_go(track)
        if entity.published:
            successor = tombstone.successor if heir is None else heir.number
            self._told.append(Tombstone(tombstone.track, tombstone.t_ns, tombstone.reason, successor))

    # -- out

    def turn(self, t_ns: int) -> tuple[list[Tombstone], Fused]:
        """It is ``t_ns``: ends and states of the fused picture since the last turn; the ends come first."""
        self._hear(t_ns)
        if t_ns >= self._next_match_ns:
            self._next_match_ns = (t_ns // _MATCH_NS + 1) * _MATCH_NS
            self._match(t_ns)
            self._coast(t_ns)
        fused = self._fuse(t_ns)
        told, self._told = self._told, []
        return told, fused

    def target(self, number: int) -> tuple[F64, F64, int] | None:
        """State, covariance and time (TAI ns) of an object by its number; None: there is none."""
        entity = self._entities.get(number)
        return None if entity is None else (entity.reference_x, entity.reference_P, entity.reference_ns)

    @property
    def tracks(self) -> int:
        """Objects in the fused picture."""
        return sum(entity.published for entity in self._entities.values())

    def summary(self) -> Mapping[str, object]:
        """Counts."""
        return {
            "partners": {name: partner.summary() for name, partner in self.partners.items()},
            "both": sum(e.own is not None and bool(e.foreign) for e in self._entities.values()),
            "only_others": sum(e.own is None for e in self._entities.values()),
            "joined": self.joined,
            "parted": self.parted,
        }

    def export(self) -> dict[str, Any]:
        """What has to outlive the node: numbers are not used twice."""
        return {"begun": self.begun}

    def take_up(self, kept: object) -> None:
        """Go on from `export`; what is not understood is left."""
        begun = kept.get("begun") if isinstance(kept, dict) else None
        if isinstance(begun, int) and begun > self.begun:
            self.begun = begun

    # -- within

    def _begin(self, tracks: list[ForeignTrack]) -> _Entity:
        self.begun += 1
        entity = self._entities[FIRST_FOREIGN + self.begun] = _Entity(FIRST_FOREIGN + self.begun)
        for track in tracks:
            self._bind(entity, track)
        entity.refer()
        return entity

    def _bind(self, entity: _Entity, track: ForeignTrack) -> None:
        entity.foreign[track.link] = track
        track.entity, track.suitor, track.strikes = entity.number, None, 0
        self._changed[entity.number] = None

    def _let_go(self, track: ForeignTrack) -> None:
        track.entity, track.suitor, track.strikes = None, None, 0

    def _hear(self, t_ns: int) -> None:
        for partner in self.partners.values():
            partner.age(t_ns)
            for track in partner.gone:
                self._leave(track, t_ns)
            partner.gone.clear()
            for track_id in partner.changed:
                number = partner.tracks[track_id].entity
                if number is not None:
                    self._changed[number] = None
                    entity = self._entities[number]
                    if entity.own is None:
                        entity.refer()
            partner.changed.clear()

    def _leave(self, track: ForeignTrack, t_ns: int) -> None:
        """A foreign track is no longer there; without any other, neither is the object."""
        entity = None if track.entity is None else self._entities.get(track.entity)
        if entity is None:
            return
        if entity.foreign.get(track.link) is track:
            del entity.foreign[track.link]
        self._let_go(track)
        if entity.own is None and not entity.foreign:
            self._end_entity(entity, t_ns, REASON_DROPPED, None)
        else:
            self._changed[entity.number] = None
            entity.refer()

    def _end_entity(self, entity: _Entity, t_ns: int, reason: str, successor: int | None) -> None:
        del self._entities[entity.number]
        self._changed.pop(entity.number, None)
        self._sent_ns.pop(entity.number, None)
        if entity.published:
            self._told.append(Tombstone(entity.number, t_ns, reason, successor))

    def _match(self, t_ns: int) -> None:
        """Look for whom the loose tracks of each node may go with; who finds nobody is an object by itself."""
        for partner in self.partners.values():
            loose = [
                track
                for track in partner.tracks.values()
                if partner.fresh(track, t_ns)
                and (track.entity is None or ((e := self._entities[track.entity]).own is None and len(e.foreign) == 1))
            ]  # fmt: skip
            if loose:
                self._match_link(partner, loose, t_ns)

    def _match_link(self, partner: Partner, loose: list[ForeignTrack], t_ns: int) -> None:
        free = [
            e for e in self._entities.values() if partner.link_id not in e.foreign and self._lives(e, t_ns)
        ]
        to_ns = max([t.epoch_ns for t in loose] + [e.reference_ns for e in free])
        wanted: dict[int, tuple[int, float]] = {}
        if free:
            xa, Pa = self._carried([(t.epoch_ns, t.x, t.P) for t in loose], to_ns)
            xb, Pb = self._carried([(e.reference_ns, e.reference_x, e.reference_P) for e in free], to_ns)
            for e, x, P in zip(free, xb, Pb, strict=True):
                e.reference_ns, e.reference_x, e.reference_P = to_ns, x, P
            a, b = candidates(xa, Pa, xb, Pb, self._gate2)
            d2 = distances2(xa[a], Pa[a], xb[b], Pb[b])
            good = d2 <= self._gate2
            a, b, d2 = a[good], b[good], d2[good]
            if len(a):
                # Minus twice the logarithm of the likelihood: of two that fit, the surer one.
                cost = d2 + _log_det(Pa[a] + Pb[b])
                cost = cost - cost.min()
                for i, j in assign(a.tolist(), b.tolist(), cost):
                    k = int(np.flatnonzero((a == i) & (b == j))[0])
                    wanted[i] = (j, float(d2[k]))
        for i, track in enumerate(loose):
            if i in wanted:
                entity = free[wanted[i][0]]
                before = track.suitor
                times = before[1] + 1 if before is not None and before[0] == entity.number else 1
                track.suitor = (entity.number, times)
                if times >= _JOIN_AT:
                    self._join(track, entity, t_ns)
            else:
                track.suitor = None
                if track.entity is None:
                    self._begin([track])

    def _lives(self, entity: _Entity, t_ns: int) -> bool:
        if entity.own is not None:
            return True
        return any(self.partners[f.link].fresh(f, t_ns) for f in entity.foreign.values())

    def _join(self, track: ForeignTrack, entity: _Entity, t_ns: int) -> None:
        before = None if track.entity is None else self._entities.get(track.entity)
        if before is not None:
            del before.foreign[track.link]
            if before.own is None and not before.foreign:
                self._end_entity(before, t_ns, REASON_MERGED, entity.number)
        self._bind(entity, track)
        self.joined += 1

    def _coast(self, t_ns: int) -> None:
        """Objects that only others see are told of again while nothing new comes, until they are forgotten."""
        for number, entity in self._entities.items():
            if entity.own is None and t_ns - self._sent_ns.get(number, t_ns) >= self._coast_ns > 0:
                self._changed[number] = None

    def _fuse(self, t_ns: int) -> Fused:
        numbers = sorted(self._changed)
        self._changed.clear()
        entities = [self._entities[n] for n in numbers]
        out = np.zeros(len(entities), TRACK_STATE)
        own = np.zeros(len(entities), TRACK_STATE)
        members: list[list[ForeignTrack]] = []
        kept: list[int] = []
        for i, entity in enumerate(entities):
            if entity.own is not None:
                out[i] = own[i] = entity.own[0]
                entity.published = True
            parts = [f for _, f in sorted(entity.foreign.items()) if self._counts(f, t_ns)]
            members.append(parts)
            if entity.own is not None or parts or entity.foreign:
                kept.append(i)
        for i in kept:
            entity = entities[i]
            if entity.own is None:
                self._as_others_say(out[i : i + 1], entity, t_ns)
        both = [i for i in kept if members[i] and (entities[i].own is not None or len(members[i]) > 1)]
        if both:
            self._intersect(both, entities, members, out, t_ns)
        late = [i for i in kept if entities[i].own is None and not members[i]]
        if late:
            self._carry_rows(late, out, t_ns)
        for i in kept:
            entities[i].published = True
            self._sent_ns[numbers[i]] = t_ns
        return Fused(out[kept], own[kept])

    def _counts(self, track: ForeignTrack, t_ns: int) -> bool:
        return self.partners[track.link].fresh(track, t_ns)

    def _as_others_say(self, row: StructArray, entity: _Entity, t_ns: int) -> None:
        """The row of an object without own track, from the newest of the others' states."""
        f = max(entity.foreign.values(), key=lambda f: (f.epoch_ns, f.link))
        fresh = self.partners[f.link].fresh(f, t_ns)
        row["track"] = entity.number
        row["epoch_ns"], row["last_ob_ns"] = f.epoch_ns, f.last_ob_ns
        row["status"] = f.status if fresh else int(Status.COASTING)
        row["x"], row["P"] = f.x, f.P
        row["sensors"] = f.mask
        row["object"] = -1 if f.sat_no is None else self._row_of(f.sat_no)
        row["object_p"], row["nis"] = np.nan, np.nan
        row["updates"], row["existence"] = f.updates, f.existence

    def _carry_rows(self, rows: list[int], out: StructArray, t_ns: int) -> None:
        x, P = self._carry(out["x"][rows], out["P"][rows], out["epoch_ns"][rows], t_ns)
        out["x"][rows], out["P"][rows], out["epoch_ns"][rows] = x, P, t_ns

    def _intersect(
        self, rows: list[int], entities: list[_Entity], members: list[list[ForeignTrack]], out: StructArray,
        t_ns: int,
    ) -> None:  # fmt: skip
        """Each object's states at one epoch, intersected, into its row of ``out``."""
        parts: list[tuple[int, F64, F64]] = []
        begin: list[int] = []
        for i in rows:
            begin.append(len(parts))
            own = entities[i].own
            if own is not None:
                parts.append((int(own["epoch_ns"][0]), own["x"][0], own["P"][0]))
            parts += [(f.epoch_ns, f.x, f.P) for f in members[i]]
        to_ns = max(part[0] for part in parts)
        x, P = self._carried(parts, to_ns)
        begin.append(len(parts))
        for k, i in enumerate(rows):
            first, last = begin[k], begin[k + 1]
            entity, foreign = entities[i], list(members[i])
            use = list(range(first, last))
            if entity.own is not None:
                use, foreign = self._still_alike(entity, foreign, first, x, P)
            if len(use) < 2 and entity.own is not None:
                continue
            try:
                fused = intersect(x[use], P[use])
            except NotDefinite:
                continue
            row = out[i : i + 1]
            row["x"], row["P"], row["epoch_ns"] = fused[0], fused[1], to_ns
            row["nis"], row["dof"] = np.nan, 0
            for f in foreign:
                row["sensors"] = row["sensors"] | np.uint64(f.mask)
                row["last_ob_ns"] = np.maximum(row["last_ob_ns"], f.last_ob_ns)
                if f.status == Status.CONFIRMED:
                    row["status"] = int(Status.CONFIRMED)

    def _still_alike(
        self, entity: _Entity, foreign: list[ForeignTrack], first: int, x: F64, P: F64
    ) -> tuple[list[int], list[ForeignTrack]]:
        """The rows to intersect, and their tracks: what is not like the own track now is left out, and what was not
        for several epochs parts from it.
        """
        use, alike = [first], []
        for j, track in enumerate(foreign, start=first + 1):
            d2 = float(distances2(x[first : first + 1], P[first : first + 1], x[j : j + 1], P[j : j + 1])[0])
            partner = self.partners[track.link]
            partner.judge(min(d2, 100.0 * self._gate2), _DEGREES)
            if d2 <= _PART_FACTOR * self._gate2:
                track.strikes = 0
                if not partner.suspect:
                    use.append(j)
                    alike.append(track)
                continue
            track.strikes += 1
            if track.strikes >= _PART_AT:
                del entity.foreign[track.link]
                self._let_go(track)
                self.parted += 1
        return use, alike

    def _carried(self, parts: list[tuple[int, F64, F64]], to_ns: int) -> tuple[F64, F64]:
        epochs = np.array([p[0] for p in parts], np.int64)
        return self._carry(np.array([p[1] for p in parts]), np.array([p[2] for p in parts]), epochs, to_ns)


def _log_det(P: F64) -> F64:
    """(n,) logarithms of determinants."""
    return np.asarray(np.linalg.slogdet(P)[1])
