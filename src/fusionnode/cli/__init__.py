"""The command ``fusionnode``.

Needs no more than the standard library until a command runs, so that a subscriber's install has its commands.
Commands that stand outside the node are found through the entry-point group ``fusionnode.commands``.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points

from fusionnode import __version__

COMMANDS = (
    "run", "process", "replay", "journal", "state", "check", "release", "keys", "audit", "export", "warmup",
    "subscribe",
)  # fmt: skip
GROUP = "fusionnode.commands"

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

# Exceptions whose text is one line for the user, by the module that defines them, and the exit code.
_CLEAR_ERRORS = (
    ("fusionnode.config", "ConfigError", EXIT_USAGE),
    ("fusionnode.cli.errors", "CommandError", EXIT_USAGE),
    ("fusionnode.link.file_in", "FileError", EXIT_USAGE),
    ("fusionnode.link.zmq_in", "LinkError", EXIT_FAILED),
    ("fusionnode.record.journal", "JournalError", EXIT_FAILED),
    ("fusionnode.record.state_file", "StateError", EXIT_FAILED),
    ("fusionnode.record.audit", "AuditError", EXIT_FAILED),
    ("fusionnode.release.outlet", "OutletError", EXIT_FAILED),
    ("fusionnode.security.keyring", "KeyringError", EXIT_USAGE),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code. An error is one line on standard error."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        args = _parser(argv).parse_args(argv)
        code = int(args.run(args) or 0)
        sys.stdout.flush()  # here, and not while the interpreter exits, it is known what to do if nobody reads
        return code
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter must not complain about it while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        if debug or (error.name or "").startswith("fusionnode."):
            raise
        _complain(f"{error.name} is missing; it comes with: pip install 'fusionnode[node]'")
        return EXIT_USAGE
    except Exception as error:  # noqa: BLE001 - the last resort: never a traceback at a user
        if debug:
            traceback.print_exc()
        for module, name, code in _CLEAR_ERRORS:
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(error, kind):
                _complain(str(error))
                return code
        _complain(f"unexpected {type(error).__name__}: {error} (--debug shows where)")
        return EXIT_FAILED


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fusionnode",
        description="A space-surveillance sensor-fusion node: radar and optical trackers in, tracks out.",
    )
    parser.add_argument("--version", action="version", version=f"fusionnode {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of unexpected errors")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked = next((word for word in argv if not word.startswith("-")), None)
    for name in COMMANDS:
        if asked == name or asked not in COMMANDS:
            import_module(f"fusionnode.cli.{name}").register(subparsers)
    if asked not in COMMANDS:
        _register_plugins(subparsers, asked)
    return parser


def _register_plugins(subparsers: object, asked: str | None) -> None:
    """Load the one that is asked for, or all, for the list of commands. A broken one costs one line."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    if any(point.name == asked for point in found):
        found = [point for point in found if point.name == asked]
    for point in found:
        try:
            point.load()(subparsers)
        except Exception as error:  # noqa: BLE001 - somebody else's code must not take the node's commands away
            _complain(
                f"warning: the command {point.name!r} cannot be loaded: {type(error).__name__}: {error}"
            )


def _complain(text: str) -> None:
    print(f"fusionnode: {' '.join(text.split())}", file=sys.stderr)
