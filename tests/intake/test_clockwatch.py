"""A sensor's clock that steps, drifts or runs backwards is told; a bad link is not taken for one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusionnode.complaints import clock_complaints
from fusionnode.intake.clockwatch import ClockWatch

NS = 1_000_000_000
T0 = 1_756_684_800 * NS


def watch(
    clock_s: np.ndarray,
    delay_s: np.ndarray,
    rate_hz: float = 5.0,
    *,
    judged: bool = True,
    numbered: bool = True,
) -> ClockWatch:
    """One that was shown detections at ``rate_hz`` with the clock off by ``clock_s`` (n,), received after
    ``delay_s`` (n,), in order of reception.
    """
    n = len(clock_s)
    true = T0 + (np.arange(n) / rate_hz * NS).astype(np.int64)
    stamped = true + (clock_s * NS).astype(np.int64)
    received = true + (delay_s * NS).astype(np.int64)
    seq = np.arange(1, n + 1, dtype=np.uint32) if numbered else np.zeros(n, np.uint32)
    it = ClockWatch(1.0 / rate_hz, judged=judged)
    for i in np.argsort(received, kind="stable").tolist():
        it.note(received[i : i + 1], stamped[i : i + 1], seq[i : i + 1])
    return it


def jitter(n: int, seed: int = 1) -> np.ndarray:
    return 0.02 + np.random.default_rng(seed).exponential(0.02, n)


def state(it: ClockWatch, n: int, rate_hz: float = 5.0) -> dict[str, Any]:
    return it.state(T0 + int(n / rate_hz * NS))


@pytest.mark.parametrize("step_s", [-40.0, -2.0, -0.5, 0.5, 1.0, 19.0])
@pytest.mark.parametrize("rate_hz", [0.2, 5.0, 100.0])
def test_a_step_is_told_once_with_its_size(step_s: float, rate_hz: float) -> None:
    n = int(max(300, 40 * rate_hz))
    clock = np.where(np.arange(n) < n // 2, 0.0, step_s)
    it = watch(clock, jitter(n), rate_hz)
    assert it.steps == 1
    assert it.step_s == pytest.approx(step_s, abs=0.05)
    assert state(it, n, rate_hz)["clockState"] == ("stepped" if n / 2 / rate_hz < 600 else "steady")


def test_a_clock_that_steps_there_and_back_is_steady_after_a_while() -> None:
    n = 5_000
    clock = np.where((np.arange(n) > 1000) & (np.arange(n) < 1500), 3.0, 0.0)
    it = watch(clock, jitter(n))
    assert it.steps == 2
    assert state(it, n)["clockState"] == "steady"
    assert state(it, 2_000)["clockState"] == "stepped"


@pytest.mark.parametrize("ppm", [-2_000.0, 500.0, 10_000.0])
def test_a_drift_is_told(ppm: float) -> None:
    n = 3_000
    it = watch(np.arange(n) / 5.0 * ppm * 1e-6, jitter(n))
    told = state(it, n)
    assert told["clockState"] == "drifting"
    assert told["clockDriftPpm"] == pytest.approx(ppm, rel=0.1)
    assert it.steps == 0


def test_a_good_clock_over_bad_links_is_steady() -> None:
    n = 4_000
    rng = np.random.default_rng(2)
    late = jitter(n)
    heavy = jitter(n) + np.where(rng.random(n) < 0.3, rng.uniform(0, 60, n), 0.0)
    outage = jitter(n)
    down = (np.arange(n) > 2_000) & (np.arange(n) < 2_150)  # 30 s are sent at once when it is over
    outage[down] += (2_150 - np.arange(n)[down]) / 5.0
    for delay in (late, heavy, outage, rng.uniform(0.0, 60.0, n)):
        it = watch(np.zeros(n), delay)
        assert (it.steps, it.backwards) == (0, 0)
        assert state(it, n)["clockState"] == "steady"


def test_a_lying_stamp_now_and_then_is_no_step() -> None:
    n = 2_000
    clock = np.zeros(n)
    clock[::97] = 1.5
    assert watch(clock, jitter(n)).steps == 0


def test_time_that_runs_backwards_is_counted_where_detections_are_numbered() -> None:
    clock = -2.0 * np.arange(100) / 5.0  # twice as fast as time, and back
    assert watch(clock, jitter(100) * 0.0).backwards == 0  # 0.2 s a detection: within what a scan may do
    assert watch(8.0 * clock, jitter(100) * 0.0).backwards == 99
    assert watch(8.0 * clock, jitter(100) * 0.0, judged=False).backwards == 99
    assert watch(8.0 * clock, jitter(100) * 0.0, numbered=False).backwards == 0


def test_where_times_of_reception_mean_nothing_latency_is_not_judged() -> None:
    n = 1_000
    it = watch(np.where(np.arange(n) < 500, 0.0, 20.0), jitter(n), judged=False)
    assert (it.steps, state(it, n)["clockState"]) == (0, None)


def test_damaged_stamps_do_no_harm() -> None:
    it = ClockWatch(1.0, judged=True)
    ends = np.array([-(2**63), 2**63 - 1, 0, T0], np.int64)
    for k in range(50):
        it.note(np.full(4, T0 + k * NS), ends, np.array([1, 2, 0, 2**32 - 1], np.uint32))
    assert it.steps == 0


def test_a_step_is_told_to_the_operator_and_alike_steps_point_to_the_computer() -> None:
    steady = {"clockState": "steady", "clockSteps": 0, "clockStepS": None, "clockDriftPpm": None,
              "clockBackwards": 0}  # fmt: skip
    stepped = steady | {"clockState": "stepped", "clockSteps": 1, "clockStepS": -2.0}
    before = {"clocks": {"a": steady, "b": steady}}
    (line,) = clock_complaints(before, {"clocks": {"a": stepped, "b": steady}})
    assert (line["sensor"], line["step_s"]) == ("a", -2.0)
    lines = list(clock_complaints(before, {"clocks": {"a": stepped, "b": stepped}}))
    assert all("computer" in line["hint"] for line in lines)
    assert list(clock_complaints({"clocks": {"a": stepped}}, {"clocks": {"a": stepped}})) == []
    drifting = steady | {"clockState": "drifting", "clockDriftPpm": 40.0}
    lines = list(clock_complaints(before, {"clocks": {"a": drifting, "b": steady | {"clockBackwards": 3}}}))
    assert lines == [{"sensor": "a", "drift_ppm": 40.0}, {"sensor": "b", "backwards": 3}]
