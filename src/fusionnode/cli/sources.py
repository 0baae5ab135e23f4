"""Where an export's states come from: a journal, a file of ``fusionnode process``, or a running node."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionnode.cli.errors import CommandError

if TYPE_CHECKING:
    from fusionnode.config import Config
    from fusionnode.core.types import StructArray


@dataclass
class Found:
    """States and events as published, and measurements that updated tracks.

    Attributes:
        states, events: messages' bodies.
        measurements: MEASUREMENT arrays; empty unless they were asked for.
        stream_epoch: of a running node's stream.
    """

    states: list[Mapping[str, Any]] = field(default_factory=list)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    measurements: list[StructArray] = field(default_factory=list)
    stream_epoch: str = "process"


def from_journal(
    folder: Path, number: int, config_path: Path, config: Config, group: str | None, *, measured: bool = False
) -> Found:
    """A run replayed: what the node published, or what one group would get by the rules of ``config``.

    A change of the rules that the journal tells of is left out: today's hold for all of it.

    Raises:
        CommandError: it cannot be replayed, or not so that the group would get no more than it is to get.
    """
    from fusionnode import daemon
    from fusionnode.core.types import ObjectEvent
    from fusionnode.record.reader import is_journal, one_run
    from fusionnode.record.replay import Replay, differences

    if not is_journal(folder):
        raise CommandError(f"{folder}: expected a folder with journal segments")
    journal = one_run(folder, number)
    meta = journal.meta
    if group is None:
        config = config.model_copy(update={"group": {}, "partner": {}})
    pipeline = daemon.build_pipeline(config, config_path, meta.stream_epoch)
    key = daemon.offset_key(config, config_path) if group is not None else None
    now = daemon.run_meta(config, "", meta.stream_epoch, meta.started_ns, offset_key=key)
    if (
        group is not None
        and meta.offset_key_sha256 is not None
        and meta.offset_key_sha256 != now.offset_key_sha256
    ):
        raise CommandError(f"{folder}: the offset key is not the one of then: with two, offsets average away")
    faults, warnings = differences(meta, now)
    for text in [t for t in (*faults, *warnings) if "catalogue" in t or "version" in t or "orientation" in t]:
        print(f"fusionnode: warning: {folder}: {text}", file=sys.stderr)
    if meta.restored_sha256 is not None:
        daemon.restore_as_then(pipeline, folder, meta)
    found = Found()
    stream = None
    if group is not None:
        stream = next(s for s in pipeline.groups if s.name == group)
    else:
        pipeline.streaming = False

        def keep(states: StructArray) -> None:
            found.states += map(json.loads, pipeline.encoder.json_lines(states).splitlines())

        def keep_event(event: ObjectEvent) -> None:
            found.events.append(json.loads(pipeline.encoder.event_line(event)))

        pipeline.on_states, pipeline.on_event = keep, keep_event
    if measured:
        pipeline.on_measurements = found.measurements.append
    replay = Replay(_steady(journal, config, group), _Tapped(pipeline, stream, found))
    for _ in replay:
        pass
    if replay.finish is None and replay.last_tick_ns is not None and group is None:
        pipeline.finish(replay.last_tick_ns)
    return found


def from_lines(path: Path) -> Found:
    """A file that ``fusionnode process --out`` wrote; gzip or not.

    Raises:
        CommandError: it cannot be read, or a line is none of such a file.
    """
    import gzip

    found = Found()
    at = 0
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else path.open("rb") as file:
            for line in file:
                at += 1
                if not line.strip():
                    continue
                body = json.loads(line)
                if not isinstance(body, dict) or "trackId" not in body:
                    raise ValueError
                (found.events if body.get("type") == "event" else found.states).append(body)
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError):
        raise CommandError(
            f"{path}: line {at}: expected a state or an event, as `fusionnode process --out` writes them"
        ) from None
    return found


def from_node(endpoint: str) -> Found:
    """The newest state of every track of the running node, by a snapshot of its own stream.

    Raises:
        CommandError: no node answers.
    """
    from fusionnode.cli.release import snapshot

    messages = snapshot(endpoint)
    return Found(
        states=[m.body for m in messages if m.type == "state"], stream_epoch=messages[0].stream_epoch
    )


def by_policy(found: Found, config: Config, config_path: Path, group: str) -> Found:
    """What a group would get of states that are already published, one after the other, without waiting.

    Raises:
        CommandError: a rule moves states by an offset. Such an offset belongs to a run; another beside it would let
            the group find both, so only a journal will do.
    """
    import numpy as np

    from fusionnode import daemon
    from fusionnode.client import decode
    from fusionnode.core.outcome import Outcomes
    from fusionnode.core.refframes import EarthOrientation
    from fusionnode.core.types import TRACK_STATE, KnownObject
    from fusionnode.release.explain import state_of
    from fusionnode.release.groups import Groups

    rules = config.group[group].rule
    if any(rule.precision_m for rule in rules):
        raise CommandError(
            f"group.{group}: a rule has precision_m: its offsets are those of a run, so export from the journal"
        )
    objects: list[KnownObject] = []
    rows: dict[int, int] = {}
    for body in found.states:
        number = body.get("satNo")
        if number is not None and number not in rows:
            rows[number] = len(objects)
            objects.append(
                KnownObject(int(number), str(body.get("name") or ""), str(body.get("idOnOrbit") or ""))
            )

    class Numbers:
        sat_no = np.array([known.sat_no for known in objects], np.int64)

    groups = Groups(
        config, EarthOrientation(), Numbers(), lambda row: objects[row] if row >= 0 else None, Outcomes(),
        stream_epoch=found.stream_epoch, key=daemon.offset_key(config, config_path),
    )  # fmt: skip
    stream = next(s for s in groups.streams if s.name == group)
    names: dict[str, str] = {}
    states: list[StructArray] = []
    sensors = tuple(config.sensor)
    for body in found.states:
        try:
            row = state_of(body, sensors)
        except (KeyError, TypeError, ValueError) as error:
            raise CommandError(f"not a published state: {error!r}") from None
        if set(body.get("sensors") or ()) - set(sensors):
            raise CommandError(
                f"{body['trackId']}: a sensor that the configuration does not know; its caveats are not known either"
            )
        row["object"] = -1 if body["satNo"] is None else rows[body["satNo"]]
        row["dof"] = body.get("dof") or 0
        row["nis"] = np.nan if body.get("nis") is None else body["nis"]
        row["updates"] = body.get("updates") or 0
        row["object_p"] = np.nan if body.get("objectProbability") is None else body["objectProbability"]
        row["existence"] = np.nan if body.get("existence") is None else body["existence"]
        names[str(int(row["track"][0]))] = body["trackId"]
        states.append(row)
    out = Found()
    ordered = np.concatenate(states) if states else np.zeros(0, TRACK_STATE)
    ordered = ordered[np.argsort(ordered["epoch_ns"], kind="stable")]
    for first in range(0, len(ordered), 256):
        part = ordered[first : first + 256]
        groups.states(part, int(part["epoch_ns"][-1]))
        groups.turn(int(part["epoch_ns"][-1]), dict)
        for topic, payload in stream.take().messages:
            message = decode.live(topic, payload)
            if message.type == "state":
                out.states.append(message.body)
    return out


def _steady(entries: Iterable[Any], config: Config, group: str | None) -> Iterator[Any]:
    """A journal's entries without its reloads: the rules given hold for all of it.

    Raises:
        CommandError: there is a reload, and a rule of ``group`` moves states by an offset. Rules that became finer
            would put a second offset of the same orbits beside the one that the group has.
    """
    from fusionnode.record.entries import Reload

    moved = group is not None and any(rule.precision_m for rule in config.group[group].rule)
    for entry in entries:
        if not isinstance(entry.item, Reload):
            yield entry
        elif moved:
            raise CommandError(
                f"group.{group}: a rule has precision_m, and the rules were changed during this run: its stream keeps "
                "older offsets, which an export would give away"
            )


class _Tapped:
    """A pipeline whose group's messages are kept as they are taken."""

    def __init__(self, pipeline: Any, stream: Any, found: Found) -> None:
        self._pipeline, self._stream, self._found = pipeline, stream, found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    @property
    def groups(self) -> tuple[Any, ...]:
        """Taken here, so that nothing is left for the replay to throw away."""
        from fusionnode.client import decode

        for stream in self._pipeline.groups:
            messages = stream.take().messages
            if stream is not self._stream:
                continue
            for topic, payload in messages:
                message = decode.live(topic, payload)
                if message.type == "state":
                    self._found.states.append(message.body)
                elif message.type == "event":
                    self._found.events.append(message.body)
        return ()
