from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_samples import T_NS, content, frames, messages

from fusionnode.codec.registry import make
from fusionnode.codec.wire import MessageType
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.types import Channel, Decoded, Kind

RADAR: dict[str, Any] = {
    "version": 1, "type": "radar", "sensor_id": 7, "seq": 5, "flags": 1, "t_ns": T_NS,
    "range_m": 1e6, "az_rad": 1.5, "el_rad": 0.5, "range_rate_m_s": -3000, "range_sigma_m": 30.0, "snr_db": 12.5,
}  # fmt: skip
BATCH = RADAR | {
    "t_ns": np.array([T_NS, T_NS + 1, T_NS + 2], "<i8").tobytes(),
    "range_m": np.array([1e6, 2e6, 3e6], "<f8").tobytes(),
    "az_rad": [1, 1.5, 2.0],
}


def decode(*messages: bytes, codec: str = "auto") -> tuple[Decoded, dict[str, int]]:
    outcomes = Outcomes()
    decoder = make(codec, "l", outcomes)
    decoded = decoder.decode([(100 + k, data) for k, data in enumerate(messages)])
    decoder.finish()
    return decoded, outcomes.of("l")


def refusal(document: Any) -> Outcome:
    data = document if isinstance(document, bytes) else msgpack.packb(document)
    decoded, counts = decode(data, codec="sensor_msgpack")
    assert len(decoded.detections) == 0
    ((outcome, n),) = counts.items()
    assert n == 1
    return Outcome(outcome)


def test_one_detection_is_a_map() -> None:
    decoded, counts = decode(msgpack.packb(RADAR))
    (detection,) = decoded.detections
    assert counts == {Outcome.FRAME_ACCEPTED: 1}
    assert detection["kind"] == Kind.RADAR_AZEL
    assert detection["channels"] == Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE
    expected = {
        "t_meas_ns": T_NS, "t_rx_ns": 100, "sensor_id": 7, "seq": 5, "flags": 1, "range_m": 1e6, "lon_rad": 1.5,
        "lat_rad": 0.5, "range_rate_m_s": -3000.0, "range_sigma_m": 30.0, "lon_sigma_rad": 0.0, "snr_db": 12.5,
    }  # fmt: skip
    assert {name: detection[name].item() for name in expected} == expected
    assert math.isnan(detection["rcs_dbsm"])


def test_a_batch_takes_arrays_binary_columns_and_plain_numbers_together() -> None:
    detections = decode(msgpack.packb(BATCH))[0].detections
    assert detections["t_meas_ns"].tolist() == [T_NS, T_NS + 1, T_NS + 2]
    assert detections["range_m"].tolist() == [1e6, 2e6, 3e6]
    assert detections["lon_rad"].tolist() == [1.0, 1.5, 2.0]
    assert detections["lat_rad"].tolist() == [0.5] * 3
    assert detections["seq"].tolist() == [5, 6, 7]


def test_a_batch_says_the_same_as_its_rows_sent_alone() -> None:
    rows = [RADAR | {"t_ns": T_NS + k, "range_m": r, "az_rad": a, "seq": 5 + k}
            for k, (r, a) in enumerate([(1e6, 1), (2e6, 1.5), (3e6, 2.0)])]  # fmt: skip
    alone, together = (
        decode(*map(msgpack.packb, rows))[0].detections,
        decode(msgpack.packb(BATCH))[0].detections,
    )
    alone["t_rx_ns"] = together["t_rx_ns"]
    assert content(alone) == content(together)


def test_seq_of_a_batch_wraps_or_is_a_column() -> None:
    assert decode(msgpack.packb(BATCH | {"seq": 2**32 - 1}))[0].detections["seq"].tolist() == [
        2**32 - 1,
        0,
        1,
    ]
    for column in ([4, 8, 2], np.array([4, 8, 2], "<u4").tobytes()):
        assert decode(msgpack.packb(BATCH | {"seq": column}))[0].detections["seq"].tolist() == [4, 8, 2]


@pytest.mark.parametrize(
    ("kind", "lon", "lat"), [("optical_radec", "ra", "dec"), ("optical_azel", "az", "el")]
)
def test_an_optical_detection_has_the_angles_of_its_type(kind: str, lon: str, lat: str) -> None:
    document = {"version": 1, "type": kind, "sensor_id": 2, "seq": 0, "t_ns": T_NS, f"{lon}_rad": 1.0,
                f"{lat}_rad": -0.5, f"{lon}_sigma_rad": 5e-6, "magnitude": 11, "exposure_s": 0.25}  # fmt: skip
    (detection,) = decode(msgpack.packb(document))[0].detections
    assert detection["kind"] == Kind[kind.upper()]
    assert detection["channels"] == Channel.ANGLES
    assert (detection["lon_rad"], detection["lat_rad"], detection["lon_sigma_rad"]) == (1.0, -0.5, 5e-6)
    assert (detection["magnitude"], detection["exposure_s"]) == (11.0, 0.25)


def test_values_that_are_not_finite_pass_and_are_the_intakes_to_judge() -> None:
    document = RADAR | {"range_m": math.nan, "el_rad": math.inf, "snr_db": 1e300}
    (detection,) = decode(msgpack.packb(document))[0].detections
    assert math.isnan(detection["range_m"])
    assert detection["lat_rad"] == math.inf
    assert detection["snr_db"] == math.inf


def test_a_duplicate_key_is_harmless() -> None:
    packed = msgpack.packb(RADAR)
    doubled = bytes([0x80 | (len(RADAR) + 1)]) + packed[1:] + msgpack.packb("seq") + msgpack.packb(9)
    assert decode(doubled)[0].detections["seq"].tolist() == [9]


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in RADAR.items() if key not in keys}


@pytest.mark.parametrize(
    ("document", "outcome"),
    [
        (RADAR | {"version": 2}, Outcome.FRAME_BAD_VERSION),
        (RADAR | {"version": True}, Outcome.FRAME_BAD_FIELD),
        (without("version"), Outcome.FRAME_BAD_FIELD),
        (RADAR | {"type": "lidar"}, Outcome.FRAME_UNKNOWN_TYPE),
        (RADAR | {"type": 1}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"range_km": 1.0}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"magnitude": 1.0}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"sensor_id": 0}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"sensor_id": 2**32}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"sensor_id": "7"}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"seq": -1}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"seq": 1.0}, Outcome.FRAME_BAD_FIELD),
        (without("seq"), Outcome.FRAME_BAD_FIELD),
        (RADAR | {"flags": 8}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"t_ns": float(T_NS)}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"t_ns": 2**62}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"t_ns": -1}, Outcome.FRAME_BAD_FIELD),
        (without("t_ns"), Outcome.FRAME_BAD_FIELD),
        (RADAR | {"range_m": "far"}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"range_m": None}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"range_m": True}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {"range_m": {"km": 1}}, Outcome.FRAME_BAD_FIELD),
        (without("el_rad"), Outcome.FRAME_BAD_FIELD),
        (without("range_m"), Outcome.FRAME_BAD_FIELD),  # its sigma is still there
        (without("range_m", "range_sigma_m", "az_rad", "el_rad"), Outcome.FRAME_BAD_FIELD),
        (BATCH | {"range_m": [1.0, 2.0]}, Outcome.FRAME_BAD_LENGTH),
        (BATCH | {"range_m": b"1234567"}, Outcome.FRAME_BAD_LENGTH),
        (BATCH | {"t_ns": b"1234567"}, Outcome.FRAME_BAD_LENGTH),
        (BATCH | {"t_ns": []}, Outcome.FRAME_BAD_LENGTH),
        (BATCH | {"t_ns": b""}, Outcome.FRAME_BAD_LENGTH),
        (BATCH | {"seq": [1, 2]}, Outcome.FRAME_BAD_LENGTH),
        (BATCH | {"t_ns": np.full(3, -1, "<i8").tobytes()}, Outcome.FRAME_BAD_FIELD),
        (BATCH | {"range_m": [1.0, "2", 3.0]}, Outcome.FRAME_BAD_FIELD),
        (BATCH | {"range_m": [[1.0], [2.0], [3.0]]}, Outcome.FRAME_BAD_FIELD),
        (BATCH | {"sensor_id": [7, 7, 7]}, Outcome.FRAME_BAD_FIELD),
        (RADAR | {5: 1}, Outcome.FRAME_MALFORMED),
        ([RADAR], Outcome.FRAME_MALFORMED),
        (7, Outcome.FRAME_MALFORMED),
        (b"", Outcome.FRAME_MALFORMED),
        (msgpack.packb(RADAR)[:-1], Outcome.FRAME_MALFORMED),
        (msgpack.packb(RADAR) + b"\x00", Outcome.FRAME_MALFORMED),
        (b"\x81\xa1a" + b"\x91" * 5000 + b"\x00", Outcome.FRAME_MALFORMED),
        (b"\xdf\xff\xff\xff\xff", Outcome.FRAME_MALFORMED),
        (b"\x81\xa1\xff\x01", Outcome.FRAME_MALFORMED),
        (msgpack.packb(RADAR | {"x": b"\0" * 65536}), Outcome.FRAME_TOO_LONG),
    ],
)
def test_what_the_form_does_not_allow_is_refused_by_name(document: Any, outcome: Outcome) -> None:
    assert refusal(document) == outcome


def test_auto_sorts_whole_messages_by_their_first_byte_and_keeps_their_order() -> None:
    radar = frames(messages(MessageType.RADAR, 3))
    status = frames(messages(MessageType.STATUS, 1))
    document = msgpack.packb(RADAR | {"seq": 1000})
    decoded, counts = decode(radar[0], document, b"", b"hello", radar[1] + status[0] + radar[2], document)
    assert decoded.detections["seq"].tolist() == [0, 1000, 1, 2, 1000]
    assert decoded.detections["t_rx_ns"].tolist() == [100, 101, 104, 104, 105]
    assert len(decoded.reports) == 1
    assert counts == {Outcome.FRAME_ACCEPTED: 6, Outcome.FRAME_MALFORMED: 2}


def test_auto_never_lets_a_frame_run_into_the_next_message() -> None:
    first, second = frames(messages(MessageType.RADAR, 2))
    decoded, counts = decode(first[:30], second, second[:30])
    assert decoded.detections["seq"].tolist() == [1]
    assert counts[Outcome.FRAME_ACCEPTED] == 1
    assert sum(counts.values()) == 3


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda b: b"\x8c" + b)), max_size=5
    )
)
def test_any_messages_give_counted_outcomes_and_never_an_exception(chunks: list[bytes]) -> None:
    for codec in ("auto", "sensor_msgpack"):
        counts = decode(*chunks, codec=codec)[1]
        assert codec == "auto" or sum(counts.values()) == len(chunks)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
    | st.binary(max_size=32) | st.datetimes().map(lambda _: msgpack.Timestamp(1, 2)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from([*RADAR, "magnitude", "ra_rad", "junk"]), _VALUES, max_size=3))
def test_any_values_under_known_keys_are_taken_or_refused(changes: dict[str, Any]) -> None:
    decoded, counts = decode(msgpack.packb(RADAR | changes), msgpack.packb(BATCH | changes))
    assert sum(counts.values()) == 2
    assert (len(decoded.detections) > 0) == (counts.get(Outcome.FRAME_ACCEPTED, 0) > 0)
