"""Nothing compiles while tracking."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

WATCH = """
import json, sys
from numba.core.dispatcher import Dispatcher
from fusionnode import warmup
from fusionnode.config import load
warmup.compile_kernels(load(sys.argv[sys.argv.index("--config") + 1]).tracking)
late = []
original = Dispatcher.compile
def watched(self, sig):
    late.append(f"{self.py_func.__module__}.{self.py_func.__qualname__}{sig}")
    return original(self, sig)
Dispatcher.compile = watched
from fusionnode.cli import main
code = main(sys.argv[1:])
print(json.dumps({"code": code, "late": late}))
"""


def compiled_after_warmup(*argv: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *map(str, argv)],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0
    return list(result["late"])


@pytest.mark.parametrize("name", ["22076_dec1996.b3.gz"])
def test_nothing_compiles_while_real_radar_records_are_processed(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    config = Path(__file__).resolve().parents[1] / "configs" / "ssn_radar.toml"
    lines = gzip.decompress((shared_data / "ssn_radar" / name).read_bytes()).splitlines(keepends=True)
    part = tmp_path / name
    part.write_bytes(gzip.compress(b"".join(lines[:4000])))
    late = compiled_after_warmup("process", part, "--config", config, "--out", tmp_path / "states.jsonl")
    assert late == []
