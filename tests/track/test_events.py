"""What happens to objects on made-up skies is told, and what does not happen is not."""

from __future__ import annotations

import numpy as np
import pytest
from scene import NS, FixedPole, circular, ephemeris, in_order, measure, station

from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import ObjectEvent, StructArray, Tombstone
from fusionnode.track.motion.dynamics import MU
from fusionnode.track.tracker import Tracker

OVERHEAD = circular(800e3, 60.0, -3.0)
TIMES = np.arange(0.0, 180.0)
BURN_S = 60.0


def tracker_for(tracking: str = "") -> Tracker:
    return Tracker(station(tracking), FixedPole(), Outcomes())


def told(tracker: Tracker) -> tuple[list[ObjectEvent], set[int], list[Tombstone]]:
    """Events, numbers of all tracks, tombstones."""
    events = tracker.take_all()
    numbers = {n for e in events if isinstance(e, np.ndarray) for n in e["track"].tolist()}
    return (
        [e for e in events if isinstance(e, ObjectEvent)],
        numbers,
        [e for e in events if isinstance(e, Tombstone)],
    )


def in_track(x: np.ndarray, speed_m_s: float) -> np.ndarray:
    return speed_m_s * x[3:] / np.linalg.norm(x[3:])


def burnt(x0: np.ndarray, times: np.ndarray, burn_s: float, delta_v: np.ndarray) -> np.ndarray:
    """States (n, 6) of an orbit with an impulse."""
    before = ephemeris(x0, times[times < burn_s])
    at = ephemeris(x0, np.array([burn_s]))[0]
    at[3:] += delta_v
    return np.concatenate([before, ephemeris(at, times[times >= burn_s] - burn_s)])


def seen(states: np.ndarray, times: np.ndarray = TIMES, seed: int = 1, **more: object) -> StructArray:
    return measure(states, times, np.random.default_rng(seed), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("speed", "across"),
    [(3.0, False), (8.0, False), (8.0, True), (30.0, False), (30.0, True), (120.0, False), (120.0, True)],
)
def test_a_burn_that_is_watched_is_told_with_its_size_and_time(speed: float, across: bool) -> None:
    at = ephemeris(OVERHEAD, np.array([BURN_S]))[0]
    normal = np.cross(at[:3], at[3:])
    delta_v = speed * normal / np.linalg.norm(normal) if across else in_track(at, speed)
    tracker = tracker_for()
    tracker.process(seen(burnt(OVERHEAD, TIMES, BURN_S, delta_v)))
    tracker.advance(int(TIMES[-1] + 10) * NS)
    events, _, _ = told(tracker)
    assert [(e.kind, e.track) for e in events] == [("manoeuvre", 1)]
    (event,) = events
    assert event.delta_v is not None
    assert event.delta_v_sigma_m_s is not None
    miss = float(np.linalg.norm(np.array(event.delta_v) - delta_v))
    assert miss < max(0.25 * speed, 6.0 * event.delta_v_sigma_m_s)
    assert event.to_ns is not None
    assert (event.from_ns or 0) - 5 * NS <= BURN_S * NS <= event.to_ns + 5 * NS
    assert len(tracker.slots()) == 1


def test_a_burn_between_two_passes_is_told_and_the_number_kept() -> None:
    first, second = np.arange(0.0, 150.0), np.arange(600.0, 780.0)
    x0 = circular(1200e3, 60.0, -10.0)
    at = ephemeris(x0, np.array([300.0]))[0]
    delta_v = in_track(at, 20.0)
    times = np.concatenate([first, second])
    tracker = tracker_for()
    tracker.process(seen(burnt(x0, times, 300.0, delta_v), times))
    tracker.advance(900 * NS)
    events, _, _ = told(tracker)
    assert [(e.kind, e.track) for e in events] == [("manoeuvre", 1)]
    (event,) = events
    assert event.from_ns is not None
    assert event.to_ns is not None
    assert event.from_ns <= 300 * NS <= event.to_ns
    assert event.delta_v is not None
    assert np.linalg.norm(np.array(event.delta_v) - delta_v) < 10.0
    assert tracker.picture.number[tracker.slots()].tolist() == [1]


def test_nothing_is_told_of_a_quiet_sky_nor_of_outliers() -> None:
    rng = np.random.default_rng(7)
    for seed in range(4):
        others = [circular(800e3 + 30e3 * k, 60.0 + k, -3.0 - k) for k in range(4)]
        sky = in_order(*(seen(ephemeris(x, TIMES), seed=10 * seed + k) for k, x in enumerate(others)))
        wild = rng.random(len(sky)) < 0.05
        sky["range_m"][wild] += rng.normal(0.0, 2_000.0, np.count_nonzero(wild))
        tracker = tracker_for()
        tracker.process(sky)
        tracker.advance(400 * NS)
        assert told(tracker)[0] == []


@pytest.mark.parametrize("bias_m", [60.0, 400.0, 3_000.0])
def test_a_step_of_a_sensors_bias_is_no_manoeuvre(bias_m: float) -> None:
    others = [circular(800e3 + 30e3 * k, 60.0 + k, -3.0 - k) for k in range(5)]
    sky = in_order(*(seen(ephemeris(x, TIMES), seed=k) for k, x in enumerate(others)))
    sky["range_m"][sky["t_meas_ns"] >= 60 * NS] += bias_m
    tracker = tracker_for()
    tracker.process(sky)
    tracker.advance(400 * NS)
    assert told(tracker)[0] == []


@pytest.mark.parametrize("bias_m", [150.0, 2_000.0])
def test_a_lying_sensor_beside_a_true_one_makes_no_manoeuvre(bias_m: float) -> None:
    states = ephemeris(OVERHEAD, TIMES)
    lying = seen(states, seed=2, sensor=1)
    lying["range_m"][60:] += bias_m
    tracker = tracker_for()
    tracker.process(in_order(seen(states), lying))
    tracker.advance(400 * NS)
    assert told(tracker)[0] == []


def parted(n: int, x0: np.ndarray, seed: int = 3) -> tuple[StructArray, np.ndarray]:
    """A known object over two passes, from which ``n`` pieces part at 500 s, at some metres a second."""
    first, second = np.arange(0.0, 100.0), np.arange(660.0, 820.0)
    times = np.concatenate([first, second])
    rng = np.random.default_rng(seed)
    whole = ephemeris(x0, times)
    parts = [seen(whole, times, seed)]
    at = ephemeris(x0, np.array([620.0]))[0]
    for k in range(n):
        piece = at.copy()
        way = rng.normal(size=3)
        piece[3:] += (20.0 + 10.0 * k) * way / np.linalg.norm(way)
        parts.append(seen(ephemeris(piece, second - 620.0), second, seed + 1 + k))
        parts[-1]["seq"] += 1000 * (k + 1)
    return in_order(*parts), at


def test_what_parts_from_a_known_object_is_told_of_and_several_are_a_break_up() -> None:
    sky, _ = parted(4, circular(1200e3, 60.0, -12.0))
    tracker = tracker_for()
    tracker.process(sky)
    tracker.advance(1000 * NS)
    events, _, _ = told(tracker)
    near = [e for e in events if e.kind == "new_object_near"]
    assert {e.related for e in near} == {1}
    assert len({e.track for e in near}) == len(near) == 4
    for event in near:
        assert event.epoch_ns is not None
        assert abs(event.epoch_ns - 620 * NS) < 60 * NS
    broken = [e for e in events if e.kind == "breakup"]
    assert [(e.track, e.count) for e in broken] == [(1, 3)]
    assert not [e for e in events if e.kind == "manoeuvre"]


def test_strangers_that_pass_are_not_told_of_as_parted() -> None:
    first, second = np.arange(0.0, 100.0), np.arange(660.0, 820.0)
    x0 = circular(1200e3, 60.0, -12.0)
    known = seen(ephemeris(x0, np.concatenate([first, second])), np.concatenate([first, second]))
    at = ephemeris(x0, np.array([700.0]))[0]
    parts = [known]
    for k, turn in enumerate((np.radians(30.0), np.radians(-75.0))):
        u = at[:3] / np.linalg.norm(at[:3])
        other = at.copy()
        v = at[3:]
        other[3:] = v * np.cos(turn) + np.cross(u, v) * np.sin(turn)
        other[:3] += 3_000.0 * u
        parts.append(seen(ephemeris(ephemeris(other, np.array([-40.0]))[0], second - 660.0), second, 5 + k))
        parts[-1]["seq"] += 1000 * (k + 1)
    tracker = tracker_for()
    tracker.process(in_order(*parts))
    tracker.advance(1000 * NS)
    events, numbers, _ = told(tracker)
    assert len(numbers) == 3
    assert events == []


def test_decay_and_reentry_are_told_once() -> None:
    # perigee at about 90 km: comes below 120 km within minutes
    r = 6_378_137.0 + 260e3
    a = (r + 6_378_137.0 + 90e3) / 2.0
    x0 = circular(260e3, 50.0, -12.0)
    speed = np.sqrt(MU * (2.0 / r - 1.0 / a))
    x0[3:] *= speed / np.linalg.norm(x0[3:])
    times = np.arange(60.0, 240.0)
    tracker = tracker_for()
    tracker.process(seen(ephemeris(x0, times), times))
    for t in range(300, 3600, 100):
        tracker.advance(t * NS)
    events, _, _ = told(tracker)
    assert [e.kind for e in events] == ["decay", "reentry"]
    decay, reentry = events
    assert decay.perigee_m is not None
    assert 70e3 < decay.perigee_m < 110e3
    assert decay.epoch_ns is not None
    assert reentry.height_m is not None
    assert reentry.height_m < 120e3
    assert abs(decay.epoch_ns - reentry.t_ns) < 150 * NS


@pytest.mark.parametrize("cut", [1, 11])
def test_events_do_not_depend_on_how_the_measurements_were_cut(cut: int) -> None:
    sky, _ = parted(3, circular(1200e3, 60.0, -12.0))
    at = ephemeris(OVERHEAD, np.array([BURN_S]))[0]
    burning = seen(burnt(OVERHEAD, TIMES, BURN_S, in_track(at, 8.0)), seed=9)
    burning["seq"] += 50_000
    sky = in_order(sky, burning)
    whole, cut_up = tracker_for(), tracker_for()
    whole.process(sky)
    times = np.unique(sky["t_meas_ns"])
    for first in range(0, len(times), cut):
        some = times[first : first + cut]
        cut_up.process(sky[(sky["t_meas_ns"] >= some[0]) & (sky["t_meas_ns"] <= some[-1])])
        cut_up.advance(int(some[-1]))
    for tracker in (whole, cut_up):
        tracker.advance(1000 * NS)
    a, b = told(whole), told(cut_up)
    assert {e.kind for e in a[0]} >= {"manoeuvre", "new_object_near", "breakup"}
    assert a == b
