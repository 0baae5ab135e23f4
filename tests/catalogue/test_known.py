from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusionnode.catalogue.elements import parse
from fusionnode.catalogue.known import GM_M3_S2, KnownObjects
from fusionnode.core import timescales as ts
from fusionnode.core.refframes import EarthOrientation

T0 = ts.tai_ns_from_utc_text("2025-09-01T12:00:00")
OMM = (
    '{{"OBJECT_NAME": "{name}", "OBJECT_ID": "2020-001A", "NORAD_CAT_ID": {number}, "EPOCH": "{epoch}",'
    '"MEAN_MOTION": {motion}, "ECCENTRICITY": {e}, "INCLINATION": 70, "RA_OF_ASC_NODE": 40,'
    '"ARG_OF_PERICENTER": 10, "MEAN_ANOMALY": {anomaly}, "BSTAR": 0.0001}}'
)


def entry(
    number: int,
    epoch: str = "2025-09-01T12:00:00",
    *,
    motion: float = 14.5,
    e: float = 0.001,
    anomaly: float = 0,
) -> str:
    return OMM.format(
        name=f"OBJECT {number}", number=number, epoch=epoch, motion=motion, e=e, anomaly=anomaly
    )


def catalogue(orientation: EarthOrientation, *entries: str, **options: float) -> KnownObjects:
    sets, n_bad = parse("[" + ",".join(entries) + "]")
    assert n_bad == 0
    return KnownObjects(sets, orientation, **options)


def some(orientation: EarthOrientation, **options: float) -> KnownObjects:
    """Low, medium, geostationary transfer; one that is far below the ground."""
    return catalogue(
        orientation,
        entry(30),
        entry(10, motion=2.0, anomaly=100),
        entry(800_000_001, motion=2.3, e=0.72, anomaly=5),
        entry(20, motion=16.9, e=0.1),
        **options,
    )


def test_rows_are_objects_by_ascending_number(orientation: EarthOrientation) -> None:
    known = some(orientation)
    assert known.sat_no.tolist() == [10, 20, 30, 800_000_001]
    assert known.object(3).name == "OBJECT 800000001"
    assert known.object(3).international_designator == "2020-001A"


def test_coarse_states_are_near_the_exact_ones_at_any_time(orientation: EarthOrientation) -> None:
    known = some(orientation)
    for seconds in (0, 13, 29, 31, 59, 4_000):
        t = T0 + seconds * ts.SECOND_NS
        r, v, good = known.states(t)
        assert good.tolist() == [True, False, True, True]
        assert np.isnan(r[1]).all()
        assert np.isnan(v[1]).all()
        for row in (0, 2, 3):
            x = known.exact(row, t)
            assert x is not None
            assert np.linalg.norm(r[row] - x[:3]) < 100.0
            assert np.linalg.norm(v[row] - x[3:]) < 10.0
        assert known.exact(1, t) is None
        assert known.prior(1, t) is None


def test_a_state_is_sgp4s_turned_from_teme(orientation: EarthOrientation) -> None:
    known = some(orientation)
    t = T0 + 777 * ts.SECOND_NS
    sets, _ = parse("[" + entry(30) + "]")
    _, r, v = sets[0].satrec.sgp4_tsince(777.0 / 60.0)
    to_gcrf = orientation.teme_to_gcrf(np.array([t]))[0]
    np.testing.assert_allclose(known.exact(2, t), np.concatenate((to_gcrf @ r, to_gcrf @ v)) * 1e3, rtol=1e-9)


def test_a_leap_second_between_epoch_and_now_is_counted(orientation: EarthOrientation) -> None:
    known = catalogue(orientation, entry(1, "2016-12-31T12:00:00"))
    sets, _ = parse("[" + entry(1, "2016-12-31T12:00:00") + "]")
    t = ts.tai_ns_from_utc_text("2017-01-01T12:00:00")
    _, r, _ = sets[0].satrec.sgp4_tsince((86_400.0 + 1.0) / 60.0)
    x = known.exact(0, t)
    assert x is not None
    assert np.linalg.norm(x[:3] - orientation.teme_to_gcrf(np.array([t]))[0] @ r * 1e3) < 1.0
    assert np.linalg.norm(known.states(t)[0][0] - x[:3]) < 20.0


def test_the_element_set_nearest_in_time_is_used(orientation: EarthOrientation) -> None:
    early, late = entry(5, "2025-09-01T00:00:00"), entry(5, "2025-09-03T00:00:00", anomaly=90)
    both = catalogue(orientation, late, early)
    assert len(both) == 1
    for text, single in (("2025-09-01T23:00:00", early), ("2025-09-02T01:00:00", late), ("2025-09-07", late)):
        t = ts.tai_ns_from_utc_text(text)
        alone = catalogue(orientation, single)
        np.testing.assert_array_equal(both.exact(0, t), alone.exact(0, t))
        np.testing.assert_array_equal(both.states(t)[0], alone.states(t)[0])


def test_old_element_sets_are_not_used(orientation: EarthOrientation) -> None:
    known = catalogue(orientation, entry(5), max_age_days=3.0)
    assert known.states(T0 + 2 * ts.DAY_NS)[2].all()
    assert not known.states(T0 + 4 * ts.DAY_NS)[2].any()
    assert known.prior(0, T0 + 4 * ts.DAY_NS) is None


def test_near_finds_by_direction_and_by_range(orientation: EarthOrientation) -> None:
    known = catalogue(orientation, *(entry(i, anomaly=i * 0.2) for i in range(1, 40)))
    t = T0 + 10 * ts.SECOND_NS
    r, _, _ = known.states(t)
    site = r[20] * 0.9
    offset = r - site
    los = offset[20] / np.linalg.norm(offset[20])
    cosine = offset @ los / np.linalg.norm(offset, axis=1)
    inside = np.flatnonzero(cosine > np.cos(0.1))
    rows = known.near(los, site, t, 0.1)
    assert rows[0] == 20
    assert sorted(rows.tolist()) == inside.tolist()
    assert (np.diff(cosine[rows]) <= 1e-12).all()
    assert known.near(los, site, t, 0.1, np.linalg.norm(offset[20]) + 5e3, 1e4)[0] == 20
    assert 20 not in known.near(los, site, t, 0.1, np.linalg.norm(offset[20]) + 5e4, 1e4)
    assert len(known.near(los, site, t, np.pi)) == 39


def test_a_priors_covariance_has_the_configured_sigmas(orientation: EarthOrientation) -> None:
    known = some(
        orientation,
        sigma_radial_m=300.0,
        sigma_along_m=1_000.0,
        sigma_cross_m=200.0,
        sigma_along_growth_m_per_day=500.0,
    )
    prior = known.prior(2, T0 + 2 * ts.DAY_NS)
    assert prior is not None
    x, P = prior
    np.testing.assert_allclose(P, P.T, rtol=1e-12)
    np.linalg.cholesky(P)
    r, v = x[:3], x[3:]
    n = np.cross(r, v) / np.linalg.norm(np.cross(r, v))
    rtn = np.array([r / np.linalg.norm(r), np.cross(n, r / np.linalg.norm(r)), n])
    np.testing.assert_allclose(np.sqrt(np.diag(rtn @ P[:3, :3] @ rtn.T)), [300.0, 2_000.0, 200.0], rtol=1e-2)
    # Late by a second along the path is late in velocity too: that combination is the loosest one.
    late = np.concatenate((v, -GM_M3_S2 * r / np.linalg.norm(r) ** 3)) / np.linalg.norm(v)
    assert late @ np.linalg.solve(P, late) == pytest.approx(1 / 2_000.0**2, rel=1e-3)


def test_a_track_gets_the_name_of_the_object_it_agrees_with(orientation: EarthOrientation) -> None:
    rng = np.random.default_rng(4)
    known = catalogue(orientation, *(entry(i, anomaly=i * 3.0) for i in range(1, 40)))
    t = T0 + 100 * ts.SECOND_NS
    P = np.diag([50.0] * 3 + [0.5] * 3) ** 2
    for row in (0, 7, 38):
        prior = known.prior(row, t)
        assert prior is not None
        x = rng.multivariate_normal(prior[0], prior[1] + P)
        found = known.correlate(x, P, t)
        best = found.best()
        assert best is not None
        assert best[0] == row
        assert best[1] > 0.99
        assert found.probability.sum() + found.none == pytest.approx(1.0)
        assert 0.0 < found.d2[0] < 30.0
        assert known.correlate(x + np.array([0, 0, 0, 500.0, 0, 0]), P, t).none > 0.95
        assert known.correlate(x + np.nan, P, t).none == 1.0


def test_two_objects_that_agree_equally_well_share_the_probability(orientation: EarthOrientation) -> None:
    known = catalogue(orientation, entry(1), entry(2, anomaly=0.001))
    prior = known.prior(0, T0)
    assert prior is not None
    found = known.correlate(prior[0], np.diag([50.0] * 3 + [0.5] * 3) ** 2, T0)
    assert found.of(0) == pytest.approx(0.5, abs=0.1)
    assert found.of(1) == pytest.approx(0.5, abs=0.1)


def test_a_catalogue_of_nothing_answers_nothing(orientation: EarthOrientation) -> None:
    known = KnownObjects([], orientation)
    assert len(known) == 0
    assert len(known.near(np.array([1.0, 0, 0]), np.zeros(3), T0, 1.0)) == 0
    assert known.correlate(np.ones(6), np.eye(6), T0).none == 1.0


def test_the_same_inputs_have_the_same_hash(orientation: EarthOrientation) -> None:
    assert some(orientation).sha256 == some(orientation).sha256
    assert some(orientation).sha256 != catalogue(orientation, entry(1)).sha256


def test_the_whole_catalogue_is_predicted(orientation: EarthOrientation, shared_data: Path) -> None:
    known = KnownObjects.from_files([shared_data / "catalogue" / "20250901.tle.gz"], orientation)
    r, v, good = known.states(T0)
    assert good.sum() > 28_450
    height = np.linalg.norm(r[good], axis=1) - 6.378e6
    assert (height > 8e4).mean() > 0.999
    energy = (v[good] ** 2).sum(axis=1) / 2 - GM_M3_S2 / np.linalg.norm(r[good], axis=1)
    assert (energy < 0).all()
    assert {known.object(row).sat_no for row in range(0, len(known), 1_000)} == set(
        known.sat_no[::1_000].tolist()
    )
