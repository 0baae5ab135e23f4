"""When to ask, when to ask again. No sockets, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fusionnode.client.events import CueReply
from fusionnode.core import schema

_MAX_TIMEOUT_S: Final = 120.0
_CUE_AGAIN_S: Final = 15.0
_CUE_TRIES: Final = 8
_MOST_CUES: Final = 256
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


class Question:
    """One request that waits for one reply; asked again with a new id when none comes, later each time."""

    def __init__(self, timeout_s: float) -> None:
        self._first_timeout_s = self._timeout_s = timeout_s
        self._id: int | None = None
        self._asked_at: float | None = None
        self._ask_at = 0.0

    @property
    def due_at(self) -> float:
        """When to ask, or to give up waiting."""
        return self._ask_at if self._asked_at is None else self._asked_at + self._timeout_s

    def is_due(self, now: float) -> bool:
        """It is time to ask."""
        if self._asked_at is not None and now - self._asked_at >= self._timeout_s:
            self._asked_at = self._id = None
            self._timeout_s = min(2 * self._timeout_s, _MAX_TIMEOUT_S)
        return self._asked_at is None and now >= self._ask_at

    def asked(self, request_id: int, now: float) -> None:
        """It was asked."""
        self._id, self._asked_at = request_id, now

    def is_answered_by(self, request_id: int | None) -> bool:
        """A reply with this id is the one waited for; then it waits no more."""
        if request_id is None or request_id != self._id:
            return False
        self._id = self._asked_at = None
        return True

    def put_off(self, until: float) -> None:
        """Ask (again) then; what was asked is given up."""
        self._id = self._asked_at = None
        self._ask_at = until

    def was_of_use(self) -> None:
        """The reply was what was needed: patience is new."""
        self._timeout_s = self._first_timeout_s
        self._ask_at = 0.0


@dataclass
class _Cue:
    body: dict[str, Any]
    due_at: float | None = 0.0  # None: a reply has come
    tries: int = 0


class Cues:
    """Requests for observations that are open."""

    def __init__(self) -> None:
        self._open: dict[int, _Cue] = {}

    def add(
        self,
        request_id: int,
        track_id: str | None,
        sat_no: int | None,
        from_utc: str,
        to_utc: str,
        sensor: str | None,
    ) -> None:
        """One more; sent at the next opportunity.

        Raises:
            ValueError: not one object, a time that is none, or too many are open.
        """
        if (track_id is None) == (sat_no is None):
            raise ValueError("track_id, sat_no: expected one of the two")
        for text in (from_utc, to_utc):
            if not _TIME.fullmatch(text):
                raise ValueError(f"{text}: expected UTC like 2026-03-01T12:00:00.000000Z")
        if from_utc >= to_utc:
            raise ValueError("from_utc: expected a time before to_utc")
        if len(self._open) >= _MOST_CUES:
            raise ValueError(f"{_MOST_CUES} requests for observations are open: wait for replies")
        self._open[request_id] = _Cue(
            {
                "type": schema.TYPE_CUE_REQUEST,
                "id": request_id,
                "trackId": track_id,
                "satNo": sat_no,
                "fromUtc": from_utc,
                "toUtc": to_utc,
                "sensor": sensor,
            }
        )

    @property
    def due_at(self) -> float | None:
        """When one is to be sent (again)."""
        return min((cue.due_at for cue in self._open.values() if cue.due_at is not None), default=None)

    def due(self, now: float) -> list[dict[str, Any]]:
        """The requests to send now."""
        return [
            cue.body
            for cue in self._open.values()
            if cue.due_at is not None and now >= cue.due_at and cue.tries < _CUE_TRIES
        ]

    def was_sent(self, request_id: int, now: float) -> None:
        """It was; it is sent again if nobody answers."""
        cue = self._open[request_id]
        cue.tries += 1
        cue.due_at = now + _CUE_AGAIN_S

    def renew(self, now: float) -> None:
        """A connection was made: the node is told again where to send replies."""
        for cue in self._open.values():
            cue.due_at = now

    def reply(self, request_id: int | None, fields: dict[str, Any]) -> Iterator[CueReply]:
        """Take a reply; one to a request that is not open is left."""
        if request_id is None or request_id not in self._open:
            return
        cue = self._open[request_id]
        cue.due_at, cue.tries = None, 0
        last = fields["state"] in schema.CUE_LAST_STATES
        if last:
            del self._open[request_id]
        further = {key: value for key, value in fields.items() if key not in ("state", "reason")}
        yield CueReply(request_id, fields["state"], fields["reason"] or "", last, further)

    def error(self, request_id: int | None, reason: str) -> Iterator[CueReply]:
        """Take an error: the request is refused."""
        return self.reply(request_id, {"state": "refused", "reason": reason})

    def given_up(self, now: float) -> Iterator[CueReply]:
        """Those that nobody answers."""
        vain = [n for n, cue in self._open.items() if cue.tries >= _CUE_TRIES and now >= (cue.due_at or 0.0)]
        for request_id in vain:
            yield from self.reply(request_id, {"state": "failed", "reason": "the node does not answer"})
