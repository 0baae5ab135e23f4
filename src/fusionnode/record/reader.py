"""Reads a journal back to its last complete record, whatever the tail looks like, and says why it stopped."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fusionnode.record import entries
from fusionnode.record.entries import HEAD, HEADER_SIZE, Entry, Finish, Meta
from fusionnode.record.journal import JournalError, segments


@dataclass(frozen=True, slots=True)
class Stop:
    """Where reading ended: ``offset`` is that of the first byte not read.

    ``reason`` is ``finished`` (the run ended cleanly), ``end`` (the file does, between two records), or
    what was found instead of a record: ``torn``, ``zeros``, ``bad_length``, ``bad_crc``, ``bad_sequence``,
    ``bad_body``, ``bad_header``, ``unreadable``.
    """

    reason: str
    segment: str
    offset: int

    @property
    def clean(self) -> bool:
        """Nothing was found that is not a record."""
        return self.reason in ("finished", "end")


@dataclass(slots=True)
class Run:
    """One run of a node, from its META on. Iterating gives its entries; ``stop`` is known afterwards."""

    paths: list[Path]
    stop: Stop | None = field(default=None, init=False)

    def __iter__(self) -> Iterator[Entry]:
        seq = 0
        for path in self.paths:
            stop = None
            for result in _read_segment(path, seq + 1):
                if isinstance(result, Stop):
                    stop = result
                    break
                seq = result.seq
                if isinstance(result.item, Finish):
                    # Before it is handed out: whoever sees it may not ask for more.
                    self.stop = Stop("finished", path.name, path.stat().st_size)
                    yield result
                    return
                yield result
            self.stop = stop
            if stop is None or not stop.clean:
                return

    @property
    def meta(self) -> Meta:
        """How the run began.

        Raises:
            JournalError: not even that can be read.
        """
        for entry in Run(self.paths[:1]):
            if isinstance(entry.item, Meta):
                return entry.item
            break
        raise JournalError(f"{self.paths[0]}: expected a journal segment that begins with META")


def runs(directory: str | Path) -> list[Run]:
    """The runs in a journal's folder, oldest first.

    Raises:
        JournalError: no journal there.
    """
    folder = Path(directory)
    try:
        paths = segments(folder)
        found: list[Run] = []
        for path in paths:
            with path.open("rb") as file:
                first = entries.first_seq_of(file.read(HEADER_SIZE))
            if first == 1 or not found:
                found.append(Run([path]))
            else:
                found[-1].paths.append(path)
    except OSError as error:
        raise JournalError(f"{folder}: cannot be read: {error.strerror}") from None
    if not found:
        raise JournalError(f"{folder}: expected a folder with journal segments (*{entries.SUFFIX})")
    return found


def one_run(directory: str | Path, number: int = -1) -> Run:
    """One run by its number, counted from 0, or back from -1, the last.

    Raises:
        JournalError: no journal there, or no such run.
    """
    found = runs(directory)
    try:
        return found[number]
    except IndexError:
        raise JournalError(f"{directory}: expected a run from 0 to {len(found) - 1} (is {number})") from None


def is_journal(directory: Path) -> bool:
    """Whether the folder holds journal segments."""
    return directory.is_dir() and bool(segments(directory))


def _read_segment(path: Path, next_seq: int) -> Iterator[Entry | Stop]:
    """The entries of one segment, then one Stop."""
    try:
        data = path.read_bytes()
    except OSError:
        yield Stop("unreadable", path.name, 0)
        return
    first = entries.first_seq_of(data[:HEADER_SIZE])
    if first != next_seq:
        # A first segment that begins later is the rest of a run whose start has been taken away.
        yield Stop("bad_header" if first is None else "bad_sequence", path.name, 0)
        return
    view = memoryview(data)
    size, at = len(data), HEADER_SIZE
    crc32, unpack_head, decode, head_size = zlib.crc32, HEAD.unpack_from, entries.decode, HEAD.size
    while at < size:
        reason = None
        if size - at < head_size:
            reason = "torn"
        else:
            length, crc, seq, kind = unpack_head(data, at)
            end = at + head_size + length
            if length > entries.MAX_BODY:
                reason = "bad_length"
            elif end > size:
                reason = "torn"
            elif crc32(view[at + entries.CRC_FROM : end]) != crc:
                reason = "bad_crc"
            elif seq != next_seq:
                reason = "bad_sequence"
        if reason is None:
            try:
                item = decode(kind, data[at + head_size : end])
            except ValueError:
                reason = "bad_body"
        if reason is not None:
            if not any(view[at : at + 4096]):
                reason = "zeros"
            yield Stop(reason, path.name, at)
            return
        yield Entry(seq, item)
        next_seq, at = next_seq + 1, end
    yield Stop("end", path.name, at)
