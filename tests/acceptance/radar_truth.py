"""What TOPEX did in December 1996, from public element sets; and what a run of the node made of the radar records."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sgp4.api import Satrec

from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.timescales import tai_ns_from_utc_text, utc_jd

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "configs" / "ssn_radar.toml"
NS = 1_000_000_000
PASS_GAP_NS = 600 * NS
LONG_PASS = 100


def process(*files: Path, out: Path) -> dict[str, object]:
    """Run ``fusionnode process`` as a user would; its summary."""
    argv = [sys.executable, "-m", "fusionnode", "process", *files, "--config", CONFIG, "--out", out, "--json"]
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def records(path: Path) -> list[tuple[int, int, str]]:
    """(TAI ns, sensor, line) of a B3 file, in time order."""
    out = []
    for line in gzip.decompress(path.read_bytes()).decode("ascii").splitlines():
        year, day = 1900 + int(line[9:11]), int(line[11:14])
        clock = f"{line[14:16]}:{line[16:18]}:{line[18:20]}.{line[20:23]}"
        date = np.datetime64(f"{year}-01-01") + np.timedelta64(day - 1, "D")
        out.append((tai_ns_from_utc_text(f"{date}T{clock}"), int(line[6:9]), line.rstrip()))
    return sorted(out)


def first_days(path: Path, days: float, folder: Path) -> Path:
    """A file with the first ``days`` of a B3 file's records, in ``folder``."""
    lines = records(path)
    part = folder / path.name
    kept = [line for t_ns, _, line in lines if t_ns - lines[0][0] <= days * 86_400 * NS]
    part.write_bytes(gzip.compress("\n".join(kept).encode("ascii") + b"\n"))
    return part


def passes(times: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """(first ns, last ns, sensor, records) of each pass in (TAI ns, sensor), in time order."""
    out: list[list[int]] = []
    latest: dict[int, list[int]] = {}
    for t, sensor in times:
        current = latest.get(sensor)
        if current is None or t - current[1] > PASS_GAP_NS:
            current = latest[sensor] = [t, t, sensor, 0]
            out.append(current)
        current[1] = t
        current[3] += 1
    return [(a, b, s, n) for a, b, s, n in out]


class Topex:
    """Where the element set nearest in time says TOPEX is."""

    def __init__(self, folder: Path) -> None:
        lines = [x.rstrip() for x in (folder / "topex_dec1996.tle").read_text().splitlines() if x.strip()]
        self._sets = [Satrec.twoline2rv(a, b) for a, b in zip(lines[::2], lines[1::2], strict=True)]
        self._epochs = np.array([s.jdsatepoch + s.jdsatepochF for s in self._sets])
        self._orientation = EarthOrientation()

    def positions(self, t_ns: np.ndarray) -> np.ndarray:
        """GCRF, m, (n, 3) at TAI ns (n,)."""
        day, fraction = utc_jd(t_ns)
        nearest = np.abs((day + fraction)[:, None] - self._epochs).argmin(axis=1)
        r = np.empty((len(t_ns), 3))
        for which in np.unique(nearest):
            rows = nearest == which
            _, km, _ = self._sets[which].sgp4_array(
                np.ascontiguousarray(day[rows]), np.ascontiguousarray(fraction[rows])
            )
            r[rows] = km * 1e3
        return np.einsum("nij,nj->ni", self._orientation.teme_to_gcrf(t_ns), r)


@dataclass(frozen=True)
class States:
    """The lines of a states.jsonl."""

    t_ns: np.ndarray
    track: np.ndarray
    status: np.ndarray
    r: np.ndarray
    observed: np.ndarray


def read_states(path: Path) -> States:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row.get("type") != "event"]
    return States(
        t_ns=np.array([tai_ns_from_utc_text(row["epoch"]) for row in rows]),
        track=np.array([row["trackId"] for row in rows]),
        status=np.array([row["status"] for row in rows]),
        r=np.array([[row["xpos"], row["ypos"], row["zpos"]] for row in rows]) * 1e3,
        observed=np.array([row["lastObEnd"] == row["epoch"] for row in rows]),
    )


@dataclass(frozen=True)
class PassScore:
    """How one pass went."""

    sensor: int
    records: int
    rms_m: float
    confirmed_after: int
    held_to_s: float
    """How long before the pass's last record the confirmed track was last updated."""


def score(states: States, times: list[tuple[int, int]], truth: Topex) -> list[PassScore]:
    """One score a pass of at least LONG_PASS records: of the confirmed track that lies nearest to the truth."""
    error = np.linalg.norm(states.r - truth.positions(states.t_ns), axis=1)
    t = np.array([x[0] for x in times])
    sensor = np.array([x[1] for x in times])
    scores = []
    for first, last, which, n in passes(times):
        if n < LONG_PASS:
            continue
        rows = np.flatnonzero(
            (states.t_ns >= first - NS // 1000) & (states.t_ns <= last + NS // 1000) & states.observed
            & (states.status == "confirmed")
        )  # fmt: skip
        if len(rows) == 0:
            scores.append(PassScore(which, n, np.inf, n, np.inf))
            continue
        tracks = np.unique(states.track[rows])
        rms = {x: float(np.sqrt(np.mean(error[rows[states.track[rows] == x]] ** 2))) for x in tracks}
        mine = rows[states.track[rows] == min(rms, key=lambda x: rms[x])]
        before = np.count_nonzero((sensor == which) & (t >= first) & (t < states.t_ns[mine[0]] - NS // 1000))
        scores.append(
            PassScore(which, n, min(rms.values()), int(before), (last - int(states.t_ns[mine[-1]])) / NS)
        )
    return scores
