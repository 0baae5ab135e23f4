"""How probable each association is: exact marginals of the joint events of a cluster.

A joint event gives every track of a cluster one of its measurements or none, and no measurement two tracks. Its
weight is the product of what its members weigh: ``ln_ratio`` of a pair, against 1 for a track that is given
nothing. The marginal of a pair is the share of the events it is part of (Bar-Shalom, Willett & Tian, Tracking and
Data Fusion, section 6.2).

Events are not listed. Tracks are taken one after the other; what matters of those already taken is only which of the
measurements that are still wanted they used up. All events that agree in this are carried as one sum (the idea of the
efficient hypothesis management of Maskell, Briers & Wright, 2004): a forward and a backward pass over such sets give
all marginals. A chain of overlapping gates costs as much as it is long, not 2^length. Where the sets become too many,
belief propagation approximates the marginals (Williams & Lau, IEEE Trans. AES 50(4), 2014); it converges on every
such graph. How many clusters went that way is counted.
"""

from __future__ import annotations

import numpy as np

from fusionnode.core.kernels import kernel
from fusionnode.track.association.associate import exist_after
from fusionnode.track.association.coarse import refresh_coarse

SURE = 1e-3
"""What is wrong with less probability than this is taken as it is."""
MOST_SETS = 4_096
"""Sets of used-up measurements carried at one track."""
MOST_STEPS = 262_144
"""Transitions between sets in one cluster: a bound on time (a few milliseconds) and memory."""
MOST_ROWS = 62
"""A set is the bits of an integer."""
MOST_SLOTS = 512
SWEEPS = 200
MOST_MESSAGES = 4_000_000
"""In one cluster: sweeps are fewer where edges are many (a bound on time; a few sweeps are enough for most)."""
LEAST_SWEEPS = 10
SETTLED = 1e-9
LN_MOST = 500.0
"""Beyond this log ratio a pair is as good as certain, and exp() stays finite."""


@kernel
def marginals(clusters, ln_ratio, beta, alone):
    """Marginal probabilities of all pairs, ``beta`` (n,), and that the pair's track is given nothing, ``alone`` (n,).

    ``ln_ratio`` (n,): the log of a pair's weight over that of its track being given nothing. Returns how many clusters
    were too large to be exact.
    """
    approximate = 0
    for c in range(clusters.start.shape[0] - 1):
        first, end = clusters.start[c], clusters.start[c + 1]
        if end - first == 1:
            i = clusters.order[first]
            alone[i] = 1.0 / (1.0 + np.exp(min(ln_ratio[i], LN_MOST)))
            beta[i] = 1.0 / (1.0 + np.exp(max(-ln_ratio[i], -LN_MOST)))
            continue
        w = np.empty(end - first)
        for k in range(first, end):
            w[k - first] = min(ln_ratio[clusters.order[k]], LN_MOST)
        row, slot = clusters.row[first:end], clusters.slot[first:end]
        n_rows, n_slots = clusters.rows[c], clusters.slots[c]
        b, nothing = np.zeros(end - first), np.zeros(n_slots)
        if not exact(row, slot, w, n_rows, n_slots, b, nothing):
            approximate += 1
            believed(row, slot, w, n_rows, n_slots, b, nothing)
        for k in range(first, end):
            beta[clusters.order[k]] = b[k - first]
            alone[clusters.order[k]] = nothing[slot[k - first]]
    return approximate


@kernel
def _by_slot(slot, n_slots):
    """Edges ordered by slot, and where each slot begins."""
    start = np.zeros(n_slots + 1, np.int64)
    for s in slot:
        start[s + 1] += 1
    for s in range(n_slots):
        start[s + 1] += start[s]
    at = start.copy()
    edges = np.empty(slot.shape[0], np.int64)
    for k in range(slot.shape[0]):
        edges[at[slot[k]]] = k
        at[slot[k]] += 1
    return edges, start


@kernel
def _sequence(row, edges, start, n_rows, n_slots):
    """Order in which tracks are taken: always the one that leaves the fewest measurements used but still wanted."""
    wanted = np.zeros(n_rows, np.int64)  # by how many tracks not yet taken
    for r in row:
        wanted[r] += 1
    is_open = np.zeros(n_rows, np.bool_)
    taken = np.zeros(n_slots, np.bool_)
    sequence = np.empty(n_slots, np.int64)
    for step in range(n_slots):
        best, best_growth = -1, 1 << 30
        for s in range(n_slots):
            if taken[s]:
                continue
            growth = 0
            for e in range(start[s], start[s + 1]):
                r = row[edges[e]]
                if wanted[r] == 1:
                    growth -= 1 if is_open[r] else 0
                elif not is_open[r]:
                    growth += 1
            if growth < best_growth:
                best, best_growth = s, growth
        taken[best] = True
        sequence[step] = best
        for e in range(start[best], start[best + 1]):
            r = row[edges[e]]
            wanted[r] -= 1
            is_open[r] = wanted[r] > 0
    return sequence


@kernel
def _place(mask, table, masks, base, count):
    """Index (from ``base``) of ``mask`` among ``count`` sets, which it joins if it is new; ``table``: hash table."""
    size = table.shape[0]
    at = ((mask * 0x1E3779B97F4A7C15) >> 40) & (size - 1)
    while True:
        held = table[at]
        if held < 0:
            table[at] = count
            masks[base + count] = mask
            return count
        if masks[base + held] == mask:
            return held
        at = (at + 1) & (size - 1)


@kernel
def exact(row, slot, ln_ratio, n_rows, n_slots, beta, nothing):
    """Marginals of one cluster: ``beta`` (edges,), ``nothing`` (slots,). False (and nothing set) if it is too large.

    ``row``, ``slot`` (edges,): local numbers; ``ln_ratio`` (edges,), at most LN_MOST.
    """
    if n_rows > MOST_ROWS or n_slots > MOST_SLOTS:
        return False
    edges, start = _by_slot(slot, n_slots)
    sequence = _sequence(row, edges, start, n_rows, n_slots)
    last = np.zeros(n_rows, np.int64)  # step at which a row is wanted for the last time
    for step in range(n_slots):
        s = sequence[step]
        for e in range(start[s], start[s + 1]):
            last[row[edges[e]]] = step
    room = 64
    masks = np.empty(room, np.int64)
    weight = np.empty(room)
    layer = np.zeros(n_slots + 2, np.int64)  # where each step's sets begin
    layer[1] = 1
    masks[0] = 0
    weight[0] = 1.0
    target = np.empty(room, np.int64)  # where each transition leads, -1: nowhere
    steps = 0
    # at most 2^rows sets at a track, and MOST_SETS: never more than half full
    table = np.full(min(1 << min(n_rows + 1, 30), 2 * MOST_SETS), -1, np.int64)
    miss = np.empty(n_slots)
    hit = np.empty(row.shape[0])
    for step in range(n_slots):
        s = sequence[step]
        top = 0.0
        for e in range(start[s], start[s + 1]):
            top = max(top, ln_ratio[edges[e]])
        miss[s] = np.exp(-top)
        keep = np.int64(-1)
        for e in range(start[s], start[s + 1]):
            hit[edges[e]] = np.exp(ln_ratio[edges[e]] - top)
            if last[row[edges[e]]] == step:
                keep &= ~(np.int64(1) << row[edges[e]])
        options = start[s + 1] - start[s] + 1
        base, count = layer[step + 1], 0
        sets = layer[step + 1] - layer[step]
        if steps + sets * options > MOST_STEPS:
            return False
        while target.shape[0] < steps + sets * options:
            target = np.concatenate((target, np.empty(target.shape[0], np.int64)))
        for i in range(layer[step], layer[step + 1]):
            for o in range(options):
                mask = masks[i]
                w = weight[i]
                if o == 0:
                    w *= miss[s]
                else:
                    edge = edges[start[s] + o - 1]
                    bit = np.int64(1) << row[edge]
                    if mask & bit:
                        target[steps] = -1
                        steps += 1
                        continue
                    mask |= bit
                    w *= hit[edge]
                if base + count + 1 > masks.shape[0]:
                    masks = np.concatenate((masks, np.empty(masks.shape[0], np.int64)))
                    weight = np.concatenate((weight, np.empty(weight.shape[0])))
                at = _place(mask & keep, table, masks, base, count)
                if at == count:
                    count += 1
                    weight[base + at] = 0.0
                    if count > MOST_SETS:
                        return False
                weight[base + at] += w
                target[steps] = base + at
                steps += 1
        layer[step + 2] = base + count
        top = 0.0
        for i in range(base, base + count):
            top = max(top, weight[i])
        if not top > 0.0:
            return False
        for i in range(base, base + count):
            weight[i] /= top
        table[:] = -1
    # backward: what can still come after each set
    after = np.zeros(masks.shape[0])
    after[layer[n_slots]] = 1.0
    for step in range(n_slots - 1, -1, -1):
        s = sequence[step]
        options = start[s + 1] - start[s] + 1
        steps -= (layer[step + 1] - layer[step]) * options
        at = steps
        total = 0.0
        top = 0.0
        for i in range(layer[step], layer[step + 1]):
            for o in range(options):
                to = target[at]
                at += 1
                if to < 0:
                    continue
                w = after[to] * (miss[s] if o == 0 else hit[edges[start[s] + o - 1]])
                after[i] += w
                total += weight[i] * w
                if o == 0:
                    nothing[s] += weight[i] * w
                else:
                    beta[edges[start[s] + o - 1]] += weight[i] * w
            top = max(top, after[i])
        if not total > 0.0:
            beta[:] = 0.0
            nothing[:] = 0.0
            return False
        nothing[s] /= total
        for e in range(start[s], start[s + 1]):
            beta[edges[e]] /= total
        for i in range(layer[step], layer[step + 1]):
            after[i] /= top
    return True


@kernel
def believed(row, slot, ln_ratio, n_rows, n_slots, beta, nothing):
    """As `exact`, approximately: belief propagation on the graph (Williams & Lau 2014, equations 27 to 31)."""
    n = row.shape[0]
    edges, start = _by_slot(slot, n_slots)
    by_row, row_start = _by_slot(row, n_rows)
    w = np.exp(ln_ratio)
    to_row = np.zeros(n)
    to_slot = np.ones(n)
    rest = np.zeros(n)  # the sum of all others of a node: of those before, then of those behind too
    for _ in range(min(SWEEPS, max(LEAST_SWEEPS, MOST_MESSAGES // n))):
        for s in range(n_slots):
            total = 1.0
            for e in range(start[s], start[s + 1]):
                rest[edges[e]] = total
                total += w[edges[e]] * to_slot[edges[e]]
            total = 0.0
            for e in range(start[s + 1] - 1, start[s] - 1, -1):
                k = edges[e]
                to_row[k] = w[k] / (rest[k] + total)
                total += w[k] * to_slot[k]
        moved = 0.0
        for r in range(n_rows):
            total = 1.0
            for e in range(row_start[r], row_start[r + 1]):
                rest[by_row[e]] = total
                total += to_row[by_row[e]]
            total = 0.0
            for e in range(row_start[r + 1] - 1, row_start[r] - 1, -1):
                k = by_row[e]
                message = 1.0 / (rest[k] + total)
                total += to_row[k]
                moved = max(moved, abs(message - to_slot[k]))
                to_slot[k] = message
        if moved < SETTLED:
            break
    for s in range(n_slots):
        total = 1.0
        for e in range(start[s], start[s + 1]):
            total += w[edges[e]] * to_slot[edges[e]]
        nothing[s] = 1.0 / total
        for e in range(start[s], start[s + 1]):
            beta[edges[e]] = w[edges[e]] * to_slot[edges[e]] / total


@kernel
def blend(x, P, share, members, to_x, to_P):
    """Moments of a mixture: mean into ``to_x`` (6,), covariance into ``to_P`` (36,), symmetric.

    ``members`` (k,) are rows of ``x`` (n, 6) and ``P`` (n, 36); ``share`` (k,) sums to one. The covariance is the
    mean of the members' and the spread of their means (Bar-Shalom, Li & Kirubarajan, Estimation with Applications,
    section 1.4.16).
    """
    mean = np.zeros(6)
    for k in range(members.shape[0]):
        for i in range(6):
            mean[i] += share[k] * x[members[k], i]
    for i in range(6):
        for j in range(i + 1):
            value = 0.0
            for k in range(members.shape[0]):
                m = members[k]
                value += share[k] * (P[m, 6 * i + j] + (x[m, i] - mean[i]) * (x[m, j] - mean[j]))
            to_P[6 * i + j] = value
            to_P[6 * j + i] = value
    for i in range(6):
        to_x[i] = mean[i]


@kernel
def soften(picture, room, pairs, taken, beta, alone, t_ns, p):
    """Give the tracks of ``pairs`` the mixture of what may have become of them, in place of the likeliest event alone.

    ``pairs`` (k,): pairs of ``room``, those of one slot behind each other; their tracks stand predicted at ``t_ns``,
    TAI ns. ``taken``, ``beta``, ``alone`` (k,): whether the pair is in the best assignment, and its marginals. ``p``:
    the sensor's probability of detection. The trial of a taken pair becomes the mixture, for `associate.conclude`; a
    track of which no pair is taken becomes the mixture here, and counts as not seen.
    """
    x, P = np.empty((pairs.shape[0] + 1, 6)), np.empty((pairs.shape[0] + 1, 36))
    share = np.empty(pairs.shape[0] + 1)
    first = 0
    while first < pairs.shape[0]:
        slot = room.slots[pairs[first]]
        psi = room.prior[pairs[first]]
        exist = exist_after(psi, p, alone[first])
        x[0] = picture.x[slot]
        P[0] = picture.P[slot]
        share[0] = alone[first] * psi * (1.0 - p) / (1.0 - p * psi)
        total = share[0]
        winner = -1
        k = 0
        while first + k < pairs.shape[0] and room.slots[pairs[first + k]] == slot:
            pair = pairs[first + k]
            if taken[first + k]:
                winner = pair
            x[k + 1] = room.trials.x[pair]
            P[k + 1] = room.trials.P[pair]
            share[k + 1] = beta[first + k]
            total += share[k + 1]
            k += 1
        for i in range(k + 1):
            share[i] /= total
        members = np.arange(k + 1)
        if winner >= 0:
            blend(x, P, share[: k + 1], members, room.trials.x[winner], room.trials.P[winner])
            room.exist[winner] = exist
        else:
            blend(x, P, share[: k + 1], members, picture.x[slot], picture.P[slot])
            picture.exist[slot] = exist
            picture.exist_ns[slot] = t_ns
            refresh_coarse(picture, slot)
        first += k


@kernel
def unsure_pairs(slots, taken, beta, claimed):
    """Pairs of the tracks whose best event is not all but sure, those of one slot behind each other.

    ``slots``, ``taken``, ``beta`` (k,): by pair. ``claimed`` (N,) int64 has one entry a slot, all of them -1 before and
    after.
    """
    n = 0
    for i in range(slots.shape[0]):
        if (beta[i] < 1.0 - SURE) if taken[i] else (beta[i] > SURE):
            claimed[slots[i]] = 0
    for i in range(slots.shape[0]):
        n += claimed[slots[i]] == 0
    pairs = np.empty(n, np.int64)
    n = 0
    for i in range(slots.shape[0]):
        if claimed[slots[i]] == 0:
            pairs[n] = i
            n += 1
    for i in range(n):
        claimed[slots[pairs[i]]] = -1
    return pairs[np.argsort(slots[pairs], kind="mergesort")]
