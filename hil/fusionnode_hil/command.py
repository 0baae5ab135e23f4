"""The commands ``fusionnode emulate`` and ``fusionnode playback``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionnode_hil.config import EmulatorConfig
    from fusionnode_hil.links import Link

# What a command needs is imported when it runs: the list of commands costs nothing.


def register_emulate(subparsers: Any) -> None:
    """Add ``emulate`` to a command line."""
    parser = subparsers.add_parser(
        "emulate",
        help="run an emulated radar or telescope on a real link",
        description="Run one emulated sensor, as its configuration says, until stopped.",
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the emulator's TOML")
    parser.add_argument("--duration", type=_positive, metavar="S", help="simulated seconds to run")
    parser.add_argument(
        "--anchor-unix-s",
        type=float,
        metavar="S",
        help="computer's time at which the epoch is (default: now)",
    )
    parser.add_argument(
        "--to", metavar="LINK", help="another link: pty:PATH, serial:DEVICE, tcp://HOST:PORT or ipc://PATH"
    )
    parser.add_argument(
        "--wait-ready", type=_not_negative, default=0.0, metavar="S", help="wait for a reader first"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=_one_line_errors(_emulate))


def register_playback(subparsers: Any) -> None:
    """Add ``playback`` to a command line."""
    parser = subparsers.add_parser(
        "playback",
        help="send recorded observations (B3, TDM) as frames",
        description="Send recorded observations as frames of the sensor interface, in order of time.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="B3 or TDM (KVN), also .gz")
    parser.add_argument(
        "--to", required=True, metavar="LINK", help="pty:PATH, serial:DEVICE, tcp://HOST:PORT or ipc://PATH"
    )
    parser.add_argument(
        "--rate", type=_not_negative, default=1.0, metavar="N", help="times real speed; 0: as fast as it goes"
    )
    parser.add_argument(
        "--sensor",
        action="append",
        default=[],
        type=_mapping,
        metavar="NAME=ID",
        help="sensor id of a name in the files",
    )
    parser.add_argument("--form", choices=("frames", "msgpack", "columnar"), default="frames")
    parser.add_argument("--baud", type=int, metavar="N", help="pace of a pty, or speed of a serial device")
    parser.add_argument("--bind", action="store_true", help="bind the ZeroMQ socket instead of connecting it")
    parser.add_argument(
        "--wait-ready",
        type=_not_negative,
        default=30.0,
        metavar="S",
        help="longest wait for a reader (default 30)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=_one_line_errors(_playback))


def _emulate(args: argparse.Namespace) -> int:
    from fusionnode_hil.config import load
    from fusionnode_hil.emulator import Emulator
    from fusionnode_hil.links import open_link
    from fusionnode_hil.playback import parse_target
    from fusionnode_hil.runner import run, stop_on_signal
    from fusionnode_hil.times import NS

    config = load(args.config)
    clock, start_ns = _clock(config, args.anchor_unix_s)
    emulator = Emulator(config, start_ns)
    # one that starts late misses the beginning; what it sends from then on is the same
    emulator.advance(clock.now_ns())
    with stop_on_signal() as stop:
        if args.to:
            link = parse_target(args.to, baud=None, bind=False, stop=stop)
        else:
            link = open_link(config.link, stop)
        try:
            _say(args, f"{config.sensor.name}: {link.description}")
            if args.wait_ready and not link.wait_ready(args.wait_ready) and not stop.is_set():
                _complain(_nobody(link, args.wait_ready))
                return 1
            until = None if args.duration is None else start_ns + round(args.duration * NS)
            sent = run(emulator, link, clock, stop, until_ns=until)
            link.drain(0.5)
        finally:
            link.close()
    _finish(args, {"sensor": config.sensor.name, "sent": sent, "dropped_bytes": link.dropped_bytes})
    return 0


def _playback(args: argparse.Namespace) -> int:
    from fusionnode_hil import wire
    from fusionnode_hil.observations import Recording, read
    from fusionnode_hil.playback import numbered, parse_target, play
    from fusionnode_hil.runner import stop_on_signal

    recording = Recording()
    for path in args.files:
        read(path, dict(args.sensor), recording)
    messages = numbered(recording.in_order(), wire.TIME_LOCKED | wire.SIMULATED)
    with stop_on_signal() as stop:
        link = parse_target(args.to, baud=args.baud, bind=args.bind, stop=stop)
        try:
            _say(args, f"{len(messages)} detections to {link.description}")
            if not link.wait_ready(args.wait_ready) and not stop.is_set():
                _complain(_nobody(link, args.wait_ready))
                return 1
            started = time.monotonic()
            sent = play(messages, link, rate=args.rate, form=args.form, stop=stop)
            taken = link.drain(30.0)
            elapsed = time.monotonic() - started
        finally:
            link.close()
    _finish(
        args,
        {
            "records": dict(sorted(recording.outcomes.items())),
            "sent": sent,
            "dropped_bytes": link.dropped_bytes,
            "seconds": round(elapsed, 3),
        },
    )
    return 0 if taken and sent == len(messages) and not link.dropped_bytes else 1


def _nobody(link: Link, seconds: float) -> str:
    from fusionnode_hil.links import ZmqLink

    if isinstance(link, ZmqLink):
        return (
            f"{link.endpoint}: nobody took anything in {seconds:g} s: "
            "is the node running, and is this its link's endpoint?"
        )
    return f"{link.description}: nobody reads, for {seconds:g} s"


def _clock(config: EmulatorConfig, anchor_unix_s: float | None) -> tuple[Any, int]:
    """The clock of a run and the simulated time of its start."""
    from fusionnode.core.clock import ScaledClock, SystemClock
    from fusionnode_hil.times import parse_time

    if config.clock.mode == "system":
        system = SystemClock()
        return system, system.now_ns()
    anchor = anchor_unix_s if anchor_unix_s is not None else config.clock.anchor_unix_s
    epoch_ns = parse_time(config.clock.epoch_utc or "")
    return ScaledClock(epoch_ns, time.time() if anchor is None else anchor, config.clock.rate), epoch_ns


def _one_line_errors(
    function: Callable[[argparse.Namespace], int],
) -> Callable[[argparse.Namespace], int]:
    """Known faults of what the user gave become one line: exit 2 for configuration and files, 1 for links."""

    def run(args: argparse.Namespace) -> int:
        from fusionnode.config import ConfigError
        from fusionnode_hil.links import LinkError
        from fusionnode_hil.observations import ObservationError

        try:
            return function(args)
        except (ConfigError, ObservationError) as error:
            _complain(str(error))
            return 2
        except LinkError as error:
            _complain(str(error))
            return 1

    return run


def _finish(args: argparse.Namespace, summary: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(summary), flush=True)
    else:
        print(", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in summary.items()), flush=True)


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.json:
        print(text, flush=True)


def _complain(text: str) -> None:
    print(f"fusionnode: {' '.join(text.split())}", file=sys.stderr)


def _mapping(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not number.isdigit() or not 0 < int(number) < 2**32:
        raise argparse.ArgumentTypeError(f"expected NAME=ID with an ID from 1 on (is {text!r})")
    return name, int(number)


def _positive(text: str) -> float:
    value = _not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError("expected a number above 0")
    return value


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of 0 or more (is {text!r})")
    return value
