"""Nothing missed: gaps, new streams and hours away are made up for from the node's history. No sockets, no clock.

While something is missing, live messages are held back; what is missing is asked for, and taken first. So events come
in order and once. Where history does not reach, the live messages are let through: the picture then tells the gap,
and a snapshot mends it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from fusionnode.client.decode import Message, topic_of
from fusionnode.client.events import Event, Filled
from fusionnode.client.picture import Picture
from fusionnode.client.resume import Position
from fusionnode.core import schema


class Wanted(NamedTuple):
    """What to ask the history for: messages ``first`` to ``last`` (None: to the newest) of a stream."""

    stream_epoch: str
    first: int
    last: int | None


class Stretch(NamedTuple):
    """What a reply of history holds, see docs/WIRE.md."""

    stream_epoch: str
    first: int
    last: int
    next: int | None
    next_epoch: str | None


class Following:
    """A picture, and what to do about messages that are missing before the next.

    Args:
        picture: kept up to date through this.
        prefixes: topic prefixes subscribed to; empty: the whole stream. With a filter only hours away are made up
            for: which messages are missing in a gap, a filter does not tell.
        since: where the subscriber stood; what came after is wanted.
        most_held: live messages held back at most; what does not fit is asked for as well.
    """

    def __init__(
        self,
        picture: Picture,
        *,
        prefixes: Sequence[bytes] = (),
        since: Position | None = None,
        most_held: int = 20_000,
    ) -> None:
        self.picture = picture
        self.offered = False
        """The node offers a history."""
        self._prefixes = tuple(prefixes)
        self._held: deque[Message] = deque(maxlen=most_held)
        self._next: Position | None = None  # the message wanted; None: nothing is missing
        if since is not None:
            self._next = Position(since.stream_epoch, since.seq + 1)

    @property
    def wanted(self) -> Wanted | None:
        """What to ask for now; None: nothing is missing."""
        if self._next is None:
            return None
        epoch, first = self._next
        last = None
        if self._held and self._held[0].stream_epoch == epoch:
            last = max(self._held[0].seq - 1, first)
        return Wanted(epoch, first, last)

    @property
    def held(self) -> int:
        """Live messages that wait for those before them."""
        return len(self._held)

    def live(self, message: Message) -> list[Event]:
        """Take one live message; gives what happened, in order."""
        position = self.picture.position
        if self._next is None and position is not None and self._fills_between(position, message):
            self._next = Position(position.stream_epoch, position.seq + 1)
        elif self._next is not None and not self._held and message.stream_epoch == self._next.stream_epoch:
            if message.seq < self._next.seq:
                return self.picture.live(message)  # a repetition
            if message.seq == self._next.seq:
                self._next = None  # nothing is missing after all
        if self._next is None:
            return self.picture.live(message)
        self._held.append(message)
        return []

    def history(self, stretch: Stretch, messages: Sequence[Message]) -> list[Event]:
        """Take a reply to what was wanted; one that is not that, or is not whole, ends the search."""
        if self._next is None:
            return []
        if not self._is_what_was_wanted(stretch, messages):
            return self.give_up()
        epoch, last = stretch.stream_epoch, stretch.last
        events: list[Event] = []
        if messages:
            events.append(Filled(epoch, stretch.first, last))
        for message in messages:
            if not self._prefixes or self._passes(message):
                events += self.picture.live(message)
        self._next = Position(epoch, last + 1)
        if stretch.next is not None:
            return events if messages else events + self.give_up()
        if stretch.next_epoch is not None:
            events += self.picture.turn(stretch.next_epoch)
            self._next = Position(stretch.next_epoch, 1)
            while self._held and self._held[0].stream_epoch == epoch:
                self._held.popleft()
            return events
        return events + self._splice(progress=bool(messages))

    def give_up(self) -> list[Event]:
        """What is missing cannot be had: go on with the live messages, which tells the gap."""
        self._next = None
        held, self._held = list(self._held), deque(maxlen=self._held.maxlen)
        return [event for message in held for event in self.picture.live(message)]

    def _splice(self, *, progress: bool) -> list[Event]:
        """History is at its end: the held messages follow, if nothing is missing between."""
        assert self._next is not None
        epoch, expected = self._next
        while self._held and self._held[0].stream_epoch == epoch and self._held[0].seq < expected:
            self._held.popleft()
        if self._held and (self._held[0].stream_epoch, self._held[0].seq) != (epoch, expected):
            # Newer ones came while the history was made.
            return [] if progress and self._held[0].stream_epoch == epoch else self.give_up()
        self._next = None
        held, self._held = list(self._held), deque(maxlen=self._held.maxlen)
        return [event for message in held for event in self.live(message)]

    def _fills_between(self, position: Position, message: Message) -> bool:
        if not self.offered or self._prefixes:
            return False
        return message.stream_epoch != position.stream_epoch or message.seq > position.seq + 1

    def _passes(self, message: Message) -> bool:
        return message.type in schema.TOPICS and topic_of(message).startswith(self._prefixes)

    def _is_what_was_wanted(self, stretch: Stretch, messages: Sequence[Message]) -> bool:
        epoch, first = stretch.stream_epoch, stretch.first
        if self._next != (epoch, first) or stretch.last != first + len(messages) - 1:
            return False
        if stretch.next_epoch == epoch or (stretch.next is not None and stretch.next != stretch.last + 1):
            return False
        return all(
            message.stream_epoch == epoch and message.seq == first + i for i, message in enumerate(messages)
        )
