"""The raw-byte journal: what was admitted, in the order of admission, so that a replay gives the same stream.

Appending only fills memory; a thread of its own writes, and calls fdatasync for the whole group. Publishing
never waits for it: after a power cut or kill -9 a replay promises what survived, no more. A journal with a
hole could not be replayed, so when the disk fails or cannot follow, recording stops for good with a named
reason, everything after is counted as dropped, and the node goes on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from fusionnode.core.types import LinkRecord
from fusionnode.record import entries
from fusionnode.record.entries import Item, Meta

CHUNK_BYTES = 1 << 20
BUFFER_BYTES = 64 << 20


class JournalError(Exception):
    """The journal cannot be opened; the text is one line."""


class Journal:
    """One run's writer. Any thread may append; order is that of the calls.

    Args:
        directory: made if absent. One node at a time; a new run goes on behind the segments that are there.
        meta: becomes the first record.
        segment_bytes: a segment that has reached this size is followed by a new one.
        sync_ms: the longest wait of an appended record before its write and fdatasync begin, on a disk that
            follows.
        buffer_bytes: as much may wait for the disk; beyond it recording stops as ``stalled``.
        on_alarm: called once, with one line, when recording stops; from the appending or the writing
            thread, and with the journal locked: it must not call the journal.

    Raises:
        JournalError: the directory cannot be used.
    """

    def __init__(
        self,
        directory: str | Path,
        meta: Meta,
        *,
        segment_bytes: int = 64 << 20,
        sync_ms: float = 10.0,
        buffer_bytes: int = BUFFER_BYTES,
        on_alarm: Callable[[str], None] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.stopped: str | None = None
        """Why recording has stopped: ``disk_full``, ``stalled``, ``write_failed``; None while it goes on."""
        self.dropped = 0
        """Records that were not recorded since."""
        self._segment_bytes = segment_bytes
        self._chunk_bytes = min(CHUNK_BYTES, segment_bytes)
        self._sync_s = sync_ms / 1e3
        self._buffer_bytes = buffer_bytes
        self._on_alarm = on_alarm
        self._cond = threading.Condition(threading.Lock())
        self._chunks: list[tuple[bytearray, int]] = []  # full ones, each with its first sequence number
        self._chunk = bytearray()
        self._chunk_first = 1
        self._waiting_bytes = 0  # in full chunks, and in those the writer has taken but not yet written
        self._seq = 0
        self._acknowledged = 0
        self._idle = False
        self._hurry = False
        self._closing = False
        self._file = -1
        self._size = 0
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise JournalError(f"{self.directory}: cannot hold a journal: {error.strerror}") from None
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._segment = max((int(p.stem) for p in segments(self.directory)), default=0)
            self._open_segment(first_seq=1)
        except BlockingIOError:
            os.close(self._folder)
            raise JournalError(f"{self.directory}: another node is writing its journal there") from None
        except OSError as error:
            os.close(self._folder)
            raise JournalError(f"{self.directory}: cannot be written: {error.strerror}") from None
        self.append(meta)
        self._thread = threading.Thread(target=self._write_loop, name="journal", daemon=True)
        self._thread.start()

    @property
    def last_seq(self) -> int:
        """Of the newest record appended."""
        return self._seq

    @property
    def acknowledged_seq(self) -> int:
        """All records up to this one are on the disk, whatever happens next."""
        return self._acknowledged

    def append(self, item: Item) -> None:
        """Append one record of any type."""
        kind, body = entries.encode(item)
        with self._cond:
            if self.stopped is not None:
                self.dropped += 1
                return
            self._seq += 1
            self._chunk += entries.record(self._seq, kind, body)
            self._after_append()

    def append_bytes(self, records: Sequence[LinkRecord]) -> None:
        """Append many link records at once; the same as `append` for each."""
        record = entries.bytes_record
        with self._cond:
            for done, (t_ns, link_id, data) in enumerate(records):
                if self.stopped is not None:
                    self.dropped += len(records) - done
                    return
                self._seq += 1
                self._chunk += record(self._seq, t_ns, link_id, data)
                if len(self._chunk) >= self._chunk_bytes:
                    self._after_append()
            self._after_append()

    def append_tick(self, t_ns: int) -> None:
        """Append a tick."""
        self.append(entries.Tick(t_ns))

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything appended so far is on the disk; False if that did not happen in time."""
        with self._cond:
            target = self._seq
            self._hurry = True
            self._cond.notify_all()
            self._cond.wait_for(lambda: self._acknowledged >= target or self.stopped is not None, timeout_s)
            return self._acknowledged >= target

    def close(self, timeout_s: float = 10.0) -> bool:
        """Write out and close; False if not everything appended is on the disk."""
        with self._cond:
            self._closing = True
            self._cond.notify_all()
        self._thread.join(timeout_s)
        with self._cond:
            if self._thread.is_alive() and self.stopped is None:
                self._stop_recording(
                    "stalled", "the disk did not take what was left within the time to close"
                )
            return self._acknowledged >= self._seq and self.stopped is None

    def report(self) -> dict[str, object]:
        """Counters for the node's summary."""
        return {
            "records": self._seq,
            "acknowledged": self._acknowledged,
            "dropped": self.dropped,
            "stopped": self.stopped,
        }

    def _after_append(self) -> None:
        """Close a full chunk, mind the bound on memory, wake the writer if it sleeps. Holds the lock."""
        if len(self._chunk) >= self._chunk_bytes:
            self._waiting_bytes += len(self._chunk)
            self._chunks.append((self._chunk, self._chunk_first))
            self._chunk = bytearray()
            self._chunk_first = self._seq + 1
            if self._waiting_bytes > self._buffer_bytes:
                self._stop_recording("stalled", f"{self._waiting_bytes} bytes wait for the disk")
        if self._idle:
            self._idle = False
            self._cond.notify_all()

    def _stop_recording(self, reason: str, detail: str) -> None:
        """Give up recording, keep the node going. Holds the lock."""
        if self.stopped is not None:
            return
        self.stopped = reason
        self._chunks.clear()
        self._chunk = bytearray()
        self._waiting_bytes = 0
        self._cond.notify_all()
        if self._on_alarm is not None:
            self._on_alarm(
                f"journal: recording stopped: {reason}: {detail}; the node goes on, "
                f"records up to {self._acknowledged} of {self._seq} are safe"
            )

    # The writer's thread.

    def _write_loop(self) -> None:
        while True:
            with self._cond:
                while not self._chunk and not self._chunks and not self._closing and self.stopped is None:
                    self._idle = True
                    self._cond.wait()
                self._idle = False
                chunks, last = self._take()
                if self.stopped is not None or (self._closing and not chunks):
                    break
            try:
                for chunk, first_seq in chunks:
                    self._write(chunk, first_seq)
                os.fdatasync(self._file)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
                self._cut_torn_tail()
                with self._cond:
                    reason = "disk_full" if full else "write_failed"
                    self._stop_recording(reason, error.strerror or str(error))
                break
            with self._cond:
                self._waiting_bytes -= sum(len(chunk) for chunk, _ in chunks)
                if self.stopped is None:
                    self._acknowledged = last
                self._cond.notify_all()
                # Let a group gather; whoever flushes or closes cuts this short.
                self._cond.wait_for(lambda: self._hurry or self._closing, self._sync_s)
                self._hurry = False
        os.close(self._file)
        os.close(self._folder)

    def _take(self) -> tuple[list[tuple[bytearray, int]], int]:
        """Everything that waits, and the last sequence number in it. Holds the lock."""
        chunks, self._chunks = self._chunks, []
        if self._chunk:
            self._waiting_bytes += len(self._chunk)
            chunks.append((self._chunk, self._chunk_first))
            self._chunk = bytearray()
            self._chunk_first = self._seq + 1
        return chunks, self._seq

    def _write(self, chunk: bytearray, first_seq: int) -> None:
        """Write whole records, into a new segment if the old one has reached its size."""
        if self._size >= self._segment_bytes:
            os.fdatasync(self._file)
            full = self._file
            self._open_segment(first_seq)
            os.close(full)
        _write_all(self._file, chunk)
        self._size += len(chunk)

    def _open_segment(self, first_seq: int) -> None:
        number = self._segment + 1
        path = self.directory / f"{number:06d}{entries.SUFFIX}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        header = entries.segment_header(number, first_seq)
        try:
            _write_all(file, header)
            os.fsync(self._folder)
        except OSError:
            os.close(file)
            raise
        self._file, self._segment, self._size = file, number, len(header)

    def _cut_torn_tail(self) -> None:
        """After a failed write: leave the segment ending with a whole record, if the disk still lets us."""
        try:
            os.ftruncate(self._file, self._size)
            os.fdatasync(self._file)
        except OSError:
            pass  # the reader stops at the torn record as well


def segments(directory: Path) -> list[Path]:
    """A journal's segments in their order; other files are not looked at."""
    found = [p for p in directory.glob(f"*{entries.SUFFIX}") if p.stem.isascii() and p.stem.isdigit()]
    return sorted(found, key=lambda p: int(p.stem))


def _write_all(file: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
