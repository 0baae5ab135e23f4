"""``fusionnode subscribe``: print a node's stream. Needs only pyzmq and msgpack."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from time import monotonic  # see fusionnode.client.subscriber
from typing import Any

from fusionnode.client import (
    CueReply,
    EpochChange,
    Event,
    Filled,
    Gap,
    Heartbeat,
    ObjectEvent,
    Refused,
    SensorState,
    Stale,
    State,
    Subscriber,
    Synced,
    Tombstone,
)

_EXIT_UNREACHABLE = 1
_EXIT_USAGE = 2


def register(subparsers: Any) -> None:
    """Add the command to an ``argparse`` sub-parsers object; its ``run`` gives the exit code."""
    parser = subparsers.add_parser(
        "subscribe",
        help="print a node's stream",
        description="Print a node's stream, one line for each event. Ctrl-C ends it. A release group of another house "
        "needs --server-key and --key.",
    )
    parser.add_argument(
        "address",
        metavar="ADDRESS",
        nargs="?",
        help="of the stream, e.g. tcp://127.0.0.1:5600; not needed with --paced",
    )
    parser.add_argument(
        "--snapshot",
        "--requests",
        metavar="ADDRESS",
        help="for snapshots and all other requests, e.g. tcp://127.0.0.1:5601",
    )
    parser.add_argument(
        "--server-key", metavar="KEY", help="the release group's public key, or a file that holds it"
    )
    parser.add_argument(
        "--key", metavar="FILE", help="this subscriber's secret key (fusionnode keys new NAME)"
    )
    parser.add_argument(
        "--signing-key", metavar="KEY", help="refuse what the node has not signed with this key (or file)"
    )
    parser.add_argument(
        "--resume", metavar="FILE", help="go on where the last run stood, which is kept in this file"
    )
    parser.add_argument(
        "--paced",
        type=_positive(int),
        metavar="BYTES",
        help="thin link: the newest state of each object, at most so many bytes a second",
    )
    parser.add_argument(
        "--exact", action="store_true", help="with --paced: no rounding of states within their uncertainty"
    )
    parser.add_argument(
        "--topic", action="append", default=[], metavar="PREFIX", help="only these topics, e.g. state."
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--count", type=_positive(int), metavar="N", help="end after N events")
    parser.add_argument(
        "--for", type=_positive(float), dest="duration", metavar="S", help="end after S seconds"
    )
    parser.add_argument(
        "--timeout",
        type=_positive(float),
        default=10.0,
        metavar="S",
        help="give up if nothing at all has come after S seconds (default: %(default)g)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print events until told to stop; 0, or 1 if nothing ever came, or 2 if an address is none."""
    show = _as_json if args.json else _as_text
    if args.address is None and args.paced is None:
        return _complain("an ADDRESS is needed, or --paced with --requests", _EXIT_USAGE)
    try:
        subscriber = Subscriber(
            args.address,
            args.snapshot,
            topics=args.topic,
            server_key=args.server_key,
            secret_key_file=args.key,
            signing_key=args.signing_key,
            resume_file=args.resume,
            paced_bytes_per_s=args.paced,
            compact=not args.exact,
            name="fusionnode subscribe",
        )
    except ValueError as error:
        return _complain(_as_options(str(error)), _EXIT_USAGE)
    printed = 0
    with subscriber:
        try:
            for event in _events(subscriber, args.duration, args.timeout):
                print(show(event), flush=True)
                printed += 1
                if printed == args.count:
                    return 0
        except KeyboardInterrupt:
            return 0
        except _UnreachedError as unreached:
            waited_s = min(args.timeout, args.duration or math.inf)
            address = args.snapshot if args.paced else args.address
            key = "request_endpoint" if args.paced else "endpoint"
            where = f"its group's {key}" if args.server_key else "its publish.endpoint"
            return _complain(
                unreached.why
                or f"nothing came from {address} in {waited_s:g} s: is the node running, and is this {where}?",
                _EXIT_UNREACHABLE,
            )
        try:
            subscriber.checkpoint()
        except OSError as error:
            return _complain(f"{args.resume}: {error.strerror}", _EXIT_UNREACHABLE)
    return 0


class _UnreachedError(Exception):
    """No message has come at all; ``why``, if the node said."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _events(subscriber: Subscriber, duration_s: float | None, timeout_s: float) -> Iterator[Event]:
    """Events for ``duration_s``.

    Raises:
        _UnreachedError: there was no message at all within ``timeout_s``.
    """
    start = monotonic()
    end = math.inf if duration_s is None else start + duration_s
    why = ""
    while (now := monotonic()) < end:
        if not subscriber.reached and now - start >= timeout_s:
            raise _UnreachedError(why)
        events = subscriber.receive(min(end - now, 0.5))
        if subscriber.reached:
            yield from events
        else:
            for event in events:
                if isinstance(event, Refused):
                    why = event.text
    if not subscriber.reached:
        raise _UnreachedError(why)


def _as_options(text: str) -> str:
    """The client's words for its arguments, as this command calls them."""
    if text.startswith("server_key and secret_key_file"):
        return "--server-key and --key go together: give both or none"
    if text.startswith("the paced mode needs"):
        return "--paced needs the node's address for requests: --requests ADDRESS"
    return text


def _as_json(event: Event) -> str:
    """One flat object in the words of the wire: ``type``, then the event's and the message's fields."""
    own = asdict(event)
    message = own.pop("state", None) or own.pop("fields", None) or own.pop("details", None) or {}
    return json.dumps({"type": _WORDS[type(event)], **{_camel(k): v for k, v in own.items()}, **message})


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _as_text(event: Event) -> str:
    word = _WORDS[type(event)]
    match event:
        case State(state=s):
            sigma_km = math.sqrt(max(s["cov"][0] + s["cov"][2] + s["cov"][5], 0.0))
            name = "UCT" if s["uct"] else s["name"] or s["idOnOrbit"]
            position = f"{s['xpos']:12.3f} {s['ypos']:12.3f} {s['zpos']:12.3f} km"
            sensors = ",".join(s["sensors"])
            return (
                f"{s['epoch']} {word:<9} {s['trackId']} {s['status']:<9} {position}"
                f"  sigma {sigma_km * 1e3:.0f} m  {name}  [{sensors}]"
            )
        case Tombstone():
            after = f", goes on as {event.successor}" if event.successor else ""
            return f"{event.epoch or '-':<27} {word:<9} {event.track_id} {event.reason}{after}"
        case ObjectEvent(fields=e):
            return f"{e['time']} {word:<9} {e['trackId']} {event.kind}{_evidence(e)}"
        case SensorState():
            known = ("classificationMarking", "dataMode", "source", "releasableTo", "sensor", "time")
            fields = {key: value for key, value in event.fields.items() if key not in known}
            return f"{event.time} {word:<9} {event.sensor} {json.dumps(fields)}"
        case Heartbeat():
            return f"{event.time} {word:<9} {event.node_id} holds {event.tracks} tracks, seq {event.seq}"
        case Gap():
            return f"{'-':<27} {word:<9} {event.missed} messages missed before seq {event.seq}"
        case Filled():
            last = "" if event.to_seq == event.from_seq else f" to {event.to_seq}"
            return f"{'-':<27} {word:<9} seq {event.from_seq}{last} had been missing and follow"
        case EpochChange():
            missed = ", nothing missed" if event.complete else ""
            return f"{'-':<27} {word:<9} the node started a new stream ({event.new}){missed}"
        case Refused():
            again = "" if event.retry_s is None else f" (tried again in {event.retry_s:g} s)"
            return f"{'-':<27} {word:<9} {event.text}{again}"
        case CueReply():
            why = f": {event.reason}" if event.reason else ""
            return f"{event.fields.get('time') or '-':<27} {word:<9} request {event.request_id} {event.state}{why}"
        case Synced():
            return f"{'-':<27} {word:<9} the picture of {event.tracks} tracks is whole as of seq {event.seq}"
        case Stale():
            return f"{'-':<27} {word:<9} nothing for {event.silent_s:.1f} s"


_WORDS: dict[type[Event], str] = {
    State: "state",
    Tombstone: "tombstone",
    ObjectEvent: "event",
    SensorState: "sensor",
    Heartbeat: "heartbeat",
    Gap: "gap",
    EpochChange: "epoch",
    Synced: "synced",
    Stale: "stale",
    Filled: "filled",
    Refused: "refused",
    CueReply: "cue",
}


def _evidence(e: dict[str, Any]) -> str:
    """Of an event's fields those that are there, in words."""
    words = []
    if e["count"] is not None:
        words.append(f"{e['count']} new objects")
    if e["relatedTrackId"]:
        words.append(f"near {e['relatedTrackId']}")
    if e["epoch"]:
        words.append(f"at {e['epoch']}")
    if e["distance"] is not None:
        words.append(f"distance {e['distance'] * 1e3:.0f} m")
    if e["relativeSpeed"] is not None:
        words.append(f"relative speed {e['relativeSpeed'] * 1e3:.1f} m/s")
    if e["deltaV"] is not None:
        sigma = "" if e["deltaVSigma"] is None else f" (sigma {e['deltaVSigma'] * 1e3:.2f})"
        words.append(f"delta-v {math.hypot(*e['deltaV']) * 1e3:.2f} m/s{sigma}")
    if e["perigeeHeight"] is not None:
        words.append(f"perigee {e['perigeeHeight']:.0f} km")
    if e["height"] is not None:
        words.append(f"height {e['height']:.0f} km")
    words.append(f"[{','.join(e['sensors'])}]")
    return "  " + ", ".join(words)


def _positive(kind: type[int] | type[float]) -> Any:
    def parse(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"expected a number above 0 (is {text})")
        return value

    parse.__name__ = "number"
    return parse


def _complain(text: str, code: int) -> int:
    print(f"fusionnode: {text}", file=sys.stderr)
    return code
