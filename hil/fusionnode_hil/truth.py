"""Where objects really are, in GCRF: element sets by SGP4 (OMM or TLE) and ephemeris files (SP3, OEM)."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sgp4 import omm
from sgp4.api import WGS72, Satrec, SatrecArray
from sgp4.conveniences import check_satrec

from fusionnode_hil.earth import EarthOrientation, bundled_orientation, rotate
from fusionnode_hil.ephemeris import Ephemeris, TruthError, read_oem, read_sp3, read_text
from fusionnode_hil.times import FloatArray, IntArray, julian, tai_minus_utc_ns

__all__ = ["Body", "Truth", "TruthError", "load"]

MU = 3.986004418e14
"""Earth's gravitational parameter, m^3/s^2 (IERS Conventions 2010)."""


@dataclass(frozen=True, slots=True)
class Body:
    """What an emulated sensor may know of an object apart from its path."""

    name: str
    sat_no: int = 0
    rcs_m2: float = 1.0
    diameter_m: float = 2.0
    albedo: float = 0.2  # of a diffuse sphere (Bond albedo)


@dataclass(frozen=True)
class ElementSets:
    """Objects propagated by SGP4 (frame TEME); one that fails (decayed, say) is NaN and spoils no other."""

    bodies: tuple[Body, ...]
    records: tuple[Satrec, ...]
    _array: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_array", SatrecArray(list(self.records)))

    def states(self, t_ns: IntArray, orientation: EarthOrientation) -> FloatArray:
        """(n, T, 6): m and m/s in GCRF, at TAI ns (T,); NaN where unknown."""
        jd, fraction = julian(t_ns, -tai_minus_utc_ns(t_ns))
        errors, r, v = self._array.sgp4(np.atleast_1d(jd), np.atleast_1d(fraction))
        turn = orientation.at(t_ns).gcrf_teme
        state = np.concatenate([rotate(turn, r), rotate(turn, v)], axis=-1) * 1e3
        state[errors != 0] = np.nan
        return state


@dataclass(frozen=True)
class EphemerisFile:
    """Objects of an ephemeris file, each of one or several stretches."""

    bodies: tuple[Body, ...]
    stretches: tuple[tuple[Ephemeris, ...], ...]

    def states(self, t_ns: IntArray, orientation: EarthOrientation) -> FloatArray:
        """As `ElementSets.states`."""
        state = np.full((len(self.bodies), len(t_ns), 6), np.nan)
        for row, stretches in zip(state, self.stretches, strict=True):
            for stretch in stretches:
                np.copyto(row, stretch.gcrf(t_ns, orientation), where=np.isnan(row))
        return state


Source = ElementSets | EphemerisFile


class Truth:
    """All objects of a scenario. Sensors observe it; tests and demos score against it."""

    def __init__(self, sources: Sequence[Source], orientation: EarthOrientation | None = None) -> None:
        self._sources = tuple(sources)
        self.orientation = orientation or bundled_orientation()
        self.bodies: tuple[Body, ...] = tuple(body for source in sources for body in source.bodies)

    def states(self, t_ns: IntArray | Sequence[int] | int) -> FloatArray:
        """(n, T, 6) of all bodies in their order: m and m/s in GCRF, at TAI ns (T,); NaN where unknown."""
        times = np.atleast_1d(np.asarray(t_ns, np.int64))
        parts = [source.states(times, self.orientation) for source in self._sources]
        return np.concatenate(parts) if parts else np.empty((0, len(times), 6))

    def index(self, key: int | str) -> int:
        """Row of the body with this catalogue number or name.

        Raises:
            KeyError: if there is none.
        """
        for row, body in enumerate(self.bodies):
            if key in (body.sat_no, body.name):
                return row
        raise KeyError(key)


def load(
    files: Sequence[Path],
    *,
    select: Sequence[int] = (),
    default: Body | None = None,
    properties: Mapping[str, Mapping[str, float]] | None = None,
    inline: str = "",
) -> Truth:
    """Truth from files and inline TLE text. The name tells the format: .json, .csv or .xml (OMM), .oem, .sp3,
    each also .gz; anything else is TLE.

    ``select`` keeps these catalogue numbers only (ephemeris files are always kept). ``properties`` overrides
    fields of ``default`` by catalogue number or name.

    Raises:
        TruthError: one line, also when no object is left.
    """
    sources: list[Source] = [_read(path) for path in files]
    if inline:
        sources.append(_elements(read_tle(inline, "objects.tle")))
    kept: list[Source] = []
    for source in sources:
        if select and isinstance(source, ElementSets):
            rows = [i for i, body in enumerate(source.bodies) if body.sat_no in select]
            source = ElementSets(
                tuple(source.bodies[i] for i in rows), tuple(source.records[i] for i in rows)
            )
        kept.append(_dress(source, default or Body("default"), properties or {}))
    kept = [source for source in kept if source.bodies]
    truth = Truth(kept)
    for key in select:
        if all(body.sat_no != key for body in truth.bodies):
            raise TruthError(f"objects.select: {key} is in none of the files")
    for name in properties or {}:
        if all(name not in (str(body.sat_no), body.name) for body in truth.bodies):
            raise TruthError(f"objects.properties.{name}: no such object")
    return truth


def _dress(source: Source, default: Body, properties: Mapping[str, Mapping[str, float]]) -> Source:
    bodies = []
    for body in source.bodies:
        own = {**properties.get(str(body.sat_no), {}), **properties.get(body.name, {})}
        bodies.append(replace(default, name=body.name, sat_no=body.sat_no, **own))
    return replace(source, bodies=tuple(bodies))


def _read(path: Path) -> Source:
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind in (".sp3", ".oem"):
        parts = read_sp3(path) if kind == ".sp3" else read_oem(path)
        names = sorted({part.name for part in parts})
        stretches = tuple(tuple(part for part in parts if part.name == name) for name in names)
        return EphemerisFile(tuple(Body(name) for name in names), stretches)
    text = read_text(path)
    if kind in (".json", ".csv", ".xml"):
        return _elements(read_omm(text, kind, str(path)))
    return _elements(read_tle(text, str(path)))


def _elements(pairs: Sequence[tuple[Body, Satrec]]) -> ElementSets:
    return ElementSets(tuple(body for body, _ in pairs), tuple(record for _, record in pairs))


def read_tle(text: str, origin: str) -> list[tuple[Body, Satrec]]:
    """Two- or three-line element sets; lines that start with # are comments.

    Raises:
        TruthError: one line naming ``origin`` and the line.
    """
    found: list[tuple[Body, Satrec]] = []
    name, first = "", ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("1 ") and len(line) >= 64 and not first:
            first = line
        elif line.startswith("2 ") and len(line) >= 63 and first:
            try:
                record = Satrec.twoline2rv(first, line, WGS72)
                check_satrec(record)
            except ValueError as error:
                raise TruthError(f"{origin}:{number}: not an element set: {error}") from None
            found.append((Body(name or str(record.satnum), record.satnum), record))
            name, first = "", ""
        elif not first:
            name = line.removeprefix("0 ").strip()
        else:
            raise TruthError(f"{origin}:{number}: expected line 2 of an element set")
    if not found:
        raise TruthError(f"{origin}: no element sets found")
    return found


def read_omm(text: str, kind: str, origin: str) -> list[tuple[Body, Satrec]]:
    """Orbit mean-elements messages as JSON, CSV or XML (``kind``: the file's suffix).

    Raises:
        TruthError: one line naming ``origin``.
    """
    found: list[tuple[Body, Satrec]] = []
    try:
        if kind == ".json":
            tree = json.loads(text)
            messages = tree if isinstance(tree, list) else [tree]
        else:
            stream = io.StringIO(text)
            messages = list(omm.parse_csv(stream) if kind == ".csv" else omm.parse_xml(stream))
        for message in messages:
            fields: dict[str, Any] = {
                "CLASSIFICATION_TYPE": "U",
                "EPHEMERIS_TYPE": 0,
                "ELEMENT_SET_NO": 0,
                "REV_AT_EPOCH": 0,
            }
            fields |= message
            if "." not in fields["EPOCH"]:
                fields["EPOCH"] += ".0"
            number = int(fields["NORAD_CAT_ID"])
            record = Satrec()
            # the propagator has no room for nine digits and no use for them
            omm.initialize(record, fields | {"NORAD_CAT_ID": number if number < 100_000 else 0})
            found.append((Body(str(fields.get("OBJECT_NAME", number)), number), record))
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise TruthError(f"{origin}: not OMM: {type(error).__name__}: {error}") from None
    if not found:
        raise TruthError(f"{origin}: no element sets found")
    return found
