"""Tracks before and after a replay: which is which, and which came out otherwise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fusionnode.track.distance import distance2
from fusionnode.track.identity import MERGE_M
from fusionnode.track.motion.dynamics import MU
from fusionnode.track.picture import Picture
from fusionnode.track.tracker import Tracker

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_NEIGHBOURS = 4
_STEPS = 4
_FAR_M = 1e30
_FIELDS = ("x", "P", "epoch", "last_ob", "status", "hits", "object")


class Standing(NamedTuple):
    """The tracks in use as they stood at one moment, by ascending number."""

    number: I64  # (n,)
    values: dict[str, npt.NDArray[Any]]

    def changed(self, picture: Picture) -> I64:
        """Slots of ``picture`` whose track is not among these, or was otherwise; ascending."""
        now = standing(picture)
        slots = _slots(picture)
        row = np.searchsorted(self.number, now.number)
        row[row == len(self.number)] = 0
        same = self.number[row] == now.number if len(self.number) else np.zeros(len(slots), np.bool_)
        for name in _FIELDS:
            if len(self.number):
                equal = now.values[name] == self.values[name][row]
                same &= equal.reshape(len(slots), -1).all(axis=1)
        return np.sort(slots[~same])


class Named(NamedTuple):
    """What tracks go by after a replay."""

    number: dict[int, int]  # from the number in the replay to that it goes by, where they differ
    gone: list[int]  # numbers in use before and no more, ascending
    successor: dict[int, int]  # of some of those: the number in the replay of the track in their place
    new: int  # how many numbers were given that were not in use before


def standing(picture: Picture) -> Standing:
    """A copy of what there is to compare."""
    slots = _slots(picture)
    return Standing(picture.number[slots], {name: getattr(picture, name)[slots] for name in _FIELDS})


def names_of(tracker: Tracker, before: Standing, then: I64, begun: int) -> Named:
    """Find the tracks of ``before`` among those of ``tracker`` after a replay that began with the tracks of numbers
    ``then`` (k,); ``begun`` numbers were given before the replay, and it gave higher ones.

    Tracks that it began with keep their numbers. One that began within it takes that of the track of
    ``before`` which is nearest to it, in units of both covariances, and not further than two tracks of one object can
    be. What is left over gets new numbers, in the order in which the tracks began.
    """
    picture = tracker.picture
    slots = _slots(picture)
    numbers = picture.number[slots]
    known = np.isin(numbers, then) & np.isin(numbers, before.number)
    unnamed = slots[~known]
    missing = np.flatnonzero(~np.isin(before.number, numbers[known]))
    number: dict[int, int] = {}
    successor: dict[int, int] = {}
    if len(missing) and len(slots):
        t_ns = int(max(picture.epoch[slots].max(), before.values["epoch"].max()))
        now = _at(picture.x[slots], picture.epoch[slots], t_ns)
        lost = _at(before.values["x"][missing], before.values["epoch"][missing], t_ns)
        pairs = _pairs(lost, now, before.values["P"][missing], picture.P[slots])
        found_again: set[int] = set()
        for _, i, j in pairs:
            old, raw = int(before.number[missing[i]]), int(numbers[j])
            if not known[j] and raw not in number and old not in found_again:
                number[raw] = old
                found_again.add(old)
        for _, i, j in pairs:
            successor.setdefault(int(before.number[missing[i]]), int(numbers[j]))
    found = set(number.values())
    gone = [n for n in before.number[missing].tolist() if n not in found]
    new = 0
    for raw in sorted(picture.number[unnamed].tolist()):
        if raw not in number:
            new += 1
            number[raw] = begun + new
    number = {raw: goes_by for raw, goes_by in number.items() if raw != goes_by}
    return Named(number, gone, successor, new)


def _slots(picture: Picture) -> I64:
    """Slots in use, by ascending number."""
    slots = np.flatnonzero(picture.active[: picture.high[0]])
    return slots[np.argsort(picture.number[slots], kind="stable")]


def _at(x: F64, epoch_ns: I64, t_ns: int) -> F64:
    """States (n, 6) taken from their epochs (n,) to ``t_ns``, as if the Earth were a point: what that leaves out is the
    same for two tracks of one object.
    """
    h = ((t_ns - epoch_ns) * (1e-9 / _STEPS))[:, None]

    def slope(state: F64) -> F64:
        r = state[:, :3]
        pull = -MU * r / np.linalg.norm(r, axis=1, keepdims=True) ** 3
        return np.hstack([state[:, 3:], pull])

    for _ in range(_STEPS):
        k1 = slope(x)
        k2 = slope(x + 0.5 * h * k1)
        k3 = slope(x + 0.5 * h * k2)
        x = x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + slope(x + h * k3))
    return np.asarray(np.nan_to_num(x, nan=_FAR_M, posinf=_FAR_M, neginf=_FAR_M))


def _pairs(then: F64, now: F64, P_then: F64, P_now: F64) -> list[tuple[float, int, int]]:
    """(squared distance, row of ``then``, row of ``now``) of pairs that can be one object, nearest first."""
    pairs = []
    sigma = np.sqrt(P_then[:, [0, 7, 14]].sum(axis=1))
    sigma_now = np.sqrt(P_now[:, [0, 7, 14]].sum(axis=1))
    k = list(range(1, min(_NEIGHBOURS, len(now)) + 1))
    apart, near = cKDTree(now[:, :3]).query(then[:, :3], k=k)
    for i, (distances, rows) in enumerate(zip(apart.tolist(), near.tolist(), strict=True)):
        for d, j in zip(distances, rows, strict=True):
            if d > MERGE_M + 3.0 * (sigma[i] + sigma_now[j]):
                continue
            both = P_then[i].reshape(6, 6) + P_now[j].reshape(6, 6)
            dx = then[i] - now[j]
            pairs.append((distance2(dx, both), i, j))
    return sorted(pairs)
