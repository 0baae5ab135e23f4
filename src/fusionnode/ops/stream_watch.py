"""What a subscriber's events say of a stream: how it runs, and what happened in it lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from fusionnode.client import (
    EpochChange,
    Event,
    Gap,
    Heartbeat,
    ObjectEvent,
    SensorState,
    Stale,
    State,
    Synced,
    Tombstone,
)
from fusionnode.core.schema import ObjectState

_REMEMBERED = 64


class Happening(NamedTuple):
    """One line of the log; ``kind`` is a track's status, ``ended``, ``event``, ``stream`` or ``trouble``."""

    time: str  # UTC; empty where no time is known
    kind: str
    text: str


@dataclass
class StreamWatch:
    """Fed with every event of a `client.Subscriber`; the rest is to be read."""

    node_id: str | None = None
    node_time: str | None = None
    """UTC of the newest message that brought one."""
    messages: int = 0
    """Events taken, other than of snapshots."""
    gaps: int = 0
    missed: int = 0
    unmended: bool = False
    """Messages are missing, and no snapshot has made up for them yet."""
    stale: bool = False
    begun: int = 0
    ended: int = 0
    happened: int = 0
    """Length of the log so far, with what is forgotten."""
    log: deque[Happening] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _tracks: dict[str, tuple[str, str]] = field(default_factory=dict)

    def take(self, events: Iterable[Event]) -> list[Happening]:
        """Take events in order; gives what is new in the log."""
        fresh = [happening for event in events for happening in self._one(event)]
        self.log.extend(fresh)
        self.happened += len(fresh)
        return fresh

    def told(self, already: int) -> list[Happening]:
        """What was logged after the first ``already`` happenings, as far as it is still there."""
        new = min(self.happened - already, len(self.log))
        return list(self.log)[len(self.log) - new :]

    def _one(self, event: Event) -> list[Happening]:
        if isinstance(event, State | Tombstone | ObjectEvent | SensorState | Heartbeat):
            self.stale = False
            self.messages += not getattr(event, "from_snapshot", False)
        match event:
            case State(state=state):
                self._pass(state["epoch"])
                return self._state(state)
            case Tombstone():
                self._pass(event.epoch)
                self.ended += 1
                _, label = self._tracks.pop(event.track_id, ("", event.track_id))
                after = f", goes on as {event.successor}" if event.successor else ""
                text = f"{label} ended: {event.reason}{after}"
                return [Happening(event.epoch or "", "ended", text)]
            case ObjectEvent(fields=fields):
                self._pass(fields["time"])
                if event.from_snapshot:
                    return []
                _, label = self._tracks.get(event.track_id, ("", event.track_id))
                near = f" near {fields['relatedTrackId']}" if fields["relatedTrackId"] else ""
                return [Happening(fields["time"], "event", f"{label}: {event.kind}{near}")]
            case SensorState():
                self._pass(event.time)
            case Heartbeat():
                self._pass(event.time)
                self.node_id = event.node_id
            case Gap():
                self.gaps += 1
                self.missed += event.missed
                self.unmended = True
                return [Happening(self.node_time or "", "trouble", f"{event.missed} messages missed")]
            case Synced():
                self.unmended = False
                text = f"the picture of {event.tracks} tracks is whole"
                return [Happening(self.node_time or "", "stream", text)]
            case EpochChange():
                self._tracks.clear()
                return [Happening(self.node_time or "", "trouble", "the node started a new stream")]
            case Stale():
                self.stale = True
                if self.node_time is None:
                    return [Happening("", "stream", "nothing has come yet")]
                text = f"nothing came for {event.silent_s:.0f} s"
                return [Happening(self.node_time or "", "trouble", text)]
        return []

    def _pass(self, time: str | None) -> None:
        # Texts of one format: the later one is the greater one.
        if time and (self.node_time is None or time > self.node_time):
            self.node_time = time

    def _state(self, state: ObjectState) -> list[Happening]:
        track, status = state["trackId"], state["status"]
        name = None if state["uct"] else state["name"] or state["idOnOrbit"]
        label = f"{track} ({name or 'uncorrelated'})"
        before = self._tracks.get(track)
        self._tracks[track] = (status, label)
        if before is None:
            self.begun += 1
            seen_by = " and ".join(state["sensors"])
            return [Happening(state["epoch"], status, f"{label} {status}, seen by {seen_by}")]
        happenings = []
        if before[1] != label and name is not None:
            happenings.append(Happening(state["epoch"], status, f"{track} is {name}"))
        if before[0] != status:
            again = "seen again" if status == "confirmed" and before[0] == "coasting" else status
            happenings.append(Happening(state["epoch"], status, f"{label} {again}"))
        return happenings
