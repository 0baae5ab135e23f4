"""GOSPA: how far a set of tracks is from the true objects (Rahmathullah, Garcia-Fernandez & Svensson, FUSION 2017)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree


class Gospa(NamedTuple):
    """Of order 2, alpha 2: ``distance`` (m) squared is the sum of the squared errors of ``matched`` pairs, and half the
    squared cut-off for each of ``missed`` and ``false``.
    """

    distance: float
    localisation: float  # m, root mean square over the pairs
    missed: int
    false: int


def gospa(tracks: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], cut_m: float = 5_000.0) -> Gospa:
    """GOSPA (p = 2, alpha = 2) of positions ``tracks`` (n, 3) and ``truth`` (m, 3), m.

    A pair farther apart than ``cut_m`` is never better than a miss and a false track, so only nearer ones are looked
    at, each connected part of them by itself.
    """
    n, m = len(tracks), len(truth)
    near = (
        cKDTree(tracks).sparse_distance_matrix(cKDTree(truth), cut_m, output_type="ndarray")
        if n and m
        else []
    )
    pairs = 0
    squares = 0.0
    if len(near):
        i, j, d = near["i"], near["j"] + n, near["v"]
        _, part = connected_components(
            coo_array((np.ones(len(i)), (i, j)), shape=(n + m, n + m)), directed=False
        )
        order = np.argsort(part[i], kind="stable")
        for edges in np.split(order, np.flatnonzero(np.diff(part[i][order])) + 1):
            a, b = np.unique(i[edges], return_inverse=True), np.unique(j[edges], return_inverse=True)
            gain = np.zeros((len(a[0]), len(b[0])))
            gain[a[1], b[1]] = cut_m**2 - d[edges] ** 2
            rows, columns = linear_sum_assignment(gain, maximize=True)
            won = gain[rows, columns]
            pairs += int(np.count_nonzero(won))
            squares += float((cut_m**2 - won[won > 0.0]).sum())
    missed, false = m - pairs, n - pairs
    distance = np.sqrt(squares + 0.5 * cut_m**2 * (missed + false))
    return Gospa(float(distance), float(np.sqrt(squares / pairs)) if pairs else 0.0, missed, false)
