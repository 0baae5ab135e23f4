"""Where the interface's files are, and gcc on its C code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware_interfaces"
sys.path.insert(0, str(FIRMWARE / "tools"))

STRICT = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Compiler:
    """gcc on the portable codec and one main program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, main: Path, *options: str) -> Path:
        program = self._folder / main.stem
        codec = FIRMWARE / "src" / "fusionnode_wire.c"
        command = ["gcc", *STRICT, *options, f"-I{FIRMWARE / 'include'}", str(codec), str(main)]
        subprocess.run([*command, "-o", str(program)], check=True)
        return program
