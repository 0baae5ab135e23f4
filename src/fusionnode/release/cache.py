"""What a stream adds up to: the newest message of each track and sensor, as encoded bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgpack

from fusionnode.core import schema

_EVENT_TOPICS = [schema.TOPIC_EVENT + f"{kind}.".encode() for kind in schema.EVENTS]
_ENVELOPE_BYTES = 384  # the first four keys with the longest stream epoch there is


class Cache:
    """The newest payload of each track and sensor, of each kind of event of a track, and of the stream as a whole."""

    def __init__(self) -> None:
        self.newest: dict[bytes, bytes] = {}
        """By topic; ended tracks are not in it."""
        self.last: bytes | None = None
        """The newest payload of any topic: it holds the stream's epoch and sequence number."""
        self.beat: bytes | None = None
        """The newest heartbeat."""

    def apply(self, topic: bytes, payload: bytes) -> None:
        """Take in one message of the stream."""
        self.last = payload
        if topic.startswith((schema.TOPIC_STATE, schema.TOPIC_SENSOR)):
            self.newest[topic] = payload
        elif topic.startswith(schema.TOPIC_EVENT):
            track = topic[len(schema.TOPIC_EVENT) :].partition(b".")[2]
            if schema.TOPIC_STATE + track in self.newest:  # one that has ended takes nothing along any more
                self.newest[topic] = payload
        elif topic.startswith(schema.TOPIC_TOMBSTONE):
            track = topic[len(schema.TOPIC_TOMBSTONE) :]
            self.newest.pop(schema.TOPIC_STATE + track, None)
            for kind in _EVENT_TOPICS:
                self.newest.pop(kind + track, None)
        elif topic == schema.TOPIC_HEARTBEAT:
            self.beat = payload

    def snapshot(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """Header fields and the payloads joined to parts of bounded length; None before the first message."""
        if self.last is None:
            return None
        epoch, seq = envelope(self.last)
        header = {"streamEpoch": epoch, "seq": seq, "count": len(self.newest)}
        return header, list(joined(self.newest.values()))


def envelope(payload: bytes) -> tuple[str, int]:
    """Stream epoch and sequence number of an encoded message, which are among its first four keys.

    Raises:
        ValueError: not the payload of a message.
    """
    unpacker = msgpack.Unpacker()
    unpacker.feed(payload[:_ENVELOPE_BYTES])
    found: dict[str, Any] = {}
    try:
        for _ in range(min(4, unpacker.read_map_header())):
            key = unpacker.unpack()
            found[key] = unpacker.unpack()
        return str(found["streamEpoch"]), int(found["seq"])
    except (msgpack.UnpackException, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not the payload of a message: {error!r}") from None


def joined(payloads: Iterable[bytes], most: int = schema.MAX_MESSAGE_BYTES) -> Iterator[bytes]:
    """Payloads one after the other, in parts of at most ``most`` bytes."""
    part: list[bytes] = []
    size = 0
    for payload in payloads:
        if size + len(payload) > most and part:
            yield b"".join(part)
            part, size = [], 0
        part.append(payload)
        size += len(payload)
    if part:
        yield b"".join(part)
