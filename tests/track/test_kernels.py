"""The compiled filter against filterpy's, and against itself in other company."""

from __future__ import annotations

import numpy as np
import pytest
from scene import GRAVITY, NS, measure, station

from fusionnode.core.types import Channel
from fusionnode.track import picture
from fusionnode.track.association import associate
from fusionnode.track.filtering.engine import Engine, NumbaEngine
from fusionnode.track.filtering.engine_filterpy import FilterpyEngine, acceleration
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.motion.dynamics import coarse_step

RULES = picture.make_rules(station(), GRAVITY)
ALL = int(Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE)


def random_tracks(n: int, seed: int) -> tuple[picture.Picture, associate.Measurements]:
    """Orbits from low to geostationary with full covariances, and one measurement of each."""
    rng = np.random.default_rng(seed)
    tracks = picture.make_picture(n)
    tracks.high[0] = n
    measurements = []
    for slot in range(n):
        radius = rng.uniform(6.7e6, 4.2e7)
        up = rng.normal(size=3)
        up /= np.linalg.norm(up)
        across = np.cross(up, rng.normal(size=3))
        across *= np.sqrt(3.986e14 / radius) * rng.uniform(0.95, 1.1) / np.linalg.norm(across)
        square = rng.normal(size=(6, 6))
        spread = np.diag([30.0] * 3 + [0.3] * 3)
        tracks.active[slot] = True
        tracks.x[slot] = np.concatenate([radius * up, across])
        tracks.P[slot] = (spread @ (square @ square.T + np.eye(6)) @ spread).reshape(36)
        dt = rng.uniform(0.1, 400.0)
        r, v = radius * up, across.copy()
        coarse_step(r, v, dt, GRAVITY)
        channels = int(rng.choice([ALL, ALL, Channel.ANGLES, Channel.RANGE | Channel.ANGLES]))
        one = measure(np.concatenate([r, v])[None], np.array([dt]), rng, channels=channels)
        one["target_delay"], one["site_delay"] = slot % 2, float(slot % 3 == 0)
        if slot % 7 == 0:
            one["range_m"] += 5_000.0  # an outlier among the channels
        measurements.append(one)
    joined = np.concatenate(measurements)
    return tracks, associate.Measurements(
        joined.view(np.float64).reshape(n, COLUMNS),
        joined["t_meas_ns"].copy(),
        joined["sensor"].copy(),
        joined["channels"].copy(),
    )


def trials_of(engine: Engine, n: int, seed: int) -> associate.Trials:
    tracks, ms = random_tracks(n, seed)
    room = associate.make_room(n, n)
    room.slots[:], room.rows[:] = np.arange(n), np.arange(n)
    engine.try_pairs(tracks, ms, n, RULES, room)
    return room.trials


def correlated(P: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Covariances (n, 36) in units of the sigmas of ``like``."""
    sigma = np.sqrt(np.diagonal(like.reshape(-1, 6, 6), axis1=1, axis2=2))
    return P.reshape(-1, 6, 6) / (sigma[:, :, None] * sigma[:, None, :])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_our_filter_and_filterpys_agree_on_random_tracks(seed: int) -> None:
    ours, theirs = trials_of(NumbaEngine(), 60, seed), trials_of(FilterpyEngine(), 60, seed)
    np.testing.assert_array_equal(ours.used, theirs.used)
    assert len(set(ours.used.tolist())) > 3  # some had a channel left out
    np.testing.assert_allclose(ours.nis, theirs.nis, rtol=1e-6)
    np.testing.assert_allclose(ours.det, theirs.det, rtol=1e-6)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        correlated(ours.P, theirs.P), correlated(theirs.P, theirs.P), rtol=0, atol=1e-6
    )


def test_our_prediction_and_filterpys_agree_over_an_hour() -> None:
    ours, _ = random_tracks(30, 4)
    theirs, _ = random_tracks(30, 4)
    NumbaEngine().predict(ours, np.arange(30), 3600 * NS, RULES)
    FilterpyEngine().predict(theirs, np.arange(30), 3600 * NS, RULES)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-9)
    np.testing.assert_allclose(
        correlated(ours.P, theirs.P), correlated(theirs.P, theirs.P), rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(ours.epoch, theirs.epoch)


def test_a_trial_does_not_depend_on_the_company_it_is_made_in() -> None:
    n = 50
    together = trials_of(NumbaEngine(), n, 5)
    tracks, ms = random_tracks(n, 5)
    engine, room = NumbaEngine(), associate.make_room(n, n)
    for slot in np.random.default_rng(6).permutation(n):
        room.slots[0] = room.rows[0] = slot
        engine.try_pairs(tracks, ms, 1, RULES, room)
        for alone, among in zip(room.trials, together, strict=True):
            assert alone[0].tobytes() == among[slot].tobytes()


def test_a_neighbour_that_is_not_a_number_changes_nothing_for_the_others() -> None:
    n = 16
    clean = trials_of(NumbaEngine(), n, 7)
    tracks, ms = random_tracks(n, 7)
    tracks.x[3] = np.nan
    tracks.P[4] = np.inf
    ms.z[5, 4:] = np.nan
    room = associate.make_room(n, n)
    room.slots[:], room.rows[:] = np.arange(n), np.arange(n)
    NumbaEngine().try_pairs(tracks, ms, n, RULES, room)
    for slot in set(range(n)) - {3, 4, 5}:
        assert room.trials.x[slot].tobytes() == clean.x[slot].tobytes()
    for slot in (3, 4, 5):
        assert not room.trials.nis[slot] <= RULES.gates[4]


def test_covariances_stay_symmetric_and_positive_definite_over_long_filtering() -> None:
    n = 32
    tracks, ms = random_tracks(n, 8)
    engine, room = NumbaEngine(), associate.make_room(n, n)
    room.slots[:], room.rows[:] = np.arange(n), np.arange(n)
    engine.predict(tracks, np.arange(n), 500 * NS, RULES)
    for k in range(200):
        ms.t[:] = (501 + k) * NS
        engine.try_pairs(tracks, ms, n, RULES, room)
        tracks.P[:] = room.trials.P
        tracks.epoch[:] = ms.t
        P = tracks.P.reshape(n, 6, 6)
        assert (P.transpose(0, 2, 1) == P).all()
    assert (np.linalg.eigvalsh(correlated(tracks.P, tracks.P)) > 0).all()


def test_gravity_is_the_gradient_of_its_potential() -> None:
    """J2 alone, against the closed form of the potential, differentiated by differences."""
    mu, c2 = 3.986004415e14, GRAVITY.zonal[3]
    gravity = GRAVITY.zonal.copy()
    gravity[4:] = 0.0

    def potential(r: np.ndarray) -> float:
        d = float(np.linalg.norm(r))
        s = float(r @ gravity[:3]) / d
        return mu / d - c2 / d**3 * 0.5 * (3 * s * s - 1)

    r = np.array([4.1e6, -3.3e6, 4.8e6])
    h = 50.0
    slope = [(potential(r + h * e) - potential(r - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(acceleration(r, gravity)[0], slope, rtol=1e-8)


def test_energy_about_the_pole_is_kept_over_a_day() -> None:
    def energy(x: np.ndarray) -> float:
        d = float(np.linalg.norm(x[:3]))
        s = float(x[:3] @ GRAVITY.zonal[:3]) / d
        legendre = [np.polynomial.legendre.Legendre.basis(n)(s) for n in range(2, 7)]
        return float(
            x[3:] @ x[3:] / 2
            - 3.986004415e14 / d
            + sum(
                c / d ** (n + 1) * p
                for n, (c, p) in enumerate(zip(GRAVITY.zonal[3:], legendre, strict=True), 2)
            )
        )

    tracks, _ = random_tracks(16, 9)
    before = np.array([energy(x) for x in tracks.x])
    NumbaEngine().predict(tracks, np.arange(16), 86_400 * NS, RULES)
    after = np.array([energy(x) for x in tracks.x])
    np.testing.assert_allclose(after, before, rtol=1e-7)
