"""The tracker's whole state, copied and put back: what a rewind goes back to.

Whatever the tracker holds is copied, so that a new attribute is part of its past without a word about it here; what
is not state stands in `Tracker.APART`, what is never changed in place in `Tracker.SHARED`. No attribute may be a view
of another's array: copies would part them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.track.picture import NEVER

if TYPE_CHECKING:
    from fusionnode.track.tracker import Tracker


class Checkpoint(NamedTuple):
    """A tracker at one moment. The arrays of the picture reach up to the highest slot in use only."""

    high: int
    picture: dict[str, npt.NDArray[Any]]
    rest: dict[str, Any]
    nbytes: int
    """Bytes of the picture's copy, by far the largest part."""

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Numbers of the tracks in use."""
        numbers: npt.NDArray[np.int64] = self.picture["number"][self.picture["active"]]
        return numbers


def checkpoint(tracker: Tracker) -> Checkpoint:
    """A copy of all that ``tracker`` knows."""
    picture = tracker.picture
    high, capacity = int(picture.high[0]), len(picture.active)
    arrays = {name: array[_used(array, high, capacity)].copy() for name, array in picture._asdict().items()}
    nbytes = sum(array.nbytes for array in arrays.values())
    return Checkpoint(high, arrays, _copied(tracker, _state(tracker)), nbytes)


def restore(tracker: Tracker, saved: Checkpoint) -> None:
    """Make ``tracker`` what it was; ``saved`` stays good for another time."""
    picture = tracker.picture
    capacity = len(picture.active)
    for name, array in picture._asdict().items():
        array[_used(array, saved.high, capacity)] = saved.picture[name]
    picture.active[saved.high :] = False
    picture.due[saved.high :] = NEVER
    picture.object[saved.high :] = -1
    tracker.__dict__.update(_copied(tracker, saved.rest))


def _state(tracker: Tracker) -> dict[str, Any]:
    return {k: v for k, v in tracker.__dict__.items() if k not in tracker.APART and k != "picture"}


def _copied(tracker: Tracker, state: dict[str, Any]) -> dict[str, Any]:
    """A deep copy in which everything that is apart or shared, and the picture, stay what they are."""
    apart = [tracker.picture, *(getattr(tracker, name) for name in tracker.APART)]
    apart += [state[name] for name in tracker.SHARED]
    return copy.deepcopy(state, {id(thing): thing for thing in apart})


def _used(array: npt.NDArray[Any], high: int, capacity: int) -> tuple[slice, ...]:
    """The part of a picture's array that slots below ``high`` have."""
    if array.shape[0] == capacity and array.ndim > 1 and array.shape[-1] == capacity:
        return (slice(None),)
    if array.shape[0] == capacity:
        return (slice(high),)
    if array.shape[-1] == capacity:
        return (Ellipsis, slice(high))  # type: ignore[return-value]
    return (slice(None),)


def own_arrays(tracker: Tracker) -> list[npt.NDArray[Any]]:
    """Every array that is part of the tracker's state, as deep as attributes, lists and tuples go."""
    found: list[npt.NDArray[Any]] = []
    seen: set[int] = set()

    def look(thing: Any) -> None:
        if id(thing) in seen:
            return
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            found.append(thing)
        elif isinstance(thing, dict):
            for value in thing.values():
                look(value)
        elif isinstance(thing, list | tuple):
            for value in thing:
                look(value)
        elif type(thing).__module__.startswith("fusionnode."):
            look(vars(thing) if hasattr(thing, "__dict__") else ())

    look(list(tracker.picture))
    look(_state(tracker))
    return found
