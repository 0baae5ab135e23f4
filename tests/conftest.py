"""What tests of several folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from fusionnode.core.refframes import EarthOrientation

# The same examples in every run: a test that fails can be run again. Other ones: --hypothesis-profile=default.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")


def shared_data_folder() -> Path:
    """Where the real data are: $FUSIONNODE_DATA, else ``shared/data`` beside the repository."""
    configured = os.environ.get("FUSIONNODE_DATA")
    return Path(configured) if configured else Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    folder = shared_data_folder()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set FUSIONNODE_DATA")
    return folder


@pytest.fixture(scope="session")
def orientation() -> EarthOrientation:
    """The Earth orientation table that the package astropy-iers-data brings."""
    return EarthOrientation()
