"""``python -m fusionnode_hil``: the bench's commands without the node's."""

from __future__ import annotations

import argparse
import sys

from fusionnode_hil.command import register_emulate, register_playback


def main() -> int:
    """Run one command and give its exit code."""
    parser = argparse.ArgumentParser(prog="fusionnode_hil", description="Emulated sensors for fusionnode.")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    register_emulate(subparsers)
    register_playback(subparsers)
    args = parser.parse_args()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
