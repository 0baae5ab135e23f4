"""Ephemeris files as truth: SP3 (c, d) and OEM in KVN, interpolated by high-order Lagrange polynomials."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import erfa
import numpy as np

from fusionnode_hil.earth import EarthOrientation, gcrf_from_itrf, rotate
from fusionnode_hil.times import NS, FloatArray, IntArray, day_to_tai_ns, parse_time

ORDER = 10
"""Points an interpolation uses: with 60-s steps of a low orbit its own error is far below a millimetre."""

Frame = Literal["ITRF", "GCRF", "EME2000", "TEME"]


class TruthError(Exception):
    """A file of elements or ephemerides cannot be used; the text is one line."""


@dataclass(frozen=True)
class Ephemeris:
    """One object's states at given times; a gap in them is a gap in the answers.

    ``t_ns`` (m,) growing, ``state`` (m, 6): m and m/s in ``frame``; ``fit`` is the number of points
    interpolated over.
    """

    name: str
    frame: Frame
    t_ns: IntArray
    state: FloatArray
    fit: int = ORDER

    def interpolate(self, t_ns: IntArray) -> FloatArray:
        """States (T, 6) in the file's own frame; NaN outside of its span and where points are missing."""
        n = min(self.fit, len(self.t_ns))
        out = np.full((len(t_ns), 6), np.nan)
        inside = (t_ns >= self.t_ns[0]) & (t_ns <= self.t_ns[-1])
        if not inside.any():
            return out
        t = t_ns[inside]
        first = np.searchsorted(self.t_ns, t, side="right") - n // 2
        rows = np.clip(first, 0, len(self.t_ns) - n)[:, None] + np.arange(n)
        # relative to the query: float64 holds nanoseconds over a fit's width without loss
        nodes = (self.t_ns[rows] - t[:, None]) / NS
        gaps = nodes[:, :, None] - nodes[:, None, :]
        ratio = -nodes[:, None, :] / np.where(gaps == 0.0, 1.0, gaps)
        ratio[:, np.arange(n), np.arange(n)] = 1.0
        out[inside] = np.einsum("tj,tjk->tk", np.prod(ratio, axis=2), self.state[rows])
        return out

    def gcrf(self, t_ns: IntArray, orientation: EarthOrientation) -> FloatArray:
        """States (T, 6) in GCRF, m and m/s."""
        state = self.interpolate(t_ns)
        if self.frame == "GCRF":
            return state
        if self.frame == "ITRF":
            at = orientation.at(t_ns)
            return gcrf_from_itrf(at.itrf_gcrf, state, at.spin_itrf)
        turn = orientation.at(t_ns).gcrf_teme if self.frame == "TEME" else _frame_bias().T
        return np.concatenate([rotate(turn, state[:, :3]), rotate(turn, state[:, 3:])], axis=1)


def read_text(path: Path) -> str:
    """A text file's contents, unpacked if its name ends in .gz.

    Raises:
        TruthError: if it cannot be read.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError) as error:
        raise TruthError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except UnicodeDecodeError:
        raise TruthError(f"{path}: expected text") from None


def read_sp3(path: Path) -> list[Ephemeris]:
    """Objects of an SP3 file; its header says the time system. Positions of 0 mean "missing".

    Velocities come from the file, or where it has none from differentiating the positions.

    Raises:
        TruthError: one line naming the file.
    """
    points: dict[str, list[tuple[int, list[float], list[float] | None]]] = {}
    system, t_ns, number = "GPS", 0, 0
    seen_system = False
    try:
        for line in read_text(path).splitlines():
            number += 1
            if line.startswith("%c") and not seen_system:
                system, seen_system = line[9:12].strip(), True
            elif line.startswith("*"):
                year, month, day, hour, minute, second = line[1:].split()
                whole, _, fraction = second.partition(".")
                ns = ((int(hour) * 60 + int(minute)) * 60 + int(whole)) * NS + int((fraction + "0" * 9)[:9])
                t_ns = day_to_tai_ns(date(int(year), int(month), int(day)), ns, system)
            elif line.startswith("P"):
                r = [float(line[i : i + 14]) * 1e3 for i in (4, 18, 32)]
                if any(r):
                    points.setdefault(line[1:4].strip(), []).append((t_ns, r, None))
            elif line.startswith("V") and points.get(line[1:4].strip()):
                v = [float(line[i : i + 14]) * 1e-1 for i in (4, 18, 32)]
                last_t, r, _ = points[line[1:4].strip()][-1]
                if last_t == t_ns and any(v):
                    points[line[1:4].strip()][-1] = (t_ns, r, v)
    except ValueError as error:
        raise TruthError(f"{path}:{number}: not SP3: {error}") from None
    if not points:
        raise TruthError(f"{path}: no positions found; expected SP3")
    return [_sp3_object(name, rows) for name, rows in points.items()]


def read_oem(path: Path) -> list[Ephemeris]:
    """Segments of an OEM (CCSDS 502.0, KVN), one `Ephemeris` each; frames GCRF, ICRF, EME2000, ITRF*, TEME.

    Raises:
        TruthError: one line naming the file.
    """
    segments: list[Ephemeris] = []
    meta: dict[str, str] = {}
    rows: list[tuple[int, list[float]]] = []
    skipping = False
    number = 0

    def close() -> None:
        if rows:
            segments.append(_oem_segment(meta, rows))

    try:
        for raw in read_text(path).splitlines():
            number += 1
            line = raw.strip()
            if not line or line.startswith("COMMENT"):
                continue
            if line == "META_START":
                close()
                meta, rows = {}, []
            elif line in ("COVARIANCE_START", "COVARIANCE_STOP"):
                skipping = line.endswith("START")
            elif "=" in line:
                key, _, value = line.partition("=")
                meta[key.strip()] = value.strip()
            elif not skipping and line[0].isdigit():
                when, *numbers = line.split()
                values = [float(x) * 1e3 for x in numbers[:6]]
                if len(values) < 6:
                    raise ValueError("expected a time and six numbers")
                rows.append((parse_time(when, meta.get("TIME_SYSTEM", "UTC")), values))
        close()
    except ValueError as error:
        raise TruthError(f"{path}:{number}: not OEM: {error}") from None
    if not segments:
        raise TruthError(f"{path}: no states found; expected OEM in KVN")
    return segments


def _oem_segment(meta: dict[str, str], rows: list[tuple[int, list[float]]]) -> Ephemeris:
    name = meta.get("REF_FRAME", "")
    frame: Frame
    if name in ("GCRF", "ICRF"):
        frame = "GCRF"
    elif name in ("EME2000", "TEME"):
        frame = name  # type: ignore[assignment]
    elif name.startswith("ITRF"):
        frame = "ITRF"
    else:
        raise ValueError(f"REF_FRAME {name!r}: expected GCRF, ICRF, EME2000, ITRF... or TEME")
    if meta.get("CENTER_NAME", "EARTH").upper() != "EARTH":
        raise ValueError("CENTER_NAME: expected EARTH")
    fit = int(meta.get("INTERPOLATION_DEGREE", ORDER - 1)) + 1
    return _table(meta.get("OBJECT_NAME", "object"), frame, rows, fit=max(fit, 2))


def _sp3_object(name: str, rows: list[tuple[int, list[float], list[float] | None]]) -> Ephemeris:
    table = _table(name, "ITRF", [(t, r + (v or [np.nan] * 3)) for t, r, v in rows])
    if np.isnan(table.state[:, 3:]).any():
        table.state[:, 3:] = _differentiate(table)
    return table


def _table(name: str, frame: Frame, rows: Iterable[tuple[int, list[float]]], fit: int = ORDER) -> Ephemeris:
    unique = sorted(dict(rows).items())
    times = np.array([t for t, _ in unique], np.int64)
    return Ephemeris(name, frame, times, np.array([state for _, state in unique], np.float64), fit)


def _differentiate(table: Ephemeris, step_ns: int = NS) -> FloatArray:
    """Velocities (m, 3) by central differences of the interpolated positions, fourth order in ``step_ns``."""
    position = Ephemeris(table.name, table.frame, table.t_ns, np.nan_to_num(table.state), table.fit)

    def at(steps: int) -> FloatArray:
        return position.interpolate(np.clip(table.t_ns + steps * step_ns, table.t_ns[0], table.t_ns[-1]))

    r = {k: at(k)[:, :3] for k in (-2, -1, 1, 2)}
    h = step_ns / NS
    v = (8.0 * (r[1] - r[-1]) - (r[2] - r[-2])) / (12.0 * h)
    v[[0, -1]] = np.nan  # half of the points would lie outside
    return v


def _frame_bias() -> FloatArray:
    """EME2000 from GCRF, (3, 3): the IAU 2006 frame bias."""
    bias: FloatArray = erfa.bp06(2_451_545.0, 0.0)[0]
    return bias
