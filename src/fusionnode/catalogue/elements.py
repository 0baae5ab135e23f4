"""Element sets from files: TLE (two or three lines, alpha-5 numbers) and OMM (JSON, CSV, XML, KVN), gzipped or not.

One damaged entry costs that entry, and is counted; so the formats are reduced to fields here, entry by entry,
where a reader of whole messages would refuse a file of thousands for it. Numbers go up to nine digits.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
from sgp4.api import WGS72, Satrec

from fusionnode.core.timescales import DAY_NS, JD_1970, tai_ns_from_utc, utc_from_text

MAX_BYTES: Final = 1 << 30
"""A file that is longer, after decompression, is refused."""

_SGP4_EPOCH_DAY: Final = -7_306  # 1949-12-31, from which the library's sgp4init counts days
_ALPHA5: Final = {letter: 10 + i for i, letter in enumerate("ABCDEFGHJKLMNPQRSTUVWXYZ")}


@dataclass(frozen=True, slots=True)
class ElementSet:
    """One mean element set, ready for SGP4."""

    sat_no: int
    name: str
    international_designator: str  # 1998-067A
    epoch_ns: int  # TAI
    satrec: Any  # sgp4.api.Satrec


@dataclass(frozen=True, slots=True)
class Elements:
    """What one file held."""

    path: str
    sha256: str  # of the file as it is on disk
    sets: tuple[ElementSet, ...]
    n_bad: int  # entries that could not be used


def load(path: str | Path) -> Elements:
    """Read one file, whatever its format.

    Raises:
        ValueError: one line; the file cannot be read, or holds no element set at all.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        data = raw
        if raw[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as unzipped:
                data = unzipped.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error):
        raise ValueError(f"{path}: damaged gzip file") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: longer than {MAX_BYTES} bytes")
    try:
        sets, n_bad = parse(data.decode("utf-8-sig", errors="replace"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not sets:
        raise ValueError(f"{path}: expected element sets (TLE or OMM), found none")
    return Elements(str(path), hashlib.sha256(raw).hexdigest(), tuple(sets), n_bad)


def parse(text: str) -> tuple[list[ElementSet], int]:
    """Element sets of a file's text in the file's order, and the number of entries that could not be used.

    Raises:
        ValueError: one line; the text is JSON or XML that does not parse.
    """
    start = text.lstrip()[:2_000]
    if start[:1] in ("[", "{"):
        return _from_omm(_json(text))
    if start[:1] == "<":
        return _from_omm(_xml(text))
    if "CCSDS_OMM_VERS" in start:
        return _from_omm(_kvn(text))
    if "MEAN_MOTION" in start.split("\n", 1)[0]:
        return _from_omm(_csv(text))
    return _from_tle(text)


def _from_tle(text: str) -> tuple[list[ElementSet], int]:
    lines = [line.rstrip() for line in text.splitlines()]
    sound = _sound(lines)
    sets: list[ElementSet] = []
    n_bad = 0
    name = ""
    i = 0
    while i < len(lines):
        line = lines[i]
        if line.startswith("1 ") and len(line) >= 60:
            following = lines[i + 1] if i + 1 < len(lines) else ""
            paired = following.startswith("2 ")
            fits = paired and following[2:7] == line[2:7] and sound[i] and sound[i + 1]
            made = _tle(name, line, following) if fits else None
            if made is None:
                n_bad += 1
            else:
                sets.append(made)
            name = ""
            i += 2 if paired else 1
            continue
        if line.startswith("2 ") and len(line) >= 60:
            n_bad += 1  # a second line without its first
            name = ""
        elif line and not line.startswith("#"):
            name = line.removeprefix("0 ").strip()
        i += 1
    return sets, n_bad


def _sound(lines: list[str]) -> list[bool]:
    """Whether each line has the sum of its digits, modulo 10, in column 69 ('-' counts 1); lines may lack it."""
    width = 69
    ascii_lines = [line[:width].encode("ascii", "replace").ljust(width) for line in lines]
    table = np.array(ascii_lines, f"S{width}").view(np.uint8).reshape(len(lines), width)
    digit = np.where((table >= ord("0")) & (table <= ord("9")), table - ord("0"), 0).astype(np.int64)
    total = (digit[:, :68].sum(axis=1) + (table[:, :68] == ord("-")).sum(axis=1)) % 10
    last = table[:, 68]
    return list((last == total + ord("0")) | (last == ord(" ")) | (last == 0))


def _tle(name: str, line1: str, line2: str) -> ElementSet | None:
    try:
        number = line1[2:7].strip()
        sat_no = int(number) if number[:1].isdigit() else _ALPHA5[number[:1]] * 10_000 + int(number[1:])
        satrec = Satrec.twoline2rv(line1, line2)
        ns = round(satrec.jdsatepochF * DAY_NS)
        epoch_ns = int(tai_ns_from_utc(round(satrec.jdsatepoch - JD_1970), ns))
    except (ValueError, KeyError, OverflowError):
        return None
    if not _usable(satrec):
        return None
    return ElementSet(sat_no, name, _designator(line1[9:17].strip()), epoch_ns, satrec)


def _designator(short: str) -> str:
    """1998-067A of 98067A; other texts as they are."""
    if not (len(short) >= 6 and short[:5].isdigit()):
        return short
    century = "19" if int(short[:2]) >= 57 else "20"
    return f"{century}{short[:2]}-{short[2:]}"


def _csv(text: str) -> list[dict[str, Any]]:
    try:
        return list(csv.DictReader(text.lstrip().splitlines()))
    except csv.Error as error:
        raise ValueError(f"begins like CSV, but does not parse: {error}") from None


def _from_omm(entries: Iterable[Mapping[str, Any]]) -> tuple[list[ElementSet], int]:
    sets: list[ElementSet] = []
    n_bad = 0
    for fields in entries:
        try:
            sets.append(_omm(fields))
        except (ValueError, KeyError, TypeError, OverflowError, AttributeError):
            n_bad += 1
    return sets, n_bad


def _omm(fields: Mapping[str, Any]) -> ElementSet:
    """One OMM by its keywords (CCSDS 502.0-B-3, clause 4); those a TLE has no place for are ignored.

    Raises:
        ValueError, KeyError, TypeError: the entry cannot be used.
    """

    def number(key: str, default: float | None = None) -> float:
        value = fields.get(key)
        if value is None or value == "":
            if default is None:
                raise KeyError(key)
            return default
        return float(value)

    for key, allowed in (
        ("MEAN_ELEMENT_THEORY", ("SGP4", "SGP/SGP4")),
        ("TIME_SYSTEM", ("UTC",)),
        ("REF_FRAME", ("TEME",)),
        ("CENTER_NAME", ("EARTH",)),
    ):
        if str(fields.get(key) or allowed[0]).strip().upper() not in allowed:
            raise ValueError(f"{key}: expected {allowed[0]}")
    if number("EPHEMERIS_TYPE", 0) == 4:
        raise ValueError("EPHEMERIS_TYPE = 4 is SGP4-XP")
    sat_no = int(str(fields["NORAD_CAT_ID"]).strip())
    if not 0 <= sat_no <= 999_999_999:
        raise ValueError("NORAD_CAT_ID: expected at most nine digits")
    day, ns = utc_from_text(str(fields["EPOCH"]))
    satrec = Satrec()
    satrec.sgp4init(
        WGS72,
        "i",
        0,  # the library's own numbers end at 339999
        day - _SGP4_EPOCH_DAY + ns / DAY_NS,
        number("BSTAR", 0.0),
        number("MEAN_MOTION_DOT", 0.0) * math.pi / 1_036_800.0,
        number("MEAN_MOTION_DDOT", 0.0) * 2.0 * math.pi / 2_985_984_000.0,
        number("ECCENTRICITY"),
        math.radians(number("ARG_OF_PERICENTER")),
        math.radians(number("INCLINATION")),
        math.radians(number("MEAN_ANOMALY")),
        number("MEAN_MOTION") * math.pi / 720.0,
        math.radians(number("RA_OF_ASC_NODE")),
    )
    satrec.jdsatepoch, satrec.jdsatepochF = JD_1970 + day, ns / DAY_NS  # without the rounding of their sum
    if not _usable(satrec):
        raise ValueError("no orbit of these elements")
    name, designator = (str(fields.get(key) or "").strip() for key in ("OBJECT_NAME", "OBJECT_ID"))
    return ElementSet(sat_no, name, designator, int(tai_ns_from_utc(day, ns)), satrec)


def _usable(satrec: Any) -> bool:
    numbers = (
        satrec.bstar,
        satrec.ecco,
        satrec.inclo,
        satrec.nodeo,
        satrec.argpo,
        satrec.mo,
        satrec.no_kozai,
    )
    return (
        all(map(math.isfinite, numbers)) and 0.0 <= satrec.ecco < 1.0 and 0.0 < satrec.no_kozai < 0.1
    )  # rad/min: an orbit at the Earth's surface has 0.074


def _json(text: str) -> Iterator[Mapping[str, Any]]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("begins like JSON, and is not") from None
    yield from tree if isinstance(tree, list) else [tree]


def _xml(text: str) -> Iterator[Mapping[str, Any]]:
    if "<!ENTITY" in text:
        raise ValueError("XML that defines entities is not read")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"begins like XML, and is not: {error}") from None
    for element in root.iter():
        if _local(element.tag) == "omm":
            yield {_local(e.tag): e.text for e in element.iter() if len(e) == 0}


def _local(tag: Any) -> str:
    return str(tag).rpartition("}")[2]


def _kvn(text: str) -> Iterator[Mapping[str, Any]]:
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or key.startswith("COMMENT"):
            continue
        if key == "CCSDS_OMM_VERS" and fields:
            yield fields
            fields = {}
        fields[key] = value.partition("[")[0].strip()  # units in brackets may follow
    if fields:
        yield fields
