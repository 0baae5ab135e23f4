"""What is known of a sensor's looks: how often it sees what is there, and how often what is not.

A *look* is one scan: the detections of one sensor with one time stamp. A sensor that follows one object at a time
(``scan = "track"``) says nothing of other objects by not reporting them, so no miss is ever counted for it. One that
searches (``scan = "search"``) looks at its whole field of view each time; a track well inside of the field that none
of the detections belongs to was missed. A look with no detection at all is not reported and hence not known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config
from fusionnode.core.kernels import kernel
from fusionnode.core.types import Channel
from fusionnode.track.filtering.sensing import FIRST_COLUMN

_RANGE, _RATE = int(Channel.RANGE), int(Channel.RANGE_RATE)
_RHO, _RR = FIRST_COLUMN + 15, FIRST_COLUMN + 16

RATE_SPAN_M_S = 20_000.0
"""Range rates of false alarms are taken to lie within this, until enough of them were seen."""
PRIOR_LOOKS = 20.0
PRIOR_DUE = 200.0
"""Looks, and expected detections, that what the configuration says is worth against what was seen."""
MEMORY = 20.0
"""What was seen is halved when it is this many times the prior."""
ENOUGH_FALSE = 50.0
SUREST = 1.0 - 1e-6
"""No track's existence is surer than this, so that it can be doubted again."""

DETECTED, LN_CLUTTER, LN_RANGE, LN_RATE = range(4)
"""Detection probability; ln of false alarms a look and steradian; ln of the spans they lie in: rows of ``prior``,
and of what was learnt, as what is to be added to it."""
LOOKS, FALSE, N, RANGE_1, RANGE_2, RATE_1, RATE_2, DUE, HIT = range(4, 13)
"""What was seen: looks, false alarms; of those, number, sums and sums of squares; detections due and made."""
LEARNT = 13
"""Numbers a sensor in `Picture.learnt`: it is part of the picture, because it has a past that is gone back to."""


class Looks(NamedTuple):
    """By sensor (S of them), in the order of the configuration."""

    search: npt.NDArray[np.bool_]  # (S,)
    learns: bool
    prior: npt.NDArray[np.float64]  # (4, S) from the configuration
    solid: npt.NDArray[np.float64]  # (S,) sr, of the field of view
    field: npt.NDArray[
        np.float64
    ]  # (6, S): sine of lowest and highest elevation; azimuth of its middle, half its
    # width, rad; farthest range, m; geodetic minus geocentric latitude, rad


def make_looks(config: Config) -> Looks:
    """Of the sensors of ``config``."""
    sensors = list(config.sensor.values())
    n = len(sensors)
    solid, field, prior = np.empty(n), np.empty((6, n)), np.empty((4, n))
    for i, s in enumerate(sensors):
        low = np.radians(s.min_elevation_deg)
        high = np.radians(s.field_max_elevation_deg)
        first, last = s.field_azimuth_deg
        width = np.radians(last - first)
        lat = np.radians(config.site[s.site].lat_deg)
        geocentric = np.arctan(np.tan(lat) * (1.0 - 1.0 / 298.257223563) ** 2)
        reach = s.max_range_m if s.field_range_m is None else s.field_range_m
        solid[i] = max(width * (np.sin(high) - np.sin(low)), 1e-9)
        middle = np.radians(0.5 * (first + last))
        field[:, i] = np.sin(low), np.sin(high), middle, 0.5 * width, reach, lat - geocentric
        prior[:, i] = (
            s.detection_probability,
            np.log(s.clutter_per_scan / solid[i]),
            np.log(reach),
            np.log(RATE_SPAN_M_S),
        )
    search = np.array([s.scan == "search" for s in sensors])
    learn = config.tracking.learn_clutter
    return Looks(search, learn, prior, solid, field)


@kernel
def detection_probability(picture, looks, sensor):
    """Of an object in view of ``sensor``, as far as is known."""
    return looks.prior[DETECTED, sensor] + picture.learnt[0, LEARNT * sensor + DETECTED, 0]


@kernel
def clutter_density(learnt, prior, channels):
    """ln of false alarms a look in a unit of the space that these channels span (m, rad^2, m/s).

    ``learnt`` (LEARNT,) and ``prior`` (4,) of the sensor.
    """
    ln = prior[LN_CLUTTER] + learnt[LN_CLUTTER]
    if channels & _RANGE:
        ln -= prior[LN_RANGE] + learnt[LN_RANGE]
    if channels & _RATE:
        ln -= prior[LN_RATE] + learnt[LN_RATE]
    return ln


@kernel
def note_false(picture, sensor, z, channels):
    """A detection of ``sensor`` belongs to nothing known: ``z`` is its row of MEASUREMENT as float64."""
    tally = picture.learnt[0, LEARNT * sensor : LEARNT * (sensor + 1), 0]
    tally[FALSE] += 1.0
    if channels & _RANGE and channels & _RATE:
        tally[N] += 1.0
        tally[RANGE_1] += z[_RHO]
        tally[RANGE_2] += z[_RHO] ** 2
        tally[RATE_1] += z[_RR]
        tally[RATE_2] += z[_RR] ** 2


@kernel
def note_begun(picture, sensor, n):
    """``n`` of the detections noted as false have turned out to be a new object's."""
    at = LEARNT * sensor + FALSE
    picture.learnt[0, at, 0] = max(picture.learnt[0, at, 0] - n, 0.0)


@kernel
def learn(picture, looks, sensor):
    """A look of ``sensor`` is over: learn from what was seen so far.

    Rates are means of a gamma (false alarms) and a beta distribution (detections), whose priors are the configuration.
    Spans are those of a uniform distribution of the same variance.
    """
    tally, prior = picture.learnt[0, LEARNT * sensor : LEARNT * (sensor + 1), 0], looks.prior[:, sensor]
    tally[LOOKS] += 1.0
    if not looks.learns:
        return
    if tally[LOOKS] > MEMORY * PRIOR_LOOKS:
        for k in range(LOOKS, DUE):
            tally[k] *= 0.5
    if tally[DUE] > MEMORY * PRIOR_DUE:
        tally[DUE] *= 0.5
        tally[HIT] *= 0.5
    expected = PRIOR_LOOKS * np.exp(prior[LN_CLUTTER]) * looks.solid[sensor]
    rate = (expected + tally[FALSE]) / (PRIOR_LOOKS + tally[LOOKS])
    tally[LN_CLUTTER] = np.log(rate / looks.solid[sensor]) - prior[LN_CLUTTER]
    n = tally[N]
    if n >= ENOUGH_FALSE:
        for first, ln, least in ((RANGE_1, LN_RANGE, 1e3), (RATE_1, LN_RATE, 10.0)):
            mean = tally[first] / n
            variance = tally[first + 1] / n - mean * mean
            tally[ln] = np.log(max(np.sqrt(12.0 * max(variance, 0.0)), least)) - prior[ln]
    p = (PRIOR_DUE * prior[DETECTED] + tally[HIT]) / (PRIOR_DUE + tally[DUE])
    tally[DETECTED] = min(max(p, 0.01), 0.999) - prior[DETECTED]


@kernel
def aged(exist, dt_s, life_s):
    """Probability that what existed with probability ``exist`` still does after ``dt_s``."""
    return exist * np.exp(-max(dt_s, 0.0) / life_s)
