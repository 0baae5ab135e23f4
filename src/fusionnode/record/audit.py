"""Who was given what, and who came and went: lines that each hold the hash of the one before.

One chain a process, JSON lines, only ever appended to: ``seq`` (1, 2, 3, ...), ``time`` (UTC, seconds with six
decimals, from the computer's clock), ``prev`` (SHA-256 of the line before without its newline; 64 zeros in the first
line), ``kind``, and what the kind brings. A file that has become large is renamed (``NAME.log.000001``) and the chain
goes on in a new one. ``NAME.log.head`` holds number and hash of the newest line that is on the disk: lines that are
cut off at the end would leave a chain that holds, and are missed by it. Standard library only: the publisher writes
one too.

What the chain proves, and what not: whoever can write to the folder can make a whole new chain with a new head. That
is found only with a head that was kept elsewhere (``fusionnode audit head``, ``fusionnode audit verify --expect``).
Lines that were added since the newest such head, and the lines of the moment before a kill, are as good as the folder
is guarded.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FIRST = "0" * 64
TORN = "torn"
"""Kind of the line that tells of bytes behind the last whole line: a write that a kill or a power cut broke off."""
CONTINUED = "continued"
LOST = "lost"
BEHIND_HEAD = "behind_head"
"""Kind of the line that tells that the log was found shorter than its head, or with another line there."""
HEAD_LOST = "head_lost"

_TAIL_BYTES = 65_536
_LONGEST_LINE = 1 << 20
_MOST_WAITING = 10_000  # lines kept in memory while the disk does not take them
_TORN_KEPT = 1_000
_HEAD = re.compile(rb"(\d{1,19}) ([0-9a-f]{64})\n", re.ASCII)


class AuditError(Exception):
    """The log cannot be written or does not hold together; the text is one line."""


class Audit:
    """One log, open for appending. Bytes behind its last whole line are cut off, and that is noted in it.

    Args:
        path: the log's file; its name ends in ``.log``.
        rotate_bytes: a file of at least so many bytes is put aside; 0: never.
        go_on: a disk that takes nothing is no error: up to 10,000 lines wait in memory, more are lost, and how many
            is noted once it goes on. `fault` says so meanwhile. Else it is an error each time.
        patience_s: how long to wait for a process that is just ending to let go of it.

    Raises:
        AuditError: the file cannot be opened, another process has it, or its last whole line is none of a log.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rotate_bytes: int = 64 << 20,
        go_on: bool = False,
        patience_s: float = 3.0,
    ) -> None:
        self.path = Path(path)
        self.fault: str | None = None
        """Why nothing can be written at the moment; only with ``go_on``."""
        self._rotate_bytes = rotate_bytes
        self._go_on = go_on
        self._lines: list[bytes] = []
        self._waiting = self._lost = 0
        self._dirty = False
        self.seq, self._prev = 0, FIRST
        self._fd = self._head_fd = -1
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._head_fd = os.open(head_path(self.path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _locked(self._head_fd, patience_s):
                raise AuditError(f"{self.path}: another process writes this log")
            self._fd = _open(self.path)
            torn = self._go_to_end()
            notes = self._against_head()
        except (OSError, AuditError) as error:
            self._drop()
            if isinstance(error, AuditError):
                raise
            raise AuditError(f"{self.path}: {error.strerror}") from None
        if torn:
            text = torn[:_TORN_KEPT].decode("ascii", "backslashreplace")
            self.append(TORN, {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest(), "text": text})
        for kind, fields in notes:
            self.append(kind, fields)
        try:
            self.sync()
        except AuditError:
            self._drop()
            raise

    @property
    def open(self) -> bool:
        """Whether it was not closed yet."""
        return self._fd >= 0

    def append(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Add one line, at the latest with the next `sync`."""
        if self.fault is not None and self._waiting >= _MOST_WAITING:
            self._lost += 1
            return
        self.seq += 1
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        entry = {"seq": self.seq, "time": now, "prev": self._prev, "kind": kind, **fields}
        line = json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode()
        self._prev = hashlib.sha256(line).hexdigest()
        self._lines.append(line + b"\n")
        self._waiting += 1

    def write(self) -> None:
        """Hand what was added to the operating system.

        Raises:
            AuditError: the disk does not take it.
        """
        while self._lines:
            data = b"".join(self._lines)
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
                    self._dirty = True
            except OSError as error:
                # What is left goes with the next try, from where this one stopped.
                self._lines = [data]
                raise AuditError(f"{self.path}: {error.strerror}") from None
            self._lines, self._waiting = [], 0
            if self._lost:
                lost, self._lost, self.fault = self._lost, 0, None
                self.append(LOST, {"lines": lost})

    def sync(self) -> None:
        """Everything added so far is on the disk when this returns, unless the log is to go on without one.

        Raises:
            AuditError: it is not.
        """
        try:
            self._sync()
        except AuditError as error:
            if not self._go_on:
                raise
            self.fault = str(error)
            return
        self.fault = None

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
            self._drop()

    def _sync(self) -> None:
        self.write()
        if not self._dirty:
            return
        try:
            os.fdatasync(self._fd)
            self._dirty = False
            # After the lines, so that it never says more than there is.
            self._write_head()
            if self._rotate_bytes and os.fstat(self._fd).st_size >= self._rotate_bytes:
                self._rotate()
        except OSError as error:
            raise AuditError(f"{self.path}: {error.strerror}") from None

    def _write_head(self) -> None:
        os.pwrite(self._head_fd, _head_text(self.seq, self._prev), 0)

    def _rotate(self) -> None:
        """Put the file aside; a kill between any two of these steps leaves what `_go_to_end` goes on from."""
        number = max((n for n, _ in _put_aside(self.path)), default=0) + 1
        aside = self.path.with_name(f"{self.path.name}.{number:06d}")
        os.rename(self.path, aside)  # noqa: PTH104 - beside the other calls of its kind
        os.close(self._fd)
        self._fd = -1
        self._fd = _open(self.path)
        self.append(CONTINUED, {"file": aside.name})
        data = b"".join(self._lines)
        self._lines, self._waiting = [], 0
        if os.write(self._fd, data) != len(data):
            raise OSError(28, "No space left on device")
        os.fdatasync(self._fd)
        self._write_head()
        _sync_folder(self.path.parent)

    def _go_to_end(self) -> bytes:
        """Find the last whole line of the chain; gives the bytes cut off behind it."""
        torn, line = _cut(self._fd)
        if line is None:
            # A new log, or one that was killed while it began a new file.
            for _, path in reversed(_put_aside(self.path)):
                with path.open("rb") as file:
                    tail, line = _last_line(file.fileno())
                if tail or line is None:
                    raise AuditError(f"{path}: the last line is none of an audit log")
                break
            else:
                os.pwrite(self._head_fd, _head_text(0, FIRST), 0) if not self._head() else None
                _sync_folder(self.path.parent)
                return torn
        entry = _entry(line)
        if entry is None:
            raise AuditError(f"{self.path}: the last line is none of an audit log")
        self.seq, self._prev = entry[0], hashlib.sha256(line).hexdigest()
        if os.fstat(self._fd).st_size == 0:
            self.append(CONTINUED, {"file": _put_aside(self.path)[-1][1].name})
        return torn

    def _head(self) -> tuple[int, str] | None:
        return parse_head(os.pread(self._head_fd, 128, 0))

    def _against_head(self) -> list[tuple[str, dict[str, Any]]]:
        """What is to be said of the log as it was found beside the head as it was found."""
        head = self._head()
        if head is None:
            return [(HEAD_LOST, {})]
        if head[0] > self.seq or (head[0] == self.seq and head[1] != self._prev):
            return [(BEHIND_HEAD, {"headSeq": head[0], "headSha256": head[1]})]
        return []

    def _drop(self) -> None:
        for fd in (self._fd, self._head_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._head_fd = -1


@dataclass
class Checked:
    """What `examine` found of one log.

    Attributes:
        name: the log's file name.
        lines, files: how many hold together, over how many files.
        seq, sha256, time: of the last line that does; 0, zeros and None where there is none.
        gaps: what the log itself tells of that is missing, and ends without a last word; one line each.
        faults: what was changed, cut off or taken away; one line each.
    """

    name: str
    lines: int = 0
    files: int = 0
    seq: int = 0
    sha256: str = FIRST
    time: str | None = None
    gaps: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def verify(directory: str | Path) -> dict[str, int]:
    """Go through every log of a folder. Gives the number of lines by file name.

    Raises:
        AuditError: the first line, of whichever log, that is not what has to follow the one before.
    """
    found = examine(directory)
    for log in found:
        if log.faults:
            raise AuditError(log.faults[0])
    return {log.name: log.lines for log in found}


def examine(
    directory: str | Path,
    expected: Mapping[str, tuple[int, str]] | None = None,
    *,
    archived: bool = False,
) -> list[Checked]:
    """Go through every log of a folder, and hold each against its head and those kept elsewhere.

    Args:
        directory: the folder.
        expected: by log's file name, number and hash of a line that has to be there.
        archived: the oldest files may have been moved away.

    Raises:
        AuditError: the folder cannot be read.
    """
    folder = Path(directory)
    expected = dict(expected or {})
    try:
        there = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise AuditError(f"{folder}: {error.strerror}") from None
    names = {m[1] for name in there if (m := re.fullmatch(r"(.+\.log)(?:\.head|\.\d{6,})?", name))}
    return [
        _examined(folder / name, expected.get(name), archived) for name in sorted(names | expected.keys())
    ]


def entries(path: str | Path) -> Iterator[dict[str, Any]]:
    """The lines of one log, oldest file first, as they are; what is no line of a log is left out."""
    path = Path(path)
    for file_path in _files(path):
        with contextlib.suppress(FileNotFoundError), file_path.open("rb") as file:
            for line in file:
                if _entry(line.removesuffix(b"\n")) is not None:
                    yield json.loads(line)


def head_path(path: str | Path) -> Path:
    """Where the head of a log is."""
    path = Path(path)
    return path.with_name(f"{path.name}.head")


def parse_head(data: bytes) -> tuple[int, str] | None:
    """Number and hash from a head file's bytes; None: it is none."""
    match = _HEAD.fullmatch(data)
    return None if match is None else (int(match[1]), match[2].decode())


def _head_text(seq: int, sha256: str) -> bytes:
    # Of one length, so that it can be written over itself.
    return f"{seq:019d} {sha256}\n".encode()


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


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _put_aside(path: Path) -> list[tuple[int, Path]]:
    """Files of a log that were put aside, oldest first, with their numbers."""
    start = f"{path.name}."
    found = [
        (int(item.name[len(start) :]), item)
        for item in path.parent.iterdir()
        if item.name.startswith(start) and re.fullmatch(r"\d{6,}", item.name[len(start) :], re.ASCII)
    ]
    return sorted(found)


def _files(path: Path) -> list[Path]:
    return [item for _, item in _put_aside(path)] + ([path] if path.exists() else [])


def _cut(fd: int) -> tuple[bytes, bytes | None]:
    """Cut off what follows the last line of a log. Gives what that was, and the line without its newline."""
    torn, line = _last_line(fd)
    if line is None and torn.count(b"\n"):
        return torn, b""  # lines, and none of a log: nothing of it is touched
    if torn:
        os.ftruncate(fd, os.fstat(fd).st_size - len(torn))
    return torn, line


def _last_line(fd: int) -> tuple[bytes, bytes | None]:
    """What follows the last line that reads as one of a log, and that line; None: there is no such line.

    Bytes that a power cut left behind the last line may hold newlines.
    """
    size = os.fstat(fd).st_size
    reach = _TAIL_BYTES
    while True:
        start = max(0, size - reach)
        tail = os.pread(fd, size - start, start)
        begin = 0 if start == 0 else tail.find(b"\n") + 1
        end = len(tail)
        while (newline := tail.rfind(b"\n", begin, end)) >= 0:
            first = tail.rfind(b"\n", begin, newline) + 1
            first = max(first, begin)
            if _entry(tail[first:newline]) is not None:
                return tail[newline + 1 :], tail[first:newline]
            end = newline
        if start == 0:
            return tail, None
        reach *= 4


def _entry(line: bytes) -> tuple[int, str] | None:
    """``seq`` and ``prev`` of a line of a log; None: it is none."""
    try:
        entry = json.loads(line)
        seq, prev, kind = entry["seq"], entry["prev"], entry["kind"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if type(seq) is not int or not isinstance(prev, str) or not isinstance(kind, str):
        return None
    return seq, prev


def _examined(path: Path, expected: tuple[int, str] | None, archived: bool) -> Checked:
    for _ in range(3):
        files = _files(path)
        try:
            found = _walked(path, files, expected, archived)
        except OSError as error:
            found = Checked(path.name, faults=[f"{path}: {error.strerror}"])
        if _files(path) == files:  # else it was put aside meanwhile
            break
    return found


def _walked(path: Path, files: list[Path], expected: tuple[int, str] | None, archived: bool) -> Checked:
    """Line by line. The head is read first: the log may grow meanwhile, and never shrinks below it."""
    out = Checked(path.name, files=len(files))
    try:
        head = parse_head(head_path(path).read_bytes())
    except FileNotFoundError:
        head = None
    wanted = [("its head", head)] + ([("the head kept elsewhere", expected)] if expected else [])
    met: set[str] = {what for what, mark in wanted if mark is not None and mark[0] == 0}
    numbers = [n for n, _ in _put_aside(path)]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        out.faults.append(f"{path}: files that were put aside are missing between others")
        return out
    if numbers and numbers[0] != 1 and not archived:
        out.faults.append(
            f"{path}: the {numbers[0] - 1} oldest files are not here (--archived, if they are kept)"
        )
        return out
    running = False
    for file_path in files:
        n = 0
        with file_path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                n += 1
                where = f"{file_path}: line {n}"
                if not line.endswith(b"\n"):
                    told = f"{where} is torn: {len(line)} bytes that were not written to the end"
                    # Of a process that was killed, or is just writing; if the head is beyond, it was whole once.
                    if file_path == path:
                        out.gaps.append(told)
                        break
                    out.faults.append(told)
                    return out
                first = out.lines == 0 and archived and numbers and numbers[0] != 1
                if fault := _unfit(line, None if first else (out.seq, out.sha256)):
                    out.faults.append(f"{where} {fault}")
                    return out
                entry = json.loads(line)
                out.lines += 1
                out.seq, out.sha256 = entry["seq"], hashlib.sha256(line[:-1]).hexdigest()
                for what, mark in wanted:
                    if mark is not None and mark[0] == out.seq:
                        met.add(what)
                        if mark[1] != out.sha256:
                            out.faults.append(f"{where} is not the one that {what} knows: it was changed")
                            return out
                running = _noted(entry, where, running, out)
                out.time = entry.get("time")
    for what, mark in wanted:
        if mark is None:
            if out.lines or files:
                out.faults.append(
                    f"{path}: line {out.lines} is the last, and the head file is missing or damaged"
                )
        elif what not in met and not (archived and out.lines and mark[0] < out.seq):
            out.faults.append(
                f"{path}: line {out.lines} (number {out.seq}) is the last; {what} knows of {mark[0]}: "
                f"{max(mark[0] - out.seq, 0)} lines are missing at the end"
            )
    return out


def _unfit(line: bytes, before: tuple[int, str] | None) -> str | None:
    """What is wrong with a line after the one with the given number and hash; None: nothing."""
    found = _entry(line[:-1])
    if found is None:
        return "is none of an audit log"
    if before is None:
        return None
    if found[0] != before[0] + 1:
        return f"has the number {found[0]} after {before[0]}: lines are missing or were added"
    if found[1] != before[1]:
        return "does not follow from the one before: one of the two was changed"
    return None


def _noted(entry: Mapping[str, Any], where: str, running: bool, out: Checked) -> bool:
    """What a line tells of gaps; gives whether a run is under way after it."""
    kind = entry["kind"]
    if kind == TORN:
        out.gaps.append(
            f"{where}: {entry.get('bytes')} bytes of a line that was not written to its end were cut off"
        )
    elif kind == LOST:
        out.gaps.append(f"{where}: {entry.get('lines')} lines could not be written and were lost")
    elif kind == BEHIND_HEAD:
        out.faults.append(
            f"{where}: the log was found behind its head, which knew of line {entry.get('headSeq')}: "
            "lines were cut off or changed"
        )
    elif kind == HEAD_LOST:
        out.faults.append(
            f"{where}: the head file was found missing or damaged; lines may have been cut off before"
        )
    if kind == "started":
        if running:
            out.gaps.append(f"{where}: the run before ended without a last word, after {out.time}")
        return True
    return running and kind != "stopped"
