"""Every input ends in a named outcome, and the counts add up.

Two ledgers, each an exact sum:

- per link: ``frames seen = frame_accepted + every other frame_* outcome``; bytes outside of any frame are
  counted in bytes as ``rubbish_bytes``;
- per sensor: ``detections in = every detection outcome + those still pending`` (held back for ordering, or
  waiting in an initiator).
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum


class Outcome(StrEnum):
    """Reasons, as they appear in counters, logs, reports and the published sensor state."""

    # of a frame or text record (ledger of its link)
    FRAME_ACCEPTED = "frame_accepted"
    FRAME_BAD_COBS = "frame_bad_cobs"
    FRAME_BAD_CRC = "frame_bad_crc"
    FRAME_TOO_LONG = "frame_too_long"
    FRAME_BAD_LENGTH = "frame_bad_length"  # CRC right, length not that of its type
    FRAME_BAD_VERSION = "frame_bad_version"
    FRAME_UNKNOWN_TYPE = "frame_unknown_type"
    FRAME_BAD_FIELD = "frame_bad_field"  # a value that the interface does not allow
    FRAME_MALFORMED = "frame_malformed"  # text or msgpack that does not parse
    FRAME_UNEXPECTED = "frame_unexpected"  # a message that only the node sends, e.g. a command
    RUBBISH_BYTES = "rubbish_bytes"  # counted in bytes
    # of a link record that never reached its codec
    QUEUE_FULL = "queue_full"
    LINK_UNKNOWN = "link_unknown"
    # of a detection (ledger of its sensor)
    USED = "used"  # updated a track
    USED_INITIATION = "used_initiation"  # became part of a new track
    UNKNOWN_SENSOR = "unknown_sensor"
    WRONG_KIND = "wrong_kind"  # a radar detection from a sensor configured as optical, or the like
    SENSOR_DISABLED = "sensor_disabled"
    NOT_FINITE = "not_finite"
    OUT_OF_LIMITS = "out_of_limits"  # range, angle, rate or sigma beyond what the sensor's config allows
    NO_ANGLES = "no_angles"
    DUPLICATE = "duplicate"
    TIME_IN_FUTURE = "time_in_future"
    LATE = "late"  # older than what the hold-back window had already released
    GATED_OUT = "gated_out"  # near a track's direction, outside its gate, and part of nothing else
    UNASSOCIATED = "unassociated"  # near nothing known, and part of nothing new within the window
    SENSOR_ISOLATED = "sensor_isolated"  # its sensor has stopped making sense: tried for the statistics only
    TRACK_LIMIT = "track_limit"  # would have made a track, but there are as many as the config allows
    # of a published state, for each release group (ledger ``group:NAME``)
    RELEASED = "released"
    NOT_RELEASED = "not_released"  # by the group's policy
    SUPERSEDED = "superseded"  # a newer one of the object went out in its place, by the rule's rate or delay
    UNMARKED = "unmarked"  # a marking was missing, so it was refused
    # of a state that another node sent (ledger ``node:LINK``), besides superseded and time_in_future
    FOREIGN_TAKEN = "foreign_taken"  # it is the newest of its track
    FOREIGN_OWN = "foreign_own"  # this node has contributed to it, so it says nothing new
    FOREIGN_UNMARKED = "foreign_unmarked"  # it does not say who contributed, or who may have it
    FOREIGN_OTHER_MODE = "foreign_other_mode"  # real, test, simulated and exercise are not mixed
    FOREIGN_TENTATIVE = "foreign_tentative"
    FOREIGN_STALE = "foreign_stale"  # too old to be of use when it came
    FOREIGN_IMPLAUSIBLE = "foreign_implausible"  # no object near the Earth, or no covariance
    FOREIGN_LIMIT = "foreign_limit"  # more tracks, or more kinds of origin, than there is room for
    FOREIGN_STRANGER = "foreign_stranger"  # the link's heartbeats are of another node than configured


PENDING = "pending"
"""Key under which reports show detections that have no outcome yet."""


class Outcomes:
    """Counters by source (a link's or a sensor's name) and outcome. Not thread-safe: one owner."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, source: str, outcome: Outcome, n: int = 1) -> None:
        """Count ``n`` more of ``outcome`` for ``source``."""
        if n:
            self._counts.setdefault(source, Counter())[outcome.value] += n

    def retract(self, source: str, outcome: str, n: int) -> None:
        """``n`` of what was counted get another outcome: their past is being gone through again."""
        counts = self._counts[source]
        counts[outcome] -= n
        if counts[outcome] == 0:
            del counts[outcome]

    def get(self, source: str, outcome: Outcome) -> int:
        """The count so far; 0 for what was never counted."""
        counts = self._counts.get(source)
        return counts[outcome.value] if counts else 0

    def of(self, source: str) -> dict[str, int]:
        """All non-zero counts of one source, sorted by name."""
        return dict(sorted(self._counts.get(source, Counter()).items()))

    def total(self, outcome: Outcome) -> int:
        """The count of one outcome over all sources."""
        return sum(c[outcome.value] for c in self._counts.values())

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Everything, sorted by source and name."""
        return {source: self.of(source) for source in sorted(self._counts)}


class Share(Outcomes):
    """What one stage adds to the counters of ``whole``, so that it can be taken back and counted anew."""

    def __init__(self, whole: Outcomes) -> None:
        super().__init__()
        self._whole = whole

    def add(self, source: str, outcome: Outcome, n: int = 1) -> None:
        """See `Outcomes.add`; counted here and in the whole."""
        super().add(source, outcome, n)
        self._whole.add(source, outcome, n)

    def mark(self) -> dict[str, dict[str, int]]:
        """The counts as they stand, for `back_to`."""
        return {source: dict(counts) for source, counts in self._counts.items()}

    def back_to(self, mark: dict[str, dict[str, int]]) -> None:
        """Take back all that was counted since ``mark`` was made."""
        for source, counts in self._counts.items():
            before = mark.get(source, {})
            for outcome, n in counts.items():
                if n != before.get(outcome, 0):
                    self._whole.retract(source, outcome, n - before.get(outcome, 0))
        self._counts = {source: Counter(counts) for source, counts in mark.items()}
