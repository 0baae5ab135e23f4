"""Covariance intersection: several estimates of one state whose errors may be correlated, nobody knows how.

    P^-1 = sum w_i P_i^-1,   x = P sum w_i P_i^-1 x_i,   w_i >= 0, sum w_i = 1

is consistent for every correlation if each P_i is (Julier & Uhlmann, "A non-divergent estimation algorithm in the
presence of unknown correlations", Proc. American Control Conference, 1997). The weights are those of the smallest
determinant of P: unlike the trace it does not depend on the units of position and velocity.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

_HALVINGS = 60
_ROUNDS = 500
_SETTLED = 1e-6
_FLOOR = 1e-13
"""Of the largest eigenvalue, after scaling: what is below is taken to be that. Rounding is all that it can tell."""


class NotDefinite(ValueError):  # noqa: N818 - said of a covariance
    """A covariance is none: not finite, a variance not above zero, or clearly indefinite."""


def definite(P: F64) -> F64:
    """``P`` (n, n), symmetrised, and lifted where rounding has left it singular.

    Raises:
        NotDefinite: it is no covariance.
    """
    variances = np.diagonal(P)
    if not np.isfinite(P).all() or not (variances > 0.0).all():
        raise NotDefinite("not finite, or a variance that is not above zero")
    scale = np.sqrt(variances)
    C = P / np.outer(scale, scale)
    C = 0.5 * (C + C.T)
    values, vectors = np.linalg.eigh(C)
    if values[0] < -1e-6 * values[-1]:
        raise NotDefinite("indefinite")
    least = _FLOOR * values[-1]
    if values[0] < least:
        C = (vectors * np.maximum(values, least)) @ vectors.T
        return np.asarray(0.5 * (C + C.T) * np.outer(scale, scale))
    return np.asarray(0.5 * (P + P.T))


def intersect(x: F64, P: F64) -> tuple[F64, F64, F64]:
    """The intersection of ``x`` (m, n) with covariances ``P`` (m, n, n): state (n,), covariance (n, n), weights (m,).

    Raises:
        NotDefinite: one of the covariances is none.
    """
    m = len(x)
    P = np.stack([definite(p) for p in P])
    if m == 1:
        return x[0].copy(), P[0], np.ones(1)
    # About the first state and in units of its own sigmas: numbers near one, and nothing cancels.
    scale = np.sqrt(np.diagonal(P[0]))
    dx = (x - x[0]) / scale
    information = np.stack([_inverse(p / np.outer(scale, scale)) for p in P])
    w = _two(information) if m == 2 else _many(information)
    whole = np.einsum("i,ijk->jk", w, information)
    fused = _inverse(whole)
    y = fused @ np.einsum("i,ijk,ik->j", w, information, dx)
    return x[0] + scale * y, fused * np.outer(scale, scale), w


def _inverse(A: F64) -> F64:
    values, vectors = np.linalg.eigh(0.5 * (A + A.T))
    values = np.maximum(values, 1e-300)
    out = (vectors / values) @ vectors.T
    return np.asarray(0.5 * (out + out.T))


def _two(information: F64) -> F64:
    """Weights of two: the root of a rising function, between 0 and 1, by halving.

    In the basis where both are diagonal, with ratios r of the second to the first, log det of the fused information is
    sum log(w + (1 - w) r) plus a constant: concave.
    """
    a, b = information
    L = np.linalg.cholesky(a)
    half = np.linalg.solve(L, b)
    r = np.maximum(np.linalg.eigvalsh(np.linalg.solve(L, half.T)), 0.0)

    def slope(w: float) -> float:
        below = np.maximum(w + (1.0 - w) * r, 1e-300)
        return float(((1.0 - r) / below).sum())

    if slope(1.0) >= 0.0:
        return np.array([1.0, 0.0])
    if slope(0.0) <= 0.0:
        return np.array([0.0, 1.0])
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if slope(middle) > 0.0:
            low = middle
        else:
            high = middle
    w = 0.5 * (low + high)
    return np.array([w, 1.0 - w])


def _many(information: F64) -> F64:
    """Weights of several by the multiplicative algorithm for D-optimal designs, whose determinant never falls
    (Silvey, Titterington & Torsney, Communications in Statistics A7, 1978).
    """  # fmt: skip
    m, n = information.shape[:2]
    w = np.full(m, 1.0 / m)
    for _ in range(_ROUNDS):
        inverse = _inverse(np.einsum("i,ijk->jk", w, information))
        gain = np.einsum("ijk,kj->i", information, inverse) / n
        if gain.max() <= 1.0 + _SETTLED:
            break
        w = w * gain
        w /= w.sum()
    return w
