"""What a tracker knows, as plain values and arrays, and back: so that it outlives the process.

Taken along: every array of the picture (a new one without a word about it here), numbers given, what is known of
sensors, what the watch of events remembers. Not taken along: measurements that wait to become a track. Sensors go by
name and objects by catalogue number, so that a configuration may have changed in between; of a sensor that is gone,
what it alone is known for goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.types import MAX_SENSORS, Status
from fusionnode.track.association.looks import LEARNT
from fusionnode.track.picture import NEVER, next_tick, report

if TYPE_CHECKING:
    from fusionnode.track.tracker import Tracker

I64 = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

VERSION = 1
_BY_SENSOR = ("ring_sensor", "heard", "sensor")
"""Arrays of indices of sensors; of one that is gone, -1."""


class Restored(NamedTuple):
    """What came of taking up a state."""

    tracks: int
    too_old: int
    """Tracks not taken up: unseen for longer than they may coast."""
    no_room: int
    """Tracks for which the picture is too small."""
    sensors_gone: list[str]


def export_state(tracker: Tracker, sat_no: Callable[[int], int]) -> dict[str, Any]:
    """A copy of all that ``tracker`` knows of its tracks; ``sat_no``: catalogue number by row of the catalogue."""
    p, watch = tracker.picture, tracker.watch
    capacity = len(p.active)
    slots = tracker.slots()
    objects = p.object[slots]
    state: dict[str, Any] = {
        "version": VERSION,
        "sensors": tracker.sensor_names,
        "begun": tracker.begun,
        "slots": slots.copy(),
        "high": int(p.high[0]),
        "free": tracker.free_slots,
        "picture": {
            name: _rows(array, slots, capacity) for name, array in p._asdict().items() if name != "high"
        },
        "objects": [sat_no(row) if row >= 0 else -1 for row in objects.tolist()],
        "truth": tracker.truth.export_state(),
        "watch": None,
    }
    if watch is not None:
        state["watch"] = {
            "births": {name: _rows(a, slots, capacity) for name, a in watch.births._asdict().items()},
            "fever": {name: _rows(a, slots, capacity) for name, a in watch.fever._asdict().items()},
            "rest": watch.export_state(),
        }
    return state


def import_state(
    tracker: Tracker, state: dict[str, Any], row_of: Callable[[int], int], now_ns: int
) -> Restored:
    """Make ``tracker``, which has no tracks yet, go on from ``state``; ``row_of``: row of the catalogue by catalogue
    number, or -1. ``now_ns``: TAI ns; what was due in the meantime is due now, once.

    Raises:
        ValueError: it is not a state that this version can take up; the tracker has no tracks.
    """
    try:
        if state["version"] != VERSION:
            raise ValueError(f"tracks of version {state['version']}, expected {VERSION}")
        return _import(tracker, state, row_of, now_ns)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        _empty(tracker)
        raise ValueError(f"not the state of a tracker: {error!r}") from None
    except ValueError:
        _empty(tracker)
        raise


def _empty(tracker: Tracker) -> None:
    p = tracker.picture
    for slot in tracker.slots().tolist():
        tracker.identify(slot, -1)
    p.active[:], p.due[:], p.object[:], p.high[0] = False, NEVER, -1, 0
    tracker.take_up(0, [])


def _import(tracker: Tracker, state: dict[str, Any], row_of: Callable[[int], int], now_ns: int) -> Restored:
    p = tracker.picture
    capacity = len(p.active)
    names: list[str] = list(state["sensors"])
    sensor_of = {i: tracker.sensor_names.index(n) for i, n in enumerate(names) if n in tracker.sensor_names}
    unmoved = names == tracker.sensor_names
    saved: dict[str, Array] = state["picture"]
    _check(p._asdict(), saved, capacity, len(state["slots"]))
    old = np.asarray(state["slots"], np.int64)
    last_ob = saved["last_ob"]
    alive = now_ns - last_ob < tracker.coast_limit_ns
    kept = np.flatnonzero(alive)
    too_old = len(old) - len(kept)
    no_room = max(len(kept) - capacity, 0)
    if no_room:  # those that stand on most go on
        kept = np.sort(kept[np.argsort(-saved["hits"][kept], kind="stable")[:capacity]])
    same = int(state["high"]) <= capacity
    slots = old[kept] if same else np.arange(len(kept))
    for name, array in p._asdict().items():
        # what a filter keeps beside is of use to the same one only, and may name sensors by index
        unlike = (
            name == "beside" and name in saved and (saved[name].shape[1:] != array.shape[1:] or not unmoved)
        )
        if name in saved and not unlike:
            _put(array, slots, _remapped(name, saved[name], sensor_of), kept, capacity)
    p.learnt[:] = _learnt(p.learnt, saved["learnt"], sensor_of)
    p.high[0] = int(state["high"]) if same else len(kept)
    if same:
        lost = [int(s) for s in np.delete(old, kept)]
        free = [int(s) for s in state["free"]] + lost
    else:
        free = []
    objects = state["objects"]
    p.object[slots] = -1
    tracker.take_up(int(state["begun"]), free)
    for slot, i in zip(slots.tolist(), kept.tolist(), strict=True):
        row = row_of(int(objects[i])) if objects[i] >= 0 else -1
        tracker.identify(slot, row)
    overdue = slots[p.due[slots] < now_ns]
    p.due[overdue] = next_tick(now_ns, tracker.tick_ns)
    tracker.truth.import_state(state["truth"])
    if tracker.watch is not None and state["watch"] is not None:
        watch, was = tracker.watch, state["watch"]
        for group, arrays in ((watch.births, was["births"]), (watch.fever, was["fever"])):
            for name, array in group._asdict().items():
                if len(array) == capacity and name in arrays:
                    _put(array, slots, _remapped(name, arrays[name], sensor_of), kept, capacity)
        ratio = was["fever"]["ratio"]
        for was_at, at in sensor_of.items():
            watch.fever.ratio[at] = ratio[was_at]
        watch.import_state(was["rest"], sensor_of)
        if len(slots) and watch.next_ns < now_ns:
            watch.next_ns = int(next_tick(now_ns, tracker.tick_ns))
    tracker.wake(report(p, slots[p.status[slots] != int(Status.TENTATIVE)]))
    gone = [name for name in names if name not in tracker.sensor_names]
    return Restored(len(slots), too_old, no_room, gone)


def _rows(array: Array, slots: I64, capacity: int) -> Array:
    """Of an array with one row or one column a slot, a copy of those in use; of any other, of all."""
    if array.shape[0] == capacity:
        return array[slots].copy()
    if array.shape[-1] == capacity:
        return array[..., slots].copy()
    return array.copy()


def _put(array: Array, slots: I64, saved: Array, kept: I64, capacity: int) -> None:
    if array.shape[0] == capacity:
        array[slots] = saved[kept]
    elif array.shape[-1] == capacity:
        array[..., slots] = saved[..., kept]


def _check(mine: dict[str, Array], saved: dict[str, Array], capacity: int, n: int) -> None:
    """What is there must be what is expected; a newer version's further arrays start as they would for a new track."""
    for name, array in mine.items():
        if name in ("high", "beside"):
            continue
        if name not in saved:
            raise ValueError(f"written by another version: no {name} of tracks in it")
        shape = list(array.shape)
        if array.shape[0] == capacity:
            shape[0] = n
        elif array.shape[-1] == capacity:
            shape[-1] = n
        if list(saved[name].shape) != shape or saved[name].dtype != array.dtype:
            raise ValueError(f"written by another version: {name} of tracks is of another kind")


def _remapped(name: str, array: Array, sensor_of: dict[int, int]) -> Array:
    if name == "sensors":
        return np.array([_mask(int(m), sensor_of) for m in array.tolist()], np.uint64)
    if name not in _BY_SENSOR:
        return array
    table = np.full(MAX_SENSORS + 1, -1, array.dtype)
    for was_at, at in sensor_of.items():
        table[was_at] = at
    return np.asarray(table[np.clip(array, -1, MAX_SENSORS - 1)])


def _mask(mask: int, sensor_of: dict[int, int]) -> int:
    return sum(1 << at for was_at, at in sensor_of.items() if mask >> was_at & 1)


def _learnt(mine: Array, saved: Array, sensor_of: dict[int, int]) -> Array:
    out: Array = np.zeros_like(mine)
    for was_at, at in sensor_of.items():
        out[0, LEARNT * at : LEARNT * (at + 1)] = saved[0, LEARNT * was_at : LEARNT * (was_at + 1)]
    return out


def summary(state: dict[str, Any]) -> dict[str, Any]:
    """For the operator: what there is in an exported state."""
    status: Sequence[int] = state["picture"]["status"].tolist()
    return {
        "tracks": {s.name.lower(): status.count(int(s)) for s in Status},
        "correlated": sum(n >= 0 for n in state["objects"]),
        "numbers_given": int(state["begun"]),
        "sensors": list(state["sensors"]),
    }
