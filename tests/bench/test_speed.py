"""How fast the parts are: ``python -m pytest tests/bench --benchmark-only -o addopts=`` (skipped otherwise)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_ekf import Plain
from bench_sky import NS, Scene, as_messages, station

from fusionnode.cli import main
from fusionnode.codec.framing import Deframer
from fusionnode.codec.messages import FramesDecoder
from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import LinkRecord
from fusionnode.record.entries import Meta
from fusionnode.record.journal import Journal
from fusionnode.release.wire import StreamEncoder
from fusionnode.track.association.cluster import assign
from fusionnode.track.association.select import pairs_of_scan
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.picture import report
from fusionnode_hil import wire

Benchmark = Any

scene = cache(Scene)


@cache
def frames() -> bytes:
    return b"".join(wire.frame(message) for message in as_messages(scene(10_000).detections))


@pytest.mark.parametrize("n", [1, 100, 10_000])
def test_trial_kernel(benchmark: Benchmark, n: int) -> None:
    s, engine = scene(n), NumbaEngine()
    benchmark(engine.try_pairs, s.tracks, s.measurements, n, s.rules, s.room)
    benchmark.extra_info["pairs"] = n
    assert (s.room.trials.nis[:n] < 100.0).all()


def test_plain_filterpy_for_100_tracks(benchmark: Benchmark) -> None:
    benchmark(Plain(scene(100)).run)


def test_deframer_10000_frames(benchmark: Benchmark) -> None:
    assert len(benchmark(Deframer("bench", Outcomes()).feed, frames()).offsets) == 10_000


def test_frames_to_detections_10000(benchmark: Benchmark) -> None:
    decoded = benchmark(FramesDecoder("bench", Outcomes()).decode, [(0, frames())])
    assert len(decoded.detections) == 10_000


@pytest.mark.parametrize("n", [1, 10_000])
def test_measurer(benchmark: Benchmark, n: int) -> None:
    assert len(benchmark(scene(n).sky.measurer.measure, scene(n).detections)) == n


def test_earth_orientation_10000_epochs(benchmark: Benchmark) -> None:
    sky = scene(1).sky
    t = 1_764_000_000 * NS + np.arange(10_000) * 86_400_000
    assert benchmark(sky.orientation.gcrf_to_itrf, t).shape == (10_000, 3, 3)


@pytest.mark.parametrize("n", [1, 1_000])
def test_wire_encoding_of_states(benchmark: Benchmark, n: int) -> None:
    encoder = StreamEncoder(node_id="bench", stream_epoch="bench", sensor_names=tuple(station().sensor))
    states = report(scene(n).tracks, np.arange(n))
    states["sensors"] = 1
    assert len(benchmark(encoder.states, states)) == n


def test_journal_append_of_1000_records(benchmark: Benchmark, tmp_path: Path) -> None:
    records = [LinkRecord(i, "link", bytes(79)) for i in range(1_000)]
    journal = Journal(tmp_path / "journal", Meta("bench", "bench", 0, "", ""))

    def synced() -> None:
        assert journal.flush()  # or its buffer would fill, and dropping is fast

    benchmark.pedantic(journal.append_bytes, (records,), setup=synced, rounds=100, warmup_rounds=5)
    assert journal.close()
    assert journal.dropped == 0


def test_assignment_in_a_dense_cluster_of_50(benchmark: Benchmark) -> None:
    rng = np.random.default_rng(1)
    rows, slots = (part.reshape(-1) for part in np.meshgrid(np.arange(50), np.arange(50), indexing="ij"))
    assert len(benchmark(assign, rows, slots, rng.uniform(0.0, 50.0, 2_500))) == 50


def test_coarse_selection_among_10000_tracks(benchmark: Benchmark) -> None:
    s = scene(10_000)
    assert benchmark(pairs_of_scan, s.tracks, s.measurements, 0, 1, s.rules, s.room) >= 1


def test_processing_of_real_radar_records(
    benchmark: Benchmark, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command, and apart from it the speed it reports itself, without start-up."""
    source = shared_data / "ssn_radar" / "22076_dec1996.b3.gz"
    settings = Path(__file__).resolve().parents[2] / "configs" / "ssn_radar.toml"
    words = ["process", str(source), "--config", str(settings), "--out", str(tmp_path / "s.jsonl"), "--json"]
    assert benchmark.pedantic(main, (words,), rounds=3, warmup_rounds=1) == 0
    summaries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    benchmark.extra_info["records"] = summaries[-1]["records"]
    benchmark.extra_info["records_per_s"] = max(summary["records_per_s"] for summary in summaries)
    with capsys.disabled():
        print(
            f"\n{summaries[-1]['records']} records at {benchmark.extra_info['records_per_s']:,}/s (best of 3)"
        )
