"""The pieces of a long arc: legs through the zonal field, with kicks at the nodes of Gauss's quadrature in between."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import Polynomial
from numpy.polynomial.legendre import leggauss

from fusionnode.core.kernels import kernel
from fusionnode.track.lanes import AT, GRAD, KICK, LANES, LEFT, NODES, PIECE, PUSH, STAGE, STEP, T, X
from fusionnode.track.motion.zonal import field, gradient, step_length

PIECE_STEPS = 5.0
"""Longest piece of a long arc, in step lengths: 100 s in a low orbit, a kick every 25 s."""

_gauss_x, _gauss_w = leggauss(4)
GAUSS = tuple(float(x) for x in 0.5 * (1.0 + _gauss_x))
GAUSS_WEIGHT = tuple(float(w) for w in 0.5 * _gauss_w)
LOBATTO = (0.0, 0.5 - 0.5 * float(np.sqrt(3.0 / 7.0)), 0.5, 0.5 + 0.5 * float(np.sqrt(3.0 / 7.0)), 1.0)


def _quadrature() -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """Weights of the accelerations at LOBATTO: of the positions there (4 rows of 5), and of the velocity at the end."""
    basis = []
    for i, own in enumerate(LOBATTO):
        others = [x for j, x in enumerate(LOBATTO) if j != i]
        line = Polynomial.fromroots(others)
        basis.append(line / line(own))
    place = tuple(tuple(float(b.integ(2)(c)) for b in basis) for c in LOBATTO[1:])
    return place, tuple(float(b.integ()(1.0)) for b in basis)


PLACE_WEIGHT, SPEED_WEIGHT = _quadrature()


@kernel
def next_leg(W):
    """The next leg of long arcs into STEP, and for how long the forces at its end count into KICK. Says if there is
    one, and if any of them ends in a kick.

    A piece has legs to its four nodes; that to its end is one with the next piece's first.
    """
    L = LANES
    any_left = False
    any_kick = False
    for m in range(L):
        stage = W[STAGE + m]
        left = W[LEFT + m]
        W[STEP + m] = 0.0
        W[KICK + m] = 0.0
        if stage == 0.0 and left == 0.0:
            continue
        any_left = True
        piece = W[PIECE + m]
        if 1.0 <= stage < 4.0:
            k = int(stage)
            W[STEP + m] = (GAUSS[k] - GAUSS[k - 1]) * piece
            W[KICK + m] = GAUSS_WEIGHT[k] * piece
            W[STAGE + m] = stage + 1.0
            any_kick = True
            continue
        step = GAUSS[0] * piece if stage == 4.0 else 0.0
        if left == 0.0:
            W[STEP + m] = step
            W[STAGE + m] = 0.0
            continue
        longest = PIECE_STEPS * step_length(W[X + m], W[X + L + m], W[X + 2 * L + m])
        n = np.ceil(abs(left) / longest)
        if not n > 1.0:
            piece = left
            W[LEFT + m] = 0.0
        else:
            piece = left / n
            W[LEFT + m] = left - piece
        W[PIECE + m] = piece
        W[STAGE + m] = 1.0
        W[STEP + m] = step + GAUSS[0] * piece
        W[KICK + m] = GAUSS_WEIGHT[0] * piece
        any_kick = True
    return any_left, any_kick


@kernel
def drift(W, k0, k1, k2, c2, c3, c4, c5, c6):
    """X over one leg in the zonal field, by two rounds of Picard's iteration on Lobatto's five nodes (eighth order),
    and the gradients at its begin, middle (twice) and end, for `_transition`.
    """
    L = LANES
    A = NODES + 12 * L
    for m in range(L):
        h = W[STEP + m]
        rx = W[X + m]
        ry = W[X + L + m]
        rz = W[X + 2 * L + m]
        vx = W[X + 3 * L + m]
        vy = W[X + 4 * L + m]
        vz = W[X + 5 * L + m]
        ax, ay, az, ux, uy, uz, al, be, ga, de = field(rx, ry, rz, k0, k1, k2, c2, c3, c4, c5, c6)
        xx, xy, xz, yy, yz, zz = gradient(ux, uy, uz, al, be, ga, de, k0, k1, k2)
        g = GRAD + m
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = xx, xy, xz, yy, yz, zz
        W[PUSH + m] = ax
        W[PUSH + L + m] = ay
        W[PUSH + 2 * L + m] = az
        jx = xx * vx + xy * vy + xz * vz
        jy = xy * vx + yy * vy + yz * vz
        jz = xz * vx + yz * vy + zz * vz
        t1 = LOBATTO[1] * h
        t2 = LOBATTO[2] * h
        t3 = LOBATTO[3] * h
        at = NODES + m
        W[at] = rx + t1 * (vx + 0.5 * t1 * (ax + t1 / 3.0 * jx))
        W[at + L] = ry + t1 * (vy + 0.5 * t1 * (ay + t1 / 3.0 * jy))
        W[at + 2 * L] = rz + t1 * (vz + 0.5 * t1 * (az + t1 / 3.0 * jz))
        W[at + 3 * L] = rx + t2 * (vx + 0.5 * t2 * (ax + t2 / 3.0 * jx))
        W[at + 4 * L] = ry + t2 * (vy + 0.5 * t2 * (ay + t2 / 3.0 * jy))
        W[at + 5 * L] = rz + t2 * (vz + 0.5 * t2 * (az + t2 / 3.0 * jz))
        W[at + 6 * L] = rx + t3 * (vx + 0.5 * t3 * (ax + t3 / 3.0 * jx))
        W[at + 7 * L] = ry + t3 * (vy + 0.5 * t3 * (ay + t3 / 3.0 * jy))
        W[at + 8 * L] = rz + t3 * (vz + 0.5 * t3 * (az + t3 / 3.0 * jz))
        W[at + 9 * L] = rx + h * (vx + 0.5 * h * (ax + h / 3.0 * jx))
        W[at + 10 * L] = ry + h * (vy + 0.5 * h * (ay + h / 3.0 * jy))
        W[at + 11 * L] = rz + h * (vz + 0.5 * h * (az + h / 3.0 * jz))
    for _ in range(2):
        for i in range(4):
            at = NODES + 3 * i * L
            to = A + 3 * i * L
            for m in range(L):
                x = W[at + m]
                y = W[at + L + m]
                z = W[at + 2 * L + m]
                ax, ay, az, ux, uy, uz, al, be, ga, de = field(x, y, z, k0, k1, k2, c2, c3, c4, c5, c6)
                W[to + m] = ax
                W[to + L + m] = ay
                W[to + 2 * L + m] = az
        for i in range(4):
            w0, w1, w2, w3, w4 = PLACE_WEIGHT[i]
            c = LOBATTO[i + 1]
            for j in range(3):
                at = NODES + (3 * i + j) * L
                r = X + j * L
                v = X + (3 + j) * L
                a0 = PUSH + j * L
                a1 = A + j * L
                for m in range(L):
                    h = W[STEP + m]
                    W[at + m] = W[r + m] + h * (
                        c * W[v + m]
                        + h
                        * (
                            w0 * W[a0 + m]
                            + w1 * W[a1 + m]
                            + w2 * W[a1 + 3 * L + m]
                            + w3 * W[a1 + 6 * L + m]
                            + w4 * W[a1 + 9 * L + m]
                        )
                    )
    w0, w1, w2, w3, w4 = SPEED_WEIGHT
    for j in range(3):
        for m in range(L):
            a1 = A + j * L + m
            W[X + j * L + m] = W[NODES + (9 + j) * L + m]
            W[X + (3 + j) * L + m] += W[STEP + m] * (
                w0 * W[PUSH + j * L + m]
                + w1 * W[a1]
                + w2 * W[a1 + 3 * L]
                + w3 * W[a1 + 6 * L]
                + w4 * W[a1 + 9 * L]
            )
    for m in range(L):
        x = W[NODES + 3 * L + m]
        y = W[NODES + 4 * L + m]
        z = W[NODES + 5 * L + m]
        _, _, _, ux, uy, uz, al, be, ga, de = field(x, y, z, k0, k1, k2, c2, c3, c4, c5, c6)
        xx, xy, xz, yy, yz, zz = gradient(ux, uy, uz, al, be, ga, de, k0, k1, k2)
        g = GRAD + 6 * L + m
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = xx, xy, xz, yy, yz, zz
        g = GRAD + 12 * L + m
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = xx, xy, xz, yy, yz, zz
    for m in range(L):
        x = W[NODES + 9 * L + m]
        y = W[NODES + 10 * L + m]
        z = W[NODES + 11 * L + m]
        _, _, _, ux, uy, uz, al, be, ga, de = field(x, y, z, k0, k1, k2, c2, c3, c4, c5, c6)
        g = GRAD + 18 * L + m
        W[g], W[g + L], W[g + 2 * L], W[g + 3 * L], W[g + 4 * L], W[g + 5 * L] = gradient(
            ux, uy, uz, al, be, ga, de, k0, k1, k2
        )


@kernel
def aim_at_end(W):
    """AT: where a leg ended."""
    L = LANES
    for m in range(L):
        W[T + m] += W[STEP + m]
        W[AT + 6 * L + m] = W[T + m]
        for i in range(6):
            W[AT + i * L + m] = W[X + i * L + m]


@kernel
def kick(W):
    """What the forces beyond the zonal field do to the velocity."""
    L = LANES
    for i in range(3):
        for m in range(L):
            W[X + (3 + i) * L + m] += W[KICK + m] * W[PUSH + i * L + m]
