"""``fusionnode state``: look into saved state."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("state", help="show saved state", description=__doc__)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    text = "say what a file of saved state holds, and whether it is intact"
    action = actions.add_parser("show", help=text, description=text)
    action.add_argument("file", type=Path, metavar="FILE", help="the file, or the folder it is in")
    action.add_argument("--json", action="store_true", help="print one JSON object")
    action.set_defaults(run=show)


def show(args: argparse.Namespace) -> int:
    """Exit code 1 if it is damaged, or not of a node."""
    import hashlib

    from fusionnode.cli.report import print_summary
    from fusionnode.core import timescales
    from fusionnode.record import state_file
    from fusionnode.track.past import state as track_state

    path = args.file / state_file.NAME if args.file.is_dir() else args.file
    state, data = state_file.read(path)
    try:
        summary = {
            "file": str(path),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "node": state["node"],
            "time": timescales.utc_text(state["t_ns"]) if state["t_ns"] else None,
            **track_state.summary(state["tracker"]),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise state_file.StateError(f"{path}: not the state of a node: {error!r}") from None
    print_summary(summary, as_json=args.json)
    return 0
