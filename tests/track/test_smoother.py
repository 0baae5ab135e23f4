"""States after the fact: against filterpy's smoother, and against truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from filterpy.kalman import KalmanFilter
from scene import GRAVITY, NS, FixedPole, circular, ephemeris, measure, station
from test_definite import sound

from fusionnode.cli.spool import Spool, cannot_smooth
from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import Status, StructArray
from fusionnode.track.filtering.engine_filterpy import noise
from fusionnode.track.filtering.smoother import smooth_backwards, smooth_measurements, smooth_states
from fusionnode.track.motion.dynamics import Dynamics
from fusionnode.track.tracker import Tracker

OVERHEAD = circular(800e3, 60.0, -3.0)
PSD = 3e-6


def held(_: int) -> Dynamics:
    return GRAVITY


def squared(error: np.ndarray, P: np.ndarray) -> np.ndarray:
    return np.einsum("ni,ni->n", error, np.linalg.solve(P, error[:, :, None])[:, :, 0])


def test_the_backward_pass_is_that_of_filterpy_on_a_linear_problem() -> None:
    rng = np.random.default_rng(1)
    kf = KalmanFilter(dim_x=6, dim_z=3)
    kf.F, kf.H = np.eye(6) + np.eye(6, k=3), np.eye(3, 6)
    kf.R, kf.Q, kf.P = np.eye(3) * 25.0, noise(1.0, 0.1), np.diag([100.0] * 3 + [4.0] * 3)
    x = np.zeros(6)
    seen = []
    for _ in range(80):
        x = kf.F @ x + rng.multivariate_normal(np.zeros(6), kf.Q)
        seen.append(x[:3] + 5.0 * rng.normal(size=3))
    kf.x = np.zeros((6, 1))
    xs, Ps, _, _ = kf.batch_filter(np.array(seen)[:, :, None])
    xs = xs[:, :, 0]
    want_x, want_P, _, _ = kf.rts_smoother(xs, Ps)
    n = len(xs)
    out_x, out_P = np.empty_like(xs), np.empty_like(Ps)
    smooth_backwards(
        xs, Ps, np.ones(n, np.bool_), np.tile(kf.F, (n, 1, 1)), np.tile(kf.Q, (n, 1, 1)),
        xs @ kf.F.T, out_x, out_P,
    )  # fmt: skip
    np.testing.assert_allclose(out_x, want_x, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(out_P, want_P, rtol=1e-7, atol=1e-8)


def test_what_is_smoothed_is_nearer_to_the_truth_and_as_good_as_it_says() -> None:
    """Two passes of a minute, ten minutes apart; true motion with the noise that the filter reckons with."""
    times = np.concatenate([np.arange(0.0, 60.0, 2.0), np.arange(660.0, 720.0, 2.0)])
    before, after, rms = [], [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        truth = [OVERHEAD]
        for dt in np.diff(times):
            x = truth[-1]
            h = dt / max(1, round(dt / 20.0))
            for _ in range(round(dt / h)):
                x = ephemeris(x, np.array([h]))[0] + rng.multivariate_normal(np.zeros(6), noise(h, PSD))
            truth.append(x)
        states = np.array(truth)
        records = measure(states, times, rng, lon_deg=20.0 if seed % 2 else 0.0)
        P = np.diag([500.0**2] * 3 + [5.0**2] * 3)
        start = OVERHEAD + rng.multivariate_normal(np.zeros(6), P)
        filtered, smoothed = smooth_measurements(records, start, P, 0, held, PSD)
        assert len(filtered) == len(times)
        for all_states, nees in ((filtered, before), (smoothed, after)):
            nees.append(squared(all_states["x"] - states, all_states["P"]))
        rms.append([np.sqrt(np.mean((s["x"][:, :3] - states[:, :3]) ** 2)) for s in (filtered, smoothed)])
        assert all(sound(s["P"].reshape(36)) for s in smoothed)
    assert 5.0 < np.mean(before) < 7.2
    assert 5.0 < np.mean(after) < 7.2
    assert np.median(np.array(rms)[:, 1] / np.array(rms)[:, 0]) < 0.6


def pass_with_a_coast() -> tuple[StructArray, Tracker]:
    times = np.concatenate([np.arange(0.0, 60.0), np.arange(300.0, 340.0)])
    records = measure(ephemeris(OVERHEAD, times), times, np.random.default_rng(4), lon_deg=8.0)
    tracker = Tracker(station(), FixedPole(), Outcomes())
    tracker.process(records)
    return np.concatenate([e for e in tracker.take() if isinstance(e, np.ndarray)]), tracker


def test_a_coast_is_smoothed_from_both_of_its_ends() -> None:
    states, _ = pass_with_a_coast()
    assert set(states["track"]) == {1}
    smoothed = smooth_states(states, held, PSD)
    coast = states["status"] == Status.COASTING
    assert coast.sum() > 10
    truth = ephemeris(OVERHEAD, states["epoch_ns"] / NS)
    sigma = [np.sqrt(np.trace(s["P"][coast][:, :3, :3], axis1=1, axis2=2)) for s in (states, smoothed)]
    assert (sigma[1] < 0.7 * sigma[0])[5:].all()
    errors = [np.linalg.norm(s["x"][coast, :3] - truth[coast, :3], axis=1) for s in (states, smoothed)]
    assert np.mean(errors[1]) < np.mean(errors[0])
    assert smoothed[-1]["x"].tobytes() == states[-1]["x"].tobytes()


def test_a_state_set_anew_ends_the_run_before_it() -> None:
    states, _ = pass_with_a_coast()
    k = int(np.flatnonzero(states["epoch_ns"] == 310 * NS)[0])
    states["nis"][k] = np.nan  # as a track that a new orbit took up again
    smoothed = smooth_states(states, held, PSD)
    assert smoothed[k - 1]["x"].tobytes() == states[k - 1]["x"].tobytes()
    alone = smooth_states(states[:k], held, PSD)
    assert smoothed[: k - 1]["P"].tobytes() == alone[:-1]["P"].tobytes()


def test_states_of_a_long_run_are_smoothed_in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    states, _ = pass_with_a_coast()
    whole = smooth_states(states, held, PSD)
    monkeypatch.setattr("fusionnode.track.filtering.smoother.BLOCK", 40)
    pieces = smooth_states(states, held, PSD)
    np.testing.assert_array_equal(pieces["x"], whole["x"])
    np.testing.assert_array_equal(pieces["P"], whole["P"])
    monkeypatch.undo()

    second = states.copy()
    second["track"] = 2
    spool = Spool(tmp_path)
    for k in range(0, len(states), 7):  # two tracks, their states among each other
        spool.add(states[k : k + 7])
        spool.add(second[k : k + 7])
    config = station()
    out = np.concatenate([*spool.smoothed(config, FixedPole())])  # type: ignore[arg-type]
    spool.close()
    assert out["track"].tolist() == [1] * len(states) + [2] * len(states)
    np.testing.assert_array_equal(out["epoch_ns"][: len(states)], states["epoch_ns"])
    np.testing.assert_array_equal(out["x"][: len(states)], out["x"][len(states) :])
    np.testing.assert_allclose(out["x"][: len(states)], whole["x"], rtol=1e-7)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_smoothed_is_told() -> None:
    assert cannot_smooth(station()) is None
    assert "imm" in (cannot_smooth(station('modes = "imm"')) or "")
    assert cannot_smooth(station("consider_biases = true")) is not None
