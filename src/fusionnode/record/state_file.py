"""State on disk: one file, whole or not there, that says whose it is and whether it is intact.

    magic[8]  version u32  length u64 of the body  sha256[32] of the body  body: msgpack

Arrays are maps of their kind, shape and bytes (little-endian). A file is written beside the old one, synced, and put
in its place by one rename, so that there is always one whole file, whatever happens.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

NAME = "tracks.fns"
MAGIC = b"\x89FNS\r\n\x1a\n"
VERSION = 1
MOST_BYTES = 1 << 31
_HEAD = struct.Struct("<8sIQ32s")
_ARRAY = "\x00array"
_KINDS = frozenset("biuf")


class StateError(Exception):
    """A state file cannot be written or used; the text is one line."""


def encode(state: dict[str, Any]) -> bytes:
    """The bytes of a state: of maps, lists, texts, numbers, None and arrays."""
    body: bytes = msgpack.packb(state, default=_array_to_map)
    return _HEAD.pack(MAGIC, VERSION, len(body), hashlib.sha256(body).digest()) + body


def decode(data: bytes) -> dict[str, Any]:
    """The inverse of `encode`.

    Raises:
        StateError: these are not the bytes of a state, or not all of them as they were, or of a newer version.
    """
    if len(data) < _HEAD.size or not data.startswith(MAGIC):
        raise StateError("expected a file of saved state")
    _, version, length, digest = _HEAD.unpack_from(data)
    if version > VERSION:
        raise StateError(f"of version {version}, newer than this node's {VERSION}")
    body = data[_HEAD.size :]
    if len(body) != length:
        raise StateError(f"damaged: {len(body)} bytes, expected {length}")
    if hashlib.sha256(body).digest() != digest:
        raise StateError("damaged: its SHA-256 is not that of its contents")
    try:
        state = msgpack.unpackb(body, object_hook=_map_to_array, strict_map_key=False)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise StateError(f"not readable: {error}") from None
    if not isinstance(state, dict):
        raise StateError("not readable: not a map")
    return state


def write(path: Path, data: bytes) -> None:
    """Put ``data`` in the place of the file ``path``, for good.

    Raises:
        StateError: the disk does not take it; what was there is untouched.
    """
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise StateError(f"{path}: cannot be written: {error.strerror or error}") from None


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """A state and its bytes.

    Raises:
        StateError: as for `decode`, or the file cannot be read; the text names it.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise StateError(f"{path}: longer than {MOST_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return decode(data), data
    except StateError as error:
        raise StateError(f"{path}: {error}") from None


def put_aside(path: Path) -> Path | None:
    """Take a file that is refused out of the way, so that nothing writes over it; gives its new name."""
    aside = path.with_name(path.name + ".refused")
    try:
        path.replace(aside)
    except OSError:
        return None
    return aside


def copy_name(sha256: str) -> str:
    """Name of the copy, in a journal's folder, of the state that a run went on from; ``sha256`` of its bytes, hex."""
    return f"{sha256[:32]}.fns"


class Saver:
    """Writes states in a thread of its own; who hands one over never waits.

    Args:
        path: the file.
        on_fault: told, in one line, when a state could not be written, and of the first that could be again (None).
    """

    def __init__(self, path: Path, on_fault: Callable[[str | None], None]) -> None:
        self._path = path
        self._on_fault = on_fault
        self._cond = threading.Condition()
        self._next: dict[str, Any] | None = None
        self._busy = False
        self._closing = False
        self._failed = False
        self.saved = 0
        """States written."""
        self._thread = threading.Thread(target=self._loop, name="state", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """One is being written, or waits to be."""
        return self._busy or self._next is not None

    def save(self, state: dict[str, Any]) -> None:
        """Write this one, and not one handed over before that still waits."""
        with self._cond:
            self._next = state
            self._cond.notify_all()

    def close(self, timeout_s: float = 30.0) -> bool:
        """Write what waits, and end; says whether the last one was written. May be called twice."""
        with self._cond:
            self._closing = True
            self._cond.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self._failed

    def _loop(self) -> None:
        while True:
            with self._cond:
                while self._next is None and not self._closing:
                    self._cond.wait()
                state, self._next = self._next, None
                if state is None:
                    return
                self._busy = True
            try:
                write(self._path, encode(state))
            except Exception as error:  # noqa: BLE001 - the node goes on without
                if not self._failed:
                    text = str(error) if isinstance(error, StateError) else f"{type(error).__name__}: {error}"
                    self._on_fault(text)
                self._failed = True
            else:
                self.saved += 1
                if self._failed:
                    self._on_fault(None)
                self._failed = False
            with self._cond:
                self._busy = False


def _array_to_map(thing: Any) -> Any:
    if isinstance(thing, np.ndarray):
        array = np.ascontiguousarray(thing)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return {_ARRAY: array.dtype.str, "shape": list(thing.shape), "data": array.tobytes()}
    if isinstance(thing, np.generic):
        return thing.item()
    raise TypeError(f"{type(thing).__name__} cannot be saved")


def _map_to_array(item: dict[Any, Any]) -> Any:
    if _ARRAY not in item:
        return item
    kind = np.dtype(item[_ARRAY])
    if kind.kind not in _KINDS:
        raise ValueError(f"an array of {kind}")
    array = np.frombuffer(item["data"], kind).reshape(item["shape"])
    return array.astype(kind.newbyteorder("="))
