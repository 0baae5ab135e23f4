"""Noise that wanders, and noise that is not what the configuration says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scene import NS, FixedPole, circular, ephemeris, measure, station

from fusionnode.config import ConfigError, parse
from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import StructArray
from fusionnode.track.tracker import Tracker

TIMES = np.arange(0.0, 240.0)
START_NS = 1_764_000_000 * NS
SIGMA = (20.0, 1e-5, 0.5)
WANDER_RAD, WANDER_S = 2e-4, 8.0
WANDERS = f"lat_wander_deg = {np.degrees(WANDER_RAD)}\nlon_wander_deg = {np.degrees(WANDER_RAD)}\n"
STATES = ephemeris(circular(700e3, 30.0, -8.0), TIMES)


def wandering(seed: int) -> StructArray:
    """White noise of SIGMA, and angles that wander on top of it (first-order Gauss-Markov)."""
    rng = np.random.default_rng(seed)
    m = measure(STATES, TIMES, rng, sigma=SIGMA, start_ns=START_NS)
    f = np.exp(-1.0 / WANDER_S)
    off = rng.normal(size=2) * WANDER_RAD
    for row in m:
        u = row["los"] + off[0] * row["e_lon"] + off[1] * row["e_lat"]
        u /= np.linalg.norm(u)
        east = np.cross([0.0, 0.0, 1.0], u)
        east /= np.linalg.norm(east)
        row["los"], row["e_lon"], row["e_lat"] = u, east, np.cross(u, east)
        off = f * off + np.sqrt(1.0 - f * f) * WANDER_RAD * rng.normal(size=2)
    m["var"][:, 1:3] += WANDER_RAD**2  # as the measurer makes it
    return m


def nees_and_nis(sensor: str, seeds: int) -> tuple[float, float]:
    """At the end of the pass, mean over seeds; median NIS per degree of freedom over its second half."""
    config = station("accel_noise_psd_m2_s3 = 1e-9", "")
    if sensor:
        radar = config.sensor["radar"].model_copy(
            update={"lon_wander_deg": np.degrees(WANDER_RAD), "lat_wander_deg": np.degrees(WANDER_RAD),
                    "wander_s": WANDER_S}
        )  # fmt: skip
        config = config.model_copy(update={"sensor": {**config.sensor, "radar": radar}})
    nees, nis = [], []
    for seed in range(seeds):
        tracker = Tracker(config, FixedPole(), Outcomes())
        m = wandering(seed)
        for i in range(len(m)):
            if i > len(m) // 2:
                nis += [s.nis / s.dof for s in tracker.look(m[i : i + 1], tracker.slots())]
            tracker.process(m[i : i + 1])
        (slot,) = tracker.slots()
        d = tracker.picture.x[slot] - STATES[-1]
        nees.append(float(d @ np.linalg.solve(tracker.picture.P[slot].reshape(6, 6), d)))
    return float(np.mean(nees)), float(np.mean(nis))


def test_a_filter_that_is_told_of_the_wander_is_as_sure_as_it_may_be() -> None:
    told, nis = nees_and_nis("told", 12)
    untold, _ = nees_and_nis("", 12)
    assert 3.0 < told < 10.0
    assert untold > 2.0 * told
    assert 0.7 < nis < 1.3


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_factors_on_the_noise_follow_the_innovations(factor: float) -> None:
    config = station("accel_noise_psd_m2_s3 = 1e-6\nnoise_memory = 40", "")
    tracker = Tracker(config, FixedPole(), Outcomes())
    real = (20.0 * factor, 1e-4 * factor, 0.5 * factor)
    m = measure(STATES, TIMES, np.random.default_rng(3), sigma=real, start_ns=START_NS)
    m["var"] = [20.0**2, 1e-8, 1e-8, 0.5**2]
    tracker.process(m)
    (slot,) = tracker.slots()
    k = int(np.flatnonzero(tracker.picture.heard[slot] == 0)[0])
    found = np.exp(0.5 * tracker.picture.log_noise[slot, k])
    assert found == pytest.approx(np.full(4, factor), rel=0.5)


def test_the_plain_engine_is_refused_what_it_cannot_do() -> None:
    text = '[node]\nid = "a"\n[site.a]\nlat_deg = 0.0\nlon_deg = 0.0\n[sensor.a]\nid = 1\nkind = "radar"\nsite = "a"\n'
    parse(text + WANDERS, Path("a.toml"))
    with pytest.raises(ConfigError, match="wander"):
        parse(text + WANDERS + '[tracking]\nengine = "filterpy"\ndynamics = "zonal"\n', Path("a.toml"))
