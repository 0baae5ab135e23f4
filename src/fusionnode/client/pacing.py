"""A subscriber's side of the paced mode: one request kept up, messages in their order, acknowledgements."""

from __future__ import annotations

from typing import Any, Final

from fusionnode.client import decode
from fusionnode.client.decode import Message, Refused, Verify
from fusionnode.client.events import Event
from fusionnode.client.picture import Picture
from fusionnode.core import schema

_QUIET_S: Final = 3.0  # without a message: the node may have forgotten us, and to ask again is cheap
_LAPSE_S: Final = 3.0 * schema.PACED_LAPSE_S  # without a message: the node has lost us


class Pacing:
    """What to ask for and when; what comes goes to the picture.

    Args:
        picture: kept up to date through this.
        bytes_per_s: asked for.
        compact: whether states may come as compact records.
        verify: of signatures; with it nothing comes compact.
    """

    def __init__(self, picture: Picture, *, bytes_per_s: int, compact: bool, verify: Verify | None) -> None:
        self.rtt_s: float | None = None
        """Round trip, as the node has measured it last."""
        self.messages = 0
        self.refused: list[str] = []
        """Why payloads within messages were not used; whoever counts empties it."""
        self._picture = picture
        self._bytes_per_s = bytes_per_s
        self._compact = compact and verify is None
        self._verify = verify
        self._id: int | None = None
        self._n = 0
        self._begun: tuple[str, int | None] | None = None  # stream and base, as n = 1 said
        self._ask_at = 0.0
        self._asked_at = 0.0
        self._heard_at = 0.0

    @property
    def due_at(self) -> float:
        """When to ask (again)."""
        if self._id is None:
            return self._ask_at
        return min(self._ask_at, max(self._heard_at, self._asked_at) + _QUIET_S)

    def is_mine(self, request_id: int | None) -> bool:
        """A reply with this id belongs to what is going on."""
        return request_id is not None and request_id == self._id

    def request(self, now: float, new_id: int) -> dict[str, Any] | None:
        """The request to send now, if one is due; ``new_id`` is used if it begins anew."""
        if now < self.due_at:
            return None
        if self._id is None or now - self._heard_at >= _LAPSE_S:
            self._id, self._n, self._heard_at = new_id, 0, now
        self._asked_at = now
        self._ask_at = now + schema.PACED_RENEWAL_S
        position = self._picture.position
        resume = None
        if position is not None:
            resume = {"streamEpoch": position.stream_epoch, "seq": position.seq}
        return {
            "type": schema.TYPE_PACED_REQUEST,
            "id": self._id,
            "bytesPerS": self._bytes_per_s,
            "compact": self._compact,
            "resume": resume,
        }

    def not_sent(self, now: float) -> None:
        """The request could not be sent: try again soon."""
        self._ask_at = now + 0.05

    def renew(self, now: float) -> None:
        """A connection was made: say again what was asked for."""
        self._ask_at = now

    def put_off(self, until: float) -> None:
        """The request was refused: ask anew then."""
        self._id, self._ask_at = None, until

    def take(self, fields: dict[str, Any], now: float) -> tuple[list[Event], dict[str, Any] | None]:
        """Take one ``paced`` message of this request: what happened, and the acknowledgement to send.

        Raises:
            Refused: it cannot be read; pacing begins anew.
        """
        n, begun = fields["n"], (fields["streamEpoch"], fields["base"])
        if n != 1 and n <= self._n:
            return [], None  # a repetition
        if n != 1 and (n != self._n + 1 or begun != self._begun):
            self._begin_anew(now)  # something was lost
            return [], None
        try:
            messages = self._messages(decode.paced_content(fields["z"]), fields["streamEpoch"])
        except Refused:
            self._begin_anew(now)
            raise
        self._n, self._begun, self._heard_at = n, begun, now
        self.messages += 1
        if fields["rttS"] is not None:
            self.rtt_s = fields["rttS"]
        events = self._picture.paced(
            fields["streamEpoch"],
            fields["seq"],
            first=n == 1,
            base=fields["base"],
            whole=fields["whole"],
            messages=messages,
        )
        return events, {"type": schema.TYPE_PACED_ACK, "id": self._id, "n": n}

    def _messages(self, content: bytes, stream_epoch: str) -> list[Message]:
        messages = []
        for item in decode.mixed(content, stream_epoch, self._verify):
            if isinstance(item, Refused):
                self.refused.append(str(item))
            else:
                messages.append(item)
        return messages

    def _begin_anew(self, now: float) -> None:
        self._id, self._ask_at = None, now
