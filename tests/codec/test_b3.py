from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionnode.codec.b3 import MAX_LINE, B3Decoder
from fusionnode.core import timescales as ts
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import Channel, Kind, StructArray


def record(
    *,
    sensor: str = "363",
    time: str = "96343133731000",
    el: str = "740309",
    az: str = "2404565",
    range_: str = "1384684",
    exponent: str = "2",
    rate: str = "-122729",
    kind: str = "4",
) -> bytes:
    """One line, built by column as the format's description has it; angle rates as real files carry them."""
    return f"U22076{sensor}{time}{el} {az} {range_}{exponent} {rate} 02191 01811 00000  {kind} 4".encode()


def decode(*data: bytes) -> tuple[StructArray, Outcomes]:
    outcomes = Outcomes()
    decoder = B3Decoder("file", outcomes)
    parts = [decoder.decode([(i, chunk)]).detections for i, chunk in enumerate(data)]
    parts.append(decoder.finish().detections)
    return np.concatenate(parts), outcomes


def test_a_record_is_read_by_its_columns() -> None:
    (d,), outcomes = decode(record() + b"\n")
    assert ts.utc_text(d["t_meas_ns"]) == "1996-12-08T13:37:31.000000Z"
    assert (d["sensor_id"], d["seq"], d["kind"]) == (363, 1, Kind.RADAR_AZEL)
    assert d["channels"] == Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE
    assert d["lat_rad"] == np.radians(74.0309)
    assert d["lon_rad"] == np.radians(240.4565)
    assert (d["range_m"], d["range_rate_m_s"]) == (1_384_684.0, -1_227.29)
    assert d["range_sigma_m"] == d["lon_sigma_rad"] == 0.0
    assert np.isnan(d["snr_db"])
    assert outcomes.as_dict() == {"file": {"frame_accepted": 1}}


@pytest.mark.parametrize(
    ("el", "degrees"),
    [("000000", 0.0), ("-12345", -1.2345), ("J23456", -12.3456), ("R00000", -90.0), ("}00001", -0.0001),
     (" 12345", 1.2345), ("-  345", -0.0345)],
)  # fmt: skip
def test_negative_fields_begin_with_a_minus_or_an_overpunch(el: str, degrees: float) -> None:
    (d,), _ = decode(record(el=el) + b"\n")
    assert d["lat_rad"] == np.radians(degrees)


@pytest.mark.parametrize(
    ("kind", "channels"),
    [("1", Channel.ANGLES), ("2", Channel.ANGLES | Channel.RANGE), ("3", 7), ("4", 7)],
)
def test_the_type_says_which_channels_there_are(kind: str, channels: int) -> None:
    (d,), _ = decode(record(kind=kind, rate="*******" if kind in "12" else "0000001") + b"\n")
    assert d["channels"] == channels
    assert (d["range_m"] != 0) == bool(channels & Channel.RANGE)
    assert (d["range_rate_m_s"] != 0) == bool(channels & Channel.RANGE_RATE)


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (record()[:60], Outcome.FRAME_MALFORMED),
        (b"no record", Outcome.FRAME_MALFORMED),
        (record(kind=" "), Outcome.FRAME_MALFORMED),
        (record(kind="7"), Outcome.FRAME_UNKNOWN_TYPE),
        (record(el="7403x9"), Outcome.FRAME_BAD_FIELD),
        (record(el="      "), Outcome.FRAME_BAD_FIELD),
        (record(el="7 0309"), Outcome.FRAME_BAD_FIELD),
        (record(range_="-384684"), Outcome.FRAME_BAD_FIELD),
        (record(exponent="x"), Outcome.FRAME_BAD_FIELD),
        (record(rate="12K3456"), Outcome.FRAME_BAD_FIELD),
        (record(time="96000133731000"), Outcome.FRAME_BAD_FIELD),
        (record(time="97366133731000"), Outcome.FRAME_BAD_FIELD),
        (record(time="96343243731000"), Outcome.FRAME_BAD_FIELD),
        (record(time="96343136031000"), Outcome.FRAME_BAD_FIELD),
        (record(time="96343133760000"), Outcome.FRAME_BAD_FIELD),
        (record(sensor="3A3"), Outcome.FRAME_BAD_FIELD),
        (record() + record(), Outcome.FRAME_TOO_LONG),
    ],
)
def test_a_damaged_line_is_one_named_outcome_and_spares_its_neighbours(line: bytes, outcome: Outcome) -> None:
    good = record()
    found, outcomes = decode(good + b"\n" + line + b"\n" + good + b"\n")
    assert found["seq"].tolist() == [1, 3]
    assert outcomes.as_dict() == {"file": {"frame_accepted": 2, outcome.value: 1}}


def test_a_leap_second_is_read_where_there_was_one() -> None:
    (d,), _ = decode(record(time="95365235960500") + b"\n")
    assert ts.utc_text(d["t_meas_ns"]) == "1995-12-31T23:59:60.500000Z"


def test_years_are_those_since_the_first_satellite() -> None:
    found, _ = decode(record(time="57300000000000") + b"\n" + record(time="56300000000000") + b"\n")
    assert [ts.utc_text(int(t))[:4] for t in found["t_meas_ns"]] == ["1957", "2056"]


def test_line_ends_blanks_and_a_missing_last_line_end_do_not_matter() -> None:
    plain = record()
    found, outcomes = decode(plain + b"\r\n\n\r\n" + plain + b"      \n" + plain)
    assert found["seq"].tolist() == [1, 4, 5]
    assert outcomes.as_dict() == {"file": {"frame_accepted": 3, "rubbish_bytes": 3}}


def test_a_record_came_when_its_last_byte_came() -> None:
    line = record() + b"\n"
    outcomes = Outcomes()
    decoder = B3Decoder("file", outcomes)
    chunks = [(10, line[:30]), (20, line[30:] + line[:-1]), (30, line[-1:] + line)]
    assert decoder.decode(chunks).detections["t_rx_ns"].tolist() == [20, 30, 30]


@given(st.lists(st.integers(0, 400), max_size=12))
def test_any_cut_gives_the_same_records(cuts: list[int]) -> None:
    data = b"\n".join([record(), b"rubbish", record(el="-00001"), b"x" * 300, record(), b""])
    whole, counts = decode(data)
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    parts, counts_of_parts = decode(*(data[a:b] for a, b in itertools.pairwise(edges)))
    for d in (whole, parts):
        d["t_rx_ns"] = 0
    assert str(whole.tolist()) == str(parts.tolist())
    assert counts.as_dict() == counts_of_parts.as_dict()


@given(st.lists(st.binary(max_size=300), max_size=6))
@settings(max_examples=200)
def test_any_bytes_give_records_or_counted_outcomes(chunks: list[bytes]) -> None:
    outcomes = Outcomes()
    decoder = B3Decoder("file", outcomes)
    n = len(decoder.decode(list(enumerate(chunks))).detections) + len(decoder.finish().detections)
    assert outcomes.get("file", Outcome.FRAME_ACCEPTED) == n


@given(st.integers(0, 74), st.integers(0, 255))
def test_a_record_with_one_byte_damaged_is_read_or_counted(place: int, byte: int) -> None:
    line = bytearray(record())
    line[place] = byte
    found, outcomes = decode(record() + b"\n" + bytes(line) + b"\n" + record() + b"\n")
    assert found["seq"][0] == 1
    assert np.isfinite(found["range_m"]).all()
    assert outcomes.get("file", Outcome.FRAME_ACCEPTED) == len(found)


def test_memory_is_bounded_when_no_line_ends() -> None:
    outcomes = Outcomes()
    decoder = B3Decoder("file", outcomes)
    for _ in range(50):
        decoder.decode([(0, b"x" * 10_000)])
        assert len(decoder._tail) <= MAX_LINE
    decoder.decode([(0, b"\n" + record() + b"\n")])
    assert outcomes.as_dict() == {"file": {"frame_accepted": 1, "frame_too_long": 1}}


@pytest.mark.parametrize("name", ["22076", "13736", "22823"])
def test_real_files_are_read_to_the_last_record(shared_data: Path, name: str) -> None:
    text = gzip.decompress((shared_data / "ssn_radar" / f"{name}_dec1996.b3.gz").read_bytes())
    found, outcomes = decode(text)
    assert outcomes.as_dict() == {"file": {"frame_accepted": text.count(b"\n")}}
    assert set(found["sensor_id"].tolist()) == {354, 363, 932}
    assert {ts.utc_text(int(t))[:7] for t in found["t_meas_ns"][::500]} == {"1996-12"}
