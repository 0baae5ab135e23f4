"""The picture: all tracks of the node, as arrays, one row a track; and the rules they live by.

Rows ("slots") are reused; a track's number never is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from fusionnode.config import Config
from fusionnode.core.kernels import inlined, kernel
from fusionnode.core.types import MAX_SENSORS, TRACK_STATE, Status, StructArray
from fusionnode.track.association.looks import LEARNT, Looks, make_looks
from fusionnode.track.filtering.errors import Errors, make_errors
from fusionnode.track.filtering.noise import hear, noise_memory
from fusionnode.track.motion.coefficients import COLUMNS
from fusionnode.track.motion.dynamics import Dynamics

NEVER = np.iinfo(np.int64).max
RING = 8
_TENTATIVE, _CONFIRMED, _COASTING = int(Status.TENTATIVE), int(Status.CONFIRMED), int(Status.COASTING)


class Picture(NamedTuple):
    """Tracks as arrays; N is the capacity. ``high[0]`` is one past the highest slot in use."""

    high: npt.NDArray[np.int64]  # (1,)
    active: npt.NDArray[np.bool_]  # (N,)
    number: npt.NDArray[np.int64]  # (N,) the track's number
    x: npt.NDArray[np.float64]  # (N, 6) m, m/s, GCRF
    P: npt.NDArray[np.float64]  # (N, 36) row by row
    epoch: npt.NDArray[np.int64]  # (N,) TAI ns, of x and P
    last_ob: npt.NDArray[np.int64]  # (N,) TAI ns, of the newest measurement used
    status: npt.NDArray[np.uint8]  # (N,) Status
    hits: npt.NDArray[np.int64]  # (N,) measurements used
    ring: npt.NDArray[np.int64]  # (N, RING) times of the newest hits, TAI ns
    ring_sensor: npt.NDArray[np.int64]  # (N, RING) and by which sensors
    ring_n: npt.NDArray[np.int64]  # (N,) entries made since the track was placed
    sensors: npt.NDArray[np.uint64]  # (N,) bit i: sensor i contributed
    object: npt.NDArray[np.int64]  # (N,) row of the catalogue, or -1
    object_p: npt.NDArray[np.float64]  # (N,) probability that it is that object, or nan
    due: npt.NDArray[np.int64]  # (N,) TAI ns, when it wants attention if no measurement comes
    review: npt.NDArray[np.int64]  # (N,) number of hits at which its identity is looked at (again)
    exist: npt.NDArray[np.float64]  # (N,) probability that the track's object exists, at exist_ns
    exist_ns: npt.NDArray[np.int64]  # (N,)
    coarse: npt.NDArray[
        np.float64
    ]  # (9, N) position, velocity, acceleration at coarse_ns, for selection only
    coarse_sigma: npt.NDArray[np.float64]  # (2, N) of position, m, and of velocity, m/s
    coarse_ns: npt.NDArray[np.int64]  # (N,)
    coefficients: npt.NDArray[np.float64]  # (N, coefficients.COLUMNS)
    heard: npt.NDArray[np.int64]  # (N, HEARD) sensors whose noise it remembers (see `noise`), or -1
    heard_ns: npt.NDArray[np.int64]  # (N, HEARD) TAI ns, when each was last used
    heard_n: npt.NDArray[np.int64]  # (N, HEARD) how often in its pass
    log_noise: npt.NDArray[np.float64]  # (N, HEARD, 4) logarithms of the factors on its variances
    learnt: npt.NDArray[np.float64]  # (1, MAX_SENSORS * LEARNT, 1) what sensors are like (see `looks`)
    beside: npt.NDArray[np.float64]  # (N, B) what the filter keeps beside x and P; B is 0 for most


class Rules(NamedTuple):
    """What the kernels need to know of the configuration."""

    model: Dynamics
    psd: float  # m^2/s^3
    gates: npt.NDArray[np.float64]  # (5,) chi-square gate by degrees of freedom
    may_drop: bool  # one outlying channel may be left out
    shaped: bool  # whether noise is a matter of track and sensor: the next three
    wander: npt.NDArray[
        np.float64
    ]  # (sensors, 4) m^2, rad^2, rad^2, m^2/s^2: the part of the noise that wanders
    wander_s: npt.NDArray[np.float64]  # (sensors,) its correlation time
    noise_memory: float  # detections over which factors on the noise follow the innovations; 0: none do
    confirm_hits: int
    confirm_ns: npt.NDArray[np.int64]  # (sensors,) window for confirm_hits
    coast_after_ns: npt.NDArray[np.int64]  # (sensors,)
    tentative_ns: npt.NDArray[np.int64]  # (sensors,)
    tick_ns: int
    looks: Looks
    jpda: bool
    by_existence: bool
    confirm_at: float
    drop_at: float
    birth: float
    life_s: float
    manoeuvre_psd: float  # m^2/s^3, of the second mode (see modes)
    sojourn_s: npt.NDArray[np.float64]  # (2,) mean stay in the quiet and in the manoeuvring mode
    errors: Errors  # of sensors, carried beside the state


def make_picture(capacity: int, beside: int = 0) -> Picture:
    """An empty picture with room for ``capacity`` tracks that keep ``beside`` numbers each beside x and P."""
    n = capacity
    heard, heard_ns, heard_n, log_noise = noise_memory(n)
    return Picture(
        high=np.zeros(1, np.int64),
        active=np.zeros(n, np.bool_),
        number=np.zeros(n, np.int64),
        x=np.zeros((n, 6)),
        P=np.zeros((n, 36)),
        epoch=np.zeros(n, np.int64),
        last_ob=np.zeros(n, np.int64),
        status=np.zeros(n, np.uint8),
        hits=np.zeros(n, np.int64),
        ring=np.zeros((n, RING), np.int64),
        ring_sensor=np.zeros((n, RING), np.int64),
        ring_n=np.zeros(n, np.int64),
        sensors=np.zeros(n, np.uint64),
        object=np.full(n, -1, np.int64),
        object_p=np.full(n, np.nan),
        due=np.full(n, NEVER, np.int64),
        review=np.full(n, NEVER, np.int64),
        exist=np.zeros(n),
        exist_ns=np.zeros(n, np.int64),
        coarse=np.zeros((9, n)),
        coarse_sigma=np.zeros((2, n)),
        coarse_ns=np.zeros(n, np.int64),
        coefficients=np.zeros((n, COLUMNS)),
        heard=heard,
        heard_ns=heard_ns,
        heard_n=heard_n,
        log_noise=log_noise,
        learnt=np.zeros((1, MAX_SENSORS * LEARNT, 1)),
        beside=np.zeros((n, beside)),
    )


def make_rules(config: Config, model: Dynamics) -> Rules:
    """The kernels' view of ``config``; sensors in the order they stand there."""
    t = config.tracking
    wander = np.array([s.wander() for s in config.sensor.values()])
    if t.estimate_errors:
        wander[:] = 0.0  # what is estimated is no noise
    revisit = np.array([s.revisit_s for s in config.sensor.values()])
    return Rules(
        model=model,
        psd=t.process_noise_psd_m2_s3,
        gates=np.concatenate([[0.0], chi2.ppf(t.gate_probability, np.arange(1, 5))]),
        may_drop=t.outlier_channels > 0,
        shaped=bool(wander.any()) or t.noise_memory > 0,
        wander=wander,
        wander_s=np.array([s.wander_s for s in config.sensor.values()]),
        noise_memory=float(t.noise_memory),
        confirm_hits=t.confirm_hits,
        confirm_ns=(revisit * t.confirm_revisits * 1e9).astype(np.int64),
        coast_after_ns=(revisit * t.coast_after_revisits * 1e9).astype(np.int64),
        # a slow sensor's track must live to see the next detection
        tentative_ns=(np.maximum(t.tentative_limit_s, revisit * t.coast_after_revisits) * 1e9).astype(
            np.int64
        ),
        tick_ns=int(t.tick_s * 1e9),
        looks=make_looks(config),
        jpda=t.association == "jpda",
        by_existence=t.confirm == "existence",
        confirm_at=t.confirm_existence,
        drop_at=t.drop_existence,
        birth=t.birth_existence,
        life_s=t.existence_life_s,
        manoeuvre_psd=t.manoeuvre_psd_m2_s3,
        sojourn_s=np.array([t.quiet_mean_s, t.manoeuvre_mean_s]),
        errors=make_errors(config.sensor.values(), t.error_kinds, t.estimate_errors),
    )


@kernel
def next_tick(t_ns, tick_ns):
    """The first multiple of ``tick_ns`` at or after ``t_ns``."""
    return -(-t_ns // tick_ns) * tick_ns


@inlined
def touched(picture, slot, t_ns, sensor, rules):
    """As `touch`, written out where it is used.

    A measurement of ``sensor`` at ``t_ns`` was used by the track in ``slot``; says if that changed its status.

    A track that stays confirmed waits as long as the most patient of its sensors.
    """
    p = picture
    before = p.status[slot]
    p.last_ob[slot] = t_ns
    p.ring[slot, p.ring_n[slot] % RING] = t_ns
    p.ring_sensor[slot, p.ring_n[slot] % RING] = sensor
    p.ring_n[slot] += 1
    p.hits[slot] += 1
    if rules.shaped:
        hear(p, slot, t_ns, sensor)
    p.sensors[slot] |= np.uint64(1) << np.uint64(sensor)
    if before == _COASTING:
        p.status[slot] = _CONFIRMED
    elif before == _TENTATIVE and rules.by_existence:
        if p.exist[slot] >= rules.confirm_at:
            p.status[slot] = _CONFIRMED
    elif before == _TENTATIVE and p.ring_n[slot] >= rules.confirm_hits:
        oldest = p.ring[slot, (p.ring_n[slot] - rules.confirm_hits) % RING]
        if t_ns - oldest <= rules.confirm_ns[sensor]:
            p.status[slot] = _CONFIRMED
    status = p.status[slot]
    wait = rules.tentative_ns[sensor] if status == _TENTATIVE else rules.coast_after_ns[sensor]
    due = next_tick(t_ns + wait, rules.tick_ns)
    if status == before and p.due[slot] != NEVER:
        due = max(due, p.due[slot])
    p.due[slot] = due
    return status != before


@kernel
def touch(picture, slot, t_ns, sensor, rules):
    """A measurement of ``sensor`` at ``t_ns`` was used by the track in ``slot``; says if that changed its status."""
    return touched(picture, slot, t_ns, sensor, rules)


@kernel
def earliest_due(picture):
    """When the next track is due, TAI ns; NEVER if none is."""
    earliest = NEVER
    for slot in range(picture.high[0]):
        if picture.due[slot] < earliest:
            earliest = picture.due[slot]
    return earliest


@kernel
def due_slots(picture, t_ns):
    """Slots of the tentative, and of the other tracks that are due at ``t_ns``; two arrays, ascending."""
    due = np.empty(picture.high[0], np.int64)
    n_tentative, n_others = 0, 0  # from the front, and from the back
    for slot in range(picture.high[0]):
        if picture.active[slot] and picture.due[slot] <= t_ns:
            if picture.status[slot] == _TENTATIVE:
                due[n_tentative] = slot
                n_tentative += 1
            else:
                n_others += 1
                due[-n_others] = slot
    return due[:n_tentative].copy(), due[due.shape[0] - n_others :][::-1].copy()


def report(picture: Picture, slots: npt.NDArray[np.int64]) -> StructArray:
    """What there is to say of the tracks in ``slots`` as they stand: TRACK_STATE[n], without NIS."""
    out = np.zeros(len(slots), TRACK_STATE)
    out["track"] = picture.number[slots]
    out["epoch_ns"] = picture.epoch[slots]
    out["last_ob_ns"] = picture.last_ob[slots]
    out["status"] = picture.status[slots]
    out["x"] = picture.x[slots]
    out["P"] = picture.P[slots].reshape(-1, 6, 6)
    out["sensors"] = picture.sensors[slots]
    out["object"] = picture.object[slots]
    out["object_p"] = picture.object_p[slots]
    out["updates"] = picture.hits[slots]
    out["nis"] = np.nan
    out["existence"] = picture.exist[slots]
    return out
