"""Scans settled whole in compiled code, against the same scans settled step by step."""

from __future__ import annotations

import numpy as np
import pytest
from scene import NS, FixedPole, circular, ephemeris, in_order, measure, station

from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import Status, StructArray
from fusionnode.track import tracker as tracker_module
from fusionnode.track.association import jpda
from fusionnode.track.association.associate import Log, Measurements, Room
from fusionnode.track.association.coarse import alone_within, tracks_within
from fusionnode.track.association.settle import Settled
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.picture import Picture, Rules
from fusionnode.track.tracker import Tracker


class StepByStep(NumbaEngine):
    """Leaves every scan to the tracker's general way."""

    def settle(
        self,
        picture: Picture,
        ms: Measurements,
        start: int,
        until_ns: int,
        rules: Rules,
        room: Room,
        log: Log,
    ) -> Settled:
        return Settled(start, False, -1, -1, 0)


def swarm(apart_m: float, scans: int, seed: int) -> StructArray:
    """Twelve objects, in pairs ``apart_m`` apart, seen with probability 0.9 among false alarms around them."""
    rng = np.random.default_rng(seed)
    times = np.arange(float(scans))
    parts = []
    for _ in range(6):
        x = circular(
            rng.uniform(600e3, 1_200e3), rng.uniform(50, 120), rng.uniform(-8, 2), rng.uniform(-8, 8)
        )
        for beside in (0.0, apart_m):
            path = ephemeris(x + np.array([0.0, 0.0, beside, 0.0, 0.0, 0.0]), times)
            seen = measure(path, times, rng, sigma=(30.0, 2e-4, 0.5))
            parts.append(seen[rng.random(scans) < 0.9])
            for _copy in range(2):
                false = measure(
                    path + rng.normal(scale=400.0, size=path.shape) * [1, 1, 1, 0, 0, 0], times, rng
                )
                parts.append(false[rng.random(scans) < 0.3])
    return in_order(*parts)


def told(tracker: Tracker, sky: StructArray) -> bytes:
    tracker.process(sky)
    tracker.advance(int(sky["t_meas_ns"][-1]) + NS)
    tracker.finish()
    return b"".join(e.tobytes() if isinstance(e, np.ndarray) else repr(e).encode() for e in tracker.take())


@pytest.mark.parametrize("association", ["gnn", "jpda"])
def test_what_is_settled_in_compiled_code_is_what_comes_of_it_step_by_step(association: str) -> None:
    sky = swarm(250.0, 30, 1)
    config = station(f'association = "{association}"\nconfirm_hits = 5')
    whole, steps = Outcomes(), Outcomes()
    compiled = Tracker(config, FixedPole(), whole)
    general = Tracker(config, FixedPole(), steps, engine=StepByStep())
    assert told(compiled, sky) == told(general, sky)
    assert whole.of("radar") == steps.of("radar")
    assert sum(whole.of("radar").values()) == len(sky)
    assert compiled.approximated == general.approximated
    assert compiled.begun >= 6


def test_false_alarms_taken_together_start_what_they_start_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sky = swarm(20_000.0, 20, 2)
    together, apart = Outcomes(), Outcomes()
    first = told(Tracker(station("initiation_buffer = 40"), FixedPole(), together), sky)
    monkeypatch.setattr(tracker_module, "can_all_initiate", lambda channels: False)
    assert told(Tracker(station("initiation_buffer = 40"), FixedPole(), apart), sky) == first
    assert together.of("radar") == apart.of("radar")


def test_who_is_alone_is_found_for_all_at_once_as_for_each() -> None:
    sky = swarm(2_000.0, 14, 3)
    tracker = Tracker(station("confirm_hits = 4"), FixedPole(), Outcomes())
    tracker.process(sky)
    p = tracker.picture
    t_ns = int(sky["t_meas_ns"][-1])
    slots = tracker.slots()
    slots = slots[p.epoch[slots] == t_ns]
    assert len(slots) >= 6
    for reach_m, sigmas in ((1_000.0, 1.0), (6_000.0, 30.0), (500_000.0, 0.0)):
        found = [tracks_within(p, p.x[s, :3].copy(), t_ns, reach_m, sigmas).tolist() for s in slots.tolist()]
        want = [not set(near) - {s} for near, s in zip(found, slots.tolist(), strict=True)]
        assert alone_within(p, slots, t_ns, reach_m, sigmas).tolist() == want


@pytest.mark.parametrize("association", ["gnn", "jpda"])
def test_thirty_tracks_in_thirty_gates_are_settled_and_their_approximation_is_counted(
    association: str,
) -> None:
    rng = np.random.default_rng(4)
    times = np.arange(12.0)
    x = circular(900e3, 80.0, -2.0)
    paths = [ephemeris(x + np.append(rng.uniform(-2e3, 2e3, 3), np.zeros(3)), times) for _ in range(30)]
    sharp = [measure(path[:-1], times[:-1], rng, sigma=(5.0, 1e-5, 0.1)) for path in paths]
    wide = [measure(path[-1:], times[-1:], rng, sigma=(5e3, 5e-3, 50.0)) for path in paths]
    outcomes = Outcomes()
    tracker = Tracker(station(f'association = "{association}"\nconfirm_hits = 5'), FixedPole(), outcomes)
    tracker.process(in_order(*sharp))
    confirmed = np.count_nonzero(tracker.picture.status[tracker.slots()] == Status.CONFIRMED)
    assert confirmed == 30
    before = tracker.approximated
    tracker.process(in_order(*wide))
    assert tracker.approximated - before == (association == "jpda")
    tracker.finish()
    assert sum(outcomes.of("radar").values()) == 30 * 12
    p, slots = tracker.picture, tracker.slots()
    assert len(slots) == 30
    assert all(np.linalg.eigvalsh(p.P[s].reshape(6, 6)).min() > 0.0 for s in slots)


def test_a_crowd_of_many_edges_is_believed_in_few_sweeps() -> None:
    n = 400
    rows, slots = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    ln_ratio = np.random.default_rng(5).normal(0.0, 3.0, size=n * n)
    beta, nothing = np.zeros(n * n), np.zeros(n)
    jpda.believed(rows, slots, ln_ratio, n, n, beta, nothing)
    assert np.isfinite(beta).all()
    assert (beta >= 0.0).all()
    np.testing.assert_allclose(np.bincount(slots, beta) + nothing, 1.0)
    assert np.bincount(rows, beta).max() < 1.1
