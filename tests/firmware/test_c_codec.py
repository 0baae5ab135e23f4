"""The portable C codec: strict compilation, golden vectors, and agreement with the node's decoder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from firmware_support import SANITIZED, Compiler

from fusionnode.codec.framing import Deframer, frame
from fusionnode.codec.messages import FramesDecoder
from fusionnode.codec.wire import MessageType
from fusionnode.core.outcome import Outcomes


def c_vectors(firmware: Path) -> list[str]:
    """Without suffix, as vectors_test takes them; the msgpack form is not the C codec's."""
    return [
        str(p.with_suffix(""))
        for p in sorted((firmware / "vectors").glob("*.toml"))
        if "msgpack" not in p.name
    ]


@pytest.mark.parametrize("options", [("-O2",), SANITIZED], ids=["optimised", "sanitized"])
def test_the_c_codec_holds_every_golden_vector(
    compiler: Compiler, firmware: Path, options: tuple[str, ...]
) -> None:
    program = compiler.build(firmware / "tests" / "vectors_test.c", *options)
    vectors = c_vectors(firmware)
    assert len(vectors) >= 40
    run = subprocess.run([str(program), *vectors], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, f"{len(vectors)} vectors, 0 faults\n"), run.stderr


def test_the_c_vector_test_notices_a_wrong_field(compiler: Compiler, firmware: Path, tmp_path: Path) -> None:
    program = compiler.build(firmware / "tests" / "vectors_test.c")
    for suffix in (".hex", ".toml"):
        text = (firmware / "vectors" / f"radar_typical{suffix}").read_text(encoding="utf-8")
        (tmp_path / f"wrong{suffix}").write_text(
            text.replace("range_mm = 1234567890", "range_mm = 1"), "utf-8"
        )
    run = subprocess.run([str(program), str(tmp_path / "wrong")], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "range_mm is 1234567890, expected 1" in run.stdout


def test_the_c_codec_needs_no_library(firmware: Path, compiler: Compiler, tmp_path: Path) -> None:
    source, built = firmware / "src" / "fusionnode_wire.c", tmp_path / "codec.o"
    command = ["gcc", "-std=c11", "-ffreestanding", "-Os", f"-I{firmware / 'include'}", "-c", str(source)]
    subprocess.run([*command, "-o", str(built)], check=True)
    needed = subprocess.run(
        ["nm", "-u", str(built)], capture_output=True, text=True, check=True
    ).stdout.split()
    # A compiler may always put these in for copies and clears, and brings them along for bare metal.
    assert set(needed) - {"U"} <= {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}


def test_c_and_python_agree_on_damaged_streams(compiler: Compiler, firmware: Path) -> None:
    program = compiler.build(firmware / "tests" / "stream_counts.c", *SANITIZED)
    for seed in range(4):
        _assert_agreement(program, _damaged_stream(firmware, seed))


def test_c_and_python_agree_on_which_values_are_legal(compiler: Compiler, firmware: Path) -> None:
    program = compiler.build(firmware / "tests" / "stream_counts.c", *SANITIZED)
    rng = np.random.default_rng(9)
    stream = []
    for whole in _sensor_frames(firmware):
        payload = Deframer("c", Outcomes()).feed(whole).payload[: len(whole) - 7]
        for _ in range(0 if payload[1] == MessageType.COMMAND else 200):
            changed = payload.copy()
            changed[rng.integers(0, changed.size, 2)] = rng.choice([0, 1, 2, 5, 0x20, 0x40, 0x80, 0xFF], 2)
            stream.append(frame(changed.tobytes()))
    _assert_agreement(program, b"".join(stream))


def _assert_agreement(program: Path, stream: bytes) -> None:
    run = subprocess.run([str(program)], input=stream, capture_output=True, check=True)
    lines = [line.split() for line in run.stdout.decode().splitlines()]
    counts = {name: int(n) for name, *_, n in lines if name != "message"}
    commands = sum(line[:2] == ["message", "16"] for line in lines)
    outcomes = Outcomes()
    decoder = FramesDecoder("c", outcomes)
    decoded = decoder.decode([(0, stream)])
    decoder.finish()
    expected = {f"frame_{name}": n for name, n in counts.items() if name != "rubbish_bytes"}
    expected["rubbish_bytes"] = counts["rubbish_bytes"]
    expected["frame_accepted"] -= commands
    expected["frame_unexpected"] = commands  # the node sends these and takes none
    assert outcomes.of("c") == {name: n for name, n in expected.items() if n}
    detections = [int(line[2]) for line in lines if line[0] == "message" and line[1] in "12"]
    assert decoded.detections["seq"].tolist() == detections


def _damaged_stream(firmware: Path, seed: int) -> bytes:
    """The golden frames that a sensor may send, over and over, with bytes changed, lost, and put in."""
    rng = np.random.default_rng(seed)
    frames = _sensor_frames(firmware)
    stream = np.frombuffer(b"".join(frames[i] for i in rng.integers(0, len(frames), 2000)), np.uint8).copy()
    hit = rng.integers(0, stream.size, 300)
    stream[hit] ^= rng.integers(1, 256, hit.size, dtype=np.uint8)
    stream[rng.integers(0, stream.size, 100)] = 0
    stream[: 20 * seed] = 7
    stream = np.insert(stream, rng.integers(0, stream.size, 100), 0)
    stream = np.delete(stream, rng.integers(0, stream.size, 100))
    run = rng.integers(1, 256, 700, dtype=np.uint8)
    return np.concatenate([stream[:50_000], run, stream[50_000:-9]]).tobytes()


def _sensor_frames(firmware: Path) -> list[bytes]:
    """Of every golden vector that is one frame."""
    paths = sorted((firmware / "vectors").glob("*.hex"))
    return [_bytes(path) for path in paths if not path.name.startswith(("msgpack", "stream"))]


def _bytes(path: Path) -> bytes:
    return bytes.fromhex(
        "".join(line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
    )
