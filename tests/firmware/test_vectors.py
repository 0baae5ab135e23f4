"""The golden vectors as the node and the tools see them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from firmware_support import FIRMWARE

from fusionnode.codec import framing, wire
from fusionnode.codec.registry import make
from fusionnode.core.outcome import Outcome, Outcomes

VECTORS = sorted((FIRMWARE / "vectors").glob("*.toml"))
MESSAGES = [p for p in VECTORS if "[message]" in p.read_text(encoding="utf-8")]


def load(path: Path) -> tuple[dict[str, Any], bytes]:
    lines = path.with_suffix(".hex").read_text(encoding="utf-8").splitlines()
    data = bytes.fromhex("".join(line.split("#")[0] for line in lines))
    return tomllib.loads(path.read_text(encoding="utf-8")), data


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_the_node_counts_what_the_vector_expects(path: Path) -> None:
    vector, data = load(path)
    outcomes = Outcomes()
    decoder = make("auto" if "document" in vector else "frames", "v", outcomes)
    decoded = decoder.decode([(5, data)])
    decoder.finish()
    expected: dict[str, int] = {f"frame_{k}": n for k, n in vector["expect"].items()}
    rubbish, detections = expected.pop("frame_rubbish_bytes", 0), expected.pop("frame_detections", None)
    if rubbish:
        expected["rubbish_bytes"] = rubbish
    commands = _commands(data)
    if commands:
        expected["frame_accepted"] -= commands
        expected[Outcome.FRAME_UNEXPECTED] = commands
    assert outcomes.of("v") == {k: n for k, n in expected.items() if n}
    accepted = expected.get("frame_accepted", 0)
    assert len(decoded.detections) + len(decoded.reports) == (accepted if detections is None else detections)


@pytest.mark.parametrize("path", MESSAGES, ids=lambda p: p.stem)
def test_the_nodes_table_reads_the_fields_that_the_vector_lists(path: Path) -> None:
    vector, data = load(path)
    fields = vector["message"]
    dtype = {t.name.lower(): d for t, d in wire.MESSAGES.items()}[fields.pop("struct")]
    frames = framing.Deframer("v", Outcomes()).feed(data)
    row = np.frombuffer(frames.payload, dtype, 1)[0]
    read = {k: row["header"][k[7:]] if k.startswith("header.") else row[k] for k in fields}
    assert {k: int(v) for k, v in read.items()} == fields
    assert framing.frame(row.tobytes()) == data


def test_every_message_type_has_a_vector() -> None:
    structs = {load(path)[0]["message"]["struct"] for path in MESSAGES}
    assert structs == {t.name.lower() for t in wire.MESSAGES}


def test_the_tool_finds_the_vectors_in_order() -> None:
    run = _tool("check")
    assert (run.returncode, run.stdout) == (0, f"{len(VECTORS)} vectors, 0 faults\n")


def test_the_tool_prints_a_capture_and_says_when_something_is_wrong(tmp_path: Path) -> None:
    capture = tmp_path / "capture.bin"
    capture.write_bytes(load(FIRMWARE / "vectors" / "stream_flipped.toml")[1])
    run = _tool("decode", str(capture))
    assert run.returncode == 1
    assert [line.split(":")[0] for line in run.stdout.splitlines()] == ["radar", "bad_crc", "radar"]


@pytest.mark.parametrize(
    ("first", "last", "verdicts", "code"),
    [
        (0, 79 + 30, ["radar", "unfinished"], 0),
        (40, 79 + 79, ["rubbish", "radar"], 0),
        (1, 79, ["rubbish"], 1),
        (0, 78, ["unfinished"], 1),
    ],
)
def test_a_capture_may_begin_and_end_inside_a_frame_but_has_to_hold_a_whole_one(
    tmp_path: Path, first: int, last: int, verdicts: list[str], code: int
) -> None:
    capture = tmp_path / "capture.bin"
    capture.write_bytes((load(FIRMWARE / "vectors" / "radar_typical.toml")[1] * 2)[first:last])
    run = _tool("decode", str(capture))
    assert [line.split(":")[0] for line in run.stdout.splitlines()] == verdicts
    assert run.returncode == code


def test_the_tool_says_in_one_line_that_a_file_is_missing(tmp_path: Path) -> None:
    run = _tool("decode", str(tmp_path / "absent.bin"))
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1


def _tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FIRMWARE / "tools" / "vectors.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _commands(data: bytes) -> int:
    frames = framing.Deframer("v", Outcomes()).feed(data)
    return int((frames.payload[frames.offsets + 1] == wire.MessageType.COMMAND).sum())
