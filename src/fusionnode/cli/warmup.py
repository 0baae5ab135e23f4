"""``fusionnode warmup``: compile and cache the kernels, so that nothing compiles while tracking."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("warmup", help="compile and cache the kernels", description=__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="also those of the filter that this configuration asks for",
    )
    parser.add_argument("--json", action="store_true", help="print the time as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compile, and say how long it took."""
    from fusionnode import daemon, warmup
    from fusionnode.core import clock

    start = clock.monotonic_ns()
    tracking = daemon.load_config(args.config)[0].tracking if args.config else None
    warmup.compile_kernels(tracking)
    seconds = (clock.monotonic_ns() - start) / 1e9
    print(json.dumps({"seconds": round(seconds, 3)}) if args.json else f"kernels ready in {seconds:.1f} s")
    return 0
