"""Answers requests, one after the other, each partner within its own measure.

Holds no socket: replies are handed to a function that never waits.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from fusionnode.core import schema
from fusionnode.release.cache import Cache, joined
from fusionnode.release.cache import envelope as envelope_of
from fusionnode.release.history import History, Stretch
from fusionnode.release.meter import Meter
from fusionnode.release.requests import Request
from fusionnode.release.settings import Partner

Send = Callable[[list[bytes], Sequence[bytes]], bool]
"""Envelope, and the frames after it; False: the one who asked has gone or does not read."""

_REQUESTS_PER_S, _REQUESTS_AT_ONCE = 50.0, 200.0
_BYTES_PER_S, _BYTES_AT_ONCE = 4e6, 16e6
_CUES_PER_S, _CUES_AT_ONCE = 0.5, 8.0
_MOST_ROUTES = 256  # replies to cues are routed for so many of the newest ones


class Desk:
    """Snapshot, hello, history; cues go on to the daemon.

    Args:
        send: as `Send`.
        cache, history: what there is.
        hello: what a hello says besides its type, id and versions.
        counts: of what was asked and answered.
        forward: hands on a partner's request for an observation; False: it cannot be.
        older: looks into what is kept on disk, where memory reaches back no further.
        pace: takes requests for a paced stream.
        metered: whether requests are rationed.
    """

    def __init__(
        self,
        *,
        send: Send,
        cache: Callable[[], Cache],
        history: History | None,
        hello: dict[str, Any],
        counts: Counter[str],
        forward: Callable[[str, bytes], bool] = lambda _partner, _payload: False,
        older: Callable[[str, int, int, int], Stretch | None] = lambda *_: None,
        pace: Callable[[list[bytes], str, Partner, Request, float], None] = lambda *_: None,
        metered: bool,
    ) -> None:
        self._send = send
        self._cache = cache
        self._history = history
        self._hello = hello
        self._counts = counts
        self._forward = forward
        self._older = older
        self._pace = pace
        self._metered = metered
        self._meters: dict[str, Meter] = {}
        self._snapshot: tuple[bytes | None, tuple[dict[str, Any], list[bytes]] | None] = (None, None)
        self._routes: OrderedDict[tuple[str, int], list[bytes]] = OrderedDict()
        self._newest_route: dict[str, list[bytes]] = {}

    def answer(
        self, envelope: list[bytes], name: str, partner: Partner | None, request: Request, now: float
    ) -> None:
        """Answer a request of one who may ask.

        Args:
            envelope: the frames that lead back to the one who asked.
            name: whose it is; empty where nobody is known by name.
            partner: what that one may do.
            request: not an acknowledgement.
            now: seconds of a steady clock.
        """
        if self._metered and not self._meter(name, "requests", _REQUESTS_PER_S, _REQUESTS_AT_ONCE, now).take(
            1, now
        ):
            self._counts["requests_over_rate"] += 1
            return  # not even an error: it would be the flood's echo
        if request.fault is not None:
            self.refuse(envelope, request, request.fault)
        elif request.kind == schema.TYPE_SNAPSHOT_REQUEST:
            self._answer_snapshot(envelope, name, request, now)
        elif request.kind == schema.TYPE_HELLO_REQUEST:
            self._answer_hello(envelope, partner, request)
        elif request.kind == schema.TYPE_HISTORY_REQUEST:
            self._answer_history(envelope, name, request, now)
        elif request.kind == schema.TYPE_CUE_REQUEST:
            self._pass_on(envelope, name, partner, request, now)
        elif request.kind == schema.TYPE_PACED_REQUEST and partner is not None:
            self._pace(envelope, name, partner, request, now)

    def refuse(self, envelope: list[bytes], request: Request, reason: str) -> None:
        """Say why not."""
        self._counts["refused_requests"] += 1
        self._reply(envelope, {"type": schema.TYPE_ERROR, "id": request.id, "reason": reason})

    def route_reply(self, partner: str, payload: bytes) -> bool:
        """Send a reply that the daemon made to the one who asked; False: nobody is there any more."""
        try:
            request_id = msgpack.unpackb(payload).get("id")
        except (ValueError, TypeError, AttributeError, msgpack.UnpackException):
            return False
        for envelope in (self._routes.get((partner, request_id)), self._newest_route.get(partner)):
            if envelope is not None and self._send(envelope, [payload]):
                return True
        return False

    def forget(self) -> None:
        """All connections were dropped."""
        self._routes.clear()
        self._newest_route.clear()

    def _answer_snapshot(self, envelope: list[bytes], name: str, request: Request, now: float) -> None:
        cache = self._cache()
        if self._snapshot[0] is not cache.last or cache.last is None:
            self._snapshot = (cache.last, cache.snapshot())
        made = self._snapshot[1]
        if made is None:
            self.refuse(envelope, request, schema.ERROR_NOTHING_YET)
            return
        header, parts = made
        if not self._affordable(name, sum(map(len, parts)), now):
            self.refuse(envelope, request, schema.ERROR_BUSY)
            return
        if self._reply(envelope, {"type": schema.TYPE_SNAPSHOT, "id": request.id, **header}, parts):
            self._counts["snapshots"] += 1

    def _answer_hello(self, envelope: list[bytes], partner: Partner | None, request: Request) -> None:
        most = 0 if partner is None else partner.paced_bytes_per_s
        spoken = schema.SCHEMA_VERSION in request.fields["versions"]
        body = {
            "type": schema.TYPE_HELLO,
            "id": request.id,
            "versions": [schema.SCHEMA_VERSION],
            "version": schema.SCHEMA_VERSION if spoken else None,
            **self._hello,
            "paced": most > 0,
            "maxBytesPerS": most or None,
        }
        if self._reply(envelope, body):
            self._counts["hellos"] += 1

    def _answer_history(self, envelope: list[bytes], name: str, request: Request, now: float) -> None:
        epoch, first, last = (request.fields.get(key) for key in ("streamEpoch", "from", "to"))
        assert isinstance(epoch, str)
        assert isinstance(first, int)
        last = (1 << 64) - 1 if last is None else last
        found = None
        if self._affordable(name, 0, now):
            most = schema.MAX_HISTORY_REPLY_BYTES
            if self._history is not None:
                found = self._history.get(epoch, first, last, most)
            found = found or self._older(epoch, first, last, most) or self._nothing_newer(epoch, first)
            if found is None:
                self.refuse(envelope, request, schema.ERROR_NOT_KEPT)
                return
        if found is None or not self._affordable(name, sum(map(len, found.payloads)), now):
            self.refuse(envelope, request, schema.ERROR_BUSY)
            return
        header = {
            "type": schema.TYPE_HISTORY,
            "id": request.id,
            "streamEpoch": epoch,
            "from": found.first,
            "to": found.last,
            "count": len(found.payloads),
            "next": found.next if found.next is not None and found.next <= last else None,
            "nextEpoch": found.next_epoch,
        }
        if self._reply(envelope, header, list(joined(found.payloads))):
            self._counts["histories"] += 1

    def _nothing_newer(self, epoch: str, first: int) -> Stretch | None:
        """An empty stretch, if ``first`` is what will be published next."""
        newest = self._cache().last
        if newest is None:
            return None
        return Stretch([], first, None, None) if (epoch, first - 1) == envelope_of(newest) else None

    def _pass_on(
        self, envelope: list[bytes], name: str, partner: Partner | None, request: Request, now: float
    ) -> None:
        may = partner is not None and partner.may_request
        if not may:
            reason: str | None = schema.ERROR_NOT_ALLOWED
        else:
            within = self._meter(name, "cues", _CUES_PER_S, _CUES_AT_ONCE, now).take(1, now)
            taken = within and self._forward(name, msgpack.packb(request.fields))
            reason = None if taken else schema.ERROR_BUSY
        if reason is not None:
            self._counts["refused_requests"] += 1
            body = {"type": schema.TYPE_CUE_REPLY, "id": request.id, "state": "refused", "reason": reason}
            self._reply(envelope, body)
            return
        self._counts["cues"] += 1
        assert request.id is not None
        self._newest_route[name] = envelope
        self._routes[name, request.id] = envelope
        self._routes.move_to_end((name, request.id))
        while len(self._routes) > _MOST_ROUTES:
            self._routes.popitem(last=False)

    def _affordable(self, name: str, n_bytes: int, now: float) -> bool:
        return not self._metered or self._meter(name, "bytes", _BYTES_PER_S, _BYTES_AT_ONCE, now).take(
            n_bytes, now
        )

    def _meter(self, name: str, what: str, rate: float, burst: float, now: float) -> Meter:
        key = f"{what} {name}"
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = Meter(rate, burst, now)
        return meter

    def _reply(self, envelope: list[bytes], body: dict[str, Any], parts: Sequence[bytes] = ()) -> bool:
        return self._send(envelope, [msgpack.packb({"v": schema.SCHEMA_VERSION, **body}), *parts])
