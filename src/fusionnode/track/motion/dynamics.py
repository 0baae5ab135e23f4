"""How a satellite moves, in two tiers behind one interface, and the predictions that use them.

``zonal``: J2 to J6 by classical Runge-Kutta steps, for dense arcs of minutes. ``full``: Earth's gravity to a chosen
degree, Moon, Sun, tides, air, sunlight and relativity. There the zonal field still carries a state from place to
place, and what is beyond it (a ten-thousandth of gravity, and dear) comes as kicks in between: one in the middle of a
short step; four at the nodes of Gauss's quadrature in a piece of a long arc. The first order in the small forces is
then integrated to the eighth order in the piece's length (McLachlan, BIT 35, 1995; Laskar & Robutel, Celestial
Mechanics 80, 2001), and the second order is beyond notice.

The state transition is that of the zonal field in both tiers.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.config import Tracking
from fusionnode.core.kernels import inlined, kernel
from fusionnode.track.lanes import (
    AT,
    GRAD,
    KICK,
    LANES,
    LEFT,
    PHI,
    PUSH,
    STEP,
    TOTAL,
    WORK,
    P,
    T,
    X,
    dot,
    lower,
    six,
    times,
)
from fusionnode.track.motion import atmosphere, coefficients, gravity, heaven, omitted
from fusionnode.track.motion.coefficients import COLUMNS, carry_coefficients
from fusionnode.track.motion.forces import push_lanes
from fusionnode.track.motion.gravity import MU, RADIUS
from fusionnode.track.motion.heaven import Earth
from fusionnode.track.motion.long_arcs import aim_at_end, drift, kick, next_leg
from fusionnode.track.motion.omitted import add_omitted
from fusionnode.track.motion.zonal import field, gradient, step_length, zonal_terms

__all__ = [
    "MU",
    "RADIUS",
    "Dynamics",
    "alone",
    "coarse_step",
    "make",
    "model",
    "predict_lanes",
    "transit_lanes",
]

F64 = npt.NDArray[np.float64]

SHORT_STEPS = 2.0
"""An arc of at most so many steps is short."""


class Dynamics(NamedTuple):
    """One model of motion, opaque to all but the kernels here; made by `make`, for the days around a time."""

    full: bool
    ref_ns: int  # TAI ns, from which T of the lanes counts
    zonal: F64  # (8,) from zonal.zonal_terms
    degree: int  # of the whole field
    field: F64  # flat, from gravity.table
    sky: F64  # (n, 9) from heaven.tables
    earth: F64  # (4,) from heaven.tables
    air: F64  # (241, 2) from atmosphere.table
    terms: F64  # (6,) tides, relativity (1 or 0); Cd A/m and Cr A/m of what is not known better, m^2/kg; their walk
    estimate: bool  # whether coefficients are estimated, and C and P carry what they do
    omitted: F64  # from omitted.table, if what the forces leave out is told by what they are; else (0,)
    tracks: F64  # (N, coefficients.COLUMNS) if so: a row for every slot of the picture; else (0, ...)


def model(degree: int, pole: F64, ref_ns: int = 0) -> Dynamics:
    """The zonal tier to ``degree`` (2 to 6) about ``pole``, shape (3,), GCRF."""
    terms = zonal_terms(degree, pole)
    none = np.zeros((2, heaven.COLUMNS))
    return Dynamics(
        False,
        ref_ns,
        terms,
        0,
        np.zeros(1),
        none,
        np.zeros(4),
        np.zeros((2, 2)),
        np.zeros(6),
        False,
        np.zeros(0),
        np.zeros((0, COLUMNS)),
    )


def make(config: Tracking, earth: Earth, t_ns: int, tracks: F64 | None = None) -> Dynamics:
    """The dynamics that ``config`` asks for, for the day of ``t_ns`` (TAI) and some days to both sides.

    ``earth``: Earth orientation; the zonal tier asks only for its pole. ``tracks``: the picture's rows of coefficients,
    shape (N, COLUMNS), which the kernels change in place where coefficients are estimated.
    """
    ref_ns = heaven.middle_of_day(t_ns)
    pole = earth.pole(np.array([ref_ns]))[0]
    if config.dynamics == "zonal":
        return model(config.zonal_degree, pole, ref_ns)
    sky, turn = heaven.tables(earth, ref_ns)
    terms = [float(config.earth_tides), float(config.relativity), config.ballistic_m2_kg, config.srp_m2_kg]
    return Dynamics(
        True,
        ref_ns,
        zonal_terms(6, pole),
        config.gravity_degree,
        _field_to(config.gravity_degree),
        sky,
        turn,
        atmosphere.table(),
        np.concatenate([terms, coefficients.walk(config)]),
        tracks is not None and len(config.estimate) > 0,
        _omitted_beyond(config.gravity_degree) if config.noise_follows_forces else np.zeros(0),
        np.zeros((0, COLUMNS)) if tracks is None else tracks,
    )


def alone(dynamics: Dynamics) -> Dynamics:
    """The same for states that are no tracks of the picture: none has coefficients of its own."""
    return dynamics._replace(estimate=False)


@cache
def _field_to(degree: int) -> F64:
    return gravity.table(degree)


@cache
def _omitted_beyond(degree: int) -> F64:
    return omitted.table(degree)


@inlined
def _term(i, j):
    """Which of a gradient's six terms is (i, j)."""
    return i + j if i * j == 0 else (3 if i + j == 2 else i + j + 1)


@kernel
def _move(W, k0, k1, k2, c2, c3, c4, c5, c6):
    """One Runge-Kutta step of X, fourth order, and the gradients at its four stages."""
    L = LANES
    for m in range(L):
        h = W[STEP + m]
        rx = W[X + m]
        ry = W[X + L + m]
        rz = W[X + 2 * L + m]
        vx = W[X + 3 * L + m]
        vy = W[X + 4 * L + m]
        vz = W[X + 5 * L + m]
        g = GRAD + m
        ax1, ay1, az1, ux, uy, uz, al, be, ga, de = field(rx, ry, rz, k0, k1, k2, c2, c3, c4, c5, c6)
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = gradient(
            ux, uy, uz, al, be, ga, de, k0, k1, k2
        )
        half = 0.5 * h
        x2 = rx + half * vx
        y2 = ry + half * vy
        z2 = rz + half * vz
        g += 6 * L
        ax2, ay2, az2, ux, uy, uz, al, be, ga, de = field(x2, y2, z2, k0, k1, k2, c2, c3, c4, c5, c6)
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = gradient(
            ux, uy, uz, al, be, ga, de, k0, k1, k2
        )
        quarter = half * half
        x3 = x2 + quarter * ax1
        y3 = y2 + quarter * ay1
        z3 = z2 + quarter * az1
        g += 6 * L
        ax3, ay3, az3, ux, uy, uz, al, be, ga, de = field(x3, y3, z3, k0, k1, k2, c2, c3, c4, c5, c6)
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = gradient(
            ux, uy, uz, al, be, ga, de, k0, k1, k2
        )
        x4 = rx + h * (vx + half * ax2)
        y4 = ry + h * (vy + half * ay2)
        z4 = rz + h * (vz + half * az2)
        g += 6 * L
        ax4, ay4, az4, ux, uy, uz, al, be, ga, de = field(x4, y4, z4, k0, k1, k2, c2, c3, c4, c5, c6)
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = gradient(
            ux, uy, uz, al, be, ga, de, k0, k1, k2
        )
        sixth = h / 6.0
        s = h * sixth
        W[X + m] = rx + h * vx + s * (ax1 + ax2 + ax3)
        W[X + L + m] = ry + h * vy + s * (ay1 + ay2 + ay3)
        W[X + 2 * L + m] = rz + h * vz + s * (az1 + az2 + az3)
        W[X + 3 * L + m] = vx + sixth * (ax1 + 2.0 * ax2 + 2.0 * ax3 + ax4)
        W[X + 4 * L + m] = vy + sixth * (ay1 + 2.0 * ay2 + 2.0 * ay3 + ay4)
        W[X + 5 * L + m] = vz + sixth * (az1 + 2.0 * az2 + 2.0 * az3 + az4)


@kernel
def _transition(W):
    """PHI: the exact derivative of the step in `_move`, from its four gradients.

    The stages of a Runge-Kutta step of r'' = a(r) depend on each other through positions only, so that the
    derivative needs just two products of gradients (of stages 3 and 1, and 4 and 2).
    """
    L = LANES
    for i in range(3):
        for j in range(3):
            one = 1.0 if i == j else 0.0
            ij = GRAD + _term(i, j) * L
            a0 = GRAD + (12 + _term(i, 0)) * L
            a1 = GRAD + (12 + _term(i, 1)) * L
            a2 = GRAD + (12 + _term(i, 2)) * L
            b0 = GRAD + _term(0, j) * L
            b1 = GRAD + _term(1, j) * L
            b2 = GRAD + _term(2, j) * L
            to = PHI + (6 * i + j) * L
            six = 6 * L
            for m in range(L):
                h = W[STEP + m]
                h2 = h * h
                sixth = h / 6.0
                g31 = W[a0 + m] * W[b0 + m] + W[a1 + m] * W[b1 + m] + W[a2 + m] * W[b2 + m]
                g42 = (
                    W[a0 + six + m] * W[b0 + six + m]
                    + W[a1 + six + m] * W[b1 + six + m]
                    + W[a2 + six + m] * W[b2 + six + m]
                )
                g1 = W[ij + m]
                g2 = W[ij + six + m]
                g3 = W[ij + 2 * six + m]
                g4 = W[ij + 3 * six + m]
                W[to + m] = one + h * sixth * (g1 + g2 + g3 + 0.25 * h2 * g31)
                W[to + 3 * L + m] = one * h + 0.5 * h2 * sixth * (g2 + g3)
                W[to + 18 * L + m] = sixth * (g1 + 2.0 * (g2 + g3) + g4 + 0.5 * h2 * (g31 + g42))
                W[to + 21 * L + m] = one + sixth * h * (g2 + g3 + g4 + 0.25 * h2 * g42)


@kernel
def _product(W, a, b, to):
    """The 6 x 6 product of the matrices at ``a`` and ``b`` into ``to``."""
    L = LANES
    for i in range(6):
        f = a + 6 * i * L
        for j in range(6):
            p = b + j * L
            o = to + (6 * i + j) * L
            for m in range(L):
                W[o + m] = (
                    W[f + m] * W[p + m]
                    + W[f + L + m] * W[p + 6 * L + m]
                    + W[f + 2 * L + m] * W[p + 12 * L + m]
                    + W[f + 3 * L + m] * W[p + 18 * L + m]
                    + W[f + 4 * L + m] * W[p + 24 * L + m]
                    + W[f + 5 * L + m] * W[p + 30 * L + m]
                )


@kernel
def _spread(W, q):
    """P = PHI P PHI' + Q; Q that of white acceleration of density ``q``, m^2/s^3."""
    L = LANES
    for m in range(L):
        p = lower(W, P, m)
        step = W[STEP + m]
        qv = q * abs(step)
        qx = 0.5 * qv * step
        qr = qv * step * step / 3.0
        a = six(W, PHI, m)
        b = six(W, PHI + 6 * L, m)
        c = six(W, PHI + 12 * L, m)
        d = six(W, PHI + 18 * L, m)
        e = six(W, PHI + 24 * L, m)
        f = six(W, PHI + 30 * L, m)
        t = times(p, a)
        W[P + m] = dot(t, a) + qr
        t = times(p, b)
        W[P + L + m] = dot(t, a)
        W[P + 2 * L + m] = dot(t, b) + qr
        t = times(p, c)
        W[P + 3 * L + m] = dot(t, a)
        W[P + 4 * L + m] = dot(t, b)
        W[P + 5 * L + m] = dot(t, c) + qr
        t = times(p, d)
        W[P + 6 * L + m] = dot(t, a) + qx
        W[P + 7 * L + m] = dot(t, b)
        W[P + 8 * L + m] = dot(t, c)
        W[P + 9 * L + m] = dot(t, d) + qv
        t = times(p, e)
        W[P + 10 * L + m] = dot(t, a)
        W[P + 11 * L + m] = dot(t, b) + qx
        W[P + 12 * L + m] = dot(t, c)
        W[P + 13 * L + m] = dot(t, d)
        W[P + 14 * L + m] = dot(t, e) + qv
        t = times(p, f)
        W[P + 15 * L + m] = dot(t, a)
        W[P + 16 * L + m] = dot(t, b)
        W[P + 17 * L + m] = dot(t, c) + qx
        W[P + 18 * L + m] = dot(t, d)
        W[P + 19 * L + m] = dot(t, e)
        W[P + 20 * L + m] = dot(t, f) + qv


@kernel
def _next_step(W, most):
    """Cut what is LEFT of arcs of at most ``most`` steps into equal ones no longer than allowed here; the next one into
    STEP. The lanes of longer arcs stand still. Says if there is a step.
    """
    L = LANES
    any_left = False
    for m in range(L):
        left = W[LEFT + m]
        W[STEP + m] = 0.0
        if left == 0.0:
            continue
        n = np.ceil(abs(left) / step_length(W[X + m], W[X + L + m], W[X + 2 * L + m]))
        if n > most:
            continue
        any_left = True
        if not n > 1.0:  # so that a state that is not a number ends here too
            W[STEP + m] = left
            W[LEFT + m] = 0.0
        else:
            W[STEP + m] = left / n
            W[LEFT + m] = left - left / n
    return any_left


@kernel
def _aim_at_middle(W):
    """AT: where a short step will be at half its length, to a metre or two."""
    L = LANES
    for m in range(L):
        half = 0.5 * W[STEP + m]
        x = W[X + m]
        y = W[X + L + m]
        z = W[X + 2 * L + m]
        w = 1.0 / np.sqrt(x * x + y * y + z * z)
        fall = MU * w * w * w * half
        vx = W[X + 3 * L + m]
        vy = W[X + 4 * L + m]
        vz = W[X + 5 * L + m]
        W[AT + m] = x + half * (vx - 0.5 * fall * x)
        W[AT + L + m] = y + half * (vy - 0.5 * fall * y)
        W[AT + 2 * L + m] = z + half * (vz - 0.5 * fall * z)
        W[AT + 3 * L + m] = vx - fall * x
        W[AT + 4 * L + m] = vy - fall * y
        W[AT + 5 * L + m] = vz - fall * z
        W[AT + 6 * L + m] = W[T + m] + half


@kernel
def _short_kick(W):
    """A step's forces beyond the zonal field, taken as constant over it."""
    L = LANES
    for m in range(L):
        h = W[STEP + m]
        W[T + m] += h
        for i in range(3):
            W[X + i * L + m] += 0.5 * h * h * W[PUSH + i * L + m]
            W[X + (3 + i) * L + m] += h * W[PUSH + i * L + m]


@kernel
def _short_step(W, dynamics):
    """One step of every lane whose arc is short, with its PHI; False if there is none."""
    z = dynamics.zonal
    if not _next_step(W, SHORT_STEPS):
        return False
    _aim_at_middle(W)
    push_lanes(W, dynamics)
    _move(W, z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7])
    _short_kick(W)
    _transition(W)
    return True


@kernel
def _long_leg(W, dynamics):
    """One leg of every lane whose arc is long, with its PHI; False if there is none."""
    z = dynamics.zonal
    any_left, any_kick = next_leg(W)
    if not any_left:
        return False
    drift(W, z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7])
    aim_at_end(W)
    if any_kick:
        push_lanes(W, dynamics)
        kick(W)
    _transition(W)
    return True


@kernel
def _what_forces_know(W, dynamics, of_place, of_speed):
    """P after a step whose kick moved place and velocity by so much (s^2, s) of an acceleration."""
    if dynamics.estimate:
        carry_coefficients(W, of_place, of_speed)
    if len(dynamics.omitted) > 0:
        add_omitted(W, dynamics.omitted, of_place, of_speed)


@kernel
def predict_lanes(W, dynamics, q):
    """Take X and P of every lane, at T, ahead by its LEFT, s.

    ``dynamics``: Dynamics. ``q``: density of the white acceleration that stands for what they leave out, m^2/s^3
    (state noise compensation: Tapley, Schutz & Born, Statistical Orbit Determination, section 4.9). It enters at each
    step, so that its effect follows the orbit.
    """
    if dynamics.full:
        of_place = np.zeros(LANES)
        of_speed = np.zeros(LANES)
        while _short_step(W, dynamics):
            _spread(W, q)
            for m in range(LANES):
                of_speed[m] = W[STEP + m]
                of_place[m] = 0.5 * W[STEP + m] * W[STEP + m]
            _what_forces_know(W, dynamics, of_place, of_speed)
        while _long_leg(W, dynamics):
            _spread(W, q)
            for m in range(LANES):
                of_speed[m] = W[KICK + m]
                of_place[m] = 0.0
            _what_forces_know(W, dynamics, of_place, of_speed)
        return
    z = dynamics.zonal
    while _next_step(W, np.inf):
        _move(W, z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7])
        _transition(W)
        _spread(W, q)


@kernel
def _accumulate(W):
    _product(W, PHI, TOTAL, WORK)
    for i in range(36 * LANES):
        W[TOTAL + i] = W[WORK + i]


@kernel
def transit_lanes(W, dynamics):
    """Take X of every lane, at T, ahead by its LEFT, s, and put the state transition over all of it into TOTAL."""
    L = LANES
    for i in range(36):
        for m in range(L):
            W[TOTAL + i * L + m] = 1.0 if i % 7 == 0 else 0.0
    if dynamics.full:
        while _short_step(W, dynamics):
            _accumulate(W)
        while _long_leg(W, dynamics):
            _accumulate(W)
        return
    z = dynamics.zonal
    while _next_step(W, np.inf):
        _move(W, z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7])
        _transition(W)
        _accumulate(W)


@kernel
def coarse_step(r, v, dt, dynamics):
    """Take one position and velocity, shape (3,) each, by ``dt`` s in place in the zonal field, no covariance."""
    z = dynamics.zonal
    left = dt
    while left != 0.0:
        n = np.ceil(abs(left) / (3.0 * step_length(r[0], r[1], r[2])))
        h = left / n if n > 1.0 else left
        left = left - h if n > 1.0 else 0.0
        k0, k1, k2 = z[0], z[1], z[2]
        c2, c3, c4, c5, c6 = z[3], z[4], z[5], z[6], z[7]
        a1 = field(r[0], r[1], r[2], k0, k1, k2, c2, c3, c4, c5, c6)
        half = 0.5 * h
        x2 = r[0] + half * v[0]
        y2 = r[1] + half * v[1]
        z2 = r[2] + half * v[2]
        a2 = field(x2, y2, z2, k0, k1, k2, c2, c3, c4, c5, c6)
        quarter = half * half
        a3 = field(
            x2 + quarter * a1[0], y2 + quarter * a1[1], z2 + quarter * a1[2], k0, k1, k2, c2, c3, c4, c5, c6
        )
        a4 = field(
            r[0] + h * (v[0] + half * a2[0]),
            r[1] + h * (v[1] + half * a2[1]),
            r[2] + h * (v[2] + half * a2[2]),
            k0, k1, k2, c2, c3, c4, c5, c6,
        )  # fmt: skip
        for i in range(3):
            r[i] += h * v[i] + h * h / 6.0 * (a1[i] + a2[i] + a3[i])
            v[i] += h / 6.0 * (a1[i] + 2.0 * (a2[i] + a3[i]) + a4[i])
