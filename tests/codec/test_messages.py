from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from wire_samples import T_NS, content, frames, messages, sensor_frames

from fusionnode.codec import commands, framing, wire
from fusionnode.codec import messages as message_kernels
from fusionnode.codec.framing import Deframer
from fusionnode.codec.messages import FramesDecoder
from fusionnode.codec.registry import NAMES, make
from fusionnode.codec.wire import Coordinates, MessageType
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import DETECTION, Channel, Decoded, Kind, ReportKind


def decode(stream: bytes, t_rx_ns: int = 5) -> tuple[Decoded, dict[str, int]]:
    outcomes = Outcomes()
    decoded = FramesDecoder("l", outcomes).decode([(t_rx_ns, stream)])
    return decoded, outcomes.of("l")


def test_radar_values_come_out_in_si_units() -> None:
    rows = messages(MessageType.RADAR, 300)
    detections = decode(b"".join(frames(rows)))[0].detections
    assert detections.dtype == DETECTION
    valid = rows["valid"]
    bam = 2 * math.pi / 2**32
    expected = {
        "range_m": (rows["range_mm"] * 1e-3, 1),
        "range_sigma_m": (rows["range_sigma_mm"] * 1e-3, 1),
        "lon_rad": (rows["az_bam32"] * bam, 2),
        "lat_rad": (rows["el_bam32"] * bam, 2),
        "lon_sigma_rad": (rows["az_sigma_nrad"] * 1e-9, 2),
        "lat_sigma_rad": (rows["el_sigma_nrad"] * 1e-9, 2),
        "range_rate_m_s": (rows["range_rate_mm_s"] * 1e-3, 4),
        "range_rate_sigma_m_s": (rows["range_rate_sigma_mm_s"] * 1e-3, 4),
    }
    for name, (values, bit) in expected.items():
        np.testing.assert_allclose(detections[name], np.where(valid & bit, values, 0.0), rtol=1e-15)
    for name, raw, bit in (("snr_db", "snr_cdb", 8), ("rcs_dbsm", "rcs_cdbsm", 16)):
        np.testing.assert_allclose(
            detections[name], np.where(valid & bit, rows[raw] * 0.01, np.nan), rtol=1e-6
        )
    assert np.isnan(detections["magnitude"]).all()
    assert np.isnan(detections["exposure_s"]).all()
    np.testing.assert_array_equal(detections["channels"], valid & 7)
    assert (detections["kind"] == Kind.RADAR_AZEL).all()
    assert (detections["t_rx_ns"] == 5).all()
    for name, raw in (("t_meas_ns", "t_ns"), ("sensor_id", "sensor_id"), ("seq", "seq"), ("flags", "flags")):
        np.testing.assert_array_equal(detections[name], rows["header"][raw])


def test_optical_values_come_out_in_si_units() -> None:
    rows = messages(MessageType.OPTICAL, 300)
    rows["exposure_us"][::3] = 0
    detections = decode(b"".join(frames(rows)))[0].detections
    bam = 2 * math.pi / 2**32
    np.testing.assert_allclose(detections["lon_rad"], rows["lon_bam32"] * bam, rtol=1e-15)
    np.testing.assert_allclose(detections["lat_rad"], rows["lat_bam32"] * bam, rtol=1e-15)
    np.testing.assert_allclose(detections["lon_sigma_rad"], rows["lon_sigma_nrad"] * 1e-9, rtol=1e-15)
    magnitude = np.where(rows["valid"] & 0x20, rows["magnitude_mmag"] * 1e-3, np.nan)
    np.testing.assert_allclose(detections["magnitude"], magnitude, rtol=1e-6)
    exposure = np.where(rows["exposure_us"], rows["exposure_us"] * 1e-6, np.nan)
    np.testing.assert_allclose(detections["exposure_s"], exposure, rtol=1e-6)
    azel = rows["coordinates"] == Coordinates.AZEL
    np.testing.assert_array_equal(detections["kind"], np.where(azel, Kind.OPTICAL_AZEL, Kind.OPTICAL_RADEC))
    assert (detections["channels"] == Channel.ANGLES).all()
    assert (detections["range_m"] == 0).all()
    assert np.isnan(detections["snr_db"]).all()


def test_kinds_mixed_in_one_stream_keep_their_order() -> None:
    radar = frames(messages(MessageType.RADAR, 50))
    optical = frames(messages(MessageType.OPTICAL, 50, first_seq=1000))
    status = frames(messages(MessageType.STATUS, 50))
    stream = b"".join(b"".join(three) for three in zip(optical, status, radar, strict=True))
    decoded, counts = decode(stream)
    expected = [seq for k in range(50) for seq in (1000 + k, k)]
    assert decoded.detections["seq"].tolist() == expected
    assert [report.seq for report in decoded.reports] == list(range(50))
    assert counts == {Outcome.FRAME_ACCEPTED: 150}


def test_a_detection_decodes_alone_as_in_a_batch() -> None:
    every = sensor_frames(80)
    together = decode(b"".join(every))[0]
    alone = [decode(one)[0] for one in every]
    apart = np.concatenate([a.detections for a in alone])
    assert content(apart) == content(together.detections)
    assert repr([r for a in alone for r in a.reports]) == repr(together.reports)


def test_a_frame_has_the_time_of_the_chunk_with_its_last_byte() -> None:
    first, second, third = frames(messages(MessageType.RADAR, 3))
    chunks = [(10, first[:40]), (20, first[40:] + second[:-1]), (30, second[-1:]), (40, b""), (50, third)]
    decoded = FramesDecoder("l", Outcomes()).decode(chunks)
    assert decoded.detections["t_rx_ns"].tolist() == [20, 30, 50]


def test_status_report_fields() -> None:
    rows = messages(MessageType.STATUS, 2)
    rows["temperature_cdeg"] = [-1550, -32768]
    first, second = decode(b"".join(frames(rows)))[0].reports
    assert first.kind == ReportKind.STATUS
    assert first.t_ns == rows["header"]["t_ns"][0]
    assert first.t_rx_ns == 5
    names = ("uptime_s", "detections_sent", "detections_dropped", "frames_bad", "commands_received")
    assert {name: first.fields[name] for name in names} == {name: int(rows[name][0]) for name in names}
    assert first.fields["mode"] == rows["mode"][0]
    assert first.fields["health"] == rows["health"][0]
    assert first.fields["temperature_degc"] == pytest.approx(-15.5)
    assert math.isnan(second.fields["temperature_degc"])


def test_time_and_ack_report_fields() -> None:
    time, ack = messages(MessageType.TIME, 1), messages(MessageType.ACK, 1)
    time["sigma_ns"], time["frequency_ppb"], time["tai_minus_utc_s"] = 50, -12, 37
    told, answered = decode(b"".join(frames(time) + frames(ack)))[0].reports
    assert told.fields == pytest.approx(
        {"sigma_s": 50e-9, "frequency_error": -12e-9, "tai_minus_utc_s": 37, "source": int(time["source"][0])}
    )
    assert answered.kind == ReportKind.ACK
    names = ("command_id", "code", "result", "received_ns")
    assert answered.fields == {name: int(ack[name][0]) for name in names}


def _header(field: str, value: int) -> Callable[[Any], None]:
    def spoil(row: Any) -> None:
        row["header"][field] = value

    return spoil


def _field(field: str, value: Any, valid: int | None = None) -> Callable[[Any], None]:
    def spoil(row: Any) -> None:
        row[field] = value
        if valid is not None:
            row["valid"] = valid

    return spoil


HALF_PAST = wire.QUARTER_TURN_BAM32 + 1
BAD = [
    (MessageType.RADAR, _header("version", 0), Outcome.FRAME_BAD_VERSION),
    (MessageType.RADAR, _header("version", 2), Outcome.FRAME_BAD_VERSION),
    (MessageType.RADAR, _header("type", 0), Outcome.FRAME_UNKNOWN_TYPE),
    (MessageType.RADAR, _header("type", 255), Outcome.FRAME_UNKNOWN_TYPE),
    (MessageType.RADAR, _header("type", MessageType.OPTICAL), Outcome.FRAME_BAD_LENGTH),
    (MessageType.RADAR, _header("length", 71), Outcome.FRAME_BAD_LENGTH),
    (MessageType.COMMAND, _header("seq", 0), Outcome.FRAME_UNEXPECTED),
    (MessageType.RADAR, _header("sensor_id", 0), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _header("reserved", 1), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _header("flags", 0x8000), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _header("t_ns", -1), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _header("t_ns", wire.TIME_LIMIT_NS), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _field("reserved", 1), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _field("range_mm", 0, 1), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _field("range_mm", -1, 3), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _field("el_bam32", HALF_PAST, 2), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _field("el_bam32", -HALF_PAST, 2), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _field("el_bam32", -(2**31), 2), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _field("valid", 0), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _field("valid", 4), Outcome.FRAME_BAD_FIELD),
    (MessageType.RADAR, _field("valid", 0x23), Outcome.FRAME_BAD_FIELD),
    (MessageType.OPTICAL, _field("valid", 0x20), Outcome.FRAME_BAD_FIELD),
    (MessageType.OPTICAL, _field("valid", 0x03), Outcome.FRAME_BAD_FIELD),
    (MessageType.OPTICAL, _field("coordinates", 2), Outcome.FRAME_BAD_FIELD),
    (MessageType.OPTICAL, _field("lat_bam32", HALF_PAST), Outcome.FRAME_BAD_FIELD),
    (MessageType.OPTICAL, _field("reserved", (0, 0, 1)), Outcome.FRAME_BAD_FIELD),
    (MessageType.STATUS, _field("mode", 5), Outcome.FRAME_BAD_FIELD),
    (MessageType.STATUS, _field("health", 0x20), Outcome.FRAME_BAD_FIELD),
    (MessageType.STATUS, _field("reserved", (0, 0, 0, 0, 0, 0, 1)), Outcome.FRAME_BAD_FIELD),
    (MessageType.STATUS, _header("sensor_id", 0), Outcome.FRAME_BAD_FIELD),
    (MessageType.TIME, _field("source", 4), Outcome.FRAME_BAD_FIELD),
    (MessageType.ACK, _field("result", 5), Outcome.FRAME_BAD_FIELD),
    (MessageType.ACK, _field("received_ns", -1), Outcome.FRAME_BAD_FIELD),
    (MessageType.ACK, _field("reserved", 1), Outcome.FRAME_BAD_FIELD),
]


@pytest.mark.parametrize(("kind", "spoil", "outcome"), BAD)
def test_what_the_interface_does_not_allow_is_refused_by_name_and_its_neighbours_are_not(
    kind: MessageType, spoil: Callable[[Any], None], outcome: Outcome
) -> None:
    rows = messages(kind, 1)
    spoil(rows[0])
    good = sensor_frames(4)
    decoded, counts = decode(b"".join(good[:2] + frames(rows) + good[2:]))
    assert len(decoded.detections) + len(decoded.reports) == 4
    assert counts == {Outcome.FRAME_ACCEPTED: 4, outcome: 1}


def test_a_value_that_is_not_valid_is_not_looked_at() -> None:
    rows = messages(MessageType.RADAR, 1)
    rows["valid"], rows["range_mm"], rows["el_bam32"] = 1, 1000, 2**31 - 1
    detection = decode(frames(rows)[0])[0].detections[0]
    assert detection["range_m"] == 1.0
    assert detection["lat_rad"] == 0.0
    assert detection["channels"] == Channel.RANGE


def _sent(frame: bytes) -> Any:
    return np.frombuffer(Deframer("l", Outcomes()).feed(frame).payload, wire.COMMAND, 1)[0]


def test_commands_are_frames_of_the_interface() -> None:
    where = {"sensor_id": 7, "seq": 3, "t_ns": T_NS, "command_id": 99}
    for frame, code in (
        (commands.ping(**where), wire.CommandCode.PING),
        (commands.time_sync(**where), wire.CommandCode.TIME_SYNC),
        (commands.set_mode(wire.Mode.TRACK, **where), wire.CommandCode.SET_MODE),
    ):
        row = _sent(frame)
        assert row["code"] == code
        assert row["command_id"] == 99
        assert row["header"].tolist() == (1, 16, 0, 7, 3, 64, 0, T_NS)
        assert decode(frame)[1] == {Outcome.FRAME_UNEXPECTED: 1}
    assert _sent(commands.set_mode(wire.Mode.TRACK, **where))["argument"] == 3


def test_a_cue_says_where_and_until_when() -> None:
    row = _sent(
        commands.cue(
            sensor_id=7, seq=1, t_ns=T_NS, until_ns=T_NS + 10**9, command_id=1, coordinates=Coordinates.AZEL,
            lon_rad=-math.pi / 2, lat_rad=math.pi / 4, range_m=9e5, lon_sigma_rad=1e-3,
        )
    )  # fmt: skip
    assert row["lon_bam32"] == 3 * 2**30
    assert row["lat_bam32"] == 2**29
    assert row["range_mm"] == 900_000_000
    assert (row["lon_sigma_nrad"], row["lat_sigma_nrad"]) == (1_000_000, 0)
    assert row["until_ns"] == T_NS + 10**9


@pytest.mark.parametrize(
    "wrong",
    [{"lat_rad": 1.6}, {"lon_rad": math.nan}, {"range_m": -1.0}, {"lon_sigma_rad": 5.0}, {"until_ns": -1}],
)
def test_a_cue_with_an_impossible_value_is_a_value_error(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "sensor_id": 7, "seq": 1, "t_ns": T_NS, "until_ns": T_NS, "command_id": 1,
        "coordinates": Coordinates.RADEC, "lon_rad": 0.0, "lat_rad": 0.0,
    }  # fmt: skip
    commands.cue(**good)
    with pytest.raises(ValueError, match=next(iter(wrong))[:3]):
        commands.cue(**(good | wrong))


def test_the_registry_makes_every_codec_and_names_them_when_asked_for_another() -> None:
    for name in ("frames", "auto", "sensor_msgpack"):
        assert len(make(name, "l", Outcomes()).decode([]).detections) == 0
    with pytest.raises(ValueError, match=r"unknown codec 'nmea': .*frames, auto") as error:
        make("nmea", "l", Outcomes())
    assert all(name in str(error.value) for name in NAMES)


def test_after_warm_up_no_stream_compiles_anything() -> None:
    message_kernels.warm_up()
    every = sensor_frames(50)
    for stream in (b"", every[0], b"".join(every), b"".join(every)[7:-7], b"\0" * 9, b"\1" * 999):
        decode(stream)
    FramesDecoder("l", Outcomes()).decode([(k, one) for k, one in enumerate(every)])
    kernels = [
        kernel
        for module in (framing, message_kernels)
        for kernel in vars(module).values()
        if hasattr(kernel, "signatures")
    ]
    # An inner kernel may be inlined by one caller and called by another; those called from Python count.
    outer = [
        k for k in kernels if k.py_func.__name__ in ("_deframe", "gather", "_sort", "_radar", "_optical")
    ]
    assert {k.py_func.__name__: len(k.signatures) for k in outer} == dict.fromkeys(
        ("_deframe", "gather", "_sort", "_radar", "_optical"), 1
    )
