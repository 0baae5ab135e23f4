"""A flag that a signal handler may raise."""

from __future__ import annotations

import time


class Stop:
    """As much of an event as is needed, without a lock.

    `threading.Event` takes one in ``set``; a second signal that comes while the handler of the first one
    holds it would wait for itself for ever.
    """

    def __init__(self) -> None:
        self._raised = False

    def set(self) -> None:
        """Raise it; as often as one likes."""
        self._raised = True

    def is_set(self) -> bool:
        """Whether it was raised."""
        return self._raised

    def wait(self, timeout_s: float) -> bool:
        """Let ``timeout_s`` pass, unless it is raised already; a signal does not cut it short, so keep it short."""
        if not self._raised:
            time.sleep(timeout_s)
        return self._raised
