from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import erfa
import numpy as np
import numpy.typing as npt
import pytest

from fusionnode.codec.b3 import B3Decoder
from fusionnode.config import Config
from fusionnode.core import timescales as ts
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.refframes import (
    SPEED_OF_LIGHT_M_S,
    EarthOrientation,
    earth_velocity,
    enu_itrf,
    site_itrf,
)
from fusionnode.core.types import DETECTION, Channel, Kind, StructArray
from fusionnode.intake.measure import Measurer

F64 = npt.NDArray[np.float64]
T0 = ts.tai_ns_from_utc_text("2025-09-01T12:00:00")
ALL = int(Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE)
SITE = {"lat_deg": -30.0, "lon_deg": 70.0, "height_m": 2_400.0}
LAT, LON = np.radians(-30.0), np.radians(70.0)


def config(**sensors: dict[str, Any]) -> Config:
    return Config.model_validate(
        {
            "node": {"id": "test"},
            "site": {"hill": SITE},
            "sensor": {name: {"kind": "radar", "site": "hill"} | keys for name, keys in sensors.items()},
        }
    )


def detections(n: int = 1, **values: Any) -> StructArray:
    """Radar detections of sensor 1, high in the south-east, 1000 km away."""
    d = np.zeros(n, DETECTION)
    d["t_meas_ns"] = T0 + np.arange(n) * ts.SECOND_NS
    d["t_rx_ns"] = d["t_meas_ns"] + 1_000
    d["seq"] = np.arange(n)
    d["sensor_id"], d["kind"], d["channels"] = 1, Kind.RADAR_AZEL, ALL
    d["range_m"], d["lon_rad"], d["lat_rad"], d["range_rate_m_s"] = 1.0e6, 2.0, 0.9, -3_000.0
    for name, value in values.items():
        d[name] = value
    return d


def measurer(orientation: EarthOrientation, **sensors: dict[str, Any]) -> tuple[Measurer, Outcomes]:
    outcomes = Outcomes()
    return Measurer(config(**sensors), orientation, outcomes), outcomes


def plain_frame(orientation: EarthOrientation, t: int) -> tuple[F64, F64, F64]:
    """Site position, velocity by differences, and rows east, north, up; GCRF, with numpy and erfa only."""
    r = site_itrf(LAT, LON, 2_400.0)
    before, now, after = orientation.gcrf_to_itrf(np.array([t - 10**9, t, t + 10**9]))
    return now.T @ r, (after.T @ r - before.T @ r) / 2.0, enu_itrf(LAT, LON) @ now


def test_geometry_is_that_of_plain_vectors(orientation: EarthOrientation) -> None:
    rng = np.random.default_rng(3)
    n = 40
    az, el = rng.uniform(-np.pi, 2 * np.pi, n), rng.uniform(0.0, np.pi / 2, n)
    m, _ = measurer(orientation, radar={"id": 1})
    out = m.measure(detections(n, lon_rad=az, lat_rad=el))
    for i in range(n):
        r, v, enu = plain_frame(orientation, int(out["t_meas_ns"][i]))
        los = (np.cos(el[i]) * np.array([np.sin(az[i]), np.cos(az[i]), 0]) + [0, 0, np.sin(el[i])]) @ enu
        np.testing.assert_allclose(out["site_r"][i], r, atol=1e-6)
        np.testing.assert_allclose(out["site_v"][i], v, atol=2e-3)
        np.testing.assert_allclose(out["los"][i], los, atol=1e-14)
        np.testing.assert_allclose(out["e_lon"][i], [np.cos(az[i]), -np.sin(az[i]), 0] @ enu, atol=1e-14)
        # Azimuth turns the other way round than right ascension.
        np.testing.assert_allclose(np.cross(out["e_lat"][i], out["e_lon"][i]), los, atol=1e-14)
    site_r, site_v = m.site_state(0, out["t_meas_ns"])
    np.testing.assert_allclose(site_r, out["site_r"], atol=1e-8)
    np.testing.assert_allclose(site_v, out["site_v"], atol=1e-11)


def test_one_and_many_are_measured_alike(orientation: EarthOrientation) -> None:
    m, _ = measurer(orientation, radar={"id": 1, "lon_bias_deg": 0.01})
    many = detections(30, lon_rad=np.linspace(0, 6, 30))
    together = m.measure(many)
    for i in range(30):
        assert str(m.measure(many[i : i + 1])[0]) == str(together[i])
    frozen = many.copy()
    frozen.flags.writeable = False
    assert str(m.measure(frozen[::2]).tolist()) == str(together[::2].tolist())


def test_biases_are_measured_minus_true_and_of_azimuth_itself(orientation: EarthOrientation) -> None:
    biases = {
        "range_bias_m": 80.0,
        "lon_bias_deg": 0.3,
        "lat_bias_deg": -0.2,
        "range_rate_bias_m_s": 2.0,
        "time_bias_s": 0.25,
    }
    biased, _ = measurer(orientation, radar={"id": 1, **biases})
    exact, _ = measurer(orientation, radar={"id": 1})
    true = detections(1, t_meas_ns=T0)
    seen = true.copy()
    seen["t_meas_ns"] += 250_000_000
    seen["range_m"] += 80.0
    seen["lon_rad"] += np.radians(0.3)
    seen["lat_rad"] += np.radians(-0.2)
    seen["range_rate_m_s"] += 2.0
    got, want = biased.measure(seen)[0], exact.measure(true)[0]
    assert got["t_meas_ns"] == want["t_meas_ns"]
    for name in ("range_m", "range_rate_m_s", "los", "e_lon", "e_lat", "site_r"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-12, atol=1e-12)


def test_a_round_trip_is_halved_with_its_rate_and_sigmas(orientation: EarthOrientation) -> None:
    m, _ = measurer(orientation, radar={"id": 1, "range_convention": "round_trip", "range_bias_m": 100.0})
    out = m.measure(detections(range_m=2_000_100.0, range_rate_m_s=-6_000.0, range_sigma_m=10.0))[0]
    assert (out["range_m"], out["range_rate_m_s"], out["var"][0]) == (1.0e6, -3_000.0, 25.0)
    assert out["var"][3] == pytest.approx(0.25)


def test_sigmas_come_with_the_detection_or_from_the_configuration(orientation: EarthOrientation) -> None:
    m, _ = measurer(orientation, radar={"id": 1, "range_sigma_m": 12.0, "lon_sigma_deg": 0.01})
    out = m.measure(detections(2, range_sigma_m=[0.0, 3.0], lon_sigma_rad=[1e-4, 0.0]))
    np.testing.assert_allclose(out["var"][:, 0], [144.0, 9.0])
    np.testing.assert_allclose(out["var"][:, 1], [1e-8, np.radians(0.01) ** 2])


@pytest.mark.parametrize(
    ("keys", "kind", "delays"),
    [
        ({}, Kind.RADAR_AZEL, (0.0, 0.0)),
        ({"time_tag": "receive"}, Kind.RADAR_AZEL, (1.0, 1.0)),
        ({"kind": "optical"}, Kind.OPTICAL_AZEL, (1.0, 0.0)),
        ({"kind": "optical", "angles": "radec", "min_elevation_deg": -90}, Kind.OPTICAL_RADEC, (1.0, 0.0)),
    ],
)
def test_light_time_is_told_to_the_tracker(
    orientation: EarthOrientation, keys: dict[str, Any], kind: Kind, delays: tuple[float, float]
) -> None:
    m, _ = measurer(orientation, it={"id": 1, **keys})
    out = m.measure(detections(kind=kind))[0]
    assert (out["target_delay"], out["site_delay"]) == delays
    assert out["channels"] == (ALL if kind == Kind.RADAR_AZEL else Channel.ANGLES)
    assert out["range_m"] == (1.0e6 if kind == Kind.RADAR_AZEL else 0.0)


def test_a_range_rate_is_left_out_where_the_configuration_says_so(orientation: EarthOrientation) -> None:
    m, _ = measurer(orientation, radar={"id": 1, "use_range_rate": False})
    out = m.measure(detections(range_rate_m_s=np.nan))[0]
    assert out["channels"] == Channel.RANGE | Channel.ANGLES
    assert out["range_rate_m_s"] == 0.0


def radec(direction: F64) -> dict[str, float]:
    return {"lon_rad": np.arctan2(direction[1], direction[0]), "lat_rad": np.arcsin(direction[2])}


def overhead(orientation: EarthOrientation) -> F64:
    """A direction in GCRF, 25 degrees from the zenith."""
    _, _, enu = plain_frame(orientation, T0)
    return np.array([0.2, -0.4, np.sqrt(0.8)]) @ enu


def test_right_ascension_and_declination_are_gcrf_axes(orientation: EarthOrientation) -> None:
    m, _ = measurer(orientation, it={"id": 1, "kind": "optical", "angles": "radec"})
    los = overhead(orientation)
    out = m.measure(detections(kind=Kind.OPTICAL_RADEC, **radec(los)))[0]
    np.testing.assert_allclose(out["los"], los, atol=1e-15)
    east = np.cross([0, 0, 1], los)
    np.testing.assert_allclose(out["e_lon"], east / np.linalg.norm(east), atol=1e-15)
    np.testing.assert_allclose(out["e_lat"], np.cross(los, out["e_lon"]), atol=1e-15)


@pytest.mark.parametrize("distance_m", [8.0e5, 3.8e7])
def test_each_aberration_convention_gives_the_direction_of_gcrf_geometry(
    orientation: EarthOrientation, distance_m: float
) -> None:
    """From light that travels in the solar system's frame, where nothing is at rest with the Earth."""
    los = overhead(orientation)
    _, site_v, _ = plain_frame(orientation, T0)
    earth_v = earth_velocity(np.array([T0]))[0]
    # In GCRF: target one light time before, site now. In the barycentric frame the Earth has moved on since.
    path = los * distance_m - earth_v * (distance_m / SPEED_OF_LIGHT_M_S)
    among_stars = path / np.linalg.norm(path)
    v = (earth_v + site_v) / SPEED_OF_LIGHT_M_S
    apparent = np.asarray(erfa.ab(among_stars, v, 1e9, np.sqrt(1 - v @ v)))
    assert np.degrees(np.arccos(among_stars @ los)) * 3_600 > 5.0
    for convention, seen in (("removed", los), ("included", apparent), ("stellar", among_stars)):
        keys = {"id": 1, "kind": "optical", "angles": "radec", "aberration": convention}
        m, _ = measurer(orientation, it=keys)
        out = m.measure(detections(kind=Kind.OPTICAL_RADEC, **radec(seen)))[0]
        assert np.linalg.norm(np.cross(out["los"], los)) < 5e-9, convention  # 1 mas
        frame = np.array([out["los"], out["e_lon"], out["e_lat"]])
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=2e-8)


REFUSED: list[tuple[Outcome, dict[str, Any]]] = [
    (Outcome.WRONG_KIND, {"kind": Kind.OPTICAL_AZEL}),
    (Outcome.WRONG_KIND, {"kind": 77}),
    (Outcome.NO_ANGLES, {"channels": Channel.RANGE}),
    (Outcome.NOT_FINITE, {"range_m": np.nan}),
    (Outcome.NOT_FINITE, {"lat_rad": np.inf}),
    (Outcome.NOT_FINITE, {"range_rate_sigma_m_s": np.nan}),
    (Outcome.OUT_OF_LIMITS, {"range_m": 0.0}),
    (Outcome.OUT_OF_LIMITS, {"range_m": 6.1e7}),
    (Outcome.OUT_OF_LIMITS, {"lat_rad": 1.6}),
    (Outcome.OUT_OF_LIMITS, {"lat_rad": np.radians(-2.1)}),
    (Outcome.OUT_OF_LIMITS, {"lon_rad": 1e9}),
    (Outcome.OUT_OF_LIMITS, {"range_rate_m_s": 2e5}),
    (Outcome.OUT_OF_LIMITS, {"range_sigma_m": -1.0}),
    (Outcome.OUT_OF_LIMITS, {"lon_sigma_rad": 10.0}),
    (Outcome.OUT_OF_LIMITS, {"t_meas_ns": -5}),
    (Outcome.OUT_OF_LIMITS, {"t_meas_ns": (1 << 63) - 1}),
    (Outcome.TIME_IN_FUTURE, {"t_meas_ns": T0 + 63 * ts.SECOND_NS}),
]


@pytest.mark.parametrize(("outcome", "values"), REFUSED)
def test_a_refused_detection_has_one_named_outcome(
    orientation: EarthOrientation, outcome: Outcome, values: dict[str, Any]
) -> None:
    m, outcomes = measurer(orientation, radar={"id": 1})
    batch = np.concatenate((detections(2), detections(1, **values), detections(2)))
    out = m.measure(batch, T0 + 60 * ts.SECOND_NS)
    assert out["seq"].tolist() == [0, 1, 0, 1]
    assert outcomes.as_dict() == {"radar": {outcome.value: 1}}


def test_unknown_and_disabled_sensors_are_counted_and_unknown_ones_without_end_are_not_listed(
    orientation: EarthOrientation,
) -> None:
    m, outcomes = measurer(orientation, b={"id": 7, "enabled": False}, a={"id": 3})
    batch = detections(4, sensor_id=[3, 7, 8, 3])
    assert m.measure(batch)["sensor"].tolist() == [1, 1]
    assert outcomes.as_dict() == {"b": {"sensor_disabled": 1}, "sensor:8": {"unknown_sensor": 1}}
    assert m.names == ("b", "a")
    m.measure(detections(1_000, sensor_id=np.arange(100, 1_100)))
    assert outcomes.total(Outcome.UNKNOWN_SENSOR) == 1_001
    assert len(outcomes.as_dict()) <= 70


def test_a_direction_below_the_horizon_is_refused_in_right_ascension_too(
    orientation: EarthOrientation,
) -> None:
    m, outcomes = measurer(orientation, it={"id": 1, "kind": "optical", "angles": "radec"})
    assert len(m.measure(detections(kind=Kind.OPTICAL_RADEC, **radec(-overhead(orientation))))) == 0
    assert outcomes.as_dict() == {"it": {"out_of_limits": 1}}


def test_damage_of_any_kind_is_an_outcome_and_no_exception(orientation: EarthOrientation) -> None:
    rng = np.random.default_rng(5)
    m, outcomes = measurer(orientation, a={"id": 1}, b={"id": 2, "kind": "optical", "angles": "radec"})
    batch = np.frombuffer(rng.bytes(500 * DETECTION.itemsize), DETECTION).copy()
    batch["sensor_id"] %= 4
    batch["kind"] %= 4
    out = m.measure(batch, T0)
    assert len(out) + sum(n for counts in outcomes.as_dict().values() for n in counts.values()) == 500
    assert np.isfinite(out["los"]).all()


def test_no_detections_give_no_measurements(orientation: EarthOrientation) -> None:
    m, _ = measurer(orientation, radar={"id": 1})
    assert len(m.measure(detections(0))) == 0


def test_topex_is_where_the_radars_of_1996_saw_it(orientation: EarthOrientation, shared_data: Path) -> None:
    outcomes = Outcomes()
    sites = {
        "kaena": {"lat_deg": 21.57208, "lon_deg": -158.26674, "height_m": 300.2},
        "ascension": {"lat_deg": -7.90668, "lon_deg": -14.40265, "height_m": 56.1},
        "antigua": {"lat_deg": 17.14360, "lon_deg": -61.79267, "height_m": 0.5},
    }
    numbers = {"kaena": 932, "ascension": 354, "antigua": 363}
    sensors = {k: {"id": n, "kind": "radar", "site": k} for k, n in numbers.items()}
    m = Measurer(
        Config.model_validate({"node": {"id": "t"}, "site": sites, "sensor": sensors}), orientation, outcomes
    )
    text = gzip.decompress((shared_data / "ssn_radar" / "22076_dec1996.b3.gz").read_bytes())
    decoder = B3Decoder("file", outcomes)
    out = m.measure(decoder.decode([(0, text)]).detections)
    assert len(out) == 17_592
    r = out["site_r"] + out["los"] * out["range_m"][:, None]
    # A circular orbit at 1336 km, inclined by 66 degrees: most points are on it, the gross errors are not.
    height = np.linalg.norm(r, axis=1) - 6_371_000
    assert np.mean((height > 1.30e6) & (height < 1.37e6)) > 0.9
    assert np.abs(np.degrees(np.arcsin(r[:, 2] / np.linalg.norm(r, axis=1)))).max() < 67.0
