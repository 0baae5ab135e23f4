"""``fusionnode keys``: make keys, show them, say who may come in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("keys", help="make keys, and say who may come in", description=__doc__)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    text = (
        "make a key: group-GROUP for a release group, link-LINK for a link, signing, offset, or any name for one's "
        "own; one that is there is never overwritten"
    )
    action = _action(actions, "new", text, new)
    action.add_argument("name", metavar="NAME")
    _action(actions, "show", "list the keys and who may come in by which door; secrets are not shown", show)
    text = "let the owner of a public key in by a door: a release group's name, or link-LINK"
    action = _action(actions, "allow", text, allow)
    action.add_argument("door", metavar="GROUP")
    action.add_argument("who", metavar="PARTNER")
    action.add_argument("file", type=Path, metavar="FILE", help="the file with the public key that they sent")
    text = "let a partner in no more; the connections of that group are dropped within about a second"
    action = _action(actions, "revoke", text, revoke)
    action.add_argument("door", metavar="GROUP")
    action.add_argument("who", metavar="PARTNER")


def _action(actions: Any, name: str, text: str, function: Any) -> Any:
    action = actions.add_parser(name, help=text, description=text)
    where = action.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE", help="whose release.keys_directory is meant")
    where.add_argument("--keys", type=Path, metavar="FOLDER", help="the folder of keys (default: keys)")
    action.add_argument("--json", action="store_true", help="print one JSON object")
    action.set_defaults(run=function)
    return action


def new(args: argparse.Namespace) -> int:
    """Make a key and print where it is, and its public half."""
    keys = _keyring(args)
    public = keys.new(args.name)
    folder = keys.directory
    fields = {"secret": str(folder / f"{args.name}.secret")}
    if public is not None:
        fields |= {"public": str(folder / f"{args.name}.public"), "key": public.decode()}
    return _print(args, fields)


def show(args: argparse.Namespace) -> int:
    """List what there is. Exit code 1 if something of it cannot be used."""
    from fusionnode.security.keyring import OFFSET, SIGNING, KeyringError
    from fusionnode.security.zap import fingerprint

    keys = _keyring(args)
    own: dict[str, str] = {}
    faults: list[str] = []
    for name in keys.names():
        try:
            if name == OFFSET:
                keys.offset_secret()
                own[name] = "secret only"
            elif name == SIGNING:
                keys.signing_secret()
                own[name] = keys.signing_public()
            elif (keys.directory / f"{name}.secret").exists():
                own[name] = keys.pair(name).public.decode()
            else:
                own[name] = keys.public(name).decode() + " (public only)"
        except KeyringError as error:
            faults.append(str(error))
    doors = {}
    for door in keys.doors():
        allowed = keys.allowed(door)
        faults += allowed.faults
        doors[door] = {who: fingerprint(key) for key, who in allowed.names.items()}
    _print(args, {"keys": own, "allowed": doors, "faults": faults})
    return 1 if faults else 0


def allow(args: argparse.Namespace) -> int:
    """Copy a public key to where it lets its owner in."""
    path = _keyring(args).allow(args.door, args.who, args.file)
    return _print(args, {"allowed": args.who, "by": args.door, "file": str(path)})


def revoke(args: argparse.Namespace) -> int:
    """Take a public key away."""
    path = _keyring(args).revoke(args.door, args.who)
    return _print(args, {"revoked": args.who, "from": args.door, "file": str(path)})


def _keyring(args: argparse.Namespace) -> Any:
    from fusionnode.cli.errors import CommandError
    from fusionnode.security.keyring import Keyring

    folder = args.keys or Path("keys")
    if args.config is not None:
        from fusionnode import config as config_module

        named = config_module.load(args.config).release.keys_directory
        if named is None:
            raise CommandError(f"{args.config}: no release.keys_directory")
        folder = Path(named)
    return Keyring(folder)


def _print(args: argparse.Namespace, fields: dict[str, Any]) -> int:
    from fusionnode.cli.report import print_summary

    print_summary(fields, as_json=args.json)
    return 0
