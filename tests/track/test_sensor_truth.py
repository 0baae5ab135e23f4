"""Noise and trust through the whole tracker: what it finds, what it does about it, and that the counts add up."""

from __future__ import annotations

import json

import numpy as np
from scene import NS, FixedPole, circular, ephemeris, in_order, measure, site, station

from fusionnode.config import Config
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import StructArray
from fusionnode.track.calibration.trust import Trust
from fusionnode.track.tracker import Tracker

SIGMAS = """
range_sigma_m = 20.0
lon_sigma_deg = 0.0057296
lat_sigma_deg = 0.0057296
range_rate_sigma_m_s = 0.5
"""
RADARS = "".join(f'[sensor.r{i}]\nid = {10 + i}\nkind = "radar"\nsite = "here"\n{SIGMAS}' for i in range(3))
FIRST = 3
"""The scene's station has three sensors of its own before these."""


def config() -> Config:
    return station("", RADARS)


def sky(radars: int, objects: int, seconds: int, rng: np.random.Generator) -> dict[int, StructArray]:
    """Measurements by radar: each sees every object above 10 degrees once a second."""
    parts: dict[int, list[StructArray]] = {r: [] for r in range(radars)}
    for k in range(objects):
        x0 = circular(
            rng.uniform(6e5, 1.2e6),
            rng.uniform(0, 60),
            rng.uniform(-6, 6) - 0.03 * seconds,
            rng.uniform(-3, 3),
        )
        for r in range(radars):
            t = np.arange(seconds) + 0.05 * k + 0.3 * r
            x = ephemeris(x0, t)
            place = np.array([site(at, 2.0 * r)[0] for at in t])
            d = x[:, :3] - place
            sine = np.einsum("ni,ni->n", d, place) / np.linalg.norm(d, axis=1) / np.linalg.norm(place, axis=1)
            seen = sine > np.sin(np.radians(10.0))
            parts[r].append(measure(x[seen], t[seen], rng, sensor=FIRST + r, lon_deg=2.0 * r))
    return {r: in_order(*p) for r, p in parts.items()}


def run(measurements: StructArray, cut_s: float = 30.0) -> tuple[Tracker, Outcomes]:
    outcomes = Outcomes()
    tracker = Tracker(config(), FixedPole(), outcomes)
    t = measurements["t_meas_ns"]
    for start in np.arange(0, int(t[-1]) + 1, int(cut_s * NS)).tolist():
        tracker.process(measurements[(t >= start) & (t < start + cut_s * NS)])
    return tracker, outcomes


def test_a_radar_that_adds_two_kilometres_is_isolated_and_the_others_are_not() -> None:
    rng = np.random.default_rng(1)
    by_radar = sky(3, 6, 500, rng)
    lies = by_radar[2]["t_meas_ns"] > 200 * NS
    by_radar[2]["range_m"][lies] += 2_000.0
    measurements = in_order(*by_radar.values())
    tracker, outcomes = run(measurements)
    states = [tracker.truth.trust.state(FIRST + r) for r in range(3)]
    assert states == [Trust.OK, Trust.OK, Trust.ISOLATED]
    aside = outcomes.get("r2", Outcome.SENSOR_ISOLATED)
    assert aside > 0.5 * np.count_nonzero(lies)
    tracker.finish()
    assert sum(outcomes.of("r2").values()) == len(by_radar[2])
    other, _ = run(measurements, 7.0)
    assert np.array_equal(other.picture.x, tracker.picture.x)
    state = json.loads(json.dumps(tracker.truth.export_state()))
    again = Tracker(config(), FixedPole(), Outcomes())
    again.truth.import_state(state)
    assert again.truth.trust.state(FIRST + 2) is Trust.ISOLATED
    assert again.truth.report(FIRST + 2)["trust"] == "isolated"


def test_noise_is_found_whatever_is_configured_and_a_healthy_lone_radar_is_trusted() -> None:
    rng = np.random.default_rng(2)
    measurements = sky(1, 5, 400, rng)[0]
    measurements["var"] *= [4.0, 9.0, 0.25, 1.0]
    tracker, _ = run(measurements)
    white = tracker.truth.noise.of(FIRST).white
    assert np.allclose(white, [1 / 2, 1 / 3, 2.0, 1.0], rtol=0.15)
    assert tracker.truth.trust.state(FIRST) is Trust.OK
