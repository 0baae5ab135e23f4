"""Interacting multiple models: against filterpy's on a straight line, and against a burn."""

from __future__ import annotations

import numpy as np
import pytest
from filterpy.kalman import IMMEstimator, KalmanFilter
from scene import NS, FixedPole, circular, ephemeris, measure, station
from test_definite import sound
from test_kernels import RULES, random_tracks

from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import StructArray, Tombstone
from fusionnode.track import picture
from fusionnode.track.association import associate
from fusionnode.track.filtering import modes
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.filtering.engine_filterpy import noise
from fusionnode.track.filtering.engine_variants import ModesEngine
from fusionnode.track.tracker import Tracker

SWITCH = np.array([[0.97, 0.03], [0.05, 0.95]])


def linear_filters(psd: tuple[float, float], x: np.ndarray, P: np.ndarray) -> list[KalmanFilter]:
    filters = []
    for q in psd:
        kf = KalmanFilter(dim_x=6, dim_z=3)
        kf.x, kf.P = x.copy(), P.copy()
        kf.F = np.eye(6) + np.eye(6, k=3)
        kf.H = np.eye(3, 6)
        kf.R = np.eye(3) * 25.0
        kf.Q = noise(1.0, q)
        filters.append(kf)
    return filters


def test_mixing_and_weighing_are_those_of_filterpy_on_a_linear_problem() -> None:
    rng = np.random.default_rng(1)
    psd = (1e-3, 1.0)
    truth = np.zeros(6)
    P = np.diag([100.0] * 3 + [4.0] * 3)
    start = rng.normal(size=6)
    theirs = IMMEstimator(linear_filters(psd, start, P), np.array([0.9, 0.1]), SWITCH)
    ours = linear_filters(psd, start, P)
    mu, xs, Ps = np.array([0.9, 0.1]), np.tile(start, (2, 1)), np.tile(P.reshape(36), (2, 1))
    ahead, x0, P0 = np.empty(2), np.empty((2, 6)), np.empty((2, 36))
    x, covariance = np.empty(6), np.empty(36)
    for k in range(60):
        if 25 <= k < 35:
            truth[3:] += 3.0
        truth[:3] += truth[3:]
        z = truth[:3] + 5.0 * rng.normal(size=3)
        theirs.predict()
        theirs.update(z)
        modes.mix(mu, SWITCH, xs, Ps, ahead, x0, P0)
        nis, det = np.empty(2), np.empty(2)
        for j, kf in enumerate(ours):
            kf.x, kf.P = x0[j].copy(), P0[j].reshape(6, 6).copy()
            kf.predict()
            kf.update(z)
            nis[j], det[j] = float(kf.y @ kf.SI @ kf.y), float(np.linalg.det(kf.S))
            xs[j], Ps[j] = kf.x, kf.P.reshape(36)
        mu = mu.copy()
        modes.weigh(ahead, nis, det, 3, mu)
        modes.combine(mu, xs, Ps, x, covariance)
        np.testing.assert_allclose(mu, theirs.mu, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(x, theirs.x, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(covariance.reshape(6, 6), theirs.P, rtol=1e-7, atol=1e-9)
    assert theirs.mu[0] > 0.5


def test_the_chain_forgets_where_it_began() -> None:
    sojourn = np.array([1_000.0, 50.0])
    one, two, both = np.empty((2, 2)), np.empty((2, 2)), np.empty((2, 2))
    modes.transition(30.0, 30.0, sojourn, one)
    modes.transition(70.0, 70.0, sojourn, two)
    modes.transition(100.0, 100.0, sojourn, both)
    np.testing.assert_allclose(one @ two, both, rtol=1e-12)
    np.testing.assert_allclose(both.sum(axis=1), 1.0)
    modes.transition(1e9, 1e9, sojourn, both)
    np.testing.assert_allclose(both, np.tile([1_000.0 / 1_050.0, 50.0 / 1_050.0], (2, 1)), rtol=1e-12)


def test_a_long_gap_is_not_a_long_burn() -> None:
    assert modes.effective_psd(1.0, 1e-6, 1.0, 120.0) == pytest.approx(1.0, rel=0.01)
    assert modes.effective_psd(43_200.0, 1e-6, 1.0, 120.0) * 43_200.0 == pytest.approx(120.0, rel=0.01)


def test_with_both_modes_alike_it_is_the_single_filter() -> None:
    n = 16
    tracks, ms = random_tracks(n, 31)
    room = associate.make_room(n, n)
    room.slots[:], room.rows[:] = np.arange(n), np.arange(n)
    NumbaEngine().try_pairs(tracks, ms, n, RULES, room)
    wide = picture.make_picture(n, modes.BESIDE)
    for to, from_ in zip(wide, tracks, strict=True):
        if to.shape == from_.shape:
            to[:] = from_
    twice = associate.make_room(n, n, modes.BESIDE)
    twice.slots[:], twice.rows[:] = np.arange(n), np.arange(n)
    ModesEngine().try_pairs(wide, ms, n, RULES._replace(manoeuvre_psd=RULES.psd), twice)
    np.testing.assert_array_equal(room.trials.used, twice.trials.used)
    np.testing.assert_allclose(room.trials.nis, twice.trials.nis, rtol=1e-9)
    np.testing.assert_allclose(room.trials.det, twice.trials.det, rtol=1e-9)
    np.testing.assert_allclose(room.trials.x, twice.trials.x, rtol=1e-12)
    np.testing.assert_allclose(room.trials.P, twice.trials.P, rtol=1e-6, atol=1e-9)


def burning(accel_m_s2: float, start_s: int, end_s: int, until_s: int) -> tuple[np.ndarray, np.ndarray]:
    """Times, and states of OVERHEAD that is pushed along its velocity for a while."""
    times = np.arange(0.0, until_s)
    out = [circular(800e3, 60.0, -3.0)]
    for t in times[1:]:
        x = ephemeris(out[-1], np.array([1.0]))[0]
        if start_s <= t < end_s:
            u = x[3:] / np.linalg.norm(x[3:])
            x[:3] += 0.5 * accel_m_s2 * u
            x[3:] += accel_m_s2 * u
        out.append(x)
    return times, np.array(out)


def run(tracking: str, records: StructArray) -> tuple[Tracker, StructArray, list[Tombstone]]:
    tracker = Tracker(station(tracking), FixedPole(), Outcomes())
    tracker.process(records)
    events = tracker.take()
    states = np.concatenate([e for e in events if isinstance(e, np.ndarray)])
    return tracker, states, [e for e in events if isinstance(e, Tombstone)]


@pytest.mark.parametrize("accel_m_s2", [0.2, 1.0])
def test_two_modes_follow_a_burn_that_one_lags_behind(accel_m_s2: float) -> None:
    times, truth = burning(accel_m_s2, 60, 100, 150)
    nees: dict[str, list[float]] = {"single": [], "imm": []}
    for seed in range(4):
        records = measure(truth, times, np.random.default_rng(seed))
        for name, middle in nees.items():
            _, states, gone = run(f'modes = "{name}"', records)
            assert not gone
            at = states["epoch_ns"] // NS
            error = states["x"] - truth[at]
            of_all = np.einsum("ni,ni->n", error, np.linalg.solve(states["P"], error[:, :, None])[:, :, 0])
            middle.append(float(np.median(of_all[(at >= 75) & (at < 100)])))
            if name == "imm":
                assert set(states["track"]) == {1}
                assert np.count_nonzero((at >= 62) & (at < 100)) >= 30  # it is updated all the while
                assert of_all[at >= 140].max() < 33.0  # six degrees, 1 in 100,000
                assert all(sound(state["P"].reshape(36)) for state in states)
    assert np.median(nees["imm"]) < 25.0
    assert np.median(nees["single"]) > 4.0 * np.median(nees["imm"])


def test_the_probability_of_a_manoeuvre_rises_with_the_burn_and_falls_after_it() -> None:
    times, truth = burning(0.5, 60, 100, 200)
    records = measure(truth, times, np.random.default_rng(9))
    tracker = Tracker(station('modes = "imm"'), FixedPole(), Outcomes())
    probability = np.zeros(len(times))
    for k in range(len(times)):
        tracker.process(records[k : k + 1])
        if len(tracker.slots()):
            probability[k] = modes.manoeuvre_probability(tracker.picture.beside)[0]
    assert probability[20:60].max() < 0.1
    assert probability[65:100].max() > 0.9
    assert probability[190:].max() < 0.2


def test_a_quiet_object_is_held_as_well_as_by_one_mode() -> None:
    times, truth = burning(0.0, 0, 0, 120)
    nees = []
    for seed in range(10):
        _, states, _ = run('modes = "imm"', measure(truth, times, np.random.default_rng(50 + seed)))
        error = states["x"][-1] - truth[-1]
        nees.append(float(error @ np.linalg.solve(states["P"][-1], error)))
        assert 2.5 < states["nis"][20:].mean() < 4.5
    assert 3.0 < np.mean(nees) < 9.5


def test_a_coast_in_two_modes_stays_sound_and_grows_slowly() -> None:
    times, truth = burning(0.0, 0, 0, 120)
    sigma = {}
    for name in ("single", "imm"):
        tracker, _, _ = run(f'modes = "{name}"', measure(truth, times, np.random.default_rng(3)))
        tracker.advance(4_000 * NS)
        states = np.concatenate([e for e in tracker.take() if isinstance(e, np.ndarray)])
        assert all(sound(state["P"].reshape(36)) for state in states[::50])
        sigma[name] = float(np.sqrt(np.trace(states["P"][-1, :3, :3])))
    assert sigma["single"] < sigma["imm"] < 1.5 * sigma["single"]
