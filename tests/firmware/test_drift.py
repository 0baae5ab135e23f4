"""The C header, the node's tables, the tools' parser and the ICD say the same."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from firmware_support import Compiler
from wirelib import read_interface

from fusionnode.codec import framing, wire
from fusionnode.core.types import Channel, DetectionFlag, ReportKind

STRUCTS = {"header": wire.HEADER} | {t.name.lower(): dtype for t, dtype in wire.MESSAGES.items()}

ENUMS = {
    "FN_TYPE_": wire.MessageType,
    "FN_FLAG_": wire.Flag,
    "FN_VALID_": wire.Valid,
    "FN_COORDINATES_": wire.Coordinates,
    "FN_MODE_": wire.Mode,
    "FN_HEALTH_": wire.Health,
    "FN_TIME_": wire.TimeSource,
    "FN_COMMAND_": wire.CommandCode,
    "FN_RESULT_": wire.Result,
}

CONSTANTS = {
    "FN_WIRE_VERSION": wire.WIRE_VERSION,
    "FN_MAX_MESSAGE": framing.MAX_MESSAGE,
    "FN_MIN_MESSAGE": framing.MIN_MESSAGE,
    "FN_CRC_SIZE": framing.CRC_SIZE,
    "FN_MAX_FRAME": framing.MAX_FRAME,
    "FN_QUARTER_TURN_BAM32": wire.QUARTER_TURN_BAM32,
    "FN_TIME_LIMIT_NS": wire.TIME_LIMIT_NS,
    "FN_FLAGS_ALL": wire.FLAGS_ALL,
    "FN_VALID_ALL_RADAR": wire.VALID_ALL_RADAR,
    "FN_VALID_ALL_OPTICAL": wire.VALID_ALL_OPTICAL,
    "FN_HEALTH_ALL": wire.HEALTH_ALL,
} | {prefix + member.name: member.value for prefix, enum in ENUMS.items() for member in enum if member.name}


def python_layout() -> Iterator[tuple[str, str, int, int, int]]:
    """(struct, field, offset, bytes, is signed) of every field; a struct in a struct is signed as 0."""
    for struct, dtype in STRUCTS.items():
        assert dtype.fields is not None
        for field, (kind, offset, *_) in dtype.fields.items():
            yield struct, field, offset, kind.itemsize, int(kind.base.kind == "i")


def drift_program() -> str:
    """C that prints what the compiler makes of the header, for everything that Python names."""
    lines = []
    for struct, field, *_ in python_layout():
        here = f"((struct fn_{struct} *)0)->{field}"
        element = f"{here}[0]" if STRUCTS[struct][field].shape else here
        signed = "0" if field == "header" else f"SIGNED({element})"
        place = f"offsetof(struct fn_{struct}, {field}), sizeof({here}), {signed}"
        lines.append(f'printf("{struct} {field} %zu %zu %d\\n", {place});')
    lines += [f'printf("{struct} %zu\\n", sizeof(struct fn_{struct}));' for struct in STRUCTS]
    lines += [f'printf("{name} %lld\\n", (long long){name});' for name in CONSTANTS]
    signed_types = ", ".join(f"int{bits}_t: 1" for bits in (8, 16, 32, 64))
    return "\n".join(
        [
            "#include <stdio.h>",
            '#include "fusionnode_codec.h"',
            f"#define SIGNED(x) _Generic((x), {signed_types}, default: 0)",
            "int main(void) {",
            *lines,
            "return 0; }",
        ]
    )


def test_compiler_and_python_agree_on_every_offset_size_sign_and_constant(
    compiler: Compiler, tmp_path: Path
) -> None:
    source = tmp_path / "drift.c"
    source.write_text(drift_program(), encoding="utf-8")
    printed = subprocess.run([str(compiler.build(source))], capture_output=True, text=True, check=True).stdout
    expected = [" ".join(map(str, row)) for row in python_layout()]
    expected += [f"{struct} {dtype.itemsize}" for struct, dtype in STRUCTS.items()]
    expected += [f"{name} {int(value)}" for name, value in CONSTANTS.items()]
    assert printed.splitlines() == expected


def test_python_names_everything_that_the_header_declares() -> None:
    interface = read_interface()
    assert set(interface.structs) == set(STRUCTS)
    declared = {name for name in interface.constants if not name.startswith("FUSIONNODE")}
    assert declared <= set(CONSTANTS)
    for name, value in interface.constants.items():
        assert CONSTANTS[name] == value, name
    for struct, fields in interface.structs.items():
        flat = {f"header.{name}": offset for name, offset in _offsets(wire.HEADER).items()}
        own = _offsets(STRUCTS[struct])
        assert {f.name: f.offset for f in fields} == (flat if "header" in own else {}) | {
            name: offset for name, offset in own.items() if name != "header"
        }


def test_structs_have_no_bytes_without_a_name() -> None:
    for struct, dtype in STRUCTS.items():
        assert dtype.fields is not None
        assert sum(kind.itemsize for kind, *_ in dtype.fields.values()) == dtype.itemsize, struct


def test_the_nodes_own_types_have_the_values_of_the_wire() -> None:
    assert {flag.name: flag.value for flag in DetectionFlag} == {flag.name: flag.value for flag in wire.Flag}
    assert all(wire.Valid[str(channel.name)] == channel for channel in Channel)
    assert all(wire.MessageType[kind.name] == kind for kind in ReportKind)


def test_the_icd_lists_every_field_at_its_offset_with_its_type(firmware: Path) -> None:
    text = (firmware / "ICD.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (u?)int(\d+)(?:\[(\d+)\])? \| (\w+) \|", text, re.M)
    listed = [(int(at), name, int(bits) // 8 * int(n or 1), u == "u") for at, u, bits, n, name in rows]
    expected = [
        (offset, field, size, not signed)
        for struct, field, offset, size, signed in python_layout()
        if field != "header"
    ]
    assert listed == expected


def test_the_icds_worked_example_is_the_golden_vector(firmware: Path) -> None:
    text = (firmware / "ICD.md").read_text(encoding="utf-8")
    vector = (firmware / "vectors" / "radar_typical.hex").read_text(encoding="utf-8")
    body = "\n".join(line for line in vector.splitlines() if not line.startswith("#"))
    assert body in text
    message = framing.Deframer("icd", framing.Outcomes()).feed(bytes.fromhex(body)).payload[:72]
    table = "\n".join(f"{at:2d}  {message[at : at + 16].tobytes().hex(' ')}" for at in range(0, 72, 16))
    assert table in text


def _offsets(dtype: np.dtype[np.void]) -> dict[str, int]:
    assert dtype.fields is not None
    return {name: offset for name, (_, offset, *_) in dtype.fields.items()}
