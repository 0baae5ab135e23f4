"""Recorded observations reach the node as frames that mean what the file says."""

from __future__ import annotations

import gzip
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import serial

from fusionnode.codec.b3 import B3Decoder
from fusionnode.codec.registry import make
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode_hil import wire
from fusionnode_hil.links import PtyLink
from fusionnode_hil.observations import ObservationError, Recording, read
from fusionnode_hil.playback import numbered, play
from fusionnode_hil.times import NS, parse_time

# Records below are made up: sensor 363 on 1996-12-08 (day 343), 13:37:31.250 UTC.


def b3(**columns: tuple[int, str]) -> str:
    line = list("U" + "81907363963431337" + "31250" + "074030" + " " + "2404565" + " " + "13846842" + " ")
    line += list("-122729" + " " + "02191" + " " + "01811" + " " + "00000" + "  4")
    assert len(line) == 75
    for start, text in columns.values():
        line[start : start + len(text)] = text
    return "".join(line)


def recorded(tmp_path: Path, text: str, **sensors: int) -> Recording:
    path = tmp_path / "file.txt"
    path.write_text(text)
    recording = Recording()
    read(path, sensors, recording)
    return recording


def test_a_b3_record_becomes_the_nearest_integers_of_the_wire(tmp_path: Path) -> None:
    (m,) = recorded(tmp_path, b3()).messages
    assert m == wire.Radar(
        sensor_id=363,
        seq=0,
        t_ns=parse_time("1996-12-08T13:37:31.250"),
        range_mm=1_384_684_000,
        az_bam32=round(240.4565 / 360 * 2**32),
        el_bam32=round(7.4030 / 360 * 2**32),
        range_rate_mm_s=-1_227_290,
        valid=wire.VALID_RANGE | wire.VALID_ANGLES | wire.VALID_RANGE_RATE,
    )
    assert m.t_ns - parse_time("1996-12-08T13:37:31.250", "TAI") == 30 * NS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("J22729", -122_729),
        ("R00000", -900_000),
        ("}22729", -22_729),
        ("-22729", -22_729),
        ("022729", 22_729),
    ],
)
def test_overpunched_fields_are_negative(tmp_path: Path, text: str, expected: int) -> None:
    (m,) = recorded(tmp_path, b3(el=(23, text))).messages
    assert isinstance(m, wire.Radar)
    assert m.el_bam32 == round(expected / 1e4 / 360 * 2**32)


def test_every_b3_line_is_sent_or_counted(tmp_path: Path) -> None:
    lines = [
        b3(),
        b3()[:60],
        b3(kind=(74, "9")),
        b3(range=(38, "000x000")),
        b3(range=(38, "0000000")),
        b3(elevation=(23, "999999")),
        b3(day=(11, "367")),
        b3(kind=(74, "1"), range=(38, "        ")),
    ]
    recording = recorded(tmp_path, "\n".join(lines) + "\n\n")
    assert recording.outcomes == {
        "sent": 2,
        "too short": 1,
        "unknown type": 1,
        "malformed": 2,
        "not on the wire": 2,
    }
    assert recording.messages[1].valid == wire.VALID_ANGLES


def test_real_b3_records_decode_as_the_node_reads_the_file_itself(shared_data: Path) -> None:
    path = shared_data / "ssn_radar" / "22076_dec1996.b3.gz"
    recording = Recording()
    read(path, {}, recording)
    messages = numbered(recording.in_order(), wire.TIME_LOCKED)
    outcomes = Outcomes()
    played = make("frames", "link", outcomes).decode([(0, b"".join(map(wire.frame, messages)))]).detections
    file = B3Decoder("file", outcomes).decode([(0, gzip.decompress(path.read_bytes()))]).detections
    assert outcomes.of("link") == {Outcome.FRAME_ACCEPTED: len(messages)}
    assert len(played) == len(file) > 10_000
    order = np.lexsort((file["range_m"], file["sensor_id"], file["t_meas_ns"]))
    file = file[order]
    played = played[np.lexsort((played["range_m"], played["sensor_id"], played["t_meas_ns"]))]
    for name in ("t_meas_ns", "sensor_id", "channels", "kind"):
        np.testing.assert_array_equal(played[name], file[name])
    np.testing.assert_allclose(played["range_m"], file["range_m"], atol=1e-6)
    np.testing.assert_allclose(played["range_rate_m_s"], file["range_rate_m_s"], atol=1e-9)
    for name in ("lon_rad", "lat_rad"):
        np.testing.assert_allclose(played[name], file[name], atol=np.pi / 2**32 + 1e-12)
    assert (played["range_sigma_m"] == 0.0).all()
    times = [m.t_ns for m in messages]
    assert times == sorted(times)


TDM = """CCSDS_TDM_VERS = 2.0
CREATION_DATE = 2011-05-12T00:00:00.000
ORIGINATOR = TEST
META_START
TIME_SYSTEM = {system}
PARTICIPANT_1 = HERE
PARTICIPANT_2 = THING
MODE = SEQUENTIAL
PATH = {path}
{meta}
META_STOP
DATA_START
{data}
DATA_STOP
"""


def tdm(data: str, meta: str = "ANGLE_TYPE = AZEL", system: str = "UTC", path: str = "1,2,1") -> str:
    return TDM.format(data=data, meta=meta, system=system, path=path)


def test_a_radar_tdm_becomes_radar_detections(tmp_path: Path) -> None:
    data = (
        "RANGE = 2011-05-11T10:26:33.2613 2808.2696\nANGLE_1 = 2011-05-11T10:26:33.2613 191.40208435\n"
        "ANGLE_2 = 2011-05-11T10:26:33.2613 25.44166756\nRCS = 2011-05-11T10:26:33.2613 2.984\n"
        "DOPPLER_INSTANTANEOUS = 2011-05-11T10:26:33.2613 -4.5\nRCS = 2011-05-11T10:26:34 1.0\n"
    )
    recording = recorded(tmp_path, tdm(data), HERE=11)
    (m,) = recording.messages
    assert isinstance(m, wire.Radar)
    assert m.t_ns == parse_time("2011-05-11T10:26:33.2613")
    assert (m.sensor_id, m.range_mm, m.range_rate_mm_s) == (11, 2_808_269_600, -4_500_000)
    assert m.az_bam32 == round(191.40208435 / 360 * 2**32)
    assert m.rcs_cdbsm == 475
    assert recording.outcomes == {"sent": 1, "nothing measured": 1}


def test_tdm_ranges_in_seconds_and_corrections_not_yet_applied_are_converted(tmp_path: Path) -> None:
    meta = "ANGLE_TYPE = AZEL\nRANGE_UNITS = s\nCORRECTION_ANGLE_2 = 0.5\nCORRECTIONS_APPLIED = NO"
    when = "2011-05-11T10:26:33"
    data = f"RANGE = {when} 0.01\nANGLE_1 = {when} 359.5\nANGLE_2 = {when} -0.25\n"
    (m,) = recorded(tmp_path, tdm(data, meta, system="TAI"), HERE=11).messages
    assert isinstance(m, wire.Radar)
    assert m.t_ns == parse_time("2011-05-11T10:26:33", "TAI")
    assert m.range_mm == 2_997_924_580
    assert m.el_bam32 == round(0.25 / 360 * 2**32)


def test_an_optical_tdm_becomes_optical_detections(shared_data: Path) -> None:
    recording = Recording()
    read(shared_data / "ccsds" / "tdm" / "tdm_e16.kvn", {"TFRM": 3}, recording)
    read(shared_data / "ccsds" / "tdm" / "tdm_e17.kvn", {"CAMRA": 4}, recording)
    optical = [m for m in recording.in_order() if isinstance(m, wire.Optical)]
    radar = [m for m in recording.in_order() if isinstance(m, wire.Radar)]
    assert {m.coordinates for m in optical} <= {wire.RADEC}
    assert len(optical) + len(radar) == recording.outcomes["sent"] > 5
    assert {m.sensor_id for m in optical + radar} == {3, 4} or optical == []


@pytest.mark.parametrize(
    ("text", "sensors", "expected"),
    [
        ("nothing here\n", {}, "no B3 records"),
        (tdm("RANGE = 2011-05-11T10:26:33 1.0"), {}, "give --sensor NAME=ID"),
        (tdm("RANGE = 2011-05-11T10:26:33 1,0"), {"HERE": 1}, "a number that is none"),
        (tdm("RANGE = yesterday 1.0"), {"HERE": 1}, "expected a time"),
        (tdm("RANGE = 2011-05-11T10:26:33 1.0", "RANGE_UNITS = RU"), {"HERE": 1}, "RANGE_UNITS"),
        (tdm("ANGLE_1 = 2011-05-11T10:26:33 1.0", "ANGLE_TYPE = XEYN"), {"HERE": 1}, "ANGLE_TYPE"),
        (tdm("RANGE = 2011-05-11T10:26:33 1.0", system="UT1"), {"HERE": 1}, "time system"),
    ],
)
def test_a_file_that_cannot_be_played_is_one_line(tmp_path: Path, text: str, sensors, expected: str) -> None:
    with pytest.raises(ObservationError) as fault:
        recorded(tmp_path, text, **sensors)
    assert expected in str(fault.value)
    assert "file.txt" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_sensors_are_merged_by_time_and_numbered_each_for_itself() -> None:
    def m(sensor: int, second: int) -> wire.Radar:
        return wire.Radar(sensor_id=sensor, seq=0, t_ns=second * NS)

    recording = Recording([m(2, 3), m(1, 1), m(2, 1), m(1, 3), m(1, 2)])
    out = numbered(recording.in_order(), 0)
    assert [(x.t_ns // NS, x.sensor_id, x.seq) for x in out] == [
        (1, 1, 0),
        (1, 2, 0),
        (2, 1, 1),
        (3, 1, 2),
        (3, 2, 1),
    ]


@pytest.mark.parametrize("rate", [0.0, 500.0])
def test_playing_over_a_pty_loses_nothing(tmp_path: Path, rate: float) -> None:
    messages = [
        wire.Radar(sensor_id=1 + k % 3, seq=k, t_ns=k * NS // 10, range_mm=k + 1) for k in range(2_000)
    ]
    link = PtyLink(tmp_path / "radar.tty")
    found: list[wire.Message] = []

    def reader() -> None:
        frames, end = wire.FrameReader(), time.monotonic() + 20.0
        with serial.Serial(str(link.path), 115_200, timeout=0.2) as port:
            while len(found) < len(messages) and time.monotonic() < end:
                found.extend(frames.feed(port.read(4_096)))

    thread = threading.Thread(target=reader)
    thread.start()
    assert link.wait_ready(5.0)
    assert play(messages, link, rate=rate) == 2_000
    assert link.drain(10.0)
    thread.join(10.0)
    link.close()
    assert found == messages
    assert link.dropped_bytes == 0


def test_playing_stops_when_told_to(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    link = PtyLink(tmp_path / "radar.tty")
    assert play([wire.Radar(sensor_id=1, seq=0, t_ns=0)], link, rate=1.0, stop=stop) == 0
    link.close()
