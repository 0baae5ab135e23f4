"""Drives a pipeline with what a journal holds, in its order, so that it publishes the same stream again.

Pure: the pipeline is handed in, the messages are handed out, and hashing them is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from fusionnode.core.types import LinkRecord
from fusionnode.record.entries import Command, Entry, Finish, LinkEvent, Meta, QueueDrop, Reload, Tick
from fusionnode.record.journal import JournalError

Message = tuple[bytes, bytes]
"""Topic and payload, as published."""


class Replayable(Protocol):
    """The part of a pipeline that a journal can drive."""

    def feed(self, records: Sequence[LinkRecord]) -> None:
        """Take link records."""

    def link_event(self, link_id: str, t_ns: int, up: bool) -> None:
        """Note a port that appeared or vanished."""

    def count_queue_drops(self, link_id: str, n: int) -> None:
        """Count link records that were lost."""

    def tick(self, t_ns: int) -> list[Message]:
        """Fuse and give the messages to publish."""

    def finish(self, t_ns: int) -> list[Message]:
        """End the stream and give the last messages."""


class Replay:
    """Iterating gives the messages, those of one tick at a time.

    A run that was killed ends with its last tick; then ``finish`` stays None: nothing says what was
    published.

    Raises (while iterating):
        JournalError: the journal holds a change of configuration, which this version cannot replay.
    """

    def __init__(self, entries: Iterable[Entry], pipeline: Replayable) -> None:
        self._entries = entries
        self._pipeline = pipeline
        self.finish: Finish | None = None
        self.records = 0
        """Link records fed."""
        self.ticks = 0
        self.last_tick_ns: int | None = None

    def __iter__(self) -> Iterator[list[Message]]:
        pipeline = self._pipeline
        # The daemon feeds all records between two other entries at once; so does this.
        batch: list[LinkRecord] = []
        for entry in self._entries:
            item = entry.item
            if isinstance(item, LinkRecord):
                batch.append(item)
                continue
            if batch:
                self.records += len(batch)
                pipeline.feed(batch)
                batch = []
            match item:
                case Tick(t_ns):
                    self.ticks += 1
                    self.last_tick_ns = t_ns
                    yield pipeline.tick(t_ns)
                case LinkEvent(link_id, t_ns, up):
                    pipeline.link_event(link_id, t_ns, up)
                case QueueDrop(link_id, n):
                    pipeline.count_queue_drops(link_id, n)
                case Finish(t_ns):
                    self.finish = item
                    yield pipeline.finish(t_ns)
                    return
                case Reload():
                    raise JournalError(
                        "the journal holds a change of configuration, which cannot be replayed yet"
                    )
                case Meta() | Command():
                    pass


def differences(meta: Meta, now: Meta) -> tuple[list[str], list[str]]:
    """What a run began with against what a replay has: faults, and mere warnings."""
    faults, warnings = [], []
    if meta.config_sha256 != now.config_sha256:
        faults.append("the configuration is not the one the journal was written with")
    if meta.catalogue_sha256 != now.catalogue_sha256:
        faults.append("the catalogue is not the one the journal was written with")
    if meta.orientation_sha256 != now.orientation_sha256:
        warnings.append("the Earth orientation is not that of the journal; states may differ")
    if meta.node_version != now.node_version:
        warnings.append(f"the journal is of version {meta.node_version}; states may differ")
    return faults, warnings
