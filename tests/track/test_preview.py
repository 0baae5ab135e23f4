"""What a tracker says it expects is what its next update is judged by."""

from __future__ import annotations

import numpy as np
import pytest
from scene import NS, FixedPole, circular, ephemeris, measure, station

from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import TRACK_STATE, Tombstone
from fusionnode.track.tracker import Tracker


def sky(seed: int = 1, seconds: int = 60) -> np.ndarray:
    times = np.arange(0.0, seconds)
    states = ephemeris(circular(700e3, 30.0, -4.0), times)
    return measure(states, times, np.random.default_rng(seed), start_ns=1_764_000_000 * NS)


def arrays(tracker: Tracker) -> list[np.ndarray]:
    return [event for event in tracker.take() if not isinstance(event, Tombstone)]


def test_the_sighting_before_an_update_has_its_nis() -> None:
    tracker = Tracker(station(), FixedPole(), Outcomes())
    m = sky()
    compared = 0
    for i in range(len(m)):
        expected = tracker.look(m[i : i + 1])
        tracker.process(m[i : i + 1])
        states = np.concatenate([np.zeros(0, TRACK_STATE), *arrays(tracker)])
        if len(expected) == 1 and len(states) == 1 and states["dof"][0] > 0:
            s = expected[0]
            assert s.track == states["track"][0]
            assert s.nis == pytest.approx(states["nis"][0], rel=1e-6)
            assert s.dof == states["dof"][0]
            assert s.unseen_ns == NS
            # and the update is the one that innovation and covariance give
            K = s.P @ s.H.T @ np.linalg.inv(s.S)
            sigma = np.sqrt(np.diag(states["P"][0]))
            assert np.abs((s.x + K @ s.y - states["x"][0]) / sigma).max() < 0.01
            compared += 1
    assert compared > 50


def test_looking_changes_nothing() -> None:
    m = sky()
    results = []
    for curious in (False, True):
        tracker = Tracker(station(), FixedPole(), Outcomes())
        for i in range(len(m)):
            if curious:
                tracker.look(m[i : i + 1])
                tracker.look(m[i : i + 1], tracker.slots())
            tracker.process(m[i : i + 1])
        slots = tracker.slots()
        results.append((slots, tracker.picture.x[slots].tobytes(), tracker.picture.P[slots].tobytes()))
    assert results[0][1:] == results[1][1:]
    assert np.array_equal(results[0][0], results[1][0])


def test_what_no_gate_would_let_in_is_seen_too() -> None:
    tracker = Tracker(station(), FixedPole(), Outcomes())
    m = sky()
    tracker.process(m[:-1])
    wrong = m[-1:].copy()
    wrong["range_m"] += 1e5
    (s,) = tracker.look(wrong, tracker.slots())
    assert s.nis > 1e4
    assert s.y[0] == pytest.approx(1e5, rel=0.01)
    telescope = m[-1:].copy()
    telescope["channels"] = 2
    (s,) = tracker.look(telescope, tracker.slots())
    assert s.dof == 2
    assert list(s.present) == [False, True, True, False]
    assert s.y[0] == s.y[3] == 0.0
