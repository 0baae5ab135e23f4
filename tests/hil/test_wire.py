"""The bench's encoder against the golden vectors and the node's decoder: three implementations of one interface."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hil_support import REPOSITORY, radar_config, telescope_config

from fusionnode.codec.registry import make
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode_hil import wire
from fusionnode_hil.emulator import Emulator, trace
from fusionnode_hil.times import NS
from fusionnode_hil.wire_msgpack import encode

VECTORS = REPOSITORY / "firmware_interfaces" / "vectors"
KINDS = {kind.__name__.lower(): kind for kind in wire.MESSAGES.values()}


def golden(path: Path) -> bytes:
    text = path.with_suffix(".hex").read_text()
    return bytes.fromhex("".join(line for line in text.splitlines() if not line.startswith("#")))


def sendable() -> list[Path]:
    found = []
    for path in sorted(VECTORS.glob("*.toml")):
        vector = tomllib.loads(path.read_text())
        message = vector.get("message", {})
        reserved = any("reserved" in key for key in message)
        kind = KINDS.get(str(message.get("struct")))
        lengths = kind and message.get("header.length") == 24 + kind.BODY.size
        if (
            lengths
            and not reserved
            and message["header.version"] == 1
            and message["header.type"] == kind.TYPE
        ):
            found.append(path)
    return found


@pytest.mark.parametrize("path", sendable(), ids=lambda path: path.stem)
def test_a_frame_equals_the_golden_vector(path: Path) -> None:
    fields = tomllib.loads(path.read_text())["message"]
    kind = KINDS[fields.pop("struct")]
    head = {key: fields.pop(f"header.{key}") for key in ("sensor_id", "seq", "flags", "t_ns")}
    body = {name: fields.get(name, 0) for name in wire.body_fields(kind)}
    message = kind(**head, **body)
    assert wire.frame(message) == golden(path)
    assert wire.FrameReader().feed(golden(path)) == [message]


def test_there_are_golden_vectors_of_every_message() -> None:
    names = {path.stem.split("_")[0] for path in sendable()}
    assert names == set(KINDS)


def test_a_frame_split_over_reads_is_read_once() -> None:
    message = wire.Command(sensor_id=7, seq=1, t_ns=5, command_id=9)
    reader = wire.FrameReader()
    found = [m for byte in wire.frame(message) for m in reader.feed(bytes([byte]))]
    assert found == [message]
    assert reader.bad == 0


def test_rubbish_is_counted_and_never_kept() -> None:
    rng = np.random.default_rng(1)
    reader = wire.FrameReader()
    message = wire.Command(sensor_id=7, seq=1, t_ns=5)
    found = []
    for _ in range(200):
        found += reader.feed(rng.bytes(300) + wire.frame(message))
        assert len(reader._rest) <= wire.MAX_FRAME + 1
    assert found == [message] * 200
    assert reader.bad > 0


@pytest.mark.parametrize("form", ["frames", "msgpack", "columnar"])
@pytest.mark.parametrize("config", [radar_config(), telescope_config()], ids=["radar", "telescope"])
def test_the_node_accepts_every_byte_of_an_emulator_in_every_form(config, form) -> None:
    emulator = Emulator(config)
    messages = [m for e in emulator.sensor.advance(emulator.start_ns + 200 * NS) for m in e.messages]
    outcomes = Outcomes()
    sent = encode(messages, form)
    decoded = make("auto", "link", outcomes).decode([(i, data) for i, data in enumerate(sent)])
    assert outcomes.of("link") == {Outcome.FRAME_ACCEPTED: len(sent)}
    detections = [m for m in messages if isinstance(m, wire.Radar | wire.Optical)]
    assert len(detections) > 50
    assert decoded.detections["seq"].tolist() == [m.seq for m in detections]
    assert decoded.detections["t_meas_ns"].tolist() == [m.t_ns for m in detections]
    assert len(decoded.reports) == len(messages) - len(detections)


def test_the_forms_carry_the_same_numbers() -> None:
    emulator = Emulator(radar_config())
    messages = [m for e in emulator.sensor.advance(emulator.start_ns + 60 * NS) for m in e.messages]
    tables = []
    for form in ("frames", "msgpack", "columnar"):
        decoder = make("auto", "link", Outcomes())
        tables.append(decoder.decode([(0, data) for data in encode(messages, form)]).detections)
    for name in ("range_m", "lon_rad", "lat_rad", "range_rate_m_s", "snr_db", "lon_sigma_rad"):
        np.testing.assert_allclose(tables[1][name], tables[0][name], rtol=1e-15, atol=1e-15)
        np.testing.assert_array_equal(tables[1][name], tables[2][name])


def test_sequence_numbers_count_every_message_of_the_sensor() -> None:
    reader = wire.FrameReader()
    messages = reader.feed(b"".join(data for _, data in trace(radar_config(), 30.0)))
    assert [m.seq for m in messages] == list(range(len(messages)))
