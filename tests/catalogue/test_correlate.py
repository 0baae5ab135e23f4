"""Whether probabilities of correlation mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusionnode.catalogue.correlate import Direction, log_likelihood, posterior, seen_from
from fusionnode.catalogue.known import KnownObjects
from fusionnode.core.refframes import EarthOrientation, site_itrf
from fusionnode.core.timescales import tai_ns_from_utc_text

T_NS = tai_ns_from_utc_text("2025-09-01T12:00:00")
EARTH_RATE = 7.292115e-5
NEW_RATIO = 0.05


@pytest.fixture(scope="module")
def everything(shared_data: Path, orientation: EarthOrientation) -> KnownObjects:
    return KnownObjects.from_files([shared_data / "catalogue" / "20250901.tle.gz"], orientation)


def turned(x: np.ndarray, angle: float, faster: float) -> np.ndarray:
    """An object that the catalogue does not have: an orbit of its kind, elsewhere."""
    c, s = np.cos(angle), np.sin(angle)
    R = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return np.concatenate([R @ x[:3], R @ x[3:] * (1.0 + faster)])


def truth_of(
    known: KnownObjects, row: int, scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, bool] | None:
    """Where the object is, the element set being off by ``scale`` times its sigmas; or a new object (then False)."""
    prior = known.prior(row, T_NS)
    if prior is None:
        return None
    x = prior[0] + scale * (np.linalg.cholesky(prior[1] + 1e-6 * np.eye(6)) @ rng.normal(size=6))
    if rng.uniform() < NEW_RATIO / (1.0 + NEW_RATIO):
        return turned(x, rng.uniform(0, 2 * np.pi), 1e-3 * rng.normal()), False
    return x, True


def calibrated(said: list[float], right: list[bool]) -> None:
    """As many were right as was said, of those said to be likely, and of those said to be possible."""
    p, ok = np.array(said), np.array(right, float)
    for low, high in ((0.05, 0.5), (0.5, 0.97), (0.97, 1.01)):
        here = (p >= low) & (p < high)
        if here.sum() >= 10:
            spread = 3.0 * np.sqrt((p[here] * (1.0 - p[here])).sum() + 1.0) / here.sum()
            assert abs(ok[here].mean() - p[here].mean()) < spread + 0.05, (low, high, int(here.sum()))


@pytest.mark.parametrize(("sigma_m", "scale"), [(50.0, 1.0), (50.0, 2.0), (100e3, 0.3), (100e3, 1.0)])
def test_what_is_said_to_be_nine_in_ten_is(everything: KnownObjects, sigma_m: float, scale: float) -> None:
    rng = np.random.default_rng(11)
    P = np.diag([sigma_m] * 3 + [max(1e-3 * sigma_m, 0.5)] * 3) ** 2
    said, right, named, wrong = [], [], 0, 0
    for row in rng.integers(0, len(everything), 120).tolist():
        found = truth_of(everything, row, scale, rng)
        if found is None:
            continue
        truth, catalogued = found
        who = everything.correlate(truth + np.sqrt(np.diag(P)) * rng.normal(size=6), P, T_NS)
        assert who.probability.sum() + who.none == pytest.approx(1.0)
        said += [*who.probability.tolist(), who.none]
        right += [*(catalogued and one == row for one in who.rows.tolist()), not catalogued]
        best = who.best()
        if best is not None and best[1] >= 0.95:
            named += 1
            wrong += not (catalogued and best[0] == row)
    calibrated(said, right)
    assert named > 60
    assert wrong <= max(2, 0.06 * named)


def test_tracklets_of_directions_are_correlated_too(
    everything: KnownObjects, orientation: EarthOrientation
) -> None:
    rng = np.random.default_rng(3)
    to_itrf = orientation.gcrf_to_itrf(np.array([T_NS]))[0]
    site_r = to_itrf.T @ site_itrf(np.radians(28.3), np.radians(-16.5), 2_390.0)
    site_v = EARTH_RATE * np.array([-site_r[1], site_r[0], 0.0])
    r, _, good = everything.states(T_NS)
    d = r - site_r
    up = np.flatnonzero(good & (d @ site_r > 0.3 * np.linalg.norm(d, axis=1) * np.linalg.norm(site_r)))
    said, right = [], []
    for row in rng.choice(up, 100).tolist():
        found = truth_of(everything, row, 1.0, rng)
        if found is None:
            continue
        truth, catalogued = found
        d = truth[:3] - site_r
        if not catalogued and d @ site_r < 0:
            continue
        cov = np.array([[2e-5, 0.0], [0.0, 2e-6]]) ** 2
        noise = rng.normal(size=(2, 2)) * np.sqrt(np.diag(cov))[:, None]
        distance = np.linalg.norm(d)
        u = (d - truth[3:] * distance / 299_792_458.0) / np.linalg.norm(
            d - truth[3:] * distance / 299_792_458.0
        )
        east = np.cross([0.0, 0.0, 1.0], u)
        east /= np.linalg.norm(east)
        axes = np.array([u, east, np.cross(u, east)])
        # the direction measured is the middle of the tangent plane; the noise moves it
        u = u + noise[0, 0] * axes[1] + noise[0, 1] * axes[2]
        axes = np.array([u / np.linalg.norm(u), axes[1], axes[2]])
        blank = Direction(T_NS, site_r, site_v, axes, np.zeros((2, 2)), cov)
        seen, _ = seen_from(blank, truth, distance / 299_792_458.0)
        value = np.column_stack([np.zeros(2), seen[2:] + noise[1]])
        who = everything.correlate_direction(blank._replace(value=value))
        said += [*who.probability.tolist(), who.none]
        right += [*(catalogued and one == row for one in who.rows.tolist()), not catalogued]
    calibrated(said, right)
    assert np.count_nonzero(np.array(said) > 0.9) > 40


def test_the_derivatives_of_a_direction_and_its_rate_are_right() -> None:
    x = np.array([7.0e6, 1.0e6, 2.0e6, -1e3, 6.5e3, 2e3])
    site_r, site_v = np.array([6.3e6, 2e5, 5e5]), np.array([-15.0, 460.0, 0.0])
    u = (x[:3] - site_r) / np.linalg.norm(x[:3] - site_r)
    east = np.cross([0.0, 0.0, 1.0], u)
    east /= np.linalg.norm(east)
    direction = Direction(
        0, site_r, site_v, np.array([u, east, np.cross(u, east)]), np.zeros((2, 2)), np.zeros((2, 2))
    )
    _, J = seen_from(direction, x, 0.0)
    for k, h in enumerate([10.0] * 3 + [0.01] * 3):
        step = np.zeros(6)
        step[k] = h
        difference = (seen_from(direction, x + step, 0.0)[0] - seen_from(direction, x - step, 0.0)[0]) / (
            2 * h
        )
        np.testing.assert_allclose(J[:, k], difference, rtol=1e-5, atol=1e-5 * np.abs(J).max(axis=1).min())


def test_likelihoods_become_probabilities_that_add_up() -> None:
    who = posterior([4, 9], [np.log(1.0), np.log(3.0)], [2.0, 1.0], np.log(1.0))
    assert who.best() == (9, pytest.approx(0.6))
    assert who.of(4) == pytest.approx(0.2)
    assert who.none == pytest.approx(0.2)
    assert posterior([4], [-np.inf], [np.inf], -np.inf).none == 1.0
    # one far outside of both tails is less likely than one inside, and never impossible
    near, far = (log_likelihood(np.full(3, d), np.eye(3), np.eye(3))[0] for d in (1.0, 20.0))
    assert near > far > -np.inf
    assert log_likelihood(np.ones(2), -np.eye(2), np.zeros((2, 2))) == (-np.inf, np.inf)
