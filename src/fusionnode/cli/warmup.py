"""``fusionnode warmup``: compile and cache the kernels, so that nothing compiles while tracking."""

from __future__ import annotations

import argparse
import json
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("warmup", help="compile and cache the kernels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the time as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compile, and say how long it took."""
    from fusionnode import warmup
    from fusionnode.core import clock

    start = clock.monotonic_ns()
    warmup.compile_kernels()
    seconds = (clock.monotonic_ns() - start) / 1e9
    print(json.dumps({"seconds": round(seconds, 3)}) if args.json else f"kernels ready in {seconds:.1f} s")
    return 0
