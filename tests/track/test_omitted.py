"""Process noise that follows from what the forces leave out."""

from __future__ import annotations

import numpy as np
import peer_orbits
import pytest
from peer_orbits import START_NS
from scene import NS

from fusionnode.config import Tracking
from fusionnode.core.refframes import EarthOrientation
from fusionnode.track import lanes
from fusionnode.track.filtering.filter import predict_slots
from fusionnode.track.initiation.normal import inverse_of
from fusionnode.track.motion import atmosphere, coefficients, dynamics, gravity, omitted

BOTH = {"estimate": ["ballistic", "srp"], "gravity_degree": 20}


def spread(orientation: EarthOrientation, x: np.ndarray, seconds: float, **keys: object) -> np.ndarray:
    """Covariances (n, 6, 6) of states (n, 6) known exactly, after so many seconds."""
    config = Tracking.model_validate(BOTH | keys)
    n = len(x)
    rows = np.tile(coefficients.fresh(config), (n, 1))
    rows[:, 14:] = 0.0
    model = dynamics.make(config, orientation, START_NS, rows)
    x, P, epoch = x.copy(), np.zeros((n, 36)), np.full(n, START_NS)
    to_ns = START_NS + round(seconds * NS)
    psd = config.process_noise_psd_m2_s3
    predict_slots(lanes.workspace(), np.arange(n), n, to_ns, x, P, epoch, model, psd)
    return P.reshape(n, 6, 6)


def test_only_estimated_coefficients_and_no_number_given_let_noise_follow_forces() -> None:
    assert Tracking.model_validate(BOTH).noise_follows_forces
    assert Tracking.model_validate(BOTH).process_noise_psd_m2_s3 == omitted.FLOOR
    for keys in ({}, {"estimate": ["ballistic"]}, BOTH | {"accel_noise_psd_m2_s3": 1e-13}):
        assert not Tracking.model_validate(keys).noise_follows_forces
    assert Tracking().process_noise_psd_m2_s3 == 1e-11


def test_rule_of_thumb_is_as_strong_as_the_field() -> None:
    C, S = gravity.coefficients(90)
    own = np.sum(C**2 + S**2, axis=1)[37:]
    n = np.arange(37.0, 91.0)
    for height in (400e3, 800e3):
        ratio = (gravity.RADIUS / (gravity.RADIUS + height)) ** (2.0 * n) * n
        rule = (2.0 * n + 1.0) * 1e-10 / n**4
        assert 0.3 < np.sum(ratio * own) / np.sum(ratio * rule) < 1.5


def test_less_is_left_out_further_up_and_by_a_larger_field() -> None:
    radius = gravity.RADIUS + np.array([300e3, 500e3, 800e3, 1_300e3, 20_000e3])
    psd = np.array([omitted.gravity_psd(degree, radius) for degree in (20, 36, 70)])
    assert np.all(np.diff(psd, axis=0) <= 0.0)
    assert np.all(np.diff(psd, axis=1) < 0.0)
    assert np.all(psd[:, -1] < 1e-3 * omitted.FLOOR)


@pytest.mark.parametrize("seconds", [4.0, 20.0])
def test_noise_of_a_step_is_that_of_floor_gravity_and_air(
    orientation: EarthOrientation, seconds: float
) -> None:
    x = np.array([[gravity.RADIUS + 500e3, 0.0, 0.0, 0.0, 4_000.0, 6_450.0]])
    P = spread(orientation, x, seconds, ballistic_m2_kg=0.0)[0]
    q = omitted.FLOOR + omitted.gravity_psd(20, np.linalg.norm(x[:, :3], axis=1))[0]
    assert np.allclose(np.diag(P)[3:], q * seconds, rtol=0.02)
    assert np.allclose(np.diag(P)[:3], q * seconds**3 / 3.0, rtol=0.02)
    assert np.allclose(np.diag(P[:3, 3:]), q * seconds**2 / 2.0, rtol=0.02)
    air = (spread(orientation, x, seconds, ballistic_m2_kg=1.0)[0] - P)[3:, 3:]
    along = x[0, 3:] / np.linalg.norm(x[0, 3:])
    assert along @ air @ along == pytest.approx(np.trace(air), rel=0.02)  # air goes with Earth, a little
    assert air.trace() > 0.0
    again = (spread(orientation, x, seconds, ballistic_m2_kg=2.0)[0] - P)[3:, 3:]
    assert np.trace(again) == pytest.approx(4.0 * np.trace(air), rel=1e-6)


def test_noise_grows_alike_in_any_company(
    orientation: EarthOrientation,
) -> None:
    bh = pytest.importorskip("brahe")
    x = peer_orbits.low_orbits(bh, 8)
    P = spread(orientation, x, 3_000.0)
    for i in (0, 5):
        assert np.array_equal(spread(orientation, x[i : i + 1], 3_000.0)[0], P[i])
    assert np.all(np.linalg.eigvalsh(P / np.trace(P, axis1=1, axis2=2)[:, None, None]) > 0.0)
    back = spread(orientation, x, -3_000.0)
    assert np.all(np.linalg.eigvalsh(back)[:, 0] > -1e-12 * np.trace(back, axis1=1, axis2=2))


def test_air_goes_on_above_its_table() -> None:
    rows = atmosphere.table()
    heights = np.array([990e3, 1_000e3, 1_010e3, 1_268e3, 2_400e3])
    rho = np.array([atmosphere.density.py_func(rows, h, 0.0) if hasattr(atmosphere.density, "py_func")
                    else atmosphere.density(rows, h, 0.0) for h in heights])  # fmt: skip
    assert np.all(np.diff(rho) < 0.0)
    assert rho[3] / rho[1] == pytest.approx(np.exp(-1.0), rel=0.01)
    assert rho[4] > 0.0


def test_inverse_of_normal_equations() -> None:
    rng = np.random.default_rng(3)
    A = rng.normal(size=(6, 6)) * np.array([1e3, 1e3, 1e3, 1.0, 1.0, 1.0])
    N = A.T @ A
    ok, inverse = inverse_of(N, 1e-13)
    assert ok
    assert np.allclose(inverse @ N, np.eye(6), atol=1e-7)
    assert np.array_equal(inverse, inverse.T)
    N[:, 5] = N[:, 4]
    N[5] = N[4]
    assert not inverse_of(N, 1e-13)[0]
