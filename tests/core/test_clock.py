from __future__ import annotations

import time

import pytest

from fusionnode.core import clock, timescales


def test_the_system_clock_is_the_computers_in_tai() -> None:
    t = clock.make("system").now_ns()
    assert abs(t - timescales.tai_ns_from_unix_ns(time.time_ns())) < 10**9


def test_a_scaled_clock_is_at_its_epoch_at_its_anchor_and_runs_at_its_rate() -> None:
    anchor = time.time() - 10.0
    scaled = clock.make("scaled", "2025-09-01T00:00:00", anchor, 60.0)
    elapsed = scaled.now_ns() - timescales.tai_ns_from_utc_text("2025-09-01T00:00:00")
    assert 600e9 <= elapsed < 600e9 + 60 * 5e9
    assert scaled.wall_seconds(30.0) == 0.5


def test_a_data_clock_never_goes_back() -> None:
    data = clock.make("data")
    assert isinstance(data, clock.DataClock)
    data.advance(5)
    data.advance(3)
    assert data.now_ns() == 5


def test_a_clock_that_cannot_be_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="expected system, scaled or data"):
        clock.make("lunar")
    with pytest.raises(ValueError, match="needs epoch_utc"):
        clock.make("scaled")
    with pytest.raises(ValueError, match="is not a time"):
        clock.make("scaled", "yesterday", 0.0)
    with pytest.raises(ValueError, match="above 0"):
        clock.make("scaled", "2025-09-01", 0.0, 0.0)


def test_sleeping_a_negative_time_returns_at_once() -> None:
    before = clock.monotonic_ns()
    clock.sleep(-1.0)
    assert clock.monotonic_ns() >= before
