"""What emulated sensors measure, against truth computed the plain way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import erfa
import numpy as np
import pytest
from hil_support import radar_config, telescope_config

from fusionnode.codec.registry import make
from fusionnode.config import Config
from fusionnode.core.outcome import Outcomes
from fusionnode.intake.measure import Measurer
from fusionnode_hil import wire
from fusionnode_hil.config import EmulatorConfig, FieldOfView
from fusionnode_hil.earth import Place, bundled_orientation, from_lon_lat, gcrf_from_itrf, unit
from fusionnode_hil.emulator import Emulator
from fusionnode_hil.field import SkyField
from fusionnode_hil.radar import detection_probability, mean_snr
from fusionnode_hil.sensor import FALSE_ALARM, NO_DETECTION, generator
from fusionnode_hil.sky import C, diffuse_sphere_magnitude, in_cylinder, sun_gcrf, sunlit_fraction
from fusionnode_hil.telescope import seen_light_time_ago
from fusionnode_hil.times import NS, parse_time

TURN = 2.0 * np.pi


def detections(config: EmulatorConfig, seconds: float) -> tuple[Emulator, list[tuple[wire.Message, int]]]:
    """Detections with the row of what they are of."""
    emulator = Emulator(config)
    emissions = emulator.sensor.advance(emulator.start_ns + round(seconds * NS))
    pairs = [p for e in emissions for p in zip(e.messages, e.bodies, strict=True)]
    return emulator, [(m, body) for m, body in pairs if body != NO_DETECTION]


def true_radar(emulator: Emulator, t_ns: int, body: int) -> tuple[float, float, float, float]:
    """Range, azimuth, elevation and range rate by pyerfa's own geodesy and a difference in time."""

    def relative(t: int) -> np.ndarray:
        matrix = bundled_orientation().at(np.array([t])).itrf_gcrf[0]
        site = emulator.config.site
        xyz = erfa.gd2gc(1, np.radians(site.lon_deg), np.radians(site.lat_deg), site.height_m)
        return matrix @ emulator.truth.states(t)[body, 0, :3] - xyz

    site = emulator.config.site
    x, y, z = relative(t_ns)
    lon, lat = np.radians(site.lon_deg), np.radians(site.lat_deg)
    east = -np.sin(lon) * x + np.cos(lon) * y
    north = -np.sin(lat) * (np.cos(lon) * x + np.sin(lon) * y) + np.cos(lat) * z
    up = np.cos(lat) * (np.cos(lon) * x + np.sin(lon) * y) + np.sin(lat) * z
    rate = np.linalg.norm(relative(t_ns + NS // 4)) - np.linalg.norm(relative(t_ns - NS // 4))
    distance = float(np.linalg.norm([x, y, z]))
    return distance, float(np.arctan2(east, north) % TURN), float(np.arcsin(up / distance)), float(rate / 0.5)


def test_radar_errors_have_the_configured_sigmas_and_no_bias() -> None:
    emulator, found = detections(
        radar_config(sensor={"cadence_s": 0.25, "lon_sigma_deg": 0.02, "lat_sigma_deg": 0.01}), 150.0
    )
    errors = []
    for m, body in found:
        assert isinstance(m, wire.Radar)
        distance, az, el, rate = true_radar(emulator, m.t_ns, body)
        daz = (m.az_bam32 / 2**32 * TURN - az + np.pi) % TURN - np.pi
        errors.append(
            (
                (m.range_mm * 1e-3 - distance) / 15.0,
                daz * np.cos(el) / np.radians(0.02),
                (m.el_bam32 / 2**32 * TURN - el) / np.radians(0.01),
                (m.range_rate_mm_s * 1e-3 - rate) / 0.5,
            )
        )
    normalised = np.array(errors)
    n = len(normalised)
    assert n > 1_000
    assert (np.abs(normalised.mean(axis=0)) < 4.0 / np.sqrt(n)).all()
    assert (np.abs(normalised.std(axis=0) - 1.0) < 4.0 / np.sqrt(2 * n)).all()
    assert (np.abs(np.corrcoef(normalised.T) - np.eye(4)) < 5.0 / np.sqrt(n)).all()


def test_biases_and_the_device_clock_show_as_configured() -> None:
    quiet = {
        "range_sigma_m": 1e-3,
        "lon_sigma_deg": 1e-7,
        "lat_sigma_deg": 1e-7,
        "range_rate_sigma_m_s": 1e-3,
    }
    biased = {
        "range_bias_m": 80.0,
        "lon_bias_deg": 0.0081,
        "lat_bias_deg": 0.0045,
        "range_rate_bias_m_s": 2.0,
    }
    clock = {"offset_s": 0.5, "drift_ppb": 1_000.0, "locked": False}
    _, plain = detections(radar_config(sensor=quiet), 60.0)
    _, off = detections(radar_config(sensor=quiet | biased | {"clock": clock}), 60.0)
    start = parse_time("2006-06-25T12:38:00")
    assert len(plain) == len(off) > 50
    for (a, body), (b, same) in zip(plain, off, strict=True):
        assert body == same
        assert isinstance(a, wire.Radar)
        assert isinstance(b, wire.Radar)
        assert b.range_mm - a.range_mm == 80_000
        assert (b.az_bam32 - a.az_bam32) % 2**32 == pytest.approx(0.0081 / 360 * 2**32, abs=2)
        assert b.el_bam32 - a.el_bam32 == pytest.approx(0.0045 / 360 * 2**32, abs=2)
        assert b.range_rate_mm_s - a.range_rate_mm_s == 2_000
        assert b.t_ns - a.t_ns == NS // 2 + round((a.t_ns - start) * 1e-6)
        assert a.flags == wire.SIMULATED | wire.TIME_LOCKED
        assert b.flags == wire.SIMULATED


def test_a_receive_time_tag_is_one_light_time_after_the_bounce() -> None:
    _, bounce = detections(radar_config(), 30.0)
    _, receive = detections(radar_config(sensor={"time_tag": "receive"}), 30.0)
    for (a, _), (b, _) in zip(bounce, receive, strict=True):
        assert isinstance(a, wire.Radar)
        assert isinstance(b, wire.Radar)
        assert b.t_ns - a.t_ns == pytest.approx(
            a.range_mm * 1e-3 / C * NS, abs=500
        )  # noise of the range: 50 ns
        assert (a.range_mm, a.az_bam32) == (b.range_mm, b.az_bam32)


def test_a_round_trip_range_is_twice_the_range() -> None:
    _, one = detections(radar_config(), 30.0)
    _, two = detections(radar_config(sensor={"range_convention": "round_trip"}), 30.0)
    for (a, _), (b, _) in zip(one, two, strict=True):
        assert isinstance(a, wire.Radar)
        assert isinstance(b, wire.Radar)
        assert b.range_mm == pytest.approx(2 * a.range_mm, abs=1)
        assert b.range_sigma_mm == 2 * a.range_sigma_mm


def test_light_left_an_object_when_it_was_further_back_on_its_path() -> None:
    emulator = Emulator(telescope_config())
    t_ns = np.array([emulator.start_ns])
    state = emulator.truth.states(t_ns)
    site = emulator.sensor.place.gcrf(emulator.truth.orientation.at(t_ns).itrf_gcrf)[:, :3]
    then = seen_light_time_ago(state, site)
    for row in range(len(state)):
        tau = np.linalg.norm(then[row, 0] - site[0]) / C
        plain = emulator.truth.states(int(t_ns[0]) - round(tau * NS))[row, 0, :3]
        # an SGP4 velocity differs by centimetres a second from what its positions do
        np.testing.assert_allclose(then[row, 0], plain, atol=0.02)
        assert np.dot(then[row, 0] - state[row, 0, :3], state[row, 0, 3:]) < 0.0
        assert 0.001 < tau < 0.3


def test_the_telescope_sees_the_direction_that_light_time_gives() -> None:
    emulator, found = detections(
        telescope_config(sensor={"lon_sigma_deg": 1e-9, "lat_sigma_deg": 1e-9, "cadence_s": 10.0}), 60.0
    )
    assert len({body for _, body in found}) >= 4
    for m, body in found:
        assert isinstance(m, wire.Optical)
        t_ns = np.array([m.t_ns])
        site = emulator.sensor.place.gcrf(emulator.truth.orientation.at(t_ns).itrf_gcrf)[0, :3]
        state = emulator.truth.states(t_ns)[body, 0]
        tau = np.linalg.norm(state[:3] - site) / C
        expected = unit(emulator.truth.states(m.t_ns - round(tau * NS))[body, 0, :3] - site)
        lon, lat = m.lon_bam32 / 2**32 * TURN, m.lat_bam32 / 2**32 * TURN
        assert np.linalg.norm(from_lon_lat(np.array(lon), np.array(lat)) - expected) < 1e-8
        assert np.linalg.norm(from_lon_lat(np.array(lon), np.array(lat)) - unit(state[:3] - site)) > 2e-7


@pytest.mark.parametrize(
    "sensor",
    [
        {},
        {"time_tag": "receive"},
        {"range_convention": "round_trip", "range_bias_m": 40.0, "lon_bias_deg": 0.02},
    ],
    ids=["bounce", "receive", "round trip with biases"],
)
def test_the_node_makes_of_a_radar_detection_where_the_object_was(sensor, orientation) -> None:
    config = radar_config(sensor=sensor)
    emulator, found = detections(config, 60.0)
    measured = _measured(emulator, found, {"kind": "radar", **sensor}, orientation)
    for m, (_, body) in zip(measured, found, strict=True):
        delay = m["target_delay"] * m["range_m"] / C
        t_ns = int(m["t_meas_ns"]) - round(delay * NS)
        target = emulator.truth.states(t_ns)[body, 0, :3]
        site = m["site_r"] - m["site_delay"] * m["range_m"] / C * m["site_v"]
        relative = target - site
        assert abs(np.linalg.norm(relative) - m["range_m"]) < 5 * 15.0 + 0.5
        across = np.cross(m["los"], unit(relative))
        assert np.linalg.norm(across) < 5 * np.radians(0.01 * np.sqrt(2.0))


@pytest.mark.parametrize(
    "sensor", [{}, {"aberration": "included"}, {"aberration": "stellar"}, {"angles": "azel"}]
)
def test_the_node_makes_of_an_optical_detection_the_geometric_direction(sensor, orientation) -> None:
    quiet = {"lon_sigma_deg": 1e-9, "lat_sigma_deg": 1e-9, "cadence_s": 20.0}
    emulator, found = detections(telescope_config(sensor=quiet | sensor), 60.0)
    node = {"kind": "optical", "angles": "radec"} | sensor
    for m, (_, body) in zip(_measured(emulator, found, node, orientation), found, strict=True):
        state = emulator.truth.states(int(m["t_meas_ns"]))[body, 0]
        tau = np.linalg.norm(state[:3] - m["site_r"]) / C
        then = emulator.truth.states(int(m["t_meas_ns"]) - round(tau * NS))[body, 0, :3]
        # 4 mas: rounding to the wire, and how each side interpolates the Earth's orientation
        assert np.linalg.norm(m["los"] - unit(then - m["site_r"])) < 2e-8


def _measured(emulator: Emulator, found, sensor, orientation) -> Iterator[np.void]:
    site = emulator.config.site.model_dump()
    sensor = {k: v for k, v in sensor.items() if k not in ("lon_sigma_deg", "lat_sigma_deg")}
    tree = {
        "node": {"id": "test"},
        "site": {"here": site},
        "sensor": {"one": {"id": emulator.config.sensor.id, "site": "here", **sensor}},
    }
    outcomes = Outcomes()
    data = b"".join(wire.frame(m) for m, _ in found)
    decoded = make("frames", "link", outcomes).decode([(found[-1][0].t_ns, data)])
    measured = Measurer(Config.model_validate(tree), orientation, outcomes).measure(decoded.detections)
    assert len(measured) == len(found) > 5
    return iter(measured)


def test_detection_probability_falls_with_the_fourth_power_of_range() -> None:
    rng = generator(1, "radar", "test")
    n, pfa = 200_000, 1e-6
    for range_m in (0.5e6, 1.0e6, 2.0e6, 3.0e6):
        snr = mean_snr(np.array(range_m), np.array(1.0), snr_ref_db=15.0, range_ref_m=1.0e6)
        assert 10 * np.log10(snr) == pytest.approx(15.0 - 40.0 * np.log10(range_m / 1.0e6))
        power = rng.standard_exponential(n) * (1.0 + snr)
        found = np.mean(power > -np.log(pfa))
        expected = detection_probability(snr, pfa)
        assert abs(found - expected) < 5.0 * np.sqrt(expected * (1 - expected) / n)
    assert detection_probability(np.array(0.0), pfa) == pytest.approx(pfa)


def test_a_radar_detects_as_often_as_its_probability_says() -> None:
    config = radar_config(sensor={"snr_ref_db": 8.0, "cadence_s": 0.1}, objects={"select": [29238]})
    emulator, found = detections(config, 100.0)
    radar = Emulator(config).sensor
    expected = 0.0
    visible = 0
    for k in range(1_000):
        radar.advance(emulator.start_ns + k * NS // 10)
        column = k % 32
        if radar.field.contains(radar.az[:, column], radar.el[:, column])[0]:  # type: ignore[attr-defined]
            visible += 1
            expected += float(detection_probability(radar._snr[0, column], 1e-6))  # type: ignore[attr-defined]
    assert 0.1 < expected / visible < 0.9
    assert abs(len(found) - expected) < 5.0 * np.sqrt(expected)
    rcs = [10 ** (m.rcs_cdbsm / 1000.0) for m, _ in found if isinstance(m, wire.Radar)]
    assert np.mean(rcs) > 5.0  # only the stronger of its echoes are seen: a true effect


def test_false_alarms_come_at_their_rate_and_from_all_of_the_field() -> None:
    field = {
        "min_elevation_deg": 20.0,
        "max_elevation_deg": 60.0,
        "azimuth_from_deg": 350.0,
        "azimuth_to_deg": 40.0,
    }
    emulator, found = detections(
        radar_config(sensor={"false_alarms_per_scan": 3.0, "field": field, "cadence_s": 0.5}), 200.0
    )
    false = [m for m, body in found if body == FALSE_ALARM]
    scans = 401
    assert abs(len(false) - 3.0 * scans) < 5.0 * np.sqrt(3.0 * scans)
    az = np.array([m.az_bam32 for m in false]) / 2**32 * 360.0
    el = np.array([m.el_bam32 for m in false]) / 2**32 * 360.0
    assert ((az - 350.0) % 360.0 <= 50.0).all()
    assert ((el >= 20.0) & (el <= 60.0)).all()
    assert abs(np.mean((az - 350.0) % 360.0) - 25.0) < 2.0
    assert emulator.start_ns <= min(m.t_ns for m in false)


def test_a_cone_holds_its_samples_and_nothing_else() -> None:
    cone = {"boresight_azimuth_deg": 2.0, "boresight_elevation_deg": 88.0, "half_angle_deg": 5.0}
    field = SkyField(FieldOfView(**cone))
    az, el = field.sample(generator(1, "x", "y"), 2_000)
    assert len(az) == 2_000
    axis = from_lon_lat(np.radians(2.0), np.radians(88.0))
    cosine = from_lon_lat(az, el) @ axis
    assert (cosine >= np.cos(np.radians(5.0)) - 1e-12).all()
    # uniform over the cap: the cosine is uniform
    assert abs((1 - cosine).mean() / (1 - np.cos(np.radians(5.0))) - 0.5) < 0.04
    assert not field.contains(np.array([0.0, np.nan]), np.array([0.5, np.nan])).any()


def test_horizon_mask_and_maximum_range_hide_objects() -> None:
    emulator, low = detections(radar_config(), 240.0)
    _, high = detections(radar_config(sensor={"field": {"min_elevation_deg": 30.0}}), 240.0)
    _, near = detections(radar_config(sensor={"max_range_m": 2.0e6}), 240.0)
    assert len(low) > len(high) > 0
    assert min(m.el_bam32 for m, _ in high) / 2**32 * 360.0 > 30.0 - 0.05
    assert {emulator.truth.bodies[body].name for _, body in near} == {"SL-12 DEB"}


def test_the_sun_is_where_the_seasons_say() -> None:
    t_ns = np.array([parse_time("2025-03-20T09:01:30"), parse_time("2025-06-21T02:42:00")])
    sun = sun_gcrf(t_ns)
    declination = np.degrees(np.arcsin(unit(sun)[:, 2]))
    assert declination == pytest.approx(
        [-0.139, 23.435], abs=0.005
    )  # of date: 0; GCRF is 25 years of precession back
    assert np.linalg.norm(sun, axis=1) == pytest.approx([1.490e11, 1.5203e11], rel=1e-3)


def test_shadow_is_a_cone_inside_its_penumbra() -> None:
    sun = np.array([1.496e11, 0.0, 0.0])
    down = -7.0e6
    lit = sunlit_fraction(np.array([[down, y, 0.0] for y in np.linspace(6.2e6, 6.5e6, 61)]), sun)
    assert lit[0] == 0.0
    assert lit[-1] == 1.0
    assert (np.diff(lit) >= 0.0).all()
    half = np.interp(0.5, lit, np.linspace(6.2e6, 6.5e6, 61))
    assert half == pytest.approx(6_378_137.0, abs=4e3)
    penumbra = np.interp([0.01, 0.99], lit, np.linspace(6.2e6, 6.5e6, 61))
    assert penumbra[1] - penumbra[0] == pytest.approx(7.0e6 * 2 * 6.957e8 / 1.496e11, rel=0.1)
    assert sunlit_fraction(np.array([7.0e6, 0.0, 0.0]), sun) == 1.0
    # beyond the tip of the umbra (1.4 million km) the Earth leaves a ring
    assert 0.0 < sunlit_fraction(np.array([-3.0e9, 0.0, 0.0]), sun) < 1.0


def test_cone_and_cylinder_agree_away_from_the_edge() -> None:
    rng = np.random.default_rng(3)
    r = unit(rng.normal(size=(5_000, 3))) * rng.uniform(6.6e6, 4.3e7, (5_000, 1))
    sun = sun_gcrf(np.array([parse_time("2006-06-25T12:00:00")]))[0]
    differ = in_cylinder(r, sun) != (sunlit_fraction(r, sun) < 0.5)
    across = np.linalg.norm(np.cross(r, unit(sun)), axis=1)
    assert (np.abs(across[differ] - 6_378_137.0) < 1e5).all()
    assert in_cylinder(r, sun).mean() > 0.01


def test_a_diffuse_sphere_is_as_bright_as_its_formula() -> None:
    def magnitude(phase: float, distance: float = 3.6e7) -> float:
        return float(
            diffuse_sphere_magnitude(
                distance_m=np.array(distance),
                phase_rad=np.array(phase),
                diameter_m=np.array(4.0),
                albedo=np.array(0.2),
            )
        )

    # full: geometric albedo 2/3 of 0.2, so flux ratio (2/3) 0.2 (2 m / 36,000 km)^2
    assert magnitude(0.0) == pytest.approx(-26.74 - 2.5 * np.log10(2 / 3 * 0.2 * (2.0 / 3.6e7) ** 2))
    assert magnitude(np.pi / 2) - magnitude(0.0) == pytest.approx(2.5 * np.log10(np.pi))
    assert magnitude(0.0, 7.2e7) - magnitude(0.0) == pytest.approx(5 * np.log10(2.0))
    assert magnitude(np.pi) > 40.0


def test_a_telescope_works_only_in_the_dark_and_on_lit_objects() -> None:
    noon = {"epoch_utc": "2006-06-25T02:00:00"}
    everything = {"needs_dark_site": False, "needs_sunlit_object": False, "limiting_magnitude": 30.0}
    assert not detections(telescope_config(clock=noon), 60.0)[1]
    assert detections(telescope_config(clock=noon, sensor={"needs_dark_site": False}), 60.0)[1]
    emulator, found = detections(
        telescope_config(sensor=everything, clock={"epoch_utc": "2006-06-25T12:35:00"}), 60.0
    )
    _, lit = detections(
        telescope_config(sensor={"limiting_magnitude": 30.0}, clock={"epoch_utc": "2006-06-25T12:35:00"}),
        60.0,
    )
    names = {emulator.truth.bodies[body].name for _, body in found}
    assert names - {emulator.truth.bodies[body].name for _, body in lit} == {"CBERS 2"}  # in the shadow


def test_faint_objects_are_found_less_often() -> None:
    sensor = {"limiting_magnitude": 12.8, "cadence_s": 0.5}
    _, found = detections(telescope_config(sensor=sensor), 200.0)
    _, deep = detections(telescope_config(sensor=sensor | {"limiting_magnitude": 16.0}), 200.0)
    assert 0.1 < len(found) / len(deep) < 0.9


def test_the_same_seed_gives_the_same_draws_whatever_else_is_switched_on() -> None:
    _, plain = detections(radar_config(), 60.0)
    _, noisy = detections(radar_config(sensor={"false_alarms_per_scan": 2.0}), 60.0)
    real = [m for m, body in noisy if body >= 0]
    assert [m.range_mm for m, _ in plain if isinstance(m, wire.Radar)] == [m.range_mm for m in real]
    _, other = detections(radar_config(seed=8), 60.0)
    assert [m.range_mm for m, _ in plain] != [m.range_mm for m, _ in other]


def test_status_and_time_come_on_their_intervals_in_every_mode() -> None:
    emulator = Emulator(radar_config(sensor={"mode": "off"}))
    emissions = emulator.sensor.advance(emulator.start_ns + 30 * NS)
    status = [e.messages[0] for e in emissions if isinstance(e.messages[0], wire.Status)]
    times = [e.messages[0] for e in emissions if isinstance(e.messages[0], wire.Time)]
    assert {b.t_ns - a.t_ns for a, b in pairwise(status)} == {2 * NS}
    assert len(times) == 4
    assert times[0].tai_minus_utc_s == 33
    assert status[-1].detections_sent == 0
    assert status[-1].uptime_s == 30
    assert len(emissions) == len(status) + len(times)


def test_commands_are_answered_and_a_change_of_mode_is_reported() -> None:
    emulator = Emulator(radar_config())
    sensor = emulator.sensor
    now = emulator.start_ns + 10 * NS
    sensor.advance(now)

    def command(**fields: int) -> list[wire.Message]:
        data = wire.frame(
            wire.Command(**({"sensor_id": 101, "seq": 0, "t_ns": 0, "command_id": 77} | fields))
        )
        return [m for e in sensor.hear(data, now) for m in e.messages]

    (pong,) = command(code=wire.PING)
    assert isinstance(pong, wire.Ack)
    assert (pong.command_id, pong.code, pong.result, pong.received_ns) == (77, wire.PING, wire.DONE, now)
    done, status = command(code=wire.SET_MODE, argument=wire.MODE_STANDBY)
    assert isinstance(done, wire.Ack)
    assert isinstance(status, wire.Status)
    assert (done.result, status.mode, status.commands_received) == (wire.DONE, wire.MODE_STANDBY, 2)
    assert all(not isinstance(m, wire.Radar) for e in sensor.advance(now + 5 * NS) for m in e.messages)
    results = [command(code=code, argument=9) for code in (wire.SET_MODE, wire.CUE, wire.TIME_SYNC, 200)]
    assert [r[0].result for r in results] == [wire.REFUSED] * 3 + [wire.UNKNOWN]
    assert command(sensor_id=5) == []
    now += 5 * NS
    (accepted,) = command(code=wire.SET_MODE, argument=wire.MODE_TRACK, t_ns=now + 3 * NS)
    assert accepted.result == wire.ACCEPTED
    later = [(e.t_ns, m) for e in sensor.advance(now + 10 * NS) for m in e.messages]
    acks = [(t, m.result) for t, m in later if isinstance(m, wire.Ack)]
    assert acks == [(now + 3 * NS, wire.DONE)]
    assert any(isinstance(m, wire.Radar) for _, m in later)
    assert all(t >= now + 3 * NS for t, m in later if isinstance(m, wire.Radar))


def test_time_sync_sets_a_clock_that_is_not_locked() -> None:
    emulator = Emulator(radar_config(sensor={"clock": {"offset_s": 4.0, "locked": False, "source": "free"}}))
    now = emulator.start_ns + NS
    sync = wire.Command(sensor_id=101, seq=0, t_ns=now, code=wire.TIME_SYNC)
    assert emulator.sensor.device_ns(now) == now + 4 * NS
    emulator.sensor.hear(wire.frame(sync), now)
    assert emulator.sensor.device_ns(now) == now


def test_a_site_stands_still_on_the_turning_earth() -> None:
    place = Place.geodetic(45.0, 10.0, 100.0)
    assert place.horizon @ place.horizon.T == pytest.approx(np.eye(3), abs=1e-15)
    t_ns = parse_time("2025-01-01T00:00:00") + np.array([-NS // 2, 0, NS // 2])
    state = place.gcrf(bundled_orientation().at(t_ns).itrf_gcrf)
    # the pole is 2e-6 rad from the axis of ITRF: up to 1 mm/s
    np.testing.assert_allclose(state[2, :3] - state[0, :3], state[1, 3:], atol=1e-3)
    zero = gcrf_from_itrf(np.eye(3)[None], np.array([[0.0, 0.0, 6.4e6, 1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(zero[0, 3:], [1.0, 2.0, 3.0])
