"""From the picture to the subscribers' bytes: msgpack messages for the stream, JSON lines for files.

Both forms are made from one dict, so they cannot differ in a value. This is the only module in which km and
km/s appear. The schema is written down in docs/WIRE.md. Everything here is a function of the arguments and of
the messages encoded before, so a replay gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
import orjson

from fusionnode.core import schema, timescales
from fusionnode.core.schema import ObjectState
from fusionnode.core.types import KnownObject, ObjectEvent, StructArray, Tombstone

Message = tuple[bytes, bytes]
"""Topic and payload."""

_FRAME = "GCRF"
_LOWER_ROWS, _LOWER_COLUMNS = np.tril_indices(6)  # numpy walks the triangle row by row, as the wire wants it
_M_PER_KM = 1_000.0
_M2_PER_KM2 = 1_000_000.0  # m^2, m^2/s and m^2/s^2 alike: a second stays a second
_MAX_NAME = 64
_MOST_MASKS = 4_096  # sets of sensors whose names are remembered
_FEW = 16  # below it, one time after the other is faster than all at once


class StreamEncoder:
    """One stream's encoder; owns the stream's sequence numbers.

    Args:
        node_id: prefix of every track id.
        stream_epoch: id of this run's stream; sequence numbers start at 1 in each.
        sensor_names: name of the sensor with index i.
        known_object: catalogue row (``TRACK_STATE.object``) to what it is called; None where unknown.
        classification_marking, data_mode, source: markings on every message.
        contributed: further fields, and stronger markings, of a state by the bits of those who contributed.
    """

    def __init__(
        self,
        *,
        node_id: str,
        stream_epoch: str,
        sensor_names: Sequence[str],
        known_object: Callable[[int], KnownObject | None] = lambda _row: None,
        classification_marking: str = "U",
        data_mode: str = "TEST",
        source: str = "fusionnode",
        contributed: Callable[[int], Mapping[str, Any]] | None = None,
    ) -> None:
        self._contributed = contributed
        self._node_id = node_id
        self._stream_epoch = stream_epoch
        self._sensor_names = tuple(sensor_names)
        self._known_object = known_object
        self._marking = classification_marking
        self._mode = data_mode
        self._source = source
        self._names_by_mask: dict[int, list[str]] = {}
        self._sent = dict.fromkeys(schema.TOPICS, 0)
        self._pack = msgpack.Packer(autoreset=True).pack
        self.seq = 0
        """Sequence number of the newest message."""
        self.not_finite = 0
        """States refused because a number in them was NaN or infinite."""

    def track_id(self, track: int) -> str:
        """The track's name on the wire, e.g. ``node-000123``."""
        return f"{self._node_id}-{track:06d}"

    def states(self, states: StructArray) -> list[Message]:
        """One message for each row of TRACK_STATE[n] (SI, TAI ns, GCRF), in order.

        A row with a NaN or infinity in x or P is left out and counted in ``not_finite``.
        """
        return [
            self._message(schema.TYPE_STATE, schema.TOPIC_STATE + body["trackId"].encode(), body)
            for body in self._bodies(states)
        ]

    def json_lines(self, states: StructArray) -> bytes:
        """The same states as lines of JSON, each ended by a newline, without the stream's envelope.

        Takes no sequence numbers. Rows are left out as by `states`.
        """
        return b"".join([orjson.dumps(body) + b"\n" for body in self._bodies(states)])

    def tombstones(self, tombstones: Iterable[Tombstone]) -> list[Message]:
        """One message for each ended track, in order."""
        messages = []
        for tombstone in tombstones:
            track_id = self.track_id(tombstone.track)
            successor = tombstone.successor
            body = {
                "trackId": track_id,
                "epoch": timescales.utc_text(tombstone.t_ns),
                "reason": tombstone.reason,
                "successor": None if successor is None else self.track_id(successor),
            }
            topic = schema.TOPIC_TOMBSTONE + track_id.encode()
            messages.append(self._message(schema.TYPE_TOMBSTONE, topic, body | self._markings()))
        return messages

    def events(self, events: Iterable[ObjectEvent]) -> list[Message]:
        """One message for each event, in order."""
        messages = []
        for event in events:
            body = self._event_body(event)
            topic = schema.TOPIC_EVENT + f"{event.kind}.{body['trackId']}".encode()
            messages.append(self._message(schema.TYPE_EVENT, topic, body))
        return messages

    def event_line(self, event: ObjectEvent) -> bytes:
        """The same as a line of JSON, begun with ``"type":"event"``, ended by a newline, without the envelope."""
        return orjson.dumps({"type": schema.TYPE_EVENT, **self._event_body(event)}) + b"\n"

    def event_fields(self, event: ObjectEvent) -> dict[str, Any]:
        """What of an event is worth a line in the node's log: as on the wire, without what is not known.

        Its ``event`` and ``time`` are ``kind`` and ``toldAt`` here: a line of the log has its own.
        """
        body = self._event_body(event)
        unsaid = self._markings()
        names = {"event": "kind", "time": "toldAt"}
        return {names.get(k, k): v for k, v in body.items() if v is not None and k not in unsaid}

    def _event_body(self, event: ObjectEvent) -> dict[str, Any]:
        return (
            event_body(
                event,
                self.track_id(event.track),
                None if event.related is None else self.track_id(event.related),
                self._known_object(event.object) if event.object >= 0 else None,
                self._names_by_mask.get(event.sensors) or self._names_of(event.sensors),
            )
            | self._markings()
        )

    def sensors(self, t_ns: int, states: Mapping[str, Mapping[str, Any]]) -> list[Message]:
        """One message for each sensor: its name, then the given fields, in the order given.

        Args:
            t_ns: TAI ns the fields are valid for.
            states: sensor name to fields; numbers, texts, booleans, None, and maps and lists of them. A NaN
                or infinity goes out as null.
        """
        time = timescales.utc_text(t_ns)
        messages = []
        for name, fields in states.items():
            body = {"sensor": name, "time": time} | _without_nan(fields) | self._markings()
            messages.append(self._message(schema.TYPE_SENSOR, schema.TOPIC_SENSOR + name.encode(), body))
        return messages

    def heartbeat(self, t_ns: int, tracks: int, details: Mapping[str, Any] | None = None) -> Message:
        """The node's time (TAI ns), how many tracks it publishes, how many messages it has sent, further ``details``.

        The counts include this heartbeat: a subscriber who filters by topic finds its gaps with them.
        """
        sent = dict(self._sent)
        sent[schema.TYPE_HEARTBEAT] += 1
        if not sent[schema.TYPE_EVENT]:
            del sent[schema.TYPE_EVENT]
        body = {
            "nodeId": self._node_id,
            "time": timescales.utc_text(t_ns),
            "tracks": int(tracks),
            "messages": sent,
            **(_without_nan(details) if details else {}),
        }
        return self._message(schema.TYPE_HEARTBEAT, schema.TOPIC_HEARTBEAT, body | self._markings())

    def _markings(self) -> dict[str, str]:
        return {"classificationMarking": self._marking, "dataMode": self._mode, "source": self._source}

    def _message(self, kind: str, topic: bytes, body: Mapping[str, Any]) -> Message:
        self.seq += 1
        self._sent[kind] += 1
        envelope = {
            "v": schema.SCHEMA_VERSION,
            "type": kind,
            "streamEpoch": self._stream_epoch,
            "seq": self.seq,
        }
        return topic, self._pack({**envelope, **body})

    def _bodies(self, states: StructArray) -> Iterator[ObjectState]:
        """One dict for each finite row; all arithmetic is done on the whole array at once."""
        finite = finite_rows(states["x"], states["P"])
        if not finite.all():
            self.not_finite += int(np.count_nonzero(~finite))
            states = states[finite]
        markings = self._markings()
        for track, row, mask, column in zip(
            states["track"].tolist(),
            states["object"].tolist(),
            states["sensors"].tolist(),
            state_columns(states, states["x"], states["P"]),
            strict=True,
        ):
            known = self._known_object(row) if row >= 0 else None
            names = self._names_by_mask.get(mask) or self._names_of(mask)
            body = state_body(self.track_id(track), column, known, names)
            body.update(markings)
            if self._contributed is not None:
                body.update(self._contributed(mask))
            yield body  # type: ignore[misc]

    def _names_of(self, mask: int) -> list[str]:
        names = [name for i, name in enumerate(self._sensor_names) if mask >> i & 1]
        if len(self._names_by_mask) >= _MOST_MASKS:
            self._names_by_mask.clear()
        self._names_by_mask[mask] = names
        return names


def finite_rows(x: npt.NDArray[np.float64], P: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(n,) whether all that would be written of states (n, 6) and covariances (n, 6, 6) is finite."""
    lower = P[:, _LOWER_ROWS, _LOWER_COLUMNS]
    return np.asarray(np.isfinite(x).all(axis=1) & np.isfinite(lower).all(axis=1))


def state_columns(
    states: StructArray, x: npt.NDArray[np.float64], P: npt.NDArray[np.float64]
) -> Iterator[tuple[Any, ...]]:
    """What `state_body` takes of each row of TRACK_STATE[n], with ``x`` and ``P`` (SI) in place of its own."""
    epochs = _utc_texts(states["epoch_ns"])
    fresh = bool((states["epoch_ns"] == states["last_ob_ns"]).all())
    return zip(
        epochs,
        epochs if fresh else _utc_texts(states["last_ob_ns"]),
        (x / _M_PER_KM).tolist(),
        (P[:, _LOWER_ROWS, _LOWER_COLUMNS] / _M2_PER_KM2).tolist(),
        states["status"].tolist(),
        states["object_p"].tolist(),
        states["nis"].tolist(),
        states["dof"].tolist(),
        states["updates"].tolist(),
        states["existence"].tolist(),
        strict=True,
    )


def state_body(
    track_id: str, column: tuple[Any, ...], known: KnownObject | None, names: list[str]
) -> dict[str, Any]:
    """A state's message without envelope and markings, from one of `state_columns`."""
    epoch, last_ob, pv, lower, status, probability, nis, dof, updates, existence = column
    scored = dof > 0 and math.isfinite(nis)
    return {
        "trackId": track_id,
        "epoch": epoch,
        "referenceFrame": _FRAME,
        "xpos": pv[0],
        "ypos": pv[1],
        "zpos": pv[2],
        "xvel": pv[3],
        "yvel": pv[4],
        "zvel": pv[5],
        "cov": lower,
        "covReferenceFrame": _FRAME,
        "status": schema.STATUSES[status],
        "uct": known is None,
        "satNo": None if known is None else known.sat_no,
        "idOnOrbit": track_id if known is None else known.international_designator or track_id,
        "name": None if known is None else printable(known.name),
        "objectProbability": None if known is None or math.isnan(probability) else probability,
        "sensors": names,
        "lastObEnd": last_ob,
        "nis": nis if scored else None,
        "dof": dof if scored else None,
        "updates": updates,
        "existence": existence if math.isfinite(existence) else None,
    }


def event_body(
    event: ObjectEvent, track_id: str, related_id: str | None, known: KnownObject | None, names: list[str]
) -> dict[str, Any]:
    """An event's message without envelope and markings."""
    delta_v = event.delta_v
    return {
        "trackId": track_id,
        "event": event.kind,
        "time": timescales.utc_text(event.t_ns),
        "epoch": _utc_or_none(event.epoch_ns),
        "epochFrom": _utc_or_none(event.from_ns),
        "epochTo": _utc_or_none(event.to_ns),
        "relatedTrackId": related_id,
        "count": event.count,
        "deltaV": None if delta_v is None else [v / _M_PER_KM for v in delta_v],
        "deltaVSigma": _in_km(event.delta_v_sigma_m_s),
        "distance": _in_km(event.distance_m),
        "distanceSigma": _in_km(event.distance_sigma_m),
        "relativeSpeed": _in_km(event.speed_m_s),
        "height": _in_km(event.height_m),
        "perigeeHeight": _in_km(event.perigee_m),
        "nis": event.nis,
        "dof": event.dof,
        "sensors": names,
        "satNo": None if known is None else known.sat_no,
        "name": None if known is None else printable(known.name),
    }


class StreamDigest:
    """Running SHA-256 over a stream's messages in order; live and replay use this same one.

    Each message enters as the lengths of topic and payload (little-endian uint32), topic, payload: so the
    digest does not depend on how messages were grouped, and no two streams share one by a shifted boundary.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self.messages = 0

    def update(self, messages: Sequence[Message]) -> None:
        """Take in further messages."""
        parts: list[bytes] = []
        for topic, payload in messages:
            parts += (_LENGTHS.pack(len(topic), len(payload)), topic, payload)
        self._sha.update(b"".join(parts))
        self.messages += len(messages)

    def hexdigest(self) -> str:
        """Of everything so far."""
        return self._sha.hexdigest()


_LENGTHS = struct.Struct("<II")


def _utc_texts(t_ns: npt.NDArray[np.int64]) -> list[str]:
    if len(t_ns) >= _FEW:
        return timescales.utc_texts(t_ns)
    return [timescales.utc_text(t) for t in t_ns.tolist()]


def _utc_or_none(t_ns: int | None) -> str | None:
    return None if t_ns is None else timescales.utc_text(t_ns)


def _in_km(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value / _M_PER_KM


def printable(name: str) -> str:
    """What may be shown of a name from a catalogue file: nothing in it may steer a subscriber's terminal."""
    return name[:_MAX_NAME] if name.isprintable() else "".join(filter(str.isprintable, name))[:_MAX_NAME]


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
