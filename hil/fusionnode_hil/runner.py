"""Runs an emulator against a clock and a real link, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from fusionnode.core.clock import Clock
from fusionnode_hil.emulator import Emulator
from fusionnode_hil.links import Link
from fusionnode_hil.stop import Stop
from fusionnode_hil.times import NS

POLL_S = 0.05
"""How long a command may wait, and how soon a stop is noticed."""


def run(emulator: Emulator, link: Link, clock: Clock, stop: Stop, *, until_ns: int | None = None) -> int:
    """Send what is due when it is due, and answer commands, until ``stop`` is set or simulated ``until_ns``.

    A slow computer or line makes it late, never makes it leave something out. Returns the messages sent.
    """
    sent = 0
    while not stop.is_set():
        now_ns = clock.now_ns()
        horizon = now_ns if until_ns is None else min(now_ns, until_ns)
        # in slices, so that commands get their turn
        due = emulator.advance(min(horizon, emulator.next_ns + NS))
        heard = link.read()
        if heard:
            due += emulator.hear(heard, now_ns)
        for _, data in due:
            link.write(data)
        sent += len(due)
        if until_ns is not None and emulator.next_ns > until_ns and now_ns >= until_ns:
            break
        wait_s = clock.wall_seconds((emulator.next_ns - clock.now_ns()) / NS)
        if wait_s > 0:
            stop.wait(min(wait_s, POLL_S))
    return sent


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """An event that SIGINT and SIGTERM set; the handlers from before come back at the end."""
    stop = Stop()

    def handler(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
