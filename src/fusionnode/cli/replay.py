"""``fusionnode replay``: publish a journal's stream again, into a hash."""

from __future__ import annotations

import argparse
import struct
import sys
from dataclasses import replace
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
    from fusionnode.config import ConfigError, parse
    from fusionnode.record.entries import Reload
    from fusionnode.record.journal import JournalError
    from fusionnode.record.reader import one_run
    from fusionnode.record.replay import Replay, differences
    from fusionnode.release import lists
    from fusionnode.release.wire import StreamDigest

    config, text = daemon.load_config(args.config)
    journal = one_run(args.journal, args.number)
    meta = journal.meta
    key = None
    if config.group:
        try:
            key = daemon.offset_key(config, args.config)
        except ConfigError as error:
            print(f"fusionnode: warning: {error}; release groups are left out", file=sys.stderr)
            config = config.model_copy(update={"group": {}, "partner": {}})
    now = daemon.run_meta(config, text, meta.stream_epoch, meta.started_ns, offset_key=key)
    if meta.offset_key_sha256 is not None and key is None:
        now = replace(now, offset_key_sha256=meta.offset_key_sha256, release_sha256=meta.release_sha256)
    faults, warnings = differences(meta, now)
    if faults and not args.force:
        raise CommandError(f"{args.journal}: {faults[0]} (--force replays all the same)")
    for warning in (*faults, *warnings):
        print(f"fusionnode: warning: {args.journal}: {warning}", file=sys.stderr)

    pipeline = daemon.build_pipeline(config, args.config, meta.stream_epoch)
    if meta.restored_sha256 is not None:
        daemon.restore_as_then(pipeline, args.journal, meta)

    def reload(item: Reload) -> None:
        try:
            new = parse(item.config_text, args.config)
            if lists.read(new).sha256 != item.release_sha256 and not args.force:
                raise JournalError("the files of the rules of release are not those of the journal's reload")
            if config.group:
                pipeline.reload(daemon.reloadable(pipeline.config, new)[0], item.t_ns)
        except (ConfigError, ValueError) as error:
            raise JournalError(f"a change of configuration that cannot be replayed: {error}") from None

    replay = Replay(journal, pipeline, reload)
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
        groups = tuple((g.name, g.digest.messages, g.digest.hexdigest()) for g in pipeline.groups)
        equal = equal and (groups == finish.groups or not config.group)
    print_summary(
        {
            "stream_epoch": meta.stream_epoch,
            "records": replay.records,
            "ticks": replay.ticks,
            "published": digest.messages,
            "sha256": digest.hexdigest(),
            **({"groups": {g.name: g.digest.hexdigest() for g in pipeline.groups}} if config.group else {}),
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
