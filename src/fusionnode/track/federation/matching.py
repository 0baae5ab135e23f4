"""Which of two sets of tracks are of one object: gated, one to one, and slow to change its mind.

The errors of two nodes' tracks may be correlated in a way that nobody knows (common sensors, common process noise).
For any correlation, the covariance of their difference is not larger than P_a / w + P_b / (1 - w), 0 < w < 1 (as for
covariance intersection); the gate is on the distance by 2 (P_a + P_b), the bound for w = 1/2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Pair = tuple[int, int]

_BUCKET = 4.0
_WIDEST_M = 200_000.0
"""A track less sure of its position than this is not matched at all."""


def position_sigma(P: F64) -> F64:
    """(n,) sigma along the worst axis of the positions of covariances (n, 6, 6), m; an upper bound, by the trace."""
    return np.asarray(np.sqrt(np.maximum(P[:, 0, 0] + P[:, 1, 1] + P[:, 2, 2], 0.0)))


def distances2(xa: F64, Pa: F64, xb: F64, Pb: F64) -> F64:
    """(n,) squared distances of states (n, 6) by 2 (Pa + Pb); infinite where nothing can be told."""
    d = xa - xb
    S = 2.0 * (Pa + Pb)
    out = np.full(len(d), np.inf)
    scale = np.sqrt(np.maximum(np.diagonal(S, axis1=1, axis2=2), 0.0))
    fine = (scale > 0.0).all(axis=1) & np.isfinite(S).all(axis=(1, 2)) & np.isfinite(d).all(axis=1)
    for i in np.flatnonzero(fine):
        try:
            L = np.linalg.cholesky(S[i] / np.outer(scale[i], scale[i]))
            y = np.linalg.solve(L, d[i] / scale[i])
        except np.linalg.LinAlgError:
            continue
        out[i] = float(y @ y)
    return out


def candidates(xa: F64, Pa: F64, xb: F64, Pb: F64, gate2: float) -> tuple[I64, I64]:
    """Rows of a and of b whose positions are near enough for the gate; by trees of like sigma, not all pairs.

    States (n, 6) and (m, 6) at one epoch. Ascending by a, then by b.
    """
    sa, sb = position_sigma(Pa), position_sigma(Pb)
    usable = np.flatnonzero(np.isfinite(xb).all(axis=1) & (sb < _WIDEST_M))
    mine = np.flatnonzero(np.isfinite(xa).all(axis=1) & (sa < _WIDEST_M))
    pairs: list[Pair] = []
    if len(usable) and len(mine):
        bucket = np.ceil(np.log(np.maximum(sb[usable], 1.0)) / np.log(_BUCKET)).astype(np.int64)
        for k in np.unique(bucket).tolist():
            those = usable[bucket == k]
            tree = cKDTree(xb[those, :3])
            reach = np.sqrt(2.0 * gate2 * (sa[mine] ** 2 + _BUCKET ** (2 * k)))
            for i, found in zip(mine.tolist(), tree.query_ball_point(xa[mine, :3], reach), strict=True):
                pairs += [(i, int(those[j])) for j in found]
    pairs.sort()
    made = np.array(pairs, np.int64).reshape(-1, 2)
    return made[:, 0], made[:, 1]


def assign(a: Sequence[int], b: Sequence[int], cost: F64) -> list[Pair]:
    """One-to-one pairs of the given (a, b, cost), as many as can be, of the least sum; each cluster by itself."""
    parent: dict[tuple[str, int], tuple[str, int]] = {}

    def root(node: tuple[str, int]) -> tuple[str, int]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for i, j in zip(a, b, strict=True):
        ra, rb = root(("a", i)), root(("b", j))
        if ra != rb:
            parent[max(ra, rb)] = min(ra, rb)
    clusters: dict[tuple[str, int], list[int]] = {}
    for k, i in enumerate(a):
        clusters.setdefault(root(("a", i)), []).append(k)
    out: list[Pair] = []
    for rows in clusters.values():
        if len(rows) == 1:
            out.append((a[rows[0]], b[rows[0]]))
            continue
        left = sorted({a[k] for k in rows})
        right = sorted({b[k] for k in rows})
        far = 1e6 + 1e3 * float(max(cost[k] for k in rows)) * len(rows)
        table = np.full((len(left), len(right)), far)
        for k in rows:
            table[left.index(a[k]), right.index(b[k])] = cost[k]
        for i, j in zip(*linear_sum_assignment(table), strict=True):
            if table[i, j] < far:
                out.append((left[i], right[j]))
    return sorted(out)
