"""Biases of made-up radars from days of passes: right within their sigmas, which are no larger than they must be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sensor_scene import PLACES, START_NS, Radar, arc_of, orbit, orbits

from fusionnode.core.types import MEASUREMENT
from fusionnode.track.calibration.arcs import Points
from fusionnode.track.calibration.bias import BiasEstimator, Limits
from fusionnode.track.calibration.correct import corrected, uncorrected
from fusionnode.track.calibration.orbit import Orbit
from fusionnode.track.filtering.sensing import COLUMNS

ASSUMED = np.array([15.0, 3e-4, 3e-4])
PRIOR = np.array([300.0, 2e-3, 2e-3, 3e-3])
ORBIT = orbit()


def estimator(sensors: int = 3, memory_days: float = 60.0) -> BiasEstimator:
    spread = np.tile(ASSUMED, (sensors, 1))
    inertial = np.zeros(sensors, np.bool_)
    return BiasEstimator(
        Limits(np.tile(PRIOR, (sensors, 1)), spread, spread / 2, inertial, memory_days, 1e-9)
    )


def learn(
    found: BiasEstimator, points: Points, x0: np.ndarray, rng: np.random.Generator, flow: Orbit = ORBIT
) -> None:
    """From an orbit that is some hundred metres off."""
    first = int(points.t[0])
    near = flow.flow(x0, START_NS, np.array([first]), 0.0).x[0]
    assert found.add(points, near + rng.normal(size=6) * [300, 300, 300, 0.1, 0.1, 0.1], first, flow.flow)


def world(rng: np.random.Generator) -> list[Radar]:
    return [Radar(*place, bias=tuple(rng.normal(size=4) * [60.0, 3e-4, 3e-4, 3e-3])) for place in PLACES]


def truth(radars: list[Radar]) -> np.ndarray:
    return np.array([r.bias for r in radars])


def test_biases_are_found_and_their_sigmas_are_honest() -> None:
    nees, errors = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        radars = world(rng)
        found = estimator()
        for x0 in orbits(4, rng):
            learn(found, arc_of(radars, x0, 1.0, ORBIT, rng), x0, rng)
        value, covariance = found.joint()
        gap = value - truth(radars).reshape(-1)
        nees.append(float(gap @ np.linalg.solve(covariance * found.disagreement, gap)))
        _, sigma = found.estimate()
        errors.append((gap.reshape(-1, 4) / sigma)[:, :3])
        assert (sigma[:, 0] < 6.0).all()
        assert (sigma[:, 1:3] < 1.5e-4).all()
    # 12 degrees of freedom, four times: the mean is between 7 and 18 with 98 %
    assert 5.0 < np.mean(nees) < 18.0
    assert 0.5 < np.sqrt(np.mean(np.square(errors))) < 1.3


def test_a_time_bias_that_all_share_cannot_be_seen_and_keeps_its_prior() -> None:
    rng = np.random.default_rng(3)
    radars = [Radar(*place, bias=(0.0, 0.0, 0.0, 2e-3)) for place in PLACES]
    found = estimator()
    for x0 in orbits(3, rng):
        learn(found, arc_of(radars, x0, 1.0, ORBIT, rng), x0, rng)
    _, covariance = found.joint()
    times = np.arange(3, 12, 4)
    together = np.full(3, 1.0 / np.sqrt(3.0))
    assert together @ covariance[np.ix_(times, times)] @ together > 0.95 * PRIOR[3] ** 2
    apart = np.array([1.0, -1.0, 0.0]) / np.sqrt(2.0)
    assert apart @ covariance[np.ix_(times, times)] @ apart < 0.3 * PRIOR[3] ** 2


def test_an_orbit_known_from_outside_shows_it() -> None:
    rng = np.random.default_rng(3)
    radars = [Radar(*place, bias=(0.0, 0.0, 0.0, 2e-3)) for place in PLACES]
    found = estimator()
    for x0 in orbits(3, rng):
        points = arc_of(radars, x0, 1.0, ORBIT, rng)
        first = int(points.t[0])
        x = ORBIT.flow(x0, START_NS, np.array([first]), 0.0).x[0]
        known = x, np.diag([1.0, 1.0, 1.0, 1e-6, 1e-6, 1e-6])
        assert found.add(points, x, first, ORBIT.flow, known)
    value, sigma = found.estimate()
    assert (sigma[:, 3] < 0.7e-3).all()
    assert (np.abs(value[:, 3] - 2e-3) < 3.5 * sigma[:, 3]).all()


def test_a_pass_of_another_object_and_moments_of_lost_lock_do_not_pull_it() -> None:
    rng = np.random.default_rng(8)
    radars = world(rng)
    found = estimator()
    range_at = COLUMNS - 8
    for x0 in orbits(4, rng):
        points = arc_of(radars, x0, 1.0, ORBIT, rng)
        z = points.z.copy()
        z[points.passage == 2, range_at] += 5_000.0
        for passage in range(int(points.passage[-1]) + 1):
            rows = np.flatnonzero(points.passage == passage)
            z[rows[len(rows) // 2 : len(rows) // 2 + 4], range_at] += 900.0
        learn(found, points._replace(z=z), x0, rng)
    value, sigma = found.estimate()
    assert (np.abs(value - truth(radars)) < 3.5 * sigma)[:, :3].all()
    assert (sigma[:, 0] < 15.0).all()


def test_what_is_not_renewed_is_forgotten() -> None:
    rng = np.random.default_rng(4)
    radars = world(rng)
    found = estimator(memory_days=10.0)
    x0 = orbits(1, rng)[0]
    learn(found, arc_of(radars, x0, 1.0, ORBIT, rng), x0, rng)
    before = found.estimate()[1].copy()
    found.forget(found.t_ns + 30 * 86_400_000_000_000)
    after = found.estimate()[1]
    assert (after[:, :3] > 2.0 * before[:, :3]).all()
    assert (after <= PRIOR + 1e-12).all()


def test_an_arc_of_nonsense_is_counted_and_changes_nothing() -> None:
    rng = np.random.default_rng(6)
    radars = world(rng)
    x0 = orbits(1, rng)[0]
    points = arc_of(radars, x0, 0.5, ORBIT, rng)
    z = points.z.copy()
    z[:, COLUMNS - 8] = np.nan
    found = estimator()
    assert found.add(points._replace(z=z), np.full(6, np.nan), int(points.t[0]), ORBIT.flow) is None
    assert found.failed == 1
    assert not found.information.any()


def test_what_was_learnt_outlives_a_run_with_sensors_in_another_order() -> None:
    rng = np.random.default_rng(7)
    radars = world(rng)
    found = estimator()
    x0 = orbits(1, rng)[0]
    learn(found, arc_of(radars, x0, 1.0, ORBIT, rng), x0, rng)
    state = json.loads(json.dumps(found.export_state()))
    other = estimator(4)
    other.import_state(state, [3, 0, 1], [0, 1, 2], 3)
    for new, old in ((3, 0), (0, 1), (1, 2)):
        assert np.allclose(other.estimate()[0][new], found.estimate()[0][old], rtol=1e-9)
        assert np.allclose(other.estimate()[1][new], found.estimate()[1][old], rtol=1e-6)
    assert np.allclose(other.estimate()[1][2], PRIOR)


@pytest.mark.parametrize("inertial", [False, True])
def test_corrections_take_out_what_is_there_and_can_be_undone(inertial: bool) -> None:
    rng = np.random.default_rng(9)
    radar = Radar(*PLACES[0], bias=(80.0, 2e-4, -3e-4, 2e-3), between=(0.0,) * 3, within=(0.0,) * 3)
    x0 = orbits(1, rng)[0]
    points = arc_of([radar], x0, 1.0, ORBIT, rng)
    rows = np.ascontiguousarray(points.z).view(MEASUREMENT).reshape(-1)
    bias = np.array([radar.bias])
    out = corrected(rows, bias, np.array([[1.0, 2.0, 1.0, 1.0]]), np.array([inertial]))
    assert np.allclose(out["var"], rows["var"] * [1.0, 4.0, 1.0, 1.0])
    for name in ("los", "e_lon", "e_lat"):
        assert np.allclose(np.linalg.norm(out[name], axis=1), 1.0, atol=1e-12)
    assert np.abs(np.einsum("ni,ni->n", out["los"], out["e_lon"])).max() < 1e-12
    assert np.abs(np.einsum("ni,ni->n", out["los"], out["e_lat"])).max() < 1e-12
    back, t = uncorrected(
        out.view(np.float64).reshape(len(out), COLUMNS)[0], int(out["t_meas_ns"][0]), bias[0], inertial
    )
    assert t == rows["t_meas_ns"][0]
    assert np.allclose(back.view(MEASUREMENT)["los"], rows["los"][0], atol=1e-7)
    if not inertial:
        x = ORBIT.flow(x0, START_NS, out["t_meas_ns"].astype(np.int64), 0.0).x
        d = x[:, :3] - out["site_r"]
        rho = np.linalg.norm(d, axis=1)
        assert np.abs(out["range_m"] - rho).max() < 0.5  # steps of another length, a day long
        assert np.abs(out["los"] - d / rho[:, None]).max() < 1e-6
