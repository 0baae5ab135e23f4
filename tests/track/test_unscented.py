"""The unscented filter against filterpy's, and through the tracker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from filterpy.kalman import MerweScaledSigmaPoints, UnscentedKalmanFilter
from scene import GRAVITY, NS, FixedPole, circular, ephemeris, measure, station
from test_definite import OPEN, one_track, sound
from test_kernels import RULES, random_tracks

from fusionnode.config import ConfigError
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import MEASUREMENT, Channel, Status
from fusionnode.track.association import associate
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.filtering.engine_filterpy import noise, observe, step
from fusionnode.track.filtering.engine_variants import UnscentedEngine, make_engine
from fusionnode.track.filtering.unscented import ALPHA, BETA, KAPPA
from fusionnode.track.motion.dynamics import step_length
from fusionnode.track.tracker import Tracker

OVERHEAD = circular(800e3, 60.0, -3.0)


def carried(x: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """A state taken ahead by the filterpy engine's own steps, and the process noise gathered on the way."""
    Q = np.zeros((6, 6))
    while dt != 0.0:
        n = int(np.ceil(abs(dt) / step_length(*x[:3])))
        h = dt / n if n > 1 else dt
        x, phi = step(x, h, GRAVITY.zonal)
        Q = phi @ Q @ phi.T + noise(h, RULES.psd)
        dt = dt - h if n > 1 else 0.0
    return x, Q


def filterpys(x: np.ndarray, P: np.ndarray, dt: float, m: Any, used: list[int]) -> UnscentedKalmanFilter:
    """filterpy's unscented filter, predicted and updated."""
    kf = UnscentedKalmanFilter(
        dim_x=6,
        dim_z=len(used),
        dt=dt,
        fx=lambda state, dt: carried(state, dt)[0],
        hx=lambda state: observe(state, m)[0][used],
        points=MerweScaledSigmaPoints(6, ALPHA, BETA, KAPPA),
    )
    kf.x, kf.P, kf.Q, kf.R = x.copy(), P.copy(), carried(x, dt)[1], np.diag(m["var"][used])
    kf.predict()
    kf.update(np.array([m["range_m"], 0.0, 0.0, m["range_rate_m_s"]])[used])
    return kf


def test_our_unscented_filter_and_filterpys_agree() -> None:
    n = 20
    tracks, ms = random_tracks(n, 21)
    rules = RULES._replace(gates=np.full(5, np.inf))
    room = associate.make_room(n, n)
    room.slots[:], room.rows[:] = np.arange(n), np.arange(n)
    UnscentedEngine().try_pairs(tracks, ms, n, rules, room)
    records = ms.z.view(MEASUREMENT).reshape(-1)
    for i in range(n):
        used = [0] * bool(ms.channels[i] & 1) + [1, 2] + [3] * bool(ms.channels[i] & 4)
        kf = filterpys(
            tracks.x[i],
            tracks.P[i].reshape(6, 6),
            (ms.t[i] - tracks.epoch[i]) * 1e-9,
            records[i],
            used,
        )
        sigma = np.sqrt(np.diag(kf.P))
        np.testing.assert_allclose((room.trials.x[i] - kf.x) / sigma, 0.0, atol=1e-4)
        scaled = (room.trials.P[i].reshape(6, 6) - kf.P) / np.outer(sigma, sigma)
        np.testing.assert_allclose(scaled, 0.0, atol=1e-4)
        np.testing.assert_allclose(room.trials.nis[i], kf.y @ kf.SI @ kf.y, rtol=1e-4)
        np.testing.assert_allclose(room.trials.det[i], np.linalg.det(kf.S), rtol=1e-4)


def test_where_all_is_nearly_straight_both_filters_agree() -> None:
    n = 12
    rooms = []
    for engine in (NumbaEngine(), UnscentedEngine()):
        tracks, ms = random_tracks(n, 22)
        room = associate.make_room(n, n)
        room.slots[:], room.rows[:] = np.arange(n), np.arange(n)
        engine.try_pairs(tracks, ms, n, RULES, room)
        rooms.append(room.trials)
    np.testing.assert_array_equal(rooms[0].used, rooms[1].used)
    sigma = np.sqrt(rooms[0].P[:, ::7])
    np.testing.assert_allclose((rooms[0].x - rooms[1].x) / sigma, 0.0, atol=0.2)
    np.testing.assert_allclose(rooms[0].P[:, ::7] / rooms[1].P[:, ::7], 1.0, rtol=0.05)


def test_an_unscented_trial_does_not_depend_on_its_company() -> None:
    n = 11
    tracks, ms = random_tracks(n, 23)
    together, alone = associate.make_room(n, n), associate.make_room(n, n)
    together.slots[:], together.rows[:] = np.arange(n), np.arange(n)
    UnscentedEngine().try_pairs(tracks, ms, n, RULES, together)
    for slot in (10, 0, 7):
        alone.slots[0] = alone.rows[0] = slot
        UnscentedEngine().try_pairs(tracks, ms, 1, RULES, alone)
        for one, all_ in zip(alone.trials, together.trials, strict=True):
            assert one[0].tobytes() == all_[slot].tobytes()


@pytest.mark.parametrize("rubbish", [np.full((6, 6), np.nan), -np.eye(6), np.zeros((6, 6))])
def test_what_is_no_covariance_is_refused_here_too(rubbish: np.ndarray) -> None:
    tracks, ms, room = one_track(rubbish, 3)
    engine = UnscentedEngine()
    engine.try_pairs(tracks, ms, 1, OPEN, room)
    assert room.trials.nis[0] == np.inf
    assert engine.mended()["refused"] == 1


def test_extreme_sigmas_give_sound_covariances_or_none() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        Q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
        P = Q @ np.diag(10.0 ** rng.uniform(-10, 10, 6)) @ Q.T
        tracks, ms, room = one_track(0.5 * (P + P.T), 5)
        ms.z[0, 21:25] = 10.0 ** rng.uniform(-12, 18, 4)
        ms.t[0] = round(rng.uniform(0, 300) * NS)
        UnscentedEngine().try_pairs(tracks, ms, 1, OPEN, room)
        if room.trials.nis[0] < np.inf:
            assert sound(room.trials.P[0])
        UnscentedEngine().predict(tracks, np.array([0]), ms.t[0], RULES)
        assert sound(tracks.P[0])


@pytest.mark.parametrize("sigma", [(20.0, 1e-4, 0.5), (20.0, 4e-3, 0.5)])
def test_the_unscented_filter_runs_the_whole_tracker(sigma: tuple[float, float, float]) -> None:
    """Sharp angles; and a quarter of a degree, where the sphere of equal range bends away from its tangent."""
    nees = []
    config = station('filter = "ukf"\ninitiation_window_s = 60.0')
    times = np.arange(0.0, 120.0)
    for seed in range(6):
        outcomes = Outcomes()
        tracker = Tracker(config, FixedPole(), outcomes, engine=make_engine(config.tracking))
        tracker.process(measure(ephemeris(OVERHEAD, times), times, np.random.default_rng(seed), sigma=sigma))
        tracker.advance(200 * NS)
        states = np.concatenate([e for e in tracker.take() if isinstance(e, np.ndarray)])
        assert set(states["track"]) == {1}
        assert states["status"][-1] == Status.COASTING
        assert outcomes.get("radar", Outcome.USED) > 80
        for state in states[60::20]:
            error = state["x"] - ephemeris(OVERHEAD, np.array([state["epoch_ns"] / NS]))[0]
            nees.append(float(error @ np.linalg.solve(state["P"], error)))
    assert 2.0 < np.median(nees) < 12.6


def test_filterpys_engine_has_no_unscented_filter() -> None:
    with pytest.raises(ConfigError, match="filterpy"):
        station('filter = "ukf"\nengine = "filterpy"')


def test_channels_left_out_are_left_out_here_too() -> None:
    tracks, ms, room = one_track(np.diag([1e4] * 3 + [1.0] * 3), 6)
    ms.z[0, 4 + 15] += 5_000.0
    UnscentedEngine().try_pairs(tracks, ms, 1, RULES, room)
    assert room.trials.used[0] == int(Channel.ANGLES | Channel.RANGE_RATE)
    assert room.trials.nis[0] <= RULES.gates[3]
