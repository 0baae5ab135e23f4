"""Where other nodes' states come from, as bits of ``TRACK_STATE.sensors`` beyond those of one's own sensors.

One bit stands for a node, and whom it lets have what it sends: so a state says by its bits which nodes have
contributed, and policy can hold back what came with a caveat as it does for sensors (originator control).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fusionnode.core.types import MAX_SENSORS

_RANKS = {"U": 0, "CUI": 1, "R": 2, "C": 3, "S": 4, "TS": 5}
"""Classifications that are known to be the one higher than the other; what follows ``//`` narrows, and is no rank."""


class Origin(NamedTuple):
    """What a contribution's message says of who may have it."""

    node_id: str
    releasable_to: tuple[str, ...]
    marking: str


class Origins:
    """All origins met so far, each with its bit.

    Args:
        sensors: how many bits one's own sensors take.
    """

    def __init__(self, sensors: int) -> None:
        self._first = sensors
        self._bits: dict[Origin, int] = {}

    def __len__(self) -> int:
        return len(self._bits)

    @property
    def remote(self) -> int:
        """All bits that stand for other nodes, in use or not."""
        return ((1 << MAX_SENSORS) - 1) & ~((1 << self._first) - 1)

    def mask(self, provenance: Sequence[str], releasable_to: tuple[str, ...], marking: str) -> int | None:
        """The bits of a state with these contributors; None: there are no bits left."""
        wanted = [Origin(node, releasable_to, marking) for node in provenance]
        fresh = [origin for origin in wanted if origin not in self._bits]
        if self._first + len(self._bits) + len(fresh) > MAX_SENSORS:
            return None
        for origin in fresh:
            self._bits[origin] = self._first + len(self._bits)
        return sum(1 << self._bits[origin] for origin in wanted)

    def nodes(self, mask: int) -> list[str]:
        """The other nodes that contributed, sorted."""
        return sorted({o.node_id for o, bit in self._bits.items() if mask >> bit & 1})

    def markings(self, mask: int) -> list[str]:
        """The classification markings of what contributed, in the order in which they were met."""
        return list(dict.fromkeys(o.marking for o, bit in self._bits.items() if mask >> bit & 1))

    def releasable_to(self, mask: int) -> list[str] | None:
        """Whom all that contributed may be released to, sorted; None: no other node contributed."""
        lists = [set(o.releasable_to) for o, bit in self._bits.items() if mask >> bit & 1]
        return sorted(set.intersection(*lists)) if lists else None

    def forbidden(self, releasable_to: Sequence[str], marking: str) -> int:
        """Bits of what may not go to a group with these markings: one of its addressees is not among the origin's, or
        its classification is weaker.
        """
        out = 0
        for origin, bit in self._bits.items():
            allowed = all(to in origin.releasable_to for to in releasable_to)
            if not (allowed and covers(marking, origin.marking)):
                out |= 1 << bit
        return out


def covers(marking: str, source: str) -> bool:
    """Whether ``marking`` is no weaker than ``source``. What has no known rank is covered by its like alone."""
    if marking == source:
        return True
    (level, _, narrow), (wanted, _, caveat) = marking.partition("//"), source.partition("//")
    if level not in _RANKS or wanted not in _RANKS or (caveat and caveat != narrow):
        return False
    return _RANKS[level] >= _RANKS[wanted]


def strongest(markings: Sequence[str]) -> str | None:
    """The one of ``markings`` that covers all; None: none does."""
    return next((m for m in markings if all(covers(m, other) for other in markings)), None)
