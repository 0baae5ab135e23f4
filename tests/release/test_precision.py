"""Offsets: no fit takes them off, no two groups tell each other more than one knows, and covariances say what is so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionnode.config import Tracking
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.release import precision
from fusionnode.release.precision import MU, Offset, Offsets, level_of, offset_m, sigma_m, size_m
from fusionnode.track import lanes
from fusionnode.track.filtering.filter import predict_slots
from fusionnode.track.motion import dynamics

NS = 1_000_000_000
T0_NS = tai_ns_from_utc_text("2025-09-01T06:00:00Z")
EVERY_S = 1_800.0
ORBITS = {
    # a (km), e, inclination, node, perigee, anomaly (deg)
    "low": (6_778, 0.001, 51.6, 10.0, 20.0, 30.0),
    "polar": (7_178, 0.002, 90.0, 80.0, 20.0, 130.0),
    "sun-synchronous": (7_078, 0.001, 98.2, 200.0, 80.0, 10.0),
    "low inclination": (6_928, 0.002, 20.0, 300.0, 10.0, 200.0),
    "equatorial": (6_978, 0.001, 3.0, 40.0, 100.0, 250.0),
    "retrograde": (7_378, 0.01, 144.0, 140.0, 200.0, 350.0),
    "navigation": (26_560, 0.01, 55.0, 33.0, 44.0, 55.0),
    "geostationary": (42_164, 0.0003, 0.05, 10.0, 20.0, 30.0),
    "geosynchronous": (42_164, 0.001, 6.0, 70.0, 20.0, 230.0),
    "molniya": (26_554, 0.72, 63.4, 100.0, 270.0, 10.0),
    "transfer": (24_400, 0.72, 6.0, 50.0, 178.0, 40.0),
    "steep transfer": (24_400, 0.72, 27.0, 50.0, 178.0, 40.0),
}


def from_elements(a_km: float, e: float, *degrees: float) -> np.ndarray:
    i, node, perigee, mean = np.radians(degrees)
    E = mean
    for _ in range(50):
        E = E - (E - e * np.sin(E) - mean) / (1.0 - e * np.cos(E))
    a, wide = a_km * 1e3, np.sqrt(1.0 - e * e)
    turn = _about(2, node) @ _about(0, i) @ _about(2, perigee)
    r = a * np.array([np.cos(E) - e, wide * np.sin(E), 0.0])
    v = np.sqrt(MU / a) / (1.0 - e * np.cos(E)) * np.array([-np.sin(E), wide * np.cos(E), 0.0])
    return np.concatenate([turn @ r, turn @ v])


def _about(axis: int, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    out = np.eye(3)
    j, k = (axis + 1) % 3, (axis + 2) % 3
    out[j, j] = out[k, k] = c
    out[j, k], out[k, j] = -s, s
    return out


def carried(orientation: EarthOrientation, x: np.ndarray, t_ns: np.ndarray) -> np.ndarray:
    """States (n, k, 6) of orbits (n, 6) at T0, in the node's full dynamics."""
    x = x.copy()
    model = dynamics.make(Tracking.model_validate({"gravity_degree": 20}), orientation, T0_NS)
    P, epoch = np.zeros((len(x), 36)), np.full(len(x), T0_NS)
    states = []
    for t in t_ns.tolist():
        predict_slots(lanes.workspace(), np.arange(len(x)), len(x), t, x, P, epoch, model, 0.0)
        states.append(x.copy())
    return np.array(states).transpose(1, 0, 2)


@pytest.fixture(scope="module")
def day(orientation: EarthOrientation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A day of each orbit: times (k,) TAI ns, states (n, k, 6), derivatives (n, k, 3, 6) of positions by the first."""
    steps = np.array([1.0, 1.0, 1.0, 1e-3, 1e-3, 1e-3])
    first = np.array([from_elements(*elements) for elements in ORBITS.values()])
    n = len(first)
    x = np.concatenate([first, *(first + s * np.eye(6)[j] * steps for s in (1, -1) for j in range(6))])
    t_ns = T0_NS + (np.arange(49) * EVERY_S * NS).astype(np.int64)
    all_states = carried(orientation, x, t_ns)
    partials = [
        (all_states[(j + 1) * n : (j + 2) * n] - all_states[:n])[..., :3] / steps[j] for j in range(6)
    ]
    return t_ns, all_states[:n], np.stack(partials, axis=-1)


def published(
    key: int, level: int, t_ns: np.ndarray, x: np.ndarray, P: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """States (k, 6) of one object as a node with that key gives them out."""
    offsets = Offsets(f"key number {key:08d}".encode(), "life")
    k = len(x)
    y, cov, _ = offsets.apply(
        level,
        np.full(k, 7),
        np.zeros(k, np.int64),
        t_ns,
        x,
        np.zeros((k, 6, 6)) if P is None else P,
        np.ones(k, bool),
    )
    return y, cov


def drawn(key: int) -> Offset:
    """The offset that a node with that key draws for an object."""
    offsets = Offsets(f"key number {key:08d}".encode(), "life")
    return offsets._draw("track:life:1", 0, 7e6, 0.001, 1.0)


def rms(d: np.ndarray) -> float:
    return float(np.sqrt((d**2).sum(axis=-1).mean()))


@pytest.mark.parametrize("name", ORBITS)
@pytest.mark.parametrize("precision_m", [100.0, 10_000.0])
def test_a_days_batch_fit_does_not_beat_the_precision(
    day: tuple[np.ndarray, np.ndarray, np.ndarray], name: str, precision_m: float
) -> None:
    """By whoever has exactly the right dynamics and states without noise."""
    t_ns, states, partials = day
    i = list(ORBITS).index(name)
    x, A = states[i], partials[i].reshape(-1, 6)
    A = A / np.linalg.norm(A, axis=0)
    for key in range(40):
        y, _ = published(key, level_of(precision_m), t_ns, x)
        d = (y - x)[:, :3]
        fitted = A @ np.linalg.lstsq(A, d.reshape(-1), rcond=None)[0]
        assert rms(fitted.reshape(-1, 3)) >= precision_m
        assert precision_m <= rms(d) < 4.5 * precision_m


@pytest.mark.parametrize("precision_m", [100.0, 10_000.0])
def test_what_is_published_is_a_solution_of_the_full_dynamics(
    orientation: EarthOrientation, day: tuple[np.ndarray, np.ndarray, np.ndarray], precision_m: float
) -> None:
    """Longitudes, Sun and Moon included: what a day's fit leaves of it is next to nothing of the offset, so that one
    which solves for the offset too sees it only in states better than that.
    """
    t_ns, states, partials = day
    for key in range(3):
        y = np.array([published(key, level_of(precision_m), t_ns, x)[0] for x in states])
        left = (carried(orientation, y[:, 0], t_ns) - y)[..., :3]
        for i, name in enumerate(ORBITS):
            A = partials[i].reshape(-1, 6)
            A = A / np.linalg.norm(A, axis=0)
            d = left[i].reshape(-1)
            d = d - A @ np.linalg.lstsq(A, d, rcond=None)[0]
            assert rms(d.reshape(-1, 3)) < 3e-5 * rms((y[i] - states[i])[:, :3]) + 1e-3, name


@pytest.mark.parametrize("name", ORBITS)
def test_a_covariance_says_what_an_offset_does(
    day: tuple[np.ndarray, np.ndarray, np.ndarray], name: str
) -> None:
    """NEES over many keys, of states with the errors that their covariance says, is that of six degrees of freedom."""
    t_ns, states, _ = day
    i = list(ORBITS).index(name)
    rng = np.random.default_rng(i)
    root = np.diag([20.0, 20.0, 20.0, 0.02, 0.02, 0.02]) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    total, n = 0.0, 0
    for key in range(160):
        k = key % len(t_ns)
        x = states[i, k : k + 1] + (root @ rng.normal(size=6))[None, :]
        y, cov = published(key, level_of(300.0), t_ns[k : k + 1], x, (root @ root.T)[None])
        d = (y - states[i, k : k + 1])[0]
        scale = np.sqrt(np.diag(cov[0]))
        total += d / scale @ np.linalg.solve(cov[0] / np.outer(scale, scale), d / scale)
        n += 1
    assert 5.3 < total / n < 6.7


@given(key=st.integers(0, 10**7), level=st.integers(0, precision.LEVELS - 1))
def test_an_offset_is_never_near_nothing_nor_far_too_large(key: int, level: int) -> None:
    size = abs(offset_m(drawn(key), level))
    assert 1.299 * size_m(level) < size < 3.55 * size_m(level)


def test_two_groups_learn_no_more_than_the_finer_one_has() -> None:
    """What a coarser offset is beside the finer one says neither the sign nor the size of the finer one, and no weights
    make more of both than there is in the finer one.
    """
    levels = [level_of(precision_m) for precision_m in (100.0, 300.0, 1_000.0, 10_000.0)]
    offsets = np.array([[offset_m(drawn(key), level) for level in levels] for key in range(3_000)])
    fine = offsets[:, 0]
    bound = 4.0 / np.sqrt(len(fine))
    for coarse in offsets[:, 1:].T:
        d = coarse - fine
        assert abs(np.corrcoef(fine, d)[0, 1]) < bound
        assert abs(np.corrcoef(np.abs(fine), np.abs(d))[0, 1]) < bound
        assert abs(np.corrcoef(np.sign(fine), np.abs(d))[0, 1]) < bound
        for sign in (-1.0, 1.0):  # given where the other is, both signs are as likely
            assert abs(np.mean(np.sign(fine[np.sign(d) == sign]))) < 1.5 * bound
    weights = np.linalg.lstsq(offsets[:, 1:] - fine[:, None], -fine, rcond=None)[0]
    best = fine + (offsets[:, 1:] - fine[:, None]) @ weights
    assert np.sqrt((best**2).mean()) > 0.99 * np.sqrt((fine**2).mean()) > 130.0


def test_the_second_moment_is_what_the_covariance_takes_it_for() -> None:
    a = np.array([offset_m(drawn(k), level_of(100.0)) for k in range(4_000)])
    assert abs(float(a @ a) / len(a) / sigma_m(level_of(100.0)) ** 2 - 1.0) < 0.08


def test_the_offset_is_the_objects_and_outlives_its_tracks_and_the_node() -> None:
    x = np.array([from_elements(*ORBITS["low"])])
    one = np.ones(1, bool)

    def take(offsets: Offsets, track: int, number: int, t_ns: int, state: np.ndarray = x) -> np.ndarray:
        return offsets.apply(
            8, np.array([track]), np.array([number]), np.array([t_ns]), state, np.zeros((1, 6, 6)), one
        )[0]

    offsets = Offsets(b"k" * 32, "life")
    first = take(offsets, 1, 25544, T0_NS)
    offsets.forget(1)
    other = x * (1.0 + 1e-4)  # the same object, met anew, a little otherwise
    np.testing.assert_allclose(
        take(offsets, 2, 25544, T0_NS, other) - other,
        first - x,
        rtol=2e-3,
        atol=2e-3 * np.abs(first - x).max(),
    )
    assert np.linalg.norm(take(offsets, 3, 0, T0_NS) - first) > 10.0
    unknown = take(offsets, 3, 0, T0_NS)
    np.testing.assert_array_equal(take(offsets, 3, 25544, T0_NS), unknown)  # it keeps what it went by first
    again = Offsets(b"k" * 32, "another life")
    again.take_up(offsets.export())
    np.testing.assert_array_equal(take(again, 3, 0, T0_NS), unknown)
    assert again.identity("g", 3) == offsets.identity("g", 3)
    with pytest.raises(ValueError, match="offsets"):
        again.take_up({"lineage": 1})


def test_states_do_not_depend_on_the_company_they_are_in() -> None:
    x = np.array([from_elements(*elements) for elements in ORBITS.values()])
    n = len(x)
    rng = np.random.default_rng(3)
    P = rng.normal(size=(n, 6, 6))
    P = P @ P.transpose(0, 2, 1)
    t_ns = T0_NS + np.arange(n) * NS
    for level in (8, 14):
        all_at_once = Offsets(b"k" * 32, "l").apply(
            level, np.arange(n), np.zeros(n, np.int64), t_ns, x, P, np.ones(n, bool)
        )
        offsets = Offsets(b"k" * 32, "l")
        for i in range(n - 1, -1, -1):
            y, cov, _ = offsets.apply(
                level,
                np.array([i]),
                np.zeros(1, np.int64),
                t_ns[i : i + 1],
                x[i : i + 1],
                P[i : i + 1],
                np.ones(1, bool),
            )
            assert y.tobytes() == all_at_once[0][i : i + 1].tobytes()
            assert cov.tobytes() == all_at_once[1][i : i + 1].tobytes()


def test_an_orbit_that_has_become_another_gets_an_offset_that_moves_it() -> None:
    """From a steep low orbit to the equator at the height of the geostationary ones."""
    offsets = Offsets(b"k" * 32, "l")
    low, high = (np.array([from_elements(*ORBITS[name])]) for name in ("polar", "geostationary"))
    for x in (low, high):
        _, _, used = offsets.apply(
            8, np.array([1]), np.array([5]), np.array([T0_NS]), x, np.zeros((1, 6, 6)), np.ones(1, bool)
        )
    assert used[0].generation == 1
    revolution = np.array([from_elements(*ORBITS["geostationary"][:5], m) for m in range(0, 360, 5)])
    k = len(revolution)
    y, _, _ = offsets.apply(
        8, np.full(k, 1), np.full(k, 5), np.full(k, T0_NS), revolution, np.zeros((k, 6, 6)), np.ones(k, bool)
    )
    assert rms((y - revolution)[:, :3]) > 100.0


def test_precisions_are_rounded_up_to_the_grid() -> None:
    assert level_of(0.0) == precision.EXACT
    for value in (0.5, 1.0, 1.1, 3.0, 31.7, 100.0, 100.1, 99_999.0, 100_000.0):
        assert value <= size_m(level_of(value)) < value * 3.17
    assert size_m(level_of(100.0)) == pytest.approx(100.0)
    with pytest.raises(ValueError, match="at most"):
        level_of(100_001.0)
