"""Real radar records of December 1996 through the node, starting from nothing."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from radar_truth import (
    CONFIG,
    LONG_PASS,
    NS,
    PASS_GAP_NS,
    Topex,
    first_days,
    process,
    read_states,
    records,
    score,
)

from fusionnode.codec.b3 import B3Decoder
from fusionnode.config import load
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import Status, StructArray, Tombstone
from fusionnode.intake.measure import Measurer
from fusionnode.track.tracker import Tracker

FILES = ("22076_dec1996.b3.gz", "13736_dec1996.b3.gz", "22823_dec1996.b3.gz")


@pytest.fixture(scope="module")
def radar(shared_data: Path) -> Path:
    return shared_data / "ssn_radar"


@pytest.fixture(scope="module")
def topex_run(radar: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("topex") / "states.jsonl"
    return process(radar / FILES[0], out=out), out


def test_every_record_is_read_and_ends_in_a_named_outcome(radar: Path, topex_run: Any) -> None:
    summary, _ = topex_run
    lines = records(radar / FILES[0])
    assert summary["records"] == len(lines)
    for ledger in summary["sensors"].values():
        counts = dict(ledger)
        assert counts.pop("in") == sum(counts.values())
        assert counts["pending"] == 0
        assert counts["used"] > 0.8 * sum(counts.values())
        assert counts["gated_out"] > 0  # real gross errors


def test_the_confirmed_track_stays_with_topex_through_its_passes(radar: Path, topex_run: Any) -> None:
    _, out = topex_run
    times = [(t, sensor) for t, sensor, _ in records(radar / FILES[0])]
    scores = score(read_states(out), times, Topex(radar))
    rms = np.array([s.rms_m for s in scores])
    assert len(scores) > 100
    assert np.mean(rms < 2_000.0) >= 0.9
    assert np.median(rms) < 1_000.0
    good = [s for s in scores if s.rms_m < 2_000.0]
    assert np.mean([s.confirmed_after <= 30 for s in good]) >= 0.95
    assert np.median([s.held_to_s for s in good]) <= 1.5


def test_three_objects_in_one_feed_are_told_apart_as_well_as_alone(
    radar: Path, topex_run: Any, tmp_path: Path
) -> None:
    out = tmp_path / "states.jsonl"
    parts = [first_days(radar / f, 8.0, tmp_path) for f in FILES]
    process(*parts, out=out)
    times = [(t, sensor) for t, sensor, _ in records(parts[0])]
    together = score(read_states(out), times, Topex(radar))
    rms = np.array([s.rms_m for s in together])
    assert np.mean(rms < 2_000.0) >= 0.9
    assert np.median(rms) < 1_000.0


def test_objects_that_cross_before_one_radar_do_not_swap_tracks(radar: Path) -> None:
    """Passes of two objects over one radar, the second shifted in time into the first, half a second apart."""
    config = load(CONFIG)
    orientation = EarthOrientation()
    of_object = [long_passes(detections_of(radar / name)) for name in FILES]
    rng = np.random.default_rng(1996)
    tracks = 0
    for _ in range(40):
        first, second = rng.choice(len(FILES), 2, replace=False)
        one = of_object[first][rng.integers(len(of_object[first]))]
        same_radar = [p for p in of_object[second] if p["sensor_id"][0] == one["sensor_id"][0]]
        other = same_radar[rng.integers(len(same_radar))].copy()
        shift = int(one["t_meas_ns"].mean() - other["t_meas_ns"].mean()) // NS * NS + NS // 2
        other["t_meas_ns"] += shift
        outcomes = Outcomes()
        both = np.concatenate([one, other])
        measurements = Measurer(config, orientation, outcomes).measure(both)
        whose = np.repeat([0, 1], [len(one), len(other)])
        order = np.argsort(measurements["t_meas_ns"], kind="stable")
        owner = dict(zip(measurements["t_meas_ns"][order].tolist(), whose[order].tolist(), strict=True))
        tracker = Tracker(config, orientation, outcomes)
        tracker.process(measurements[order])
        states = np.concatenate([e for e in tracker.take() if not isinstance(e, Tombstone)])
        states = states[(states["status"] == Status.CONFIRMED) & (states["dof"] > 0)]
        for track in np.unique(states["track"]):
            mine = [owner[t] for t in states["epoch_ns"][states["track"] == track].tolist()]
            if len(mine) > 10:
                tracks += 1
                assert not 0.02 < np.mean(mine) < 0.98
    assert tracks >= 80


def detections_of(path: Path) -> StructArray:
    decoder = B3Decoder("file", Outcomes())
    data = gzip.decompress(path.read_bytes())
    found = np.concatenate([decoder.decode([(0, data)]).detections, decoder.finish().detections])
    return found[np.argsort(found["t_meas_ns"], kind="stable")]


def long_passes(detections: StructArray) -> list[StructArray]:
    out = []
    for sensor in np.unique(detections["sensor_id"]):
        mine = detections[detections["sensor_id"] == sensor]
        cuts = np.flatnonzero(np.diff(mine["t_meas_ns"]) > PASS_GAP_NS) + 1
        out += [p for p in np.split(mine, cuts) if len(p) >= LONG_PASS]
    return out
