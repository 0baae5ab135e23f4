"""A day and more of simulated time through the pipeline: does its memory stay where it is?

    python tests/bench/soak.py [--hours 24] [--objects 1000]

Objects in low orbits (500 to 1,500 km) are seen by six surveillance radars around the Earth whenever they are more
than 10 degrees above the horizon, once in `--revisit` seconds, with noise, with one detection in twenty lost and one
false one a scan. Nothing is known of them before. Ticks are journalled, and the state is saved once in a simulated
minute, as the daemon does. Each hour one line: resident memory, descriptors and threads of this process, tracks,
records a second.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from fusionnode.config import parse
from fusionnode.core.refframes import EarthOrientation, enu_itrf, site_itrf
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import DETECTION, Channel, Kind, LinkRecord, ObjectEvent, StructArray
from fusionnode.pipeline import Pipeline
from fusionnode.record.entries import Meta
from fusionnode.record.journal import Journal, segments
from fusionnode.record.state_file import NAME, Saver
from fusionnode.track.motion.dynamics import MU, coarse_step, model

NS = 1_000_000_000
START_NS = tai_ns_from_utc_text("2025-09-01T00:00:00")
SITES = ((45.0, 10.0), (-30.0, 115.0), (38.0, -120.0), (64.0, -20.0), (2.0, -60.0), (9.0, 165.0))
SIGMA_M, SIGMA_RAD, SIGMA_M_S = 15.0, 1e-4, 0.3
LOST, LOWEST_RAD, FARTHEST_M = 0.05, np.radians(10.0), 3.5e6
STATION = """
[node]
id = "soak"
[publish]
heartbeat_s = 10.0
sensor_state_s = 60.0
[tracking]
dynamics = "zonal"
coast_publish_s = 60.0
max_tracks = 8192
""" + "".join(
    f"""
[site.s{k}]
lat_deg = {lat}
lon_deg = {lon}
[sensor.radar{k}]
id = {k + 1}
kind = "radar"
site = "s{k}"
range_sigma_m = {SIGMA_M}
lon_sigma_deg = {np.degrees(SIGMA_RAD)}
lat_sigma_deg = {np.degrees(SIGMA_RAD)}
range_rate_sigma_m_s = {SIGMA_M_S}
revisit_s = REVISIT
"""
    for k, (lat, lon) in enumerate(SITES)
)


class Sky:
    """``n`` objects, and what the radars see of them."""

    def __init__(self, n: int, seed: int = 7) -> None:
        self._rng = rng = np.random.default_rng(seed)
        self._orientation = EarthOrientation()
        self._gravity = model(6, self._orientation.pole(np.array([START_NS]))[0])
        r = 6_378_137.0 + rng.uniform(500e3, 1_500e3, n)
        u, node = rng.uniform(0.0, 2 * np.pi, (2, n))
        i = np.arccos(rng.uniform(-0.2, 0.9, n))
        p = np.array([np.cos(node), np.sin(node), 0.0 * node])
        q = np.array([-np.sin(node) * np.cos(i), np.cos(node) * np.cos(i), np.sin(i)])
        self.r = (r * (np.cos(u) * p + np.sin(u) * q)).T.copy()
        self.v = (np.sqrt(MU / r) * (np.cos(u) * q - np.sin(u) * p)).T.copy()
        self._sites = [site_itrf(float(np.radians(lat)), float(np.radians(lon)), 0.0) for lat, lon in SITES]
        self._enus = [enu_itrf(*np.radians(site)) for site in SITES]
        self._seq = 0

    def step(self, dt_s: float) -> None:
        """Let time pass."""
        for r, v in zip(self.r, self.v, strict=True):
            coarse_step(r, v, dt_s, self._gravity)

    def seen(self, t_ns: int) -> StructArray:
        """DETECTION[n] of all radars at ``t_ns``."""
        turn = self._orientation.gcrf_to_itrf(np.array([t_ns]))[0]
        spin = np.array([0.0, 0.0, 7.292115e-5])
        at = self.r @ turn.T
        velocity = self.v @ turn.T - np.cross(spin, at)
        out = []
        for k, (site, enu) in enumerate(zip(self._sites, self._enus, strict=True)):
            rho = at - site
            d = np.linalg.norm(rho, axis=1)
            e, n, up = enu @ (rho / d[:, None]).T
            rate = np.einsum("ni,ni->n", rho, velocity) / d
            see = (np.arcsin(up) > LOWEST_RAD) & (d < FARTHEST_M) & (self._rng.random(len(d)) >= LOST)
            rows = np.flatnonzero(see)
            one = np.zeros(len(rows) + 1, DETECTION)
            noise = self._rng.normal(size=(4, len(one)))
            az, el = np.arctan2(e[rows], n[rows]), np.arcsin(up[rows])
            one["range_m"][:-1] = d[rows] + SIGMA_M * noise[0, :-1]
            one["lon_rad"][:-1] = (az + SIGMA_RAD * noise[1, :-1] / np.cos(el)) % (2 * np.pi)
            one["lat_rad"][:-1] = el + SIGMA_RAD * noise[2, :-1]
            one["range_rate_m_s"][:-1] = rate[rows] + SIGMA_M_S * noise[3, :-1]
            false = self._rng.random(4)
            one[-1:]["range_m"], one[-1:]["lon_rad"] = 5e5 + 3e6 * false[0], 2 * np.pi * false[1]
            one[-1:]["lat_rad"], one[-1:]["range_rate_m_s"] = 0.2 + false[2], 8e3 * (2 * false[3] - 1)
            one["sensor_id"], one["kind"] = k + 1, Kind.RADAR_AZEL
            one["channels"] = Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE
            one["seq"] = np.arange(self._seq, self._seq + len(one)) & 0xFFFFFFFF
            one["snr_db"] = one["rcs_dbsm"] = one["magnitude"] = one["exposure_s"] = np.nan
            self._seq += len(one)
            out.append(one)
        all_ = np.concatenate(out)
        all_["t_meas_ns"] = all_["t_rx_ns"] = t_ns
        return all_


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held() -> str:
    """Resident memory in MB, descriptors and threads of this process."""
    numbers = (len(list(Path(f"/proc/self/{what}").iterdir())) for what in ("fd", "task"))
    return f"{resident_bytes() / 1e6:11.1f}  {'  '.join(f'{n:7d}' for n in numbers)}"


class Recorder:
    """What the daemon keeps besides: a journal of what came and of ticks, and the state once in a minute."""

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        none = hashlib.sha256(b"").hexdigest()
        meta = Meta("soak", "soak", START_NS, none, none)
        self._folder = folder / "journal"
        self._journal = Journal(self._folder, meta)
        self._saver = Saver(folder / NAME, lambda text: print(f"state not saved: {text}"))
        self._pipeline = pipeline
        self._save_at_ns = START_NS

    def note(self, detections: StructArray, t_ns: int) -> None:
        """One step's input, and its tick."""
        self._journal.append_bytes([LinkRecord(t_ns, "radars", detections.tobytes())])
        self._journal.append_tick(t_ns)
        if t_ns >= self._save_at_ns and not self._saver.busy:
            self._save_at_ns = t_ns + 60 * NS
            self._saver.save(self._pipeline.export_state())

    def prune(self) -> None:
        """Delete the segments that are done with, as an operator does."""
        for path in segments(self._folder)[:-1]:
            path.unlink()

    def close(self) -> None:
        """End."""
        self._saver.close()
        self._journal.close()


def main() -> None:
    """Run, one line an hour."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--objects", type=int, default=1_000)
    parser.add_argument("--revisit", type=float, default=10.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak(Path(folder), args.hours, args.objects, args.revisit)


def soak(folder: Path, hours: int, objects: int, revisit_s: float) -> None:
    """The run itself, with its files in ``folder``."""
    config = parse(STATION.replace("REVISIT", str(revisit_s)), Path("soak.toml"))
    sky = Sky(objects)
    pipeline = Pipeline(config, stream_epoch="soak", orientation=EarthOrientation())
    recorder = Recorder(folder, pipeline)
    kinds: dict[str, int] = {}

    def note(event: ObjectEvent) -> None:
        kinds[event.kind] = kinds.get(event.kind, 0) + 1

    pipeline.on_event = note
    print("hour  resident_MB   files  threads  tracks  coasting  begun  records  records/s  messages  events")
    t_ns = START_NS
    for hour in range(1, hours + 1):
        records = messages = 0
        spent = 0.0
        for _ in range(round(3_600 / revisit_s)):
            t_ns += round(revisit_s * NS)
            sky.step(revisit_s)
            detections = sky.seen(t_ns)
            recorder.note(detections, t_ns)
            start = time.perf_counter()
            pipeline.feed_detections(detections)
            messages += len(pipeline.tick(t_ns + 2 * NS))
            spent += time.perf_counter() - start
            records += len(detections)
        gc.collect()
        recorder.prune()
        summary = pipeline.summary()
        tracks = summary["tracks"]
        assert isinstance(tracks, dict)
        print(
            f"{hour:4d}  {held()}  {tracks['confirmed']:6d}  {tracks['coasting']:8d}  "
            f"{summary['tracks_begun']:5}  {records:7d}  {records / spent:9.0f}  {messages:8d}  {kinds}",
            flush=True,
        )
    recorder.close()


if __name__ == "__main__":
    main()
