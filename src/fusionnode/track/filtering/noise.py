"""How noisy a sensor is for one track just now: errors that wander, and sigmas that are not what the papers say.

Two things keep the noise of a real sensor from being white and of the configured size.

*It wanders.* A radar's servo follows the echo with a lag; its angle errors stay alike for seconds. Detections once a
second are then far fewer than they look. An error of variance w2 with correlation time T (first order Gauss-Markov:
Gelb, Applied Optimal Estimation, section 3.6), sampled each dt, tells as much of a constant as white noise of variance
w2 coth(dt / 2T), after a first sample that counts in full: n samples weigh (n - (n - 2) f) / (1 + f) with
f = exp(-dt / T).
So an update takes that variance, while the gate, which asks how far a single detection may be off, takes w2 itself.

*It is not the configured one.* Signal strength, and so noise, changes from pass to pass by factors. Per track and
sensor, each channel's innovations are held against their covariance, and a factor on the variance follows them: a
stochastic approximation in its logarithm (Robbins and Monro, Annals of Mathematical Statistics 22, 1951), with
innovations clipped (Huber), so that the bulk of the detections decides and not the wild ones. Where the wander is
estimated beside the state (see `consider`), what drives it has the same factor. Each pass begins from the configured
sigmas.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.filtering.sensing import FIRST_COLUMN

HEARD = 4
"""Sensors that a track remembers the noise of; the one heard longest ago makes room."""
_VAR = FIRST_COLUMN + 17
_RANGE, _ANGLES, _RATE = int(Channel.RANGE), int(Channel.ANGLES), int(Channel.RANGE_RATE)
CLIP = 1.0
"""Squared innovations count up to this, in their variances."""
CLIPPED_MEAN = 0.516059
"""Mean of min(z^2, CLIP) of a standard normal z."""
PRIOR = 4.0
"""Detections that the configured sigma is worth at the start of a pass."""
LARGEST_LOG = float(np.log(100.0))
"""A variance is taken for at most 100 times what is configured, and at least a 100th."""
PASS_NS = 600_000_000_000
"""After so long without a detection by the sensor the next one begins another pass."""


@kernel
def shape_noise(picture, ms, rules, room, n):
    """Fill ``room.trials.noise`` (n, 8) of the first ``n`` pairs, see `noise_of`."""
    trials = room.trials
    for i in range(n):
        trials.shaped[i] = True
        row = room.rows[i]
        noise_of(picture, room.slots[i], ms.z[row], ms.t[row], ms.sensor[row], rules, trials.noise[i])


@kernel
def noise_of(picture, slot, z, t_ns, sensor, rules, out):
    """Into ``out`` (8,): the variance of each channel of a measurement for the track in ``slot``, and what an update
    adds to it because the error wanders; m^2, rad^2, rad^2, m^2/s^2.

    ``z`` (27,): MEASUREMENT seen as float64, at ``t_ns``, TAI ns, of ``sensor`` (index).
    """
    k = _heard(picture, slot, sensor)
    grown = 0.0
    followed = k >= 0 and t_ns - picture.heard_ns[slot, k] <= PASS_NS
    if k >= 0 and rules.wander_s[sensor] > 0.0:
        since = abs(t_ns - picture.heard_ns[slot, k]) * 1e-9
        half = max(0.5 * since / rules.wander_s[sensor], 1e-6)
        grown = 1.0 / np.tanh(half) - 1.0
    for c in range(4):
        scale = np.exp(picture.log_noise[slot, k, c]) if followed else 1.0
        out[c] = scale * z[_VAR + c]
        out[4 + c] = scale * rules.wander[sensor, c] * grown


@kernel
def _heard(picture, slot, sensor):
    """Where the track in ``slot`` remembers ``sensor``; -1 if it does not."""
    for k in range(HEARD):
        if picture.heard[slot, k] == sensor:
            return k
    return -1


@kernel
def hear(picture, slot, t_ns, sensor):
    """``sensor`` has updated the track in ``slot``: remember when."""
    k = _heard(picture, slot, sensor)
    if k < 0:
        k = 0
        for j in range(HEARD):
            if picture.heard_ns[slot, j] < picture.heard_ns[slot, k]:
                k = j
        picture.heard[slot, k] = sensor
        picture.heard_n[slot, k] = 0
        for c in range(4):
            picture.log_noise[slot, k, c] = 0.0
    elif t_ns - picture.heard_ns[slot, k] > PASS_NS:
        picture.heard_n[slot, k] = 0
        for c in range(4):
            picture.log_noise[slot, k, c] = 0.0
    picture.heard_ns[slot, k] = t_ns
    picture.heard_n[slot, k] += 1


@kernel
def forget(picture, slot):
    """The track in ``slot`` is a new one."""
    for k in range(HEARD):
        picture.heard[slot, k] = -1
        picture.heard_ns[slot, k] = 0


@kernel
def learn(picture, slot, sensor, room, pair, rules):
    """Let the noise factors of the track in ``slot`` follow the innovations of the trial ``pair``, which was used."""
    if rules.noise_memory <= 0.0:
        return
    k = _heard(picture, slot, sensor)
    trials = room.trials
    used = trials.used[pair]
    gain = 1.0 / min(PRIOR + picture.heard_n[slot, k], rules.noise_memory)
    for c in range(4):
        bit = _RANGE if c == 0 else (_RATE if c == 3 else _ANGLES)
        if not used & bit:
            continue
        own = trials.noise[pair, c] + trials.driven[pair, c]
        whole = trials.noise[pair, c] + trials.spread[pair, c]
        own = min(own, whole)
        ratio = min(trials.y[pair, c] ** 2 / whole, CLIP) / CLIPPED_MEAN
        moved = picture.log_noise[slot, k, c] + gain * (own / whole) * (ratio - 1.0)
        picture.log_noise[slot, k, c] = min(max(moved, -LARGEST_LOG), LARGEST_LOG)


def noise_memory(capacity: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64],
                                         npt.NDArray[np.float64]]:  # fmt: skip
    """What ``capacity`` tracks remember: sensors, when each was last heard (TAI ns), how often in this pass, and the
    logarithms of the factors on the variances of its channels.
    """
    return (
        np.full((capacity, HEARD), -1, np.int64),
        np.zeros((capacity, HEARD), np.int64),
        np.zeros((capacity, HEARD), np.int64),
        np.zeros((capacity, HEARD, 4)),
    )
