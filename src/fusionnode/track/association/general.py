"""A scan settled step by step, for engines that do so in no other way, and for clusters of many rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fusionnode.track.association.associate import Log, Measurements, Room, conclude, gate
from fusionnode.track.association.cluster import Clusters, assigned, clusters_of
from fusionnode.track.association.jpda import marginals, soften, unsure_pairs
from fusionnode.track.association.looks import detection_probability
from fusionnode.track.filtering.engine import Engine
from fusionnode.track.picture import Picture, Rules


class Concluded(NamedTuple):
    """What came of a scan."""

    review: bool  # whether there is something to look at before going on
    left: int  # measurements that found no track
    approximate: int  # clusters whose marginal probabilities are approximate


def settle_scan(
    picture: Picture,
    engine: Engine,
    room: Room,
    n: int,
    ms: Measurements,
    start: int,
    end: int,
    rules: Rules,
    log: Log,
) -> Concluded:
    """Settle the scan from ``start`` to ``end``, of which ``n`` pairs stand tried in ``room``."""
    inside = room.inside[: int(gate(picture, room, n, ms, rules))]
    rows = room.rows[inside] - start
    clusters = clusters_of(rows, room.slots[inside], end - start, room.claimed)
    taken = assigned(clusters, room.gain[inside])
    approximate = 0
    if rules.jpda:
        approximate = _share_out(picture, engine, room, inside, clusters, taken, ms, start, rules)
    review, left = conclude(picture, room, n, inside[taken], ms, start, end, rules, log)
    return Concluded(bool(review), int(left), approximate)


def _share_out(
    picture: Picture,
    engine: Engine,
    room: Room,
    inside: npt.NDArray[np.int64],
    clusters: Clusters,
    taken: npt.NDArray[np.bool_],
    ms: Measurements,
    row: int,
    rules: Rules,
) -> int:
    """Make the trials of a scan's pairs those of a JPDA filter, where the best assignment is not all but sure.

    ``inside`` (k,): the pairs in their gates; ``clusters`` of them; ``taken`` (k,): those of the best assignment.
    ``row``: a measurement of the scan. Returns how many clusters were too large for exact marginals.
    """
    beta, alone = np.empty(len(inside)), np.empty(len(inside))
    approximate = int(marginals(clusters, room.gain[inside], beta, alone))
    slots = room.slots[inside]
    unsure = unsure_pairs(slots, taken, beta, room.claimed)
    if len(unsure):
        t_ns = int(ms.t[row])
        engine.predict(picture, np.unique(slots[unsure]), t_ns, rules)
        p = float(detection_probability(picture, rules.looks, ms.sensor[row]))
        soften(picture, room, inside[unsure], taken[unsure], beta[unsure], alone[unsure], t_ns, p)
    return approximate
