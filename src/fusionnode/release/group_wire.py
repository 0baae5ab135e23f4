"""The encoder of one release group: its own sequence numbers, names of tracks, markings. See docs/WIRE.md.

What carries no markings does not go out: it is refused and counted, never raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from fusionnode.core import schema, timescales
from fusionnode.release.batch import Body, pairs
from fusionnode.release.wire import Message

SENSOR_FIELDS = ("kind", "enabled", "alive", "timeLocked", "clockState", "trust", "trustReason")
"""What a group is told of a sensor. Counts and rates would tell of detections of objects that it is not told of."""

_pack = msgpack.Packer(autoreset=True).pack
_MAP16 = 0xDE
_TRACK_ID, _ID_ON_ORBIT = _pack("trackId"), _pack("idOnOrbit")


class Markings:
    """Four markings; `packed` is None where one is missing, and then nothing goes out."""

    def __init__(
        self, classification: str, data_mode: str, source: str, releasable_to: Sequence[str]
    ) -> None:
        texts = (classification, data_mode, source, *releasable_to)
        whole = bool(releasable_to) and all(isinstance(t, str) and t.strip() for t in texts)
        fields = {
            "classificationMarking": classification,
            "dataMode": data_mode,
            "source": source,
            "releasableTo": list(releasable_to),
        }
        self.count = len(fields)
        self.packed: bytes | None = pairs(fields) if whole else None


class GroupEncoder:
    """Bodies in, messages out.

    Args:
        node_id, group, stream_epoch: as on the wire.
        markings: on every message.
    """

    def __init__(self, *, node_id: str, group: str, stream_epoch: str, markings: Markings) -> None:
        self.markings = markings
        self.seq = 0
        """Sequence number of the newest message."""
        self.unmarked = 0
        """Messages refused because a marking was missing."""
        self._node_id = node_id
        self._group = group
        self._sent = dict.fromkeys(schema.TOPICS, 0)
        self._heads = {
            kind: pairs({"v": schema.SCHEMA_VERSION, "type": kind, "streamEpoch": stream_epoch})
            + _pack("seq")
            for kind in schema.TOPICS
        }

    def state(self, track_id: str, body: Body) -> Message | None:
        """One state; None: refused."""
        packed_id = _pack(track_id)
        own = _TRACK_ID + packed_id
        if body.own_id:
            own += _ID_ON_ORBIT + packed_id
        count = body.pairs + (2 if body.own_id else 1)
        return self._message(
            schema.TYPE_STATE, schema.TOPIC_STATE + track_id.encode(), own + body.packed, count
        )

    def tombstone(self, track_id: str, t_ns: int, reason: str, successor: str | None) -> Message | None:
        """The end of a track, for this group."""
        body = {
            "trackId": track_id,
            "epoch": timescales.utc_text(t_ns),
            "reason": reason,
            "successor": successor,
        }
        return self._fields(schema.TYPE_TOMBSTONE, schema.TOPIC_TOMBSTONE + track_id.encode(), body)

    def event(self, body: Mapping[str, Any]) -> Message | None:
        """An event, as `wire.event_body` has it."""
        topic = schema.TOPIC_EVENT + f"{body['event']}.{body['trackId']}".encode()
        return self._fields(schema.TYPE_EVENT, topic, body)

    def sensor(self, t_ns: int, name: str, state: Mapping[str, Any]) -> Message | None:
        """How a sensor is, without anything that counts detections."""
        body = {"sensor": name, "time": timescales.utc_text(t_ns)}
        body |= {key: state[key] for key in SENSOR_FIELDS if key in state}
        return self._fields(schema.TYPE_SENSOR, schema.TOPIC_SENSOR + name.encode(), body)

    def heartbeat(self, t_ns: int, tracks: int, interval_s: float) -> Message | None:
        """The node's time, and how many tracks the group holds."""
        sent = dict(self._sent)
        sent[schema.TYPE_HEARTBEAT] += 1
        if not sent[schema.TYPE_EVENT]:
            del sent[schema.TYPE_EVENT]
        body = {
            "nodeId": self._node_id,
            "group": self._group,
            "time": timescales.utc_text(t_ns),
            "tracks": tracks,
            "messages": sent,
            "intervalS": interval_s,
        }
        return self._fields(schema.TYPE_HEARTBEAT, schema.TOPIC_HEARTBEAT, body)

    def _fields(self, kind: str, topic: bytes, body: Mapping[str, Any]) -> Message | None:
        return self._message(kind, topic, pairs(body), len(body))

    def _message(self, kind: str, topic: bytes, packed: bytes, count: int) -> Message | None:
        marks = self.markings.packed
        if marks is None:
            self.unmarked += 1
            return None
        self.seq += 1
        self._sent[kind] += 1
        n = count + 4 + self.markings.count
        head = bytes((0x80 | n,)) if n < 16 else bytes((_MAP16, n >> 8, n & 0xFF))
        return topic, b"".join((head, self._heads[kind], _pack(self.seq), packed, marks))
