from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from firmware_support import FIRMWARE, Compiler


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return Compiler(tmp_path)


@pytest.fixture
def firmware() -> Path:
    return FIRMWARE
