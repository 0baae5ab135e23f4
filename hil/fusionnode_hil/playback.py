"""Sends recorded observations as frames, N times as fast as they were made, or as fast as the link takes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fusionnode.config import ConfigError
from fusionnode.core import clock
from fusionnode_hil import wire
from fusionnode_hil.links import Link, PtyLink, SerialLink, ZmqLink
from fusionnode_hil.stop import Stop
from fusionnode_hil.times import NS
from fusionnode_hil.wire_msgpack import Form, encode

BATCH = 256
"""Messages handed to the link together when nothing has to be waited for."""


def numbered(messages: Sequence[wire.Radar | wire.Optical], flags: int) -> list[wire.Radar | wire.Optical]:
    """With sequence numbers, from 0 for each sensor, in the order given."""
    next_seq: Counter[int] = Counter()
    out = []
    for message in messages:
        out.append(replace(message, seq=next_seq[message.sensor_id] & 0xFFFFFFFF, flags=flags))
        next_seq[message.sensor_id] += 1
    return out


def play(
    messages: Sequence[wire.Radar | wire.Optical],
    link: Link,
    *,
    rate: float,
    form: Form = "frames",
    stop: Stop | None = None,
) -> int:
    """Send ``messages`` (in order of time), keeping their distances in time divided by ``rate``; 0: none kept.

    Returns how many were sent; fewer than all if ``stop`` was set.
    """
    stop = stop or Stop()
    start = clock.monotonic_ns()
    sent = 0
    while sent < len(messages) and not stop.is_set():
        batch = messages[sent : sent + BATCH]
        if rate > 0:
            due_ns = round((batch[0].t_ns - messages[0].t_ns) / rate) - (clock.monotonic_ns() - start)
            if due_ns > 0 and stop.wait(due_ns / NS):
                break
            passed = messages[0].t_ns + (clock.monotonic_ns() - start) * rate
            batch = [message for message in batch if message.t_ns <= passed] or batch[:1]
        if isinstance(link, ZmqLink):
            pieces = list(encode(batch, form))
        elif isinstance(link, PtyLink) and link.paced:
            # one by one: at 9600 baud a batch would take a quarter of a minute, deaf to ``stop``
            batch = batch[:1]
            pieces = list(encode(batch, "frames"))
        else:
            pieces = [b"".join(encode(batch, "frames"))]
        for data in pieces:
            link.write(data)
        sent += len(batch)
    return sent


def parse_target(text: str, *, baud: int | None, bind: bool, stop: Stop | None = None) -> Link:
    """The link of ``pty:PATH``, ``serial:DEVICE``, ``tcp://HOST:PORT`` or ``ipc://PATH``; ``stop`` ends its waits.

    Raises:
        ConfigError: if the text is none of these.
        LinkError: if the link cannot be set up.
    """
    kind, _, rest = text.partition(":")
    if kind == "pty" and rest:
        return PtyLink(rest, baud, stall_s=10.0, stop=stop)
    if kind == "serial" and rest:
        return SerialLink(rest, baud or 115_200)
    if re.fullmatch(r"tcp://[^/]+:(\d+|\*)|ipc://.+", text):
        return ZmqLink(text, bind=bind, wait_s=60.0, stop=stop)
    raise ConfigError(f"{text}: expected pty:PATH, serial:DEVICE, tcp://HOST:PORT or ipc://PATH")
