"""The daemon: sensors in, tracks out, until it is told to stop."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("run", help="run a node until SIGTERM or SIGINT", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--anchor-unix-s",
        type=float,
        metavar="S",
        help="clock.anchor_unix_s: when, by the computer's clock, a scaled clock's epoch is",
    )
    parser.add_argument("--json", action="store_true", help="end with a summary as one JSON object")
    parser.add_argument("--log-json", action="store_true", help="log one JSON object a line")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run; the log goes to standard error, the summary to standard output."""
    from fusionnode import daemon
    from fusionnode.cli.report import print_summary

    log = log_json if args.log_json else log_text
    code, summary = daemon.run(args.config, log, anchor_unix_s=args.anchor_unix_s, debug=args.debug)
    print_summary(summary, as_json=args.json)
    return code


def log_text(event: str, /, **fields: object) -> None:
    """``fusionnode: event key=value ...``."""
    words = [event, *(f"{key}={_shown(value)}" for key, value in fields.items())]
    _write(f"fusionnode: {' '.join(words)}")


def log_json(event: str, /, **fields: object) -> None:
    """The same as an object."""
    from fusionnode.core import clock, timescales

    head = {"time": timescales.utc_text(clock.SystemClock().now_ns()), "event": event}
    _write(json.dumps({**head, **fields, **head}))


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}:{_shown(item)}" for key, item in value.items()) or "none"
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(" \"'\n\t") else text


def _write(line: str) -> None:
    try:
        # One call, so that lines of two threads do not mix.
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads the log; that must not end the node
