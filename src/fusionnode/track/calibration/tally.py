"""What every update says of its sensor, gathered in compiled code: a tally of innovations, by sensor and by visit.

An innovation is worked back from the state after the update: with posterior residual e, R of the channel and h P h'
of the posterior, the innovation is y = e R / (R - h P h') and its variance S = R^2 / (R - h P h'). So the filter
need not give more than it gives anyway. A channel that was left out has y = e, S = R + h P h'.

R there is what the update was made with. A sensor is judged by the sigma that is configured for it (or came with the
detection): a filter that widens its R to what comes in must not make the sensor look well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.filtering.filter import load_measurement, load_track
from fusionnode.track.filtering.sensing import linearise_lanes
from fusionnode.track.lanes import LANES, LEFT, VAR, X_LIN, H, X, Y

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

VISITS = 8192
"""Entries of the table of visits; two that want the same one take turns."""
VISIT_MEMORY = 1.0 / 16.0
"""Weight of the newest ratio in a visit's mean."""
RATIO_CAP = 10.0
"""A NIS per degree of freedom counts at most so much: one wild detection is no verdict."""
NOISE_MEMORY = 1.0 / 600.0
CLIP = 2.5
CLIPPED = 0.977_560
"""Mean of min(u^2, CLIP^2) of a standard normal u."""
FRESH_S = 120.0
"""Innovations further apart than this do not follow each other."""
NOT_MUCH = 0.5
"""Updates in which the posterior takes more than this part of R say little of R."""
_RANGE, _ANGLES, _RATE = int(Channel.RANGE), int(Channel.ANGLES), int(Channel.RANGE_RATE)


class Tally(NamedTuple):
    """Sums that the kernels add to. S sensors, N slots, K = VISITS."""

    # by sensor and channel
    white: F64  # (S, 4) variance from one detection to the next, in units of the var that came with them
    white_n: F64  # (S, 4)
    square: F64  # (S, 4) mean of y^2 / S, clipped
    lag: F64  # (S, 4) mean of y_k y_(k-1) / S
    square_n: F64  # (S, 4)
    # by slot: the newest two innovations of the sensor that updated it last
    owner: I64  # (N,) number of the track and 1
    who: I64  # (N,) sensor
    told: I64  # (N,) sensor that updated it last with all of its channels
    when: I64  # (N,) TAI ns
    depth: I64  # (N,) how many follow each other
    newest: F64  # (N, 8) y of the newest, then of the one before, in sigma
    # visits: one sensor at one track after one sensor (itself, or another)
    visit: I64  # (K, 6) track, sensor, the one before, first and newest time, detections
    ratio: F64  # (K,) running mean of NIS per degree of freedom
    fresh: npt.NDArray[np.bool_]  # (K,) changed since it was last looked at
    support: I64  # (S, 2) detections of tracks that other sensors hold too; and of this sensor's own
    busy: npt.NDArray[np.bool_]  # (1,) something came in since it was last looked at


def make_tally(sensors: int, slots: int) -> Tally:
    """An empty one."""
    s, n, k = sensors, slots, VISITS
    return Tally(
        white=np.ones((s, 4)),
        white_n=np.zeros((s, 4)),
        square=np.ones((s, 4)),
        lag=np.zeros((s, 4)),
        square_n=np.zeros((s, 4)),
        owner=np.zeros(n, np.int64),
        who=np.zeros(n, np.int64),
        told=np.full(n, -1, np.int64),
        when=np.zeros(n, np.int64),
        depth=np.zeros(n, np.int64),
        newest=np.zeros((n, 8)),
        visit=np.full((k, 6), -1, np.int64),
        ratio=np.zeros(k),
        fresh=np.zeros(k, np.bool_),
        support=np.zeros((s, 2), np.int64),
        busy=np.zeros(1, np.bool_),
    )


def copy_of(tally: Tally, high: int) -> Tally:
    """A copy that shares nothing; slots from ``high`` on were never used."""
    out = []
    for name, array in tally._asdict().items():
        if name in _BY_SLOT:
            new = np.zeros(array.shape, array.dtype)  # not zeros_like, which writes to all of it
            new[:high] = array[:high]
            out.append(new)
        else:
            out.append(array.copy())
    return Tally(*out)


_BY_SLOT = ("owner", "who", "told", "when", "depth", "newest")


@kernel
def note_visit(tally, track, sensor, before, t_ns, ratio):
    """One more detection of ``sensor`` at ``track``, which ``before`` had updated last; NIS per degree of freedom."""
    k = (track * 131 + sensor * 17 + before + 1) % tally.visit.shape[0]
    v = tally.visit[k]
    if v[0] != track or v[1] != sensor or v[2] != before:
        v[0], v[1], v[2], v[3], v[5] = track, sensor, before, t_ns, 0
        tally.ratio[k] = 0.0
    v[4] = t_ns
    v[5] += 1
    share = max(VISIT_MEMORY, 1.0 / v[5])
    tally.ratio[k] += share * (min(ratio, RATIO_CAP) - tally.ratio[k])
    tally.fresh[k] = True
    tally.busy[0] = True


@kernel
def note_updates(W, tally, n, slots, rows, numbers, x, P, used, nis, seen_by, taken, widened, ms):
    """Take in ``n`` updates in their order: slot, row of ``ms``, track, posterior ``x`` (n, 6) and ``P`` (n, 36),
    channels used, NIS, sensors that saw the track (bits), variances taken (n, 4). ``widened`` (S,): by how much the
    verdict on a sensor widens its sigmas; it is judged without.
    """
    L = LANES
    y = np.empty(4)
    for start in range(0, n, L):
        size = min(L, n - start)
        for m in range(size):
            load_track(W, m, x[start + m], P[start + m], 0.0, 0.0, 0.0, 0.0)
            row = rows[start + m]
            load_measurement(W, m, ms.z[row], ms.channels[row])
        for m in range(size, L):
            W[LEFT + m] = 0.0
        for i in range(6 * L):
            W[X_LIN + i] = W[X + i]
        linearise_lanes(W)
        for m in range(size):
            i = start + m
            row = rows[i]
            slot = slots[i]
            sensor = ms.sensor[row]
            t_ns = ms.t[row]
            follows = (
                tally.owner[slot] == numbers[i] + 1
                and tally.who[slot] == sensor
                and t_ns > tally.when[slot]
                and t_ns - tally.when[slot] < FRESH_S * 1e9
            )
            before = tally.told[slot] if tally.owner[slot] == numbers[i] + 1 else -1
            depth = tally.depth[slot] if follows else 0
            freedom = 0
            sum2 = 0.0
            told = 0
            narrow = 1.0 / (widened[sensor] * widened[sensor])
            tally.support[sensor, 0 if seen_by[i] & ~(np.uint64(1) << np.uint64(sensor)) else 1] += 1
            for c in range(4):
                bit = _RANGE if c == 0 else (_RATE if c == 3 else _ANGLES)
                y[c] = np.nan
                if not ms.channels[row] & bit:
                    continue
                freedom += 1
                r = W[VAR + c * L + m]
                was = taken[i, c]
                part = 0.0
                for j in range(6):
                    for k in range(6):
                        part += W[H + (6 * c + j) * L + m] * P[i, 6 * j + k] * W[H + (6 * c + k) * L + m]
                part /= was
                e = W[Y + c * L + m]
                if used[i] & bit:
                    if part > NOT_MUCH:
                        continue
                    yc = e / (1.0 - part)
                    s = r + was * part / (1.0 - part)
                else:
                    yc = e
                    s = r + was * part
                y[c] = yc / np.sqrt(r)
                sum2 += yc * yc / max(s - r * (1.0 - narrow), r * narrow)
                told += 1
                share = max(NOISE_MEMORY, 1.0 / (tally.square_n[sensor, c] + 1.0))
                u2 = min(yc * yc / s, CLIP * CLIP * max(tally.square[sensor, c], 1e-4)) / CLIPPED
                tally.square[sensor, c] += share * (u2 - tally.square[sensor, c])
                if follows and depth >= 1 and np.isfinite(tally.newest[slot, c]):
                    a = y[c] * tally.newest[slot, c] * r / s
                    bound = CLIP * CLIP * max(tally.square[sensor, c], 1e-4)
                    tally.lag[sensor, c] += share * (min(max(a, -bound), bound) - tally.lag[sensor, c])
                tally.square_n[sensor, c] += 1.0
                if follows and depth >= 2 and np.isfinite(tally.newest[slot, c] + tally.newest[slot, 4 + c]):
                    d = y[c] - 2.0 * tally.newest[slot, c] + tally.newest[slot, 4 + c]
                    g = part if used[i] & bit else 0.0
                    d2 = d * d / (6.0 + 6.0 * g + 2.0 * g * g)
                    d2 = min(d2, CLIP * CLIP * max(tally.white[sensor, c], 1e-8)) / CLIPPED
                    share = max(NOISE_MEMORY, 1.0 / (tally.white_n[sensor, c] + 1.0))
                    tally.white[sensor, c] += share * (d2 - tally.white[sensor, c])
                    tally.white_n[sensor, c] += 1.0
            for c in range(4):
                tally.newest[slot, 4 + c] = tally.newest[slot, c] if follows else np.nan
                tally.newest[slot, c] = y[c]
            if used[i] == ms.channels[row]:
                tally.told[slot] = sensor
            elif tally.owner[slot] != numbers[i] + 1:
                tally.told[slot] = -1
            tally.owner[slot] = numbers[i] + 1
            tally.who[slot] = sensor
            tally.when[slot] = t_ns
            tally.depth[slot] = depth + 1
            ratio = sum2 / told if told == freedom else _ratio(nis[i], used[i])
            note_visit(tally, numbers[i], sensor, before, t_ns, ratio)


@kernel
def _ratio(nis, channels):
    n = 0
    if channels & _RANGE:
        n += 1
    if channels & _ANGLES:
        n += 2
    if channels & _RATE:
        n += 1
    return nis / max(n, 1)


@kernel
def note_refused(tally, n, rows, slots, numbers, nis, ms):
    """Take in trials that failed: of each row the pair of least NIS, against the track that it should have been."""
    i = 0
    while i < n:
        best = i
        j = i + 1
        while j < n and rows[j] == rows[i]:
            if nis[j] < nis[best]:
                best = j
            j += 1
        row = rows[i]
        slot = slots[best]
        track = numbers[best]
        if np.isfinite(nis[best]):
            before = tally.told[slot] if tally.owner[slot] == track + 1 else -1
            note_visit(tally, track, ms.sensor[row], before, ms.t[row], _ratio(nis[best], ms.channels[row]))
        i = j
