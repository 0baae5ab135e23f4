"""Selection, assignment, and many objects at once."""

from __future__ import annotations

import numpy as np
import pytest
from scene import GRAVITY, NS, FixedPole, circular, ephemeris, in_order, measure, station

from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import Status, StructArray, Tombstone
from fusionnode.track import picture
from fusionnode.track.association import associate, select
from fusionnode.track.association.coarse import refresh_coarse
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.tracker import Tracker


def crowd(n: int, seed: int) -> tuple[picture.Picture, np.ndarray]:
    """Tracks over the site, some of them wide; and where they are now."""
    rng = np.random.default_rng(seed)
    tracks = picture.make_picture(n)
    tracks.high[0] = n
    for slot in range(n):
        tracks.active[slot] = rng.random() > 0.05
        tracks.x[slot] = circular(
            rng.uniform(400e3, 3000e3), rng.uniform(0, 180), rng.uniform(-15, 15), rng.uniform(-15, 15)
        )
        sigma = 10 ** rng.uniform(1, 5.2)
        tracks.P[slot] = np.diag([sigma**2] * 3 + [sigma**2 / 1e6] * 3).reshape(36)
        refresh_coarse(tracks, slot)
    return tracks, tracks.x.copy()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sorted_sky_selects_just_what_a_look_at_every_track_does(seed: int) -> None:
    n = 300
    tracks, x = crowd(n, seed)
    rng = np.random.default_rng(seed)
    seen = x[rng.choice(n, 60)] + rng.normal(scale=2_000.0, size=(60, 6)) * [1, 1, 1, 0, 0, 0]
    scan = measure(seen, np.zeros(60), rng, sigma=(20.0, 10 ** rng.uniform(-5, -1.5), 0.5))
    ms = associate.Measurements(
        scan.view(np.float64).reshape(60, COLUMNS),
        scan["t_meas_ns"].copy(),
        scan["sensor"].copy(),
        scan["channels"].copy(),
    )
    rules = picture.make_rules(station(), GRAVITY)
    room = associate.make_room(n, 60 * n)
    count = select.pairs_of_scan(tracks, ms, 0, 60, rules, room)
    together = {(int(r), int(s)) for r, s in zip(room.rows[:count], room.slots[:count], strict=True)}
    one_by_one = set()
    for row in range(60):
        count = select.pairs_of_scan(tracks, ms, row, row + 1, rules, room)
        one_by_one |= {(row, int(s)) for s in room.slots[:count]}
    assert together == one_by_one
    assert len(together) >= 30


def full_sky(n: int, scans: int, clutter: int, seed: int) -> tuple[StructArray, np.ndarray]:
    """``n`` objects seen at 1 Hz with probability 0.9 among false alarms; and where they are in the end."""
    rng = np.random.default_rng(seed)
    times = np.arange(float(scans))
    parts, last = [], []
    for k in range(n):
        x0 = circular(
            rng.uniform(500e3, 1500e3), rng.uniform(50, 120), rng.uniform(-12, 4), rng.uniform(-12, 12)
        )
        path = ephemeris(x0, times)
        last.append(path[-1, :3])
        seen = measure(path, times, rng, sigma=(20.0, 2e-4, 0.5))
        seen["seq"] = k
        parts.append(seen[rng.random(scans) < 0.9])
    false = np.concatenate(parts)[rng.integers(0, n * scans // 2, clutter * scans)].copy()
    for row in false:
        u = row["los"] + 0.3 * rng.normal(size=3)
        u /= np.linalg.norm(u)
        east = np.cross([0.0, 0.0, 1.0], u)
        east /= np.linalg.norm(east)
        row["los"], row["e_lon"], row["e_lat"] = u, east, np.cross(u, east)
    false["range_m"] = rng.uniform(5e5, 3e6, len(false))
    false["range_rate_m_s"] = rng.uniform(-7e3, 7e3, len(false))
    false["seq"] = n + np.arange(len(false))
    return in_order(*parts, false), np.array(last)


def test_a_hundred_objects_among_false_alarms_make_a_hundred_tracks() -> None:
    n = 100
    sky, where = full_sky(n, 30, 20, 1)
    outcomes = Outcomes()
    tracker = Tracker(station("confirm_hits = 5\nconfirm_revisits = 10"), FixedPole(), outcomes)
    tracker.process(sky)
    tracker.finish()
    states = np.concatenate([e for e in tracker.take() if not isinstance(e, Tombstone)])
    confirmed = states[states["status"] == Status.CONFIRMED]
    assert len(set(confirmed["track"].tolist())) == n
    newest = {int(s["track"]): s for s in confirmed}
    for state in newest.values():  # within what it moves in two missed scans, of just one object
        apart = np.linalg.norm(where - state["x"][:3], axis=1)
        assert apart.min() < 3 * 7_800.0
        assert state["epoch_ns"] >= 26 * NS
    counts = outcomes.of("radar")
    assert sum(counts.values()) == len(sky)
    assert counts[Outcome.UNASSOCIATED] + counts.get(Outcome.GATED_OUT, 0) >= 0.9 * 20 * 30
