"""What another node's release group sends, to foreign states: pure, strict, and nothing raises.

A link record holds msgpack maps one after the other: the messages of the live stream, or a snapshot, which is its
reply's head and the messages that the head speaks of (see docs/WIRE.md). Whatever is not such a message is counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from fusionnode.core import schema
from fusionnode.core.foreign import Foreign, ForeignAlive, ForeignEnd, ForeignState, ForeignWhole
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.timescales import tai_ns_from_utc_text

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_MAX_TEXT = 256
_MAX_NAMES = 64
_ROWS, _COLUMNS = np.tril_indices(6)
_KM, _KM2 = 1e3, 1e6


class _Bad(Exception):  # noqa: N818 - an outcome, not a fault of ours
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


class NodeStreamDecoder:
    """Counts each message under the link as `Outcome.FRAME_ACCEPTED` or what was wrong with it.

    Args:
        link_id: source of the counts.
        outcomes: where to count.
    """

    def __init__(self, link_id: str, outcomes: Outcomes) -> None:
        self._link_id = link_id
        self._outcomes = outcomes

    def decode(self, chunks: Sequence[tuple[int, bytes]]) -> list[Foreign]:
        """What is in ``chunks`` of (t_rx_ns, bytes), in order."""
        out: list[Foreign] = []
        for _, data in chunks:
            self._record(data, out)
        return out

    def _record(self, data: bytes, out: list[Foreign]) -> None:
        unpacker = msgpack.Unpacker(
            max_buffer_size=max(len(data), 1), max_str_len=4096, max_bin_len=4096, max_array_len=4096,
            max_map_len=4096, object_pairs_hook=_without_duplicates, strict_map_key=True,
        )  # fmt: skip
        unpacker.feed(data)
        head: dict[str, Any] | None = None
        present: list[str] = []
        count, first, end = 0, True, 0
        while end < len(data):
            try:
                item = unpacker.unpack()
            except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
                # From here on nothing can be told apart.
                self._count(Outcome.FRAME_MALFORMED)
                return
            end = unpacker.tell()
            try:
                if first and type(item) is dict and item.get("type") == schema.TYPE_SNAPSHOT:
                    head = _snapshot_head(item)
                    self._count(Outcome.FRAME_ACCEPTED)
                    continue
                message = _message(item)
            except _Bad as bad:
                self._count(bad.outcome)
                continue
            finally:
                first = False
            self._count(Outcome.FRAME_ACCEPTED)
            count += 1
            if message is not None:
                out.append(message)
                if isinstance(message, ForeignState):
                    present.append(message.track_id)
        if head is not None and count == head["count"]:
            out.append(ForeignWhole(head["streamEpoch"], head["seq"], tuple(present)))

    def _count(self, outcome: Outcome) -> None:
        self._outcomes.add(self._link_id, outcome)


def _without_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is there twice")
    return fields


def _snapshot_head(item: dict[str, Any]) -> dict[str, Any]:
    _version(item)
    if not (_is_id(item.get("streamEpoch")) and _is_count(item.get("seq")) and _is_count(item.get("count"))):
        raise _Bad(Outcome.FRAME_BAD_FIELD)
    return item


def _version(item: Any) -> None:
    if type(item) is not dict or type(item.get("v")) is not int:
        raise _Bad(Outcome.FRAME_MALFORMED)
    if item["v"] != schema.SCHEMA_VERSION:
        raise _Bad(Outcome.FRAME_BAD_VERSION)


def _message(item: Any) -> Foreign | None:
    """One message; None: of a type that says nothing of tracks."""
    _version(item)
    kind, epoch, seq = item.get("type"), item.get("streamEpoch"), item.get("seq")
    if not (_is_id(kind) and _is_id(epoch) and _is_count(seq)):
        raise _Bad(Outcome.FRAME_MALFORMED)
    if kind == schema.TYPE_STATE:
        return _state(item, epoch, seq)
    if kind == schema.TYPE_TOMBSTONE:
        if not _is_id(item.get("trackId")):
            raise _Bad(Outcome.FRAME_BAD_FIELD)
        return ForeignEnd(item["trackId"], epoch, seq)
    if kind == schema.TYPE_HEARTBEAT:
        if not _is_id(item.get("nodeId")):
            raise _Bad(Outcome.FRAME_BAD_FIELD)
        return ForeignAlive(epoch, item["nodeId"])
    if kind in schema.TOPICS:
        return None
    raise _Bad(Outcome.FRAME_UNKNOWN_TYPE)


def _state(item: dict[str, Any], epoch: str, seq: int) -> ForeignState:
    """A state message, with every number in it checked."""
    x = [item.get(name) for name in ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")]
    cov = item.get("cov")
    status, sat_no = item.get("status"), item.get("satNo")
    updates, existence = item.get("updates"), item.get("existence")
    if not (
        _is_id(item.get("trackId"))
        and all(map(_is_number, x))
        and type(cov) is list
        and len(cov) == 21
        and all(map(_is_number, cov))
        and item.get("referenceFrame") == "GCRF"
        and item.get("covReferenceFrame") == "GCRF"
        and status in schema.STATUSES
        and (sat_no is None or (_is_count(sat_no) and sat_no < 1 << 40))
        and (updates is None or (_is_count(updates) and updates < 1 << 32))
        and (existence is None or (_is_number(existence) and 0.0 <= existence <= 1.0))
        and _is_id(item.get("classificationMarking"))
        and _is_id(item.get("dataMode"))
    ):
        raise _Bad(Outcome.FRAME_BAD_FIELD)
    epoch_ns = _time(item.get("epoch"))
    last_ob = item.get("lastObEnd")
    P = np.zeros((6, 6))
    P[_ROWS, _COLUMNS] = np.array(cov) * _KM2
    P[_COLUMNS, _ROWS] = P[_ROWS, _COLUMNS]
    return ForeignState(
        track_id=item["trackId"],
        stream_epoch=epoch,
        seq=seq,
        epoch_ns=epoch_ns,
        last_ob_ns=epoch_ns if last_ob is None else _time(last_ob),
        status=schema.STATUSES.index(status),
        x=np.array(x, np.float64) * _KM,
        P=P,
        sat_no=sat_no,
        updates=updates or 0,
        existence=math.nan if existence is None else existence,
        provenance=_names(item.get("provenance")),
        releasable_to=_names(item.get("releasableTo")),
        marking=item["classificationMarking"],
        data_mode=item["dataMode"],
    )


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if type(value) is not list or len(value) > _MAX_NAMES or not all(map(_is_id, value)):
        raise _Bad(Outcome.FRAME_BAD_FIELD)
    return tuple(sorted(dict.fromkeys(value)))


def _time(value: Any) -> int:
    if type(value) is not str or not _TIME.fullmatch(value):
        raise _Bad(Outcome.FRAME_BAD_FIELD)
    try:
        return tai_ns_from_utc_text(value)
    except (ValueError, OverflowError):
        raise _Bad(Outcome.FRAME_BAD_FIELD) from None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_id(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= _MAX_TEXT and value.isprintable()
