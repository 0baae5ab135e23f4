"""Configurations that the bench's tests start from."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from fusionnode_hil.config import EmulatorConfig, parse

REPOSITORY = Path(__file__).resolve().parents[2]
ELEMENTS = REPOSITORY / "configs" / "elements" / "demo.tle"
EPOCH = "2006-06-25T12:38:00"  # SL-12 DEB is up at the radar

_RADAR: dict[str, Any] = {
    "seed": 7,
    "site": {"lat_deg": 14.6, "lon_deg": 121.0, "height_m": 60.0},
    "sensor": {
        "kind": "radar",
        "name": "radar",
        "id": 101,
        "snr_ref_db": 60.0,
        "latency_s": 0.0,
    },
    "objects": {"files": [str(ELEMENTS)], "rcs_m2": 5.0},
    "link": {"kind": "pty", "path": "unused"},
    "clock": {"epoch_utc": EPOCH},
}
_TELESCOPE: dict[str, Any] = {
    "seed": 7,
    "site": {"lat_deg": -31.27, "lon_deg": 149.07, "height_m": 1165.0},
    "sensor": {"kind": "telescope", "name": "telescope", "id": 201, "latency_s": 0.0},
    "objects": {"files": [str(ELEMENTS)], "diameter_m": 4.0},
    "link": {"kind": "zmq", "endpoint": "tcp://127.0.0.1:5610"},
    "clock": {"epoch_utc": EPOCH},
}


def radar_config(**sections: dict[str, Any]) -> EmulatorConfig:
    """The radar with keys of its sections replaced."""
    return _config(_RADAR, sections)


def telescope_config(**sections: dict[str, Any]) -> EmulatorConfig:
    """The telescope with keys of its sections replaced."""
    return _config(_TELESCOPE, sections)


def _config(base: dict[str, Any], sections: dict[str, Any]) -> EmulatorConfig:
    tree = deepcopy(base)
    for name, values in sections.items():
        if isinstance(values, dict):
            tree[name] |= values
        else:
            tree[name] = values
    return parse(tree, Path("test.toml"))
