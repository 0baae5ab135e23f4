"""``fusionnode process``: recorded observations through the pipeline, as fast as it goes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from fusionnode.cli.spool import Spool
    from fusionnode.config import Config
    from fusionnode.core.outcome import Outcomes
    from fusionnode.core.types import ObjectEvent, StructArray
    from fusionnode.pipeline import Pipeline


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "process",
        help="process recorded observations",
        description="Process files of observations (B3, IOD, TDM in KVN; gzip or not), merged by time, or a journal.",
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="files, or one journal's folder"
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="a line of JSON for each track and update, and for each event; - is stdout",
    )
    parser.add_argument(
        "--smooth",
        type=Path,
        metavar="FILE",
        help="when all is processed, a line of JSON for each state as all later measurements show it, track by track",
    )
    parser.add_argument("--json", action="store_true", help="end with a summary as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Process, write states, print a summary."""
    from fusionnode import daemon
    from fusionnode.cli.errors import CommandError
    from fusionnode.cli.report import print_summary
    from fusionnode.config import Clock
    from fusionnode.core import clock
    from fusionnode.core.outcome import Outcome
    from fusionnode.record.reader import is_journal

    config, _ = daemon.load_config(args.config)
    folders = [path for path in args.inputs if path.is_dir()]
    if folders and len(args.inputs) > 1:
        raise CommandError("expected files of observations, or one journal's folder, not several of these")
    if folders and not is_journal(folders[0]):
        raise CommandError(f"{folders[0]}: expected a folder with journal segments")
    # Files tell the time themselves; a journal has the ticks it had.
    timed = config if folders else config.model_copy(update={"clock": Clock(mode="data")})
    spool = _spool(args.smooth, config)
    engine = daemon.build_pipeline(timed, args.config, "process")
    lines = 0
    kinds: dict[str, int] = {}
    with _opened(args.out) as file:

        def write(states: StructArray) -> None:
            nonlocal lines
            lines += len(states)
            if spool is not None:
                spool.add(states)
            if file is not None:
                file.write(engine.encoder.json_lines(states))

        def write_event(event: ObjectEvent) -> None:
            kinds[event.kind] = kinds.get(event.kind, 0) + 1
            if file is not None:
                file.write(engine.encoder.event_line(event))

        engine.on_states = write
        engine.on_event = write_event
        engine.streaming = False
        start = clock.monotonic_ns()
        if folders:
            records = _process_journal(folders[0], engine)
        else:
            records = _process_files(args.inputs, engine, config.daemon.batch_records, config.sensor_ids())
        seconds = (clock.monotonic_ns() - start) / 1e9
    if spool is not None:
        with _opened(str(args.smooth)) as file:
            assert file is not None
            for states in spool.smoothed(config, engine.orientation):
                file.write(engine.encoder.json_lines(states))
        spool.close()
    summary = {
        "records": records,
        "seconds": round(seconds, 3),
        "records_per_s": round(records / seconds) if seconds else 0,
        "states": lines,
        "events": dict(sorted(kinds.items())),
        "files": {
            path.name: engine.outcomes.of(f"file:{path.name}") for path in args.inputs if path.is_file()
        },
        **engine.summary(),
    }
    print_summary(summary, as_json=args.json)
    for name in engine.strangers():
        print(
            f"fusionnode: {name} has detections but no configuration; if it stands for a name in a file, give a "
            "sensor that name (sensor.X.participants)",
            file=sys.stderr,
        )
    if records and engine.outcomes.total(Outcome.UNKNOWN_SENSOR) == records:
        print("fusionnode: none of the sensors in what was given is configured", file=sys.stderr)
        return 1
    if records == 0:
        print("fusionnode: there was nothing to process in what was given", file=sys.stderr)
        return 1
    return 0


def _spool(path: Path | None, config: Config) -> Spool | None:
    """Where states wait to be smoothed, if that is asked for."""
    from fusionnode.cli.errors import CommandError
    from fusionnode.cli.spool import Spool, cannot_smooth

    if path is None:
        return None
    if reason := cannot_smooth(config):
        raise CommandError(f"--smooth: {reason}")
    try:
        return Spool(path.parent)
    except OSError as error:
        raise CommandError(f"{path.parent}: cannot be written: {error.strerror}") from None


@contextmanager
def _opened(out: str | None) -> Iterator[BinaryIO | None]:
    """The file to write to: standard output for ``-``, none for None."""
    from fusionnode.cli.errors import CommandError

    if out is None:
        yield None
    elif out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        try:
            file = Path(out).open("wb")  # noqa: SIM115 - only the opening is to be explained to the user
        except OSError as error:
            raise CommandError(f"{out}: cannot be written: {error.strerror}") from None
        with file:
            yield file


def _process_files(paths: list[Path], engine: Pipeline, batch: int, sensor_ids: Mapping[str, int]) -> int:
    """All files' detections in order of time, the node's clock being that of the data. Gives their number."""
    import numpy as np

    detections = np.concatenate([_read(path, engine.outcomes, sensor_ids) for path in paths])
    detections = detections[np.argsort(detections["t_meas_ns"], kind="stable")]
    # As if they had come in without delay.
    detections["t_rx_ns"] = detections["t_meas_ns"]
    for first in range(0, len(detections), batch):
        part = detections[first : first + batch]
        engine.feed_detections(part)
        engine.tick(engine.newest_ns)
    engine.finish(engine.newest_ns)
    return len(detections)


def _read(path: Path, outcomes: Outcomes, sensor_ids: Mapping[str, int]) -> StructArray:
    """The detections of one file, which counts as a link."""
    import numpy as np

    from fusionnode.codec import registry
    from fusionnode.link import file_in

    codec, data = file_in.read(path)
    decoder = registry.make(codec, f"file:{path.name}", outcomes, sensor_ids)
    detections = np.concatenate([decoder.decode([(0, data)]).detections, decoder.finish().detections])
    if reason := getattr(decoder, "reason", None):
        print(f"fusionnode: {path}: {reason}", file=sys.stderr)
    return detections


def _process_journal(path: Path, engine: Pipeline) -> int:
    """The last run's records, with the ticks it had. Gives the number of link records."""
    from fusionnode import daemon
    from fusionnode.record.reader import one_run
    from fusionnode.record.replay import Replay

    run = one_run(path)
    if run.meta.restored_sha256 is not None:
        daemon.restore_as_then(engine, path, run.meta)
    replay = Replay(run, engine)
    for _ in replay:
        pass
    if replay.finish is None and replay.last_tick_ns is not None:
        engine.finish(replay.last_tick_ns)  # the run was killed; this processing of it was not
    return replay.records
