"""Whole scans, settled in compiled code: which tracks are tried, what is in its gate, who gets what.

A scan is one sensor at one time. In most of them every measurement has one track, and no track is wanted twice; in
any other the gated pairs fall into clusters (`cluster`), each with the assignment of most likelihood, or with
the probabilities of all its joint events (`jpda`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fusionnode.core.kernels import kernel
from fusionnode.track.association.associate import conclude, gate, scan_end
from fusionnode.track.association.cluster import assign_small, clusters_of
from fusionnode.track.association.jpda import SURE, marginals, soften, unsure_pairs
from fusionnode.track.association.looks import detection_probability
from fusionnode.track.association.select import pairs_of_scan
from fusionnode.track.filtering.filter import predict_slots, try_pairs
from fusionnode.track.filtering.noise import shape_noise

_SURE_GAIN = float(np.log(1.0 / SURE - 1.0))


class Settled(NamedTuple):
    """How far scans were settled."""

    at: int  # the first measurement that was not
    review: bool  # whether there is something to look at before going on
    open: int  # where the scan before ``at`` begins, if some of its measurements found no track; else -1
    pairs: int  # how many pairs stand tried in the room: of that scan, or else of the one at ``at`` (-1: none do)
    approximate: int  # clusters whose marginal probabilities are approximate


@kernel
def plain_pairs(room, k, rows, jpda, plain):
    """Fill ``plain`` with the pairs of a scan of ``rows`` measurements in which there is nothing to weigh up; how many.

    Every measurement has one track and no track is wanted twice. (Of a lone measurement in several gates the likeliest
    track is the assignment.) ``k``: pairs in their gates. None, if the scan is another one.
    """
    inside, gain, slots, of_row, claimed = room.inside, room.gain, room.slots, room.rows, room.claimed
    if rows == 1 and not jpda:
        best = -1
        for i in range(k):
            if gain[inside[i]] > 0.0 and (best < 0 or gain[inside[i]] > gain[best]):
                best = inside[i]
            elif not gain[inside[i]] > 0.0:
                return 0
        plain[0] = best
        return 1 if best >= 0 else 0
    if k != rows:
        return 0
    least = _SURE_GAIN if jpda else 0.0
    n = 0
    last_row = -1
    for i in range(k):
        pair = inside[i]
        if not gain[pair] > least or of_row[pair] == last_row or claimed[slots[pair]] >= 0:
            break
        last_row = of_row[pair]
        claimed[slots[pair]] = pair
        plain[n] = pair
        n += 1
    for i in range(n):
        claimed[slots[plain[i]]] = -1
    return n if n == k else 0


@kernel
def settle_scans(W, picture, ms, start, until_ns, rules, room, log):
    """Settle scans from ``start`` on and before ``until_ns``; what stands in `Settled`, in that order.

    Stops after a scan of which measurements found no track, or that changed a track's status or leaves it to be
    reviewed; and before one that has a cluster of more than `cluster.MOST_DENSE` rows, or for which there is no room.
    """
    at = start
    approximate = 0
    while at < ms.t.shape[0] and ms.t[at] < until_ns:
        end = scan_end(ms, at)
        if log.made[0] + end - at > log.row.shape[0]:
            break
        n = pairs_of_scan(picture, ms, at, end, rules, room)
        if n < 0:
            break
        if rules.shaped:
            shape_noise(picture, ms, rules, room, n)
        try_pairs(
            W, n, room.slots, room.rows, picture.x, picture.P, picture.epoch,
            ms.z, ms.t, ms.channels, rules.model, rules.psd, rules.gates, rules.may_drop, room.trials,
        )  # fmt: skip
        k = gate(picture, room, n, ms, rules)
        pairs = np.empty(max(k, 1), np.int64)
        chosen = plain_pairs(room, k, end - at, rules.jpda, pairs)
        if chosen == 0 and k > 0:
            inside = room.inside[:k]
            rows, slots, gain = room.rows[inside] - at, room.slots[inside], room.gain[inside]
            clusters = clusters_of(rows, slots, end - at, room.claimed)
            taken = np.zeros(k, np.bool_)
            if assign_small(clusters, gain, taken):
                return at, False, -1, n, approximate
            if rules.jpda:
                beta, alone = np.empty(k), np.empty(k)
                approximate += marginals(clusters, gain, beta, alone)
                unsure = unsure_pairs(slots, taken, beta, room.claimed)
                if len(unsure):
                    those = np.unique(slots[unsure])
                    predict_slots(
                        W, those, len(those), ms.t[at], picture.x, picture.P, picture.epoch, rules.model, rules.psd
                    )  # fmt: skip
                    p = detection_probability(picture, rules.looks, ms.sensor[at])
                    soften(
                        picture, room, inside[unsure], taken[unsure], beta[unsure], alone[unsure], ms.t[at], p
                    )  # fmt: skip
            for i in range(k):
                if taken[i]:
                    pairs[chosen] = inside[i]
                    chosen += 1
        review, left = conclude(picture, room, n, pairs[:chosen], ms, at, end, rules, log)
        if left or review:
            return end, review, (at if left else -1), n, approximate
        at = end
    return at, False, -1, -1, approximate
