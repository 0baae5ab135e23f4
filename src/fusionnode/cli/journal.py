"""``fusionnode journal``: look into a journal."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("journal", help="show or verify a journal", description=__doc__)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, function, text in (
        ("verify", verify, "read every run to its last complete record, and say why reading ended there"),
        ("show", show, "print one run, one line for each record"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("directory", metavar="JOURNAL", help="the journal's folder")
        action.add_argument("--json", action="store_true", help="print JSON")
        if name == "show":
            action.add_argument("--run", dest="number", type=int, default=-1, help="default: the last (-1)")
        action.set_defaults(run=function)


def verify(args: argparse.Namespace) -> int:
    """Exit code 0 if nothing in the journal is damaged; a run that was killed between two records is not."""
    from fusionnode.record.journal import JournalError
    from fusionnode.record.reader import runs

    damaged = False
    for number, run in enumerate(runs(args.directory)):
        counts = Counter(type(entry.item).__name__ for entry in run)
        stop = run.stop
        if stop is None:
            raise JournalError(f"{args.directory}: run {number} has no segments")
        damaged = damaged or not stop.clean
        records = sum(counts.values())
        if args.json:
            where = {"reason": stop.reason, "segment": stop.segment, "offset": stop.offset}
            print(json.dumps({"run": number, "records": records, **where, "counts": counts}))
        else:
            detail = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
            print(
                f"run {number}: {records} records ({detail}); {stop.reason} at {stop.segment}:{stop.offset}"
            )
    return int(damaged)


def show(args: argparse.Namespace) -> int:
    """Print the records of one run."""
    from fusionnode.core import timescales
    from fusionnode.record.entries import Meta
    from fusionnode.record.reader import one_run

    for entry in one_run(args.directory, args.number):
        item = entry.item
        fields: dict[str, Any] = (
            item._asdict() if not isinstance(item, Meta) else {"stream_epoch": item.stream_epoch}
        )
        if isinstance(fields.get("data"), bytes):
            fields["data"] = fields["data"].hex()
        kind = type(item).__name__
        if args.json:
            print(json.dumps({"seq": entry.seq, "kind": kind, **fields}))
            continue
        for key in ("t_ns", "t_rx_ns"):
            if key in fields:
                fields[key] = timescales.utc_text(fields[key])
        print(f"{entry.seq:9} {kind:10} " + " ".join(str(value) for value in fields.values()))
    return 0
