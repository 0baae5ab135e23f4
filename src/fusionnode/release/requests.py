"""Requests of subscribers, from bytes that anybody may have sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack

from fusionnode.core import schema

_UNSIGNED_64 = 1 << 64
_LONGEST_EPOCH = 128
KINDS = (
    schema.TYPE_SNAPSHOT_REQUEST,
    schema.TYPE_HELLO_REQUEST,
    schema.TYPE_HISTORY_REQUEST,
    schema.TYPE_PACED_REQUEST,
    schema.TYPE_PACED_ACK,
    schema.TYPE_CUE_REQUEST,
)
"""What a release group answers; the node's own stream answers the first only."""


@dataclass(frozen=True)
class Request:
    """One request; of a good one everything that its type needs is there and of the right type.

    Attributes:
        kind: its type; empty if it is not even known.
        id: comes back in the reply; None if it could not be read.
        fault: what is wrong with it, for people; None: nothing.
        fields: the map as it came.
    """

    kind: str
    id: int | None
    fault: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def read(frames: list[bytes], kinds: tuple[str, ...] = KINDS) -> Request:
    """The request in a message's frames after the route, one of ``kinds``. Never raises."""
    if len(frames) != 1:
        return Request("", None, "expected one frame")
    if len(frames[0]) > schema.MAX_REQUEST_BYTES:
        return Request("", None, f"longer than {schema.MAX_REQUEST_BYTES} bytes")
    try:
        fields = msgpack.unpackb(frames[0])
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        return Request("", None, "not msgpack")
    if not isinstance(fields, dict):
        return Request("", None, "not a map")
    request_id = fields.get("id")
    kind = fields.get("type")
    if not isinstance(kind, str):
        kind = ""
    if not _is_uint(request_id):
        return Request("", None, "expected an id: an unsigned integer")
    if kind not in kinds:
        return Request("", request_id, schema.ERROR_UNKNOWN_REQUEST)
    if fields.get("v") != schema.SCHEMA_VERSION:
        return Request("", request_id, f"schema version {schema.SCHEMA_VERSION} is spoken here")
    return Request(kind, request_id, _fault(kind, fields), fields)


def _fault(kind: str, fields: dict[str, Any]) -> str | None:
    if kind == schema.TYPE_HELLO_REQUEST:
        versions = fields.get("versions")
        if not isinstance(versions, list):
            return "versions: expected a list"
    elif kind == schema.TYPE_HISTORY_REQUEST:
        if not _is_epoch(fields.get("streamEpoch")):
            return "streamEpoch: expected text"
        if not _is_uint(fields.get("from")) or fields["from"] < 1:
            return "from: expected a whole number from 1"
        if not (fields.get("to") is None or _is_uint(fields["to"])):
            return "to: expected an unsigned integer or nil"
    elif kind == schema.TYPE_PACED_REQUEST:
        rate = fields.get("bytesPerS")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < _UNSIGNED_64:
            return "bytesPerS: expected a number above 0"
        if not isinstance(fields.get("compact", False), bool):
            return "compact: expected true or false"
        resume = fields.get("resume")
        if resume is not None and not (
            isinstance(resume, dict) and _is_epoch(resume.get("streamEpoch")) and _is_uint(resume.get("seq"))
        ):
            return "resume: expected nil, or streamEpoch and seq"
    elif kind == schema.TYPE_PACED_ACK and not _is_uint(fields.get("n")):
        return "n: expected an unsigned integer"
    return None


def _is_uint(value: object) -> bool:
    return type(value) is int and 0 <= value < _UNSIGNED_64


def _is_epoch(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_EPOCH
