#!/usr/bin/env python3
"""Golden vectors: write them, check them, and show what is in a capture.

    vectors.py generate            write NAME.hex for each vectors/NAME.toml
    vectors.py check               exit 0 if every .hex is what its .toml says
    vectors.py decode FILE         print the frames in a .hex file or in raw bytes captured from a link

Standard library only, and nothing of the node: a second implementation of the interface, beside the C one.
"""

from __future__ import annotations

import struct
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from wirelib import Interface, frame, frames, pack, read_interface, unpack

OUTSIDE = ("rubbish", "unfinished")
"""What stands before the first delimiter and after the last one: bytes, not frames. A capture is cut anywhere."""

FOLDER = Path(__file__).resolve().parent.parent / "vectors"

RULES = {
    "message": "fields as in {name}.toml, packed little-endian after include/fusionnode_wire.h, then CRC-32, COBS",
    "stream": "pieces as in {name}.toml, one after the other",
    "document": "keys as in {name}.toml, in their order, as one msgpack map (ICD, msgpack form)",
}


def build(interface: Interface, vector: dict[str, Any], folder: Path) -> bytes:
    """The bytes of one vector.

    Raises:
        ValueError: the vector cannot be built.
    """
    if "message" in vector:
        fields = dict(vector["message"])
        return frame(pack(interface, fields.pop("struct"), fields))
    if "document" in vector:
        return pack_document(vector["document"])
    return b"".join(_piece(interface, piece, folder) for piece in vector["stream"]["pieces"])


def _piece(interface: Interface, piece: str, folder: Path) -> bytes:
    """One piece of a stream: what it is, then its arguments."""
    match piece.split():
        case ["frame", name]:
            return _frame_of(interface, name, folder)
        case ["flip", name, at, mask]:
            data = bytearray(_frame_of(interface, name, folder))
            data[int(at)] ^= int(mask, 16)
            return bytes(data)
        case ["cut", name, first, last]:
            return _frame_of(interface, name, folder)[int(first) : int(last)]
        case ["repeat", byte, n]:
            return bytes.fromhex(byte) * int(n)
        case ["wrap", *digits]:
            return frame(bytes.fromhex("".join(digits)))
        case ["wrap_filled", n, *digits]:
            start = bytes.fromhex("".join(digits))
            return frame(start + bytes(1 + k % 255 for k in range(int(n) - len(start))))
        case ["hex", *digits]:
            return bytes.fromhex("".join(digits))
    raise ValueError(f"unknown piece {piece!r}")


def _frame_of(interface: Interface, name: str, folder: Path) -> bytes:
    return build(interface, tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8")), folder)


def pack_document(value: Any) -> bytes:
    """The little of msgpack that documents need. ``{f8 = [...]}`` is a bin of little-endian doubles; i8, u4 too."""
    if isinstance(value, dict):
        if len(value) == 1 and (kind := next(iter(value))) in ("f8", "i8", "u4"):
            items = value[kind]
            data = struct.pack(f"<{len(items)}{ {'f8': 'd', 'i8': 'q', 'u4': 'I'}[kind] }", *items)
            return b"\xc4" + bytes([len(data)]) + data
        body = b"".join(pack_document(key) + pack_document(item) for key, item in value.items())
        return (
            bytes([0x80 | len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
        ) + body
    if isinstance(value, list):
        return bytes([0x90 | len(value)]) + b"".join(map(pack_document, value))
    if isinstance(value, str):
        text = value.encode()
        return bytes([0xA0 | len(text)]) + text
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    for limit, code, form in (
        (1 << 7, b"", "B"),
        (1 << 8, b"\xcc", "B"),
        (1 << 16, b"\xcd", "H"),
        (1 << 32, b"\xce", "I"),
    ):
        if 0 <= value < limit:
            return code + struct.pack(">" + form, value)
    return (b"\xcf" + struct.pack(">Q", value)) if value >= 0 else (b"\xd3" + struct.pack(">q", value))


def read_hex(path: Path) -> bytes:
    """The bytes of a .hex file: hexadecimal digits, white space, and comments from # to the end of a line."""
    return bytes.fromhex(
        "".join(line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
    )


def hex_text(name: str, vector: dict[str, Any], data: bytes) -> str:
    """The contents of a .hex file, with where it comes from on top."""
    kind = next(kind for kind in RULES if kind in vector)
    lines = [
        "# Golden vector of the fusionnode sensor interface, version 1.",
        f"# what: {vector['what']}",
        f"# rule: {RULES[kind].format(name=name)}",
        f"# made: {vector['date']}, by tools/vectors.py generate",
        f"# size: {len(data)} bytes",
    ]
    lines += [data[at : at + 16].hex(" ") for at in range(0, len(data), 16)]
    return "\n".join(lines) + "\n"


def faults(interface: Interface, path: Path) -> list[str]:
    """What is wrong with one vector, if anything."""
    vector = tomllib.loads(path.read_text(encoding="utf-8"))
    hex_path = path.with_suffix(".hex")
    if not hex_path.exists():
        return [f"{hex_path.name}: missing"]
    built = build(interface, vector, path.parent)
    if hex_path.read_text(encoding="utf-8") != hex_text(path.stem, vector, built):
        return [f"{hex_path.name}: is not what {path.name} says"]
    if "document" in vector:
        return []
    seen: Counter[str] = Counter()
    for verdict, data in frames(interface, read_hex(hex_path)):
        outside = verdict in OUTSIDE
        seen["rubbish_bytes" if outside else verdict] += len(data) if outside else 1
    expected = Counter(vector["expect"])
    expected["accepted"] += expected.pop("bad_field", 0)  # values are not judged here
    return [] if +seen == +expected else [f"{path.name}: expected {dict(+expected)}, decoded {dict(+seen)}"]


def generate(interface: Interface) -> int:
    """Write all .hex files."""
    for path in sorted(FOLDER.glob("*.toml")):
        vector = tomllib.loads(path.read_text(encoding="utf-8"))
        text = hex_text(path.stem, vector, build(interface, vector, FOLDER))
        path.with_suffix(".hex").write_text(text, encoding="utf-8")
    return 0


def check(interface: Interface) -> int:
    """Compare all; say what differs."""
    paths = sorted(FOLDER.glob("*.toml"))
    found = [fault for path in paths for fault in faults(interface, path)]
    found += [
        f"{path.name}: no .toml" for path in FOLDER.glob("*.hex") if not path.with_suffix(".toml").exists()
    ]
    for fault in found:
        print(fault)
    print(f"{len(paths)} vectors, {len(found)} faults")
    return 1 if found else 0


def decode(interface: Interface, path: Path) -> int:
    """Print every frame; 0 if there were any and all were good."""
    data = read_hex(path) if path.suffix == ".hex" else path.read_bytes()
    good = bad = 0
    for verdict, content in frames(interface, data):
        if verdict == "accepted":
            name = interface.message_name(content[1])
            assert name is not None
            good += 1
            fields = " ".join(f"{key}={value}" for key, value in unpack(interface, name, content).items())
            print(f"{name}: {fields}")
        else:
            bad += verdict not in OUTSIDE
            print(f"{verdict}: {content.hex(' ')}")
    return 1 if bad or not good else 0


def main(arguments: list[str]) -> int:
    """Run one command; 2 for a wrong call or a file that cannot be read."""
    try:
        interface = read_interface()
        match arguments:
            case ["generate"]:
                return generate(interface)
            case ["check"]:
                return check(interface)
            case ["decode", name]:
                return decode(interface, Path(name))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print("usage: vectors.py generate | check | decode FILE", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
