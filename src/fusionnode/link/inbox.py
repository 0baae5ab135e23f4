"""The bounded queue between the thread that reads the links and the thread that fuses."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from fusionnode.core.types import LinkRecord

MAX_BYTES = 64 << 20


class PortEvent(NamedTuple):
    """A link came up or went down at ``t_ns``, and why in a few words."""

    link_id: str
    t_ns: int
    up: bool
    reason: str


class Inbox:
    """Records and port events in their order. What does not fit is dropped, newest first, and counted.

    Port events always fit: they are as rare as the tries to open a port.

    Args:
        limit_records: as many records may wait.
        limit_bytes: and so many bytes in them.
    """

    def __init__(self, limit_records: int, limit_bytes: int = MAX_BYTES) -> None:
        self._limit_records = limit_records
        self._limit_bytes = limit_bytes
        self._items: deque[LinkRecord | PortEvent] = deque()
        self._bytes = 0
        self._drops: Counter[str] = Counter()
        self._cond = threading.Condition(threading.Lock())
        self._closed = False

    def put(self, records: Sequence[LinkRecord]) -> None:
        """Add records; those beyond the limits are only counted."""
        with self._cond:
            for record in records:
                if len(self._items) >= self._limit_records or self._bytes > self._limit_bytes:
                    self._drops[record.link_id] += 1
                else:
                    self._items.append(record)
                    self._bytes += len(record.data)
            self._cond.notify()

    def put_event(self, event: PortEvent) -> None:
        """Add a port event."""
        with self._cond:
            self._items.append(event)
            self._cond.notify()

    def close(self) -> None:
        """No more will be put."""
        with self._cond:
            self._closed = True
            self._cond.notify()

    def __len__(self) -> int:
        return len(self._items)

    def oldest_ns(self) -> int | None:
        """When the first of those that wait came in, TAI ns; None if nothing waits."""
        with self._cond:
            if not self._items:
                return None
            first = self._items[0]
            return first.t_rx_ns if isinstance(first, LinkRecord) else first.t_ns

    def take(self, most: int, timeout_s: float) -> tuple[list[LinkRecord | PortEvent], dict[str, int]] | None:
        """Up to ``most`` items, and by link how many records were dropped since the last call.

        Waits for the first at most ``timeout_s``. None: closed, and nothing is left.
        """
        with self._cond:
            if not self._items and not self._closed:
                self._cond.wait(timeout_s)
            items = self._items
            if not items and not self._drops and self._closed:
                return None
            taken = [items.popleft() for _ in range(min(most, len(items)))]
            self._bytes -= sum(len(item.data) for item in taken if isinstance(item, LinkRecord))
            drops = dict(self._drops)
            self._drops.clear()
            return taken, drops
