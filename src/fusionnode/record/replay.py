"""Drives a pipeline with what a journal holds, in its order, so that it publishes the same stream again.

Pure: the pipeline is handed in, the messages are handed out, and hashing them is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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

    @property
    def groups(self) -> Sequence[Taken]:
        """The streams of release groups, which are to be emptied after each of these calls."""


class Taken(Protocol):
    """The part of a release group's stream that a replay needs."""

    def take(self) -> object:
        """Let go of what has come together."""


class Replay:
    """Iterating gives the messages, those of one tick at a time.

    A run that was killed ends with its last tick; then ``finish`` stays None: nothing says what was
    published.

    Args:
        reload: told of each change of configuration; without it a journal that holds one cannot be replayed.

    Raises (while iterating):
        JournalError: the journal holds a change of configuration, and it cannot be replayed.
    """

    def __init__(
        self, entries: Iterable[Entry], pipeline: Replayable, reload: Callable[[Reload], None] | None = None
    ) -> None:
        self._entries = entries
        self._pipeline = pipeline
        self._reload = reload
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
                    yield self._emptied(pipeline.tick(t_ns))
                case LinkEvent(link_id, t_ns, up):
                    pipeline.link_event(link_id, t_ns, up)
                case QueueDrop(link_id, n):
                    pipeline.count_queue_drops(link_id, n)
                case Finish(t_ns):
                    self.finish = item
                    yield self._emptied(pipeline.finish(t_ns))
                    return
                case Reload():
                    if self._reload is None:
                        raise JournalError(
                            "the journal holds a change of configuration, which is not replayed here"
                        )
                    self._reload(item)
                    self._emptied([])
                case Meta() | Command():
                    pass

    def _emptied(self, messages: list[Message]) -> list[Message]:
        for group in self._pipeline.groups:
            group.take()
        return messages


def differences(meta: Meta, now: Meta) -> tuple[list[str], list[str]]:
    """What a run began with against what a replay has: faults, and mere warnings."""
    faults, warnings = [], []
    if meta.config_sha256 != now.config_sha256:
        faults.append("the configuration is not the one the journal was written with")
    if meta.catalogue_sha256 != now.catalogue_sha256:
        faults.append("the catalogue is not the one the journal was written with")
    if meta.release_sha256 != now.release_sha256:
        faults.append("the files of the rules of release are not those the journal was written with")
    if meta.offset_key_sha256 != now.offset_key_sha256:
        faults.append("the offset key is not the one the journal was written with")
    if meta.orientation_sha256 != now.orientation_sha256:
        warnings.append("the Earth orientation is not that of the journal; states may differ")
    if meta.node_version != now.node_version:
        warnings.append(f"the journal is of version {meta.node_version}; states may differ")
    return faults, warnings
