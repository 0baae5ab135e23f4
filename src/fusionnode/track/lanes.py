"""The workspace of the kernels: sixteen tracks side by side.

A workspace is one flat float64 array of ``ROWS * LANES``. Row ``i`` of lane ``l`` is ``W[i * LANES + l]``; the
constants below name where each group of rows begins, already multiplied by LANES. One array and constant distances
let the compiler see that lanes are independent, and use the widest instructions there are: measured at four
times the speed of one track at a time (``make bench``).

No operation mixes lanes, and a lane that has nothing to do takes steps of length zero, which change no
value: what comes out for a track does not depend on which others it was computed with.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LANES = 16

_rows = 0


def _group(rows: int) -> int:
    global _rows
    start = _rows
    _rows += rows
    return start * LANES


STEP = _group(1)  # s, length of the step being taken
LEFT = _group(1)  # s, what is left to predict
X = _group(6)  # state, m, m/s, GCRF
P = _group(36)  # its covariance, row by row
PHI = _group(36)  # state transition of one step
WORK = _group(36)
GRAD = _group(24)  # four gravity gradients, six terms each
TOTAL = _group(36)  # state transition of all steps (fits only)

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
P_OUT = _group(36)
NIS = _group(1)
DET = _group(1)  # determinant of the innovation covariance of the channels that count
BEND = _group(1)  # largest departure from linearity, in sigma of its channel

ROWS = _rows


def workspace() -> npt.NDArray[np.float64]:
    """A workspace in which every lane holds something harmless to compute with, shape (ROWS * LANES,)."""
    w = np.zeros((ROWS, LANES))
    w[X // LANES : X // LANES + 6] = np.array([7.0e6, 0.0, 0.0, 0.0, 5.3e3, 5.3e3])[:, None]
    w[LOS // LANES] = w[E_LON // LANES + 1] = w[E_LAT // LANES + 2] = 1.0
    w[VAR // LANES : VAR // LANES + 4] = 1.0
    w[NOISE // LANES : NOISE // LANES + 4] = 1.0
    return w.reshape(-1)
