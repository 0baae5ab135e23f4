"""The stages in order, and nothing else: records and ticks in, messages out.

Pure: no sockets, threads, wall clock or randomness anywhere beneath. What is published depends on the
configuration and on the sequence of calls alone, so that a journal of the calls reproduces the stream byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusionnode.catalogue.known import KnownObjects
from fusionnode.codec import registry
from fusionnode.config import Config
from fusionnode.core.outcome import PENDING, Outcome, Outcomes, Share
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.schema import REASON_NODE_STOPPED
from fusionnode.core.timescales import utc_text
from fusionnode.core.types import (
    Decoded,
    KnownObject,
    LinkRecord,
    ObjectEvent,
    Status,
    StructArray,
    Tombstone,
)
from fusionnode.intake.measure import Measurer
from fusionnode.intake.ordering import Ordering
from fusionnode.intake.watch import SensorWatch
from fusionnode.release.groups import Groups
from fusionnode.release.stream import GroupStream
from fusionnode.release.wire import Message, StreamEncoder
from fusionnode.track.filtering.engine_variants import make_engine
from fusionnode.track.past import state as track_state
from fusionnode.track.past.rewind import Rewind
from fusionnode.track.past.state import Restored
from fusionnode.track.told import merged
from fusionnode.track.tracker import Tracker

SECOND_NS = 1_000_000_000
_BELIEVABLE_NS = 86_400 * SECOND_NS
"""How far beyond the clock of recorded data its last measurements may be at the end."""
_AHEAD_S = 60.0
_TENTATIVE = int(Status.TENTATIVE)
_AGREE_ON_TIME = 3
"""Measurements that must have come as late as a time before recorded data's clock goes there."""


class Pipeline:
    """One run of the node's data path. `feed` and its like take things in; `tick` and `finish` give messages.

    Args:
        config: the station's configuration.
        stream_epoch: id of this run's stream.
        orientation: Earth orientation for frames and sites.
        known: the catalogue, if there is one.
        offset_key: the node's secret for offsets and names of tracks in release groups; needed if there are groups.

    Raises:
        ValueError: a file that a rule of release names cannot be used, or the key is not there; one line.
    """

    def __init__(
        self,
        config: Config,
        *,
        stream_epoch: str,
        orientation: EarthOrientation,
        known: KnownObjects | None = None,
        offset_key: bytes | None = None,
    ) -> None:
        self.outcomes = Outcomes()
        self.on_states: Callable[[StructArray], None] | None = None
        """Called with every TRACK_STATE array that is about to be published."""
        self.on_event: Callable[[ObjectEvent], None] | None = None
        """Called with every event of an object that is about to be published."""
        self.on_measurements: Callable[[StructArray], None] | None = None
        """Called with every MEASUREMENT array as it comes, before anything is made of it."""
        self.streaming = True
        """False where nobody subscribes (files): no messages are made, and `on_states` gives the results."""
        self._config = config
        self.config = config
        """As it was given, with the rules of release that hold by now."""
        self.known = known
        self.orientation = orientation
        self._decoders = {
            name: registry.make(link.codec, _source_of_link(name), self.outcomes, config.sensor_ids())
            for name, link in config.link.items()
        }
        self._links_up: dict[str, bool] = dict.fromkeys(config.link, False)
        self._measurer = Measurer(config, orientation, self.outcomes)
        self._hold_back_ns = round(config.tracking.hold_back_s * SECOND_NS)
        self._settle_ns = max(self._hold_back_ns, round(config.tracking.transit_s * SECOND_NS))
        names = tuple(config.sensor)
        late_age_ns = round(config.tracking.late_age_s * SECOND_NS)
        self._ordering = Ordering(self._hold_back_ns, names, self.outcomes, late_age_ns)
        share = Share(self.outcomes)
        self._tracker = Tracker(config, orientation, share, known, make_engine(config.tracking))
        self._rewind = Rewind(
            self._tracker, share, self.outcomes, names, coast_s=config.tracking.coast_publish_s,
            late_age_ns=late_age_ns, most_logged=config.tracking.late_log_measurements,
        )  # fmt: skip
        self._watch = SensorWatch(config)
        self._data_clock = config.clock.mode == "data"
        self._believable_ns = (
            _BELIEVABLE_NS
            if self._data_clock
            else self._hold_back_ns + self._settle_ns + round(config.tracking.future_tolerance_s * SECOND_NS)
        )
        self._newest = [0] * _AGREE_ON_TIME
        self._last_tick_ns = 0
        self.encoder = StreamEncoder(
            node_id=config.node.id,
            stream_epoch=stream_epoch,
            sensor_names=tuple(config.sensor),
            known_object=self._object,
            classification_marking=config.node.classification_marking,
            data_mode=config.node.data_mode,
            source=config.node.source,
        )
        self._groups = Groups(
            config, orientation, known, self._object, self.outcomes, stream_epoch=stream_epoch, key=offset_key
        )
        self._published: set[int] = set()
        self._heartbeat_ns = round(config.publish.heartbeat_s * SECOND_NS)
        self._sensor_state_ns = round(config.publish.sensor_state_s * SECOND_NS)
        self._next_heartbeat_ns = 0
        self._next_sensor_state_ns = 0

    @property
    def groups(self) -> tuple[GroupStream, ...]:
        """The release groups' streams, in the order of the configuration; each has to be taken from after each call."""
        return self._groups.streams

    def reload(self, config: Config, t_ns: int) -> str:
        """Another configuration's rules of release hold from now on, TAI ns. All else of it is left.

        Returns:
            The SHA-256 of the files that the rules name, empty without any.

        Raises:
            ValueError: it has other groups, or a file that cannot be used; nothing has changed then.
        """
        sha256 = self._groups.reload(config, t_ns)
        self.config = config
        return sha256

    # -- in

    @property
    def newest_ns(self) -> int:
        """Time of the newest measurement that two others bear out, TAI ns; 0 before. The clock of recorded data."""
        return min((t for t in self._newest if t), default=0)

    @property
    def due_ns(self) -> int | None:
        """Time of the tick, TAI ns, that will let go of what is held back; None: nothing is."""
        oldest = self._ordering.oldest_ns
        due = [] if oldest is None else [oldest + self._hold_back_ns]
        if self._rewind.waits:
            due.append(self._last_tick_ns + self._hold_back_ns // 4)
        return min(due, default=None)

    def feed(self, records: Sequence[LinkRecord]) -> None:
        """Decode, correct and hold back what came over links; nothing is published yet."""
        chunks: dict[str, list[tuple[int, bytes]]] = {}
        for record in records:
            chunks.setdefault(record.link_id, []).append((record.t_rx_ns, record.data))
        for link_id, parts in chunks.items():
            decoder = self._decoders.get(link_id)
            if decoder is None:
                self.outcomes.add(_source_of_link(link_id), Outcome.LINK_UNKNOWN, len(parts))
            else:
                self._take(decoder.decode(parts), parts[-1][0])

    def feed_detections(self, detections: StructArray) -> None:
        """Take DETECTION[n] that were decoded elsewhere (files)."""
        if len(detections):
            self._take(Decoded(detections, []), int(detections["t_rx_ns"][-1]))

    def link_event(self, link_id: str, t_ns: int, up: bool) -> None:
        """A port appeared or vanished. What a vanished one left unfinished is done with."""
        self._links_up[link_id] = up
        decoder = self._decoders.get(link_id)
        if decoder is not None and not up:
            self._take(decoder.finish(), t_ns)

    def count_queue_drops(self, link_id: str, n: int) -> None:
        """``n`` link records were lost before they came here."""
        self.outcomes.add(_source_of_link(link_id), Outcome.QUEUE_FULL, n)

    # -- out

    def tick(self, t_ns: int) -> list[Message]:
        """It is ``t_ns`` (TAI): fuse what the hold-back lets go, and give what is to be published, in order."""
        if t_ns <= 0:
            return []
        self._last_tick_ns = t_ns
        return self._fuse(t_ns - self._hold_back_ns, t_ns - self._settle_ns) + self._periodic(t_ns)

    def finish(self, t_ns: int) -> list[Message]:
        """No more will come: fuse what was held back, tell that the tracks end here, and end the stream."""
        for decoder in self._decoders.values():
            self._take(decoder.finish(), t_ns)
        messages: list[Message] = []
        if t_ns > 0:
            self._last_tick_ns = t_ns
            self._ordering.refuse_after(t_ns + self._believable_ns)
            messages = self._fuse(max(t_ns, self._ordering.newest_ns or 0), t_ns, last=True)
        self._tracker.finish()
        # tracks that will go on when the node does have not ended
        if self.streaming and self._config.state.directory is None:
            gone = [Tombstone(track, t_ns, REASON_NODE_STOPPED) for track in sorted(self._published)]
            messages += self.encoder.tombstones(gone)
        self._published.clear()
        messages += self._periodic(t_ns, force=t_ns > 0)
        if self.streaming and self._config.state.directory is None:
            self._groups.stop(t_ns)
        return messages

    def _take(self, decoded: Decoded, t_rx_ns: int) -> None:
        self._watch.note(decoded)
        detections = decoded.detections
        if len(detections) == 0:
            return
        measurements = self._measurer.measure(detections, None if self._data_clock else t_rx_ns)
        if self.on_measurements is not None:
            self.on_measurements(measurements)
        if not self._data_clock:
            self._ordering.begin(int(detections["t_rx_ns"][0]) - self._settle_ns)
        self._ordering.push(measurements)
        if self._data_clock and len(measurements):
            newest = np.sort(measurements["t_meas_ns"])[-_AGREE_ON_TIME:].tolist()
            self._newest = sorted(self._newest + newest)[-_AGREE_ON_TIME:]

    def _fuse(self, up_to_ns: int, settled_ns: int, *, last: bool = False) -> list[Message]:
        """Fuse measurements up to ``up_to_ns``, and let tracks coast to ``settled_ns``: nothing older will be used."""
        newest = self._ordering.newest_ns
        release_ns = settled_ns if newest is None else max(settled_ns, min(up_to_ns, newest))
        self._rewind.process(self._ordering.release(release_ns))
        self._rewind.add_late(self._ordering.take_late())
        self._rewind.settle(settled_ns, at_once=last)
        self._rewind.advance(settled_ns)
        messages: list[Message] = []
        for event in merged(self._rewind.take()):
            if isinstance(event, Tombstone):
                if event.track in self._published:
                    self._published.discard(event.track)
                    messages += self.encoder.tombstones([event])
                self._groups.end(event, self._last_tick_ns)
                continue
            if isinstance(event, ObjectEvent):
                if self.on_event is not None:
                    self.on_event(event)
                if self.streaming:
                    messages += self.encoder.events([event])
                    self._groups.event(event, self._last_tick_ns)
                continue
            if not self._config.publish.tentative:
                tentative = event["status"] == _TENTATIVE
                if tentative.any():
                    event = event[~tentative]
            if len(event):
                self._published.update(event["track"].tolist())
                if self.on_states is not None:
                    self.on_states(event)
                if self.streaming:
                    messages += self.encoder.states(event)
                    self._groups.states(event, self._last_tick_ns)
        return messages

    def _periodic(self, t_ns: int, *, force: bool = False) -> list[Message]:
        messages: list[Message] = []
        if not self.streaming:
            return messages
        if force or t_ns >= self._next_sensor_state_ns:
            self._next_sensor_state_ns = (t_ns // self._sensor_state_ns + 1) * self._sensor_state_ns
            messages += self.encoder.sensors(t_ns, self._sensor_states(t_ns))
        if force or t_ns >= self._next_heartbeat_ns:
            self._next_heartbeat_ns = (t_ns // self._heartbeat_ns + 1) * self._heartbeat_ns
            details = {
                "intervalS": self._config.publish.heartbeat_s,
                "links": self._link_states(),
                "unknownSensors": {name: self._watch.count(name) for name in self._watch.strangers()},
            }
            messages.append(self.encoder.heartbeat(t_ns, len(self._published), details))
        self._groups.turn(t_ns, lambda: self._sensor_states(t_ns), force=force)
        return messages

    # -- what outlives it

    def export_state(self) -> dict[str, Any]:
        """A copy of what this node knows of objects and sensors, for `import_state` of another run."""
        known = self.known
        return {
            "node": self._config.node.id,
            "t_ns": self._last_tick_ns,
            "released_to_ns": self._ordering.released_to_ns,
            "tracker": track_state.export_state(
                self._tracker, lambda row: -1 if known is None else known.object(row).sat_no
            ),
            **self._groups.export(),
        }

    def import_state(self, state: dict[str, Any], now_ns: int) -> Restored:
        """Go on from another run's state; before anything else. Its tracks are published with the next tick.

        If the state is older than ``state.max_age_s`` at ``now_ns`` (TAI), only its numbers are, not to be used again.
        So it is if it is from the future, by more than `_AHEAD_S`: a clock was wrong, then or now, and all detections
        would be late until it is that time again.

        Raises:
            ValueError: it is not such a state, or another node's; the text is one line.
        """
        try:
            node, t_ns, released_ns, tracks = (
                state[key] for key in ("node", "t_ns", "released_to_ns", "tracker")
            )
            begun = int(tracks["begun"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of a node: {error!r}") from None
        if node != self._config.node.id:
            raise ValueError(f"the state of node {node!r}, not of {self._config.node.id!r}")
        self._groups.take_up(state)
        age_s = (now_ns - t_ns) / SECOND_NS
        ahead = not self._data_clock and age_s < -_AHEAD_S
        if ahead or age_s > self._config.state.max_age_s:
            self._tracker.number_from(begun)
            return Restored(0, len(tracks["slots"]), 0, [])
        rows = {} if self.known is None else {n: row for row, n in enumerate(self.known.sat_no.tolist())}
        done = track_state.import_state(self._tracker, tracks, lambda n: rows.get(n, -1), now_ns)
        self._ordering.release(released_ns)
        self._rewind.reset(released_ns)
        return done

    # -- what there is to know

    def summary(self) -> dict[str, object]:
        """Counters by link and by sensor, which add up, and the number of tracks by status."""
        status = self._tracker.picture.status[self._tracker.slots()]
        return {
            "links": self._link_states(),
            "sensors": self._detection_ledger(),
            "clocks": self._watch.clocks(self._last_tick_ns),
            "late": {
                "taken": int(self._rewind.late.sum()),
                "replays": self._rewind.replays,
                "replayed": self._rewind.replayed,
                "overflows": self._rewind.overflows,
            },
            "tracks": {s.name.lower(): int(np.count_nonzero(status == s)) for s in Status},
            "tracks_begun": self._tracker.begun,
            "clusters_approximated": self._tracker.approximated,
            "updates_mended": self._tracker.mended,
            "states_not_finite": self.encoder.not_finite,
            **({"released": self._groups.summary()} if self._groups.streams else {}),
            "earth_orientation": self.orientation_report(),
        }

    def _link_states(self) -> dict[str, dict[str, Any]]:
        return {
            name: {"up": self._links_up[name], **self.outcomes.of(_source_of_link(name))}
            for name in self._config.link
        }

    def orientation_report(self) -> dict[str, object]:
        """Until when the table of Earth orientation reaches, and whether it was asked for more."""
        return {"valid_to": utc_text(self.orientation.valid_to_ns), "outrun": bool(self.orientation.clamped)}

    def strangers(self) -> list[str]:
        """Sensors without a configuration that sent detections."""
        return self._watch.strangers()

    def _detection_ledger(self) -> dict[str, dict[str, int]]:
        """By sensor: detections in, each outcome, and what still waits for one."""
        waiting = self._tracker.pending()
        held = self._ordering.pending + self._rewind.pending()
        ledger = {}
        for index, name in enumerate(self._config.sensor):
            pending = int(held[index]) + waiting.get(name, 0)
            ledger[name] = {"in": self._watch.count(name), **self.outcomes.of(name), PENDING: pending}
        for name in self._watch.strangers():
            ledger[name] = {"in": self._watch.count(name), **self.outcomes.of(name), PENDING: 0}
        return ledger

    def _sensor_states(self, t_ns: int) -> dict[str, dict[str, Any]]:
        ledger = self._detection_ledger()
        states = self._watch.states(t_ns)
        for sensor, (name, state) in enumerate(states.items()):
            state.update(self._tracker.truth.report(sensor))
            entries = dict(ledger[name])
            state["lateUsed"] = int(self._rewind.late[sensor])
            state["detections"] = entries.pop("in")
            state["outcomes"] = entries
        return states

    def _object(self, row: int) -> KnownObject | None:
        return None if self.known is None or row < 0 else self.known.object(row)


def build(
    config: Config,
    stream_epoch: str,
    offset_key: bytes | None = None,
    *,
    known: KnownObjects | None = None,
) -> Pipeline:
    """A pipeline with the Earth orientation and catalogue that the configuration names (or the given catalogue).

    Raises:
        ValueError: a catalogue file, or one that a rule of release names, cannot be used; the text is one line.
    """
    orientation = EarthOrientation()
    known = load_catalogue(config, orientation) if known is None else known
    return Pipeline(
        config, stream_epoch=stream_epoch, orientation=orientation, known=known, offset_key=offset_key
    )


def load_catalogue(config: Config, orientation: EarthOrientation) -> KnownObjects | None:
    """The known objects that the configuration names, if it names any.

    Raises:
        ValueError: a file cannot be used; the text is one line.
    """
    c = config.catalogue
    if not c.files:
        return None
    return KnownObjects.from_files(
        c.files,
        orientation,
        sigma_radial_m=c.sigma_radial_m,
        sigma_along_m=c.sigma_along_m,
        sigma_cross_m=c.sigma_cross_m,
        sigma_along_growth_m_per_day=c.sigma_along_growth_m_per_day,
        max_age_days=c.max_age_days,
        new_ratio=c.new_object_ratio,
    )


def _source_of_link(name: str) -> str:
    """Links and sensors may have the same names; their counters may not."""
    return f"link:{name}"
