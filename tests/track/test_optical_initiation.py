"""Tracks from directions alone, through the tracker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene import NS, FixedPole, circular, ephemeris, in_order, measure, site, station

from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import MEASUREMENT, Channel, Status, StructArray, Tombstone
from fusionnode.track.initiation.tracklets import Former, smooth
from fusionnode.track.motion.dynamics import MU
from fusionnode.track.tracker import Tracker

ARCSEC = float(np.radians(1 / 3600))
TELESCOPE = 2
TRACKING = "coast_limit_s = 200000.0\ncoast_after_revisits = 60"


def watched(x0: np.ndarray, times_s: np.ndarray, sigma_rad: float = ARCSEC, seed: int = 0) -> StructArray:
    """Directions of one object, with light time."""
    states = ephemeris(x0, times_s)
    earlier = [
        t - np.linalg.norm(x[:3] - site(t)[0]) / 299_792_458.0 for x, t in zip(states, times_s, strict=True)
    ]
    out = measure(
        ephemeris(x0, np.array(earlier)), times_s, np.random.default_rng(seed),
        sensor=TELESCOPE, sigma=(20.0, sigma_rad, 0.5), channels=int(Channel.ANGLES),
    )  # fmt: skip
    out["target_delay"] = 1.0
    return out


def geostationary(lon_deg: float, rng: np.random.Generator) -> np.ndarray:
    a, lon = 42_164e3 + 20e3 * rng.normal(), np.radians(lon_deg)
    r = a * np.array([np.cos(lon), np.sin(lon), 0.004 * rng.normal()])
    v = (
        np.sqrt(MU / a)
        * (1 + 1e-4 * rng.normal())
        * np.array([-np.sin(lon), np.cos(lon), 0.02 * rng.normal()])
    )
    return np.concatenate([r, v])


def nights(objects: list[np.ndarray], visits_s: tuple[float, ...]) -> list[StructArray]:
    """A telescope that goes from object to object and takes six frames, ten seconds apart, of each."""
    return [
        watched(x, visit + 20 * k + 10.0 * np.arange(6), seed=1_000 * k + i)
        for k, x in enumerate(objects)
        for i, visit in enumerate(visits_s)
    ]


def clutter(n: int, until_s: float, like: StructArray) -> StructArray:
    """Directions of nothing, all over the sky above the site."""
    rng = np.random.default_rng(9)
    out = np.zeros(n, MEASUREMENT)
    for row, t in zip(out, np.sort(rng.uniform(0, until_s, n)), strict=True):
        r, v = site(t)
        u = r / np.linalg.norm(r) + 0.5 * rng.normal(size=3)
        u /= np.linalg.norm(u)
        east = np.cross([0.0, 0.0, 1.0], u)
        east /= np.linalg.norm(east)
        row["los"], row["e_lon"], row["e_lat"] = u, east, np.cross(u, east)
        row["site_r"], row["site_v"], row["t_meas_ns"] = r, v, round(t * NS)
    out["sensor"], out["channels"], out["var"], out["target_delay"] = (
        TELESCOPE,
        Channel.ANGLES,
        like["var"][0],
        1.0,
    )
    return out


def tracked(
    measurements: StructArray, *, cut: int | None = None, tracking: str = TRACKING
) -> tuple[Tracker, Outcomes]:
    outcomes = Outcomes()
    tracker = Tracker(station(tracking, "revisit_s = 10.0"), FixedPole(), outcomes)
    step = cut or len(measurements)
    for start in range(0, len(measurements), step):
        part = measurements[start : start + step]
        tracker.process(part)
        tracker.advance(int(part["t_meas_ns"][-1]) - 1)
    tracker.advance(int(measurements["t_meas_ns"][-1]) + 100 * NS)
    return tracker, outcomes


def settled(tracker: Tracker, outcomes: Outcomes, measurements: StructArray) -> None:
    """Every measurement has one outcome, or waits."""
    waiting = tracker.pending().get("telescope", 0)
    assert sum(outcomes.of("telescope").values()) + waiting == len(measurements)
    tracker.finish()
    assert tracker.pending() == {}
    assert sum(outcomes.of("telescope").values()) == len(measurements)


@pytest.fixture(scope="module")
def belt() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [geostationary(lon, rng) for lon in (-30.0, -12.0, -11.5, 20.0)]


def test_geostationary_tracklets_become_confirmed_tracks_among_clutter(belt: list[np.ndarray]) -> None:
    parts = nights(belt, (0.0, 3_000.0, 7_000.0, 12_000.0, 20_000.0, 86_400.0))
    measurements = in_order(*parts, clutter(1_500, 87_000.0, parts[0]))
    tracker, outcomes = tracked(measurements)
    p, slots = tracker.picture, tracker.slots()
    assert len(slots) == len(belt)
    assert tracker.begun == len(belt)
    assert (p.status[slots] != Status.TENTATIVE).all()
    found = []
    for slot in slots:
        t_s = p.epoch[slot] / NS
        d = [p.x[slot] - ephemeris(x, np.array([t_s]))[0] for x in belt]
        k = int(np.argmin([np.linalg.norm(one[:3]) for one in d]))
        found.append(k)
        assert np.linalg.norm(d[k][:3]) < 10e3
        assert d[k] @ np.linalg.solve(p.P[slot].reshape(6, 6), d[k]) < 30.0
    assert sorted(found) == list(range(len(belt)))
    settled(tracker, outcomes, measurements)


@pytest.mark.parametrize("cut", [1, 7, 50])
def test_the_cut_of_the_calls_does_not_matter(belt: list[np.ndarray], cut: int) -> None:
    parts = nights(belt[:2], (0.0, 3_000.0, 7_000.0, 12_000.0))
    measurements = in_order(*parts, clutter(60, 12_100.0, parts[0]))

    def numbers(tracker: Tracker) -> bytes:
        p, slots = tracker.picture, tracker.slots()
        return p.x[slots].tobytes() + p.P[slots].tobytes() + p.hits[slots].tobytes()

    whole, counted = tracked(measurements)
    parted, counted_too = tracked(measurements, cut=cut)
    assert whole.begun == parted.begun > 0
    assert numbers(whole) == numbers(parted)
    assert counted.as_dict() == counted_too.as_dict()


def test_a_pass_in_a_low_orbit_becomes_a_track_before_it_is_over() -> None:
    x0 = circular(800e3, 60.0, -8.0)
    times = np.arange(0.0, 200.0, 2.0)
    measurements = watched(x0, times, 5 * ARCSEC)
    tracker, outcomes = tracked(measurements)
    (slot,) = tracker.slots()
    p = tracker.picture
    assert outcomes.of("telescope")["used"] > 10
    assert outcomes.of("telescope")["used_initiation"] > 10
    truth = ephemeris(x0, np.array([p.epoch[slot] / NS]))[0]
    assert np.linalg.norm(p.x[slot, :3] - truth[:3]) < 3e3
    settled(tracker, outcomes, measurements)


def test_one_tracklet_alone_makes_no_track_and_is_let_go_in_the_end(belt: list[np.ndarray]) -> None:
    measurements = nights(belt[:1], (0.0,))[0]
    tracker, outcomes = tracked(measurements, tracking=TRACKING + "\noptical_memory_s = 5000.0")
    assert len(tracker.slots()) == 0
    assert tracker.pending() == {"telescope": 6}
    tracker.advance(6_000 * NS)
    assert tracker.pending() == {}
    assert outcomes.of("telescope") == {"unassociated": 6}


def test_banks_are_bounded_and_the_oldest_goes_first(belt: list[np.ndarray]) -> None:
    measurements = in_order(*nights(belt, (0.0,)))
    tracker, outcomes = tracked(measurements, tracking=TRACKING + "\noptical_banks = 2")
    assert tracker.pending() == {"telescope": 12}
    assert outcomes.of("telescope") == {"unassociated": 12}


def test_a_tracklet_takes_what_moves_together_and_leaves_the_rest(belt: list[np.ndarray]) -> None:
    mine = watched(belt[0], 10.0 * np.arange(5))
    stray = watched(belt[3], np.array([5.0, 15.0]))
    former = Former(4, float(np.radians(2.0)), 60 * NS)
    made = [former.add(m, False)[0] for m in in_order(mine, stray)[:6]]
    (tracklet,) = [t for t in made if t is not None]
    assert len(tracklet) == 4
    assert former.pending == 2
    assert smooth(tracklet.rows) is not None
    assert tracklet.misses(mine[4]) < 1.0
    assert tracklet.misses(watched(belt[3], np.array([45.0]))[0]) > 1.0
    assert tracklet.misses(mine[0]) == np.inf


class Sure(NamedTuple):
    """A correlation that has no doubt."""

    row: int

    def best(self) -> tuple[int, float] | None:
        return self.row, 0.97

    def of(self, row: int) -> float:
        return 0.97 * (row == self.row)


class OneObject:
    """A catalogue of one object, which single directions do not find."""

    def __init__(self, x0: np.ndarray) -> None:
        self._x0 = x0

    def near(self, los: np.ndarray, site_r: np.ndarray, t_ns: int, cone_rad: float) -> np.ndarray:
        return np.zeros(0, np.int64)

    def prior(self, row: int, t_ns: int) -> tuple[np.ndarray, np.ndarray]:
        P = np.diag([2e3] * 3 + [0.5] * 3) ** 2
        return ephemeris(self._x0, np.array([t_ns / NS]))[0] + np.array([1e3, -1e3, 500.0, 0.1, 0.2, -0.1]), P

    def correlate(self, x: np.ndarray, P: np.ndarray, t_ns: int) -> Sure:
        return Sure(0)

    def correlate_direction(self, direction: object, delay: float = 1.0) -> Sure:
        assert delay == 1.0
        return Sure(0)


def test_a_tracklet_of_a_known_object_starts_its_track_with_the_probability(belt: list[np.ndarray]) -> None:
    outcomes = Outcomes()
    tracker = Tracker(station(TRACKING, "revisit_s = 10.0"), FixedPole(), outcomes, OneObject(belt[0]))
    measurements = watched(belt[0], 10.0 * np.arange(6))
    tracker.process(measurements)
    tracker.advance(300 * NS)
    (slot,) = tracker.slots()
    p = tracker.picture
    assert (p.object[slot], p.object_p[slot]) == (0, pytest.approx(0.97))
    assert outcomes.of("telescope") == {"used_initiation": 6}
    truth = ephemeris(belt[0], np.array([p.epoch[slot] / NS]))[0]
    d = p.x[slot] - truth
    assert d @ np.linalg.solve(p.P[slot].reshape(6, 6), d) < 25.0
    states = [event for event in tracker.take() if not isinstance(event, Tombstone)]
    assert states[0]["object_p"][0] == pytest.approx(0.97)


@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.0, 1e-9, 1e-5, 1e-2, 1.0]),
    rate=st.sampled_from([0.0, 1e-8, 7e-5, 1e-3, 0.03]),
    gap_s=st.sampled_from([0.0, 1e-6, 0.1, 10.0, 3_000.0]),
    sigma=st.sampled_from([1e-7, 1e-5, 1e-2]),
)
@settings(max_examples=60, deadline=None)
def test_no_directions_however_odd_stop_the_tracker_or_go_uncounted(
    seed: int, spread: float, rate: float, gap_s: float, sigma: float
) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    times = np.round(np.cumsum(gap_s * rng.integers(0, 3, n)) * NS).astype(np.int64) + NS
    out = np.zeros(n, MEASUREMENT)
    axis = rng.normal(size=3)
    for row, t in zip(out, times.tolist(), strict=True):
        r, v = site(t / NS)
        u = r / np.linalg.norm(r) + rate * (t / NS) * axis + spread * rng.normal(size=3)
        u /= np.linalg.norm(u)
        east = np.cross([0.0, 0.0, 1.0], u)
        east /= np.linalg.norm(east)
        row["los"], row["e_lon"], row["e_lat"], row["site_r"], row["site_v"] = (
            u,
            east,
            np.cross(u, east),
            r,
            v,
        )
    out["t_meas_ns"], out["sensor"], out["channels"], out["target_delay"] = (
        times,
        TELESCOPE,
        Channel.ANGLES,
        1.0,
    )
    out["var"] = [1.0, sigma**2, sigma**2, 1.0]
    tracker, outcomes = tracked(out)
    tracker.advance(int(times[-1]) + 400_000 * NS)
    settled(tracker, outcomes, out)
    assert all(np.isfinite(e["x"]).all() for e in tracker.take() if not isinstance(e, Tombstone))
