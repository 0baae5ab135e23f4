"""No covariance loses its symmetry, its definiteness or its numbers, whatever comes in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene import GRAVITY, NS, measure, station
from test_kernels import random_tracks

from fusionnode.core.types import Channel
from fusionnode.track import lanes, picture
from fusionnode.track.association import associate
from fusionnode.track.filtering import definite, filter
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.filtering.sensing import COLUMNS

RULES = picture.make_rules(station(), GRAVITY)
OPEN = RULES._replace(gates=np.full(5, np.inf), may_drop=False)
ALL = int(Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE)
START = np.array([7.2e6, 0.0, 0.0, 0.0, 6.0e3, 4.4e3])


def sound(P: np.ndarray) -> bool:
    """Whether P (36,) is finite, symmetric to the bit, and its correlations have a Cholesky factor, to rounding."""
    square = P.reshape(6, 6)
    if not np.isfinite(square).all() or not (square == square.T).all() or not (np.diag(square) > 0).all():
        return False
    sigma = np.sqrt(np.diag(square))
    try:
        np.linalg.cholesky(square / np.outer(sigma, sigma) + 1e-14 * np.eye(6))
    except np.linalg.LinAlgError:
        return False
    return True


def one_track(P: np.ndarray, seed: int) -> tuple[picture.Picture, associate.Measurements, associate.Room]:
    rng = np.random.default_rng(seed)
    tracks = picture.make_picture(1)
    tracks.high[0], tracks.active[0] = 1, True
    tracks.x[0], tracks.P[0] = START, P.reshape(36)
    record = measure(START[None], np.zeros(1), rng)
    ms = associate.Measurements(
        record.view(np.float64).reshape(1, COLUMNS).copy(),
        record["t_meas_ns"].copy(),
        record["sensor"].copy(),
        np.array([ALL], np.uint8),
    )
    return tracks, ms, associate.make_room(1, 1)


def rotation(seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]


exponents = st.lists(st.floats(-10.0, 10.0), min_size=6, max_size=6)
sigmas = st.lists(st.floats(-6.0, 9.0), min_size=4, max_size=4)


@settings(max_examples=150, deadline=None)
@given(exponents, sigmas, st.integers(0, 10_000), st.sampled_from([ALL, 2, 3, 1]), st.floats(0.0, 600.0))
def test_any_sigma_on_any_covariance_gives_a_sound_one_or_none(
    spread: list[float], sigma: list[float], seed: int, channels: int, dt: float
) -> None:
    """Conditions to 1e20, sigmas from 1e-6 to 1e9: what may be committed is sound."""
    Q = rotation(seed)
    P = Q @ np.diag(10.0 ** np.array(spread)) @ Q.T
    tracks, ms, room = one_track(0.5 * (P + P.T), seed)
    ms.z[0, 4 + 17 : 4 + 21] = (10.0 ** np.array(sigma)) ** 2
    ms.t[0] = round(dt * NS)
    ms.channels[0] = channels
    NumbaEngine().try_pairs(tracks, ms, 1, OPEN, room)
    trials = room.trials
    assert trials.nis[0] >= 0.0
    if trials.nis[0] < np.inf:
        assert sound(trials.P[0])
        assert np.isfinite(trials.x[0]).all()
        assert trials.det[0] > 0.0
    tracks.P[0] = (Q @ np.diag(10.0 ** np.array(spread)) @ Q.T).reshape(36)
    NumbaEngine().predict(tracks, np.array([0]), ms.t[0], RULES)
    assert sound(tracks.P[0])


@pytest.mark.parametrize(
    "rubbish",
    [np.zeros((6, 6)), -np.eye(6), np.full((6, 6), 1.0), np.full((6, 6), np.nan), np.diag([1e300] * 6),
     np.diag([np.inf] + [1.0] * 5), np.eye(6) - 0.5, np.diag([1e-320] * 6)],
)  # fmt: skip
def test_what_is_no_covariance_is_refused_or_mended_and_counted(rubbish: np.ndarray) -> None:
    tracks, ms, room = one_track(rubbish, 1)
    engine = NumbaEngine()
    engine.try_pairs(tracks, ms, 1, OPEN, room)
    if room.trials.nis[0] < np.inf:
        assert sound(room.trials.P[0])
    else:
        assert engine.mended()["refused"] == 1


@pytest.mark.parametrize("perfect", [1e-6, 1e-3])
def test_a_hundred_thousand_updates_of_a_perfect_sensor(perfect: float) -> None:
    tracks, ms, room = one_track(np.diag([1e6] * 3 + [1e2] * 3), 2)
    ms.z[0, 4 + 17 : 4 + 21] = np.array([perfect, 1e-9 * perfect, 1e-9 * perfect, 1e-3 * perfect]) ** 2
    engine = NumbaEngine()
    for k in range(100_000):
        engine.try_pairs(tracks, ms, 1, OPEN, room)
        tracks.P[0] = room.trials.P[0]
        if k % 997 == 0:
            assert sound(tracks.P[0])
    assert sound(tracks.P[0])
    assert engine.mended()["refused"] == 0


def test_both_forms_of_the_update_agree() -> None:
    """The square-root form, which ordinary lanes never need, against the one they use."""
    tracks, ms = random_tracks(8, 11)
    W = lanes.workspace()
    for m in range(8):
        filter.load_track(W, m, tracks.x[m], tracks.P[m], 0.0, 0.0, 0.0, 0.0)
        r = tracks.x[m]
        record = measure(r[None], np.zeros(1), np.random.default_rng(m))
        filter.load_measurement(W, m, record.view(np.float64), ms.channels[m])
    filter._first_update(W, 8)
    w = W.reshape(-1, lanes.LANES)
    assert (w[lanes.FORM // lanes.LANES] == definite.PLAIN).all()
    first, last = lanes.X_OUT // lanes.LANES, lanes.DET // lanes.LANES + 1
    plain = w[first:last].copy()
    for m in range(8):
        assert definite._in_square_root_form(W, m)
    sigma = np.sqrt(plain[[6 + i * (i + 1) // 2 + i for i in range(6)]])
    both = w[first:last]
    np.testing.assert_allclose((both[:6] - plain[:6]) / sigma, 0.0, atol=1e-8)
    for i in range(6):
        for j in range(i + 1):
            row = 6 + i * (i + 1) // 2 + j
            np.testing.assert_allclose((both[row] - plain[row]) / (sigma[i] * sigma[j]), 0.0, atol=1e-8)
    np.testing.assert_allclose(both[27:29], plain[27:29], rtol=1e-9)


def test_a_mended_lane_does_not_change_its_neighbours() -> None:
    tracks, ms = random_tracks(16, 12)
    rooms = [associate.make_room(16, 16) for _ in range(2)]
    for room in rooms:
        room.slots[:], room.rows[:] = np.arange(16), np.arange(16)
    engine = NumbaEngine()
    engine.try_pairs(tracks, ms, 16, RULES, rooms[0])
    tracks.P[5] = np.outer([1e3] * 3 + [1.0] * 3, [1e3] * 3 + [1.0] * 3).reshape(36)  # of rank one
    engine.try_pairs(tracks, ms, 16, RULES, rooms[1])
    for slot in set(range(16)) - {5}:
        assert rooms[0].trials.P[slot].tobytes() == rooms[1].trials.P[slot].tobytes()
        assert rooms[0].trials.x[slot].tobytes() == rooms[1].trials.x[slot].tobytes()


def test_triangularise_keeps_the_product() -> None:
    rng = np.random.default_rng(3)
    for n, columns in ((1, 1), (6, 6), (10, 17), (6, 19)):
        A = rng.normal(size=(n, columns)) * 10.0 ** rng.uniform(-6, 6, (n, 1))
        want = A @ A.T
        definite.triangularise(A, n, columns)
        assert (np.triu(A[:, :n], 1) == 0).all()
        assert (np.diag(A) >= 0).all()
        scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
        np.testing.assert_allclose(A[:, :n] @ A[:, :n].T / scale, want / scale, atol=1e-13)
