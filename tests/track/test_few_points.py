"""Radar tracks from one detection, or two."""

from __future__ import annotations

import numpy as np
import pytest
from scene import GRAVITY, NS, FixedPole, circular, ephemeris, measure, site, station

from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import Channel, Status, StructArray
from fusionnode.track.initiation.initiate import from_one, from_two
from fusionnode.track.lanes import workspace
from fusionnode.track.tracker import Tracker

OVERHEAD = circular(800e3, 60.0, -3.0)
ECCENTRIC = OVERHEAD * np.array([1, 1, 1, 1.12, 1.12, 1.12])


def seen(x0: np.ndarray, times_s: np.ndarray, seed: int, channels: int = 7) -> StructArray:
    return measure(ephemeris(x0, times_s), times_s, np.random.default_rng(seed), channels=channels)


def distance2(x: np.ndarray, P: np.ndarray, truth: np.ndarray) -> float:
    return float((x - truth) @ np.linalg.solve(P.reshape(6, 6), x - truth))


@pytest.mark.parametrize("channels", [int(Channel.RANGE | Channel.ANGLES), 7])
def test_one_detection_gives_a_wide_covariance_that_contains_the_orbit(channels: int) -> None:
    rng = np.random.default_rng(1)
    d2 = []
    for seed in range(60):
        x0 = circular(rng.uniform(400e3, 1_500e3), rng.uniform(0, 110), rng.uniform(-6, 6))
        if np.linalg.norm(x0[:3] - site(0.0)[0]) > 3e6:
            continue
        (m,) = seen(x0, np.array([0.0]), seed, channels)
        found = from_one(m)
        assert found is not None
        P = found[1].reshape(6, 6)
        assert np.linalg.eigvalsh(P / np.outer(*[[1e3] * 3 + [1e3] * 3] * 2)).min() > 0
        assert np.sqrt(np.trace(P[3:, 3:])) > 3e3
        d2.append(distance2(*found, x0))
    assert 3.0 < np.mean(d2) < 8.0
    assert max(d2) < 25.0


@pytest.mark.parametrize(("apart_s", "channels"), [(2.0, 7), (10.0, 7), (10.0, 3), (60.0, 3)])
def test_two_detections_give_an_orbit_that_is_as_good_as_it_says(apart_s: float, channels: int) -> None:
    W = workspace()
    d2 = []
    for seed in range(60):
        x0 = OVERHEAD if seed % 2 else ECCENTRIC
        times = np.array([0.0, apart_s])
        found = from_two(seen(x0, times, seed, channels), W, GRAVITY)
        if found is not None:
            d2.append(distance2(*found, ephemeris(x0, times)[-1]))
    assert len(d2) > 45
    assert 4.0 < np.mean(d2) < 8.0


@pytest.mark.parametrize("points", [1, 2])
def test_tracks_begin_from_so_few_and_are_as_good_as_they_say(points: int) -> None:
    times = np.arange(0.0, 40.0)
    more = "initiation_max_velocity_sigma_m_s = 3000.0"
    d2 = []
    for seed in range(6):
        outcomes = Outcomes()
        tracker = Tracker(station(f"initiation_points = {points}\n{more}"), FixedPole(), outcomes)
        measurements = seen(OVERHEAD, times, seed)
        tracker.process(measurements[:points])
        assert tracker.begun == 1
        tracker.process(measurements[points:])
        (slot,) = tracker.slots()
        p = tracker.picture
        assert tracker.begun == 1
        assert p.status[slot] == Status.CONFIRMED
        assert outcomes.of("radar") == {"used": len(times) - points, "used_initiation": points}
        truth = ephemeris(OVERHEAD, np.array([p.epoch[slot] / NS]))[0]
        assert np.linalg.norm(p.x[slot, :3] - truth[:3]) < 100.0
        d2.append(distance2(p.x[slot], p.P[slot], truth))
    assert np.mean(d2) < 12.0
