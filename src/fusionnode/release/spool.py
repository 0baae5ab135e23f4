"""Released messages on disk, for those who were away for hours: segments that are only ever appended to.

A segment belongs to one policy, and is read only while that policy is today's. Its bytes: ``FNSPOOL1``, SHA-256 of
the policy's digest, CRC-32 of both; then records, each length and CRC-32 (little-endian uint32) of what follows:
sequence number (uint64), length of the stream epoch (uint8), stream epoch, payload. What a crash left torn at the end
of a segment is left alone; the next run begins another. Beside a segment that is full lies its index (``.idx``), which
is made anew from the segment where it is missing or does not fit.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fusionnode.release.history import Stretch

_MAGIC = b"FNSPOOL1"
_HEAD = struct.Struct("<II")
_TAIL = struct.Struct("<QB")
_HEADER_BYTES = len(_MAGIC) + 32 + 4
_MARK_EVERY = 256
_LEAST_SEGMENT, _MOST_SEGMENT = 1 << 14, 64 << 20
_SEGMENTS = 8  # at least so many make up the whole
_LONGEST_RECORD = 1 << 20
_READ_BYTES = 1 << 18
_RETRY_S = 10.0


@dataclass
class _Run:
    """Messages without a hole, of one stream, in one segment."""

    epoch: str
    first: int
    last: int
    marks: list[tuple[int, int]] = field(default_factory=list)
    """Sequence numbers, and where in the file their records begin."""


@dataclass
class _Segment:
    """One file."""

    path: Path
    policy: bytes
    size: int
    runs: list[_Run] = field(default_factory=list)

    def add(self, epoch: str, seq: int, offset: int) -> None:
        """A record was found or written at ``offset``."""
        run = self.runs[-1] if self.runs else None
        if run is None or run.epoch != epoch or seq != run.last + 1:
            run = _Run(epoch, seq, seq - 1)
            self.runs.append(run)
        if (seq - run.first) % _MARK_EVERY == 0:
            run.marks.append((seq, offset))
        run.last = seq


class Spool:
    """One group's folder.

    Args:
        directory: it is made if it is not there.
        policy: digest of today's policy.
        limit_bytes: as much is kept, the oldest segment goes first.
        age_s: as long as the computer's clock says is kept.

    Raises:
        OSError: the folder cannot be made or read; the text is one line.
    """

    def __init__(self, directory: str | Path, policy: str, *, limit_bytes: int, age_s: float) -> None:
        self._folder = Path(directory)
        self._limit = limit_bytes
        self._age_s = age_s
        self._segment_bytes = max(_LEAST_SEGMENT, min(_MOST_SEGMENT, limit_bytes // _SEGMENTS))
        self._policy = _hash(policy)
        self._fd = -1
        self._retry_at = 0.0
        self.fault: str | None = None
        """Why nothing is written at present; None: it is."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = sorted(self._folder.glob("*.seg"))
            self._segments = [segment for path in paths if (segment := _opened(path)) is not None]
        except OSError as error:
            raise OSError(f"{error.filename or self._folder}: {error.strerror}") from None
        self._number = max((int(path.stem) for path in paths if path.stem.isdigit()), default=0)
        self.tidy()

    @property
    def size(self) -> int:
        """Bytes in all segments."""
        return sum(segment.size for segment in self._segments)

    def set_policy(self, policy: str) -> None:
        """Today's policy is another one."""
        if _hash(policy) != self._policy:
            self._policy = _hash(policy)
            self._seal()

    def add(self, epoch: str, first: int, payloads: Sequence[bytes]) -> None:
        """Write messages numbered from ``first`` on. What cannot be written is a hole; ``fault`` says why."""
        if self._fd < 0 and not self._begin():
            return
        segment = self._segments[-1]
        name = epoch.encode()
        out: list[bytes] = []
        at: list[int] = []
        size = segment.size
        for seq, payload in enumerate(payloads, first):
            tail = b"".join((_TAIL.pack(seq, len(name)), name, payload))
            at.append(size)
            out += (_HEAD.pack(len(tail), zlib.crc32(tail)), tail)
            size += _HEAD.size + len(tail)
        data = b"".join(out)
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._give_up(error.strerror or str(error))
            return
        if written < len(data):
            self._give_up("the disk is full")
            return
        segment.size = size
        for seq, offset in enumerate(at, first):
            segment.add(epoch, seq, offset)
        if segment.size >= self._segment_bytes:
            self._seal()
            self.tidy()

    def get(self, epoch: str, first: int, last: int, most_bytes: int) -> Stretch | None:
        """As `history.History.get`, over all that is kept of today's policy."""
        runs = [(segment, run) for segment in self._segments for run in segment.runs]
        index = next(
            (
                i
                for i, (_, run) in enumerate(runs)
                if run.epoch == epoch and run.first <= first <= run.last + 1
            ),
            None,
        )
        if index is None:
            return None
        payloads: list[bytes] = []
        size, expected = 0, first
        for segment, run in runs[index:]:
            if run.epoch != epoch:
                return Stretch(payloads, first, None, run.epoch)
            if expected > last:
                return Stretch(payloads, first, expected, None)
            if not run.first <= expected <= run.last + 1:
                return Stretch(payloads, first, expected, None) if payloads else None
            if expected > run.last:
                continue
            if segment.policy != self._policy:
                return Stretch(payloads, first, expected, None) if payloads else None
            for payload in _read(segment, run, expected, min(last, run.last)):
                if payloads and size + len(payload) > most_bytes:
                    return Stretch(payloads, first, expected, None)
                payloads.append(payload)
                size += len(payload)
                expected += 1
            if expected <= min(last, run.last):  # the file does not hold what it held
                return Stretch(payloads, first, expected, None) if payloads else None
        return Stretch(payloads, first, None, None)

    def tidy(self) -> None:
        """Let go of what is too much or too old."""
        now = time.time()
        total = self.size
        while len(self._segments) > (self._fd >= 0):
            oldest = self._segments[0]
            try:
                old = now - oldest.path.stat().st_mtime > self._age_s
            except OSError:
                old = True
            if total <= self._limit and not old:
                return
            total -= oldest.size
            _remove(oldest.path)
            del self._segments[0]

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        self._seal()

    def _begin(self) -> bool:
        now = time.monotonic()
        if now < self._retry_at:
            return False
        header = _MAGIC + self._policy
        header += struct.pack("<I", zlib.crc32(header))
        path = self._folder / f"{self._number + 1:010d}.seg"
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._number += 1
            if os.write(self._fd, header) < len(header):
                raise OSError(28, "the disk is full")
        except OSError as error:
            self._give_up(error.strerror or str(error))
            return False
        self.fault = None
        self._segments.append(_Segment(path, self._policy, len(header)))
        return True

    def _give_up(self, why: str) -> None:
        """Write no more into this segment; try another later."""
        self.fault = f"{self._folder}: {why}"
        self._retry_at = time.monotonic() + _RETRY_S
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _seal(self) -> None:
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        segment = self._segments[-1]
        if not segment.runs:
            _remove(segment.path)
            self._segments.pop()
            return
        runs = [[run.epoch, run.first, run.last, run.marks] for run in segment.runs]
        part = segment.path.with_suffix(".part")
        try:
            part.write_text(json.dumps({"size": segment.size, "runs": runs}), encoding="utf-8")
            part.replace(segment.path.with_suffix(".idx"))
        except OSError:
            part.unlink(missing_ok=True)  # it is made anew when it is needed


def _hash(policy: str) -> bytes:
    return hashlib.sha256(policy.encode()).digest()


def _remove(path: Path) -> None:
    for one in (path, path.with_suffix(".idx"), path.with_suffix(".part")):
        one.unlink(missing_ok=True)


def _opened(path: Path) -> _Segment | None:
    """A segment as it was left; None if there is nothing of use in it (and it is taken away if it is empty)."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        whole = len(header) == _HEADER_BYTES and header.startswith(_MAGIC)
        if not whole or struct.unpack("<I", header[-4:])[0] != zlib.crc32(header[:-4]):
            return None
        segment = _Segment(path, header[len(_MAGIC) : -4], _HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    if _take_index(segment, size):
        return segment
    offset = _HEADER_BYTES
    for seq, epoch, _, after in _records(path, offset):
        segment.add(epoch, seq, offset)
        offset = after
    segment.size = size
    if not segment.runs:
        _remove(path)
        return None
    return segment


def _take_index(segment: _Segment, size: int) -> bool:
    try:
        tree = json.loads(segment.path.with_suffix(".idx").read_text(encoding="utf-8"))
        if tree["size"] != size:
            return False
        segment.runs = [
            _Run(str(epoch), int(first), int(last), [(int(seq), int(at)) for seq, at in marks])
            for epoch, first, last, marks in tree["runs"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        segment.runs = []
        return False
    segment.size = size
    return bool(segment.runs)


def _read(segment: _Segment, run: _Run, first: int, last: int) -> Iterator[bytes]:
    """Payloads ``first`` to ``last`` of a run, as far as the file still holds them."""
    mark = bisect_right(run.marks, (first, 1 << 62)) - 1
    try:
        for seq, epoch, payload, _ in _records(segment.path, run.marks[mark][1]):
            if seq > last or epoch != run.epoch:
                return
            if seq >= first:
                yield payload
    except OSError:
        return


def _records(path: Path, offset: int) -> Iterator[tuple[int, str, bytes, int]]:
    """Sequence number, epoch and payload of each whole record from ``offset`` on, and where it ends."""
    with path.open("rb", buffering=_READ_BYTES) as file:
        file.seek(offset)
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, crc = _HEAD.unpack(head)
            if not _TAIL.size <= length <= _LONGEST_RECORD:
                return
            tail = file.read(length)
            if len(tail) < length or zlib.crc32(tail) != crc:
                return
            seq, n = _TAIL.unpack_from(tail)
            offset += _HEAD.size + length
            epoch = tail[_TAIL.size : _TAIL.size + n].decode(errors="replace")
            yield seq, epoch, tail[_TAIL.size + n :], offset
