"""The codec "auto": each chunk is one whole message (ZeroMQ), and its first byte says what it holds.

0x00: frames of the sensor interface. A msgpack map: one document. Anything else is malformed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from fusionnode.codec.messages import FramesDecoder
from fusionnode.codec.sensor_msgpack import SensorMsgpackDecoder, is_map, joined
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import Decoded, no_detections

Chunk = tuple[int, bytes]


class AutoDecoder:
    """Sorts messages by their first byte and keeps the order of arrival."""

    def __init__(self, link_id: str, outcomes: Outcomes) -> None:
        self._link_id = link_id
        self._outcomes = outcomes
        self._frames = FramesDecoder(link_id, outcomes)
        self._msgpack = SensorMsgpackDecoder(link_id, outcomes)

    def decode(self, chunks: Sequence[Chunk]) -> Decoded:
        """Detections and reports of whole messages, given as (t_rx_ns, bytes)."""
        parts = [self._decode_run(form, list(run)) for form, run in groupby(chunks, _form)]
        reports = [report for part in parts for report in part.reports]
        return Decoded(joined([part.detections for part in parts]), reports)

    def finish(self) -> Decoded:
        """Nothing is ever waiting: a message is whole."""
        return self._frames.finish()

    def _decode_run(self, form: str, run: list[Chunk]) -> Decoded:
        if form == "frames":
            return self._frames.decode([(t, _closed(data)) for t, data in run])
        if form == "msgpack":
            return self._msgpack.decode(run)
        self._outcomes.add(self._link_id, Outcome.FRAME_MALFORMED, len(run))
        return Decoded(no_detections(), [])


def _form(chunk: Chunk) -> str:
    data = chunk[1]
    if data[:1] == b"\0":
        return "frames"
    return "msgpack" if is_map(data) else "other"


def _closed(data: bytes) -> bytes:
    """With a delimiter at its end: a frame cut short is counted, and never runs into the next message."""
    return data if data.endswith(b"\0") else data + b"\0"
