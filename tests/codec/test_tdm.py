from __future__ import annotations

from pathlib import Path

import erfa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionnode.codec import tdm
from fusionnode.codec.tdm import TdmDecoder
from fusionnode.core import timescales as ts
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import Channel, Kind, StructArray

RADAR = {
    "TIME_SYSTEM": "UTC",
    "PARTICIPANT_1": "RADAR-7",
    "PARTICIPANT_2": "OBJECT",
    "MODE": "SEQUENTIAL",
    "PATH": "1,2,1",
    "RANGE_UNITS": "km",
    "ANGLE_TYPE": "AZEL",
}
CAMERA = {
    "TIME_SYSTEM": "UTC",
    "PARTICIPANT_1": "CAMERA",
    "PARTICIPANT_2": "OBJECT",
    "MODE": "SEQUENTIAL",
    "PATH": "2,1",
    "ANGLE_TYPE": "RADEC",
    "REFERENCE_FRAME": "ICRF",
}
T = "2025-09-01T00:00:01.5"
POINT = [
    f"RANGE = {T} 1234.5",
    f"ANGLE_1 = {T} 30.0",
    f"ANGLE_2 = {T} 45.0",
    f"DOPPLER_INSTANTANEOUS = {T} -1.5",
]


def message(meta: dict[str, str], *data: str) -> bytes:
    head = ["CCSDS_TDM_VERS = 2.0", "CREATION_DATE = 2025-09-01T00:00:00", "ORIGINATOR = TEST"]
    keys = [f"{k} = {v}" for k, v in meta.items()]
    return "\n".join([*head, "META_START", *keys, "META_STOP", "DATA_START", *data, "DATA_STOP", ""]).encode()


def decode(data: bytes, sensor_ids: dict[str, int] | None = None) -> tuple[StructArray, Outcomes, str | None]:
    outcomes = Outcomes()
    decoder = TdmDecoder("file", outcomes, sensor_ids)
    assert len(decoder.decode([(7, data[:50]), (8, data[50:])]).detections) == 0
    return decoder.finish().detections, outcomes, decoder.reason


def test_values_of_one_epoch_are_one_detection() -> None:
    (d,), outcomes, reason = decode(message(RADAR, *POINT, f"RCS = {T} 10.0"))
    assert ts.utc_text(d["t_meas_ns"]) == "2025-09-01T00:00:01.500000Z"
    assert (d["t_rx_ns"], d["sensor_id"], d["seq"], d["kind"]) == (8, 7, 1, Kind.RADAR_AZEL)
    assert d["channels"] == Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE
    assert (d["range_m"], d["range_rate_m_s"]) == (1_234_500.0, -1_500.0)
    np.testing.assert_allclose([d["lon_rad"], d["lat_rad"]], np.radians([30.0, 45.0]), rtol=1e-15)
    assert d["rcs_dbsm"] == pytest.approx(10.0)
    assert outcomes.as_dict() == {"file": {"frame_accepted": 1}}
    assert reason is None


@pytest.mark.parametrize(("system", "late_s"), [("UTC", 37.0), ("TAI", 0.0), ("GPS", 19.0), ("TT", -32.184)])
def test_each_time_system_comes_to_tai(system: str, late_s: float) -> None:
    (d,), _, _ = decode(message(RADAR | {"TIME_SYSTEM": system}, *POINT))
    reading = ts.day_from_year_doy(2025, 244) * ts.DAY_NS + 1_500_000_000
    assert d["t_meas_ns"] - reading == round(late_s * 1e9)


def test_a_sensor_is_known_by_name_or_by_the_number_in_it() -> None:
    data = message(RADAR, *POINT)
    assert decode(data, {"RADAR-7": 932})[0]["sensor_id"].tolist() == [932]
    assert decode(data.replace(b"RADAR-7", b"RADAR"))[0]["sensor_id"].tolist() == [0]
    two_stations = RADAR | {"PARTICIPANT_3": "STATION-9", "PATH": "1,2,3"}
    assert decode(message(two_stations, *POINT))[0]["sensor_id"].tolist() == [9]


@pytest.mark.parametrize(
    "change",
    [{"RANGE_UNITS": "RU"}, {"RANGE_MODULUS": "1000.0"}, {"PARTICIPANT_3": "R", "PATH": "1,3,2,3,1"}],
)
def test_what_is_not_the_range_of_the_object_is_left_out(change: dict[str, str]) -> None:
    (d,), _, _ = decode(message(RADAR | change, *POINT))
    assert d["channels"] == Channel.ANGLES | Channel.RANGE_RATE
    assert d["range_m"] == 0.0


def test_a_range_in_seconds_is_a_light_time() -> None:
    (d,), _, _ = decode(message(RADAR | {"RANGE_UNITS": "s"}, f"RANGE = {T} 0.01", *POINT[1:]))
    assert d["range_m"] == pytest.approx(2_997_924.58)


def test_corrections_are_applied_where_they_have_not_been() -> None:
    stated = RADAR | {"CORRECTION_ANGLE_1": "0.5", "CORRECTION_RANGE": "-1.48"}
    (d,), _, _ = decode(message(stated | {"CORRECTIONS_APPLIED": "NO"}, *POINT))
    assert d["range_m"] == pytest.approx(1_233_020.0)
    assert d["lon_rad"] == pytest.approx(np.radians(30.5))
    (d,), _, _ = decode(message(stated | {"CORRECTIONS_APPLIED": "YES"}, *POINT))
    assert d["range_m"] == 1_234_500.0


def test_the_axes_of_eme2000_are_turned_to_those_of_the_gcrf() -> None:
    (plain,), _, _ = decode(message(CAMERA, *POINT[1:3], f"MAG = {T} 12.5"))
    (turned,), _, _ = decode(message(CAMERA | {"REFERENCE_FRAME": "EME2000"}, *POINT[1:3]))
    assert (plain["kind"], plain["magnitude"]) == (Kind.OPTICAL_RADEC, 12.5)
    assert plain["channels"] == turned["channels"] == Channel.ANGLES
    apart = erfa.seps(plain["lon_rad"], plain["lat_rad"], turned["lon_rad"], turned["lat_rad"])
    assert 0.001 < np.degrees(apart) * 3_600 < 0.03


def test_two_ranges_at_one_epoch_are_two_detections() -> None:
    found, _, _ = decode(
        message(RADAR, *POINT, f"RANGE = {T} 2000.0", f"ANGLE_1 = {T} 31.0", f"ANGLE_2 = {T} 46.0")
    )
    assert found["range_m"].tolist() == [1_234_500.0, 2_000_000.0]
    assert found["seq"].tolist() == [1, 2]


def test_azimuth_and_elevation_without_a_range_are_a_cameras() -> None:
    (d,), _, _ = decode(message(RADAR | {"PATH": "2,1"}, *POINT[1:3]))
    assert d["kind"] == Kind.OPTICAL_AZEL


@pytest.mark.parametrize(
    ("data", "outcome", "words"),
    [
        (b"rubbish", Outcome.FRAME_MALFORMED, ""),
        (b"\xff\xfe\x00", Outcome.FRAME_MALFORMED, "expected text"),
        (message(RADAR, "RANGE = 2025-02-30T00:00:00 5.0"), Outcome.FRAME_BAD_FIELD, "is not a time"),
        (message(RADAR, f"RANGE = {T} 1e999"), Outcome.FRAME_BAD_FIELD, "finite"),
        (message(RADAR | {"TIME_SYSTEM": "TDB"}, *POINT), Outcome.FRAME_UNKNOWN_TYPE, "TIME_SYSTEM"),
        (message(RADAR | {"ANGLE_TYPE": "XEYN"}, *POINT), Outcome.FRAME_UNKNOWN_TYPE, "ANGLE_TYPE"),
        (message(CAMERA | {"REFERENCE_FRAME": "TOD"}, *POINT), Outcome.FRAME_UNKNOWN_TYPE, "REFERENCE_FRAME"),
        (message(RADAR, f"RECEIVE_FREQ_1 = {T} 5.0"), Outcome.FRAME_UNKNOWN_TYPE, "nothing that is read"),
    ],
)
def test_what_cannot_be_used_is_counted_with_one_line_of_reason(
    data: bytes, outcome: Outcome, words: str
) -> None:
    found, outcomes, reason = decode(data)
    assert len(found) == 0
    assert outcomes.as_dict()["file"].keys() == {outcome.value}
    assert reason is not None
    assert words in reason
    assert "\n" not in reason


def test_a_message_too_long_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tdm, "MAX_BYTES", 100)
    outcomes = Outcomes()
    decoder = TdmDecoder("file", outcomes)
    for _ in range(20):
        decoder.decode([(0, b"x" * 30)])
        assert sum(map(len, decoder._chunks)) <= 100
    assert len(decoder.finish().detections) == 0
    assert outcomes.as_dict() == {"file": {"frame_too_long": 1}}
    decoder.decode([(0, b"x")])
    decoder.finish()
    assert outcomes.get("file", Outcome.FRAME_MALFORMED) == 1


def test_an_empty_file_is_nothing_at_all() -> None:
    found, outcomes, reason = decode(b" \n")
    assert (len(found), outcomes.as_dict(), reason) == (0, {}, None)


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_message_is_read_or_counted(data: st.DataObject) -> None:
    text = bytearray(message(RADAR, *POINT))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    found, outcomes, _ = decode(bytes(text))
    assert outcomes.get("file", Outcome.FRAME_ACCEPTED) == len(found)
    assert sum(outcomes.of("file").values()) > 0 or not bytes(text).strip()


@pytest.mark.parametrize(
    ("name", "n", "channels", "first"),
    [
        ("tdm_e6.kvn", 8, Channel.ANGLES, "1998-06-10T00:57:37.000000Z"),
        ("tdm_e16.kvn", 6, Channel.ANGLES, "2012-10-29T17:46:39.020000Z"),
        ("tdm_e17.kvn", 3, Channel.ANGLES | Channel.RANGE, "2011-05-11T10:26:33.261300Z"),
        ("tdm_e22.kvn", 3, Channel.ANGLES, "2019-10-21T18:59:38.869008Z"),
    ],
)
def test_the_standards_examples_are_read(
    shared_data: Path, name: str, n: int, channels: int, first: str
) -> None:
    found, outcomes, reason = decode((shared_data / "ccsds" / "tdm" / name).read_bytes())
    assert outcomes.as_dict() == {"file": {"frame_accepted": n}}
    assert reason is None
    assert set(found["channels"].tolist()) == {int(channels)}
    assert ts.utc_text(found["t_meas_ns"][0]) == first


@pytest.mark.parametrize("name", ["inconsistent-line", "number-format-error", "wrong-keyword"])
def test_the_broken_examples_are_one_counted_outcome_with_a_place(shared_data: Path, name: str) -> None:
    found, outcomes, reason = decode((shared_data / "ccsds" / "tdm" / f"TDM-data-{name}.txt").read_bytes())
    assert len(found) == 0
    assert outcomes.as_dict() == {"file": {"frame_malformed": 1}}
    assert reason is not None
    assert "line 2" in reason
