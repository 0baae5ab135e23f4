from __future__ import annotations

from pathlib import Path

import erfa
import numpy as np
import numpy.typing as npt
import pytest

from fusionnode.core import refframes
from fusionnode.core import timescales as ts
from fusionnode.core.refframes import EarthOrientation

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


def some_times(orientation: EarthOrientation, n: int = 300) -> I64:
    rng = np.random.default_rng(1)
    return rng.integers(orientation.valid_from_ns, orientation.valid_to_ns, n)


def at(orientation: EarthOrientation, t: I64, column: int) -> F64:
    """The table's column at times, by numpy: a cubic through the four rows around."""
    x = t / ts.DAY_NS - orientation._eop_day0
    first = np.clip(np.floor(x).astype(int) - 1, 0, len(orientation._eop) - 4)
    out = np.empty(len(t))
    for i, k in enumerate(first):
        rows = np.arange(4)
        out[i] = np.polyval(np.polyfit(rows, orientation._eop[k : k + 4, column], 3), x[i] - k)
    return out


def ut1_jd(orientation: EarthOrientation, t: I64) -> tuple[F64, F64]:
    day, ns = np.divmod(t, ts.DAY_NS)
    return ts.JD_1970 + day, ns / ts.DAY_NS + orientation.ut1_minus_tai_s(t) / 86_400


def test_itrf_is_that_of_erfas_full_series() -> None:
    plain = EarthOrientation(celestial_pole_offsets=False)
    t = some_times(plain)
    full = erfa.c2t06a(*ts.tt_jd(t), *ut1_jd(plain, t), at(plain, t, 1), at(plain, t, 2))
    np.testing.assert_allclose(plain.gcrf_to_itrf(t), full, rtol=0, atol=1e-12)


def test_celestial_pole_offsets_are_in_the_pole_and_the_matrix(orientation: EarthOrientation) -> None:
    t = some_times(orientation, 100)
    x, y, s = erfa.xys06a(*ts.tt_jd(t))
    x, y = x + at(orientation, t, 3), y + at(orientation, t, 4)
    pole = orientation.pole(t)
    np.testing.assert_allclose(pole[:, :2], np.stack((x, y), axis=-1), rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(pole, axis=1), 1, rtol=0, atol=1e-15)
    polar_motion = erfa.pom00(at(orientation, t, 1), at(orientation, t, 2), erfa.sp00(*ts.tt_jd(t)))
    full = erfa.c2tcio(erfa.c2ixys(x, y, s), erfa.era00(*ut1_jd(orientation, t)), polar_motion)
    np.testing.assert_allclose(orientation.gcrf_to_itrf(t), full, rtol=0, atol=1e-12)


def test_a_result_does_not_depend_on_the_other_epochs_asked_for() -> None:
    t = some_times(EarthOrientation(), 50)
    together = EarthOrientation().gcrf_to_itrf(t)
    alone = EarthOrientation()
    for i in range(len(t)):
        assert alone.gcrf_to_itrf(t[i : i + 1])[0].tobytes() == together[i].tobytes()


def test_ut1_does_not_jump_at_a_leap_second(orientation: EarthOrientation) -> None:
    t = ts.tai_ns_from_utc_text("2017-01-01") + np.arange(-5, 6) * ts.SECOND_NS
    assert np.ptp(orientation.ut1_minus_tai_s(t)) < 1e-6


def test_ut1_is_the_tables_at_its_own_epochs(orientation: EarthOrientation) -> None:
    # finals2000A, Bulletin B: UT1-UTC at 0 h UTC of MJD 41684.
    t = np.array([ts.tai_ns_from_utc_text("1973-01-02")])
    assert orientation.ut1_minus_tai_s(t)[0] + 12 == pytest.approx(0.8075, abs=2e-5)


def test_teme_is_vallados_published_example(orientation: EarthOrientation) -> None:
    # Vallado et al., AIAA 2006-6753, the example of its appendix C (6 April 2004): TEME, ITRF and GCRF, km, km/s.
    # The table of today has UT1 by 0.5 ms other than the paper; that turns the ITRF by 0.3 m and not the GCRF.
    t = np.array([ts.tai_ns_from_utc_text("2004-04-06T07:51:28.386009")])
    m = orientation.teme_to_gcrf(t)[0]
    r = m @ [5094.18016210, 6127.64465950, 6380.34453270]
    np.testing.assert_allclose(r, [5102.508959, 6123.011403, 6378.136925], rtol=0, atol=2e-5)
    v = m @ [-4.746131487, 0.785818041, 5.531931288]
    np.testing.assert_allclose(v, [-4.743220157, 0.790536497, 5.533755727], rtol=0, atol=1e-7)
    itrf = orientation.gcrf_to_itrf(t)[0] @ r
    np.testing.assert_allclose(itrf, [-1033.479383, 7901.295275, 6380.356596], rtol=0, atol=5e-4)


def test_teme_turns_by_the_sidereal_time_of_1982(orientation: EarthOrientation) -> None:
    t = some_times(orientation, 50)
    gmst = erfa.gmst82(*ut1_jd(orientation, t))
    zeros = np.zeros(len(t))
    pef = np.moveaxis(
        np.array(
            [
                [np.cos(gmst), np.sin(gmst), zeros],
                [-np.sin(gmst), np.cos(gmst), zeros],
                [zeros, zeros, zeros + 1],
            ]
        ),
        -1,
        0,
    )
    polar_motion = erfa.pom00(at(orientation, t, 1), at(orientation, t, 2), erfa.sp00(*ts.tt_jd(t)))
    expected = polar_motion @ pef
    np.testing.assert_allclose(
        orientation.gcrf_to_itrf(t) @ orientation.teme_to_gcrf(t), expected, atol=1e-11
    )


def test_dates_outside_of_the_table_are_clamped_and_flagged() -> None:
    orientation = EarthOrientation()
    inside = np.array([orientation.valid_to_ns - ts.DAY_NS])
    orientation.gcrf_to_itrf(inside)
    assert not orientation.clamped
    assert orientation.covers(inside).all()
    for t in (0, orientation.valid_to_ns + 400 * ts.DAY_NS, -(1 << 62), (1 << 63) - 1):
        m = orientation.gcrf_to_itrf(np.array([t]))[0]
        np.testing.assert_allclose(m @ m.T, np.eye(3), atol=1e-12)
        assert not orientation.covers(t)
    assert orientation.clamped
    edge = orientation.ut1_minus_tai_s(
        np.array([orientation.valid_to_ns + 9 * ts.DAY_NS, orientation.valid_to_ns])
    )
    assert edge[0] == pytest.approx(edge[1], abs=1e-5)


def test_the_table_says_how_old_it_is_and_what_it_is(orientation: EarthOrientation) -> None:
    assert orientation.valid_from_ns < orientation.observed_to_ns < orientation.valid_to_ns
    assert orientation.age_days(orientation.observed_to_ns + ts.DAY_NS) == 1.0
    assert len(orientation.sha256) == 64


def test_no_epochs_give_no_matrices(orientation: EarthOrientation) -> None:
    assert orientation.gcrf_to_itrf(np.zeros(0, np.int64)).shape == (0, 3, 3)


@pytest.mark.parametrize("text", [b"", b"no table\n" * 10, b"73 1 2 41684.00 I" + b"x" * 170 + b"\n" * 5])
def test_a_file_that_is_no_table_is_one_clear_error(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "finals"
    path.write_bytes(text)
    with pytest.raises(ValueError, match="not a finals2000A table"):
        EarthOrientation(path)


def test_a_site_stands_on_the_ellipsoid_with_its_own_horizon() -> None:
    np.testing.assert_allclose(refframes.site_itrf(0.0, 0.0, 10.0), [6_378_147.0, 0, 0], atol=1e-6)
    lat, lon = 0.7, -2.1
    up = (refframes.site_itrf(lat, lon, 1_000.0) - refframes.site_itrf(lat, lon, 0.0)) / 1_000.0
    enu = refframes.enu_itrf(lat, lon)
    np.testing.assert_allclose(enu[2], up, atol=1e-9)
    np.testing.assert_allclose(enu @ enu.T, np.eye(3), atol=1e-15)
    north = refframes.site_itrf(lat + 1e-6, lon, 0.0) - refframes.site_itrf(lat, lon, 0.0)
    assert enu[1] @ north / np.linalg.norm(north) == pytest.approx(1.0, abs=1e-9)
    assert np.linalg.det(enu) == pytest.approx(1.0)


def test_the_earth_goes_round_the_sun_at_thirty_kilometres_a_second() -> None:
    t = ts.tai_ns_from_utc_text("2025-01-04") + np.arange(3) * 20 * ts.SECOND_NS
    v = refframes.earth_velocity(t)
    assert np.linalg.norm(v[0]) == pytest.approx(30_290, rel=2e-3)
    _, full = erfa.epv00(*ts.tt_jd(t))
    np.testing.assert_allclose(v, full["v"] * 149_597_870_700 / 86_400, atol=0.3)
