"""Who was given what, and who came and went: lines that each hold the hash of the one before.

One file a process, JSON lines, only ever appended to: ``seq`` (1, 2, 3, ...), ``time`` (UTC, seconds with six
decimals, from the computer's clock), ``prev`` (SHA-256 of the line before without its newline; 64 zeros in the first
line), ``kind``, and what the kind brings. Standard library only: the publisher writes one too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FIRST = "0" * 64
_TAIL_BYTES = 65_536


class AuditError(Exception):
    """The log cannot be written or does not hold together; the text is one line."""


class Audit:
    """One log, open for appending. A last line that was torn by a power cut is cut off, and that is noted.

    Args:
        path: the file; made, with its folder, if it is not there.
        patience_s: how long to wait for a process that is just ending to let go of it.

    Raises:
        AuditError: the file cannot be opened, another process writes it, or its last whole line is none of a log.
    """

    def __init__(self, path: str | Path, *, patience_s: float = 3.0) -> None:
        self.path = Path(path)
        self._lines: list[bytes] = []
        self._dirty = False
        self.seq, self._prev = 0, FIRST
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if not _locked(self._fd, patience_s):
                os.close(self._fd)
                raise AuditError(f"{self.path}: another process writes this log")
            torn = self._go_to_end()
        except OSError as error:
            raise AuditError(f"{self.path}: {error.strerror}") from None
        if torn:
            self.append("torn", {"bytes": torn})
            self.sync()

    def append(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Add one line, at the latest with the next `sync`."""
        self.seq += 1
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        entry = {"seq": self.seq, "time": now, "prev": self._prev, "kind": kind, **fields}
        line = json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode()
        self._prev = hashlib.sha256(line).hexdigest()
        self._lines.append(line + b"\n")

    def write(self) -> None:
        """Hand what was added to the operating system.

        Raises:
            AuditError: the disk does not take it.
        """
        if not self._lines:
            return
        data = b"".join(self._lines)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
                self._dirty = True
        except OSError as error:
            # What is left goes with the next try, from where this one stopped.
            self._lines = [data]
            raise AuditError(f"{self.path}: {error.strerror}") from None
        self._lines = []

    def sync(self) -> None:
        """Everything added so far is on the disk when this returns.

        Raises:
            AuditError: it is not.
        """
        self.write()
        if not self._dirty:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise AuditError(f"{self.path}: {error.strerror}") from None
        self._dirty = False

    def close(self) -> None:
        """Sync and close; may be called twice.

        Raises:
            AuditError: as for `sync`.
        """
        if self._fd < 0:
            return
        try:
            self.sync()
        finally:
            os.close(self._fd)
            self._fd = -1

    def _go_to_end(self) -> int:
        """Find the last whole line; gives the number of bytes cut off behind it."""
        size = os.fstat(self._fd).st_size
        reach = _TAIL_BYTES
        while True:
            start = max(0, size - reach)
            tail = os.pread(self._fd, size - start, start)
            end = tail.rfind(b"\n") + 1
            begin = tail.rfind(b"\n", 0, max(0, end - 1)) + 1
            if start == 0 or (end and begin):
                break
            reach *= 4
        torn = len(tail) - end
        if torn:
            os.ftruncate(self._fd, start + end)
        if end:
            line = tail[begin : end - 1]
            try:
                self.seq = int(json.loads(line)["seq"])
            except (ValueError, KeyError, TypeError):
                raise AuditError(f"{self.path}: the last line is none of an audit log") from None
            self._prev = hashlib.sha256(line).hexdigest()
        return torn


def verify(directory: str | Path) -> dict[str, int]:
    """Go through every log of a folder. Gives the number of lines by file name.

    Raises:
        AuditError: the first line, of whichever log, that is not what has to follow the one before.
    """
    counts: dict[str, int] = {}
    for path in sorted(Path(directory).glob("*.log")):
        prev, n = FIRST, 0
        try:
            with path.open("rb") as file:
                for line in file:
                    n += 1
                    _check(path, n, prev, line)
                    prev = hashlib.sha256(line[:-1]).hexdigest()
        except OSError as error:
            raise AuditError(f"{path}: {error.strerror}") from None
        counts[path.name] = n
    return counts


def _locked(fd: int, patience_s: float) -> bool:
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(0.02)
        else:
            return True


def _check(path: Path, n: int, prev: str, line: bytes) -> None:
    if not line.endswith(b"\n"):
        raise AuditError(f"{path}: line {n} is torn")
    try:
        entry = json.loads(line)
        seq, before = entry["seq"], entry["prev"]
    except (ValueError, KeyError, TypeError):
        raise AuditError(f"{path}: line {n} is none of an audit log") from None
    if seq != n:
        raise AuditError(f"{path}: line {n} has the number {seq}: lines are missing or were added")
    if before != prev:
        raise AuditError(f"{path}: line {n} does not follow from the one before: one of the two was changed")
