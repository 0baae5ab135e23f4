"""Orbits from directions alone: Gauss, Gooding, least squares, and the admissible region where the arc is too short."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scene import GRAVITY, circular, ephemeris, measure, site

from fusionnode.catalogue.known import KnownObjects
from fusionnode.codec.iod import IodDecoder
from fusionnode.config import parse
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import Channel, StructArray
from fusionnode.intake.measure import Measurer
from fusionnode.track.initiation.admissible import Region, bank_of
from fusionnode.track.initiation.angles_only import (
    gauss,
    gooding,
    is_possible,
    refine,
    solutions,
    the_one,
    three_of,
)
from fusionnode.track.initiation.attributable import attributable
from fusionnode.track.lanes import workspace
from fusionnode.track.motion.kepler import kepler, lambert

ARCSEC = np.radians(1 / 3600)
GEO = np.concatenate(
    [
        42_164e3 * np.array([np.cos(0.3), np.sin(0.3), 0.02]),
        3_074.6 * np.array([-np.sin(0.3), np.cos(0.3), 0.0]),
    ]
)


def seen(
    x0: np.ndarray, times_s: np.ndarray, sigma_rad: float, seed: int = 0
) -> tuple[StructArray, np.ndarray]:
    """Directions with light time from one site, and the true states at their times."""
    states = ephemeris(x0, times_s)
    earlier = [
        t - np.linalg.norm(x[:3] - site(t)[0]) / 299_792_458.0 for x, t in zip(states, times_s, strict=True)
    ]
    emitted = ephemeris(x0, np.array(earlier))
    out = measure(
        emitted, times_s, np.random.default_rng(seed),
        sensor=2, sigma=(20.0, sigma_rad, 0.5), channels=int(Channel.ANGLES),
    )  # fmt: skip
    out["target_delay"] = 1.0
    return out, states


def distance2(x: np.ndarray, P: np.ndarray, truth: np.ndarray) -> float:
    return float((x - truth) @ np.linalg.solve(P, x - truth))


@pytest.mark.parametrize("x", [circular(500e3, 98.0, 20.0), GEO, np.array([7e6, 1e6, 0, 0, 9.0e3, 3e3])])
@pytest.mark.parametrize("dt", [1.0, 600.0, 2_000.0, 40_000.0, -3_000.0])
def test_two_body_motion_goes_there_and_back(x: np.ndarray, dt: float) -> None:
    there, back = np.empty(6), np.empty(6)
    assert kepler(x, dt, there)
    assert kepler(there, -dt, back)
    np.testing.assert_allclose(back, x, atol=1e-5)
    if 0 < dt <= 2_000:
        v1, v2 = np.empty(3), np.empty(3)
        assert lambert(x[:3], there[:3], dt, v1, v2)
        np.testing.assert_allclose(v1, x[3:], atol=1e-3)
        np.testing.assert_allclose(v2, there[3:], atol=1e-3)


def test_gauss_begins_gooding_meets_all_three_and_least_squares_ends_it() -> None:
    m, truth = seen(circular(700e3, 50.0, -3.0), np.arange(0, 101, 5.0), 1e-9)
    three = three_of(m)
    by_gauss = min(np.linalg.norm(x[:3] - truth[-1, :3]) for x in gauss(three))
    by_gooding = gooding(three, (1e6, 1e6))
    assert by_gooding is not None
    off = np.linalg.norm(by_gooding[:3] - truth[-1, :3])
    assert by_gauss < 100e3
    assert off < by_gauss
    orbit = refine(m, by_gooding, workspace(), GRAVITY)
    assert orbit is not None
    assert np.linalg.norm(orbit.x[:3] - truth[-1, :3]) < 20.0


@pytest.mark.parametrize(
    ("x0", "times", "sigma", "within_m"),
    [
        (circular(700e3, 50.0, -3.0), np.arange(0, 101, 5.0), 3 * ARCSEC, 10e3),
        (circular(900e3, 70.0, -6.0), np.arange(0, 201, 10.0), 36 * ARCSEC, 40e3),
        (GEO, np.arange(0, 4 * 3600 + 1, 1800.0), ARCSEC, 15e3),
    ],
)
def test_an_arc_that_is_long_enough_gives_its_orbit_with_an_honest_covariance(
    x0: np.ndarray, times: np.ndarray, sigma: float, within_m: float
) -> None:
    d2 = []
    for seed in range(12):
        m, truth = seen(x0, times, sigma, seed)
        orbit = the_one(solutions(m, workspace(), GRAVITY))
        assert orbit is not None
        assert np.linalg.norm(orbit.x[:3] - truth[-1, :3]) < within_m
        d2.append(distance2(orbit.x, orbit.P, truth[-1]))
    # the mean of 12 chi-squares of six degrees: 6 +- 1; covariances are scaled up by the residuals, never down
    assert 2.5 < np.mean(d2) < 10.0


@pytest.mark.parametrize(
    ("x0", "times", "sigma"),
    [
        (circular(700e3, 50.0, -1.0), np.arange(0, 11, 2.0), 3 * ARCSEC),
        (circular(700e3, 50.0, -1.0), np.arange(0, 31, 5.0), 3 * ARCSEC),
        (GEO, np.arange(0, 61, 10.0), ARCSEC),
        (GEO, np.arange(0, 301, 60.0), ARCSEC),
    ],
)
def test_an_arc_too_short_for_an_orbit_gives_hypotheses_that_contain_it(
    x0: np.ndarray, times: np.ndarray, sigma: float
) -> None:
    d2 = []
    for seed in range(8):
        m, truth = seen(x0, times, sigma, seed)
        bank = bank_of(m, workspace(), GRAVITY)
        assert bank is not None
        assert 4 <= len(bank) <= 256
        assert bank.weight.sum() == pytest.approx(1.0)
        assert Region().holds(bank.x).mean() > 0.9
        mean, P = bank.moments()
        assert np.linalg.eigvalsh(P / np.outer(*[[1e6] * 3 + [1e3] * 3] * 2)).min() > 0
        d2.append(distance2(mean, P, truth[-1]))
        assert the_one(solutions(m, workspace(), GRAVITY)) is None
    assert np.mean(d2) < 10.0
    assert max(d2) < 30.0


def test_a_bank_is_narrowed_by_later_tracklets_until_one_orbit_is_left() -> None:
    W = workspace()
    m, _ = seen(GEO, np.arange(0, 61, 10.0), ARCSEC)
    bank = bank_of(m, W, GRAVITY)
    assert bank is not None
    widths = []
    for start in (900, 3600, 7200, 86_400):
        later, truth = seen(GEO, start + np.arange(0, 61, 10.0), ARCSEC, seed=start)
        apart, reach = bank.offsets(later[0])
        assert (apart / reach).min() < 6.0
        found = bank.updated(later, W, GRAVITY, 1e-9)
        assert found is not None
        bank, m = found[0], np.concatenate([m, later])
        _, P = bank.moments()
        widths.append(float(np.sqrt(np.trace(P[:3, :3]))))
    assert all(b < a for a, b in pairwise(widths))
    assert widths[0] > 1e6
    assert widths[-1] < 2e4
    orbit = refine(m, bank.x[0], W, GRAVITY)
    assert orbit is not None
    assert orbit.known
    assert np.linalg.norm(orbit.x[:3] - truth[-1, :3]) < 2e3


def test_no_orbit_of_what_is_none() -> None:
    W = workspace()
    m, _ = seen(circular(700e3, 50.0, -1.0), np.arange(0, 31, 5.0), 3 * ARCSEC)
    still = m.copy()
    still["t_meas_ns"] = still["t_meas_ns"][0]
    for bad in (still, m[:1], m[:0]):
        assert solutions(bad, W, GRAVITY) == []
    assert attributable(still) is None
    assert bank_of(still, W, GRAVITY) is None
    # faster across the sky than anything that is bound to the Earth at 100 km
    fast = m.copy()
    fast["t_meas_ns"] = m["t_meas_ns"][0] + (m["t_meas_ns"] - m["t_meas_ns"][0]) // 1_000
    assert bank_of(fast, W, GRAVITY) is None
    assert not is_possible(np.full(6, np.nan))


def inclination_deg(x: np.ndarray) -> float:
    h = np.cross(x[:3], x[3:])
    return float(np.degrees(np.arccos(h[2] / np.linalg.norm(h))))


@pytest.mark.parametrize(
    ("rows", "sat_no"), [(slice(0, 5), 23533), (slice(1, 5), 23533), (slice(5, 8), 7816)]
)
def test_real_visual_observations_give_the_plane_of_the_orbit(
    shared_data: Path, orientation: EarthOrientation, rows: slice, sat_no: int
) -> None:
    """A minute to three and a half by eye and stop-watch (0.04 deg), against element sets of three weeks later."""
    outcomes = Outcomes()
    data = (shared_data / "optical" / "dmsp_20031120_8305.iod").read_bytes()
    detections = IodDecoder("file", outcomes).decode([(1, data)]).detections
    assert outcomes.of("file") == {"frame_accepted": 8}
    config = parse(
        """
[node]
id = "t"
[site.here]
lat_deg = 26.2431
lon_deg = -98.2163
height_m = 30
[sensor.eye]
id = 8305
kind = "optical"
site = "here"
angles = "radec"
lon_sigma_deg = 0.04
lat_sigma_deg = 0.04
""",
        Path("test.toml"),
    )
    m = Measurer(config, orientation, outcomes).measure(detections)[rows]
    known = KnownObjects.from_files([shared_data / "optical" / "dmsp_20031214.tle"], orientation)
    truth = known.exact(int(np.flatnonzero(known.sat_no == sat_no)[0]), int(m["t_meas_ns"][-1]))
    assert truth is not None
    W = workspace()
    orbit = the_one(solutions(m, W, GRAVITY))
    if rows == slice(0, 5):
        assert orbit is not None
        assert abs(inclination_deg(orbit.x) - inclination_deg(truth)) < 1.0
        assert distance2(orbit.x, orbit.P, truth) < 22.5
    bank = bank_of(m, W, GRAVITY)
    assert bank is not None
    inclinations = np.array([inclination_deg(x) for x in bank.x])
    mean = float(bank.weight @ inclinations)
    assert abs(mean - inclination_deg(truth)) < 2.0
    assert inclinations.min() - 1.0 < inclination_deg(truth) < inclinations.max() + 1.0
    assert distance2(*bank.moments(), truth) < 22.5
