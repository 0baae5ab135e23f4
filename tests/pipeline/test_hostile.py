"""Sensors that lie, stutter, get stuck or lose their clock: counted, never raised, and no one else's track is worse."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sky import NS, START_NS, detections, overhead, states_at, station

from fusionnode.config import Config
from fusionnode.core.outcome import Outcome
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import DETECTION, Channel, Kind, StructArray
from fusionnode.pipeline import Pipeline

TIMES = np.arange(0.0, 40.0)
END_NS = START_NS + 60 * NS
ALL = int(Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE)
LIAR, PEERER = 7, 8
HOSTILE = """
[site.far]
lat_deg = -40.0
lon_deg = 177.0
[sensor.liar]
id = 7
kind = "radar"
site = "SITE"
range_sigma_m = 20.0
min_elevation_deg = -90.0
[sensor.peerer]
id = 8
kind = "optical"
angles = "radec"
site = "SITE"
min_elevation_deg = -90.0
REFRACTION
"""
SETTINGS = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def config(site: str, refraction: str = "removed", tracking: str = "") -> Config:
    more = HOSTILE.replace("SITE", site).replace("REFRACTION", f'refraction = "{refraction}"')
    return station(tracking, more)


@cache
def good(orientation: EarthOrientation) -> StructArray:
    """Two objects over the honest radar, one of them in the telescope too."""
    rng = np.random.default_rng(6)
    one, two = overhead(orientation), overhead(orientation, 900e3, 3.0, 200.0)
    parts = [detections(orientation, one, TIMES, rng=rng), detections(orientation, two, TIMES + 0.3, rng=rng)]
    parts.append(detections(orientation, one, TIMES[10:] + 0.6, Kind.OPTICAL_AZEL, rng))
    sky = np.concatenate(parts)
    sky["seq"] = 1 + np.arange(len(sky))
    return sky


def run(orientation: EarthOrientation, station: Config, sky: StructArray) -> Pipeline:
    pipeline = Pipeline(station, stream_epoch="test", orientation=orientation)
    sky = sky[np.argsort(sky["t_rx_ns"], kind="stable")]
    at, t = 0, START_NS
    while t < END_NS:
        t += NS
        upto = int(np.searchsorted(sky["t_rx_ns"], t, side="right"))
        if upto > at:
            pipeline.feed_detections(sky[at:upto])
            at = upto
        pipeline.tick(t)
    return pipeline


def assert_sound(pipeline: Pipeline) -> None:
    """The ledger adds up; every state is finite, on this side of the Moon, and has a covariance that is one."""
    ledgers: Any = pipeline.summary()["sensors"]
    for entries in ledgers.values():
        assert entries["in"] == sum(n for k, n in entries.items() if k != "in")
        assert min(entries.values()) >= 0
    p, slots = pipeline._tracker.picture, pipeline._tracker.slots()
    assert np.isfinite(p.x[slots]).all()
    assert np.isfinite(p.P[slots]).all()
    for P in p.P[slots].reshape(-1, 6, 6):
        np.testing.assert_array_equal(P, P.T)
        scale = np.sqrt(np.diag(P))
        assert np.linalg.eigvalsh(P / np.outer(scale, scale)).min() > 0.0
    assert pipeline.encoder.not_finite == 0


def of_sensors(pipeline: Pipeline, bits: int) -> dict[str, Any]:
    """Tracks that only sensors in ``bits`` contributed to."""
    p, slots = pipeline._tracker.picture, pipeline._tracker.slots()
    slots = slots[(p.sensors[slots] & ~np.uint64(bits)) == 0]
    slots = slots[np.lexsort(p.x[slots].T)]
    return {k: getattr(p, k)[slots] for k in ("x", "P", "epoch", "status", "hits")}


NASTY = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, -1.0, 5e-324, 1e-300, 1e300, 1.7e308]
ANGLES = [0.0, 2 * np.pi, np.nextafter(2 * np.pi, 0), -1e-16, np.pi, -np.pi, np.pi / 2, -np.pi / 2, 4 * np.pi]
lons = st.one_of(st.sampled_from(ANGLES + NASTY), st.floats(-10.0, 10.0))
lats = st.one_of(st.sampled_from(ANGLES + NASTY), st.floats(-1.58, 1.58))
ranges = st.one_of(st.sampled_from([*NASTY, 1.0, 1e-3, 6.0e7]), st.floats(1e-6, 1e8))
rates = st.one_of(st.sampled_from([*NASTY, 1e5, -1e5]), st.floats(-1e5, 1e5))
sigmas = st.one_of(st.sampled_from([*NASTY, 20.0, 0.02, 2e4, 2e-5]), st.floats(0.0, 1e6))
times = st.one_of(
    st.integers(-70, 70).map(lambda s: START_NS + s * NS),
    st.integers(START_NS - 5 * NS, START_NS + 50 * NS),
    st.sampled_from([-(2**63), 2**63 - 1, 0, 1, START_NS + 400 * 86_400 * NS]),
)
lie = st.tuples(
    times, st.sampled_from([LIAR, LIAR, PEERER]), lons, lats, ranges, rates, st.tuples(*[sigmas] * 4)
)


def hostile(lies: list[Any], repeats: int, still: bool) -> StructArray:
    """DETECTION[n]: each lie ``repeats`` times, with the same stamp and number or (``still``) with time going on."""
    out = np.zeros(len(lies) * repeats, DETECTION)
    for i in range(len(out)):
        t, sensor, lon, lat, range_m, rate, sigma = lies[i // repeats]
        row, again = out[i], i % repeats
        row["t_meas_ns"] = min(t + again * NS, 2**63 - 1) if still else t
        row["seq"] = 1 + (i if still else i // repeats)
        row["sensor_id"] = sensor
        row["kind"] = Kind.RADAR_AZEL if sensor == LIAR else Kind.OPTICAL_RADEC
        row["channels"] = ALL if sensor == LIAR else Channel.ANGLES
        row["range_m"], row["lon_rad"], row["lat_rad"], row["range_rate_m_s"] = range_m, lon, lat, rate
        names = ("range_sigma_m", "lon_sigma_rad", "lat_sigma_rad", "range_rate_sigma_m_s")
        for name, value in zip(names, sigma, strict=True):
            row[name] = value
        stamp = int(row["t_meas_ns"])
        row["t_rx_ns"] = stamp if START_NS <= stamp <= END_NS else START_NS + (i % 40) * NS
    return out


@SETTINGS
@given(st.lists(lie, min_size=1, max_size=12), st.integers(1, 6), st.booleans(), st.integers(0, 59))
def test_a_liar_on_the_other_side_of_the_earth_changes_no_bit_of_a_track(
    orientation: EarthOrientation, lies: list[Any], repeats: int, still: bool, delay_s: int
) -> None:
    """Whatever it reports, however late, and however often the tracker must go back for it."""
    bad = hostile(lies, repeats, still)
    bad["t_rx_ns"] = np.minimum(bad["t_rx_ns"] + delay_s * NS, END_NS)
    pipeline = run(orientation, config("far"), np.concatenate([good(orientation), bad]))
    assert_sound(pipeline)
    alone = of_sensors(untroubled(orientation), 0b11111)
    for name, values in of_sensors(pipeline, 0b00111).items():
        np.testing.assert_array_equal(values, alone[name])


@cache
def untroubled(orientation: EarthOrientation) -> Pipeline:
    return run(orientation, config("far"), good(orientation))


@SETTINGS
@given(
    st.lists(lie, min_size=1, max_size=12),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from(["removed", "included", "stellar"]),
)
def test_a_liar_at_the_same_site_leaves_tracks_finite_and_where_the_objects_are(
    orientation: EarthOrientation, lies: list[Any], repeats: int, still: bool, refraction: str
) -> None:
    bad = hostile(lies, repeats, still)
    pipeline = run(orientation, config("here", refraction), np.concatenate([good(orientation), bad]))
    assert_sound(pipeline)
    p, slots = pipeline._tracker.picture, pipeline._tracker.slots()
    for x0 in (overhead(orientation), overhead(orientation, 900e3, 3.0, 200.0)):
        off = [
            np.linalg.norm(x[:3] - states_at(orientation, x0, np.array([(t - START_NS) / NS]))[0, :3])
            for x, t in zip(p.x[slots], p.epoch[slots].tolist(), strict=True)
        ]
        assert min(off) < 500.0


def lied(orientation: EarthOrientation, **values: Any) -> StructArray:
    """What an honest radar says of the first object, from the liar, with some of it replaced."""
    out = detections(orientation, overhead(orientation), TIMES + 0.5, rng=np.random.default_rng(9))
    out["sensor_id"], out["seq"] = LIAR, 1 + np.arange(len(out))
    for name, value in values.items():
        out[name] = value
    return out


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"range_m": np.nan}, Outcome.NOT_FINITE),
        ({"lat_rad": np.inf}, Outcome.NOT_FINITE),
        ({"range_rate_m_s": -np.inf}, Outcome.NOT_FINITE),
        ({"range_sigma_m": np.nan}, Outcome.NOT_FINITE),
        ({"range_m": 0.0}, Outcome.OUT_OF_LIMITS),
        ({"range_sigma_m": 1e30}, Outcome.OUT_OF_LIMITS),
        ({"lon_sigma_rad": 1e-30}, Outcome.OUT_OF_LIMITS),
        ({"t_meas_ns": 2**63 - 1}, Outcome.OUT_OF_LIMITS),
        ({"t_meas_ns": START_NS + 86_400 * NS}, Outcome.TIME_IN_FUTURE),
        ({"t_meas_ns": START_NS - 86_400 * NS}, Outcome.LATE),
        ({"kind": Kind.OPTICAL_RADEC}, Outcome.WRONG_KIND),
        ({"channels": 0}, Outcome.NO_ANGLES),
    ],
)
def test_every_kind_of_lie_has_its_outcome(
    orientation: EarthOrientation, values: dict[str, Any], outcome: Outcome
) -> None:
    bad = lied(orientation, **values)
    pipeline = run(orientation, config("here"), np.concatenate([good(orientation), bad]))
    assert pipeline.outcomes.of("liar") == {outcome: len(bad)}
    assert_sound(pipeline)


@pytest.mark.parametrize(
    "values",
    [
        {"lat_rad": np.pi / 2},
        {"lat_rad": 0.0, "lon_rad": 0.0},
        {"lon_rad": 2 * np.pi},
        {"range_m": 1e-6},
        {"range_m": 6.0e7, "range_rate_m_s": 1e5},
        {"range_sigma_m": 2e4, "lon_sigma_rad": 0.3, "lat_sigma_rad": 0.3, "range_rate_sigma_m_s": 1e3},
        {"range_sigma_m": 0.02, "lon_sigma_rad": 4e-7, "lat_sigma_rad": 4e-7, "range_rate_sigma_m_s": 1e-3},
    ],
)
def test_a_stuck_sensor_moves_no_track(orientation: EarthOrientation, values: dict[str, Any]) -> None:
    """The same direction, or range, or sigmas at the end of what is allowed, over and over."""
    pipeline = run(
        orientation, config("here"), np.concatenate([good(orientation), lied(orientation, **values)])
    )
    assert_sound(pipeline)
    truth = states_at(orientation, overhead(orientation), np.arange(61.0))
    p, slots = pipeline._tracker.picture, pipeline._tracker.slots()
    number = np.argmin(p.number[slots])
    at = round((int(p.epoch[slots[number]]) - START_NS) / NS)
    assert min(np.linalg.norm(p.x[slots][:, :3] - truth[at, :3], axis=1)) < 500.0


def test_a_clock_that_goes_back_is_told_and_moves_no_track(orientation: EarthOrientation) -> None:
    bad = lied(orientation)
    bad["t_meas_ns"][20:] -= 15 * NS
    pipeline = run(orientation, config("here"), np.concatenate([good(orientation), bad]))
    assert_sound(pipeline)
    clock: Any = pipeline.summary()["clocks"]
    assert clock["liar"]["clockSteps"] == 1
    assert clock["liar"]["clockStepS"] == pytest.approx(-15.0, abs=0.1)
    assert clock["liar"]["clockBackwards"] == 1
    assert clock["radar"]["clockSteps"] == clock["radar"]["clockBackwards"] == 0


def test_a_node_whose_own_time_goes_back_raises_nothing(orientation: EarthOrientation) -> None:
    pipeline = Pipeline(config("here"), stream_epoch="test", orientation=orientation)
    sky = good(orientation)
    for k, t_s in enumerate([5, 4, 10, -3, 10, 9, 30, 29, 40]):
        pipeline.feed_detections(sky[k * 10 : k * 10 + 10])
        pipeline.tick(START_NS + t_s * NS)
    pipeline.tick(0)
    pipeline.tick(-5)
    pipeline.finish(START_NS + 20 * NS)
    assert_sound(pipeline)
