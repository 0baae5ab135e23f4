"""What a journal holds, and its bytes on disk.

A segment ``NNNNNN.fnj`` is a header followed by records, all little-endian:

    header:  magic[8]  version u32  segment u32  first_seq u64  crc32 u32 of all before
    record:  length u32 of body  crc32 u32 of all after  seq u64  type u8  body

Sequence numbers start at 1 with a run's META and go up by one, through all segments of the run. So a
segment whose ``first_seq`` is 1 begins a run, and neither zeros, nor rubbish, nor a stale block can pass
for a record.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import NamedTuple

from fusionnode.core.types import LinkRecord

SUFFIX = ".fnj"
MAGIC = b"\x89FNJ\r\n\x1a\n"
VERSION = 1
MAX_BODY = 1 << 26

_HEADER = struct.Struct("<8sIIQ")
HEADER_SIZE = _HEADER.size + 4
HEAD = struct.Struct("<IIQB")
"""length, crc32, seq, type"""
CRC_FROM = 8
"""Where in a record the bytes begin that its crc32 covers."""

_CHECKED = struct.Struct("<II")
_TAIL = struct.Struct("<QB")
_BYTES_TAIL = struct.Struct("<QBq")
_T = struct.Struct("<q")
_T_UP = struct.Struct("<qB")
_N = struct.Struct("<Q")
_FINISH_HEAD = 16


class EntryType(IntEnum):
    """The type byte of a record."""

    META = 1
    BYTES = 2
    TICK = 3
    LINK_EVENT = 4
    QUEUE_DROP = 5
    COMMAND = 6
    RELOAD = 7
    FINISH = 8


@dataclass(frozen=True, slots=True)
class Meta:
    """How a run began: all that its outputs depend on besides what follows. Hashes are SHA-256, in hex."""

    node_version: str
    stream_epoch: str
    started_ns: int
    config_sha256: str
    orientation_sha256: str
    catalogue_sha256: str | None = None
    restored_sha256: str | None = None
    config_text: str = ""
    release_sha256: str | None = None
    """Of the files that rules of release name."""
    offset_key_sha256: str | None = None


class Tick(NamedTuple):
    """The pipeline was asked for output at ``t_ns``."""

    t_ns: int


class LinkEvent(NamedTuple):
    """A port appeared (``up``) or vanished."""

    link_id: str
    t_ns: int
    up: bool


class QueueDrop(NamedTuple):
    """So many link records were lost before the fusion thread could take them."""

    link_id: str
    n: int


class Command(NamedTuple):
    """Bytes sent to a sensor."""

    t_ns: int
    link_id: str
    data: bytes


class Reload(NamedTuple):
    """A new configuration's rules of release took effect; the hash is that of `Meta.release_sha256` then."""

    t_ns: int
    config_text: str
    release_sha256: str = ""


class Finish(NamedTuple):
    """A clean end: so many messages were published, with this SHA-256 over all of them; the same of each release
    group: name, messages, SHA-256.
    """

    t_ns: int
    published: int
    sha256: str
    groups: tuple[tuple[str, int, str], ...] = ()


Item = Meta | LinkRecord | Tick | LinkEvent | QueueDrop | Command | Reload | Finish


class Entry(NamedTuple):
    """One record of a journal."""

    seq: int
    item: Item


def record(seq: int, kind: EntryType, body: bytes) -> bytes:
    """The bytes of one record."""
    tail = _TAIL.pack(seq, kind) + body
    return _CHECKED.pack(len(body), zlib.crc32(tail)) + tail


def bytes_record(seq: int, t_rx_ns: int, link_id: str, data: bytes) -> bytes:
    """`record` of a LinkRecord in one step: there are a hundred thousand of them for each of the others."""
    tail = _BYTES_TAIL.pack(seq, 2, t_rx_ns) + (_names.get(link_id) or _name(link_id)) + data
    return _CHECKED.pack(len(tail) - 9, zlib.crc32(tail)) + tail


def segment_header(segment: int, first_seq: int) -> bytes:
    """The first bytes of a segment."""
    head = _HEADER.pack(MAGIC, VERSION, segment, first_seq)
    return head + struct.pack("<I", zlib.crc32(head))


def first_seq_of(header: bytes) -> int | None:
    """The sequence number of the first record, or None if these are not the first bytes of a segment."""
    if len(header) < HEADER_SIZE:
        return None
    magic, version, _, first_seq = _HEADER.unpack_from(header)
    (crc,) = struct.unpack_from("<I", header, _HEADER.size)
    if magic != MAGIC or version != VERSION or crc != zlib.crc32(header[: _HEADER.size]):
        return None
    return int(first_seq)


def encode(item: Item) -> tuple[EntryType, bytes]:
    """Type and body of any item."""
    match item:
        case LinkRecord(t_ns, link_id, data):
            return EntryType.BYTES, _T.pack(t_ns) + _name(link_id) + data
        case Tick(t_ns):
            return EntryType.TICK, _T.pack(t_ns)
        case LinkEvent(link_id, t_ns, up):
            return EntryType.LINK_EVENT, _T_UP.pack(t_ns, up) + _name(link_id)
        case QueueDrop(link_id, n):
            return EntryType.QUEUE_DROP, _N.pack(n) + _name(link_id)
        case Command(t_ns, link_id, data):
            return EntryType.COMMAND, _T.pack(t_ns) + _name(link_id) + data
        case Reload(t_ns, text, sha256):
            return EntryType.RELOAD, _T.pack(t_ns) + _name(sha256) + text.encode()
        case Finish(t_ns, published, sha256, groups):
            more = json.dumps(groups).encode() if groups else b""
            return EntryType.FINISH, _T.pack(t_ns) + _N.pack(published) + bytes.fromhex(sha256) + more
        case Meta():
            return EntryType.META, json.dumps(asdict(item)).encode()


def decode(kind: int, body: bytes) -> Item:
    """The inverse of `encode`.

    Raises:
        ValueError: not a body of this type, or a type that is not known.
    """
    try:
        match kind:
            case EntryType.BYTES:
                link_id, rest = _split_name(body, _T.size)
                return LinkRecord(_T.unpack_from(body)[0], link_id, rest)
            case EntryType.TICK:
                return Tick(*_T.unpack(body))
            case EntryType.LINK_EVENT:
                t_ns, up = _T_UP.unpack_from(body)
                return LinkEvent(_split_name(body, _T_UP.size)[0], t_ns, bool(up))
            case EntryType.QUEUE_DROP:
                return QueueDrop(_split_name(body, _N.size)[0], *_N.unpack_from(body))
            case EntryType.COMMAND:
                link_id, rest = _split_name(body, _T.size)
                return Command(_T.unpack_from(body)[0], link_id, rest)
            case EntryType.RELOAD:
                sha256, text = _split_name(body, _T.size)
                return Reload(_T.unpack_from(body)[0], text.decode(), sha256)
            case EntryType.FINISH:
                (t_ns,), (published,) = _T.unpack_from(body), _N.unpack_from(body, _T.size)
                sha, more = body[_FINISH_HEAD : _FINISH_HEAD + 32], body[_FINISH_HEAD + 32 :]
                groups = tuple((str(name), int(n), str(h)) for name, n, h in json.loads(more or b"[]"))
                return Finish(t_ns, published, sha.hex(), groups)
            case EntryType.META:
                return Meta(**json.loads(body))
    except (struct.error, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"a body that is not one of type {kind}: {error}") from None
    raise ValueError(f"unknown type {kind}")


_names: dict[str, bytes] = {}


def _name(link_id: str) -> bytes:
    """Length and UTF-8 of a link's name; remembered, for a node has few links and many records."""
    encoded = _names.get(link_id)
    if encoded is None:
        text = link_id.encode()
        if len(text) > 255:
            raise ValueError(f"a link's name of {len(text)} bytes")
        encoded = _names[link_id] = bytes((len(text),)) + text
    return encoded


def _split_name(body: bytes, at: int) -> tuple[str, bytes]:
    end = at + 1 + body[at]
    if end > len(body):
        raise ValueError("a link's name that ends outside of its record")
    return body[at + 1 : end].decode(), body[end:]
