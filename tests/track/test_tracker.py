"""The life of tracks on made-up skies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scene import NS, FixedPole, circular, ephemeris, in_order, measure, station

from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import Channel, Status, StructArray, Tombstone
from fusionnode.track.filtering.engine_filterpy import FilterpyEngine
from fusionnode.track.tracker import Tracker

TIMES = np.arange(0.0, 120.0)
OVERHEAD = circular(800e3, 60.0, -3.0)


def tracker_for(tracking: str = "", **more: object) -> tuple[Tracker, Outcomes]:
    outcomes = Outcomes()
    return Tracker(station(tracking), FixedPole(), outcomes, **more), outcomes  # type: ignore[arg-type]


def states_of(tracker: Tracker) -> tuple[StructArray, list[Tombstone]]:
    events = tracker.take()
    states = [e for e in events if not isinstance(e, Tombstone)]
    return np.concatenate(states), [e for e in events if isinstance(e, Tombstone)]


def one_pass(
    seed: int = 1, x0: np.ndarray = OVERHEAD, times: np.ndarray = TIMES, **more: object
) -> StructArray:
    rng = np.random.default_rng(seed)
    return measure(ephemeris(x0, times), times, rng, **more)  # type: ignore[arg-type]


def test_one_object_makes_one_track_that_is_as_good_as_it_says() -> None:
    tracker, outcomes = tracker_for()
    tracker.process(one_pass())
    states, tombstones = states_of(tracker)
    assert set(states["track"]) == {1}
    assert tombstones == []
    assert states["status"][-1] == Status.CONFIRMED
    truth = ephemeris(OVERHEAD, (states["epoch_ns"] - 0) / NS)
    error = states["x"] - truth
    nees = np.einsum("ni,nij,nj->n", error, np.linalg.inv(states["P"]), error)
    assert np.linalg.norm(error[-1, :3]) < 60.0
    assert nees[20:].mean() < 20.0
    assert outcomes.get("radar", Outcome.USED) + outcomes.get("radar", Outcome.USED_INITIATION) == len(TIMES)


def test_a_start_from_wide_angles_is_consistent() -> None:
    """A quarter of a degree at 800 km is 3 km across, on a sphere bent by 6 m, and 20 m of range: a filter started
    from two such points is off by hundreds of sigma.
    """
    nees = []
    for seed in range(10):
        tracker, _ = tracker_for("initiation_window_s = 60.0")
        tracker.process(one_pass(seed, sigma=(20.0, 4e-3, 0.5)))
        states, _ = states_of(tracker)
        assert set(states["track"]) == {1}
        error = states["x"][-1] - ephemeris(OVERHEAD, TIMES[-1:])[0]
        nees.append(float(error @ np.linalg.solve(states["P"][-1], error)))
    assert np.median(nees) < 12.6  # 95 % of a chi-square of six


@pytest.mark.parametrize("cut", [1, 7, 50])
def test_what_comes_out_does_not_depend_on_how_the_measurements_were_cut(cut: int) -> None:
    other = circular(805e3, 62.0, -3.2, 0.4)
    sky = in_order(one_pass(1), one_pass(2, other), one_pass(3, sensor=1, sigma=(10.0, 3e-4, 5.0)))
    whole, _ = tracker_for()
    whole.process(sky)
    cut_up, _ = tracker_for()
    for start in range(0, len(sky), cut):
        cut_up.process(sky[start : start + cut])
    for tracker in (whole, cut_up):
        tracker.advance(900 * NS)
    (a, gone_a), (b, gone_b) = states_of(whole), states_of(cut_up)
    for name in a.dtype.names or ():  # not as bytes: padding is not copied
        np.testing.assert_array_equal(a[name], b[name])
    assert gone_a == gone_b


def test_filterpys_engine_gives_the_same_tracks_through_the_same_tracker() -> None:
    other = circular(805e3, 62.0, -3.2, 0.4)
    times = TIMES[:40]
    sky = in_order(one_pass(1, times=times), one_pass(2, other, times))
    ours, _ = tracker_for()
    theirs, _ = tracker_for(engine=FilterpyEngine())
    for tracker in (ours, theirs):
        tracker.process(sky)
        tracker.advance(60 * NS)
    (a, _), (b, _) = states_of(ours), states_of(theirs)
    for name in ("track", "epoch_ns", "status", "updates", "dof"):
        np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_allclose(a["x"], b["x"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(a["nis"], b["nis"], rtol=1e-6)


def test_gross_errors_are_gated_and_do_not_move_the_track() -> None:
    tracker, outcomes = tracker_for("outlier_channels = 0")
    sky = one_pass()
    wrong = np.arange(20, 120, 10)
    sky["range_m"][wrong] += 5_000.0
    tracker.process(sky)
    tracker.finish()
    states, _ = states_of(tracker)
    assert set(states["track"]) == {1}
    assert outcomes.get("radar", Outcome.GATED_OUT) == len(wrong)
    error = states["x"][-1] - ephemeris(OVERHEAD, TIMES[-1:])[0]
    assert np.linalg.norm(error[:3]) < 60.0


def test_one_wrong_channel_does_not_cost_the_others() -> None:
    tracker, outcomes = tracker_for()
    sky = one_pass()
    sky["range_m"][30:90] += 3_000.0
    tracker.process(sky)
    states, _ = states_of(tracker)
    assert set(states["track"]) == {1}
    assert (states["dof"][30:80] == 3).all()
    assert outcomes.get("radar", Outcome.GATED_OUT) == 0
    error = states["x"][-1] - ephemeris(OVERHEAD, TIMES[-1:])[0]
    assert np.linalg.norm(error[:3]) < 60.0


def test_two_objects_that_cross_before_one_radar_keep_their_tracks() -> None:
    """Same direction at the same moment, 300 km apart in range."""
    cross_s = 60.0
    low, high = circular(700e3, 70.0, -3.0), circular(1000e3, 110.0, -3.0)
    at = ephemeris(low, np.array([cross_s]))[0]
    station_r = measure(at[None], np.array([cross_s]), np.random.default_rng(0))[0]["site_r"]
    line = at[:3] - station_r
    there = station_r + line / np.linalg.norm(line) * (np.linalg.norm(line) + 300e3)
    speed = np.sqrt(3.986e14 / np.linalg.norm(there))
    heading = np.cross(there, high[3:])
    heading = np.cross(heading, there)
    x_cross = np.concatenate([there, speed * heading / np.linalg.norm(heading)])
    start = ephemeris(x_cross, np.array([-cross_s]))[0]
    sky = in_order(one_pass(1, low), one_pass(2, start))
    tracker, _ = tracker_for()
    tracker.process(sky)
    states, _ = states_of(tracker)
    assert len(set(states["track"])) == 2
    for number in set(states["track"]):
        mine = states[states["track"] == number]
        truths = [ephemeris(x, (mine["epoch_ns"]) / NS) for x in (low, start)]
        errors = [np.linalg.norm(mine["x"][:, :3] - t[:, :3], axis=1).max() for t in truths]
        assert min(errors) < 2_000.0


def test_a_track_coasts_on_ticks_and_is_dropped_with_a_tombstone() -> None:
    tracker, _ = tracker_for("coast_limit_s = 300.0\ncoast_publish_s = 10.0\ntick_s = 10.0")
    tracker.process(one_pass())
    states_of(tracker)
    tracker.advance(1_000 * NS)
    states, tombstones = states_of(tracker)
    assert (states["status"] == Status.COASTING).all()
    assert (np.diff(states["epoch_ns"]) == 10 * NS).all()
    assert states["epoch_ns"][-1] < tombstones[0].t_ns <= (119 + 300 + 10) * NS
    assert (tombstones[0].track, tombstones[0].reason, tombstones[0].successor) == (1, "dropped", None)
    assert len(tracker.slots()) == 0


def test_a_coasting_track_is_taken_up_again_under_its_number() -> None:
    tracker, _ = tracker_for()
    later = np.arange(400.0, 430.0)
    tracker.process(one_pass())
    tracker.process(measure(ephemeris(OVERHEAD, later), later, np.random.default_rng(2), lon_deg=20.0))
    states, tombstones = states_of(tracker)
    assert set(states["track"]) == {1}
    assert tombstones == []
    assert states["status"][-1] == Status.CONFIRMED
    assert Status.COASTING in states["status"]


def test_a_few_points_that_never_come_again_make_no_confirmed_track() -> None:
    tracker, outcomes = tracker_for()
    tracker.process(one_pass(times=TIMES[:5]))
    tracker.advance(500 * NS)
    states, tombstones = states_of(tracker)
    assert (states["status"] == Status.TENTATIVE).all()
    assert [t.reason for t in tombstones] == ["dropped"]
    assert outcomes.get("radar", Outcome.USED) + outcomes.get("radar", Outcome.USED_INITIATION) == 5


def test_a_manoeuvre_moves_the_track_on_not_another_one_beside_it() -> None:
    before = ephemeris(OVERHEAD, TIMES[:60])
    kicked = before[-1].copy()
    kicked[3:] *= 1.0 + 40.0 / np.linalg.norm(kicked[3:])
    after = ephemeris(kicked, np.arange(1.0, 61.0))
    rng = np.random.default_rng(3)
    sky = in_order(measure(before, TIMES[:60], rng), measure(after, np.arange(60.0, 120.0), rng))
    tracker, _ = tracker_for()
    tracker.process(sky)
    states, _ = states_of(tracker)
    assert set(states["track"]) == {1}
    assert np.linalg.norm(states["x"][-1, :3] - after[-1, :3]) < 200.0


def test_angles_alone_update_a_track_that_a_radar_began() -> None:
    times = np.arange(60.0, 120.0)
    rng = np.random.default_rng(4)
    optical = measure(ephemeris(OVERHEAD, times), times, rng, sensor=2, sigma=(1.0, 1e-5, 1.0),
                      channels=int(Channel.ANGLES))  # fmt: skip
    optical["target_delay"] = 0.0
    tracker, outcomes = tracker_for()
    tracker.process(in_order(one_pass(times=TIMES[:60]), optical))
    states, _ = states_of(tracker)
    assert set(states["track"]) == {1}
    assert outcomes.get("telescope", Outcome.USED) == 60
    assert states["sensors"][-1] == 0b101


def test_clutter_makes_no_confirmed_tracks_and_every_detection_has_an_outcome() -> None:
    rng = np.random.default_rng(5)
    times = np.sort(rng.uniform(0, 120, 400))
    noise = one_pass(6, times=times)
    turn = rng.normal(size=(400, 3)) * 0.2
    for row, t in zip(noise, turn, strict=True):
        row["los"] = (row["los"] + t) / np.linalg.norm(row["los"] + t)
        row["e_lon"] = np.cross([0, 0, 1.0], row["los"]) / np.linalg.norm(np.cross([0, 0, 1.0], row["los"]))
        row["e_lat"] = np.cross(row["los"], row["e_lon"])
    noise["range_m"] = rng.uniform(5e5, 3e6, 400)
    noise["range_rate_m_s"] = rng.uniform(-7e3, 7e3, 400)
    tracker, outcomes = tracker_for()
    tracker.process(in_order(noise, one_pass(sensor=1)))
    tracker.finish()
    states, _ = states_of(tracker)
    assert len(set(states["track"][states["status"] == Status.CONFIRMED])) == 1
    assert sum(outcomes.of("radar").values()) == 400
    assert sum(outcomes.of("second").values()) == len(TIMES)


def test_more_tracks_than_there_is_room_for_are_refused_and_counted() -> None:
    tracker, outcomes = tracker_for("max_tracks = 16")
    parts = [one_pass(k, circular(800e3, 60.0, -3.0 + 0.5 * k), TIMES[:30]) for k in range(20)]
    sky = in_order(*parts)
    tracker.process(sky)
    tracker.finish()
    assert len(tracker.slots()) == 16
    assert outcomes.get("radar", Outcome.TRACK_LIMIT) > 0
    assert sum(outcomes.of("radar").values()) == len(sky)


def companion(along_m: float) -> np.ndarray:
    """An orbit like OVERHEAD's, ``along_m`` ahead on it."""
    return circular(800e3, 60.0, -3.0 + np.degrees(along_m / 7.178e6))


class Certainly(NamedTuple):
    """A correlation without a doubt."""

    row: int | None

    def best(self) -> tuple[int, float] | None:
        return None if self.row is None else (self.row, 1.0)

    def of(self, row: int) -> float:
        return float(row == self.row)


class OneName:
    """A catalogue that calls whatever is within 20 km of OVERHEAD by one name."""

    def near(self, los: np.ndarray, site_r: np.ndarray, t_ns: int, cone_rad: float) -> np.ndarray:
        return np.zeros(0, np.int64)

    def prior(self, row: int, t_ns: int) -> None:
        return None

    def correlate_direction(self, direction: object, delay: float = 1.0) -> Certainly:
        return Certainly(None)

    def correlate(self, x: np.ndarray, P: np.ndarray, t_ns: int) -> Certainly:
        there = ephemeris(OVERHEAD, np.array([t_ns / NS]))[0]
        return Certainly(7 if np.linalg.norm(x[:3] - there[:3]) < 20e3 else None)


@pytest.mark.parametrize("along_m", [3_600.0, 6_000.0, 9_500.0])
@pytest.mark.parametrize("known", [None, OneName()])
def test_a_neighbour_seen_after_a_known_track_does_not_take_its_number(along_m: float, known: object) -> None:
    tracker, _ = tracker_for(known=known)
    later = np.arange(90.0, 150.0)
    tracker.process(one_pass(times=TIMES[:60]))
    tracker.process(measure(ephemeris(companion(along_m), later), later, np.random.default_rng(2)))
    tracker.advance(150 * NS)
    states, _ = states_of(tracker)
    confirmed = states[states["status"] != Status.TENTATIVE]
    assert set(confirmed["track"]) == {1, 2}
    for track, x0 in ((1, OVERHEAD), (2, companion(along_m))):
        mine = confirmed[confirmed["track"] == track][-1]
        truth = ephemeris(x0, np.array([mine["epoch_ns"] / NS]))[0]
        assert np.linalg.norm(mine["x"][:3] - truth[:3]) < 500.0


@pytest.mark.parametrize("cadence_s", [10.0, 30.0])
def test_a_slow_radar_gets_its_tracks_too(cadence_s: float) -> None:
    config = station()
    slow = {k: s.model_copy(update={"revisit_s": cadence_s}) for k, s in config.sensor.items()}
    tracker = Tracker(config.model_copy(update={"sensor": slow}), FixedPole(), Outcomes())
    times = np.arange(-150.0, 300.0, cadence_s)
    sky = measure(ephemeris(circular(1400e3, 60.0, -3.0), times), times, np.random.default_rng(3))
    sky["t_meas_ns"] += 1_000 * NS
    tracker.process(sky)
    states, _ = states_of(tracker)
    assert set(states["track"]) == {1}
    assert states["status"][-1] == Status.CONFIRMED


def test_two_tracks_of_one_object_become_the_older_one() -> None:
    """Two radars, one object, one of them 300 m off in range at first: two tracks until that is mended."""
    tracker, _ = tracker_for("max_tracks = 64")
    times = np.arange(0.0, 200.0)
    biased = one_pass(5, times=times, sensor=1)
    biased["range_m"] += np.where(times < 60.0, 2_500.0, 0.0)
    tracker.process(in_order(one_pass(4, times=times), biased))
    tracker.advance(2_000 * NS)
    assert len(tracker.slots()) == 1


def test_a_merged_track_keeps_the_standing_of_the_older_one() -> None:
    tracker, _ = tracker_for()
    tracker.process(one_pass())
    roster, p = tracker._roster, tracker.picture
    fresh = roster.place(p.x[0].copy(), p.P[0].copy(), int(p.epoch[0]))
    assert fresh is not None
    roster.enlist(fresh, 6)
    roster.take_over(fresh, 0)
    assert p.number[fresh] == 1
    assert p.status[fresh] == Status.CONFIRMED
