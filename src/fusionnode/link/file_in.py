"""Recorded observation files: the whole file at once, and which codec reads it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

CODEC_OF_SUFFIX = {".b3": "b3", ".tdm": "tdm", ".kvn": "tdm", ".iod": "iod"}
MAX_FILE_BYTES = 1 << 30
_GZIP = b"\x1f\x8b"


class FileError(Exception):
    """The file cannot be used; the text is one line."""


def read(path: str | Path) -> tuple[str, bytes]:
    """The name of a file's codec and the file's bytes, unpacked if they are gzip.

    Raises:
        FileError: it cannot be read, or is of no known kind.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            with gzip.open(path) as file:
                data = file.read(MAX_FILE_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileError(f"{path}: damaged gzip file: {error}") from None
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise FileError(f"{path}: expected at most {MAX_FILE_BYTES} bytes")
    return _codec(path, data), data


def _codec(path: Path, data: bytes) -> str:
    for suffix in reversed(path.suffixes):
        if suffix.lower() in CODEC_OF_SUFFIX:
            return CODEC_OF_SUFFIX[suffix.lower()]
    first = data[:4096].lstrip()
    if first.startswith(b"CCSDS_TDM_VERS"):
        return "tdm"
    line = first.split(b"\n", 1)[0].rstrip()
    # A B3 record: from the sensor's number to the milliseconds there is nothing but digits.
    if len(line) >= 66 and line[6:23].isdigit():
        return "b3"
    raise FileError(f"{path}: expected a file of observations (B3, IOD, or TDM in KVN) or a journal's folder")
