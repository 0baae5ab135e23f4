"""``fusionnode check``: is this configuration one that the node can run?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("check", help="validate a configuration", description=__doc__)
    parser.add_argument("--config", type=Path, metavar="FILE")
    parser.add_argument(
        "--keys", action="store_true", help="print every key of the configuration, as Markdown"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Validate and print a summary. A fault is one line and exit code 2."""
    from fusionnode import daemon
    from fusionnode.cli.config_keys import print_keys
    from fusionnode.cli.errors import CommandError
    from fusionnode.core.timescales import tai_ns_from_utc_text

    if args.keys:
        print_keys()
        return 0
    if args.config is None:
        raise CommandError("check: expected --config FILE, or --keys")
    config, _ = daemon.load_config(args.config)
    known = daemon.load_catalogue(config, args.config)
    catalogue = None
    if known is not None:
        epoch = config.clock.epoch_utc if config.clock.mode == "scaled" else None
        now_ns = daemon.make_clock(config).now_ns() if epoch is None else tai_ns_from_utc_text(epoch)
        catalogue = daemon.catalogue_report(known, now_ns, config)
    links = {
        name: f"{link.device}, {link.baud} baud" if link.kind == "serial" else link.endpoint
        for name, link in config.link.items()
    }
    sensors = {
        name: f"{sensor.kind}, {sensor.angles}, id {sensor.id}, at {sensor.site}"
        + (f", aberration {sensor.aberration}" if sensor.angles == "radec" else "")
        + ("" if sensor.enabled else ", disabled")
        for name, sensor in config.sensor.items()
    }
    if args.json:
        summary = {
            "node": config.node.id,
            "links": links,
            "sensors": sensors,
            "publish": config.publish.endpoint,
            "snapshot": config.publish.snapshot_endpoint,
            "journal": config.journal.directory,
            "catalogue": catalogue,
        }
        print(json.dumps(summary))
        return 0
    print(f"{args.config}: good")
    print(f"  node     {config.node.id} ({config.node.data_mode})")
    for title, things in (("sensor", sensors), ("link", links)):
        for name, text in things.items():
            print(f"  {title:8} {name}: {text}")
    print(f"  publish  {config.publish.endpoint}, snapshots at {config.publish.snapshot_endpoint}")
    if catalogue is not None:
        print(
            "  catalogue " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in catalogue.items())
        )
    print(f"  journal  {config.journal.directory or 'none'}")
    return 0
