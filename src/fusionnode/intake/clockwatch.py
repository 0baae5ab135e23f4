"""Whether a sensor's clock can be believed: steps, drift, and time running backwards.

What is seen of a clock is how late detections come: reception by the node's clock less the sensor's stamp. Links add
to that what they like, but never less than their shortest way. So the smallest latencies of a while (a *block*) follow
the clock: a step forward of the sensor's clock takes them down by as much, one back takes them up, a drift moves them
steadily. A link that was held up lets its backlog go with all latencies at once, or ever smaller ones; a clock that
stepped shows the same new latency from then on.

A way that became longer for good looks the same as a clock set back; both deserve a look. Where the node's time is
that of the data, latency says nothing, and only time that runs backwards is judged.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

BLOCK_S = 2.0
"""A block is at least that long, and two revisits."""
BLOCK_DETECTIONS = 4
STEP_S = 0.25
"""Steps of less are not told: that is how much a busy computer may do to latencies."""
SPREADS = 4.0
"""Nor steps of less than so many times the unrest of the blocks before."""
CONSTANT = 0.1
"""The blocks after a step differ by at most this part of it; what goes on changing is a backlog, or a drift."""
AFTER = 3
"""Blocks that must show a step."""
REFERENCE = 8
"""Blocks that it is held against, and the least number of them is half of that."""
GIVE_UP = 6
"""Blocks that differ, but not by one step, after which the latest are the reference."""
CALM_S = 600.0
"""So long after the last step the clock counts as steady again."""
WILD_S = 1.0e6
"""Stamps that are off by days are refused, not watched."""
DRIFT_BLOCKS = 256
DRIFT_SPAN_S = 60.0
DRIFT_PPM = 20.0
DRIFT_S = 0.05
DRIFT_SPREADS = 6.0
"""A drift is told if a line through the blocks changes by at least that much, in seconds, in parts per million, and in
units of what the blocks scatter about it; and until it is less than half of that.
"""
BACKWARDS_S = 1.0
"""A higher sequence number with a stamp that much earlier: time ran backwards. (Within a scan stamps may differ.)"""
_RESTARTED = 100_000


class ClockWatch:
    """The clock of one sensor; ``judged``: whether times of reception mean anything."""

    def __init__(self, revisit_s: float, *, judged: bool) -> None:
        self._judged = judged
        self._block_ns = int(max(BLOCK_S, 2.0 * revisit_s) * 1e9)
        self._start_ns: int | None = None
        self._lowest: list[float] = []  # the two smallest latencies of the block, s
        self._count = 0
        self._reference: deque[float] = deque(maxlen=REFERENCE)
        self._odd: list[float] = []  # blocks that differ from it
        self._line: deque[tuple[float, float]] = deque(maxlen=DRIFT_BLOCKS)  # reception, latency, s
        self._newest_seq, self._newest_ns = 0, 0
        self._stepped_ns: int | None = None
        self._drift_ppm: float | None = None
        self.steps = 0
        """Steps so far."""
        self.step_s: float | None = None
        """The last one: positive if the sensor's clock went ahead."""
        self.backwards = 0
        """Detections whose number went up and whose stamp went back."""

    def note(self, t_rx_ns: I64, t_meas_ns: I64, seq: npt.NDArray[np.uint32]) -> None:
        """Take what came at once from the sensor, in order of arrival."""
        self._note_order(t_meas_ns.tolist(), seq.tolist())
        if not self._judged:
            return
        now = int(t_rx_ns[-1])
        if self._start_ns is None or now < self._start_ns:
            self._start_ns, self._lowest, self._count = (
                now,
                [],
                0,
            )  # the first, or the node's own clock was set back
        if now - self._start_ns >= self._block_ns and self._count >= BLOCK_DETECTIONS:
            self._close(now)
        if len(t_rx_ns) == 1:
            late_s = [(now - int(t_meas_ns[0])) * 1e-9]
        else:
            late_s = ((t_rx_ns.astype(np.float64) - t_meas_ns.astype(np.float64)) * 1e-9).tolist()
        late_s = [s for s in late_s if abs(s) < WILD_S]
        self._count += len(late_s)
        self._lowest = sorted([*self._lowest, *late_s])[:2]

    def state(self, t_ns: int) -> dict[str, Any]:
        """Fields to publish, at ``t_ns`` TAI; ``clockState`` is None where there is nothing to judge by (yet)."""
        word = None
        if self._judged and len(self._reference) >= REFERENCE // 2:
            word = "steady"
            if self._stepped_ns is not None and (t_ns - self._stepped_ns) * 1e-9 < CALM_S:
                word = "stepped"
            elif self._drift_ppm is not None:
                word = "drifting"
        return {
            "clockState": word,
            "clockSteps": self.steps,
            "clockStepS": self.step_s,
            "clockDriftPpm": self._drift_ppm,
            "clockBackwards": self.backwards,
        }

    def _note_order(self, times: list[int], numbers: list[int]) -> None:
        for t, n in zip(times, numbers, strict=True):
            if n == 0:
                continue  # this sensor does not count
            ahead = n - self._newest_seq
            if 0 < ahead < _RESTARTED:
                if self._newest_seq and self._newest_ns - t > BACKWARDS_S * 1e9:
                    self.backwards += 1
            elif -_RESTARTED < ahead <= 0:
                continue  # an old one, late
            self._newest_seq, self._newest_ns = n, t

    def _close(self, now_ns: int) -> None:
        """The block is complete: what does it say?"""
        assert self._start_ns is not None
        # the second smallest: one lying stamp moves nothing
        latency = self._lowest[-1] if self._lowest else None
        at_s = self._start_ns * 1e-9
        self._start_ns, self._lowest, self._count = now_ns, [], 0
        if latency is None:
            return
        if len(self._reference) < REFERENCE // 2:
            self._reference.append(latency)
            return
        before = np.array(self._reference)
        usual = float(np.median(before))
        unrest = float(np.abs(before - usual).max())
        off = latency - usual
        if abs(off) <= max(STEP_S, SPREADS * unrest):
            self._odd.clear()
            self._reference.append(latency)
            self._line.append((at_s, latency))
            self._judge_drift()
            return
        self._odd.append(latency)
        latest = np.array(self._odd[-AFTER:])
        if len(latest) == AFTER and np.ptp(latest) <= CONSTANT * abs(off) + 2.0 * unrest:
            if (latest - usual > 0).all() or (latest - usual < 0).all():
                self.steps += 1
                self.step_s = -float(np.median(latest) - usual)
                self._stepped_ns = now_ns
                self._begin_anew()
        elif len(self._odd) >= GIVE_UP:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._reference = deque(self._odd[-REFERENCE // 2 :], maxlen=REFERENCE)
        self._odd.clear()
        self._line.clear()
        self._drift_ppm = None

    def _judge_drift(self) -> None:
        line = np.array(self._line)
        t = line[:, 0] - line[0, 0]
        if len(t) < REFERENCE or t[-1] < DRIFT_SPAN_S:
            return
        slope, base = np.polyfit(t, line[:, 1], 1)
        scatter = float(np.std(line[:, 1] - base - slope * t))
        ppm, change = -slope * 1e6, abs(slope) * t[-1]
        least = max(DRIFT_S, DRIFT_SPREADS * scatter)
        ease = 1.0 if self._drift_ppm is None else 0.5
        drifts = abs(ppm) >= ease * DRIFT_PPM and change >= ease * least
        self._drift_ppm = float(ppm) if drifts else None
