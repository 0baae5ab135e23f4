"""The stages together, without a daemon around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sky import NS, START_NS, detections, overhead, states_at, station

from fusionnode.config import Config
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import DETECTION, Kind, LinkRecord, StructArray
from fusionnode.pipeline import Pipeline, build

TIMES = np.arange(-40.0, 40.0)


def pipeline_for(orientation: EarthOrientation, config: Config) -> Pipeline:
    return Pipeline(config, stream_epoch="test", orientation=orientation)


def run(pipeline: Pipeline, sky: StructArray, every_s: float = 1.0) -> list[tuple[bytes, dict[str, Any]]]:
    """Feed detections as they arrive, tick after each ``every_s`` seconds, finish."""
    sky = sky[np.argsort(sky["t_rx_ns"], kind="stable")]
    messages = []
    begin, end = int(sky["t_rx_ns"][0]), int(sky["t_rx_ns"][-1])
    step = round(every_s * NS)
    for t_ns in range(begin, end + step, step):
        pipeline.feed_detections(sky[(sky["t_rx_ns"] > t_ns - step) & (sky["t_rx_ns"] <= t_ns)])
        messages += pipeline.tick(t_ns)
    messages += pipeline.finish(end + step)
    return [(topic, msgpack.unpackb(payload)) for topic, payload in messages]


def balanced(pipeline: Pipeline) -> bool:
    ledgers: Any = pipeline.summary()["sensors"]
    return all(
        ledger["in"] == sum(n for name, n in ledger.items() if name != "in") for ledger in ledgers.values()
    )


def test_a_pass_through_the_zenith_makes_one_track(orientation: EarthOrientation) -> None:
    """Azimuth swings by half a turn in seconds up there."""
    pipeline = pipeline_for(orientation, station())
    x0 = overhead(orientation)
    messages = run(pipeline, detections(orientation, x0, TIMES, rng=np.random.default_rng(1)))
    states = [body for topic, body in messages if topic.startswith(b"state.")]
    assert {s["trackId"] for s in states} == {"test-000001"}
    truth = states_at(orientation, x0, TIMES[-1:])[0]
    last = [s for s in states if s["status"] == "confirmed"][-1]
    assert np.linalg.norm(np.array([last["xpos"], last["ypos"], last["zpos"]]) * 1e3 - truth[:3]) < 100.0
    assert balanced(pipeline)


@pytest.mark.parametrize("kind", [Kind.OPTICAL_AZEL, Kind.OPTICAL_RADEC])
def test_a_telescope_sharpens_what_a_radar_began(orientation: EarthOrientation, kind: Kind) -> None:
    x0 = overhead(orientation)
    rng = np.random.default_rng(2)
    radar = detections(orientation, x0, TIMES, rng=rng)
    sigmas = []
    for sky in (radar, np.concatenate([radar, detections(orientation, x0, TIMES[20:], kind, rng)])):
        pipeline = pipeline_for(orientation, station())
        messages = run(pipeline, sky)
        last = [body for topic, body in messages if topic.startswith(b"state.")][-1]
        r = np.array([last["xpos"], last["ypos"], last["zpos"]]) * 1e3
        sigma = 1e3 * np.sqrt(last["cov"][0] + last["cov"][2] + last["cov"][5])
        assert np.linalg.norm(r - states_at(orientation, x0, TIMES[-1:])[0, :3]) < 5 * sigma
        sigmas.append(sigma)
        assert balanced(pipeline)
    assert sigmas[1] < 0.6 * sigmas[0]


def test_sequence_numbers_have_no_holes_and_the_stream_ends_with_a_heartbeat(
    orientation: EarthOrientation,
) -> None:
    messages = run(
        pipeline_for(orientation, station()), detections(orientation, overhead(orientation), TIMES)
    )
    assert [body["seq"] for _, body in messages] == list(range(1, len(messages) + 1))
    assert messages[-1][0] == b"heartbeat"
    assert {body["streamEpoch"] for _, body in messages} == {"test"}


@pytest.mark.parametrize("every_s", [0.1, 0.5, 7.0])
def test_states_do_not_depend_on_when_the_ticks_come(orientation: EarthOrientation, every_s: float) -> None:
    """As long as nothing is late: then only the messages in between (heartbeats) differ."""
    sky = np.concatenate([
        detections(orientation, overhead(orientation), TIMES, rng=np.random.default_rng(3)),
        detections(orientation, overhead(orientation, 900e3, 3.0, 200.0), TIMES + 0.3, rng=np.random.default_rng(4)),
    ])  # fmt: skip
    found = []
    for step in (1.0, every_s):
        pipeline = pipeline_for(orientation, station())
        states: list[StructArray] = []
        pipeline.on_states = states.append
        run(pipeline, sky, step)
        joined = np.concatenate(states)
        found.append(joined[joined["epoch_ns"] <= sky["t_meas_ns"].max()])  # after it, they coast on ticks
    for name in ("track", "epoch_ns", "x", "P", "status", "updates"):
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_a_detection_on_its_way_is_not_late_without_any_hold_back(orientation: EarthOrientation) -> None:
    config = station().model_copy(
        update={"tracking": station().tracking.model_copy(update={"hold_back_s": 0.0})}
    )
    pipeline = pipeline_for(orientation, config)
    sky = detections(orientation, overhead(orientation), TIMES)
    sky["t_rx_ns"] += 400_000_000
    run(pipeline, sky, 0.05)
    ledger: Any = pipeline.summary()["sensors"]
    assert "late" not in ledger["radar"]
    assert ledger["radar"]["used"] + ledger["radar"]["used_initiation"] == len(TIMES)


def test_what_comes_after_the_hold_back_window_is_counted_as_late(orientation: EarthOrientation) -> None:
    pipeline = pipeline_for(orientation, station("transit_s = 0.5\nlate_age_s = 0.0"))
    sky = detections(orientation, overhead(orientation), TIMES)
    sky["t_rx_ns"][::10] += 2 * NS
    run(pipeline, sky)
    ledger: Any = pipeline.summary()["sensors"]
    assert ledger["radar"]["late"] == len(TIMES[::10])
    assert balanced(pipeline)


def test_one_lying_time_does_not_move_the_clock_of_recorded_data(orientation: EarthOrientation) -> None:
    config = station(more='[clock]\nmode = "data"')
    pipeline = pipeline_for(orientation, config)
    sky = detections(orientation, overhead(orientation), TIMES)
    sky["t_meas_ns"][5] += 10 * 365 * 86_400 * NS
    for row in sky:
        pipeline.feed_detections(row.reshape(1))
        pipeline.tick(pipeline.newest_ns)
    assert pipeline.newest_ns < START_NS + 3600 * NS
    ledger: Any = pipeline.summary()["sensors"]
    assert ledger["radar"]["used"] > 50


def test_bytes_of_a_link_nobody_configured_are_counted(orientation: EarthOrientation) -> None:
    pipeline = pipeline_for(orientation, station())
    pipeline.feed([LinkRecord(START_NS, "ghost", b"\x00\x01")])
    assert pipeline.outcomes.as_dict() == {"link:ghost": {"link_unknown": 1}}


def test_a_catalogue_gives_names_and_starts_tracks_from_angles_alone(
    orientation: EarthOrientation, tmp_path: Path
) -> None:
    """The elements are a real satellite's; the telescope sees where they say it is."""
    from fusionnode.catalogue.known import KnownObjects

    elements = Path(__file__).resolve().parents[2] / "configs" / "elements" / "demo.tle"
    config = station(more=f'[catalogue]\nfiles = ["{elements}"]\nmax_age_days = 10000.0')
    pipeline = build(config, "test")
    known = KnownObjects.from_files([elements], orientation, max_age_days=10_000.0)
    r, _, good = known.states(START_NS)
    site = pipeline._measurer.site_state(1, START_NS)[0][0]
    up = np.einsum("ni,i->n", r - site, site)
    row = int(np.argmax(np.where(good, up / np.linalg.norm(r - site, axis=1), -1e9)))
    exact = known.exact(row, START_NS)
    assert exact is not None
    sky = detections(orientation, exact, np.arange(0.0, 12.0), Kind.OPTICAL_AZEL, np.random.default_rng(5))
    messages = run(pipeline, sky)
    states = [body for topic, body in messages if topic.startswith(b"state.")]
    assert {s["satNo"] for s in states} == {known.object(row).sat_no}
    assert not any(s["uct"] for s in states)
    assert balanced(pipeline)


ANY_FLOAT = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, np.pi, 2 * np.pi, np.pi / 2, -np.pi / 2, 1e-300, 1e300, 7e6, -1.0]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1) | st.integers(START_NS - 50 * NS, START_NS + 50 * NS),
              st.integers(0, 5), st.integers(0, 4), st.integers(0, 7), st.lists(ANY_FLOAT, min_size=8, max_size=8)),
    min_size=1, max_size=30,
))  # fmt: skip
def test_no_detection_however_hostile_stops_the_pipeline_or_hurts_another_track(
    orientation: EarthOrientation, lies: list[tuple[int, int, int, int, list[float]]]
) -> None:
    x0 = overhead(orientation)
    good = detections(orientation, x0, TIMES, rng=np.random.default_rng(6))
    bad = np.zeros(len(lies), DETECTION)
    fields = ("range_m", "lon_rad", "lat_rad", "range_rate_m_s", "range_sigma_m", "lon_sigma_rad", "lat_sigma_rad",
              "range_rate_sigma_m_s")  # fmt: skip
    for row, (t, sensor, kind, channels, values) in zip(bad, lies, strict=True):
        row["t_meas_ns"], row["sensor_id"], row["kind"], row["channels"] = t, sensor, kind, channels
        for name, value in zip(fields, values, strict=True):
            row[name] = value
    bad["t_rx_ns"] = good["t_rx_ns"][np.arange(len(bad)) % len(good)]
    bad["seq"] = 10_000 + np.arange(len(bad))
    pipeline = pipeline_for(orientation, station())
    messages = run(pipeline, np.concatenate([good, bad]))
    assert balanced(pipeline)
    states = [
        body for topic, body in messages if topic.startswith(b"state.") and body["trackId"] == "test-000001"
    ]
    truth = states_at(orientation, x0, TIMES[-1:])[0]
    last = [s for s in states if s["lastObEnd"] == s["epoch"]][-1]
    assert np.linalg.norm(np.array([last["xpos"], last["ypos"], last["zpos"]]) * 1e3 - truth[:3]) < 300.0


def test_stuck_and_repeated_detections_are_duplicates_not_evidence(orientation: EarthOrientation) -> None:
    pipeline = pipeline_for(orientation, station())
    sky = detections(orientation, overhead(orientation), TIMES)
    run(pipeline, np.repeat(sky, 3))
    ledger: Any = pipeline.summary()["sensors"]
    assert ledger["radar"]["duplicate"] == 2 * len(sky)
    assert balanced(pipeline)


@pytest.mark.parametrize(("ahead_s", "tracks"), [(5.0, 1), (3_600.0, 0)])
def test_a_state_from_the_future_is_left_alone(
    orientation: EarthOrientation, ahead_s: float, tracks: int
) -> None:
    """A clock that was wrong when the node stopped must not make the next run deaf until it is that time again."""
    sky = detections(orientation, overhead(orientation), TIMES, rng=np.random.default_rng(1))
    first = pipeline_for(orientation, station())
    run(first, sky)
    state = first.export_state()
    second = pipeline_for(orientation, station())
    now_ns = state["t_ns"] - round(ahead_s * NS)
    assert second.import_state(state, now_ns).tracks == tracks
    later = detections(
        orientation, overhead(orientation), TIMES + (100.0 - ahead_s), rng=np.random.default_rng(2)
    )
    messages = run(second, later)
    assert second.summary()["sensors"]["radar"].get("late", 0) == 0  # type: ignore[index]
    new = {body["trackId"] for topic, body in messages if topic.startswith(b"state.")}
    assert "test-000001" not in new or tracks
