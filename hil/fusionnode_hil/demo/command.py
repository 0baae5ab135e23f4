"""The command ``fusionnode demo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

# What the command needs is imported when it runs: the list of commands costs nothing.

_LONGEST_S = 300.0
_SHORTEST_S = 8.0
_SEEDS = 2**32


def register(subparsers: Any) -> None:
    """Add ``demo`` to a command line."""
    parser = subparsers.add_parser(
        "demo",
        help="watch a node track satellites with two emulated sensors",
        description="Start an emulated radar on a serial line, an emulated telescope on ZeroMQ, a node and a "
        "subscriber; show the picture live; end with a summary against truth. Exit code 0 only if all held.",
    )
    parser.add_argument(
        "--duration", type=_duration, default=40.0, metavar="S", help="seconds to run (default: %(default)g)"
    )
    parser.add_argument(
        "--seed", type=_seed, default=1, metavar="N", help="of all noise and errors (default: %(default)d)"
    )
    parser.add_argument("--json", action="store_true", help="end with the summary as one JSON object")
    parser.add_argument("--no-view", action="store_true", help="lines of progress in place of the live view")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="save a picture of the live view")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep configurations, logs and the journal in a new folder"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 if it held, 1 if not or if a process died, 2 for what cannot be used, 130 for Ctrl-C."""
    from fusionnode.config import ConfigError
    from fusionnode_hil.demo.processes import DemoError
    from fusionnode_hil.demo.show import perform

    if args.picture is not None and not args.picture.parent.is_dir():
        return _complain(f"--picture: there is no folder {args.picture.parent}", 2)
    if args.keep is not None and args.keep.exists() and (not args.keep.is_dir() or any(args.keep.iterdir())):
        return _complain(f"--keep: expected a new or empty folder (is {args.keep})", 2)
    try:
        return perform(args)
    except (ConfigError, OSError) as error:
        return _complain(str(error), 2)
    except DemoError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain("demo: interrupted; everything has ended", 130)


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not _SHORTEST_S <= value <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"expected {_SHORTEST_S:g} to {_LONGEST_S:g} (is {text})")
    return value


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= _SEEDS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {_SEEDS - 1} (is {text})")
    return int(text)


def _complain(text: str, code: int) -> int:
    print(f"fusionnode: {' '.join(text.split())}", file=sys.stderr)
    return code
