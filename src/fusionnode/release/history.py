"""What was published lately, for those who missed some of it: bounded by bytes, by sequence number."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_OVERHEAD = 120  # bytes that one message costs beside its payload, roughly
_COMPACT = 4_096


class Stretch(NamedTuple):
    """Messages of one stream without a hole, from ``first`` on.

    Attributes:
        payloads: in order; there may be none.
        first: sequence number of the first, or of the first that would be.
        next: where to go on asking; None: nothing of what was asked for is left.
        next_epoch: the stream that came after this one, if this one is at its end.
    """

    payloads: list[bytes]
    first: int
    next: int | None
    next_epoch: str | None

    @property
    def last(self) -> int:
        """Sequence number of the last one; one less than ``first`` if there is none."""
        return self.first + len(self.payloads) - 1


@dataclass(slots=True)
class _Run:
    """Messages of one stream epoch, oldest first; those before ``start`` are gone."""

    epoch: str
    seqs: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    start: int = 0


class History:
    """The newest messages, as many as ``limit_bytes`` hold."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._runs: deque[_Run] = deque()
        self.bytes = 0

    def clear(self) -> None:
        """Nothing of what was before is to be served any more."""
        self._runs.clear()
        self.bytes = 0

    def add(self, epoch: str, first: int, payloads: Sequence[bytes]) -> None:
        """Messages with the numbers ``first``, ``first + 1``, ..."""
        if not self._runs or self._runs[-1].epoch != epoch:
            self._runs.append(_Run(epoch))
        run = self._runs[-1]
        run.seqs.extend(range(first, first + len(payloads)))
        run.payloads.extend(payloads)
        self.bytes += sum(map(len, payloads)) + _OVERHEAD * len(payloads)
        while self.bytes > self._limit and self._runs:
            self._drop_oldest()

    def get(self, epoch: str, first: int, last: int, most_bytes: int) -> Stretch | None:
        """Messages ``first`` to ``last`` of a stream, as far as they come without a hole; None: the first is not kept.

        What comes next after the newest of a stream is not there yet: an empty stretch.
        """
        index = next((i for i, run in enumerate(self._runs) if run.epoch == epoch), None)
        if index is None:
            return None
        run = self._runs[index]
        following = self._runs[index + 1].epoch if index + 1 < len(self._runs) else None
        at = bisect_left(run.seqs, first, run.start)
        if at == len(run.seqs):
            is_next = at > run.start and first == run.seqs[-1] + 1
            return Stretch([], first, None, following) if is_next else None
        if run.seqs[at] != first:
            return None
        payloads: list[bytes] = []
        size, expected = 0, first
        while at < len(run.seqs) and expected <= last:
            payload = run.payloads[at]
            if run.seqs[at] != expected or (payloads and size + len(payload) > most_bytes):
                return Stretch(payloads, first, expected, None)
            payloads.append(payload)
            size += len(payload)
            at += 1
            expected += 1
        at_end = at == len(run.seqs)
        return Stretch(payloads, first, None, following if at_end else None)

    def _drop_oldest(self) -> None:
        run = self._runs[0]
        if run.start == len(run.seqs):
            self._runs.popleft()
            return
        self.bytes -= len(run.payloads[run.start]) + _OVERHEAD
        run.payloads[run.start] = b""
        run.start += 1
        if run.start >= _COMPACT and run.start * 2 >= len(run.seqs):
            del run.seqs[: run.start]
            del run.payloads[: run.start]
            run.start = 0
