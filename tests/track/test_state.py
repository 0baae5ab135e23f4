"""Tracks that outlive the tracker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scene import NS, FixedPole, circular, ephemeris, in_order, measure, station

from fusionnode.config import Config
from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import ObjectEvent, Status, StructArray, Tombstone
from fusionnode.record.state_file import decode, encode
from fusionnode.track.past.state import export_state, import_state
from fusionnode.track.told import Event
from fusionnode.track.tracker import Tracker

TIMES = np.arange(0.0, 120.0)
CUT_S = 60.0


def sky() -> StructArray:
    parts = []
    for k in range(4):
        x = circular(800e3 + 40e3 * k, 60.0 + k, -3.0 - k)
        for sensor in (0, 1):
            part = measure(ephemeris(x, TIMES), TIMES, np.random.default_rng(10 * k + sensor), sensor=sensor)
            part["seq"] += 1000 * k
            parts.append(part)
    at = ephemeris(circular(960e3, 64.0, -6.0), np.array([50.0]))[0]
    at[3:] *= 1.0 + 15.0 / np.linalg.norm(at[3:])
    burning = ephemeris(at, TIMES[50:] - 50.0)
    part = measure(
        np.concatenate([ephemeris(circular(960e3, 64.0, -6.0), TIMES[:50]), burning]),
        TIMES,
        np.random.default_rng(99),
    )
    part["seq"] += 9000
    return in_order(*parts, part)


def tracker_of(config: Config) -> Tracker:
    return Tracker(config, FixedPole(), Outcomes())  # type: ignore[arg-type]


def saved(tracker: Tracker) -> dict[str, Any]:
    return decode(encode(export_state(tracker, lambda row: 10_000 + row)))


def rows_of(events: list[Event]) -> list[Any]:
    out: list[Any] = []
    for event in events:
        if isinstance(event, Tombstone | ObjectEvent):
            out.append(event)
        else:
            out += [[np.array(row[n]).tobytes() for n in event.dtype.names or ()] for row in event]
    return out


def test_what_comes_after_is_what_would_have_come_without_the_break() -> None:
    config, measurements = station(), sky()
    before = measurements["t_meas_ns"] <= CUT_S * NS
    whole = tracker_of(config)
    whole.process(measurements[before])
    whole.advance(int(CUT_S) * NS)
    state = saved(whole)
    whole.take_all()
    other = tracker_of(config)
    done = import_state(other, state, lambda _n: -1, int(CUT_S) * NS)
    assert done.tracks == len(whole.slots()) == 5
    (told,) = other.take_all()
    assert isinstance(told, np.ndarray)
    assert sorted(told["track"].tolist()) == [1, 2, 3, 4, 5]
    for tracker in (whole, other):
        tracker.process(measurements[~before])
        tracker.advance(400 * NS)
    a, b = rows_of(whole.take_all()), rows_of(other.take_all())
    assert any(isinstance(e, ObjectEvent) for e in a)
    assert a == b


def test_numbers_go_on_and_are_never_used_again() -> None:
    config, measurements = station(), sky()
    first = tracker_of(config)
    first.process(measurements)
    first.advance(130 * NS)
    begun = first.begun
    second = tracker_of(config)
    import_state(second, saved(first), lambda _n: -1, 130 * NS)
    assert second.begun == begun
    times = np.arange(140.0, 170.0)
    x = circular(1_500e3, 30.0, -12.0)
    second.process(measure(ephemeris(x, times), times, np.random.default_rng(3)))
    assert second.begun == begun + 1
    assert max(second.picture.number[second.slots()].tolist()) == begun + 1


@pytest.mark.parametrize("later_s", [300.0, 3_600.0])
def test_what_was_due_meanwhile_is_due_once_and_tracks_are_predicted_to_now(later_s: float) -> None:
    config, measurements = station(), sky()
    first = tracker_of(config)
    first.process(measurements)
    now = int((120.0 + later_s) * NS)
    second = tracker_of(config)
    import_state(second, saved(first), lambda _n: -1, now)
    second.take_all()
    second.advance(now)
    states = np.concatenate([e for e in second.take_all() if isinstance(e, np.ndarray)])
    assert sorted(states["track"].tolist()) == [1, 2, 3, 4, 5]
    assert (states["status"] == Status.COASTING).all()
    assert (np.abs(states["epoch_ns"] - now) <= NS).all()


def test_too_long_unseen_are_left_behind() -> None:
    first = tracker_of(station())
    first.process(sky())
    second = tracker_of(station())
    done = import_state(second, saved(first), lambda _n: -1, 200_000 * NS)
    assert (done.tracks, done.too_old) == (0, 5)
    assert second.begun == first.begun


def shuffled(order: list[str]) -> Config:
    config = station()
    return config.model_copy(update={"sensor": {name: config.sensor[name] for name in order}})


def test_sensors_go_by_name_when_the_configuration_changed() -> None:
    first = tracker_of(station())
    first.process(sky())
    state = saved(first)
    second = tracker_of(shuffled(["telescope", "second", "radar"]))
    done = import_state(second, state, lambda _n: -1, 125 * NS)
    assert done.sensors_gone == []
    p, q = first.picture, second.picture
    for slot in first.slots().tolist():
        was = {first.sensor_names[i] for i in range(3) if int(p.sensors[slot]) >> i & 1}
        now = {second.sensor_names[i] for i in range(3) if int(q.sensors[slot]) >> i & 1}
        assert was == now
    mine = [first.sensor_names[i] for i in p.ring_sensor[first.slots()].ravel()]
    theirs = [second.sensor_names[i] for i in q.ring_sensor[second.slots()].ravel()]
    assert mine == theirs


def test_a_sensor_that_is_gone_leaves_its_tracks_but_no_trace() -> None:
    first = tracker_of(station())
    first.process(sky())
    second = tracker_of(shuffled(["second", "telescope"]))
    done = import_state(second, saved(first), lambda _n: -1, 125 * NS)
    assert done.sensors_gone == ["radar"]
    assert done.tracks == 5
    assert set(second.picture.sensors[second.slots()].tolist()) <= {0, 1}
    times = np.arange(126.0, 160.0)
    later = measure(ephemeris(circular(800e3, 60.0, -3.0), times), times, np.random.default_rng(4), sensor=0)
    second.process(later)
    states = np.concatenate([e for e in second.take_all() if isinstance(e, np.ndarray)])
    assert set(states["track"][states["epoch_ns"] > 127 * NS].tolist()) <= {1, 2, 3, 4, 5}


def test_objects_go_by_catalogue_number() -> None:
    first = tracker_of(station())
    first.process(sky())
    slot = first.slots()[0]
    first.identify(int(slot), 3)
    second = tracker_of(station())
    import_state(second, saved(first), {10_003: 77}.get, 125 * NS)  # type: ignore[arg-type]
    assert second.picture.object[slot] == 77


def test_a_smaller_picture_keeps_what_stands_on_most() -> None:
    first = tracker_of(station())
    first.process(sky())
    small = station("max_tracks = 16")
    second = tracker_of(small)
    state = saved(first)
    state["high"] = 17
    done = import_state(second, state, lambda _n: -1, 125 * NS)
    assert done.tracks == 5
    assert second.slots().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "key", ["version", "sensors", "begun", "slots", "picture", "objects", "truth", "free"]
)
def test_a_state_that_lacks_something_is_refused_and_leaves_no_tracks(key: str) -> None:
    first = tracker_of(station())
    first.process(sky()[:200])
    state = saved(first)
    del state[key]
    second = tracker_of(station())
    with pytest.raises(ValueError):
        import_state(second, state, lambda _n: -1, 125 * NS)
    assert len(second.slots()) == 0


def test_another_versions_arrays_are_refused() -> None:
    first = tracker_of(station())
    first.process(sky()[:200])
    state = saved(first)
    state["picture"]["P"] = state["picture"]["P"][:, :21]
    with pytest.raises(ValueError, match="another version"):
        import_state(tracker_of(station()), state, lambda _n: -1, 125 * NS)
