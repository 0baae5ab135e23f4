"""Figures of tracks from directions alone, and of correlation: real arcs, real objects, a whole catalogue.

Run: ``python tests/acceptance/optical_only.py`` (the real data in ``$FUSIONNODE_DATA`` or ``../shared/data``).

- Two low satellites seen by eye in 2003 (IOD records): the orbit's plane against element sets of three weeks later.
- Geostationary objects of the public catalogue, moved by SGP4, before an emulated telescope of 1 arcsec that takes
  six frames of each, ten seconds apart, a few times in two nights, among false detections. The node has no catalogue.
- Tracks of catalogued objects, their element sets off by their sigmas, and of objects that the catalogue does not have:
  how often what was said to be probable was right.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from fusionnode.catalogue.known import KnownObjects
from fusionnode.codec.iod import IodDecoder
from fusionnode.config import Config, parse
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import DETECTION, Channel, Kind, Status, StructArray
from fusionnode.intake.measure import Measurer
from fusionnode.track.initiation.admissible import bank_of
from fusionnode.track.initiation.angles_only import solutions, the_one
from fusionnode.track.lanes import workspace
from fusionnode.track.motion.dynamics import make
from fusionnode.track.tracker import Tracker

SECOND_NS = 1_000_000_000
ARCSEC = float(np.radians(1 / 3600))
LIGHT_M_S = 299_792_458.0


def station(lat_deg: float, lon_deg: float, height_m: float, sigma_deg: float, more: str = "") -> Config:
    """One telescope that reports right ascension and declination."""
    return parse(
        f"""
[node]
id = "t"
[site.here]
lat_deg = {lat_deg}
lon_deg = {lon_deg}
height_m = {height_m}
[sensor.eye]
id = 8305
kind = "optical"
site = "here"
angles = "radec"
revisit_s = 10.0
lon_sigma_deg = {sigma_deg}
lat_sigma_deg = {sigma_deg}
[tracking]
{more}
""",
        Path("acceptance.toml"),
    )


def plane(x: np.ndarray) -> tuple[float, float]:
    """Inclination and node, degrees."""
    h = np.cross(x[:3], x[3:])
    inclination = np.degrees(np.arccos(h[2] / np.linalg.norm(h)))
    return float(inclination), float(np.degrees(np.arctan2(h[0], -h[1])) % 360)


def real_arcs(data: Path, orientation: EarthOrientation) -> None:
    """Orbit, or hypotheses, from each real arc."""
    config = station(26.2431, -98.2163, 30.0, 0.04)
    outcomes = Outcomes()
    raw = (data / "optical" / "dmsp_20031120_8305.iod").read_bytes()
    rows = Measurer(config, orientation, outcomes).measure(
        IodDecoder("file", outcomes).decode([(1, raw)]).detections
    )
    known = KnownObjects.from_files([data / "optical" / "dmsp_20031214.tle"], orientation)
    W = workspace()
    for part, sat_no in ((rows[:5], 23533), (rows[1:5], 23533), (rows[5:], 7816)):
        t_ns = int(part["t_meas_ns"][-1])
        model = make(config.tracking, orientation, t_ns)
        truth = known.exact(int(np.flatnonzero(known.sat_no == sat_no)[0]), t_ns)
        assert truth is not None
        span = (t_ns - int(part["t_meas_ns"][0])) / SECOND_NS
        print(
            f"{sat_no}: {len(part)} directions over {span:.0f} s; true inclination {plane(truth)[0]:.2f} deg"
        )
        orbit = the_one(solutions(part, W, model))
        if orbit is not None:
            d2 = (orbit.x - truth) @ np.linalg.solve(orbit.P, orbit.x - truth)
            print(
                f"  orbit: inclination {plane(orbit.x)[0]:.2f} deg, node off {plane(orbit.x)[1] - plane(truth)[1]:.2f}"
                f" deg, range {orbit.range_m / 1e3:.0f} +- {orbit.range_sigma_m / 1e3:.0f} km, d2 {d2:.1f} (6)"
            )
        bank = bank_of(part, W, model)
        if bank is None:
            print("  no admissible orbit")
            continue
        inclinations = np.array([plane(x)[0] for x in bank.x])
        mean = bank.weight @ inclinations
        sd = np.sqrt(bank.weight @ (inclinations - mean) ** 2)
        x, P = bank.moments()
        d2 = (x - truth) @ np.linalg.solve(P, x - truth)
        print(
            f"  {len(bank)} hypotheses: inclination {mean:.2f} +- {sd:.2f} deg, position sigma"
            f" {np.sqrt(np.trace(P[:3, :3])) / 1e3:.0f} km, d2 {d2:.1f} (6)"
        )


def detection(t_ns: int, u: np.ndarray, sigma: float, rng: np.random.Generator) -> StructArray:
    """One direction, with noise."""
    out = np.zeros(1, DETECTION)
    out["t_meas_ns"] = out["t_rx_ns"] = t_ns
    out["sensor_id"], out["kind"], out["channels"] = 8305, Kind.OPTICAL_RADEC, Channel.ANGLES
    lat = np.arcsin(u[2]) + sigma * rng.normal()
    out["lat_rad"] = lat
    out["lon_rad"] = (np.arctan2(u[1], u[0]) + sigma * rng.normal() / np.cos(lat)) % (2 * np.pi)
    return out


def geostationary(data: Path, orientation: EarthOrientation, n: int = 12, false: int = 3_000) -> None:
    """From tracklets to confirmed tracks."""
    rng = np.random.default_rng(7)
    more = "coast_limit_s = 200000.0\ncoast_after_revisits = 60\n"
    config = station(28.30, -16.51, 2_390.0, 1 / 3600, more)
    outcomes = Outcomes()
    measurer = Measurer(config, orientation, outcomes)
    known = KnownObjects.from_files([data / "catalogue" / "20250901.tle.gz"], orientation)
    start = tai_ns_from_utc_text("2025-09-01T21:00:00")
    r, v, good = known.states(start)
    site, _ = measurer.site_state(0, start)
    d = r - site[0]
    high = np.abs(np.linalg.norm(r, axis=1) - 42.164e6) < 100e3
    up = d @ site[0] > 0.35 * np.linalg.norm(d, axis=1) * np.linalg.norm(site[0])
    slow = np.abs(v[:, 2]) < 800.0
    rows = np.sort(rng.choice(np.flatnonzero(good & high & up & slow), n, replace=False)).tolist()
    found = []
    visits = (0, 2_400, 6_000, 10_800, 18_000, 25_200, 86_400, 93_600)
    for visit in visits:
        for k, row in enumerate(rows):
            for frame in range(6):
                t_ns = start + int((visit + 70 * k + 10 * frame) * SECOND_NS)
                at, _ = measurer.site_state(0, t_ns)
                x = known.exact(row, t_ns)
                assert x is not None
                seen = known.exact(row, t_ns - int(np.linalg.norm(x[:3] - at[0]) / LIGHT_M_S * 1e9))
                assert seen is not None
                u = (seen[:3] - at[0]) / np.linalg.norm(seen[:3] - at[0])
                found.append(detection(t_ns, u, ARCSEC, rng))
    end = visits[-1] + 70 * n + 60
    for t in rng.uniform(0, end, false):
        t_ns = start + int(t * SECOND_NS)
        at, _ = measurer.site_state(0, t_ns)
        u = at[0] / np.linalg.norm(at[0]) + 0.5 * rng.normal(size=3)
        found.append(detection(t_ns, u / np.linalg.norm(u), ARCSEC, rng))
    detections = np.concatenate(found)
    detections = detections[np.argsort(detections["t_meas_ns"], kind="stable")]
    measurements = measurer.measure(detections)
    tracker = Tracker(config, orientation, outcomes)
    tracker.process(measurements[:1])
    begun = []
    clock = time.perf_counter()
    for part in np.array_split(measurements[1:], 200):
        before = tracker.begun
        tracker.process(part)
        begun += [(int(part["t_meas_ns"][-1]) - start) / SECOND_NS] * (tracker.begun - before)
    tracker.advance(int(measurements["t_meas_ns"][-1]))
    spent = time.perf_counter() - clock
    p, slots = tracker.picture, tracker.slots()
    confirmed = [s for s in slots.tolist() if p.status[s] != Status.TENTATIVE]
    errors, owners = [], []
    for slot in confirmed:
        truths = [known.exact(row, int(p.epoch[slot])) for row in rows]
        off = [np.linalg.norm(p.x[slot, :3] - t[:3]) if t is not None else np.inf for t in truths]
        k = int(np.argmin(off))
        errors.append(off[k])
        owners.append(k)
    print(
        f"geostationary: {n} objects, {len(visits)} tracklets of 6 each, {false} false detections:"
        f" {len(confirmed)} confirmed tracks of {len(set(owners))} objects, {tracker.begun} begun"
    )
    print(
        f"  begun after (h): {', '.join(f'{t / 3600:.1f}' for t in begun)}; position error median"
        f" {np.median(errors) / 1e3:.2f} km, worst {np.max(errors) / 1e3:.2f} km (SGP4's own error included)"
    )
    print(f"  {len(measurements)} detections in {spent:.1f} s; outcomes {outcomes.of('eye')}")


def correlation(data: Path, orientation: EarthOrientation, n: int = 400) -> None:
    """Calibration of probabilities, and their cost."""
    known = KnownObjects.from_files([data / "catalogue" / "20250901.tle.gz"], orientation)
    t_ns = tai_ns_from_utc_text("2025-09-01T12:00:00")
    for sigma_m in (50.0, 5e3, 100e3):
        rng = np.random.default_rng(1)
        P = np.diag([sigma_m] * 3 + [max(1e-3 * sigma_m, 0.5)] * 3) ** 2
        said, right, spent = [], [], []
        named = wrong = 0
        for row in rng.integers(0, len(known), n).tolist():
            prior = known.prior(row, t_ns)
            if prior is None:
                continue
            x = prior[0] + np.linalg.cholesky(prior[1] + 1e-6 * np.eye(6)) @ rng.normal(size=6)
            new = rng.uniform() < 0.05 / 1.05
            if new:
                c, s = np.cos(angle := rng.uniform(0, 2 * np.pi)), np.sin(angle)
                R = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
                x = np.concatenate([R @ x[:3], R @ x[3:] * (1 + 1e-3 * rng.normal())])
            z = x + np.sqrt(np.diag(P)) * rng.normal(size=6)
            clock = time.perf_counter()
            who = known.correlate(z, P, t_ns)
            spent.append(time.perf_counter() - clock)
            said += [*who.probability.tolist(), who.none]
            right += [*(not new and one == row for one in who.rows.tolist()), new]
            best = who.best()
            if best is not None and best[1] >= 0.95:
                named += 1
                wrong += new or best[0] != row
        p, ok = np.array(said), np.array(right, float)
        bins = []
        for low, high in ((0.05, 0.5), (0.5, 0.8), (0.8, 0.97), (0.97, 1.01)):
            here = (p >= low) & (p < high)
            if here.any():
                bins.append(f"{p[here].mean():.2f} -> {ok[here].mean():.2f} ({here.sum()})")
        print(
            f"correlation, track sigma {sigma_m / 1e3:g} km: said -> right (cases): {'; '.join(bins)};"
            f" {named} named, {wrong} wrongly; {1e3 * np.median(spent):.1f} ms each over {len(known)} objects"
        )


def main() -> None:
    """Print all figures."""
    configured = os.environ.get("FUSIONNODE_DATA")
    data = Path(configured) if configured else Path(__file__).resolve().parents[3] / "shared" / "data"
    orientation = EarthOrientation()
    real_arcs(data, orientation)
    geostationary(data, orientation)
    correlation(data, orientation)


if __name__ == "__main__":
    main()
