from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import MEASUREMENT, StructArray
from fusionnode.intake.ordering import Ordering

NAMES = ("radar", "camera", "dish")


def measurements(*rows: tuple[int, int, int]) -> StructArray:
    """Of (t_meas, sensor, seq), with values that follow from them."""
    m = np.zeros(len(rows), MEASUREMENT)
    for i, (t, sensor, seq) in enumerate(rows):
        m[i]["t_meas_ns"], m[i]["sensor"], m[i]["seq"] = t, sensor, seq
        m[i]["los"] = (t, sensor, seq)
    return m


def keys(m: StructArray) -> list[tuple[int, int, int]]:
    return list(zip(m["t_meas_ns"].tolist(), m["sensor"].tolist(), m["seq"].tolist(), strict=True))


ROW = st.tuples(st.integers(0, 40), st.integers(0, 2), st.integers(0, 5))
STEP = st.one_of(st.lists(ROW, max_size=6), st.integers(-5, 45))


@given(st.lists(STEP, max_size=20))
@settings(max_examples=150)
def test_every_measurement_comes_out_once_in_order_or_is_counted(
    steps: list[list[tuple[int, int, int]] | int],
) -> None:
    outcomes = Outcomes()
    ordering = Ordering(0, NAMES, outcomes)
    mark, pushed, late = -(10**9), 0, 0
    out: list[tuple[int, int, int]] = []
    waiting: set[tuple[int, int, int]] = set()
    for step in steps:
        if isinstance(step, int):
            released = keys(ordering.release(step))
            due = {row for row in waiting if row[0] <= step}
            assert released == sorted(due)
            waiting -= due
            out += released
            mark = max(mark, step)
        else:
            pushed += len(step)
            n = ordering.push(measurements(*step))
            assert n == sum(row[0] <= mark for row in step)
            late += n
            waiting |= {row for row in step if row[0] > mark}
        assert ordering.pending.sum() == len(ordering)
    out += keys(ordering.flush())
    assert len(ordering) == 0
    assert [t for t, _, _ in out] == sorted(t for t, _, _ in out)
    assert len(set(out)) == len(out)
    assert outcomes.total(Outcome.LATE) == late
    assert pushed == len(out) + late + outcomes.total(Outcome.DUPLICATE)


@given(st.lists(ROW, max_size=30, unique=True), st.randoms(use_true_random=False), st.integers(1, 9))
@settings(max_examples=60)
def test_the_order_does_not_depend_on_arrival_or_batches(
    rows: list[tuple[int, int, int]], random: object, size: int
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ordering = Ordering(0, NAMES, Outcomes())
    for i in range(0, len(shuffled), size):
        ordering.push(measurements(*shuffled[i : i + size]))
    assert keys(ordering.flush()) == sorted(rows)


def test_a_number_and_time_that_a_sensor_had_before_make_a_duplicate() -> None:
    """Whatever it says the second time (interface document, section 6)."""
    outcomes = Outcomes()
    ordering = Ordering(0, NAMES, outcomes)
    first, again, other = (measurements((5, 1, 9)) for _ in range(3))
    first["t_rx_ns"], again["t_rx_ns"] = 10, 20
    other["range_m"] = 7.0
    for batch in (first, other, again):
        ordering.push(batch)
    out = ordering.flush()
    assert out["range_m"].tolist() == [0.0]
    assert out["t_rx_ns"][0] == 10
    assert outcomes.as_dict() == {"camera": {"duplicate": 2}}


def test_of_a_sensor_that_does_not_count_only_what_is_equal_is_a_duplicate() -> None:
    outcomes = Outcomes()
    ordering = Ordering(0, NAMES, outcomes)
    first, again, other = (measurements((5, 1, 0)) for _ in range(3))
    again["t_rx_ns"] = 20
    other["range_m"] = 7.0
    for batch in (first, other, again):
        ordering.push(batch)
    assert ordering.flush()["range_m"].tolist() == [0.0, 7.0]
    assert outcomes.as_dict() == {"camera": {"duplicate": 1}}


def test_what_no_clock_came_near_is_refused_at_the_end() -> None:
    outcomes = Outcomes()
    ordering = Ordering(0, NAMES, outcomes)
    ordering.push(measurements((5, 1, 1), (10**18, 1, 2)))
    ordering.refuse_after(100)
    assert ordering.flush()["t_meas_ns"].tolist() == [5]
    assert outcomes.as_dict() == {"camera": {"time_in_future": 1}}


def test_a_copy_of_what_was_released_is_late() -> None:
    outcomes = Outcomes()
    ordering = Ordering(0, NAMES, outcomes)
    ordering.push(measurements((5, 0, 1)))
    ordering.release(5)
    assert ordering.push(measurements((5, 0, 1), (6, 2, 1))) == 1
    assert outcomes.as_dict() == {"radar": {"late": 1}}
    assert ordering.pending.tolist() == [0, 0, 1]


def test_the_horizon_is_the_newest_less_the_hold_back() -> None:
    ordering = Ordering(100, NAMES, Outcomes())
    assert ordering.horizon_ns is None
    ordering.push(measurements((500, 0, 1), (300, 0, 2)))
    assert (ordering.newest_ns, ordering.horizon_ns) == (500, 400)
    assert keys(ordering.release(400)) == [(300, 0, 2)]
    assert len(ordering) == 1


def test_what_is_held_does_not_change_with_the_callers_array() -> None:
    ordering = Ordering(0, NAMES, Outcomes())
    batch = measurements((5, 0, 1))
    ordering.push(batch)
    batch["seq"] = 99
    assert keys(ordering.flush()) == [(5, 0, 1)]


def test_a_release_does_not_bring_the_mark_back() -> None:
    ordering = Ordering(0, NAMES, Outcomes())
    ordering.release(50)
    ordering.release(10)
    assert ordering.push(measurements((30, 0, 1))) == 1


def test_a_negative_hold_back_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Ordering(-1, NAMES, Outcomes())


def test_what_is_old_from_the_beginning_is_late() -> None:
    outcomes = Outcomes()
    ordering = Ordering(0, NAMES, outcomes, late_age_ns=10)
    ordering.begin(100)
    ordering.begin(50)
    assert ordering.push(measurements((101, 0, 1), (95, 0, 2), (90, 0, 3))) == 1
    assert keys(ordering.take_late()) == [(95, 0, 2)]
    assert len(ordering.take_late()) == 0
    assert keys(ordering.flush()) == [(101, 0, 1)]
    assert outcomes.as_dict() == {"radar": {"late": 1}}
