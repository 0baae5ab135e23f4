"""The yardstick of precise orbits, a few hours and seeds of it (all: ``python tests/acceptance/precise_orbits.py``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emulated import ANGLE_DEG, RANGE_M, RATE_M_S, looks, station
from precise_orbits import FILES, bounds, first_time_ns, nees_of, score

from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import Kind
from fusionnode.intake.measure import Measurer
from fusionnode_hil.truth import Truth, load

HOUR_NS = 3_600_000_000_000


@pytest.fixture(scope="module")
def sentinel(shared_data: Path) -> Truth:
    return load([shared_data / "precise_orbits" / FILES["Sentinel-3A"]])


def test_emulated_looks_are_the_truth_plus_the_noise_they_say(
    sentinel: Truth, orientation: EarthOrientation
) -> None:
    seen = looks(sentinel, first_time_ns(sentinel) + 12 * HOUR_NS, 6.0, 2.0)
    m = Measurer(station(), orientation, Outcomes()).measure(seen.noisy(1))
    assert len(m) == len(seen.detections)
    radar = seen.detections["kind"] == Kind.RADAR_AZEL
    assert 0 < np.count_nonzero(~radar) < len(m)
    rho = seen.truth[:, :3] - m["site_r"]
    delay = np.where(radar, 0.0, np.linalg.norm(rho, axis=1) / 299_792_458.0)[:, None]
    rho = rho - delay * seen.truth[:, 3:]
    distance = np.linalg.norm(rho, axis=1)
    assert np.std(distance[radar] - m["range_m"][radar]) == pytest.approx(RANGE_M, rel=0.1)
    rate = np.sum(rho * (seen.truth[:, 3:] - m["site_v"]), axis=1) / distance
    assert np.std(rate[radar] - m["range_rate_m_s"][radar]) == pytest.approx(RATE_M_S, rel=0.1)
    for kind, sigma_deg in ((radar, ANGLE_DEG), (~radar, 2.0 / 3600.0)):
        for axis in ("e_lon", "e_lat"):
            off = np.einsum("ij,ij->i", rho, m[axis])[kind] / distance[kind]
            assert np.std(off) == pytest.approx(np.radians(sigma_deg), rel=0.25)
            assert abs(np.mean(off)) < 5.0 * np.radians(sigma_deg) / np.sqrt(len(off))


def test_nees_of_drawn_errors_is_six() -> None:
    rng = np.random.default_rng(1)
    A = rng.normal(size=(2_000, 6, 6)) * np.array([1e3] * 3 + [1.0] * 3)[:, None]
    d = np.einsum("nij,nj->ni", A, rng.normal(size=(2_000, 6)))
    assert np.mean(nees_of(d, A @ np.swapaxes(A, 1, 2))) == pytest.approx(6.0, abs=0.3)
    assert bounds(50) == pytest.approx((5.08, 7.00), abs=0.005)


@pytest.mark.parametrize("name", list(FILES))
def test_a_satellite_is_held_from_pass_to_pass(shared_data: Path, name: str) -> None:
    truth = load([shared_data / "precise_orbits" / FILES[name]])
    s = score(
        station("coast_publish_s = 600.0", 5.0), truth, first_time_ns(truth) + 12 * HOUR_NS, 8.0, 2, 5.0
    )
    assert s.passes >= 4
    assert s.tracks == 1.0
    assert s.used > 0.99
    assert np.median(s.rms_m) < 150.0
    assert 0.9 < s.nis < 1.1
    assert 2.0 < np.median(s.nees) < 12.0
