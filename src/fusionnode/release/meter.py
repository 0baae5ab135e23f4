"""A token bucket: how much somebody may have, on average and at once."""

from __future__ import annotations


class Meter:
    """Full at the start; refilled by ``rate`` a second up to ``burst``. Times are seconds of any steady clock."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self._at = now

    def refill(self, now: float) -> float:
        """The level at ``now``."""
        self.level = min(self.burst, self.level + max(0.0, now - self._at) * self.rate)
        self._at = now
        return self.level

    def take(self, amount: float, now: float) -> bool:
        """Take ``amount`` if the level is above zero; it may fall below. False: nothing was taken."""
        if self.refill(now) <= 0.0:
            return False
        self.level -= amount
        return True

    def wait_s(self, level: float) -> float:
        """Until there is so much, from the last refill on."""
        return max(0.0, (level - self.level) / self.rate)
