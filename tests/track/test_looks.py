"""What scans say besides their detections: misses, existence, false alarms; and associations that are not sure."""

from __future__ import annotations

import numpy as np
import pytest
from scene import NS, FixedPole, circular, ephemeris, in_order, measure, station

from fusionnode.config import ConfigError
from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import Status, StructArray, Tombstone
from fusionnode.track.association.looks import LEARNT, LN_CLUTTER, clutter_density, detection_probability
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.initiation.fit import consensus
from fusionnode.track.initiation.near import around, make_cells, remember
from fusionnode.track.tracker import Tracker

OVERHEAD = circular(800e3, 60.0, -3.0)
SIGMA = (20.0, 2e-4, 0.5)
SEARCH = '[sensor.search]\nid = 9\nkind = "radar"\nsite = "here"\nscan = "search"\nmin_elevation_deg = 10.0\n'


def tracker_of(tracking: str = "", field: str = "") -> Tracker:
    """Of a station whose sensor 3 searches."""
    return Tracker(station(tracking, SEARCH + field), FixedPole(), Outcomes())


def seen(x0: np.ndarray, times: np.ndarray, seed: int, sensor: int = 3) -> StructArray:
    return measure(ephemeris(x0, times), times, np.random.default_rng(seed), sensor=sensor, sigma=SIGMA)


def states_of(tracker: Tracker) -> tuple[StructArray, list[Tombstone]]:
    events = tracker.take()
    states = [e for e in events if isinstance(e, np.ndarray)]
    return np.concatenate(states), [e for e in events if isinstance(e, Tombstone)]


COMPANION = circular(900e3, 60.0, -2.0, 1.0)


@pytest.mark.parametrize(
    ("sensor", "field", "falls"),
    [
        (3, "", True),
        (0, "", False),  # follows one object: says nothing of the other
        (3, "field_azimuth_deg = [90.0, 180.0]", False),
        (3, "field_max_elevation_deg = 40.0", False),
        (3, "field_range_m = 5e5", False),
    ],
)
def test_only_a_look_that_should_have_seen_it_makes_a_track_less_likely(
    sensor: int, field: str, falls: bool
) -> None:
    tracker = tracker_of("", field)
    times = np.arange(60.0)
    # the first passes from south-west to north-east, high, and is seen no more from then on
    tracker.process(in_order(seen(OVERHEAD, times[:40], 1, 0), seen(COMPANION, times, 2, sensor)))
    p = tracker.picture
    first = int(np.flatnonzero(p.number == 1)[0])
    if falls:
        assert p.exist[first] < 0.5
        assert p.exist_ns[first] == 59 * NS
    else:
        assert p.exist[first] > 0.999


def test_existence_confirms_and_ends_tracks_where_it_is_asked_to() -> None:
    tracker = tracker_of('confirm = "existence"')
    times = np.arange(60.0)
    tracker.process(in_order(seen(OVERHEAD, times[:40], 1), seen(COMPANION, times, 2)))
    tracker.advance(60 * NS)
    states, gone = states_of(tracker)
    mine = states[states["track"] == 1]
    confirmed = mine[mine["status"] == Status.CONFIRMED]
    assert confirmed["updates"][0] <= 6
    assert (confirmed["existence"] >= 0.999).all()
    assert [(t.track, t.reason) for t in gone] == [(1, "dropped")]
    assert 42 * NS <= gone[0].t_ns <= 55 * NS
    # by hits in revisits, one that is not seen for twenty seconds coasts
    other = tracker_of()
    other.process(in_order(seen(OVERHEAD, times[:40], 1), seen(COMPANION, times, 2)))
    other.advance(60 * NS)
    assert states_of(other)[1] == []


def false_alarms(n: int, times: np.ndarray, rng: np.random.Generator, sensor: int = 3) -> StructArray:
    """``n`` a scan, uniform over the sky 10 degrees above the horizon, from 800 to 3,000 km, within 7 km/s."""
    site = measure(np.tile(OVERHEAD, (len(times), 1)), times, rng, sensor=sensor, sigma=SIGMA)
    out = np.repeat(site, n)
    for k, row in enumerate(out):
        up = row["site_r"] / np.linalg.norm(row["site_r"])
        east = row["site_v"] / np.linalg.norm(row["site_v"])
        sine, az = rng.uniform(np.sin(np.radians(10.0)), 1.0), rng.uniform(0.0, 2.0 * np.pi)
        u = sine * up + np.sqrt(1.0 - sine**2) * (np.sin(az) * east + np.cos(az) * np.cross(up, east))
        e = np.cross([0.0, 0.0, 1.0], u)
        e /= np.linalg.norm(e)
        row["los"], row["e_lon"], row["e_lat"] = u, e, np.cross(u, e)
        row["seq"] = 1000 + k
    out["range_m"] = rng.uniform(8e5, 3e6, len(out))
    out["range_rate_m_s"] = rng.uniform(-7e3, 7e3, len(out))
    return out


def test_the_rates_of_false_alarms_and_of_detections_are_learnt() -> None:
    rng = np.random.default_rng(5)
    times = np.arange(90.0)
    objects = [
        circular(rng.uniform(700e3, 1000e3), 60.0, rng.uniform(-6, 0), rng.uniform(-3, 3)) for _ in range(20)
    ]
    parts = []
    for k, x0 in enumerate(objects):
        all_of_it = seen(x0, times, k)
        all_of_it["seq"] = k
        parts.append(all_of_it[rng.random(len(times)) < 0.7])
    tracker = tracker_of()
    looks, p = tracker._rules.looks, tracker.picture
    assert detection_probability(p, looks, 3) == pytest.approx(0.9)
    tracker.process(in_order(*parts, false_alarms(15, times, rng)))
    rate = np.exp(looks.prior[LN_CLUTTER, 3] + p.learnt[0, 3 * LEARNT + LN_CLUTTER, 0]) * looks.solid[3]
    assert rate == pytest.approx(15.0 * 90.0 / 110.0, rel=0.15)  # twenty looks are the configuration's
    assert detection_probability(p, looks, 3) == pytest.approx(0.72, abs=0.04)
    density = np.exp(clutter_density(p.learnt[0, 3 * LEARNT : 4 * LEARNT, 0], looks.prior[:, 3], 7))
    assert density == pytest.approx(rate / looks.solid[3] / 2.2e6 / 1.4e4, rel=0.2)
    assert (p.learnt[0, : 3 * LEARNT] == 0.0).all()


def test_two_objects_too_close_to_be_told_apart_are_both_held_by_probabilities() -> None:
    rng = np.random.default_rng(6)
    times = np.arange(90.0)
    beside = OVERHEAD + np.array([0.0, 150.0, 150.0, 0.0, 0.0, 0.0])
    parts = []
    for k, x0 in enumerate((OVERHEAD, beside)):
        mine = seen(x0, times, k)
        mine["seq"] = k
        parts.append(mine[rng.random(len(times)) < 0.9])
    sky = in_order(*parts, false_alarms(10, times, rng))
    runs = {}
    for association in ("gnn", "jpda"):
        tracker = tracker_of(f'association = "{association}"')
        tracker.process(sky)
        runs[association] = states_of(tracker)[0]
        assert set(runs[association]["track"]) == {1, 2}
    truth = np.array([ephemeris(x0, times)[-1] for x0 in (OVERHEAD, beside)])
    for states in runs.values():
        newest = np.array([states[states["track"] == t][-1]["x"] for t in (1, 2)])
        apart = np.linalg.norm(newest[:, None, :3] - truth[None, :, :3], axis=2)
        assert min(apart[0, 0] + apart[1, 1], apart[0, 1] + apart[1, 0]) < 600.0
    # the mixture says so where it does not know which is which
    sizes = [np.trace(s["P"][-20:, :3, :3], axis1=1, axis2=2).mean() for s in runs.values()]
    assert sizes[1] > sizes[0]
    # and it does not depend on how the measurements were cut
    cut = tracker_of('association = "jpda"')
    for t_ns in np.unique(sky["t_meas_ns"]):
        cut.process(sky[sky["t_meas_ns"] == t_ns])
    again = states_of(cut)[0]
    for name in ("track", "x", "P", "existence"):
        np.testing.assert_array_equal(again[name], runs["jpda"][name])


def test_cells_of_space_lose_nothing_that_could_agree() -> None:
    rng = np.random.default_rng(7)
    times = np.arange(20.0)
    objects = [
        circular(rng.uniform(700e3, 1000e3), 60.0, rng.uniform(-6, 0), rng.uniform(-3, 3)) for _ in range(5)
    ]
    sky = in_order(*[seen(x0, times, k) for k, x0 in enumerate(objects)], false_alarms(40, times, rng))
    n = len(sky)
    z = sky.view(np.float64).reshape(n, COLUMNS)
    t, channels = sky["t_meas_ns"].copy(), sky["channels"].copy()
    cells, alive = make_cells(n), rng.random(n) < 0.95
    few = 0
    for at in range(n):
        remember(cells, at, z[at])
        alive[at] = True
        which = around(cells, t, alive, 0, at)
        everything = np.flatnonzero(alive[: at + 1])
        few += len(which) < len(everything) / 2
        chosen, all_chosen = np.zeros(len(which), np.bool_), np.zeros(len(everything), np.bool_)
        count = consensus(z[which], t[which], channels[which], len(which), chosen)
        assert count == consensus(
            z[everything], t[everything], channels[everything], len(everything), all_chosen
        )
        if count > 1:
            np.testing.assert_array_equal(which[chosen], everything[all_chosen])
    assert few > n / 2


@pytest.mark.parametrize("field", ["field_azimuth_deg = [90.0, 90.0]", "field_max_elevation_deg = 5.0"])
def test_a_field_of_view_that_is_none_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match="field_"):
        tracker_of("", field)
