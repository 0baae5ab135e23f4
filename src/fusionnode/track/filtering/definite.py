"""No covariance that is not finite, symmetric and positive definite: how lanes are judged, and what is done then.

An update whose covariance fails is made again in square-root form, from a factor of the prior. Where correlations
are closer to one than the numbers can hold, the diagonal is widened by a part in 10^13. What is beyond that is refused.
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import inlined, kernel
from fusionnode.track.lanes import (
    DET,
    FORM,
    LANES,
    NIS,
    NOISE,
    P_OUT,
    SOUND,
    TALLY,
    USE,
    X_LIN,
    X_OUT,
    H,
    P,
    X,
    Y,
    lower,
    six,
)

PLAIN, SQUARE_ROOT, REFUSED = 0, 1, 2
"""How an update was made (FORM)."""

FLOOR = 1e-14
"""A pivot of the factorisation is to be more than this part of its diagonal element. Rounding makes errors of about
20 units of 1e-16 in it; the covariance of a well-held track has pivots of 1e-10 and more."""
WIDENINGS = (0.0, 1e-13, 1e-11, 1e-9, 1e-7)
"""By which part the diagonal is widened, one after the other, until the matrix is positive definite."""


@inlined
def _least_pivot(p):
    """Least pivot of L D L' above FLOOR of its diagonal element; p is the lower triangle as a tuple of 21."""
    floor = FLOOR
    least = p[0] - floor * p[0]
    w = 1.0 / p[0]
    f1 = p[1] * w
    f2 = p[3] * w
    f3 = p[6] * w
    f4 = p[10] * w
    f5 = p[15] * w
    q11 = p[2] - f1 * p[1]
    q21, q22 = p[4] - f2 * p[1], p[5] - f2 * p[3]
    q31, q32, q33 = p[7] - f3 * p[1], p[8] - f3 * p[3], p[9] - f3 * p[6]
    q41, q42, q43, q44 = p[11] - f4 * p[1], p[12] - f4 * p[3], p[13] - f4 * p[6], p[14] - f4 * p[10]
    q51, q52, q53, q54, q55 = (
        p[16] - f5 * p[1],
        p[17] - f5 * p[3],
        p[18] - f5 * p[6],
        p[19] - f5 * p[10],
        p[20] - f5 * p[15],
    )
    least = min(least, q11 - floor * p[2])
    w = 1.0 / q11
    f2 = q21 * w
    f3 = q31 * w
    f4 = q41 * w
    f5 = q51 * w
    q22 = q22 - f2 * q21
    q32, q33 = q32 - f3 * q21, q33 - f3 * q31
    q42, q43, q44 = q42 - f4 * q21, q43 - f4 * q31, q44 - f4 * q41
    q52, q53, q54, q55 = q52 - f5 * q21, q53 - f5 * q31, q54 - f5 * q41, q55 - f5 * q51
    least = min(least, q22 - floor * p[5])
    w = 1.0 / q22
    f3 = q32 * w
    f4 = q42 * w
    f5 = q52 * w
    q33 = q33 - f3 * q32
    q43, q44 = q43 - f4 * q32, q44 - f4 * q42
    q53, q54, q55 = q53 - f5 * q32, q54 - f5 * q42, q55 - f5 * q52
    least = min(least, q33 - floor * p[9])
    w = 1.0 / q33
    f4 = q43 * w
    f5 = q53 * w
    q44 = q44 - f4 * q43
    q54, q55 = q54 - f5 * q43, q55 - f5 * q53
    least = min(least, q44 - floor * p[14])
    w = 1.0 / q44
    f5 = q54 * w
    q55 = q55 - f5 * q54
    return min(least, q55 - floor * p[20])


@kernel
def judge_lanes(W, at):
    """SOUND of every lane to at most its least pivot above FLOOR, and to nan where the state or P is not finite.

    ``at``: P_OUT or P. The pivots are those of L D L' (Golub & Van Loan, Matrix Computations, section 4.1.2): scaling
    the matrix scales them, so that a pivot over its diagonal element is that of the correlations.
    """
    L = LANES
    state = X_OUT if at == P_OUT else X
    if at == P:
        for m in range(L):
            W[SOUND + m] = np.inf
    for m in range(L):
        p = lower(W, at, m)
        x = six(W, state, m)
        size = (
            x[0] + x[1] + x[2] + x[3] + x[4] + x[5]
            + p[0] + p[1] + p[2] + p[3] + p[4] + p[5] + p[6] + p[7] + p[8] + p[9] + p[10]
            + p[11] + p[12] + p[13] + p[14] + p[15] + p[16] + p[17] + p[18] + p[19] + p[20]
        )  # fmt: skip
        W[SOUND + m] = min(W[SOUND + m], _least_pivot(p)) + 0.0 * size


@kernel
def factor(C, S, n):
    """Lower Cholesky factor of the leading ``n`` rows of C (symmetric, lower triangle read) into S.

    Widens the diagonal of C by the least of WIDENINGS that makes it positive definite. Says whether one did.
    """
    for i in range(n):
        if not 0.0 < C[i, i] < np.inf:
            return False
    for widening in WIDENINGS:
        done = True
        for i in range(n):
            for j in range(i + 1):
                value = C[i, j]
                if i == j:
                    value *= 1.0 + widening
                for k in range(j):
                    value -= S[i, k] * S[j, k]
                if i != j:
                    S[i, j] = value / S[j, j]
                elif value > FLOOR * C[i, i]:
                    S[i, i] = np.sqrt(value)
                else:
                    done = False
                    break
            if not done:
                break
        if done:
            for i in range(n):
                C[i, i] *= 1.0 + widening
                for j in range(i):
                    if not abs(S[i, j]) < np.inf:
                        return False
            return True
    return False


@kernel
def triangularise(A, n, columns):
    """Turn A (n, columns), columns >= n, into a lower triangle L in its first n columns: L L' = A A' (Householder
    reflections from the right; Golub & Van Loan, Matrix Computations, section 5.2). L's diagonal is not negative.
    """
    v = np.empty(columns)
    for k in range(n):
        biggest = 0.0
        for j in range(k, columns):
            biggest = max(biggest, abs(A[k, j]))
        if not biggest > 0.0:
            continue
        norm2 = 0.0
        for j in range(k, columns):
            v[j] = A[k, j] / biggest
            norm2 += v[j] * v[j]
        norm = np.sqrt(norm2)
        head = v[k]
        v[k] = head + norm if head >= 0.0 else head - norm
        scale = 1.0 / (norm2 + abs(head) * norm)
        # a reflection makes the diagonal -sign(head) norm; the column's sign is free
        sign = -1.0 if head >= 0.0 else 1.0
        for i in range(k, n):
            product = 0.0
            for j in range(k, columns):
                product += A[i, j] * v[j]
            product *= scale
            for j in range(k, columns):
                A[i, j] -= product * v[j]
            A[i, k] *= sign
        A[k, k] = norm * biggest
        for j in range(k + 1, columns):
            A[k, j] = 0.0


@kernel
def _widened_square(A, at, C, S):
    """Lower triangle of L L' into C, L being the six rows of A from (at, at) on, made definite; says whether it is."""
    for i in range(6):
        for j in range(i + 1):
            total = 0.0
            for k in range(j + 1):
                total += A[at + i, at + k] * A[at + j, at + k]
            C[i, j] = total
    return factor(C, S, 6)


@kernel
def take_lower(W, at, m, C):
    """The lower triangle at ``at`` of lane ``m`` into that of C (6, 6)."""
    to = at + m
    for i in range(6):
        for j in range(i + 1):
            C[i, j] = W[to]
            to += LANES


@kernel
def put_lower(W, at, m, C):
    """The lower triangle of C (6, 6) into that at ``at`` of lane ``m``."""
    to = at + m
    for i in range(6):
        for j in range(i + 1):
            W[to] = C[i, j]
            to += LANES


@kernel
def _in_square_root_form(W, m):
    """The update of lane ``m`` again, from a factor of its prior, by orthogonal transformation of the array
    [[R^1/2, H S], [0, S]] (Kailath, Sayed & Hassibi, Linear Estimation, section 12.3); says whether it could be made.
    """
    L = LANES
    C = np.zeros((6, 6))
    S = np.zeros((6, 6))
    take_lower(W, P, m, C)
    if not factor(C, S, 6):
        return False
    A = np.zeros((10, 10))
    n = 0
    y = np.zeros(4)
    for c in range(4):
        if not W[USE + c * L + m] > 0.0:
            continue
        noise = W[NOISE + c * L + m]
        if not 0.0 <= noise < np.inf:
            return False
        A[n, n] = np.sqrt(noise)
        y[n] = W[Y + c * L + m]
        for i in range(6):
            h = W[H + (6 * c + i) * L + m]
            y[n] += h * (W[X_LIN + i * L + m] - W[X + i * L + m])
            for j in range(i + 1):
                A[n, 4 + j] += h * S[i, j]
        n += 1
    # the channels that count came first; close the gap to the state's columns
    for c in range(n):
        for j in range(6):
            A[c, n + j] = A[c, 4 + j]
    for i in range(6):
        for j in range(i + 1):
            A[n + i, n + j] = S[i, j]
    return update_from_array(W, m, A, n, n + 6, y, C, S)


@kernel
def update_from_array(W, m, A, n, columns, y, C, S):
    """Finish an update of lane ``m`` that stands as an array: A A' is the joint covariance of ``n`` channels (first
    rows) and the state (six rows); ``y`` (n,) are the innovations of the state in X.

    Fills X_OUT, P_OUT, NIS and DET; says whether it could be made. A, y, C (6, 6) and S (6, 6) are used up.
    """
    L = LANES
    triangularise(A, n + 6, columns)
    nis = 0.0
    det = 1.0
    for c in range(n):
        if not A[c, c] > 0.0:
            return False
        for k in range(c):
            y[c] -= A[c, k] * y[k]
        y[c] /= A[c, c]
        nis += y[c] * y[c]
        det *= A[c, c] * A[c, c]
    if not (nis < np.inf and 0.0 < det < np.inf):
        return False
    for i in range(6):
        value = W[X + i * L + m]
        for c in range(n):
            value += A[n + i, c] * y[c]
        if not abs(value) < np.inf:
            return False
        W[X_OUT + i * L + m] = value
    if not _widened_square(A, n, C, S):
        return False
    put_lower(W, P_OUT, m, C)
    W[NIS + m] = nis
    W[DET + m] = det
    return True


@kernel
def mend_updates(W, n):
    """Make the updates of those of the first ``n`` lanes again that are not SOUND; FORM says what became of each.

    A lane that cannot be mended gets an infinite NIS.
    """
    for m in range(n):
        W[FORM + m] = PLAIN
        if W[SOUND + m] > 0.0:
            continue
        if _in_square_root_form(W, m):
            W[FORM + m] = SQUARE_ROOT
        else:
            W[FORM + m] = REFUSED
            W[NIS + m] = np.inf


@kernel
def mend_predictions(W, n):
    """Widen P in those of the first ``n`` lanes that are not SOUND; where that does not help it becomes nan."""
    C = np.zeros((6, 6))
    S = np.zeros((6, 6))
    for m in range(n):
        if W[SOUND + m] > 0.0:
            continue
        take_lower(W, P, m, C)
        sound = factor(C, S, 6)
        for i in range(6):
            sound = sound and abs(W[X + i * LANES + m]) < np.inf
        if not sound:
            for i in range(6):
                for j in range(i + 1):
                    C[i, j] = np.nan
        put_lower(W, P, m, C)


@kernel
def tally(W, n):
    """Count the trials in the first ``n`` lanes by FORM."""
    for m in range(n):
        if W[FORM + m] == SQUARE_ROOT:
            W[TALLY] += 1.0
        elif W[FORM + m] == REFUSED:
            W[TALLY + 1] += 1.0
