"""Which measurement belongs to which track: gate, what an association is worth, and what comes of it.

Whole scans are settled with this in `settle`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.association.coarse import coarse_from
from fusionnode.track.association.looks import (
    LEARNT,
    SUREST,
    aged,
    clutter_density,
    detection_probability,
    note_false,
)
from fusionnode.track.association.misses import end_look
from fusionnode.track.filtering.filter import Trials, degrees, make_trials
from fusionnode.track.filtering.noise import learn as learn_noise
from fusionnode.track.filtering.sensing import FIRST_COLUMN
from fusionnode.track.motion.coefficients import regress
from fusionnode.track.picture import touched

_RANGE, _ANGLES, _RATE = int(Channel.RANGE), int(Channel.ANGLES), int(Channel.RANGE_RATE)

_VAR = FIRST_COLUMN + 17
_LN_2PI = float(np.log(2.0 * np.pi))
_OUTLIER_RANGE = 2.0 * float(np.log(1.0e7 / 0.03))
_OUTLIER_RATE = 2.0 * float(np.log(1.0e4 / 0.03))
_OUTLIER_ANGLES = 2.0 * float(np.log(1.0 / 0.03))
"""Cost of a channel left out: 3 in 100 are anywhere in 10,000 km, in 10 km/s, or in a steradian."""
USED, NEAR = 1, 2
"""Bits of what became of a measurement: it updated a track; a track was near enough for a trial."""


class Measurements(NamedTuple):
    """MEASUREMENT[n] as the kernels see it."""

    z: npt.NDArray[np.float64]  # (n, 27)
    t: npt.NDArray[np.int64]  # (n,) TAI ns
    sensor: npt.NDArray[np.int32]  # (n,)
    channels: npt.NDArray[np.uint8]  # (n,)


class Log(NamedTuple):
    """Updates in the order they were made; ``made[0]`` of them are valid. And what became of each measurement."""

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
    fate: npt.NDArray[np.uint8]  # (m,) by row: USED and NEAR, of scans that were settled


class Room(NamedTuple):
    """Memory that scans are worked in."""

    slots: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    claimed: npt.NDArray[np.int64]  # (N,) pair that claims the slot, or -1
    trials: Trials
    inside: npt.NDArray[np.int64]  # the pairs that are in their gates
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
        np.zeros(n, np.uint8),
    )


def make_room(capacity: int, pairs: int, beside: int = 0) -> Room:
    """Memory for scans of up to ``pairs`` pairs over ``capacity`` tracks that keep ``beside`` numbers each."""
    return Room(
        np.zeros(pairs, np.int64),
        np.zeros(pairs, np.int64),
        np.full(capacity, -1, np.int64),
        make_trials(pairs, beside),
        np.zeros(pairs, np.int64),
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
def gate(picture, room, n, ms, rules):
    """Which of the first ``n`` pairs, all of one scan, are in their gates: into ``room.inside``; how many.

    Sets ``gain``, ``prior`` and ``exist`` of each of them. The odds of a pair against missing its track and a false
    alarm are psi p L / (rho (1 - p psi)): psi the track's existence, p the probability of detection, L the likelihood,
    rho the density of false alarms (Musicki & Evans, IEEE Trans. AES 40(3), 2004). ``exist`` is the track's existence
    if no other track wants the measurement.
    """
    if n == 0:
        return 0
    trials, gates, inside = room.trials, rules.gates, room.inside
    nis, det, used = trials.nis, trials.det, trials.used
    slots, rows, gain, prior, exist = room.slots, room.rows, room.gain, room.prior, room.exist
    psi_of, psi_ns = picture.exist, picture.exist_ns
    sensor, t_ns = ms.sensor[rows[0]], ms.t[rows[0]]
    p = detection_probability(picture, rules.looks, sensor)
    tally = picture.learnt[0, LEARNT * sensor : LEARNT * (sensor + 1), 0]
    expected = rules.looks.prior[:, sensor]
    life_s = rules.life_s
    count = 0
    for pair in range(n):
        if not nis[pair] <= gates[degrees(used[pair])]:
            continue
        slot, channels = slots[pair], ms.channels[rows[pair]]
        psi = aged(psi_of[slot], (t_ns - psi_ns[slot]) * 1e-9, life_s)
        psi = max(psi, 1.0 - SUREST)
        ln = -0.5 * cost_of(nis[pair], det[pair], used[pair], channels)
        ln -= clutter_density(tally, expected, channels)
        worth = ln + np.log(psi * p / (1.0 - p * psi))
        gain[pair] = worth
        prior[pair] = psi
        exist[pair] = exist_after(psi, p, 1.0 / (1.0 + np.exp(min(worth, 500.0))))
        inside[count] = pair
        count += 1
    return count


@kernel
def exist_after(psi, p, alone):
    """Existence of a track that had ``psi`` and was given nothing with probability ``alone``."""
    return min(1.0 - alone * (1.0 - psi) / (1.0 - p * psi), SUREST)


@kernel
def commit_pairs(picture, room, pairs, ms, rules, log):
    """Make the trials ``pairs`` their tracks' states; says whether the tracker should look at one before going on."""
    p, trials = picture, room.trials
    review = False
    for pair in pairs:
        slot = room.slots[pair]
        row = room.rows[pair]
        t_ns = ms.t[row]
        if rules.model.estimate:
            regress(p.coefficients[slot], trials.prior[pair], trials.x[pair], trials.P[pair])
        n = log.made[0]
        for i in range(6):
            p.x[slot, i] = log.x[n, i] = trials.x[pair, i]
        for i in range(36):
            p.P[slot, i] = log.P[n, i] = trials.P[pair, i]
        for i in range(p.beside.shape[1]):
            p.beside[slot, i] = trials.beside[pair, i]
        p.epoch[slot] = t_ns
        p.exist[slot] = room.exist[pair]
        p.exist_ns[slot] = t_ns
        coarse_from(p, slot)
        changed = touched(p, slot, t_ns, ms.sensor[row], rules)
        if rules.shaped:
            learn_noise(p, slot, ms.sensor[row], room, pair, rules)
        log.row[n] = row
        log.slot[n] = slot
        log.status[n] = p.status[slot]
        log.sensors[n] = p.sensors[slot]
        log.hits[n] = p.hits[slot]
        log.nis[n] = trials.nis[pair]
        log.used[n] = trials.used[pair]
        log.exist[n] = room.exist[pair]
        for c in range(4):
            log.taken[n, c] = ms.z[row, _VAR + c]
            if rules.shaped:
                log.taken[n, c] = trials.noise[pair, c] + trials.noise[pair, 4 + c]
        log.made[0] = n + 1
        review = review or changed or p.hits[slot] >= p.review[slot]
    return review


@kernel
def conclude(picture, room, n, pairs, ms, start, end, rules, log):
    """Settle the scan from ``start`` to ``end`` with ``pairs``, of the ``n`` that stand tried in ``room``.

    What becomes of its measurements stands in ``log.fate``. Returns whether the tracker should look at a track before
    going on, and how many measurements found no track.
    """
    fate = log.fate
    for row in range(start, end):
        fate[row] = 0
    for pair in range(n):
        fate[room.rows[pair]] = NEAR
    for pair in pairs:
        fate[room.rows[pair]] |= USED
    review = commit_pairs(picture, room, pairs, ms, rules, log)
    left = 0
    for row in range(start, end):
        if not fate[row] & USED:
            note_false(picture, ms.sensor[start], ms.z[row], ms.channels[row])
            left += 1
    return end_look(picture, ms, start, rules) or review, left


@kernel
def scan_end(ms, start):
    """One past the last measurement of the scan that begins at ``start``: same sensor, same time."""
    end = start + 1
    while end < ms.t.shape[0] and ms.t[end] == ms.t[start] and ms.sensor[end] == ms.sensor[start]:
        end += 1
    return end
