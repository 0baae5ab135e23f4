"""Normal equations of six unknowns."""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import kernel


@kernel
def inverse_of(N, least):
    """Inverse of N (6, 6) by Cholesky, its rows scaled first, and whether there is one: no pivot of the scaled matrix
    below ``least`` (Golub & Van Loan, Matrix Computations, section 4.2).
    """
    inverse = np.zeros((6, 6))
    s = np.empty(6)
    for i in range(6):
        if not N[i, i] > 0.0:
            return False, inverse
        s[i] = 1.0 / np.sqrt(N[i, i])
    C = np.zeros((6, 6))
    for i in range(6):
        for j in range(i + 1):
            value = N[i, j] * s[i] * s[j]
            for k in range(j):
                value -= C[i, k] * C[j, k]
            if i == j:
                if not value > least:
                    return False, inverse
                C[i, i] = np.sqrt(value)
            else:
                C[i, j] = value / C[j, j]
    y = np.empty(6)
    for column in range(6):
        for i in range(6):
            value = 1.0 if i == column else 0.0
            for k in range(i):
                value -= C[i, k] * y[k]
            y[i] = value / C[i, i]
        for i in range(5, -1, -1):
            value = y[i]
            for k in range(i + 1, 6):
                value -= C[k, i] * y[k]
            y[i] = value / C[i, i]
        for i in range(6):
            inverse[i, column] = y[i] * s[i] * s[column]
    for i in range(6):
        for j in range(i):
            mean = 0.5 * (inverse[i, j] + inverse[j, i])
            inverse[i, j] = mean
            inverse[j, i] = mean
    return True, inverse
