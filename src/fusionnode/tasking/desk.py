"""Requests for observations from their coming to their end: each ends refused, acknowledged, failed or expired.

Decides by what the node knows and by the times it is told alone, so that a replay gives the same commands. The caller
sends commands and replies, and writes the lines for the audit log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack
import numpy as np
import numpy.typing as npt

from fusionnode.codec import commands
from fusionnode.codec.wire import Result
from fusionnode.config import Config
from fusionnode.core import schema
from fusionnode.core.timescales import tai_ns_from_utc_text, utc_text
from fusionnode.core.types import ReportKind, SensorReport
from fusionnode.tasking.aim import Aim, Aimer

F64 = npt.NDArray[np.float64]
NS = 1_000_000_000
OWN = ""
"""The group of what the node itself asks for."""
_REMEMBERED = 1024


class Target(NamedTuple):
    """An object as the node knows it now."""

    track: int
    x: F64  # (6,)
    P: F64  # (6, 6)
    epoch_ns: int


class Order(NamedTuple):
    """Bytes for the sensor behind a link."""

    t_ns: int
    link_id: str
    data: bytes


class Reply(NamedTuple):
    """An answer to a partner."""

    group: str
    partner: str
    payload: bytes


class Orders(NamedTuple):
    """What is to be done, in order."""

    commands: list[Order]
    replies: list[Reply]
    audit: list[dict[str, Any]]


@dataclass
class _Cue:
    group: str
    partner: str
    request: int
    track: int
    state: str = "accepted"
    reason: str = ""
    aim: Aim | None = None
    command: int = 0
    due_ns: int = 0
    tell_sensor: bool = False
    steps: list[str] = field(default_factory=list)


Find = Callable[[str, str | None, int | None], Target | None]
"""Of a group (`OWN`: of the node), a track's name there or a catalogue number: the object, if it is shown to it."""


class TaskingDesk:
    """One node's.

    Args:
        config: the node's.
        aimer: knows what sensors see.
        find: knows objects.
        unsure: own objects that are due for a look, the least sure first; asked where the node tasks by itself.
    """

    def __init__(
        self, config: Config, aimer: Aimer, find: Find, unsure: Callable[[], Sequence[Target]]
    ) -> None:
        self._config = config
        self._aimer = aimer
        self._find = find
        self._unsure = unsure
        self._link_of: dict[str, str] = {}
        self._name_of = {sensor.id: name for name, sensor in config.sensor.items()}
        self._seq: dict[str, int] = {}
        self._open: dict[int, _Cue] = {}
        self._known: OrderedDict[tuple[str, str, int], _Cue] = OrderedDict()
        self._asked_ns: dict[tuple[str, str], int] = {}
        self._looked_ns: dict[int, int] = {}
        self._next_own_ns = 0
        self._next_command = 0
        self._orders = Orders([], [], [])
        self.counts = dict.fromkeys(("malformed", "repeated", *schema.CUE_STATES), 0)

    # -- in

    def heard(self, link_id: str, sensor_ids: Sequence[int]) -> None:
        """These sensors are behind a link that can take commands."""
        for number in sensor_ids:
            name = self._name_of.get(number)
            if name is not None:
                self._link_of[name] = link_id

    def link_down(self, link_id: str) -> None:
        """Nothing can be sent there now."""
        self._link_of = {name: link for name, link in self._link_of.items() if link != link_id}

    def reload(self, config: Config) -> None:
        """Other partners and permissions hold from now on."""
        self._config = config

    def request(self, group: str, data: bytes, t_ns: int) -> None:
        """A record of the link ``group:NAME``: who asks, and what. Any bytes may come."""
        try:
            partner, payload = msgpack.unpackb(data)
            fields = msgpack.unpackb(payload)
            request = fields["id"]
            if type(partner) is not str or type(request) is not int or not 0 <= request < 1 << 64:
                raise ValueError
            if fields["type"] != schema.TYPE_CUE_REQUEST:
                raise ValueError
        except Exception:  # noqa: BLE001 - whatever it is, it is no request
            self.counts["malformed"] += 1
            return
        known = self._known.get((group, partner, request))
        if known is not None:
            self.counts["repeated"] += 1
            self._reply(known, t_ns)
            return
        cue = _Cue(group, partner, request, 0, tell_sensor=fields.get("sensor") is not None)
        self._known[group, partner, request] = cue
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        self._decide(cue, fields, t_ns)

    def reports(self, reports: Sequence[SensorReport], t_ns: int) -> None:
        """What sensors said of commands."""
        for report in reports:
            if report.kind is not ReportKind.ACK:
                continue
            cue = self._open.get(int(report.fields["command_id"]))
            if cue is None or cue.aim is None or self._name_of.get(report.sensor_id) != cue.aim.sensor:
                continue
            del self._open[cue.command]
            result = int(report.fields["result"])
            if result in (Result.DONE, Result.ACCEPTED):
                self._step(cue, "acknowledged", "", t_ns)
            else:
                self._step(cue, "failed", f"the sensor answers: {Result(result).name.lower()}", t_ns)

    def turn(self, t_ns: int) -> None:
        """It is ``t_ns``: what was not acknowledged in time has expired; and the node's own wishes."""
        for command, cue in [(c, q) for c, q in self._open.items() if t_ns > q.due_ns]:
            del self._open[command]
            self._step(cue, "expired", "the sensor did not answer", t_ns)
        tasking = self._config.tasking
        if tasking.refresh_sigma_m is not None and t_ns >= self._next_own_ns:
            self._next_own_ns = t_ns + round(tasking.refresh_every_s * NS)
            self._refresh(t_ns)

    # -- out

    def take(self) -> Orders:
        """What there is to do since the last time."""
        orders, self._orders = self._orders, Orders([], [], [])
        return orders

    @property
    def may_be_asked(self) -> bool:
        """Whether there is anybody who may ask for an observation, the node itself included."""
        may = any(partner.may_request for partner in self._config.partner.values())
        return may or self._config.tasking.refresh_sigma_m is not None

    def summary(self) -> Mapping[str, object]:
        """Counts; each request that was understood has reached one last state, or is open."""
        return {**self.counts, "open": len(self._open)}

    # -- within

    def _decide(self, cue: _Cue, fields: Mapping[str, Any], t_ns: int) -> None:
        tasking = self._config.tasking
        partner = self._config.partner.get(cue.partner)
        if partner is None or partner.group != cue.group or not partner.may_request:
            self._step(cue, "refused", "not allowed", t_ns)
            return
        who = (cue.group, cue.partner)
        since = t_ns - self._asked_ns.get(who, -(1 << 62))
        if since < tasking.request_interval_s * NS:
            self._step(cue, "refused", "too many requests", t_ns)
            return
        self._asked_ns[who] = t_ns
        track_id, sat_no, sensor = fields.get("trackId"), fields.get("satNo"), fields.get("sensor")
        if (type(track_id) is str) == (type(sat_no) is int):
            self._step(cue, "refused", "expected a trackId or a satNo", t_ns)
            return
        try:
            from_ns, to_ns = (tai_ns_from_utc_text(fields[key]) for key in ("fromUtc", "toUtc"))
        except Exception:  # noqa: BLE001 - any value may be there
            self._step(cue, "refused", "expected fromUtc and toUtc", t_ns)
            return
        from_ns, latest_ns = max(from_ns, t_ns + NS), t_ns + round(tasking.ahead_s * NS)
        if not from_ns < to_ns or from_ns > latest_ns:
            self._step(cue, "refused", "the time is past, or too far ahead", t_ns)
            return
        target = self._find(cue.group, track_id, sat_no)
        if target is None:
            self._step(cue, "refused", "no such object", t_ns)
            return
        wanted = [sensor] if sensor is not None else list(self._config.sensor)
        self._send(cue, target, from_ns, min(to_ns, latest_ns), wanted, t_ns)

    def _send(
        self, cue: _Cue, target: Target, from_ns: int, to_ns: int, wanted: Sequence[object], t_ns: int
    ) -> None:
        cue.track = target.track
        busy = [q.aim.sensor for q in self._open.values() if q.aim is not None]
        able = [s for s in self._config.sensor if s in wanted and s in self._link_of and s not in busy]
        dwell_ns = round(self._config.tasking.dwell_s * NS)
        aim = None
        if able:
            aim = self._aimer.best(target.x, target.P, target.epoch_ns, from_ns, to_ns, able, dwell_ns)
        if aim is None:
            self._step(cue, "refused", "no sensor can see it then", t_ns)
            return
        cue.aim = aim
        self._step(cue, "accepted", "", t_ns)
        # Unique over restarts too: a node does not send one each second for long.
        self._next_command = cue.command = max(self._next_command + 1, t_ns // NS) % (1 << 32)
        cue.due_ns = t_ns + round(self._config.tasking.acknowledge_s * NS)
        self._seq[aim.sensor] = self._seq.get(aim.sensor, -1) + 1
        data = commands.cue(
            sensor_id=self._config.sensor[aim.sensor].id,
            seq=self._seq[aim.sensor] % (1 << 32),
            t_ns=aim.from_ns,
            until_ns=aim.until_ns,
            command_id=cue.command,
            coordinates=aim.coordinates,
            lon_rad=aim.lon_rad,
            lat_rad=aim.lat_rad,
            range_m=aim.range_m,
            lon_sigma_rad=aim.lon_sigma_rad,
            lat_sigma_rad=aim.lat_sigma_rad,
        )
        self._open[cue.command] = cue
        self._looked_ns[target.track] = t_ns
        self._orders.commands.append(Order(t_ns, self._link_of[aim.sensor], data))
        self._step(cue, "sent", "", t_ns)

    def _refresh(self, t_ns: int) -> None:
        tasking = self._config.tasking
        again_ns = round(tasking.again_s * NS)
        self._looked_ns = {n: t for n, t in self._looked_ns.items() if t_ns - t < again_ns}
        left = tasking.most_cues
        for target in self._unsure():
            if left == 0:
                return
            if target.track in self._looked_ns:
                continue
            left -= 1
            cue = _Cue(OWN, OWN, 0, target.track)
            to_ns = t_ns + round(tasking.ahead_s * NS)
            self._looked_ns[target.track] = t_ns
            self._send(cue, target, t_ns + NS, to_ns, list(self._config.sensor), t_ns)

    def _step(self, cue: _Cue, state: str, reason: str, t_ns: int) -> None:
        cue.state, cue.reason = state, reason
        self.counts[state] += 1
        self._orders.audit.append(
            {
                "group": cue.group or None, "partner": cue.partner or None, "request": cue.request,
                "track": cue.track or None, "state": state, "reason": reason, "command": cue.command or None,
                "sensor": None if cue.aim is None else cue.aim.sensor, "at": utc_text(t_ns),
            }
        )  # fmt: skip
        self._reply(cue, t_ns)

    def _reply(self, cue: _Cue, t_ns: int) -> None:
        if cue.group == OWN:
            return
        body = {
            "v": schema.SCHEMA_VERSION, "type": schema.TYPE_CUE_REPLY, "id": cue.request, "state": cue.state,
            "reason": cue.reason, "sensor": cue.aim.sensor if cue.tell_sensor and cue.aim is not None else None,
            "time": utc_text(t_ns),
        }  # fmt: skip
        self._orders.replies.append(Reply(cue.group, cue.partner, msgpack.packb(body)))
