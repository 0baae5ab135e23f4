"""``fusionnode audit``: does the log of what was released hold together, what stands in it, where does it end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionnode.record.audit import Checked


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("audit", help="check and show the log of releases", description=__doc__)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    text = (
        "go through every line of every log; exit code 1 if any was changed, taken away or added. A whole chain that "
        "was made anew, head file and all, is found only with a head that was kept elsewhere (--expect)"
    )
    action = _action(actions, "verify", text, verify)
    action.add_argument(
        "--expect",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="what `audit head` printed then",
    )
    action.add_argument("--archived", action="store_true", help="the oldest files may have been moved away")
    text = "print the lines of a log"
    action = _action(actions, "show", text, show)
    action.add_argument(
        "--log", metavar="NAME", help="a group's name, or node (default: all, one after the other)"
    )
    action.add_argument(
        "--kind", action="append", default=[], metavar="KIND", help="only these (may be repeated)"
    )
    action.add_argument("--track", metavar="ID", help="only lines about this track or catalogue number")
    action.add_argument("--partner", metavar="NAME", help="only lines about this partner")
    action.add_argument("--last", type=int, metavar="N", help="only the last N of these")
    text = "print name, number and hash of each log's newest line: keep it where the node cannot write"
    _action(actions, "head", text, head)


def _action(actions: Any, name: str, text: str, function: Any) -> Any:
    action = actions.add_parser(name, help=text, description=text)
    where = action.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, metavar="FILE", help="whose release.audit_directory is meant")
    where.add_argument("--directory", type=Path, metavar="FOLDER", help="the folder of logs")
    action.add_argument("--json", action="store_true", help="print JSON")
    action.set_defaults(run=function)
    return action


def verify(args: argparse.Namespace) -> int:
    """Exit code 1 if there is a fault in any log, or no log at all."""
    from dataclasses import asdict

    found = _examined(args)
    if args.json:
        print(json.dumps([asdict(log) for log in found]), flush=True)
    for log in found if not args.json else []:
        state = "holds together" if not log.faults else "DOES NOT HOLD"
        print(
            f"{log.name}: {state}: {log.lines} lines in {log.files} files, up to number {log.seq} of {log.time}"
        )
        for text in log.faults:
            print(f"  fault: {text}")
        for text in log.gaps:
            print(f"  gap: {text}")
    if not found:
        from fusionnode.cli.errors import CommandError

        raise CommandError(f"{_folder(args)}: there is no log")
    return 1 if any(log.faults for log in found) else 0


def show(args: argparse.Namespace) -> int:
    """Lines as they are with ``--json``, else one short line each."""
    from fusionnode.cli.errors import CommandError
    from fusionnode.record.audit import entries

    folder = _folder(args)
    names = sorted(path.name for path in folder.glob("*.log"))
    if args.log is not None:
        names = [name for name in names if name in (args.log, f"{args.log}.log", f"group-{args.log}.log")]
    if not names:
        raise CommandError(f"{folder}: there is no such log")
    for name in names:
        lines = [entry for entry in entries(folder / name) if _wanted(entry, args)]
        for entry in lines[-args.last :] if args.last else lines:
            print(json.dumps({"log": name, **entry}) if args.json else _in_words(name, entry))
    return 0


def head(args: argparse.Namespace) -> int:
    """One line a log. Exit code 1 if one does not hold together: its end proves nothing then."""
    found = _examined(args)
    for log in found:
        if args.json:
            print(json.dumps({"log": log.name, "seq": log.seq, "sha256": log.sha256}))
        else:
            print(f"{log.name} {log.seq} {log.sha256}")
    return 1 if any(log.faults for log in found) else 0


def _examined(args: argparse.Namespace) -> list[Checked]:
    from fusionnode.cli.errors import CommandError
    from fusionnode.record.audit import AuditError, examine

    expected: dict[str, tuple[int, str]] = {}
    for path in getattr(args, "expect", []):
        expected |= _expected(path)
    try:
        return examine(_folder(args), expected, archived=getattr(args, "archived", False))
    except AuditError as error:
        raise CommandError(str(error)) from None


def _expected(path: Path) -> dict[str, tuple[int, str]]:
    """Heads by log from what ``audit head`` printed, with or without ``--json``."""
    from fusionnode.cli.errors import CommandError

    heads = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("{"):
                entry = json.loads(line)
                heads[str(entry["log"])] = (int(entry["seq"]), str(entry["sha256"]))
            elif line.strip():
                name, seq, sha256 = line.split()
                heads[name] = (int(seq), sha256)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{path}: expected what `fusionnode audit head` printed") from None
    if not heads:
        raise CommandError(f"{path}: expected what `fusionnode audit head` printed, and it is empty")
    return heads


def _folder(args: argparse.Namespace) -> Path:
    from fusionnode.cli.errors import CommandError

    if args.config is None:
        return Path(args.directory)
    from fusionnode import config as config_module

    named = config_module.load(args.config).release.audit_directory
    if named is None:
        raise CommandError(f"{args.config}: no release.audit_directory")
    return Path(named)


def _wanted(entry: dict[str, Any], args: argparse.Namespace) -> bool:
    return (
        (not args.kind or entry["kind"] in args.kind)
        and (args.track is None or args.track in (entry.get("track"), str(entry.get("satNo"))))
        and (args.partner is None or entry.get("partner") == args.partner)
    )


def _in_words(name: str, entry: dict[str, Any]) -> str:
    fields = " ".join(
        f"{key}={value}" for key, value in entry.items() if key not in ("seq", "time", "prev", "kind")
    )
    text = f"{entry.get('time')} {name.removesuffix('.log')} {entry['seq']} {entry['kind']} {fields}"
    # Names come from partners too: nothing in them may steer a terminal.
    return "".join(c if c.isprintable() else "?" for c in text)
