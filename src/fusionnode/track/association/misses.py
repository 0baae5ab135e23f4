"""What a searching sensor should have seen, and did not."""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import kernel
from fusionnode.core.types import Status
from fusionnode.track.association.looks import DUE, HIT, LEARNT, aged, detection_probability, learn
from fusionnode.track.filtering.sensing import FIRST_COLUMN
from fusionnode.track.picture import RING, next_tick

_CONFIRMED = int(Status.CONFIRMED)
_R, _V = FIRST_COLUMN, FIRST_COLUMN + 3

MARGIN_RAD = 0.01
"""A track is in view if it is farther inside of the field's edge than this and six sigma."""


@kernel
def _in_view(picture, slot, t_ns, site, looks, sensor):
    """Whether a track is well inside of the field of view of ``sensor``, by its coarse state.

    ``site``: (4, 3) position (m), and unit vectors east, north, up (geodetic).
    """
    c = picture.coarse
    dt = (t_ns - picture.coarse_ns[slot]) * 1e-9
    d2 = 0.0
    east = 0.0
    north = 0.0
    up = 0.0
    for i in range(3):
        d = c[i, slot] + dt * c[3 + i, slot] + 0.5 * dt * dt * c[6 + i, slot] - site[0, i]
        d2 += d * d
        east += d * site[1, i]
        north += d * site[2, i]
        up += d * site[3, i]
    distance = np.sqrt(d2)
    sigma = picture.coarse_sigma[0, slot] + abs(dt) * picture.coarse_sigma[1, slot]
    slack = MARGIN_RAD + 6.0 * sigma / distance
    if distance + 6.0 * sigma > looks.field[4, sensor] or slack > 0.5:
        return False
    sine = up / distance
    if sine < looks.field[0, sensor] + slack:
        return False
    # no margin at a field that reaches the zenith
    if looks.field[1, sensor] < 1.0 - 1e-9 and sine > looks.field[1, sensor] - slack:
        return False
    half = looks.field[3, sensor]
    if half >= np.pi - 1e-9:
        return True
    level = np.sqrt(east * east + north * north)
    if level <= slack * distance:
        return False
    off = np.arctan2(east, north) - looks.field[2, sensor]
    off -= 2.0 * np.pi * np.round(off / (2.0 * np.pi))
    return abs(off) <= half - slack * distance / level


@kernel
def end_look(picture, ms, start, rules):
    """The scan that begins at ``start`` is settled: count what it missed, and learn from it.

    A track in view that was not updated is less likely to exist: psi becomes psi (1 - p) / (1 - p psi) with p the
    probability of detection (Musicki & Evans, IEEE Trans. AES 40(3), 2004). With ``confirm = "existence"`` one that
    has become too unlikely is due at once. Returns whether any is.
    """
    looks = rules.looks
    sensor, t_ns = ms.sensor[start], ms.t[start]
    doomed = False
    if looks.search[sensor]:
        site = np.empty((4, 3))
        z = ms.z[start]
        speed = np.sqrt(z[_V] ** 2 + z[_V + 1] ** 2 + z[_V + 2] ** 2)
        radius = np.sqrt(z[_R] ** 2 + z[_R + 1] ** 2 + z[_R + 2] ** 2)
        for i in range(3):
            site[0, i] = z[_R + i]
            site[1, i] = z[_V + i] / speed if speed > 0.0 else 0.0
            site[3, i] = z[_R + i] / radius
        tilt = looks.field[5, sensor]
        for i in range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            site[2, i] = site[3, j] * site[1, k] - site[3, k] * site[1, j]
        for i in range(3):
            up, north = site[3, i], site[2, i]
            site[3, i] = np.cos(tilt) * up + np.sin(tilt) * north
            site[2, i] = np.cos(tilt) * north - np.sin(tilt) * up
        p = detection_probability(picture, looks, sensor)
        tally = picture.learnt[0, LEARNT * sensor : LEARNT * (sensor + 1), 0]
        for slot in range(picture.high[0]):
            if not picture.active[slot]:
                continue
            newest = (picture.ring_n[slot] - 1) % RING
            hit = picture.ring[slot, newest] == t_ns and picture.ring_sensor[slot, newest] == sensor
            if not _in_view(picture, slot, t_ns, site, looks, sensor):
                continue
            if picture.status[slot] == _CONFIRMED:
                tally[DUE] += 1.0
                tally[HIT] += 1.0 if hit else 0.0
            # exist_ns: `jpda.soften` has weighed this scan already
            if hit or picture.exist_ns[slot] == t_ns:
                continue
            psi = aged(picture.exist[slot], (t_ns - picture.exist_ns[slot]) * 1e-9, rules.life_s)
            psi = psi * (1.0 - p) / (1.0 - p * psi)
            picture.exist[slot] = psi
            picture.exist_ns[slot] = t_ns
            if rules.by_existence and psi < rules.drop_at:
                picture.due[slot] = min(picture.due[slot], next_tick(t_ns, rules.tick_ns))
                doomed = True
    learn(picture, looks, sensor)
    return doomed
