"""The only reader of time in the project: every other module is given a `Clock`, or times."""

from __future__ import annotations

import time
from typing import Protocol

from fusionnode.core.timescales import SECOND_NS, tai_ns_from_unix_ns, tai_ns_from_utc_text


class Clock(Protocol):
    """What time it is for the node."""

    def now_ns(self) -> int:
        """TAI ns since 1970-01-01T00:00:00 TAI."""
        ...

    def wall_seconds(self, node_seconds: float) -> float:
        """How long the computer has to wait for ``node_seconds`` of this clock to pass."""
        ...


class SystemClock:
    """The station computer's clock."""

    def now_ns(self) -> int:
        """TAI ns, from the computer's UTC."""
        return tai_ns_from_unix_ns(time.time_ns())

    def wall_seconds(self, node_seconds: float) -> float:
        """The same."""
        return node_seconds


class ScaledClock:
    """``epoch_ns`` (TAI) at the computer's ``anchor_unix_s``, running ``rate`` times as fast.

    Processes that are given the same three numbers agree on the time, as far as their computers' clocks do.
    """

    def __init__(self, epoch_ns: int, anchor_unix_s: float, rate: float = 1.0) -> None:
        if not rate > 0:
            raise ValueError("a clock's rate is above 0")
        self._epoch_ns = epoch_ns
        self._anchor_ns = round(anchor_unix_s * SECOND_NS)
        self._rate = rate

    def now_ns(self) -> int:
        """TAI ns of the scaled time."""
        return self._epoch_ns + round((time.time_ns() - self._anchor_ns) * self._rate)

    def wall_seconds(self, node_seconds: float) -> float:
        """``node_seconds`` divided by the rate."""
        return node_seconds / self._rate


class DataClock:
    """As late as the newest time it was told of: for recorded data."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def advance(self, t_ns: int) -> None:
        """Go forward to ``t_ns``; never back."""
        self._now_ns = max(self._now_ns, t_ns)

    def now_ns(self) -> int:
        """The newest time so far, TAI ns."""
        return self._now_ns

    def wall_seconds(self, node_seconds: float) -> float:
        """Zero."""
        return 0.0


def make(
    mode: str = "system",
    epoch_utc: str | None = None,
    anchor_unix_s: float | None = None,
    rate: float = 1.0,
) -> SystemClock | ScaledClock | DataClock:
    """The clock that the fields of the configuration's ``[clock]`` describe.

    Raises:
        ValueError: one line; an unknown mode, or a time that is none.
    """
    if mode == "system":
        return SystemClock()
    if mode == "data":
        return DataClock()
    if mode != "scaled":
        raise ValueError(f"clock.mode: expected system, scaled or data (is {mode!r})")
    if epoch_utc is None or anchor_unix_s is None:
        raise ValueError("clock: mode 'scaled' needs epoch_utc and anchor_unix_s")
    return ScaledClock(tai_ns_from_utc_text(epoch_utc), anchor_unix_s, rate)


def monotonic_ns() -> int:
    """For durations on this computer; not a time of day."""
    return time.monotonic_ns()


def sleep(seconds: float) -> None:
    """Let the computer's ``seconds`` pass; not at all if negative."""
    if seconds > 0:
        time.sleep(seconds)
