"""Where a subscriber stood: which message of which stream it has dealt with last, kept in a small file."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

_LONGEST = 4_096


class Position(NamedTuple):
    """Everything up to message ``seq`` of that stream has been dealt with."""

    stream_epoch: str
    seq: int


def load(path: Path) -> Position | None:
    """The position in a file; None if there is no file.

    Raises:
        ValueError: the file cannot be read, or is not one of these; the text is one line that says what to do.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    try:
        fields = json.loads(text)
        epoch, seq = fields["streamEpoch"], fields["seq"]
    except (ValueError, TypeError, KeyError, RecursionError):
        epoch = seq = None
    if type(epoch) is not str or type(seq) is not int or not epoch or not 0 <= seq < 1 << 64:
        raise ValueError(f"{path}: holds no position in a stream; take it away to begin anew")
    return Position(epoch, seq)


def save(path: Path, position: Position) -> None:
    """Write a position so that after a crash there is the old file or the new one, whole.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps({"streamEpoch": position.stream_epoch, "seq": position.seq}) + "\n"
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    with contextlib.suppress(OSError):  # some file systems have no folders to sync
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
