"""Bytes from the network to checked messages: any bytes give a message or `Refused`, nothing else.

A message is taken only if every field that the schema names is there, of its type, finite and of sane length.
Fields that the schema does not name are left out: a newer node may send them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any, Final, NamedTuple

import msgpack

from fusionnode.core import schema

TOO_LARGE: Final = "too_large"
MALFORMED: Final = "malformed"
OTHER_VERSION: Final = "other_version"


class Refused(Exception):  # noqa: N818 - an outcome that is counted, not a fault of ours
    """A message that is not used; the text is the name of the counter."""


class Message(NamedTuple):
    """A checked message. ``type`` may be one that this version does not know; then ``body`` is empty."""

    type: str
    stream_epoch: str
    seq: int
    body: dict[str, Any]


def live(topic: bytes, payload: bytes) -> Message:
    """One message of the live stream.

    Raises:
        Refused: it is too large, malformed, of another schema version, or not what its topic says.
    """
    message = _checked(_unpacked(payload))
    prefix = schema.TOPICS.get(message.type)
    if prefix is not None and topic != prefix + _topic_tail(message):
        raise Refused(MALFORMED)
    return message


def snapshot_header(payload: bytes) -> tuple[int, Message | None]:
    """Request id and header of a snapshot (its body holds ``count``); None in place of an error reply.

    Raises:
        Refused: as for `live`.
    """
    reply = _unpacked(payload)
    _check_version(reply)
    request_id = reply.get("id")
    if not _is_count(request_id) or reply.get("type") not in (schema.TYPE_SNAPSHOT, schema.TYPE_ERROR):
        raise Refused(MALFORMED)
    if reply["type"] == schema.TYPE_ERROR:
        return request_id, None
    return request_id, _checked(reply)


def snapshot_part(part: bytes) -> Iterator[Message]:
    """The messages joined in one part of a snapshot.

    Raises:
        Refused: as for `live`, while iterating.
    """
    if len(part) > schema.MAX_MESSAGE_BYTES:
        raise Refused(TOO_LARGE)
    unpacker = msgpack.Unpacker(
        max_buffer_size=schema.MAX_MESSAGE_BYTES, object_pairs_hook=_without_duplicates
    )
    unpacker.feed(part)
    end = 0
    try:
        for item in unpacker:
            end = unpacker.tell()
            yield _checked(item)
    except (ValueError, TypeError, msgpack.UnpackException):
        raise Refused(MALFORMED) from None
    if end != len(part):
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
    except (ValueError, TypeError, msgpack.UnpackException):
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
    try:
        body = {name: item.get(name) if name in _ADDED else item[name] for name in fields}
    except KeyError:
        raise Refused(MALFORMED) from None
    for name, value in body.items():
        if not fields[name](value):
            raise Refused(MALFORMED)
    if kind == schema.TYPE_SENSOR:
        extra = {name: value for name, value in item.items() if name not in schema.Envelope.__annotations__}
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
_ADDED: Final = frozenset({"existence", "objectProbability"})
"""Fields that nodes of schema version 1 did not have from the beginning: None where one does not send it."""
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
    schema.TYPE_SNAPSHOT: {"count": _is_count},
}
