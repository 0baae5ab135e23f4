"""Earth's gravity beyond a sphere, to any degree that the table has: eight places at a time.

The coefficients are those of EGM2008, tide-free (Pavlis, Holmes, Kenyon & Factor, J. Geophys. Res. 117, B04406, 2012).
"""

from __future__ import annotations

from importlib import resources

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import kernel
from fusionnode.track.lanes import HARMONICS, LANES

F64 = npt.NDArray[np.float64]

MU = 3.986004415e14
"""Earth's gravitational parameter, m^3/s^2 (EGM2008)."""
RADIUS = 6378136.3
"""Reference radius of the harmonics, m (EGM2008)."""
MAX_DEGREE = 90

_HEAD, _TERM, _BLOCK = 3, 5, 4
"""Words before a column's terms; words a term; terms taken together."""

PLACE = HARMONICS
"""Rows of a place in the body-fixed frame, m; then of the acceleration there, m/s^2."""
(
    _U,
    _RHO,
    _W,
    _S,
    _T,
    _RM,
    _IM,
    _RP,
    _IP,
    _Q1,
    _Q2,
    _D1,
    _D2,
    _CQ,
    _SQ,
    _CD,
    _SD,
    _CN,
    _SN,
    _X,
    _Y,
    _Z,
    _R,
) = (HARMONICS + i * LANES for i in range(3, 26))


def coefficients(degree: int) -> tuple[F64, F64]:
    """C and S, each (degree + 1, degree + 1), fully normalised, tide-free; degrees 0 and 1 are zero.

    Raises:
        ValueError: ``degree`` beyond MAX_DEGREE.
    """
    if not 2 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree of the gravity field: 2 to {MAX_DEGREE}, not {degree}")
    rows = (degree + 1) * (degree + 2) // 2 - 3
    with (
        resources.files("fusionnode.track.motion").joinpath("data/egm2008.txt").open(encoding="ascii") as text
    ):
        lines = [line for line in text if not line.startswith("#")]
    table = np.array([line.split() for line in lines[:rows]], np.float64)
    C, S = np.zeros((degree + 1, degree + 1)), np.zeros((degree + 1, degree + 1))
    n, m = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    C[n, m], S[n, m] = table[:, 2], table[:, 3]
    return C, S


def table(degree: int) -> F64:
    """The field to ``degree`` and order as `harmonics` reads it, flat.

    By orders m from 0: the sectorial function A_mm and its C and S, then by degree from m + 1 on, filled up with
    zeros to whole blocks: the two factors of the recursion in degree, C, S, n + 1 (fully normalised derived Legendre
    functions: Lundberg & Schutz, J. Guidance 11(1), 1988).
    """
    C, S = coefficients(degree)
    out: list[float] = []
    sectorial = 1.0
    for m in range(degree + 1):
        if m > 0:
            sectorial *= np.sqrt((2.0 * m + 1.0) / (2.0 * m) * (2.0 if m == 1 else 1.0))
        out += [sectorial, C[m, m], S[m, m]]
        blocks = -(-(degree - m) // _BLOCK)
        for n in range(m + 1, m + 1 + blocks * _BLOCK):
            if n > degree:
                out += [0.0] * _TERM
                continue
            a = np.sqrt((2.0 * n + 1.0) * (2.0 * n - 1.0) / ((n - m) * (n + m)))
            b = 0.0
            if n > m + 1:
                b = (2.0 * n + 1.0) * (n + m - 1.0) * (n - m - 1.0) / ((2.0 * n - 3.0) * (n + m) * (n - m))
            out += [a, np.sqrt(b), C[n, m], S[n, m], n + 1.0]
    return np.array(out)


@kernel
def harmonics(W, field, degree):
    """Acceleration of the field without its central term into PLACE, at the place (body-fixed, m) that stands there.

    Pines' form, free of singularities (Pines, AIAA J. 11(11), 1973; normalised as by Lundberg & Schutz), summed
    order by order: a column of the recursion needs nothing but its last two values, and these stay in registers
    over a block of terms. (R/r)^n is part of the recursion.
    """
    L = LANES
    for k in range(L):
        x = W[PLACE + k]
        y = W[PLACE + L + k]
        z = W[PLACE + 2 * L + k]
        w = 1.0 / np.sqrt(x * x + y * y + z * z)
        rho = RADIUS * w
        W[_W + k] = w
        W[_RHO + k] = rho
        W[_S + k] = rho * w * x
        W[_T + k] = rho * w * y
        W[_U + k] = rho * w * z
        W[_RM + k] = 1.0
        W[_IM + k] = 0.0
        W[_RP + k] = 0.0
        W[_IP + k] = 0.0
        W[_X + k] = 0.0
        W[_Y + k] = 0.0
        W[_Z + k] = 0.0
        W[_R + k] = 0.0
    at = 0
    for m in range(degree + 1):
        sectorial, c0, s0 = field[at], field[at + 1], field[at + 2]
        at += _HEAD
        for k in range(L):
            W[_Q1 + k] = sectorial
            W[_Q2 + k] = 0.0
            W[_D1 + k] = 0.0
            W[_D2 + k] = 0.0
            W[_CQ + k] = c0 * sectorial
            W[_SQ + k] = s0 * sectorial
            W[_CD + k] = 0.0
            W[_SD + k] = 0.0
            W[_CN + k] = (m + 1.0) * (c0 * sectorial)
            W[_SN + k] = (m + 1.0) * (s0 * sectorial)
        for _ in range((degree - m + _BLOCK - 1) // _BLOCK):
            a0, b0, c0, s0, n0 = field[at], field[at + 1], field[at + 2], field[at + 3], field[at + 4]
            a1, b1, c1, s1, n1 = field[at + 5], field[at + 6], field[at + 7], field[at + 8], field[at + 9]
            a2, b2, c2, s2, n2 = (
                field[at + 10],
                field[at + 11],
                field[at + 12],
                field[at + 13],
                field[at + 14],
            )
            a3, b3, c3, s3, n3 = (
                field[at + 15],
                field[at + 16],
                field[at + 17],
                field[at + 18],
                field[at + 19],
            )
            at += _TERM * _BLOCK
            for k in range(L):
                u = W[_U + k]
                rho = W[_RHO + k]
                rho2 = rho * rho
                q1 = W[_Q1 + k]
                q2 = rho2 * W[_Q2 + k]
                d1 = W[_D1 + k]
                d2 = rho2 * W[_D2 + k]
                qa = a0 * (u * q1) - b0 * q2
                da = a0 * (rho * q1 + u * d1) - b0 * d2
                qb = a1 * (u * qa) - b1 * (rho2 * q1)
                db = a1 * (rho * qa + u * da) - b1 * (rho2 * d1)
                qc = a2 * (u * qb) - b2 * (rho2 * qa)
                dc = a2 * (rho * qb + u * db) - b2 * (rho2 * da)
                qd = a3 * (u * qc) - b3 * (rho2 * qb)
                dd = a3 * (rho * qc + u * dc) - b3 * (rho2 * db)
                W[_CQ + k] += (c0 * qa + c1 * qb) + (c2 * qc + c3 * qd)
                W[_SQ + k] += (s0 * qa + s1 * qb) + (s2 * qc + s3 * qd)
                W[_CD + k] += (c0 * da + c1 * db) + (c2 * dc + c3 * dd)
                W[_SD + k] += (s0 * da + s1 * db) + (s2 * dc + s3 * dd)
                ea = n0 * qa
                eb = n1 * qb
                ec = n2 * qc
                ed = n3 * qd
                W[_CN + k] += (c0 * ea + c1 * eb) + (c2 * ec + c3 * ed)
                W[_SN + k] += (s0 * ea + s1 * eb) + (s2 * ec + s3 * ed)
                W[_Q1 + k] = qd
                W[_Q2 + k] = qc
                W[_D1 + k] = dd
                W[_D2 + k] = dc
        for k in range(L):
            r = W[_RM + k]
            i = W[_IM + k]
            W[_X + k] += m * (W[_CQ + k] * W[_RP + k] + W[_SQ + k] * W[_IP + k])
            W[_Y + k] += m * (W[_SQ + k] * W[_RP + k] - W[_CQ + k] * W[_IP + k])
            W[_Z + k] += W[_CD + k] * r + W[_SD + k] * i
            W[_R + k] += W[_CN + k] * r + W[_SN + k] * i
            W[_RP + k] = r
            W[_IP + k] = i
            W[_RM + k] = r * W[_S + k] - i * W[_T + k]
            W[_IM + k] = r * W[_T + k] + i * W[_S + k]
    for k in range(L):
        w = W[_W + k]
        rho = W[_RHO + k]
        s = w * W[PLACE + k]
        t = w * W[PLACE + L + k]
        u = w * W[PLACE + 2 * L + k]
        x = rho * W[_X + k]
        y = rho * W[_Y + k]
        z = W[_Z + k]
        along = s * x + t * y + u * z + W[_R + k]
        scale = MU * w * w
        W[PLACE + k] = scale * (x - s * along)
        W[PLACE + L + k] = scale * (y - t * along)
        W[PLACE + 2 * L + k] = scale * (z - u * along)
