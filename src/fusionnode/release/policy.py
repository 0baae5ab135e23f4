"""Which rule decides about a state, for one group. Pure; nothing is released unless a rule says so.

The first rule whose conditions all hold decides. Before any rule: a state with a sensor whose owner does not let all of
the group's ``releasable_to`` have it is denied (originator control), and so is, where the group's picture is the local
one, a state to which another node has contributed.

Conditions on the orbit and on the place below are judged by the state as the rule would publish it (a denying rule: as
the group's coarsest would), so that the moment at which an object crosses an edge tells no more than what is published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.config import Area, Config, Group, Rule
from fusionnode.core import schema
from fusionnode.release.batch import REGIMES, StateBatch
from fusionnode.release.lists import Lists
from fusionnode.release.precision import EXACT, level_of

Bool = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]

NO_RULE = -1
ORIGINATOR = -2
NOT_LOCAL = -3
NOT_FINITE = -4
_BAND_MARGIN = {"inclination_deg": 0.05, "perigee_km": 10.0, "apogee_km": 10.0}
"""So far inside an edge must come back what has been withdrawn, so that it does not flap. More than what J2 makes an
osculating element swing within a revolution of a low orbit."""
_AREA_MARGIN_DEG = 0.5


class Effects(NamedTuple):
    """What a releasing rule lets out, and how."""

    fields: frozenset[str] | None  # None: all
    level: int  # of precision
    delay_ns: int
    interval_ns: int
    events: bool


class Verdict(NamedTuple):
    """Why one rule did or did not decide."""

    rule: str
    decided: bool
    reason: str


class CompiledRule(NamedTuple):
    """A rule with its lists resolved."""

    name: str
    release: bool
    effects: Effects
    judged_at: int  # level of precision at which conditions are judged
    spec: Rule
    numbers: npt.NDArray[np.int64] | None  # catalogue numbers, sorted; None: any
    owned: npt.NDArray[np.int64] | None
    regimes: npt.NDArray[np.int64] | None
    statuses: npt.NDArray[np.int64] | None
    only: int  # bits of sensors: no other may have contributed
    none: int  # bits of sensors: none of these may


class Policy:
    """The rules of one group, ready to be used.

    Args:
        config: the node's configuration; ``name`` is a group in it.
        lists: what its files hold.
        remote: bits of `TRACK_STATE.sensors` that stand for other nodes.
    """

    def __init__(self, config: Config, name: str, lists: Lists, remote: int = 0) -> None:
        group = config.group[name]
        sensors = tuple(config.sensor)
        self.group = group
        self.name = name
        self.sensors = sensors
        self.forbidden = _forbidden(config, group)
        """Bits of the sensors whose owners do not let this group have what they see."""
        self.not_local = remote if group.picture == "local" else 0
        self.foreign = 0
        """Bits of what other nodes contributed and do not let this group have."""
        levels = [level_of(rule.precision_m) for rule in group.rule if rule.release]
        coarsest = max(levels, default=EXACT)
        self.rules = tuple(_compiled(rule, sensors, lists, coarsest) for rule in group.rule)
        self.coarsest = coarsest

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all that decides: what was released under another one is not to be served any more."""
        g = self.group
        parts: list[Any] = [
            self.name,
            g.picture,
            g.classification_marking,
            g.releasable_to,
            g.data_mode,
            g.source,
        ]
        parts += [self.forbidden, self.not_local, g.sensor_status]
        for rule in self.rules:
            parts.append(rule.spec.model_dump(mode="json"))
            for numbers in (rule.numbers, rule.owned):
                parts.append(None if numbers is None else hashlib.sha256(numbers.tobytes()).hexdigest())
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def decide(self, batch: StateBatch, wary: Bool | None = None) -> I32:
        """(n,) which rule decides about each state of a batch, by its place in ``rules``; below 0: denied, by none.

        Args:
            wary: (n,) states of tracks that were withdrawn; a rule releases them well inside its edges only.
        """
        n = len(batch)
        out = np.full(n, NO_RULE, np.int32)
        mask = batch.states["sensors"]
        open_ = np.ones(n, bool)
        for code, held in (
            (NOT_FINITE, ~batch.finite),
            (ORIGINATOR, (mask & np.uint64(self.forbidden | self.foreign)) != 0),
            (NOT_LOCAL, (mask & np.uint64(self.not_local)) != 0),
        ):
            out[open_ & held] = code
            open_ &= ~held
        for index, rule in enumerate(self.rules):
            if not open_.any():
                break
            holds = open_.copy()
            for _, met in conditions(rule, batch):
                holds &= met
                if not holds.any():
                    break
            out[holds] = index
            open_ &= ~holds
            if wary is not None and rule.release and (careful := holds & wary).any():
                inside = careful.copy()
                for _, met in conditions(rule, batch, margin=True):
                    inside &= met
                out[careful & ~inside] = NO_RULE
        return out

    def explain(self, batch: StateBatch, row: int = 0) -> tuple[CompiledRule | None, list[Verdict]]:
        """The rule that releases or denies one state (None: none), and why each one did not before."""
        said: list[Verdict] = []
        mask = int(batch.states["sensors"][row])
        if not batch.finite[row]:
            return None, [Verdict("(numbers)", True, "a number of the state is not finite")]
        if mask & self.forbidden:
            names = ", ".join(self._names(mask & self.forbidden))
            return None, [
                Verdict("(originator control)", True, f"sensor {names} is not releasable to this group")
            ]
        if mask & self.foreign:
            return None, [
                Verdict("(originator control)", True, "another node does not let this group have its part")
            ]
        if mask & self.not_local:
            return None, [
                Verdict("(picture)", True, "another node has contributed, and the picture is local")
            ]
        for rule in self.rules:
            failed = next((name for name, met in conditions(rule, batch) if not met[row]), None)
            if failed is None:
                said.append(Verdict(rule.name, True, "releases" if rule.release else "denies"))
                return rule, said
            said.append(Verdict(rule.name, False, f"{failed}: {self._seen(failed, rule, batch, row)}"))
        return None, said

    def _names(self, mask: int) -> list[str]:
        return [name for i, name in enumerate(self.sensors) if mask >> i & 1]

    def _seen(self, condition: str, rule: CompiledRule, batch: StateBatch, row: int) -> str:
        """What the state has where a condition asks for something else."""
        traits = batch.traits(rule.judged_at)
        sat_no = int(batch.sat_no[row])
        wanted = getattr(rule.spec, condition)
        match condition:
            case "objects":
                return f"object {sat_no} is not listed" if sat_no else "the track is not correlated"
            case "owners":
                of = (
                    f"the owner of object {sat_no} is"
                    if sat_no
                    else "the track is not correlated, so its owner is"
                )
                return f"{of} none of {', '.join(wanted)}"
            case "uct":
                return "the track is correlated" if sat_no else "the track is not correlated"
            case "regimes":
                regime = int(traits.regime[row])
                return f"the orbit is {REGIMES[regime] if regime >= 0 else 'not bound'}"
            case "inclination_deg" | "perigee_km" | "apogee_km":
                value = float(getattr(traits, condition)[row])
                return f"{value:.6g} is not within {wanted[0]:g} to {wanted[1]:g}"
            case "area":
                lat, lon = batch.below(rule.judged_at)
                return f"latitude {float(lat[row]):.3f} deg, longitude {float(lon[row]):.3f} deg is outside"
            case "sensors_only" | "sensors_none":
                return f"sensors {', '.join(self._names(int(batch.states['sensors'][row]))) or 'none'}"
        return f"it is {schema.STATUSES[int(batch.states['status'][row])]}"


def conditions(rule: CompiledRule, batch: StateBatch, *, margin: bool = False) -> Iterator[tuple[str, Bool]]:
    """Name and (n,) truth of each condition of a rule. With ``margin`` edges are taken to be further in."""
    spec, states = rule.spec, batch.states
    if rule.numbers is not None:
        yield "objects", np.isin(batch.sat_no, rule.numbers)
    if rule.owned is not None:
        yield "owners", np.isin(batch.sat_no, rule.owned)
    if spec.uct is not None:
        yield "uct", (batch.sat_no == 0) == spec.uct
    if rule.statuses is not None:
        yield "status", np.isin(states["status"], rule.statuses)
    if spec.sensors_only is not None:
        yield "sensors_only", (states["sensors"] & ~np.uint64(rule.only)) == 0
    if spec.sensors_none is not None:
        yield "sensors_none", (states["sensors"] & np.uint64(rule.none)) == 0
    if rule.regimes is not None:
        yield "regimes", np.isin(batch.traits(rule.judged_at).regime, rule.regimes)
    for key in ("inclination_deg", "perigee_km", "apogee_km"):
        band = getattr(spec, key)
        if band is not None:
            value = getattr(batch.traits(rule.judged_at), key)
            inner = _BAND_MARGIN[key] if margin else 0.0
            low, high = _inside(band, inner)
            yield key, (value >= low) & (value <= high)
    if spec.area is not None:
        yield "area", _within(spec.area, *batch.below(rule.judged_at), _AREA_MARGIN_DEG if margin else 0.0)


def _inside(band: tuple[float, float], margin: float) -> tuple[float, float]:
    """A band less a margin at either edge; less than half of it is taken away."""
    margin = min(margin, 0.25 * (band[1] - band[0]))
    return band[0] + margin, band[1] - margin


def _within(area: Area, lat: npt.NDArray[np.float64], lon: npt.NDArray[np.float64], margin: float) -> Bool:
    south, north = _inside(area.lat_deg, margin)
    first, last = area.lon_deg
    width = last - first if last - first >= 360.0 else (last - first) % 360.0
    if width < 360.0:
        inner = min(margin, 0.25 * width)
        east = (lon - first - inner) % 360.0 <= width - 2.0 * inner
    else:
        east = np.ones(len(lon), bool)
    return np.asarray((lat >= south) & (lat <= north) & east)


def _forbidden(config: Config, group: Group) -> int:
    bits = 0
    for i, sensor in enumerate(config.sensor.values()):
        allowed = sensor.releasable_to
        if allowed is not None and not all(to in allowed for to in group.releasable_to):
            bits |= 1 << i
    return bits


def _bits(names: Sequence[str], sensors: Sequence[str]) -> int:
    return sum(1 << i for i, name in enumerate(sensors) if name in names)


def _compiled(rule: Rule, sensors: Sequence[str], lists: Lists, coarsest: int) -> CompiledRule:
    numbers = None
    if rule.objects is not None or rule.objects_file is not None:
        listed = (
            lists.objects.get(rule.objects_file, frozenset())
            if rule.objects_file is not None
            else frozenset()
        )
        numbers = np.array(sorted({*(rule.objects or ()), *listed}), np.int64)
    owned = None
    if rule.owners is not None:
        owned = np.array(sorted(n for n, owner in lists.owners.items() if owner in rule.owners), np.int64)
    level = level_of(rule.precision_m)
    return CompiledRule(
        name=rule.name,
        release=rule.release,
        effects=Effects(
            fields=None if rule.fields == "all" else frozenset(rule.fields),
            level=level,
            delay_ns=round(rule.delay_s * 1e9),
            interval_ns=round(rule.min_interval_s * 1e9),
            events=rule.events,
        ),
        judged_at=level if rule.release else coarsest,
        spec=rule,
        numbers=numbers,
        owned=owned,
        regimes=None
        if rule.regimes is None
        else np.array([REGIMES.index(r) for r in rule.regimes], np.int64),
        statuses=None
        if rule.status is None
        else np.array([schema.STATUSES.index(s) for s in rule.status], np.int64),
        only=_bits(rule.sensors_only or (), sensors),
        none=_bits(rule.sensors_none or (), sensors),
    )


def remarks(policy: Policy) -> list[str]:
    """What in a group's rules can hardly be meant, one line each, without looking at any track."""
    found: list[str] = []
    all_sensors = set(policy.sensors)
    for index, rule in enumerate(policy.rules):
        if (rule.numbers is not None and not len(rule.numbers)) or (
            rule.owned is not None and not len(rule.owned)
        ):
            found.append(f"rule {rule.name!r} can never match: its list of objects or owners is empty")
        spec = rule.spec
        if spec.uct and (rule.numbers is not None or rule.owned is not None):
            found.append(f"rule {rule.name!r} can never match: an uncorrelated track is no listed object")
        if spec.sensors_only is not None and set(spec.sensors_only) <= set(spec.sensors_none or ()):
            found.append(f"rule {rule.name!r} can never match: sensors_none excludes all of sensors_only")
        if spec.perigee_km and spec.apogee_km and spec.perigee_km[0] > spec.apogee_km[1]:
            found.append(f"rule {rule.name!r} can never match: no apogee is below its perigee")
        if rule.release and all_sensors == {
            n for i, n in enumerate(policy.sensors) if policy.forbidden >> i & 1
        }:
            found.append(f"rule {rule.name!r} releases nothing: no sensor is releasable to this group")
        for earlier in policy.rules[:index]:
            if _covers(earlier, rule):
                found.append(
                    f"rule {rule.name!r} never decides: {earlier.name!r} comes first and holds whenever it does"
                )
                break
    releasing = [rule for rule in policy.rules if rule.release]
    if any(
        a.effects.level != b.effects.level and _may_change(a.spec)
        for k, b in enumerate(releasing)
        for a in releasing[:k]
    ):
        found.append(
            "rules of different precision_m: an object that goes from a finer to a coarser one gives its offset away"
        )
    if not any(rule.release for rule in policy.rules):
        found.append("no rule releases anything")
    return found


def _may_change(rule: Rule) -> bool:
    """Whether a track may come to meet, or to miss, the rule's conditions while it stays the same object's."""
    changing = (
        "regimes",
        "inclination_deg",
        "perigee_km",
        "apogee_km",
        "area",
        "sensors_only",
        "sensors_none",
        "status",
    )
    return any(getattr(rule, key) is not None for key in changing)


def _covers(a: CompiledRule, b: CompiledRule) -> bool:
    """Whether ``a`` holds for all that ``b`` holds for, as far as can be told from the conditions one by one."""
    if a.judged_at != b.judged_at and any(
        getattr(a.spec, key) is not None
        for key in ("regimes", "inclination_deg", "perigee_km", "apogee_km", "area")
    ):
        return False

    def subset(of: Any, whole: Any) -> bool:
        return whole is None or (of is not None and set(_plain(of)) <= set(_plain(whole)))

    def within(of: Any, whole: Any) -> bool:
        return whole is None or (of is not None and whole[0] <= of[0] and of[1] <= whole[1])

    x, y = a.spec, b.spec
    return (
        subset(b.numbers, a.numbers)
        and subset(b.owned, a.owned)
        and subset(y.regimes, x.regimes)
        and subset(y.status, x.status)
        and subset(y.sensors_only, x.sensors_only)
        and (x.sensors_none is None or set(x.sensors_none) <= set(y.sensors_none or ()))
        and (x.uct is None or x.uct == y.uct)
        and within(y.inclination_deg, x.inclination_deg)
        and within(y.perigee_km, x.perigee_km)
        and within(y.apogee_km, x.apogee_km)
        and (x.area is None or x.area == y.area)
    )


def _plain(values: Any) -> list[Any]:
    return list(values.tolist() if isinstance(values, np.ndarray) else values)


def policies(config: Config, lists: Lists, remote: int = 0) -> Mapping[str, Policy]:
    """The policy of each group, by its name, in the order of the configuration."""
    return {name: Policy(config, name, lists, remote) for name in config.group}
