"""Who is who in the picture: which slots are in use, which numbers were given, which object a track is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import Status
from fusionnode.track.association.coarse import refresh_coarse
from fusionnode.track.filtering.noise import forget
from fusionnode.track.motion.coefficients import COLUMNS
from fusionnode.track.picture import NEVER, Picture


class Roster:
    """Gives slots of a picture to tracks and takes them back. Slots are reused, numbers are not."""

    def __init__(self, picture: Picture, fresh: npt.NDArray[np.float64] | None = None) -> None:
        """``fresh``: what is known of a new track's coefficients, shape (COLUMNS,)."""
        self.picture = picture
        self._fresh = np.zeros(COLUMNS) if fresh is None else fresh
        self.begun = 0
        """Numbers given so far."""
        self.track_of_object: dict[int, int] = {}
        """Slot of the track that a catalogued object (row) has."""
        self._free: list[int] = []

    def slots(self) -> npt.NDArray[np.int64]:
        """Slots in use, ascending."""
        return np.flatnonzero(self.picture.active[: self.picture.high[0]])

    def place(self, x: npt.NDArray[np.float64], P: npt.NDArray[np.float64], t_ns: int) -> int | None:
        """A slot for a track without a number yet: state ``x`` (6,), covariance ``P`` (36,); None if all are taken."""
        p = self.picture
        if self._free:
            slot = self._free.pop()
        elif p.high[0] < len(p.active):
            slot = int(p.high[0])
            p.high[0] += 1
        else:
            return None
        p.active[slot] = True
        p.x[slot], p.P[slot], p.epoch[slot], p.last_ob[slot] = x, P, t_ns, t_ns
        p.status[slot], p.hits[slot], p.ring_n[slot], p.sensors[slot] = Status.TENTATIVE, 0, 0, 0
        p.object[slot], p.object_p[slot], p.due[slot], p.review[slot] = -1, np.nan, NEVER, NEVER
        p.coefficients[slot] = self._fresh
        forget(p, slot)
        p.exist[slot], p.exist_ns[slot] = 0.0, t_ns
        refresh_coarse(p, slot)
        return slot

    def enlist(self, slot: int, review_at: int) -> None:
        """Give the track in ``slot`` a number; its identity is reviewed at ``review_at`` hits."""
        self.begun += 1
        self.picture.number[slot] = self.begun
        self.picture.review[slot] = review_at

    def identify(self, slot: int, row: int, probability: float = np.nan) -> None:
        """The track in ``slot`` is the catalogued object ``row``, so probably; -1: it is none."""
        self.track_of_object.pop(int(self.picture.object[slot]), None)
        self.picture.object[slot] = row
        self.picture.object_p[slot] = probability if row >= 0 else np.nan
        if row >= 0:
            self.track_of_object[row] = slot

    @property
    def free_slots(self) -> list[int]:
        """Slots that were in use, the next one to be used last."""
        return list(self._free)

    def take_up(self, begun: int, free: list[int]) -> None:
        """The picture holds tracks from before: so many numbers were given, these slots are free again."""
        self.begun = max(self.begun, begun)
        self._free = list(free)

    def release(self, slot: int) -> None:
        """Take the slot back."""
        self.identify(slot, -1)
        self.picture.active[slot] = False
        self.picture.due[slot] = NEVER
        self._free.append(slot)

    def take_over(self, fresh: int, stale: int) -> tuple[int, int]:
        """Two tracks are one object: ``fresh`` goes on, under the older number and with both tracks' past.

        Returns the number that lives on and the one that ends; ``stale`` is still to be released.
        """
        p = self.picture
        number, gone = sorted((int(p.number[fresh]), int(p.number[stale])))
        elder = fresh if p.number[fresh] == number else stale
        younger = stale if elder == fresh else fresh
        named = elder if p.object[elder] >= 0 else younger
        row, probability = int(p.object[named]), float(p.object_p[named])
        p.number[fresh], p.number[stale] = number, gone
        p.sensors[fresh] |= p.sensors[stale]
        p.hits[fresh] += p.hits[stale]
        p.exist[fresh] = max(p.exist[fresh], p.exist[stale])
        if p.status[fresh] == Status.TENTATIVE and p.status[stale] != Status.TENTATIVE:
            p.status[fresh] = Status.CONFIRMED
        self.identify(stale, -1)
        self.identify(fresh, row, probability)
        return number, gone
