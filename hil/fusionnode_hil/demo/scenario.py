"""What the demo plays: its files, written for one run, and what the station knows of the objects."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from sgp4.api import WGS72, Satrec
from sgp4.exporter import export_tle

from fusionnode.config import ConfigError
from fusionnode_hil.sensor import generator
from fusionnode_hil.times import julian, parse_time, tai_minus_utc_ns
from fusionnode_hil.truth import Body, read_tle

NEW_OBJECT: Final = 29238
"""Left out of the station's catalogue: debris of a launch ten days before, and so an uncorrelated track."""
CLIP_SIGMA: Final = 2.0
"""The catalogue's errors are drawn from the sigmas that the station is told of, and cut here."""


@dataclass(frozen=True)
class Scenario:
    """One run's files and addresses. ``sockets`` is a folder of a short name, as ipc addresses have to be."""

    folder: Path
    sockets: Path
    seed: int
    station: Path
    radar: Path
    telescope: Path
    live: str
    snapshot: str
    epoch_ns: int
    rate: float

    @property
    def journal(self) -> Path:
        """Where the daemon records."""
        return self.folder / "journal"


def write(folder: Path, sockets: Path, *, seed: int, anchor_unix_s: float) -> Scenario:
    """Write the three configurations and both sets of elements; ``anchor_unix_s`` is when it begins.

    Raises:
        ConfigError: the demo's configurations cannot be found or read.
    """
    station, radar, telescope = (_read(name) for name in ("station", "radar", "telescope"))
    elements = _elements()
    clock = {**station["clock"], "anchor_unix_s": anchor_unix_s}
    feed, tty = f"ipc://{sockets}/telescope", str(sockets / "radar.tty")
    live, snapshot = f"ipc://{sockets}/live", f"ipc://{sockets}/snapshot"
    (folder / "truth.tle").write_text(elements, encoding="utf-8")
    (folder / "catalogue.tle").write_text(
        catalogue(elements, station["catalogue"], parse_time(clock["epoch_utc"]), seed), encoding="utf-8"
    )
    station["clock"] = clock
    station["link"]["radar_line"]["device"] = tty
    station["link"]["telescope_feed"]["endpoint"] = feed
    station["catalogue"]["files"] = ["catalogue.tle"]
    station["publish"] |= {"endpoint": live, "snapshot_endpoint": snapshot}
    station["journal"] = {"directory": "journal"}
    for emulator in (radar, telescope):
        emulator["seed"] = seed
        emulator["clock"] = clock
        emulator["objects"]["files"] = ["truth.tle"]
    radar["link"]["path"] = tty
    telescope["link"]["endpoint"] = feed
    paths = []
    for name, tree in (("station", station), ("radar", radar), ("telescope", telescope)):
        paths.append(folder / f"{name}.toml")
        paths[-1].write_text(toml(tree), encoding="utf-8")
    return Scenario(
        folder=folder,
        sockets=sockets,
        seed=seed,
        station=paths[0],
        radar=paths[1],
        telescope=paths[2],
        live=live,
        snapshot=snapshot,
        epoch_ns=parse_time(clock["epoch_utc"]),
        rate=float(clock["rate"]),
    )


def catalogue(elements: str, sigmas: Mapping[str, Any], t_ns: int, seed: int) -> str:
    """The true elements made imperfect, without `NEW_OBJECT`, as TLE text.

    ``sigmas`` are the station's ``[catalogue]``; errors are Gaussian, cut at `CLIP_SIGMA`: one of time, along the
    path, and one of inclination, cross-track. ``t_ns`` is when they are to be of that size.
    """
    lines = [
        "# As the station knows them: made by fusionnode demo from the true elements, imperfect on purpose."
    ]
    for body, record in read_tle(elements, "demo.tle"):
        if body.sat_no == NEW_OBJECT:
            continue
        draws = generator(seed, str(body.sat_no), "catalogue").standard_normal(2)
        moved = _moved(record, body, np.clip(draws, -CLIP_SIGMA, CLIP_SIGMA), sigmas, t_ns)
        lines += [body.name, *export_tle(moved)]
    return "\n".join(lines) + "\n"


def toml(tree: Mapping[str, Any]) -> str:
    """A tree of tables of plain values as TOML."""
    return "\n".join(_toml(tree, ())).lstrip("\n") + "\n"


def _toml(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    if path and (plain or not tree):
        yield f"\n[{'.'.join(path)}]"
    for key, value in plain.items():
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}"  # JSON's plain values are TOML's, too
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _toml(value, (*path, key))


def _moved(record: Satrec, body: Body, draws: np.ndarray, sigmas: Mapping[str, Any], t_ns: int) -> Satrec:
    """The element set with errors of ``draws`` (along, cross) sigma at ``t_ns``."""
    day, fraction = (float(part[0]) for part in julian(np.array([t_ns]), -tai_minus_utc_ns(np.array([t_ns]))))
    error, r, v = record.sgp4(day, fraction)
    if error:
        raise ConfigError(f"demo.tle: {body.name}: no position at the demo's time")
    age_days = abs(day + fraction - record.jdsatepoch - record.jdsatepochF)
    along_m = sigmas["sigma_along_m"] + sigmas["sigma_along_growth_m_per_day"] * age_days
    time_s = draws[0] * along_m / (float(np.linalg.norm(v)) * 1e3)
    anomaly = record.mo + record.no_kozai / 60.0 * time_s
    inclination = abs(record.inclo + draws[1] * sigmas["sigma_cross_m"] / (float(np.linalg.norm(r)) * 1e3))
    moved = Satrec()
    moved.sgp4init(
        WGS72,
        "i",
        record.satnum,
        record.jdsatepoch + record.jdsatepochF - 2_433_281.5,
        record.bstar,
        record.ndot,
        record.nddot,
        record.ecco,
        record.argpo,
        inclination,
        anomaly % (2.0 * np.pi),
        record.no_kozai,
        record.nodeo,
    )
    # What the propagator has no use for, but a TLE has.
    moved.classification, moved.intldesg = record.classification, record.intldesg
    moved.elnum, moved.revnum, moved.ephtype = record.elnum, record.revnum, record.ephtype
    moved.epochyr, moved.epochdays = record.epochyr, record.epochdays
    moved.jdsatepoch, moved.jdsatepochF = record.jdsatepoch, record.jdsatepochF
    return moved


def _folder() -> Path:
    """Where the demo's configurations are: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "configs", here.parents[3] / "configs" / "demo"):
        if (folder / "station.toml").is_file():
            return folder
    raise ConfigError("demo: its configurations (configs/demo) are not there: run it from a checkout")


def _read(name: str) -> dict[str, Any]:
    path = _folder() / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _elements() -> str:
    folder = _folder()
    for path in (folder / "demo.tle", folder.parent / "elements" / "demo.tle"):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ConfigError("demo: its elements (configs/elements/demo.tle) are not there: run it from a checkout")
