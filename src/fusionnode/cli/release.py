"""``fusionnode release``: what the rules of release make of a track, and of themselves."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionnode.client.decode import Message
    from fusionnode.config import Config
    from fusionnode.release.policy import Policy

_WAIT_MS = 3_000
_NO_KEY = bytes(32)


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "release", help="explain and check the rules of release", description=__doc__
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    text = "say which rule decides about a track, and what it does; a dry run: nothing is sent"
    action = actions.add_parser("explain", help=text, description=text)
    action.add_argument("--config", type=Path, required=True, metavar="FILE")
    action.add_argument("--partner", required=True, metavar="NAME", help="a partner, or a group")
    action.add_argument(
        "--track", required=True, metavar="ID", help="as in the node's own stream, or a catalogue number"
    )
    action.add_argument("--json", action="store_true", help="print one JSON object")
    action.set_defaults(run=explain)
    text = "look for rules that can never match, or never decide"
    action = actions.add_parser("check", help=text, description=text)
    action.add_argument("--config", type=Path, required=True, metavar="FILE")
    action.add_argument("--json", action="store_true", help="print one JSON object")
    action.set_defaults(run=check)


def explain(args: argparse.Namespace) -> int:
    """Ask the running node for the track's newest state. Exit code 0 whatever the rules say of it."""
    from fusionnode import daemon
    from fusionnode.cli.errors import CommandError
    from fusionnode.config import ConfigError
    from fusionnode.core.refframes import EarthOrientation
    from fusionnode.release.explain import explanation

    config, _ = daemon.load_config(args.config)
    policy = _policies(config, args.config)
    partner = config.partner.get(args.partner)
    group = args.partner if partner is None else partner.group
    if group not in policy:
        known = ", ".join([*config.partner, *config.group]) or "none"
        raise CommandError(f"{args.config}: no [partner.{args.partner}]; expected one of: {known}")
    body = newest_state(config.publish.snapshot_endpoint, args.track)
    key = None
    if any(rule.effects.level >= 0 for rule in policy[group].rules):
        try:
            key = daemon.offset_key(config, args.config)
        except ConfigError as error:
            raise CommandError(
                f"{error} (needed: rules with precision_m look at what they publish)"
            ) from None
    found = explanation(policy[group], body, EarthOrientation(), key or _NO_KEY)
    if partner is not None:
        found["partner"] = args.partner
    print(json.dumps(found) if args.json else _in_words(found), flush=True)
    return 0


def check(args: argparse.Namespace) -> int:
    """Exit code 1 if there is something to be said against the rules."""
    from fusionnode import daemon
    from fusionnode.release.policy import remarks

    config, _ = daemon.load_config(args.config)
    found = {name: remarks(policy) for name, policy in _policies(config, args.config).items()}
    if args.json:
        print(json.dumps(found), flush=True)
    else:
        for name, lines in found.items():
            print("\n".join(f"group.{name}: {line}" for line in lines or ["nothing to remark"]), flush=True)
    return 1 if any(found.values()) else 0


def newest_state(endpoint: str, wanted: str) -> dict[str, Any]:
    """The newest state of a track (by its id) or object (by its number) in a running node's own stream.

    Raises:
        CommandError: no node answers, or it has no such track.
    """
    from fusionnode.cli.errors import CommandError
    from fusionnode.core import schema

    states = [
        m.body | {"streamEpoch": m.stream_epoch} for m in snapshot(endpoint) if m.type == schema.TYPE_STATE
    ]
    found = [body for body in states if wanted in (body["trackId"], str(body["satNo"]))]
    if not found:
        raise CommandError(f"the node has no track {wanted!r} (it has {len(states)} tracks)")
    return max(found, key=lambda body: str(body["epoch"]))


def snapshot(endpoint: str) -> list[Message]:
    """What a running node's own stream has newest of everything.

    Raises:
        CommandError: no node answers, or it has nothing.
    """
    import msgpack
    import zmq

    from fusionnode.cli.errors import CommandError
    from fusionnode.client import decode
    from fusionnode.core import schema

    address = endpoint.replace("//0.0.0.0:", "//127.0.0.1:").replace("//*:", "//127.0.0.1:")
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, schema.MAX_MESSAGE_BYTES)
        socket.connect(address)
        request = {"v": schema.SCHEMA_VERSION, "type": schema.TYPE_SNAPSHOT_REQUEST, "id": 1}
        socket.send(msgpack.packb(request))
        if not socket.poll(_WAIT_MS):
            raise CommandError(f"no node answers at {endpoint}: is it running, with this configuration?")
        head, *parts = socket.recv_multipart()
    try:
        if decode.reply(head).type == schema.TYPE_ERROR:
            raise CommandError(f"the node at {endpoint} has no tracks yet")
        return [message for part in parts for message in decode.snapshot_part(part)]
    except decode.Refused as error:
        raise CommandError(f"the node at {endpoint} answers with something else: {error}") from None


def _policies(config: Config, path: Path) -> dict[str, Policy]:
    from fusionnode.cli.errors import CommandError
    from fusionnode.release import lists
    from fusionnode.release.policy import policies

    if not config.group:
        raise CommandError(f"{path}: no [group.NAME]: nothing is released to anybody")
    try:
        return dict(policies(config, lists.read(config)))
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from None


def _in_words(found: dict[str, Any]) -> str:
    who = (
        f"partner {found['partner']} (group {found['group']})"
        if "partner" in found
        else f"group {found['group']}"
    )
    what = found["track"] + (
        f" ({found['satNo']} {found['name']})" if found["satNo"] is not None else " (uncorrelated)"
    )
    lines = [
        f"{what}, state of {found['epoch']}: {'RELEASED' if found['released'] else 'not released'} to {who}",
        f"  {found['reason']}",
    ]
    for verdict in found["rules"]:
        mark = "->" if verdict["decided"] else "  "
        lines.append(f"  {mark} {verdict['rule']}: {verdict['reason']}")
    if found["effects"]:
        lines.append(
            "  effects: " + ", ".join(f"{key} {_shown(value)}" for key, value in found["effects"].items())
        )
        marks = found["markings"]
        lines.append(
            f"  markings: {marks['classificationMarking']}, releasable to {', '.join(marks['releasableTo'])}"
        )
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return (
        " ".join(value)
        if isinstance(value, list)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
