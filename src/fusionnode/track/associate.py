"""Which measurement belongs to which track: trial, gate, and assignment of what `select` found worth it.

A scan (one sensor, one time) in which every measurement has one track and no track
two is settled in compiled code; others go to a sparse assignment, cluster by cluster.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.coarse import refresh_coarse
from fusionnode.track.coefficients import regress
from fusionnode.track.filter import Trials, degrees, make_trials, try_pairs
from fusionnode.track.noise import learn, shape_noise
from fusionnode.track.picture import touch
from fusionnode.track.select import pairs_of_scan

_RANGE, _ANGLES, _RATE = int(Channel.RANGE), int(Channel.ANGLES), int(Channel.RANGE_RATE)

_LN_2PI = float(np.log(2.0 * np.pi))
_OUTLIER_RANGE = 2.0 * float(np.log(1.0e7 / 0.03))
_OUTLIER_RATE = 2.0 * float(np.log(1.0e4 / 0.03))
_OUTLIER_ANGLES = 2.0 * float(np.log(1.0 / 0.03))
"""Cost of a channel left out: 3 in 100 are anywhere in 10,000 km, in 10 km/s, or in a steradian."""


class Measurements(NamedTuple):
    """MEASUREMENT[n] as the kernels see it."""

    z: npt.NDArray[np.float64]  # (n, 27)
    t: npt.NDArray[np.int64]  # (n,) TAI ns
    sensor: npt.NDArray[np.int32]  # (n,)
    channels: npt.NDArray[np.uint8]  # (n,)


class Log(NamedTuple):
    """Updates in the order they were made; ``made[0]`` of them are valid."""

    made: npt.NDArray[np.int64]  # (1,)
    row: npt.NDArray[np.int64]  # (m,) of the measurement
    slot: npt.NDArray[np.int64]
    x: npt.NDArray[np.float64]  # (m, 6)
    P: npt.NDArray[np.float64]  # (m, 36)
    status: npt.NDArray[np.uint8]
    sensors: npt.NDArray[np.uint64]
    hits: npt.NDArray[np.int64]
    nis: npt.NDArray[np.float64]
    used: npt.NDArray[np.uint8]  # Channel bits


class Room(NamedTuple):
    """Memory that scans are worked in."""

    slots: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    claimed: npt.NDArray[np.int64]  # (N,) pair that claims the slot, or -1
    trials: Trials


def make_log(n: int) -> Log:
    """Room for ``n`` updates."""
    return Log(
        np.zeros(1, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros((n, 6)),
        np.zeros((n, 36)),
        np.zeros(n, np.uint8),
        np.zeros(n, np.uint64),
        np.zeros(n, np.int64),
        np.zeros(n),
        np.zeros(n, np.uint8),
    )


def make_room(capacity: int, pairs: int) -> Room:
    """Memory for scans of up to ``pairs`` pairs over ``capacity`` tracks."""
    return Room(
        np.zeros(pairs, np.int64),
        np.zeros(pairs, np.int64),
        np.full(capacity, -1, np.int64),
        make_trials(pairs),
    )


@kernel
def cost_of(nis, det, used):
    """-2 ln of the likelihood of a trial; a channel left out is an outlier that could be anywhere."""
    cost = nis + np.log(det) + degrees(used) * _LN_2PI
    if not used & _RANGE:
        cost += _OUTLIER_RANGE
    if not used & _RATE:
        cost += _OUTLIER_RATE
    if not used & _ANGLES:
        cost += _OUTLIER_ANGLES
    return cost


@kernel
def commit(picture, room, pair, ms, rules, log):
    """Make the trial ``pair`` the track's state; says whether the tracker should look at it before going on."""
    slot = room.slots[pair]
    row = room.rows[pair]
    trials = room.trials
    if rules.model.estimate:
        regress(picture.coefficients[slot], trials.prior[pair], trials.x[pair], trials.P[pair])
    for i in range(6):
        picture.x[slot, i] = trials.x[pair, i]
    for i in range(36):
        picture.P[slot, i] = trials.P[pair, i]
    picture.epoch[slot] = ms.t[row]
    refresh_coarse(picture, slot)
    changed = touch(picture, slot, ms.t[row], ms.sensor[row], rules)
    if rules.shaped:
        learn(picture, slot, ms.sensor[row], room, pair, rules)
    n = log.made[0]
    log.row[n] = row
    log.slot[n] = slot
    log.x[n] = picture.x[slot]
    log.P[n] = picture.P[slot]
    log.status[n] = picture.status[slot]
    log.sensors[n] = picture.sensors[slot]
    log.hits[n] = picture.hits[slot]
    log.nis[n] = trials.nis[pair]
    log.used[n] = trials.used[pair]
    log.made[0] = n + 1
    return changed or picture.hits[slot] >= picture.review[slot]


@kernel
def scan_end(ms, start):
    """One past the last measurement of the scan that begins at ``start``: same sensor, same time."""
    end = start + 1
    while end < ms.t.shape[0] and ms.t[end] == ms.t[start] and ms.sensor[end] == ms.sensor[start]:
        end += 1
    return end


@kernel
def settle_plain_scans(W, picture, ms, start, until_ns, rules, room, log):
    """Settle scans from ``start`` on, as long as they are plain: every measurement in the gate of just one track,
    and no track wanted twice. (Of a lone measurement in several gates the likeliest track is the assignment.)

    Stops after a scan that changed a track's status or leaves it to be reviewed. Returns the index of the first
    measurement that was not settled, whether there is something to look at, and how many pairs of the scan that
    begins there stand tried in ``room`` (-1: none do).
    """
    at = start
    review = False
    while at < ms.t.shape[0] and ms.t[at] < until_ns and not review:
        end = scan_end(ms, at)
        n = pairs_of_scan(picture, ms, at, end, rules, room)
        if n < 0:
            return at, False, -1
        if rules.shaped:
            shape_noise(picture, ms, rules, room, n)
        try_pairs(
            W, n, room.slots, room.rows, picture.x, picture.P, picture.epoch,
            ms.z, ms.t, ms.channels, rules.model, rules.psd, rules.gates, rules.may_drop, room.trials,
        )  # fmt: skip
        settled = 0
        last_row = -1
        best = -1
        best_cost = np.inf
        plain = True
        for pair in range(n):
            if not room.trials.nis[pair] <= rules.gates[degrees(room.trials.used[pair])]:
                continue
            slot = room.slots[pair]
            row = room.rows[pair]
            if end - at > 1 and (row == last_row or room.claimed[slot] >= 0):
                plain = False
                break
            last_row = row
            settled += 1
            room.claimed[slot] = pair
            if end - at == 1:
                cost = cost_of(room.trials.nis[pair], room.trials.det[pair], room.trials.used[pair])
                if cost < best_cost:
                    best_cost = cost
                    best = pair
        if end - at == 1:
            plain = best >= 0
        else:
            plain = plain and settled == end - at
        if plain:
            for pair in range(n):
                if pair == best or (end - at > 1 and room.claimed[room.slots[pair]] == pair):
                    review = commit(picture, room, pair, ms, rules, log) or review
        for pair in range(n):
            room.claimed[room.slots[pair]] = -1
        if not plain:
            return at, False, n
        at = end
    return at, review, -1


@kernel
def gate(room, n, gates, inside, cost):
    """Indices of the first ``n`` pairs that are in their gate into ``inside``, their costs into ``cost``; how many."""
    trials = room.trials
    count = 0
    for pair in range(n):
        if trials.nis[pair] <= gates[degrees(trials.used[pair])]:
            inside[count] = pair
            cost[count] = cost_of(trials.nis[pair], trials.det[pair], trials.used[pair])
            count += 1
    return count


@kernel
def commit_pairs(picture, room, pairs, ms, rules, log):
    """Make the trials ``pairs`` their tracks' states; says whether the tracker should look at one before going on."""
    review = False
    for pair in pairs:
        review = commit(picture, room, pair, ms, rules, log) or review
    return review


def assign(
    rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], cost: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Global nearest neighbour: which of the pairs to take, at most one a row and one a slot.

    As many rows as possible are given a track; among those solutions the one of least total ``cost``. Returns
    indices into the pairs, ascending. Rows and slots are numbers from 0.
    """
    if len(rows) == 0:
        return np.zeros(0, np.int64)
    # a pair whose row and slot know no other is settled
    lone = (np.bincount(rows)[rows] == 1) & (np.bincount(slots)[slots] == 1)
    if lone.all():
        return np.arange(len(rows))
    contested = np.flatnonzero(~lone)
    taken = contested[_matched(rows[contested], slots[contested], cost[contested])]
    return np.sort(np.concatenate([np.flatnonzero(lone), taken]))


def _matched(
    rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], cost: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    _, r = np.unique(rows, return_inverse=True)
    _, s = np.unique(slots, return_inverse=True)
    n, m = int(r.max()) + 1, int(s.max()) + 1
    positive = cost - cost.min() + 1.0  # explicit zeros would be no edges
    # each row may stay alone, at a price that no exchange of real pairs can pay
    alone = float(positive.sum()) + 1.0
    graph = coo_array(
        (
            np.concatenate([positive, np.full(n, alone)]),
            (np.concatenate([r, np.arange(n)]), np.concatenate([s, m + np.arange(n)])),
        ),
        shape=(n, m + n),
    ).tocsr()
    got_rows, got_slots = min_weight_full_bipartite_matching(graph)
    partner = np.full(n, -1, np.int64)
    partner[got_rows] = got_slots
    return np.flatnonzero(partner[r] == s)
