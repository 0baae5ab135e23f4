"""``fusionnode export``: tracks as files of the formats that others read."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionnode.cli.sources import Found
    from fusionnode.config import Config
    from fusionnode.core.types import StructArray
    from fusionnode.release.exports.arcs import Arc, Markings

FORMATS = ("oem", "opm", "ocm", "omm", "tdm", "czml", "udl")
_EACH = ("oem", "opm", "ocm", "omm")
_SUFFIX = {"czml": "czml", "udl": "json"}


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "export",
        help="write tracks as OEM, OPM, OCM, OMM, TDM, CZML or UDL files",
        description="Write tracks as OEM, OPM (newest state, covariance in RTN: an object's half of a CDM), OCM, OMM "
        "(SGP4 elements fitted to the states), TDM (measurements that updated tracks; of a journal), CZML or UDL.",
    )
    parser.add_argument(
        "source", nargs="?", type=Path, metavar="SOURCE",
        help="a journal's folder, or a file that `fusionnode process --out` wrote (default: the running node)",
    )  # fmt: skip
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument(
        "--out", required=True, metavar="PATH",
        help="a file, or - for standard output; where the format takes one object and there are several, a folder",
    )  # fmt: skip
    parser.add_argument(
        "--track", action="append", default=[], metavar="ID", help="only this (may be repeated)"
    )
    parser.add_argument("--object", action="append", default=[], type=int, metavar="NUMBER",
                        help="only this catalogue number (may be repeated)")  # fmt: skip
    parser.add_argument("--from", dest="since", metavar="UTC", help="only states from then on")
    parser.add_argument("--to", dest="until", metavar="UTC", help="only states up to then")
    parser.add_argument("--group", metavar="GROUP", help="what this release group would get, and no more")
    parser.add_argument("--tentative", action="store_true", help="states of tentative tracks too")
    parser.add_argument(
        "--run", dest="number", type=int, default=-1, help="of a journal; default: the last (-1)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit code 1 if there was nothing to write, or something that was asked for cannot be written."""
    from fusionnode import daemon
    from fusionnode.cli.errors import CommandError
    from fusionnode.core.clock import SystemClock
    from fusionnode.release.exports.arcs import arcs

    config, _ = daemon.load_config(args.config)
    if args.group is not None and args.group not in config.group:
        raise CommandError(
            f"{args.config}: no [group.{args.group}]; there are: {', '.join(config.group) or 'none'}"
        )
    if args.format == "tdm" and (args.source is None or not args.source.is_dir()):
        raise CommandError("--format tdm: measurements are in a journal, so give its folder")
    if args.format == "tdm" and args.group is not None:
        raise CommandError("--format tdm --group: no rule releases measurements, only states")
    since, until = _time(args.since, "--from"), _time(args.until, "--to")
    found = _found(args, config)
    try:
        chosen = arcs(
            [body for body in found.states if _wanted(body, args, since, until)],
            [event for event in found.events if _wanted(event, args, since, until)],
            tentative=args.tentative,
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    markings = _markings(config, args.group)
    created_ns = SystemClock().now_ns()
    if not chosen:
        print("fusionnode: there is no state to export in what was given", file=sys.stderr)
        return 1
    files, left_out = _files(args.format, chosen, found, config, markings, created_ns)
    for text in left_out:
        print(f"fusionnode: left out: {text}", file=sys.stderr)
    if not files:
        print("fusionnode: nothing was written", file=sys.stderr)
        return 1
    _write_all(args.out, files, one=args.format not in _EACH)
    return 1 if left_out else 0


def _found(args: argparse.Namespace, config: Config) -> Found:
    from fusionnode.cli import sources

    if args.source is not None and args.source.is_dir():
        return sources.from_journal(
            args.source, args.number, args.config, config, args.group, measured=args.format == "tdm"
        )
    if args.source is None:
        found = sources.from_node(config.publish.snapshot_endpoint)
    else:
        found = sources.from_lines(args.source)
    return found if args.group is None else sources.by_policy(found, config, args.config, args.group)


def _wanted(body: Any, args: argparse.Namespace, since: int | None, until: int | None) -> bool:
    from fusionnode.core.timescales import tai_ns_from_utc_text

    if args.track and body.get("trackId") not in args.track:
        return False
    if args.object and body.get("satNo") not in args.object:
        return False
    if since is None and until is None:
        return True
    t_ns = tai_ns_from_utc_text(str(body.get("epoch") or body.get("time")))
    return (since is None or t_ns >= since) and (until is None or t_ns <= until)


def _time(text: str | None, option: str) -> int | None:
    from fusionnode.cli.errors import CommandError
    from fusionnode.core.timescales import tai_ns_from_utc_text

    try:
        return None if text is None else tai_ns_from_utc_text(text)
    except ValueError as error:
        raise CommandError(f"{option}: {error}") from None


def _markings(config: Config, group: str | None) -> Markings:
    from fusionnode.release.exports.arcs import Markings

    node = config.node
    if group is None:
        return Markings(node.id, node.classification_marking, node.source, node.data_mode, None)
    g = config.group[group]
    return Markings(
        node.id, g.classification_marking, g.source or node.source, g.data_mode or node.data_mode,
        tuple(g.releasable_to), group,
    )  # fmt: skip


def _files(
    kind: str, chosen: list[Arc], found: Found, config: Config, markings: Markings, created_ns: int
) -> tuple[dict[str, str], list[str]]:
    """Texts by file name, and what could not be made, one line each."""
    if kind in ("czml", "udl"):
        from fusionnode.release.exports import other

        return {f"tracks.{_SUFFIX[kind]}": getattr(other, kind)(chosen, markings)}, []
    from fusionnode.release.exports import ccsds

    if kind == "tdm":
        taken = _taken(chosen, found, tuple(config.sensor))
        if not taken:
            return {}, ["no measurement updated these tracks"]
        return {"measurements.tdm": ccsds.tdm(taken, markings, created_ns)}, []
    files, left_out = {}, []
    write: Callable[[Arc], str]
    if kind == "omm":
        from fusionnode.core.refframes import EarthOrientation
        from fusionnode.release.exports.elements import NoElementsError, fit

        orientation = EarthOrientation()
        for arc in chosen:
            try:
                elements = fit(arc.t_ns, arc.x, arc.P, orientation)
            except NoElementsError as error:
                left_out.append(f"{arc.track_id}: {error}")
                continue
            files[f"{arc.track_id}.omm"] = ccsds.omm(arc, elements, markings, created_ns)
        return files, left_out
    write = lambda arc: str(getattr(ccsds, kind)(arc, markings, created_ns))  # noqa: E731
    return {f"{arc.track_id}.{kind}": write(arc) for arc in chosen}, []


def _taken(chosen: list[Arc], found: Found, sensors: tuple[str, ...]) -> list[tuple[Arc, str, StructArray]]:
    """Of each track and sensor the measurements that updated it.

    An update has its measurement's time. Of several at one time, the one that lies nearest to the updated state, in
    its own sigmas, is taken; none twice.
    """
    import numpy as np

    if not found.measurements:
        return []
    ms = np.concatenate(found.measurements)
    ms = ms[np.argsort(ms["t_meas_ns"], kind="stable")]
    # States have their epochs to the microsecond, as they are written.
    times = (ms["t_meas_ns"] + 500) // 1000
    used = np.zeros(len(ms), bool)
    rows: dict[tuple[int, int], list[int]] = {}
    updates = sorted(
        (int(t), n, i)
        for n, arc in enumerate(chosen)
        for i, t in enumerate(arc.t_ns.tolist())
        if arc.bodies[i].get("dof")
    )
    for t_ns, n, i in updates:
        first, last = (
            np.searchsorted(times, (t_ns + 500) // 1000, "left"),
            np.searchsorted(times, (t_ns + 500) // 1000, "right"),
        )
        names = chosen[n].bodies[i].get("sensors") or []
        able = [
            k for k in range(int(first), int(last)) if not used[k] and sensors[int(ms["sensor"][k])] in names
        ]
        if not able:
            continue
        best = min(able, key=lambda k: _misfit(ms[k], chosen[n].x[i]))
        used[best] = True
        rows.setdefault((n, int(ms["sensor"][best])), []).append(best)
    return [(chosen[n], sensors[s], ms[which]) for (n, s), which in sorted(rows.items())]


def _misfit(m: Any, x: Any) -> float:
    """Distance of a measurement from a state, in sigmas squared; light time is left out, as it is alike for all."""
    import numpy as np

    away = x[:3] - m["site_r"]
    r = float(np.linalg.norm(away))
    line = away / r
    out = float((line @ m["e_lon"]) ** 2 / m["var"][1] + (line @ m["e_lat"]) ** 2 / m["var"][2])
    if m["channels"] & 1:
        out += float((r - m["range_m"]) ** 2 / m["var"][0])
    return out


def _write_all(out: str, files: dict[str, str], *, one: bool) -> None:
    """Each under a temporary name that becomes the right one when all of it is on the disk."""
    from fusionnode.cli.errors import CommandError

    if out == "-":
        if len(files) > 1:
            raise CommandError(
                f"{len(files)} objects: give a folder with --out, or one with --track or --object"
            )
        sys.stdout.write(next(iter(files.values())))
        sys.stdout.flush()
        return
    path = Path(out)
    if len(files) > 1 or (path.is_dir() and not one):
        if path.exists() and not path.is_dir():
            raise CommandError(f"{path}: {len(files)} objects, each its file: expected a folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from None
        for name, text in files.items():
            _write(path / name, text)
    else:
        _write(path / next(iter(files)) if path.is_dir() else path, next(iter(files.values())))


def _write(path: Path, text: str) -> None:
    from fusionnode.cli.errors import CommandError

    name = None
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644 & ~_umask())
        Path(name).replace(path)
    except OSError as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
