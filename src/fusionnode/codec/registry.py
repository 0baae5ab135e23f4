"""Codecs by the names that configurations use. A new format is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Protocol

from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import Decoded


class Decoder(Protocol):
    """What turns the bytes of one link into detections and reports; no I/O, no exceptions."""

    def decode(self, chunks: Sequence[tuple[int, bytes]]) -> Decoded:
        """Everything that ends in ``chunks`` of (t_rx_ns, bytes), in order of arrival."""

    def finish(self) -> Decoded:
        """No more will come: what was still waiting for its end."""


# Imported when first asked for: a station that reads frames need not load a format it never meets.
_CODECS = {
    "frames": ("fusionnode.codec.messages", "FramesDecoder"),
    "auto": ("fusionnode.codec.auto", "AutoDecoder"),
    "sensor_msgpack": ("fusionnode.codec.sensor_msgpack", "SensorMsgpackDecoder"),
    "b3": ("fusionnode.codec.b3", "B3Decoder"),
    "tdm": ("fusionnode.codec.tdm", "TdmDecoder"),
    "iod": ("fusionnode.codec.iod", "IodDecoder"),
}

NAMES = tuple(_CODECS)
_NAMING = frozenset({"tdm"})
"""Formats that call sensors by name."""


def make(name: str, link_id: str, outcomes: Outcomes, sensor_ids: Mapping[str, int] | None = None) -> Decoder:
    """A new decoder for the link ``link_id``, counting into ``outcomes``.

    ``sensor_ids``: numbers of sensors by name, for formats that name them.

    Raises:
        ValueError: no codec has this name; the text lists those there are.
    """
    if name not in _CODECS:
        raise ValueError(f"unknown codec {name!r}: expected one of {', '.join(NAMES)}")
    module, cls = _CODECS[name]
    decoder: Callable[..., Decoder] = getattr(import_module(module), cls)
    return decoder(link_id, outcomes, sensor_ids) if name in _NAMING else decoder(link_id, outcomes)
