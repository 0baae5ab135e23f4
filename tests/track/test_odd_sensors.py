"""Sensors that are slow, noisy, stuck, or wrong in one channel; and what the tracker makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from scene import EARTH_RATE, NS, FixedPole, circular, ephemeris, in_order, measure, station

from fusionnode.config import Tracking
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import ObjectEvent, Status, StructArray, Tombstone
from fusionnode.track.association.associate import make_room
from fusionnode.track.calibration.collect import Collector
from fusionnode.track.calibration.front import as_measurements
from fusionnode.track.events.crossing import Crossing
from fusionnode.track.filtering.engine_variants import kept_beside
from fusionnode.track.initiation.initiate import LONG_S, SPARSE, Initiator, NewOrbit
from fusionnode.track.lanes import workspace
from fusionnode.track.tracker import Tracker

LOW = circular(800e3, 60.0, -9.0)
NOISY = (500.0, float(np.radians(0.3)), 10.0)
SHARP = (20.0, 1e-4, 0.5)


def a_pass(
    rate_hz: float,
    seconds: float,
    sigma: tuple[float, float, float] = SHARP,
    x0: np.ndarray = LOW,
    seed: int = 1,
    **more: int,
) -> StructArray:
    times = np.arange(0.0, seconds, 1.0 / rate_hz)
    return measure(ephemeris(x0, times), times, np.random.default_rng(seed), sigma=sigma, **more)  # type: ignore[arg-type]


def followed(
    measurements: StructArray, tracking: str = ""
) -> tuple[StructArray, list[ObjectEvent], Outcomes]:
    """States of confirmed tracks, events, and counters."""
    outcomes = Outcomes()
    tracker = Tracker(station(tracking), FixedPole(), outcomes)  # type: ignore[arg-type]
    tracker.process(measurements)
    tracker.finish()
    happened = tracker.take_all()
    states = [e[e["status"] == Status.CONFIRMED] for e in happened if isinstance(e, np.ndarray)]
    assert sum(sum(c.values()) for c in outcomes.as_dict().values()) == len(measurements)
    told = [e for e in happened if isinstance(e, ObjectEvent)]
    assert not any(isinstance(e, Tombstone) for e in happened)
    return np.concatenate(states) if states else np.zeros(0), told, outcomes


def nees(states: StructArray, x0: np.ndarray = LOW) -> np.ndarray:
    error = states["x"] - ephemeris(x0, states["epoch_ns"] / NS)
    return np.einsum("ni,nij,nj->n", error, np.linalg.inv(states["P"]), error)


@pytest.mark.parametrize(("rate_hz", "by_s"), [(0.1, 60.0), (0.2, 40.0), (10.0, 5.0), (50.0, 5.0)])
def test_a_radar_need_not_come_back_as_often_as_its_configuration_says(rate_hz: float, by_s: float) -> None:
    states, _, _ = followed(a_pass(rate_hz, 300.0 if rate_hz < 1.0 else 20.0))
    assert states["epoch_ns"][0] <= by_s * NS
    assert len(set(states["track"])) == 1
    assert np.median(nees(states)) < 12.6


@pytest.mark.parametrize(
    ("x0", "channels"),
    [(LOW, 7), (LOW, 3), (circular(1500e3, 60.0, -9.0), 7), (circular(35_786e3, 0.1, 3.0), 7)],
)
def test_a_very_noisy_radar_starts_tracks_within_its_first_minute(x0: np.ndarray, channels: int) -> None:
    """Half a kilometre and 0.3 deg, once a second; the farthest has 0.01 deg."""
    sigma = NOISY if x0[0] < 2e7 else (500.0, float(np.radians(0.01)), 10.0)
    for seed in range(3):
        states, _, _ = followed(a_pass(1.0, 120.0, sigma, x0, seed, channels=channels))
        assert states["epoch_ns"][0] < 60.0 * NS
        assert np.median(nees(states, x0)) < 16.8  # 99 % of a chi-square of six


@pytest.mark.parametrize("rate", [0.0, None])
@pytest.mark.parametrize("sigma", [SHARP, NOISY])
def test_a_detection_that_is_stuck_never_is_a_track(
    rate: float | None, sigma: tuple[float, float, float]
) -> None:
    stuck = a_pass(1.0, 200.0, sigma, channels=3 if rate is None else 7)
    for k in range(len(stuck)):
        a = EARTH_RATE[2] * k
        turn = np.array([[np.cos(a), -np.sin(a), 0.0], [np.sin(a), np.cos(a), 0.0], [0.0, 0.0, 1.0]])
        for name in ("los", "e_lon", "e_lat"):
            stuck[name][k] = turn @ stuck[name][0]
    stuck["range_m"], stuck["range_rate_m_s"] = stuck["range_m"][0], 0.0
    states, told, outcomes = followed(stuck)
    assert len(states) == 0
    assert told == []
    assert outcomes.get("radar", Outcome.UNASSOCIATED) == len(stuck)


@pytest.mark.parametrize(
    ("channel", "step"), [("range_rate_m_s", 5.0), ("range_rate_m_s", 20.0), ("range_m", 1e3)]
)
def test_a_channel_that_goes_wrong_for_good_leads_no_track_astray_and_is_no_manoeuvre(
    channel: str, step: float
) -> None:
    measurements = a_pass(1.0, 250.0)
    measurements[channel][100:] += step
    states, told, _ = followed(measurements)
    assert told == []
    assert set(states["track"]) == {1}
    assert nees(states).max() < 40.0


def test_few_detections_wait_long_and_many_do_not() -> None:
    tracking = station().tracking
    gone = {}
    for n in (SPARSE // 2, 4 * SPARSE):
        initiator, wild = Initiator(tracking, 1.0), a_pass(1.0, 1.0)
        model = Tracker(station(), FixedPole(), Outcomes()).model  # type: ignore[arg-type]
        rng = np.random.default_rng(2)
        for k in range(n):
            one = wild[0].copy()
            one["t_meas_ns"] = k * NS // 100
            one["range_m"] = rng.uniform(5e5, 3e6)
            assert initiator.add(one, False, workspace(), model)[0] is None
        waited = [initiator.grow_old(int(t * NS))[1] for t in (15.0, 40.0, 60.0, LONG_S + 10.0)]
        assert initiator.pending == 0
        assert sum(waited) == n
        gone[n] = waited
    assert gone[SPARSE // 2] == [0, 0, 0, SPARSE // 2]
    assert gone[4 * SPARSE] == [0, 3 * SPARSE, 0, SPARSE]


def test_a_longer_arc_than_a_track_remembers_hits_does_not_take_a_good_track_over() -> None:
    outcomes = Outcomes()
    tracker = Tracker(station(), FixedPole(), outcomes)  # type: ignore[arg-type]
    tracker.process(a_pass(1.0, 60.0))
    (slot,) = tracker.slots().tolist()
    p = tracker.picture
    times = np.arange(40.5, 60.0)
    used = measure(ephemeris(LOW, times), times, np.random.default_rng(3), sensor=1)
    x = ephemeris(LOW, times[-1:])[0]
    x[:3] += 300.0
    tracker._start(NewOrbit(x, np.diag([300.0**2] * 3 + [20.0**2] * 3).reshape(36), used))
    assert outcomes.get("second", Outcome.GATED_OUT) == len(used)
    error = p.x[slot, :3] - ephemeris(LOW, np.array([p.epoch[slot] / NS]))[0, :3]
    assert np.linalg.norm(error) < 100.0


@pytest.mark.parametrize("kind", ["consider_biases = true", 'modes = "imm"'])
def test_room_that_grows_keeps_what_filters_keep_beside(kind: str) -> None:
    """The kernels write to it without looking how wide it is."""
    tracker = Tracker(station(kind), FixedPole(), Outcomes())  # type: ignore[arg-type]
    seen = in_order(
        *(a_pass(1.0, 10.0, x0=circular(800e3 + 400.0 * k, 60.0, -9.0), seed=k) for k in range(3))
    )
    wanted = kept_beside(tracker._config)
    assert wanted > 0
    tracker.process(seen[seen["t_meas_ns"] < 9 * NS])
    for use in (lambda: tracker._try_only(as_measurements(seen[-3:])), lambda: tracker.look(seen[-1:])):
        tracker._room = make_room(len(tracker.picture.active), 1, wanted)
        use()
        assert tracker._room.trials.beside.shape == (len(tracker._room.slots), wanted)
        assert len(tracker._room.slots) > 1


def test_an_event_of_a_sensor_that_is_configured_no_more_has_no_sensor() -> None:
    tracker = Tracker(station(), FixedPole(), Outcomes())  # type: ignore[arg-type]
    tracker.process(a_pass(1.0, 10.0))
    assert tracker.watch is not None
    burn = Crossing(0, 0, 0, np.zeros(3), 1.0, 0.0, np.ones(3), np.eye(3))
    assert tracker.watch._burnt(burn, int(tracker.slots()[0]), 10 * NS, -1).sensors == 0


def test_arcs_of_tracks_that_ended_young_make_room_for_others() -> None:
    collector = Collector(8, 10.0, 2, 100)
    rows, used = np.zeros(1, np.int64), np.full(1, 7, np.uint8)

    def take(number: int, t_s: float, alive: list[int]) -> None:
        collector.take(
            np.array([number]), np.array([number]), rows, used, np.zeros((1, 6)), np.array([-1]), np.zeros((1, 27)),
            np.array([int(t_s * NS)]), np.zeros(1, np.int32), used, lambda z, t, _s: (z, t),
            lambda: np.array(alive),
        )  # fmt: skip

    take(1, 100.0, [1])
    take(2, 110.0, [1, 2])
    take(3, 200.0, [1, 2, 3])
    assert sorted(collector.arcs) == [1, 2]  # both live
    take(2, 1_000.0, [1, 2])
    take(4, 1_010.0, [2, 4])
    assert sorted(collector.arcs) == [2, 4]
    take(5, 1_100.0, [5])
    assert sorted(collector.arcs) == [2, 5]  # 2 has ended, but was seen for more than a pass


def test_defaults_are_those_that_these_tests_are_about() -> None:
    assert (Tracking().initiation_window_s, Tracking().confirm_hits) == (20.0, 6)


def test_a_short_glitch_of_a_fast_radar_does_not_take_over_a_good_track() -> None:
    measurements = a_pass(100.0, 14.0)
    for row in measurements[1000:1100]:
        u = row["los"] + 1e-3 * row["e_lon"]
        row["los"] = u / np.linalg.norm(u)
        row["e_lon"] -= row["los"] * (row["los"] @ row["e_lon"])
        row["e_lon"] /= np.linalg.norm(row["e_lon"])
        row["e_lat"] = np.cross(row["los"], row["e_lon"])
        row["range_m"] += 300.0
    states, _, outcomes = followed(measurements)
    assert set(states["track"]) == {1}
    assert outcomes.get("radar", Outcome.GATED_OUT) > 50
    assert outcomes.get("radar", Outcome.USED_INITIATION) < 60  # those that it began with
