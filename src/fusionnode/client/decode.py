"""Bytes from the network to checked messages: any bytes give a message or `Refused`, nothing else.

A message is taken only if every field that the schema names is there, of its type, finite and of sane length.
Fields that the schema does not name are left out: a newer node may send them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any, Final, NamedTuple

import msgpack

from fusionnode.core import compact, schema

TOO_LARGE: Final = "too_large"
MALFORMED: Final = "malformed"
UNSIGNED: Final = "unsigned"
FORGED: Final = "forged"
OTHER_VERSION: Final = "other_version"


class Refused(Exception):  # noqa: N818 - an outcome that is counted, not a fault of ours
    """A message that is not used; the text is the name of the counter."""


class Message(NamedTuple):
    """A checked message. ``type`` may be one that this version does not know; then ``body`` is empty."""

    type: str
    stream_epoch: str
    seq: int
    body: dict[str, Any]


Verify = Callable[[bytes], None]
"""Given a payload; raises `Refused` if it is not signed as it should be."""


def live(topic: bytes, payload: bytes, verify: Verify | None = None) -> Message:
    """One message of the live stream.

    Raises:
        Refused: it is too large, malformed, of another schema version, not what its topic says, or not signed.
    """
    item = _unpacked(payload)
    message = _checked(item)
    _verify(verify, item, payload)
    prefix = schema.TOPICS.get(message.type)
    if prefix is not None and topic != prefix + _topic_tail(message):
        raise Refused(MALFORMED)
    return message


def snapshot_part(part: bytes, verify: Verify | None = None) -> Iterator[Message]:
    """The messages joined in one part of a snapshot or a history.

    Raises:
        Refused: as for `live`, while iterating.
    """
    if len(part) > schema.MAX_MESSAGE_BYTES:
        raise Refused(TOO_LARGE)
    for item, payload in _apart(part):
        message = _checked(item)
        _verify(verify, item, payload)
        yield message


def mixed(content: bytes, stream_epoch: str, verify: Verify | None = None) -> Iterator[Message | Refused]:
    """The payloads and compact records joined in a paced message; in place of one that is wrong, why.

    Raises:
        Refused: they cannot be told apart, while iterating.
    """
    for item, payload in _apart(content):
        try:
            if type(item) is list:
                if verify is not None:
                    raise Refused(UNSIGNED)
                yield _checked(_expanded(item, stream_epoch))
                continue
            message = _checked(item)
            _verify(verify, item, payload)
            yield message
        except Refused as refused:
            yield refused


def paced_content(z: bytes) -> bytes:
    """What is in a paced message, unpacked.

    Raises:
        Refused: it is not zlib, or longer than it may be.
    """
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(z, schema.MAX_HISTORY_REPLY_BYTES)
    except zlib.error:
        raise Refused(MALFORMED) from None
    if unpacking.unconsumed_tail:
        raise Refused(TOO_LARGE)
    if not unpacking.eof or unpacking.unused_data:
        raise Refused(MALFORMED)
    return content


class Reply(NamedTuple):
    """The first frame of a reply; ``fields`` holds what the schema names for its type."""

    type: str
    id: int | None
    fields: dict[str, Any]


def reply(head: bytes) -> Reply:
    """The first frame of any reply to a request.

    Raises:
        Refused: it is too large, malformed, of another schema version, or of an unknown type.
    """
    item = _unpacked(head)
    _check_version(item)
    kind, request_id = item.get("type"), item.get("id")
    fields = _REPLIES.get(kind) if type(kind) is str else None
    if fields is None:
        raise Refused(MALFORMED)
    if not (_is_count(request_id) or (request_id is None and kind == schema.TYPE_ERROR)):
        raise Refused(MALFORMED)
    body = {name: item.get(name) for name in fields}
    if not all(check(body[name]) for name, check in fields.items()):
        raise Refused(MALFORMED)
    return Reply(kind, request_id, body)


def _verify(verify: Verify | None, item: dict[str, Any], payload: bytes) -> None:
    if verify is None:
        return
    if next(reversed(item)) != schema.SIGNATURE_KEY:
        raise Refused(UNSIGNED)
    verify(payload)


def _expanded(record: list[Any], stream_epoch: str) -> dict[str, Any]:
    try:
        return compact.decode(record, stream_epoch)
    except (ValueError, OverflowError):
        raise Refused(MALFORMED) from None


def _apart(joined: bytes) -> Iterator[tuple[Any, bytes]]:
    """Each item of a row of msgpack, and its bytes."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(joined), 1), object_pairs_hook=_without_duplicates)
    unpacker.feed(joined)
    end = 0
    try:
        for item in unpacker:
            begin, end = end, unpacker.tell()
            yield item, joined[begin:end]
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        raise Refused(MALFORMED) from None
    if end != len(joined):
        raise Refused(MALFORMED)


def topic_of(message: Message) -> bytes:
    """The topic under which a message of a known type goes over the live stream."""
    return schema.TOPICS[message.type] + _topic_tail(message)


def _topic_tail(message: Message) -> bytes:
    tail: str = message.body.get("trackId") or message.body.get("sensor") or ""
    if message.type == schema.TYPE_EVENT:
        tail = f"{message.body['event']}.{tail}"
    return tail.encode()


def _unpacked(payload: bytes) -> Any:
    if len(payload) > schema.MAX_MESSAGE_BYTES:
        raise Refused(TOO_LARGE)
    try:
        return msgpack.unpackb(payload, object_pairs_hook=_without_duplicates)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        raise Refused(MALFORMED) from None


def _without_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is there twice")
    return fields


def _check_version(item: Any) -> None:
    if type(item) is not dict or type(item.get("v")) is not int:
        raise Refused(MALFORMED)
    if item["v"] != schema.SCHEMA_VERSION:
        raise Refused(OTHER_VERSION)


def _checked(item: Any) -> Message:
    _check_version(item)
    kind, epoch, seq = item.get("type"), item.get("streamEpoch"), item.get("seq")
    if not (_is_id(kind) and _is_id(epoch) and _is_count(seq)):
        raise Refused(MALFORMED)
    fields = _FIELDS.get(kind)
    if fields is None:
        return Message(kind, epoch, seq, {})
    body = {}
    for name, check in fields.items():
        if name in item:
            value = body[name] = item[name]
            if not check(value):
                raise Refused(MALFORMED)
        elif kind == schema.TYPE_STATE and name in _WITHHELD:
            body[name] = [] if name == "sensors" else item.get("trackId") if name == "idOnOrbit" else None
        else:
            raise Refused(MALFORMED)
    for name in _OF_GROUPS:
        if name in item:
            if not _is_names(item[name]):
                raise Refused(MALFORMED)
            if name != "provenance" or kind == schema.TYPE_STATE:
                body[name] = item[name]
    if kind == schema.TYPE_SENSOR:
        extra = {name: value for name, value in item.items() if name not in _UNTOLD}
        if not _is_plain(extra, depth=4):
            raise Refused(MALFORMED)
        body = extra
    elif kind == schema.TYPE_HEARTBEAT:
        details = {name: item[name] for name in schema.HEARTBEAT_DETAILS if name in item}
        if not _is_plain(details, depth=4):
            raise Refused(MALFORMED)
        body |= {"details": details}
    return Message(kind, epoch, seq, body)


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_MAX_TEXT = 256
_MAX_ITEMS = 256

Check = Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_number(value: Any) -> bool:
    return type(value) is float and isfinite(value)


def _is_text(value: Any) -> bool:
    # Only printable: what a node sends is shown on terminals.
    return type(value) is str and len(value) <= _MAX_TEXT and value.isprintable()


def _is_id(value: Any) -> bool:
    return _is_text(value) and value != ""


def _is_time(value: Any) -> bool:
    return type(value) is str and _TIME.fullmatch(value) is not None


def _is_covariance(value: Any) -> bool:
    return type(value) is list and len(value) == 21 and all(map(_is_number, value))


def _is_vector(value: Any) -> bool:
    return type(value) is list and len(value) == 3 and all(map(_is_number, value))


def _is_names(value: Any) -> bool:
    return type(value) is list and len(value) <= _MAX_ITEMS and all(map(_is_id, value))


def _is_numbers(value: Any) -> bool:
    return type(value) is list and len(value) <= _MAX_ITEMS and all(map(_is_count, value))


def _is_bytes(value: Any) -> bool:
    return type(value) is bytes


def _is_counts(value: Any) -> bool:
    return type(value) is dict and len(value) <= _MAX_ITEMS and all(map(_is_count, value.values()))


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_status(value: Any) -> bool:
    return value in schema.STATUSES


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_plain(value: Any, depth: int) -> bool:
    """Null, boolean, finite number, text, or lists and maps of them."""
    if value is None or type(value) in (bool, int):
        return True
    if type(value) is dict:
        items = [*value.keys(), *value.values()]
    elif type(value) is list:
        items = value
    else:
        return _is_text(value) or _is_number(value)
    return depth > 0 and len(items) <= 2 * _MAX_ITEMS and all(_is_plain(item, depth - 1) for item in items)


_MARKINGS: dict[str, Check] = {"classificationMarking": _is_text, "dataMode": _is_text, "source": _is_text}
_WITHHELD: Final = frozenset(
    {
        *("uct", "satNo", "idOnOrbit", "name", "objectProbability", "sensors"),
        *("lastObEnd", "nis", "dof", "updates", "existence"),
    }
)
"""Fields of a state that a group's policy may withhold, or that were added within the version."""
_OF_GROUPS: Final = ("provenance", "releasableTo")
"""What only messages of release groups have."""
_UNTOLD: Final = frozenset({*schema.Envelope.__annotations__, schema.SIGNATURE_KEY})
_FIELDS: dict[str, dict[str, Check]] = {
    schema.TYPE_STATE: {
        "trackId": _is_id,
        "epoch": _is_time,
        "referenceFrame": _is_id,
        **dict.fromkeys(("xpos", "ypos", "zpos", "xvel", "yvel", "zvel"), _is_number),
        "cov": _is_covariance,
        "covReferenceFrame": _is_id,
        "status": _is_status,
        "uct": _is_bool,
        "satNo": _or_none(_is_count),
        "idOnOrbit": _is_id,
        "name": _or_none(_is_text),
        "objectProbability": _or_none(_is_number),
        "sensors": _is_names,
        "lastObEnd": _is_time,
        "nis": _or_none(_is_number),
        "dof": _or_none(_is_count),
        "updates": _is_count,
        "existence": _or_none(_is_number),
        **_MARKINGS,
    },
    schema.TYPE_TOMBSTONE: {
        "trackId": _is_id,
        "epoch": _is_time,
        "reason": _is_id,
        "successor": _or_none(_is_id),
        **_MARKINGS,
    },
    schema.TYPE_EVENT: {
        "trackId": _is_id,
        "event": _is_id,
        "time": _is_time,
        **dict.fromkeys(("epoch", "epochFrom", "epochTo"), _or_none(_is_time)),
        "relatedTrackId": _or_none(_is_id),
        "count": _or_none(_is_count),
        "deltaV": _or_none(_is_vector),
        **dict.fromkeys(
            ("deltaVSigma", "distance", "distanceSigma", "relativeSpeed", "height", "perigeeHeight"),
            _or_none(_is_number),
        ),
        "nis": _or_none(_is_number),
        "dof": _or_none(_is_number),
        "sensors": _is_names,
        "satNo": _or_none(_is_count),
        "name": _or_none(_is_text),
        **_MARKINGS,
    },
    schema.TYPE_SENSOR: {"sensor": _is_id, "time": _is_time, **_MARKINGS},
    schema.TYPE_HEARTBEAT: {
        "nodeId": _is_id,
        "time": _is_time,
        "tracks": _is_count,
        "messages": _is_counts,
        **_MARKINGS,
    },
}
_POSITION: dict[str, Check] = {"streamEpoch": _is_id, "seq": _is_count}
_REPLIES: dict[str, dict[str, Check]] = {
    schema.TYPE_ERROR: {"reason": _is_text},
    schema.TYPE_SNAPSHOT: {**_POSITION, "count": _is_count},
    schema.TYPE_HELLO: {
        "versions": _is_numbers,
        "version": _or_none(_is_count),
        "group": _or_none(_is_text),
        "nodeId": _or_none(_is_text),
        "features": _is_names,
        "paced": _or_none(_is_bool),
        "maxBytesPerS": _or_none(_is_count),
        "signingKey": _or_none(_is_text),
    },
    schema.TYPE_HISTORY: {
        "streamEpoch": _is_id,
        **dict.fromkeys(("from", "to", "count"), _is_count),
        "next": _or_none(_is_count),
        "nextEpoch": _or_none(_is_id),
    },
    schema.TYPE_PACED: {
        **_POSITION,
        "n": _is_count,
        "sentNs": _is_count,
        "base": _or_none(_is_count),
        "whole": _is_bool,
        "rttS": _or_none(_is_number),
        "z": _is_bytes,
    },
    schema.TYPE_CUE_REPLY: {
        "state": _is_id,
        "reason": _or_none(_is_text),
        "sensor": _or_none(_is_text),
        "time": _or_none(_is_text),
    },
}
