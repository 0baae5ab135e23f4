"""What other nodes have said of their tracks, link by link: judged, bounded, and forgotten in time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fusionnode.config import NodeLink
from fusionnode.core.foreign import Foreign, ForeignAlive, ForeignEnd, ForeignState, ForeignWhole
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import Status
from fusionnode.track.federation.intersection import NotDefinite, definite
from fusionnode.track.federation.origins import Origins

F64 = npt.NDArray[np.float64]

_NEAREST_M, _FARTHEST_M = 6.3e6, 1.0e9
_FASTEST_M_S = 2.0e4
_WIDEST_M, _WIDEST_M_S = 1.0e7, 1.0e4
_ENDED = 8_192
_TRUST_MEMORY = 100.0
_TRUST_LEAST = 20
_DISTRUST, _TRUST_AGAIN = 3.0, 1.5
"""Mean distance to own tracks per degree of freedom, by a covariance that is not too small for any correlation: above
the one a node is not believed, below the other it is again."""


class ForeignTrack:
    """One track of another node, by its newest state."""

    __slots__ = ("P", "entity", "epoch_ns", "existence", "last_ob_ns", "link", "mask", "sat_no", "seq", "status",
                 "stream_epoch", "strikes", "suitor", "track_id", "updates", "x")  # fmt: skip

    stream_epoch: str
    seq: int
    epoch_ns: int
    last_ob_ns: int
    status: int
    x: F64  # (6,) m, m/s, GCRF
    P: F64  # (6, 6)
    mask: int  # bits of its origins
    sat_no: int | None
    updates: int
    existence: float

    def __init__(self, link: str, track_id: str) -> None:
        self.link = link
        self.track_id = track_id
        self.entity: int | None = None
        """Of which object of the fused picture it is a part."""
        self.suitor: tuple[int, int] | None = None
        """Of which one it would be, and at how many epochs so far."""
        self.strikes = 0
        """At how many epochs in a row it was not like the own track it goes with."""


class Partner:
    """One link's node.

    Args:
        link_id, link: as configured.
        own_id: this node's; what it has contributed to is not taken.
        data_mode: this node's; another's is not mixed in.
        origins: where contributions get their bits.
        outcomes: each state ends in one outcome of ``node:LINK``.
        ahead_ns: how far in the future a state may be.
    """

    def __init__(
        self, link_id: str, link: NodeLink, own_id: str, data_mode: str, origins: Origins, outcomes: Outcomes,
        ahead_ns: int,
    ) -> None:  # fmt: skip
        self.link_id = link_id
        self.tracks: dict[str, ForeignTrack] = {}
        self.gone: list[ForeignTrack] = []
        """Tracks that ended since somebody looked; to be emptied."""
        self.changed: dict[str, None] = {}
        """Tracks with a new state since somebody looked; to be emptied."""
        self.stale_ns = round(link.stale_s * 1e9)
        self.end_ns = round(link.end_s * 1e9)
        self.states = 0
        """Received, whatever became of them."""
        self.epochs = 0
        """Streams met."""
        self.suspect = False
        self._link = link
        self._own_id = own_id
        self._data_mode = data_mode
        self._origins = origins
        self._outcomes = outcomes
        self._source = f"node:{link_id}"
        self._ahead_ns = ahead_ns
        self._stream_epoch: str | None = None
        self._stranger = False
        self._ended: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._floor = np.array([link.min_position_sigma_m**2] * 3 + [link.min_velocity_sigma_m_s**2] * 3)
        self._mean, self._weight = 0.0, 0.0

    def take(self, items: Sequence[Foreign], t_ns: int) -> None:
        """What came, at ``t_ns`` (TAI)."""
        for item in items:
            if self._stream_epoch != item.stream_epoch and not isinstance(item, ForeignEnd):
                self._stream_epoch = item.stream_epoch
                self.epochs += 1
            if isinstance(item, ForeignState):
                self.states += 1
                self._outcomes.add(self._source, self._state(item, t_ns))
            elif isinstance(item, ForeignEnd):
                self._end(item)
            elif isinstance(item, ForeignWhole):
                self._only(item)
            elif isinstance(item, ForeignAlive):
                self._stranger = item.node_id != self._link.node_id

    def age(self, t_ns: int) -> None:
        """Forget what nobody has spoken of for too long, at ``t_ns``."""
        for track in [t for t in self.tracks.values() if t_ns - t.epoch_ns > self.end_ns]:
            self._forget(track)

    def fresh(self, track: ForeignTrack, t_ns: int) -> bool:
        """Whether its state is new enough to be fused."""
        return t_ns - track.epoch_ns <= self.stale_ns

    def judge(self, d2: float, degrees: int) -> None:
        """A track of it and the own one it goes with are so far apart, by a covariance that is not too small."""
        self._mean = (self._mean * self._weight + d2 / degrees) / (self._weight + 1.0)
        self._weight = min(self._weight + 1.0, _TRUST_MEMORY)
        if self._weight >= _TRUST_LEAST:
            self.suspect = self._mean > (_TRUST_AGAIN if self.suspect else _DISTRUST)

    def summary(self) -> dict[str, object]:
        """Counts for the node's summary."""
        return {
            "states": self.states,
            "tracks": len(self.tracks),
            "streams": self.epochs,
            "suspect": self.suspect,
            "distance": round(self._mean, 3),
            "outcomes": self._outcomes.of(self._source),
        }

    def _state(self, s: ForeignState, t_ns: int) -> Outcome:
        if self._stranger:
            return Outcome.FOREIGN_STRANGER
        if not s.provenance or not s.releasable_to:
            return Outcome.FOREIGN_UNMARKED
        if self._own_id in s.provenance:
            return Outcome.FOREIGN_OWN
        if s.data_mode != self._data_mode:
            return Outcome.FOREIGN_OTHER_MODE
        if s.status == Status.TENTATIVE:
            return Outcome.FOREIGN_TENTATIVE
        if s.epoch_ns > t_ns + self._ahead_ns or s.last_ob_ns > t_ns + self._ahead_ns:
            return Outcome.TIME_IN_FUTURE
        if t_ns - s.epoch_ns > self.stale_ns:
            return Outcome.FOREIGN_STALE
        P = _plausible(s.x, s.P)
        if P is None:
            return Outcome.FOREIGN_IMPLAUSIBLE
        if s.seq <= self._ended.get((s.stream_epoch, s.track_id), -1):
            return Outcome.SUPERSEDED
        track = self.tracks.get(s.track_id)
        if track is not None and track.stream_epoch == s.stream_epoch and s.epoch_ns <= track.epoch_ns:
            return Outcome.SUPERSEDED
        if track is None and len(self.tracks) >= self._link.most_tracks:
            return Outcome.FOREIGN_LIMIT
        mask = self._origins.mask(s.provenance, s.releasable_to, s.marking)
        if mask is None:
            return Outcome.FOREIGN_LIMIT
        if track is None:
            track = self.tracks[s.track_id] = ForeignTrack(self.link_id, s.track_id)
        track.stream_epoch, track.seq = s.stream_epoch, s.seq
        track.epoch_ns, track.last_ob_ns, track.status = s.epoch_ns, s.last_ob_ns, s.status
        # Nobody is as sure as a liar: what is below the floor is no better than the floor.
        track.x, track.P = s.x, P + np.diag(np.maximum(self._floor - np.diagonal(P), 0.0))
        track.mask, track.sat_no = mask, s.sat_no
        track.updates, track.existence = s.updates, s.existence
        self.changed[s.track_id] = None
        return Outcome.FOREIGN_TAKEN

    def _end(self, end: ForeignEnd) -> None:
        key = (end.stream_epoch, end.track_id)
        self._ended[key] = max(end.seq, self._ended.get(key, -1))
        self._ended.move_to_end(key)
        while len(self._ended) > _ENDED:
            self._ended.popitem(last=False)
        track = self.tracks.get(end.track_id)
        if track is not None and track.stream_epoch == end.stream_epoch and track.seq < end.seq:
            self._forget(track)

    def _only(self, whole: ForeignWhole) -> None:
        present = dict.fromkeys(whole.track_ids)
        for track in list(self.tracks.values()):
            if track.stream_epoch != whole.stream_epoch or (
                track.seq <= whole.seq and track.track_id not in present
            ):
                self._forget(track)

    def _forget(self, track: ForeignTrack) -> None:
        del self.tracks[track.track_id]
        self.changed.pop(track.track_id, None)
        self.gone.append(track)


def _plausible(x: F64, P: F64) -> F64 | None:
    """The covariance, mended; None: such a state is none of an object near the Earth, or it says nothing."""
    distance, speed = float(np.linalg.norm(x[:3])), float(np.linalg.norm(x[3:]))
    if not (_NEAREST_M <= distance <= _FARTHEST_M and speed <= _FASTEST_M_S):
        return None
    try:
        P = definite(P)
    except NotDefinite:
        return None
    variances = np.diagonal(P)
    if variances[:3].max() > _WIDEST_M**2 or variances[3:].max() > _WIDEST_M_S**2:
        return None
    return P
