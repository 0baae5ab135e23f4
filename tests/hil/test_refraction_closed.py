"""Bent by the emulators' air, straightened by the node's: two ways to compute it, one geometry in the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hil_support import radar_config, telescope_config

from fusionnode.codec.registry import make
from fusionnode.config import Config
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import StructArray
from fusionnode.intake.measure import Measurer
from fusionnode_hil import wire
from fusionnode_hil.config import EmulatorConfig
from fusionnode_hil.earth import unit
from fusionnode_hil.emulator import Emulator
from fusionnode_hil.sensor import NO_DETECTION
from fusionnode_hil.sky import C
from fusionnode_hil.times import NS

ARCSEC = np.pi / 648_000.0
LOW = {"min_elevation_deg": 1.0}
WEATHER = {"pressure_hpa": 985.0, "temperature_c": 28.0, "humidity": 0.8}


def measured(
    config: EmulatorConfig, node: dict[str, Any], orientation: EarthOrientation, seconds: float
) -> tuple[StructArray, np.ndarray]:
    """What the node makes of the emulator's detections, and the true states behind them, one light time before."""
    emulator = Emulator(config)
    emissions = emulator.sensor.advance(emulator.start_ns + round(seconds * NS))
    pairs = [p for e in emissions for p in zip(e.messages, e.bodies, strict=True)]
    pairs = [(m, body) for m, body in pairs if body != NO_DETECTION]
    tree = {
        "node": {"id": "test"},
        "site": {"here": config.site.model_dump()},
        "sensor": {"one": {"id": config.sensor.id, "site": "here", **node}},
    }
    data = b"".join(wire.frame(m) for m, _ in pairs)
    outcomes = Outcomes()
    decoded = make("frames", "link", outcomes).decode([(pairs[-1][0].t_ns, data)])
    out = Measurer(Config.model_validate(tree), orientation, outcomes).measure(decoded.detections)
    assert len(out) == len(pairs) > 5
    states = []
    for m, (_, body) in zip(out, pairs, strict=True):
        t_ns = int(m["t_meas_ns"])
        state = emulator.truth.states(t_ns)[body, 0]
        tau = np.linalg.norm(state[:3] - m["site_r"]) / C * m["target_delay"]
        states.append(emulator.truth.states(t_ns - round(tau * NS))[body, 0])
    return out, np.array(states)


def test_a_radars_low_echoes_are_put_where_the_objects_are(orientation: EarthOrientation) -> None:
    quiet = {
        "lon_sigma_deg": 1e-9,
        "lat_sigma_deg": 1e-9,
        "range_sigma_m": 1e-3,
        "range_rate_sigma_m_s": 1e-3,
    }
    sensor = {**quiet, "send_sigmas": False, "refraction": "included", "field": LOW, "cadence_s": 5.0}
    config = radar_config(sensor=sensor, site=WEATHER)
    for refraction in ("included", "removed"):
        out, states = measured(config, {"kind": "radar", "refraction": refraction}, orientation, 300.0)
        relative = states[:, :3] - out["site_r"]
        off_m = out["range_m"] - np.linalg.norm(relative, axis=1)
        off_rad = np.linalg.norm(np.cross(out["los"], unit(relative)), axis=1)
        rate = np.sum(unit(relative) * (states[:, 3:] - out["site_v"]), axis=1)
        if refraction == "included":
            assert np.abs(off_m).max() < 0.02
            assert off_rad.max() < 0.05 * ARCSEC
            assert (np.abs(out["range_rate_m_s"] - rate) < 3.0 * np.sqrt(out["var"][:, 3])).all()
            assert (out["var"][:, 2] >= np.radians(0.02) ** 2).all()
        else:
            assert off_m.max() > 15.0
            assert off_rad.max() > 300.0 * ARCSEC


@pytest.mark.parametrize(
    "sensor",
    [
        {"refraction": "included"},
        {"refraction": "stellar"},
        {"refraction": "stellar", "aberration": "stellar"},
        {"refraction": "included", "aberration": "included"},
        {"refraction": "included", "angles": "azel"},
    ],
)
def test_a_telescopes_directions_are_put_right(sensor: dict[str, str], orientation: EarthOrientation) -> None:
    quiet = {"lon_sigma_deg": 1e-9, "lat_sigma_deg": 1e-9, "cadence_s": 20.0, "field": LOW}
    config = telescope_config(sensor=quiet | sensor, site=WEATHER)
    node = {"kind": "optical", "angles": "radec", "target_height_m": 1.2e6} | sensor
    out, states = measured(config, node, orientation, 60.0)
    raw, _ = measured(config, node | {"refraction": "removed"}, orientation, 60.0)
    along = unit(states[:, :3] - out["site_r"])
    off, before = (np.linalg.norm(np.cross(m["los"], along), axis=1) for m in (out, raw))
    # what is left comes from a height of the targets that is only supposed, and that sigma tells
    assert (off < 2.0 * np.sqrt(out["var"][:, 1:3].sum(axis=1) - raw["var"][:, 1:3].sum(axis=1))).all()
    assert off.max() < 10.0 * ARCSEC
    assert np.median(off) < ARCSEC
    assert before.max() > (1.0 if sensor["refraction"] == "stellar" else 300.0) * ARCSEC
    frame = np.stack([out["los"], out["e_lon"], out["e_lat"]], axis=1)
    np.testing.assert_allclose(
        np.einsum("nij,nkj->nik", frame, frame), np.broadcast_to(np.eye(3), (len(out), 3, 3)), atol=2e-8
    )
