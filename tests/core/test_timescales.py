from __future__ import annotations

from datetime import date, timedelta

import erfa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionnode.core import timescales as ts

LEAP = ts.tai_ns_from_utc_text("2017-01-01T00:00:00") - ts.SECOND_NS  # 2016-12-31T23:59:60 UTC
TIMES = st.integers(ts.tai_ns_from_utc_text("1972-01-01"), ts.tai_ns_from_utc_text("2200-01-01"))


def test_the_epoch_is_1970_in_tai() -> None:
    assert ts.tai_ns_from_utc_text("1999-12-31T23:59:28") == ts.day_from_year_doy(2000, 1) * ts.DAY_NS
    assert ts.tai_ns_from_utc_text("2025-09-01T00:00:00Z") == (1_756_684_800 + 37) * ts.SECOND_NS


def test_a_leap_second_has_a_name_of_its_own() -> None:
    assert ts.utc_text(LEAP - 1_000) == "2016-12-31T23:59:59.999999Z"
    assert ts.utc_text(LEAP) == "2016-12-31T23:59:60.000000Z"
    assert ts.utc_text(LEAP + 999_999_000) == "2016-12-31T23:59:60.999999Z"
    assert ts.utc_text(LEAP + ts.SECOND_NS) == "2017-01-01T00:00:00.000000Z"
    assert ts.tai_ns_from_utc_text("2016-12-31T23:59:60.25Z") == LEAP + 250_000_000
    assert ts.day_length_ns(np.array([17_166, 17_167])).tolist() == [86_401 * 10**9, 86_400 * 10**9]


def test_text_is_rounded_to_the_nearest_microsecond() -> None:
    assert ts.utc_text(LEAP + ts.SECOND_NS - 500) == "2017-01-01T00:00:00.000000Z"
    assert ts.utc_text(LEAP - 501) == "2016-12-31T23:59:59.999999Z"


@given(st.lists(TIMES, min_size=1, max_size=20))
def test_one_time_and_many_are_written_alike(times: list[int]) -> None:
    assert ts.utc_texts(np.array(times)) == [ts.utc_text(t) for t in times]


@given(TIMES)
def test_text_reads_back(t: int) -> None:
    t -= t % 1_000
    assert ts.tai_ns_from_utc_text(ts.utc_text(t)) == t


@given(TIMES)
def test_utc_goes_forth_and_back_for_ints_and_arrays(t: int) -> None:
    day, ns = ts.utc_from_tai_ns(t)
    assert ts.tai_ns_from_utc(day, ns) == t
    days, nss = ts.utc_from_tai_ns(np.array([t]))
    assert (days[0], nss[0]) == (day, ns)
    assert ts.tai_ns_from_utc(days, nss)[0] == t


def test_around_each_leap_second_arrays_agree_with_erfa() -> None:
    table = erfa.leap_seconds.get()
    for row in table[table["year"] > 1972]:
        after = ts.tai_ns_from_utc_text(f"{row['year']}-{row['month']:02d}-01")
        times = after + np.array([-(10**9) - 1, -(10**9), -1, 0, 1]) * 1
        back = erfa.taiutc(*ts.tt_jd(times - ts.TT_MINUS_TAI_NS))
        ours = ts.utc_jd(times)
        np.testing.assert_allclose((ours[0] - back[0]) + (ours[1] - back[1]), 0, atol=1e-9 / 86_400)
        assert ts.tai_minus_utc_s(times).tolist() == [row["tai_utc"] - 1] * 3 + [row["tai_utc"]] * 2


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2025-244T01:02:03.5", "2025-09-01T01:02:03.500000Z"),
        ("2024-366", "2024-12-31T00:00:00.000000Z"),
        ("2025-09-01 01:02", "2025-09-01T01:02:00.000000Z"),
        ("2025-09-01T23:59:60", "2025-09-02T00:00:00.000000Z"),
    ],
)
def test_other_ways_to_write_a_time_are_read(text: str, same: str) -> None:
    assert ts.utc_text(ts.tai_ns_from_utc_text(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2025-13-01",
        "2025-366",
        "2025-000",
        "2025-02-30T00:00:00",
        "0000-01-01",
        "2025-01-01T24:00:00",
        "2025-01-01T00:00:61",
        "2025-01-01T00:00:00.",
        "２025-01-01",
    ],
)
def test_what_is_no_time_is_one_clear_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        ts.tai_ns_from_utc_text(text)


@given(st.integers(1, 9998), st.integers(1, 365))
def test_day_numbers_are_those_of_the_calendar(year: int, doy: int) -> None:
    expected = date(year, 1, 1) + timedelta(days=doy - 1) - date(1970, 1, 1)
    assert ts.day_from_year_doy(year, doy) == expected.days
    assert ts.days_in_year(year) == (date(year + 1, 1, 1) - date(year, 1, 1)).days


def test_a_uniform_date_counts_a_leap_second_between() -> None:
    before, after = LEAP - 86_400 * ts.SECOND_NS, LEAP + 86_400 * ts.SECOND_NS
    (d0, f0), (d1, f1) = ts.uniform_jd(before, 36), ts.uniform_jd(after, 36)
    assert (d1 - d0) + (f1 - f0) == pytest.approx(2.0, abs=1e-12)
