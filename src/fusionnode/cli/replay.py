"""``fusionnode replay``: publish a journal's stream again, into a hash."""

from __future__ import annotations

import argparse
import struct
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("replay", help="reproduce a journal's stream", description=__doc__)
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="the journal's folder")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--run", dest="number", type=int, default=-1, help="default: the last (-1)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the messages: lengths of topic and payload (u32, little-endian), topic, payload; "
        "the file's SHA-256 is the stream's",
    )
    parser.add_argument("--force", action="store_true", help="replay even with another configuration")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit code 1 if the journal says that something else was published; of a killed run it does not say."""
    from fusionnode import daemon
    from fusionnode.cli.errors import CommandError
    from fusionnode.cli.report import print_summary
    from fusionnode.record.reader import one_run
    from fusionnode.record.replay import Replay, differences
    from fusionnode.release.wire import StreamDigest

    config, text = daemon.load_config(args.config)
    journal = one_run(args.journal, args.number)
    meta = journal.meta
    faults, warnings = differences(meta, daemon.run_meta(config, text, meta.stream_epoch, meta.started_ns))
    if faults and not args.force:
        raise CommandError(f"{args.journal}: {faults[0]} (--force replays all the same)")
    for warning in (*faults, *warnings):
        print(f"fusionnode: warning: {args.journal}: {warning}", file=sys.stderr)

    pipeline = daemon.build_pipeline(config, args.config, meta.stream_epoch)
    if meta.restored_sha256 is not None:
        daemon.restore_as_then(pipeline, args.journal, meta)
    replay = Replay(journal, pipeline)
    digest = StreamDigest()
    try:
        out = None if args.out is None else args.out.open("wb")
    except OSError as error:
        raise CommandError(f"{args.out}: cannot be written: {error.strerror}") from None
    for messages in replay:
        digest.update(messages)
        if out is not None:
            for topic, payload in messages:
                out.write(struct.pack("<II", len(topic), len(payload)) + topic + payload)
    if out is not None:
        out.close()

    finish, stop = replay.finish, journal.stop
    equal = None
    if finish is not None:
        equal = (finish.published, finish.sha256) == (digest.messages, digest.hexdigest())
    print_summary(
        {
            "stream_epoch": meta.stream_epoch,
            "records": replay.records,
            "ticks": replay.ticks,
            "published": digest.messages,
            "sha256": digest.hexdigest(),
            "as_published": equal,
            "stopped": None if stop is None else f"{stop.reason} at {stop.segment}:{stop.offset}",
        },
        as_json=args.json,
    )
    if not args.json:
        print(
            {
                True: "the same as was published",
                False: "NOT what was published",
                None: "the run was not finished cleanly: this is what survived of it",
            }[equal]
        )
    return 1 if equal is False else 0
