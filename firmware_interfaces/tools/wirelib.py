"""Frames of the sensor interface in plain Python, for tools: standard library only, nothing of the node.

The layouts are read from the C header itself, so there is no second table here that could drift from it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER_FILE = Path(__file__).resolve().parent.parent / "include" / "fusionnode_wire.h"

_CODES = {
    "uint8_t": "B",
    "int8_t": "b",
    "uint16_t": "H",
    "int16_t": "h",
    "uint32_t": "I",
    "int32_t": "i",
    "uint64_t": "Q",
    "int64_t": "q",
}


@dataclass(frozen=True)
class Field:
    """One field of a message: its dotted name, struct code, number of elements, and offset in bytes."""

    name: str
    code: str
    count: int
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the whole field."""
        return struct.calcsize(self.code) * self.count


@dataclass(frozen=True)
class Interface:
    """What the header declares: structs by name without ``fn_``, enumerators and plain #defines by name."""

    structs: dict[str, tuple[Field, ...]]
    constants: dict[str, int]

    def size(self, name: str) -> int:
        """Bytes of a struct."""
        last = self.structs[name][-1]
        return last.offset + last.size

    def message_name(self, message_type: int) -> str | None:
        """The struct of a message type, e.g. ``radar`` for FN_TYPE_RADAR."""
        for name, value in self.constants.items():
            if name.startswith("FN_TYPE_") and value == message_type:
                return name.removeprefix("FN_TYPE_").lower()
        return None


def read_interface(path: Path = HEADER_FILE) -> Interface:
    """Parse the C header.

    Raises:
        ValueError: a field is not where its natural alignment puts it, so a compiler would add padding.
    """
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    constants = {
        name: int(value, 0)
        for name, value in re.findall(
            r"#define (FN_\w+) (?:INT64_C\()?(0x[0-9a-fA-F]+|\d+)u?\)?[ ]*$", text, re.M
        )
    }
    for body in re.findall(r"enum \w+ \{(.*?)\}", text, re.DOTALL):
        constants |= {name: int(value, 0) for name, value in re.findall(r"(FN_\w+)\s*=\s*(\w+)", body)}
    structs: dict[str, tuple[Field, ...]] = {}
    for name, body in re.findall(r"struct fn_(\w+) \{(.*?)\};", text, re.DOTALL):
        fields: list[Field] = []
        offset = 0
        for ctype, inner, field, count in re.findall(
            r"(?:(\w+_t)|struct fn_(\w+)) (\w+)(?:\[(\d+)\])?;", body
        ):
            parts = structs[inner] if inner else (Field("", _CODES[ctype], int(count or 1), 0),)
            for part in parts:
                if offset % struct.calcsize(part.code):
                    raise ValueError(f"{path.name}: fn_{name}.{field} is not naturally aligned")
                full = f"{field}.{part.name}" if inner else field
                fields.append(Field(full, part.code, part.count, offset))
                offset += part.size
        structs[name] = tuple(fields)
    return Interface(structs, constants)


def pack(interface: Interface, name: str, values: dict[str, int | list[int]]) -> bytes:
    """A message from its fields; a field that is not named is 0.

    Raises:
        ValueError: no such field, or a value that does not fit.
    """
    fields = interface.structs[name]
    unknown = values.keys() - {field.name for field in fields}
    if unknown:
        raise ValueError(f"{name} has no field {', '.join(sorted(unknown))}")
    out = b""
    for field in fields:
        value = values.get(field.name, 0)
        elements = value if isinstance(value, list) else [value] + [0] * (field.count - 1)
        try:
            out += struct.pack(f"<{field.count}{field.code}", *elements)
        except struct.error as error:
            raise ValueError(f"{name}.{field.name} = {value}: {error}") from None
    return out


def unpack(interface: Interface, name: str, message: bytes) -> dict[str, int | list[int]]:
    """The fields of a message."""
    out: dict[str, int | list[int]] = {}
    for field in interface.structs[name]:
        elements = list(struct.unpack_from(f"<{field.count}{field.code}", message, field.offset))
        out[field.name] = elements if field.count > 1 else elements[0]
    return out


def cobs_encode(data: bytes) -> bytes:
    """Consistent-overhead byte stuffing (S. Cheshire, M. Baker, IEEE/ACM ToN 7(2), 1999)."""
    out = bytearray()
    block = bytearray()
    for position, byte in enumerate(data):
        if byte:
            block.append(byte)
        if not byte or (len(block) == 254 and position + 1 < len(data)):
            out += bytes([len(block) + 1]) + block
            block.clear()
    return bytes(out + bytes([len(block) + 1]) + block)


def cobs_decode(data: bytes) -> bytes | None:
    """The inverse; None if a block reaches beyond the end."""
    out = bytearray()
    position = 0
    while position < len(data):
        code = data[position]
        if position + code > len(data):
            return None
        out += data[position + 1 : position + code]
        position += code
        if code < 255 and position < len(data):
            out.append(0)
    return bytes(out)


def frame(message: bytes) -> bytes:
    """``0x00 COBS(message, CRC-32) 0x00``."""
    return b"\0" + cobs_encode(message + struct.pack("<I", zlib.crc32(message))) + b"\0"


def frames(interface: Interface, stream: bytes) -> Iterator[tuple[str, bytes]]:
    """Every frame in a stream as (verdict, message or the raw frame); field values are not judged.

    Verdicts: ``rubbish`` (before the first delimiter), ``unfinished`` (after the last one), ``too_long``,
    ``bad_cobs``, ``bad_crc``, ``bad_length``, ``bad_version``, ``unknown_type``, ``accepted``.
    """
    first, *segments = stream.split(b"\0")
    if first:
        yield "rubbish", first
    rest = segments.pop() if segments else b""
    for segment in segments:
        if segment:
            yield _judge(interface, segment)
    if len(rest) > interface.constants["FN_MAX_MESSAGE"] + interface.constants["FN_CRC_SIZE"] + 1:
        yield "too_long", rest
    elif rest:
        yield "unfinished", rest


def _judge(interface: Interface, segment: bytes) -> tuple[str, bytes]:
    if len(segment) > interface.constants["FN_MAX_MESSAGE"] + interface.constants["FN_CRC_SIZE"] + 1:
        return "too_long", segment
    plain = cobs_decode(segment)
    if plain is None:
        return "bad_cobs", segment
    message, crc = plain[:-4], plain[-4:]
    if len(plain) < 4 or crc != struct.pack("<I", zlib.crc32(message)):
        return "bad_crc", segment
    if len(message) < interface.constants["FN_MIN_MESSAGE"]:
        return "bad_length", message
    version, message_type, length = message[0], message[1], int.from_bytes(message[12:14], "little")
    name = interface.message_name(message_type)
    if version != interface.constants["FN_WIRE_VERSION"]:
        return "bad_version", message
    if name is None:
        return "unknown_type", message
    if not length == len(message) == interface.size(name):
        return "bad_length", message
    return "accepted", message
