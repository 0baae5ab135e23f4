"""Compile every kernel, or load it from the cache, by a rehearsal: a made-up pass through the real pipeline.

So nothing compiles while tracking; a test holds this to it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusionnode.codec import messages
from fusionnode.config import Config, Tracking, parse
from fusionnode.core.refframes import EarthOrientation, enu_itrf, site_itrf
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import DETECTION, Channel, Kind, LinkRecord, StructArray
from fusionnode.pipeline import SECOND_NS, Pipeline
from fusionnode.track.calibration.correct import rehearse as rehearse_corrections
from fusionnode.track.calibration.orbit import rehearse as rehearse_arcs
from fusionnode.track.filtering.engine_variants import make_engine
from fusionnode.track.filtering.sensing import COLUMNS as MEASURED
from fusionnode.track.initiation.optical import rehearse
from fusionnode.track.lanes import workspace
from fusionnode.track.motion import dynamics
from fusionnode.track.motion.coefficients import COLUMNS, forget_cross
from fusionnode.track.motion.dynamics import MU, coarse_step, make

_STATION = """
[node]
id = "rehearsal"
[site.here]
lat_deg = 10.0
lon_deg = 20.0
[sensor.radar]
id = 1
kind = "radar"
site = "here"
[sensor.azel]
id = 2
kind = "optical"
site = "here"
refraction = "included"
[sensor.radec]
id = 3
kind = "optical"
site = "here"
angles = "radec"
aberration = "stellar"
[link.frames]
kind = "serial"
device = "none"
[link.messages]
kind = "zmq"
endpoint = "tcp://127.0.0.1:1"
[tracking]
hold_back_s = 0.0
max_tracks = 64
association = "jpda"
"""
_LAT, _LON = np.radians(10.0), np.radians(20.0)
_START = "2025-09-01T00:00:00"


def compile_kernels(tracking: Tracking | None = None) -> None:
    """Run the rehearsal; and once more as ``tracking`` has it, if its filter or its noise is not the usual one."""
    messages.warm_up()
    config = parse(_STATION, Path("rehearsal"))
    orientation = EarthOrientation()
    _rehearse(config, orientation)
    if tracking is not None and (
        tracking.noise_memory or type(make_engine(tracking)) is not type(make_engine(config.tracking))
    ):
        keys = ("engine", "filter", "modes", "consider_biases", "estimate_errors", "noise_memory")
        wanted = {key: getattr(tracking, key) for key in keys}
        plain = config.tracking.model_copy(update={"association": "gnn", **wanted})
        _rehearse(config.model_copy(update={"tracking": plain}), orientation)


def _rehearse(config: Config, orientation: EarthOrientation) -> None:
    pipeline = Pipeline(config, stream_epoch="rehearsal", orientation=orientation)
    start = tai_ns_from_utc_text(_START)
    rubbish = b"\x00\x02\x01\x00"
    pipeline.feed([LinkRecord(start, "frames", rubbish), LinkRecord(start, "messages", rubbish)])
    detections = _pass(config, orientation, start)
    for t_ns in np.unique(detections["t_meas_ns"]).tolist():
        pipeline.feed_detections(detections[detections["t_meas_ns"] == t_ns])
        pipeline.tick(t_ns)
    pipeline.tick(int(detections["t_meas_ns"][-1]) + 60 * SECOND_NS)
    pipeline.finish(int(detections["t_meas_ns"][-1]) + 61 * SECOND_NS)
    tracking = config.tracking
    model = make(tracking, orientation, start)
    rehearse(workspace(), model, tracking.process_noise_psd_m2_s3)
    rehearse_arcs(model, np.array([7.0e6, 0.0, 0.0, 0.0, 5.3e3, 5.3e3]), np.ones((2, MEASURED)))
    rehearse_corrections()
    forget_cross(np.zeros((2, COLUMNS)), 0)


def _pass(config: Config, orientation: EarthOrientation, start_ns: int) -> StructArray:
    """Three objects, 700 m and 50 km apart, over all three sensors for twenty seconds, and a detection of nothing."""
    pole = orientation.pole(np.array([start_ns]))[0]
    gravity = dynamics.model(6, pole)
    out = []
    for apart_m in (0.0, 700.0, 50_000.0):
        up = orientation.gcrf_to_itrf(np.array([start_ns]))[0].T @ site_itrf(_LAT, _LON, 0.0)
        up /= np.linalg.norm(up)
        r = 7.0e6 * up + np.array([0.0, 0.0, apart_m])
        v = np.cross(pole, up)
        v *= np.sqrt(MU / np.linalg.norm(r)) / np.linalg.norm(v)
        for k in range(20):
            t_ns = start_ns + k * SECOND_NS
            out += _seen(config, orientation, t_ns, r, v)
            coarse_step(r, v, 1.0, gravity)
    nothing = out[0].copy()
    nothing["t_meas_ns"] += 10 * SECOND_NS
    nothing["lon_rad"] += 1.0
    return np.sort(np.concatenate([*out, nothing]), order="t_meas_ns")


def _seen(
    config: Config, orientation: EarthOrientation, t_ns: int, r: np.ndarray, v: np.ndarray
) -> list[StructArray]:
    to_itrf = orientation.gcrf_to_itrf(np.array([t_ns]))[0]
    rho = to_itrf @ r - site_itrf(_LAT, _LON, 0.0)
    d = float(np.linalg.norm(rho))
    east, north, up = enu_itrf(_LAT, _LON) @ (rho / d)
    toward = to_itrf.T @ (rho / d)
    out = []
    for sensor, kind in zip(config.sensor.values(), Kind, strict=True):
        one = np.zeros(1, DETECTION)
        one["t_meas_ns"] = one["t_rx_ns"] = t_ns
        one["sensor_id"], one["kind"] = sensor.id, kind
        one["channels"] = Channel.ANGLES | (Channel.RANGE if kind is Kind.RADAR_AZEL else 0)
        one["range_m"] = d
        if kind is Kind.OPTICAL_RADEC:
            one["lon_rad"] = np.arctan2(toward[1], toward[0]) % (2 * np.pi)
            one["lat_rad"] = np.arcsin(toward[2])
        else:
            one["lon_rad"] = np.arctan2(east, north) % (2 * np.pi)
            one["lat_rad"] = np.arcsin(up)
        out.append(one)
    return out
