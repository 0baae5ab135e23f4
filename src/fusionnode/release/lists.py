"""Files that rules of release name: catalogue numbers, and who owns what."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

from fusionnode.config import Config


class Lists(NamedTuple):
    """What the files of a configuration held when they were read."""

    objects: dict[str, frozenset[int]]
    """Catalogue numbers by the file's name."""
    owners: dict[int, str]
    """Owner by catalogue number."""
    sha256: str
    """Over the files' bytes, in the order of the configuration; empty without files."""


NONE = Lists({}, {}, "")


def read(config: Config) -> Lists:
    """Read all files that the configuration's rules name.

    Raises:
        ValueError: one cannot be used; the text is one line naming it.
    """
    digest = hashlib.sha256()
    objects: dict[str, frozenset[int]] = {}
    files = [rule.objects_file for group in config.group.values() for rule in group.rule]
    for file in files:
        if file is not None and file not in objects:
            data = _bytes(file)
            digest.update(len(data).to_bytes(8, "little") + data)
            objects[file] = frozenset(_numbers(file, data))
    owners: dict[int, str] = {}
    if config.group and config.catalogue.owners_file is not None:
        data = _bytes(config.catalogue.owners_file)
        digest.update(len(data).to_bytes(8, "little") + data)
        owners = _owners(config.catalogue.owners_file, data)
    used = bool(objects) or bool(owners)
    return Lists(objects, owners, digest.hexdigest() if used else "")


def _bytes(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror or error}") from None


def _numbers(file: str, data: bytes) -> list[int]:
    """One catalogue number a line; blank lines, and what stands after ``#``, are not looked at."""
    numbers = []
    for number, line in enumerate(_text(file, data).splitlines(), 1):
        word = line.partition("#")[0].strip()
        if word:
            numbers.append(_sat_no(file, number, word))
    return numbers


def _owners(file: str, data: bytes) -> dict[int, str]:
    """Lines ``number,owner``; a first line of words is a heading."""
    owners: dict[int, str] = {}
    for number, row in enumerate(csv.reader(_text(file, data).splitlines()), 1):
        if not row or row[0].lstrip().startswith("#") or (number == 1 and not row[0].strip().isdigit()):
            continue
        if len(row) < 2 or not row[1].strip():
            raise ValueError(f"{file}: line {number}: expected a catalogue number and an owner")
        owners[_sat_no(file, number, row[0].strip())] = row[1].strip()
    return owners


def _text(file: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: expected UTF-8 text") from None


def _sat_no(file: str, line: int, word: str) -> int:
    if not (word.isascii() and word.isdigit() and 1 <= int(word) <= 999_999_999):
        raise ValueError(f"{file}: line {line}: expected a catalogue number (is {word[:20]!r})")
    return int(word)
