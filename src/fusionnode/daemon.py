"""The node as a running process. Only wiring: links, threads, signals, clock; what is computed is the
pipeline's.

    main thread      starts everything, waits for a signal or a fault, ends everything
    thread "links"   link.poller -> Inbox
    thread "fusion"  Inbox -> journal, pipeline -> outlet (the publisher's process)
    thread "journal" writes and syncs what was recorded
"""

from __future__ import annotations

import gc
import hashlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import astropy_iers_data

from fusionnode import __version__
from fusionnode import config as config_module
from fusionnode.codec import registry
from fusionnode.complaints import clock_complaints, complaints
from fusionnode.config import Config, ConfigError, NodeLink
from fusionnode.core import clock as clock_module
from fusionnode.core.clock import Clock, DataClock, SystemClock
from fusionnode.core.types import LinkRecord
from fusionnode.link.inbox import Inbox, PortEvent
from fusionnode.link.poller import Poller
from fusionnode.record import state_file
from fusionnode.record.entries import Command, Finish, LinkEvent, Meta, QueueDrop, Reload
from fusionnode.record.journal import Journal
from fusionnode.record.node_log import NodeLog
from fusionnode.record.replay import Replayable
from fusionnode.record.state_file import Saver, StateError
from fusionnode.release import lists as release_lists
from fusionnode.release.outlet import Outlet, OutletError
from fusionnode.release.outlets import GroupStream, Outlets, require_keys
from fusionnode.security.keyring import Keyring, KeyringError

SWITCH_INTERVAL_S = 0.0005
"""The interpreter's default of 5 ms would be the largest part of a detection's latency."""
_SHORTEST_WAIT_S = 0.002
_AFTER_DUE_S = 0.0005  # waiting may end a little early, and then would have to be done again
_JOIN_S = 30.0
_SET_BACK_NS = 1_000_000_000
_CREEP = 10  # a clock that was set back is waited for at a tenth of the pace
_LOOK_NS = 5_000_000_000
_NEXT_LOOK_NS = 60_000_000_000
_LATEST_NS = 4_102_444_800_000_000_000
_LAST_READS = 100  # a sensor that never pauses must not keep the node from stopping
_DROP_LOG_NS = 10_000_000_000  # an overload is not to be made worse by talking about it


if TYPE_CHECKING:
    from fusionnode.catalogue.known import KnownObjects
    from fusionnode.pipeline import Pipeline
    from fusionnode.tasking.desk import Orders


class Fusion(Replayable, Protocol):
    """What the daemon needs of a pipeline."""

    @property
    def groups(self) -> Sequence[GroupStream]:
        """The release groups' streams, in the order of the configuration."""

    def reload(self, config: Config, t_ns: int) -> str:
        """Other rules of release hold from now on; gives the SHA-256 of the files that they name."""

    @property
    def newest_ns(self) -> int:
        """How late it is by the data, TAI ns; 0 before the first."""

    @property
    def due_ns(self) -> int | None:
        """When what is held back is due, TAI ns; None: nothing is held back."""

    def take_orders(self) -> Orders:
        """What is to be sent to sensors and answered to partners."""

    def summary(self) -> dict[str, object]:
        """Counters and tracks."""

    def export_state(self) -> dict[str, Any]:
        """A copy of what is to outlive the run."""


Log = Callable[..., None]
"""``log(event, **fields)``: one line for the operator."""


def load_config(path: str | Path) -> tuple[Config, str]:
    """A configuration this node can run, and its text.

    Raises:
        ConfigError: as for `config.load`; or a codec, a file or a time that does not exist.
    """
    config = config_module.load(path)
    for name, link in config.link.items():
        if not isinstance(link, NodeLink) and link.codec not in registry.NAMES:
            expected = ", ".join(registry.NAMES)
            raise ConfigError(f"{path}: link.{name}.codec: expected one of {expected} (is {link.codec!r})")
    for file in config.catalogue.files:
        if not Path(file).is_file():
            raise ConfigError(f"{path}: catalogue.files: expected a file at {file}")
    try:
        release_lists.read(config)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        make_clock(config)
    except ValueError as error:
        raise ConfigError(f"{path}: clock.epoch_utc: {error}") from None
    return config, Path(path).read_text(encoding="utf-8")


def make_clock(config: Config) -> SystemClock | Clock | DataClock:
    """The clock the configuration asks for."""
    c = config.clock
    return clock_module.make(c.mode, c.epoch_utc, c.anchor_unix_s, c.rate)


def build_pipeline(config: Config, config_path: Path, stream_epoch: str) -> Pipeline:
    """A pipeline that will not compile anything any more.

    Raises:
        ConfigError: a catalogue that cannot be used.
    """
    # Imported late: what is wrong with a configuration is told at once, not after all of numba is there.
    from fusionnode import pipeline, warmup

    warmup.compile_kernels(config.tracking)
    try:
        known = load_catalogue(config, config_path)
        return pipeline.build(config, stream_epoch, offset_key(config, config_path), known=known)
    except ValueError as error:
        raise ConfigError(f"{config_path}: group: {error}") from None


def offset_key(config: Config, config_path: Path) -> bytes | None:
    """The key of offsets and of names of tracks in release groups; None where there are no groups.

    Raises:
        ConfigError: it is not there, not a key, or readable for others.
    """
    if not config.group or config.release.keys_directory is None:
        return None
    try:
        return Keyring(config.release.keys_directory).offset_secret()
    except KeyringError as error:
        raise ConfigError(
            f"{config_path}: release.keys_directory: {error} (made by: fusionnode keys new offset)"
        ) from None


def load_catalogue(config: Config, config_path: Path) -> KnownObjects | None:
    """The catalogue that the configuration names, if it names one.

    Raises:
        ConfigError: it cannot be used.
    """
    from fusionnode import pipeline  # late, as above
    from fusionnode.core.refframes import EarthOrientation

    try:
        return pipeline.load_catalogue(config, EarthOrientation())
    except ValueError as error:
        raise ConfigError(f"{config_path}: catalogue.files: {error}") from None


def catalogue_report(known: KnownObjects, now_ns: int, config: Config) -> dict[str, object]:
    """How many objects the catalogue knows, and how many of them too long ago to be of use at ``now_ns`` (TAI)."""
    old = known.too_old(now_ns) if now_ns > 0 else 0
    report: dict[str, object] = {"objects": len(known), "too_old": old, "refused": known.n_bad}
    if old == len(known):
        report["consequence"] = (
            f"all older than max_age_days ({config.catalogue.max_age_days:g}): no names, no priors, and a telescope "
            "alone starts no track"
        )
    return report


def restore(pipeline: Pipeline, config: Config, now_ns: int, log: Log) -> bytes | None:
    """Take up the saved state, if there is one of use; gives its bytes. One that is refused is kept aside."""
    if config.state.directory is None:
        return None
    path = Path(config.state.directory) / state_file.NAME
    if not path.exists():
        log("state_none", file=str(path), consequence="starting empty")
        return None
    try:
        state, data = state_file.read(path)
        done = pipeline.import_state(state, now_ns)
    except (StateError, ValueError) as error:
        aside = state_file.put_aside(path)
        text = str(error) if isinstance(error, StateError) else f"{path}: {error}"
        log("state_refused", text=text, kept_as=str(aside), consequence="starting empty")
        return None
    log(
        "state_restored",
        file=str(path),
        age_s=round((now_ns - state["t_ns"]) / 1e9, 1),
        tracks=done.tracks,
        **({"too_old": done.too_old} if done.too_old else {}),
        **({"no_room": done.no_room} if done.no_room else {}),
        **({"sensors_gone": done.sensors_gone} if done.sensors_gone else {}),
    )
    return data


def tell_events(pipeline: Pipeline, log: Log) -> None:
    """Let the operator know what happens to objects, one line each."""
    pipeline.on_event = lambda event: log("object_event", **pipeline.encoder.event_fields(event))


def restore_as_then(pipeline: Pipeline, journal: Path, meta: Meta) -> None:
    """Take up the state that a journal's run went on from.

    Raises:
        StateError: the journal's copy of it is not there, or not what it was.
    """
    assert meta.restored_sha256 is not None
    path = journal / state_file.copy_name(meta.restored_sha256)
    state, data = state_file.read(path)
    if hashlib.sha256(data).hexdigest() != meta.restored_sha256:
        raise StateError(f"{path}: not the state that the run went on from")
    try:
        pipeline.import_state(state, meta.started_ns)
    except ValueError as error:
        raise StateError(f"{path}: {error}") from None


def run_meta(
    config: Config,
    config_text: str,
    stream_epoch: str,
    started_ns: int,
    restored: bytes | None = None,
    offset_key: bytes | None = None,
) -> Meta:
    """How a run with this configuration begins now, on this computer."""
    catalogue = hashlib.sha256()
    for file in config.catalogue.files:
        catalogue.update(Path(file).read_bytes())
    return Meta(
        node_version=__version__,
        stream_epoch=stream_epoch,
        started_ns=started_ns,
        config_sha256=hashlib.sha256(config_text.encode()).hexdigest(),
        orientation_sha256=hashlib.sha256(Path(astropy_iers_data.IERS_A_FILE).read_bytes()).hexdigest(),
        catalogue_sha256=catalogue.hexdigest() if config.catalogue.files else None,
        restored_sha256=None if restored is None else hashlib.sha256(restored).hexdigest(),
        config_text=config_text,
        release_sha256=release_lists.read(config).sha256 or None,
        offset_key_sha256=None if offset_key is None else hashlib.sha256(offset_key).hexdigest(),
    )


_RELOADED = ("group", "partner")
_NEEDS_RESTART = (
    "endpoint", "request_endpoint", "sign", "history_bytes", "spool_directory", "spool_bytes", "spool_age_h",
    "high_water_mark",
)  # fmt: skip


def reloadable(old: Config, new: Config) -> tuple[Config, list[str]]:
    """The old configuration with what of the new one can take effect in a running node; and the keys that cannot."""
    left: list[str] = []
    before, after = old.model_dump(), new.model_dump()
    for name in before:
        a, b = before[name], after[name]
        if name in _RELOADED:
            continue
        if name == "sensor":
            a, b = ({k: {**s, "releasable_to": None} for k, s in x.items()} for x in (a, b))
        elif name == "catalogue":
            a, b = ({**x, "owners_file": None} for x in (a, b))
        if a != b:
            left.append(name)
    if tuple(old.group) != tuple(new.group):
        left.append("group")
    groups = {}
    for name, group in old.group.items():
        wanted = new.group.get(name, group)
        keep = {key: getattr(group, key) for key in _NEEDS_RESTART}
        left += [f"group.{name}.{key}" for key in _NEEDS_RESTART if getattr(wanted, key) != keep[key]]
        groups[name] = wanted.model_copy(update=keep)
    sensors = {
        name: sensor.model_copy(update={"releasable_to": new.sensor.get(name, sensor).releasable_to})
        for name, sensor in old.sensor.items()
    }
    catalogue = old.catalogue.model_copy(update={"owners_file": new.catalogue.owners_file})
    partners = {name: partner for name, partner in new.partner.items() if partner.group in groups}
    merged = {"group": groups, "partner": partners, "sensor": sensors, "catalogue": catalogue}
    return old.model_copy(update=merged), left


def run(
    config_path: Path, log: Log, *, anchor_unix_s: float | None = None, debug: bool = False
) -> tuple[int, dict[str, object]]:
    """Run a node until SIGTERM or SIGINT; gives the exit code and a summary.

    ``anchor_unix_s`` stands in for the configuration's, where the clock is a scaled one.

    Raises:
        ConfigError, LinkError, JournalError, OutletError: it cannot start; the text is one line.
    """
    config, text = load_config(config_path)
    if anchor_unix_s is not None:
        moved = config.clock.model_copy(update={"anchor_unix_s": anchor_unix_s})
        config = config.model_copy(update={"clock": moved})
    clock = make_clock(config)
    if clock.now_ns() > _LATEST_NS:
        raise ConfigError(
            f"{config_path}: clock.anchor_unix_s: the node's time would be past the year 2100; "
            "give the moment at which it is epoch_utc, here or as --anchor-unix-s"
        )
    # Unique for each run on this computer, whatever time the node is told it is.
    stream_epoch = f"{config.node.id}-{SystemClock().now_ns():x}"
    require_keys(config)
    log("starting", version=__version__, node=config.node.id, stream_epoch=stream_epoch)
    started = clock_module.monotonic_ns()
    with _interruptible():
        pipeline = build_pipeline(config, config_path, stream_epoch)
    log("warmed_up", seconds=round((clock_module.monotonic_ns() - started) / 1e9, 2))
    now_ns = clock.now_ns()
    if pipeline.known is not None:
        log("catalogue", **catalogue_report(pipeline.known, now_ns, config))
    if not config.link:
        log("no_links", consequence="nothing will come in")
    if now_ns and not pipeline.orientation.covers(now_ns):
        log("earth_orientation_outrun", **pipeline.orientation_report(), remedy="update astropy-iers-data")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with ExitStack() as stack:
        # From here on there is something to end cleanly.
        wake = stack.enter_context(_signals())
        if config.release.audit_directory is not None:
            log = stack.enter_context(_node_log(config, text, log))
        outlet = Outlet(
            live=config.publish.endpoint,
            snapshot=config.publish.snapshot_endpoint,
            high_water_mark=config.publish.high_water_mark,
            on_fault=lambda text: log("publisher_fault", text=text),
        )
        stack.callback(outlet.close)
        outlet.start()
        outlets = None
        if config.group:
            outlets = Outlets(config, lambda group, text: log("group_fault", group=group, text=text))
            stack.callback(outlets.close)
            outlets.start()
        started_ns = clock.now_ns()
        restored = restore(pipeline, config, started_ns, log)
        saver = None
        if config.state.directory is not None:
            saver = Saver(
                Path(config.state.directory) / state_file.NAME,
                lambda text: log("state_saved_again") if text is None else log("state_not_saved", text=text),
            )
            stack.callback(saver.close)
        journal = None
        if config.journal.directory is not None:
            meta = run_meta(config, text, stream_epoch, started_ns, restored, offset_key(config, config_path))
            if restored is not None and meta.restored_sha256 is not None:
                state_file.write(
                    Path(config.journal.directory) / state_file.copy_name(meta.restored_sha256), restored
                )
            journal = Journal(
                config.journal.directory,
                meta,
                segment_bytes=config.journal.segment_bytes,
                sync_ms=config.journal.sync_ms,
                on_alarm=lambda text: log("journal_stopped", text=text),
            )
            stack.callback(journal.close)
        tell_events(pipeline, log)
        node = Node(config, clock, pipeline, outlet, journal, log, saver, outlets, config_path)
        code = node.run(wake, debug=debug)
        if saver is not None:
            saver.close()
        if journal is not None:
            journal.close()
        outlet.close()
        if outlets is not None:
            outlets.close()
        return code, {"stream_epoch": stream_epoch, **node.summary()}


@dataclass
class Node:
    """A running node: two threads around a pipeline."""

    config: Config
    clock: Clock
    pipeline: Fusion
    outlet: Outlet
    journal: Journal | None
    log: Log
    saver: Saver | None = None
    outlets: Outlets | None = None
    config_path: Path | None = None
    _poller: Poller | None = field(init=False, default=None)
    _wanted: list[tuple[Config, str]] = field(init=False, default_factory=list)
    _inbox: Inbox = field(init=False)
    _stopping: threading.Event = field(init=False, default_factory=threading.Event)
    _faults: list[tuple[str, BaseException]] = field(init=False, default_factory=list)
    _last_ns: int = field(init=False, default=0)
    _mono_ns: int = field(init=False, default=0)
    _set_back: bool = field(init=False, default=False)
    _looked: dict[str, object] | None = field(init=False, default=None)
    _look_at_ns: int = field(init=False, default=0)
    _save_at_ns: int = field(init=False, default=0)
    _longest_s: float = field(init=False)
    _shortest_s: float = field(init=False)
    _next_drop_log_ns: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._inbox = Inbox(self.config.daemon.queue_records)
        tracking = self.config.tracking
        self._longest_s = self._wall_s(tracking.tick_s / 4)
        # One tick for all that comes to be due soon after each other.
        self._shortest_s = min(self._longest_s, self._wall_s(tracking.hold_back_s / 16))

    def run(self, wake: Wake, *, debug: bool) -> int:
        """Open the links, work until there is a signal or a fault, end cleanly. Gives the exit code.

        Raises:
            LinkError: a link that can never work as configured.
        """
        keys = self.config.release.keys_directory
        poller = Poller(
            self.config.link, self.clock, self._inbox.put, self._on_port, Keyring(keys) if keys else None
        )
        self._poller = poller
        gc.collect()
        gc.freeze()  # what was loaded so far stays: no need to look through it while tracking
        threads = [
            threading.Thread(target=self._guard, args=(name, loop, wake), name=name, daemon=True)
            for name, loop in (("links", lambda: self._read_links(poller)), ("fusion", self._fuse))
        ]
        for thread in threads:
            thread.start()
        self.log(
            "ready",
            publish=self.config.publish.endpoint,
            snapshot=self.config.publish.snapshot_endpoint,
            links={name: poller.endpoints.get(name, "serial") for name in self.config.link},
            **(
                {"groups": {name: group.endpoint for name, group in self.config.group.items()}}
                if self.outlets
                else {}
            ),
        )
        while (reason := wake.wait()) == signal.Signals.SIGHUP.name:
            self._look_at_config()
        self.log("stopping", reason=reason)
        self._stopping.set()
        poller.wake()
        for thread in threads:
            thread.join(_JOIN_S)
            if thread.is_alive():
                self._faults.append((thread.name, TimeoutError(f"did not end within {_JOIN_S:g} s")))
        if not threads[0].is_alive():
            poller.close()
        for name, error in self._faults:
            self.log("fault", thread=name, error=f"{type(error).__name__}: {error}")
            if debug:
                traceback.print_exception(error)
        return 1 if self._faults else 0

    def _look_at_config(self) -> None:
        """Read the configuration anew, and have the fusion thread take up what of it a running node can."""
        if self.config_path is None:
            return
        try:
            new, text = load_config(self.config_path)
        except ConfigError as error:
            self.log("reload_refused", text=str(error), consequence="what held goes on")
            return
        self._wanted.append((new, text))

    def _reload(self, t_ns: int) -> None:
        """In the fusion thread: other rules of release from this moment on."""
        while self._wanted:
            new, text = self._wanted.pop(0)
            config, left = reloadable(self.config, new)
            try:
                # What may fail comes first: publishers and pipeline change together or not at all.
                settings = None if self.outlets is None else self.outlets.prepare(config)
                sha256 = self.pipeline.reload(config, t_ns)
            except (ValueError, OutletError) as error:
                self.log("reload_refused", text=str(error), consequence="what held goes on")
                continue
            self.config = config
            if self.outlets is not None and settings is not None:
                self.outlets.reload(settings)
            if self.journal is not None:
                self.journal.append(Reload(t_ns, text, sha256))
            self.log("reloaded", groups=list(config.group), **({"needs_restart": left} if left else {}))

    def summary(self) -> dict[str, object]:
        """What has happened since the start."""
        return {
            **self.pipeline.summary(),
            "published": self.outlet.digest.messages,
            "sha256": self.outlet.digest.hexdigest(),
            "publisher": {
                "dropped": self.outlet.dropped,
                "restarts": self.outlet.restarts,
                **self.outlet.report,
            },
            **({} if self.outlets is None else {"groups": self.outlets.report()}),
            "journal": None if self.journal is None else self.journal.report(),
            "faults": [f"{name}: {type(error).__name__}: {error}" for name, error in self._faults],
        }

    def _guard(self, name: str, loop: Callable[[], None], wake: Wake) -> None:
        """A thread's body: what goes wrong in it ends the node."""
        try:
            loop()
        except BaseException as error:  # noqa: BLE001 - reported by the main thread
            self._faults.append((name, error))
        finally:
            self._stopping.set()
            wake.up()

    # The thread "links".

    def _read_links(self, poller: Poller) -> None:
        try:
            while not self._stopping.is_set():
                poller.run_once()
            for _ in range(_LAST_READS):  # what has come in before the stop still counts
                if not poller.run_once(0.0):
                    break
        finally:
            self._inbox.close()

    def _on_port(self, link_id: str, t_ns: int, up: bool, reason: str) -> None:
        self._inbox.put_event(PortEvent(link_id, t_ns, up, reason))

    # The thread "fusion".

    def _fuse(self) -> None:
        most = self.config.daemon.batch_records
        while (taken := self._inbox.take(most, self._wait_s())) is not None:
            self._admit(*taken)
            t_ns = self._now_ns()
            self._reload(t_ns)
            if self.journal is not None:
                self.journal.append_tick(t_ns)
            self.outlet.send(self.pipeline.tick(t_ns))
            self._command()
            self._release()
            self._save()
            self._complain()
        if self._faults:
            return  # no more records came because a thread died: that is not a clean end
        t_ns = self._now_ns()
        self.outlet.send(self.pipeline.finish(t_ns))
        self._release()
        if self.journal is not None:
            digest = self.outlet.digest
            groups = tuple((g.name, g.digest.messages, g.digest.hexdigest()) for g in self.pipeline.groups)
            self.journal.append(Finish(t_ns, digest.messages, digest.hexdigest(), groups))
        self._save(at_once=True)

    def _wait_s(self) -> float:
        """How long to wait for input: until the next tick, or until what is held back is due."""
        due_ns = self.pipeline.due_ns
        if due_ns is None or isinstance(self.clock, DataClock):  # waiting makes no time pass in data
            return self._longest_s
        node_s = (due_ns - max(self._last_ns, self.clock.now_ns())) / 1e9
        return min(self._longest_s, max(self._shortest_s, self._wall_s(node_s) + _AFTER_DUE_S))

    def _wall_s(self, node_s: float) -> float:
        return max(_SHORTEST_WAIT_S, self.clock.wall_seconds(node_s) or node_s)

    def _release(self) -> None:
        """Hand the release groups what they are to get; take in what their partners ask for."""
        if self.outlets is None:
            for group in self.pipeline.groups:
                group.take()
            return
        self.outlets.send(self.pipeline.groups)
        if records := self.outlets.requests(self.clock.now_ns()):
            self._inbox.put(records)

    def _command(self) -> None:
        """Hand on cues: into the audit log first, then the journal, then to the sensor."""
        orders = self.pipeline.take_orders()
        if isinstance(self.log, NodeLog):  # where there is an audit log
            for fields in orders.audit:
                self.log.note("cue", fields)
        for t_ns, link_id, data in orders.commands:
            if self.journal is not None:
                self.journal.append(Command(t_ns, link_id, data))
            if self._poller is not None:
                self._poller.post(link_id, data)
        for group, partner, payload in orders.replies:
            if self.outlets is not None:
                self.outlets.reply(group, partner, payload)

    def _save(self, *, at_once: bool = False) -> None:
        """Hand over a copy of what the pipeline knows, if it is time; another thread writes it."""
        if self.saver is None:
            return
        mono_ns = clock_module.monotonic_ns()
        if not at_once and (mono_ns < self._save_at_ns or self.saver.busy):
            return
        self._save_at_ns = mono_ns + round(self.config.state.interval_s * 1e9)
        self.saver.save(self.pipeline.export_state())

    def _complain(self) -> None:
        """Tell the operator, soon at first and then at most once a minute, of inputs that are of no use."""
        mono_ns = clock_module.monotonic_ns()
        if mono_ns < self._look_at_ns:
            return
        now = self.pipeline.summary()
        before, self._looked = self._looked or {}, now
        told = False
        for fields in complaints(before, now):
            self.log("no_use", **fields)
            told = True
        for fields in clock_complaints(before, now):
            self.log("sensor_clock", **fields)
            told = True
        self._look_at_ns = mono_ns + (_NEXT_LOOK_NS if told else _LOOK_NS)

    def _admit(self, items: Sequence[LinkRecord | PortEvent], drops: dict[str, int]) -> None:
        """Journal and feed, in the same order; records between two events go in one call, as in a replay."""
        for link_id, n in drops.items():
            if self.journal is not None:
                self.journal.append(QueueDrop(link_id, n))
            self.pipeline.count_queue_drops(link_id, n)
        if drops and clock_module.monotonic_ns() >= self._next_drop_log_ns:
            self._next_drop_log_ns = clock_module.monotonic_ns() + _DROP_LOG_NS
            self.log("queue_full", dropped=drops)
        batch: list[LinkRecord] = []
        for item in items:
            if isinstance(item, LinkRecord):
                batch.append(item)
                continue
            self._feed(batch)
            batch = []
            link_id, t_ns, up, reason = item
            self.log("link_up" if up else "link_down", link=link_id, reason=reason)
            if self.journal is not None:
                self.journal.append(LinkEvent(link_id, t_ns, up))
            self.pipeline.link_event(link_id, t_ns, up)
        self._feed(batch)

    def _feed(self, batch: list[LinkRecord]) -> None:
        if not batch:
            return
        if self.journal is not None:
            self.journal.append_bytes(batch)
        self.pipeline.feed(batch)

    def _now_ns(self) -> int:
        """The time of a tick, which never turns back.

        Not later than what still waits came in: after a stall, or under overload, the node would otherwise
        call its own backlog late.
        """
        if isinstance(self.clock, DataClock):
            self.clock.advance(self.pipeline.newest_ns)
            t_ns = self.clock.now_ns()
        else:
            t_ns = self._unless_set_back(self.clock.now_ns())
            waiting_ns = self._inbox.oldest_ns()
            t_ns = t_ns if waiting_ns is None else min(t_ns, waiting_ns)
        self._last_ns = max(self._last_ns, t_ns)
        return self._last_ns

    def _unless_set_back(self, t_ns: int) -> int:
        """``t_ns``; or, while a computer's clock that was set back has not caught up, a time that creeps on, so that
        heartbeats do not end. Detections stamped with the new time are late until then; the log says so.
        """
        mono_ns = clock_module.monotonic_ns()
        elapsed_ns, self._mono_ns = mono_ns - self._mono_ns, mono_ns
        behind_ns = self._last_ns - t_ns
        if behind_ns < _SET_BACK_NS:
            if self._set_back:
                self.log("clock_caught_up")
                self._set_back = False
            return t_ns
        if not self._set_back:
            self._set_back = True
            self.log(
                "clock_set_back",
                seconds=round(behind_ns / 1e9, 3),
                consequence="detections are late until it catches up",
            )
        return self._last_ns + elapsed_ns // _CREEP


class Wake:
    """What the main thread sleeps on. A pipe, because a signal handler must not touch a lock."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def up(self, signal_number: int = 0) -> None:
        """From a signal handler, or (0) from a thread."""
        with suppress(OSError):  # full or closed: the sleeper is awake, or gone
            os.write(self._write, bytes((signal_number,)))

    def wait(self) -> str:
        """Sleep until woken; gives the reason."""
        select.select([self._read], [], [])
        (number,) = os.read(self._read, 1)
        return signal.Signals(number).name if number else "fault"

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._read)
        os.close(self._write)


@contextmanager
def _node_log(config: Config, text: str, log: Log) -> Iterator[NodeLog]:
    assert config.release.audit_directory is not None
    path = Path(config.release.audit_directory) / "node.log"
    node_log = NodeLog(path, log, rotate_bytes=config.release.audit_rotate_bytes)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    node_log.note("started", {"node": config.node.id, "version": __version__, "config_sha256": sha256})
    try:
        yield node_log
    finally:
        node_log.close()


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT ends the process at once: while kernels compile, the compiler's callbacks would swallow an exception."""

    def leave(number: int, _frame: object) -> None:
        os.write(2, b"fusionnode: interrupted while starting\n")
        os._exit(128 + number)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _signals() -> Iterator[Wake]:
    """SIGTERM, SIGINT and SIGHUP wake the main thread, as often as they come; the old handlers are put back."""
    wake = Wake()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, lambda caught, _frame: wake.up(caught)) for number in numbers]
    try:
        yield wake
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        wake.close()
