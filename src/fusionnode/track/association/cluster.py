"""Who contends with whom: clusters of the graph of gated pairs, and the best assignment in each of them.

A *pair* is one measurement (row) and one track (slot) in whose gate it lies. Two pairs that share a row or a slot
belong to one cluster; what is decided in one cluster does not touch another. Pairs are few a measurement, so all of
this costs as much as there are pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from fusionnode.core.kernels import kernel

MOST_DENSE = 48
"""A cluster of more rows than this is assigned on a sparse matrix."""


class Clusters(NamedTuple):
    """Pairs, cluster by cluster. Numbers of rows and slots are local to their cluster and count from 0."""

    order: npt.NDArray[np.int64]  # (n,) pairs, ascending within a cluster
    start: npt.NDArray[np.int64]  # (c + 1,) where each cluster begins in ``order``
    row: npt.NDArray[np.int64]  # (n,) by place in ``order``
    slot: npt.NDArray[np.int64]  # (n,) by place in ``order``
    rows: npt.NDArray[np.int64]  # (c,) how many of them
    slots: npt.NDArray[np.int64]  # (c,)


@kernel
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def clusters_of(rows, slots, n_rows, claimed):
    """Clusters of the pairs ``rows[i]``, ``slots[i]``, in the order of their lowest rows.

    Rows are from 0 to ``n_rows``, pairs in order of their rows; ``claimed`` (N,) int64 has one entry a slot, all of
    them -1 before and after.
    """
    n = rows.shape[0]
    parent = np.arange(n_rows)
    for i in range(n):
        slot, row = slots[i], rows[i]
        if claimed[slot] < 0:
            claimed[slot] = row
        else:
            a, b = _root(parent, claimed[slot]), _root(parent, row)
            if a < b:
                parent[b] = a
            else:
                parent[a] = b
    number = np.full(n_rows, -1, np.int64)
    size = np.zeros(n + 1, np.int64)
    count = 0
    for i in range(n):
        top = _root(parent, rows[i])
        if number[top] < 0:
            number[top] = count
            count += 1
        size[number[top]] += 1
        claimed[slots[i]] = -1
    start = np.zeros(count + 1, np.int64)
    for c in range(count):
        start[c + 1] = start[c] + size[c]
    at = start.copy()
    order = np.empty(n, np.int64)
    for i in range(n):
        own = number[_root(parent, rows[i])]
        order[at[own]] = i
        at[own] += 1
    row, slot = np.empty(n, np.int64), np.empty(n, np.int64)
    n_row, n_slot = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for c in range(count):
        last = -1
        for k in range(start[c], start[c + 1]):
            i = int(order[k])
            if rows[i] != last:
                last = int(rows[i])
                n_row[c] += 1
            row[k] = n_row[c] - 1
            if claimed[slots[i]] < 0:
                claimed[slots[i]] = n_slot[c]
                n_slot[c] += 1
            slot[k] = claimed[slots[i]]
        for k in range(start[c], start[c + 1]):
            claimed[slots[order[k]]] = -1
    return Clusters(order, start, row, slot, n_row, n_slot)


@kernel
def assign_small(clusters, gain, taken):
    """Set ``taken`` (n,) bool, by pair, for every cluster of at most MOST_DENSE rows: the assignment of most ``gain``.

    ``gain`` (n,), by pair: what taking it is worth against leaving both alone; one that is not positive is left.
    Rows are added one at a time along shortest augmenting paths (the Hungarian method: Jonker & Volgenant, Computing
    38, 1987). Returns how many clusters were larger.
    """
    larger = 0
    for c in range(clusters.start.shape[0] - 1):
        first, end = clusters.start[c], clusters.start[c + 1]
        if end - first == 1:
            taken[clusters.order[first]] = gain[clusters.order[first]] > 0.0
            continue
        n, m = clusters.rows[c], clusters.slots[c]
        if n > MOST_DENSE:
            larger += 1
            continue
        cost = np.zeros((n, m + n))  # the last n: a row alone
        pair = np.full((n, m), -1, np.int64)
        for k in range(first, end):
            i = clusters.order[k]
            if gain[i] > 0.0:
                cost[clusters.row[k], clusters.slot[k]] = -gain[i]
                pair[clusters.row[k], clusters.slot[k]] = i
        partner = _hungarian(cost)
        for j in range(m):
            if partner[j] >= 0 and pair[partner[j], j] >= 0:
                taken[pair[partner[j], j]] = True
    return larger


@kernel
def _hungarian(cost):
    """Row of each column, or -1, of the cheapest assignment of all rows; ``cost`` (n, m), m >= n."""
    n, m = cost.shape
    u, v = np.zeros(n + 1), np.zeros(m + 1)
    row_of = np.zeros(m + 1, np.int64)  # both from 1 on; 0: none
    way = np.zeros(m + 1, np.int64)
    least = np.empty(m + 1)
    done = np.empty(m + 1, np.bool_)
    for row in range(1, n + 1):
        row_of[0] = row
        column = 0
        least[:] = np.inf
        done[:] = False
        while True:
            done[column] = True
            here = row_of[column]
            delta, to = np.inf, 0
            for j in range(1, m + 1):
                if done[j]:
                    continue
                reduced = cost[here - 1, j - 1] - u[here] - v[j]
                if reduced < least[j]:
                    least[j] = reduced
                    way[j] = column
                if least[j] < delta:
                    delta, to = least[j], j
            for j in range(m + 1):
                if done[j]:
                    u[row_of[j]] += delta
                    v[j] -= delta
                else:
                    least[j] -= delta
            column = to
            if row_of[column] == 0:
                break
        while column:
            row_of[column] = row_of[way[column]]
            column = way[column]
    return row_of[1:] - 1


def assign(
    rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], gain: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Global nearest neighbour: which of the pairs to take, at most one a row and one a slot, for the most ``gain``.

    ``rows``, ``slots``, ``gain`` (n,), in order of rows, which like slots are numbers from 0. Returns indices into the
    pairs, ascending.
    """
    if len(rows) == 0:
        return np.zeros(0, np.int64)
    claimed = np.full(int(slots.max()) + 1, -1, np.int64)
    return np.flatnonzero(assigned(clusters_of(rows, slots, int(rows.max()) + 1, claimed), gain))


def assigned(clusters: Clusters, gain: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """As `assign`, of clusters already made: which pairs are taken, (n,) bool."""
    taken = np.zeros(len(gain), np.bool_)
    if assign_small(clusters, gain, taken):
        for c in np.flatnonzero(clusters.rows > MOST_DENSE).tolist():
            here = slice(int(clusters.start[c]), int(clusters.start[c + 1]))
            pairs = clusters.order[here]
            taken[pairs] = _matched(clusters.row[here], clusters.slot[here], gain[pairs])
    return taken


def _matched(
    row: npt.NDArray[np.int64], slot: npt.NDArray[np.int64], gain: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """The assignment of most gain of one large cluster, on a sparse matrix; which pairs are taken."""
    worth = gain > 0.0
    r, s = row[worth], slot[worth]
    n, m = int(row.max()) + 1, int(slot.max()) + 1
    shift = float(gain.max(initial=0.0)) + 1.0  # explicit zeros would be no edges
    graph = coo_array(
        (
            np.concatenate([shift - gain[worth], np.full(n, shift)]),
            (np.concatenate([r, np.arange(n)]), np.concatenate([s, m + np.arange(n)])),
        ),
        shape=(n, m + n),
    ).tocsr()
    got_rows, got_slots = min_weight_full_bipartite_matching(graph)
    partner = np.full(n, -1, np.int64)
    partner[got_rows] = got_slots
    return worth & (partner[row] == slot)
