"""The workspace of the kernels: eight tracks side by side.

A workspace is one flat float64 array of ``ROWS * LANES``. Row ``i`` of lane ``l`` is ``W[i * LANES + l]``; the
constants below name where each group of rows begins, already multiplied by LANES. One array and constant distances
let the compiler see that lanes are independent, and use the widest instructions there are. It does so for a loop
over lanes that holds no other loop; what stands in it is therefore written out, and keeps a whole covariance in
registers. Eight lanes are one register of the widest kind; more of them are no faster, and a lone pair pays for all.

No operation mixes lanes, and a lane that has nothing to do takes steps of length zero, which change no
value: what comes out for a track does not depend on which others it was computed with.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusionnode.core.kernels import inlined

LANES = 8

_rows = 0


def _group(rows: int) -> int:
    global _rows
    start = _rows
    _rows += rows
    return start * LANES


STEP = _group(1)  # s, length of the step being taken
LEFT = _group(1)  # s, what is left to predict
T = _group(1)  # s, time of X from the reference time of the dynamics
COEFFICIENTS = _group(2)  # Cd A/m and Cr A/m, m^2/kg
X = _group(6)  # state, m, m/s, GCRF
P = _group(21)  # lower triangle of its covariance, row by row
PHI = _group(36)  # state transition of one step
GRAD = _group(24)  # four gravity gradients, six terms each

LOS = _group(3)  # measurement, as core.types.MEASUREMENT
E_LON = _group(3)
E_LAT = _group(3)
SITE_R = _group(3)
SITE_V = _group(3)
RANGE = _group(1)
RANGE_RATE = _group(1)
VAR = _group(4)  # range, lon, lat, range rate
TARGET_DELAY = _group(1)
SITE_DELAY = _group(1)
USE = _group(4)  # 1 for a channel that counts, 0 for one that does not

NOISE = _group(4)  # VAR and what the bend of the measurement function over P adds to it
X_LIN = _group(6)  # where the measurement is linearised
Y = _group(4)  # innovation there
H = _group(24)  # 4 x 6
X_OUT = _group(6)
P_OUT = _group(21)
NIS = _group(1)
DET = _group(1)  # determinant of the innovation covariance of the channels that count
BEND = _group(1)  # largest departure from linearity, in sigma of its channel
SOUND = _group(1)  # above zero where what the update gave is finite and positive definite
FORM = _group(1)  # how the update was made: PLAIN, SQUARE_ROOT or REFUSED
TALLY = _group(1)  # not of a lane: trials made in square-root form, and trials refused, so far

# Last: what a trial needs stays together in the processor's nearest cache.
TOTAL = _group(36)  # state transition of all steps
WORK = _group(36)

# What only the full dynamics need.
AT = _group(7)  # place, velocity (GCRF) and time at which forces are evaluated
PUSH = _group(3)  # acceleration there beyond the zonal field, m/s^2
DRAG = _group(3)  # its derivative by Cd A/m
LIGHT = _group(3)  # and by Cr A/m
KICK = _group(1)  # s, how long it counts for
PIECE = _group(1)  # s, the piece of a long arc being gone through
STAGE = _group(1)  # where in it
CROSS = _group(12)  # covariance of state and coefficients, 6 x 2
SPREAD = _group(3)  # lower triangle of the coefficients' own
NODES = _group(24)  # positions, then accelerations, at four nodes of a stretch
HARMONICS = _group(26)

ROWS = _rows


@inlined
def lower(W, at, m):
    """The lower triangle at ``at`` of lane ``m``: (0, 0), (1, 0), (1, 1), (2, 0) ..."""
    L = LANES
    a = at + m
    return (
        W[a], W[a + L], W[a + 2 * L], W[a + 3 * L], W[a + 4 * L], W[a + 5 * L], W[a + 6 * L],
        W[a + 7 * L], W[a + 8 * L], W[a + 9 * L], W[a + 10 * L], W[a + 11 * L], W[a + 12 * L], W[a + 13 * L],
        W[a + 14 * L], W[a + 15 * L], W[a + 16 * L], W[a + 17 * L], W[a + 18 * L], W[a + 19 * L], W[a + 20 * L],
    )  # fmt: skip


@inlined
def six(W, at, m):
    """Six rows from ``at`` on, of lane ``m``: a state, or a row of a matrix."""
    L = LANES
    a = at + m
    return W[a], W[a + L], W[a + 2 * L], W[a + 3 * L], W[a + 4 * L], W[a + 5 * L]


@inlined
def dot(a, b):
    """Scalar product of two tuples of six."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3] + a[4] * b[4] + a[5] * b[5]


@inlined
def times(p, f):
    """The symmetric matrix whose lower triangle is the tuple ``p``, times the vector ``f``."""
    return (
        p[0] * f[0] + p[1] * f[1] + p[3] * f[2] + p[6] * f[3] + p[10] * f[4] + p[15] * f[5],
        p[1] * f[0] + p[2] * f[1] + p[4] * f[2] + p[7] * f[3] + p[11] * f[4] + p[16] * f[5],
        p[3] * f[0] + p[4] * f[1] + p[5] * f[2] + p[8] * f[3] + p[12] * f[4] + p[17] * f[5],
        p[6] * f[0] + p[7] * f[1] + p[8] * f[2] + p[9] * f[3] + p[13] * f[4] + p[18] * f[5],
        p[10] * f[0] + p[11] * f[1] + p[12] * f[2] + p[13] * f[3] + p[14] * f[4] + p[19] * f[5],
        p[15] * f[0] + p[16] * f[1] + p[17] * f[2] + p[18] * f[3] + p[19] * f[4] + p[20] * f[5],
    )


def workspace() -> npt.NDArray[np.float64]:
    """A workspace in which every lane holds something harmless to compute with, shape (ROWS * LANES,)."""
    w = np.zeros((ROWS, LANES))
    w[X // LANES : X // LANES + 6] = np.array([7.0e6, 0.0, 0.0, 0.0, 5.3e3, 5.3e3])[:, None]
    w[LOS // LANES] = w[E_LON // LANES + 1] = w[E_LAT // LANES + 2] = 1.0
    w[AT // LANES] = 7.0e6
    w[VAR // LANES : VAR // LANES + 4] = 1.0
    w[NOISE // LANES : NOISE // LANES + 4] = 1.0
    return w.reshape(-1)
