"""Measurements that come late, and a tracker that goes back for them."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from sky import NS, START_NS, detections, overhead, station

from fusionnode.config import Config
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import Kind, StructArray
from fusionnode.pipeline import Pipeline
from fusionnode.track.past import rewind
from fusionnode.track.past.checkpoint import own_arrays

TIMES = np.arange(0.0, 100.0)
END_NS = START_NS + 170 * NS


def many_objects(orientation: EarthOrientation, seed: int, n: int = 3, clutter: int = 0) -> StructArray:
    """Radar and telescope on ``n`` objects that come within reach at different times, and false alarms."""
    rng = np.random.default_rng(seed)
    parts = []
    for k in range(n):
        x0 = overhead(orientation, 700e3 + 15e3 * k, 0.7 * k - 1.0, 30.0 + 25.0 * k)
        parts.append(detections(orientation, x0, TIMES[5 * k :], rng=rng))
        if k % 2 == 0:
            parts.append(detections(orientation, x0, TIMES[20:] + 0.4, Kind.OPTICAL_RADEC, rng))
    if clutter:
        false = detections(orientation, overhead(orientation), rng.uniform(0.0, 100.0, clutter), rng=rng)
        false["lon_rad"] = rng.uniform(0.0, 2 * np.pi, clutter)
        false["lat_rad"] = rng.uniform(0.3, 1.5, clutter)
        false["range_m"] = rng.uniform(5e5, 3e6, clutter)
        parts.append(false)
    sky = np.concatenate(parts)
    for sensor in (1, 3):
        mine = sky["sensor_id"] == sensor
        sky["seq"][mine] = 1 + np.argsort(np.argsort(sky["t_meas_ns"][mine], kind="stable"))
    return sky


def shuffled(sky: StructArray, seed: int, most_s: float = 60.0) -> StructArray:
    """The same detections, each received up to ``most_s`` after it was measured."""
    out = sky.copy()
    delay_s = np.random.default_rng(seed).uniform(0.0, most_s, len(sky))
    out["t_rx_ns"] = out["t_meas_ns"] + (delay_s * NS).astype(np.int64)
    return out


def run(orientation: EarthOrientation, config: Config, sky: StructArray, step_s: float = 1.0) -> Pipeline:
    """A pipeline that was fed by arrival, ticked until END_NS, and not finished; messages are in ``.said``."""
    pipeline = Pipeline(config, stream_epoch="test", orientation=orientation)
    sky = sky[np.argsort(sky["t_rx_ns"], kind="stable")]
    pipeline.said = []  # type: ignore[attr-defined]
    at, t = 0, START_NS
    while t < END_NS:
        t += round(step_s * NS)
        upto = int(np.searchsorted(sky["t_rx_ns"], t, side="right"))
        if upto > at:
            pipeline.feed_detections(sky[at:upto])
            at = upto
        pipeline.said += pipeline.tick(t)  # type: ignore[attr-defined]
    return pipeline


def tracks(pipeline: Pipeline) -> dict[str, Any]:
    """All that the tracks are, but for their numbers, in an order of its own."""
    p, slots = pipeline._tracker.picture, pipeline._tracker.slots()
    slots = slots[np.lexsort(p.x[slots].T)]
    return {k: getattr(p, k)[slots] for k in ("x", "P", "epoch", "last_ob", "status", "hits", "sensors")}


def ledgers(pipeline: Pipeline) -> Any:
    return pipeline.summary()["sensors"]


def balanced(pipeline: Pipeline) -> bool:
    return all(e["in"] == sum(n for k, n in e.items() if k != "in") for e in ledgers(pipeline).values())


@pytest.mark.parametrize(("seed", "clutter", "step_s"), [(1, 0, 1.0), (2, 60, 0.7)])
def test_a_shuffled_feed_ends_as_the_ordered_one_to_the_last_bit(
    orientation: EarthOrientation, seed: int, clutter: int, step_s: float
) -> None:
    sky = many_objects(orientation, seed, clutter=clutter)
    ordered = run(orientation, station(), sky)
    late = run(orientation, station(), shuffled(sky, seed), step_s)
    a, b = tracks(ordered), tracks(late)
    assert len(a["x"]) >= 3
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert late._rewind.replays > 10
    assert ledgers(ordered) == ledgers(late)
    assert balanced(late)


def test_a_late_detection_can_complete_a_start(orientation: EarthOrientation) -> None:
    sky = detections(orientation, overhead(orientation), np.arange(4.0), rng=np.random.default_rng(1))
    sky["t_rx_ns"][1] += 30 * NS
    pipeline = Pipeline(station(), stream_epoch="test", orientation=orientation)
    for t in range(1, 12):
        upto = sky[(sky["t_rx_ns"] > START_NS + (t - 1) * NS - 1) & (sky["t_rx_ns"] <= START_NS + t * NS)]
        pipeline.feed_detections(upto)
        pipeline.tick(START_NS + t * NS)
    assert pipeline._tracker.begun == 0
    pipeline.feed_detections(sky[1:2])
    pipeline.tick(START_NS + 13 * NS)
    assert ledgers(pipeline)["radar"]["used_initiation"] == 4
    assert pipeline._rewind.late.tolist() == [1, 0, 0]


def test_numbers_of_tracks_do_not_change_and_the_dead_stay_dead(orientation: EarthOrientation) -> None:
    """Every state of a number is one object's, and nothing follows a tombstone."""
    sky = many_objects(orientation, 4)
    pipeline = run(orientation, station("tentative_limit_s = 5.0"), shuffled(sky, 5))
    last: dict[str, np.ndarray] = {}
    epochs: dict[str, str] = {}
    dead: set[str] = set()
    for topic, payload in pipeline.said:  # type: ignore[attr-defined]
        body = msgpack.unpackb(payload)
        if topic.startswith(b"state."):
            track = body["trackId"]
            assert track not in dead
            h = np.cross(
                [body[k] for k in ("xpos", "ypos", "zpos")], [body[k] for k in ("xvel", "yvel", "zvel")]
            )
            h /= np.linalg.norm(h)
            if track in last and body["status"] == "confirmed":
                assert h @ last[track] > 0.98  # the same orbital plane; two of these differ by 25 degrees
            last[track], epochs[track] = h, body["epoch"]
        elif topic.startswith(b"tombstone"):
            dead.add(body["trackId"])
    assert len(set(last) - dead) == 3


def test_what_is_older_than_the_age_is_refused(orientation: EarthOrientation) -> None:
    sky = many_objects(orientation, 6, n=1)
    sky["t_rx_ns"][:10] += 25 * NS
    pipeline = run(orientation, station("late_age_s = 20.0"), sky)
    assert ledgers(pipeline)["radar"]["late"] == 10
    assert pipeline._rewind.late.sum() == 0
    assert balanced(pipeline)


def test_a_late_copy_is_a_duplicate(orientation: EarthOrientation) -> None:
    sky = many_objects(orientation, 7, n=1)
    again = sky[30:40].copy()
    again["t_rx_ns"] += 20 * NS
    pipeline = run(orientation, station(), np.concatenate([sky, again]))
    plain = run(orientation, station(), sky)
    assert ledgers(pipeline)["radar"]["duplicate"] == 10
    assert pipeline._rewind.late.sum() == 0
    for name, values in tracks(plain).items():
        np.testing.assert_array_equal(values, tracks(pipeline)[name])


def test_a_full_log_reaches_back_less_and_says_so(orientation: EarthOrientation) -> None:
    pipeline = run(
        orientation, station("late_log_measurements = 150"), shuffled(many_objects(orientation, 8), 9)
    )
    assert pipeline._rewind.overflows > 0
    assert pipeline._rewind._logged < 250
    assert ledgers(pipeline)["radar"]["late"] > 0
    assert balanced(pipeline)


def test_without_credit_late_measurements_wait_and_nothing_is_lost(
    orientation: EarthOrientation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewind, "CREDIT_PER_S", 20.0)
    monkeypatch.setattr(rewind, "CREDIT_PER_MEASUREMENT", 0.0)
    monkeypatch.setattr(rewind, "LEAST_CREDIT", 0.0)
    sky = many_objects(orientation, 10)
    ordered, poor = run(orientation, station(), sky), run(orientation, station(), shuffled(sky, 11))
    for pipeline in (ordered, poor):
        pipeline.finish(END_NS)
    assert 0 < poor._rewind.replays < 40
    for name, values in tracks(ordered).items():
        np.testing.assert_array_equal(values, tracks(poor)[name])
    assert balanced(poor)


def test_nothing_is_kept_where_nothing_may_be_late(orientation: EarthOrientation) -> None:
    sky = many_objects(orientation, 12, n=1)
    off, on = (run(orientation, station(f"late_age_s = {age}"), sky) for age in (0.0, 60.0))
    assert (off._rewind._marks, off._rewind._logged) == ([], 0)
    assert off.said == on.said  # type: ignore[attr-defined]
    assert on._rewind.replays == 0


def test_the_same_records_and_ticks_give_the_same_bytes_late_or_not(orientation: EarthOrientation) -> None:
    sky = shuffled(many_objects(orientation, 14, n=1), 15)
    first, again = (run(orientation, station(), sky) for _ in range(2))
    assert first._rewind.replays > 10
    assert first.said == again.said  # type: ignore[attr-defined]


def test_no_part_of_the_trackers_state_is_a_view_of_another(orientation: EarthOrientation) -> None:
    """Or a copy would part them."""
    arrays = own_arrays(run(orientation, station(), many_objects(orientation, 13, n=2, clutter=50))._tracker)
    assert len(arrays) > 20
    for i, a in enumerate(arrays):
        for b in arrays[i + 1 :]:
            assert not np.shares_memory(a, b)
