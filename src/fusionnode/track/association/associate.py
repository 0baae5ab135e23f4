"""Which measurement belongs to which track: trial, gate, and what an association is worth.

A scan (one sensor, one time) in which every measurement has one track and no track two is settled in compiled
code; others go to an assignment, cluster by cluster (`cluster`), or to marginal probabilities (`jpda`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.association.coarse import refresh_coarse
from fusionnode.track.association.looks import SUREST, aged, clutter_density, detection_probability
from fusionnode.track.association.misses import end_look
from fusionnode.track.association.select import pairs_of_scan
from fusionnode.track.filtering.filter import Trials, degrees, make_trials, try_pairs
from fusionnode.track.filtering.noise import learn as learn_noise
from fusionnode.track.filtering.noise import shape_noise
from fusionnode.track.filtering.sensing import FIRST_COLUMN
from fusionnode.track.motion.coefficients import regress
from fusionnode.track.picture import touch

_RANGE, _ANGLES, _RATE = int(Channel.RANGE), int(Channel.ANGLES), int(Channel.RANGE_RATE)

_VAR = FIRST_COLUMN + 17
_LN_2PI = float(np.log(2.0 * np.pi))
_OUTLIER_RANGE = 2.0 * float(np.log(1.0e7 / 0.03))
_OUTLIER_RATE = 2.0 * float(np.log(1.0e4 / 0.03))
_OUTLIER_ANGLES = 2.0 * float(np.log(1.0 / 0.03))
"""Cost of a channel left out: 3 in 100 are anywhere in 10,000 km, in 10 km/s, or in a steradian."""
SURE = 1e-3
"""With "jpda", a pair without rivals that is wrong with less probability than this is taken as it is."""
_SURE_GAIN = float(np.log(1.0 / SURE - 1.0))


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
    exist: npt.NDArray[np.float64]
    taken: npt.NDArray[np.float64]  # (m, 4) variances of the channels that the update was made with


class Room(NamedTuple):
    """Memory that scans are worked in."""

    slots: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    claimed: npt.NDArray[np.int64]  # (N,) pair that claims the slot, or -1
    trials: Trials
    gain: npt.NDArray[np.float64]  # by pair: ln of the odds that it is a true one, against leaving both alone
    prior: npt.NDArray[np.float64]  # by pair: existence of its track before the scan
    exist: npt.NDArray[np.float64]  # by pair: existence of its track once it is taken


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
        np.zeros(n),
        np.zeros((n, 4)),
    )


def make_room(capacity: int, pairs: int, beside: int = 0) -> Room:
    """Memory for scans of up to ``pairs`` pairs over ``capacity`` tracks that keep ``beside`` numbers each."""
    return Room(
        np.zeros(pairs, np.int64),
        np.zeros(pairs, np.int64),
        np.full(capacity, -1, np.int64),
        make_trials(pairs, beside),
        np.zeros(pairs),
        np.zeros(pairs),
        np.zeros(pairs),
    )


@kernel
def cost_of(nis, det, used, channels):
    """-2 ln of the likelihood of a trial; one of ``channels`` left out is an outlier that could be anywhere."""
    cost = nis + np.log(det) + degrees(used) * _LN_2PI
    left_out = channels & ~used
    if left_out & _RANGE:
        cost += _OUTLIER_RANGE
    if left_out & _RATE:
        cost += _OUTLIER_RATE
    if left_out & _ANGLES:
        cost += _OUTLIER_ANGLES
    return cost


@kernel
def weigh(picture, room, pair, ms, rules):
    """Set ``gain``, ``prior`` and ``exist`` of one pair that is in its gate.

    The odds of a pair against missing its track and a false alarm are psi p L / (rho (1 - p psi)): psi the track's
    existence, p the probability of detection, L the likelihood, rho the density of false alarms (Musicki &
    Evans, IEEE Trans. AES 40(3), 2004). ``exist`` is the track's existence if no other track wants the measurement.
    """
    slot, row = room.slots[pair], room.rows[pair]
    sensor, channels = ms.sensor[row], ms.channels[row]
    trials = room.trials
    p = detection_probability(picture, rules.looks, sensor)
    psi = aged(picture.exist[slot], (ms.t[row] - picture.exist_ns[slot]) * 1e-9, rules.life_s)
    psi = max(psi, 1.0 - SUREST)
    ln = -0.5 * cost_of(trials.nis[pair], trials.det[pair], trials.used[pair], channels)
    ln -= clutter_density(picture, rules.looks, sensor, channels)
    gain = ln + np.log(psi * p / (1.0 - p * psi))
    room.gain[pair] = gain
    room.prior[pair] = psi
    room.exist[pair] = exist_after(psi, p, 1.0 / (1.0 + np.exp(min(gain, 500.0))))


@kernel
def exist_after(psi, p, alone):
    """Existence of a track that had ``psi`` and was given nothing with probability ``alone``."""
    return min(1.0 - alone * (1.0 - psi) / (1.0 - p * psi), SUREST)


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
    for i in range(picture.beside.shape[1]):
        picture.beside[slot, i] = trials.beside[pair, i]
    picture.epoch[slot] = ms.t[row]
    picture.exist[slot] = room.exist[pair]
    picture.exist_ns[slot] = ms.t[row]
    refresh_coarse(picture, slot)
    changed = touch(picture, slot, ms.t[row], ms.sensor[row], rules)
    if rules.shaped:
        learn_noise(picture, slot, ms.sensor[row], room, pair, rules)
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
    log.exist[n] = room.exist[pair]
    for c in range(4):
        log.taken[n, c] = ms.z[row, _VAR + c]
        if rules.shaped:
            log.taken[n, c] = trials.noise[pair, c] + trials.noise[pair, 4 + c]
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
        if log.made[0] + end - at > log.row.shape[0]:
            break
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
        plain = True
        for pair in range(n):
            if not room.trials.nis[pair] <= rules.gates[degrees(room.trials.used[pair])]:
                continue
            slot = room.slots[pair]
            row = room.rows[pair]
            weigh(picture, room, pair, ms, rules)
            sure = room.gain[pair] > (_SURE_GAIN if rules.jpda else 0.0)
            many = end - at > 1 or rules.jpda
            if not sure or (many and (row == last_row or room.claimed[slot] >= 0)):
                plain = False
                break
            last_row = row
            settled += 1
            room.claimed[slot] = pair
            if best < 0 or room.gain[pair] > room.gain[best]:
                best = pair
        if end - at == 1:
            plain = plain and best >= 0
        else:
            plain = plain and settled == end - at
        if plain:
            for pair in range(n):
                if pair == best or (end - at > 1 and room.claimed[room.slots[pair]] == pair):
                    review = commit(picture, room, pair, ms, rules, log) or review
            review = end_look(picture, ms, at, rules) or review
        for pair in range(n):
            room.claimed[room.slots[pair]] = -1
        if not plain:
            return at, False, n
        at = end
    return at, review, -1


@kernel
def gate(picture, room, n, ms, rules, inside):
    """Indices of the first ``n`` pairs that are in their gate into ``inside``, each of them weighed; how many."""
    trials = room.trials
    count = 0
    for pair in range(n):
        if trials.nis[pair] <= rules.gates[degrees(trials.used[pair])]:
            inside[count] = pair
            weigh(picture, room, pair, ms, rules)
            count += 1
    return count


@kernel
def commit_pairs(picture, room, pairs, ms, rules, log):
    """Make the trials ``pairs`` their tracks' states; says whether the tracker should look at one before going on."""
    review = False
    for pair in pairs:
        review = commit(picture, room, pair, ms, rules, log) or review
    return review
