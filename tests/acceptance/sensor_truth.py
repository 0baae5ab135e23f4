"""Print the biases of three real radars, from each half of a month: ``python tests/acceptance/sensor_truth.py``.

Each half starts from nothing: no element sets, no published biases; detections through the node's own intake and
tracker, with `configs/ssn_radar.toml` whose biases are taken out. Of each radar: bias and sigma of range, azimuth,
elevation and time from both halves, and their difference in combined sigmas. Exits with 1 if one of them is 3 or
more, or a sigma is of no use.

Needs the real data: $FUSIONNODE_DATA, or ``shared/data`` beside the repository.
"""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import numpy as np
from radar_truth import CONFIG, REPOSITORY

from fusionnode.codec.b3 import B3Decoder
from fusionnode.config import Config, load
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import StructArray
from fusionnode.intake.measure import Measurer
from fusionnode.track.calibration.front import SensorTruth
from fusionnode.track.tracker import Tracker

OBJECTS = {"TOPEX": "22076", "DMSP F6": "13736", "SPOT-3": "22823"}
UNITS = np.array([1.0, np.degrees(1.0), np.degrees(1.0), 1e3])
USEFUL = np.array([40.0, 0.02, 0.02, 5.0])
"""Largest sigma that is of use: m, deg, deg, ms."""


def plain_config() -> Config:
    """The configuration without any bias that somebody published."""
    config = load(CONFIG)
    none = dict.fromkeys(
        ("range_bias_m", "lon_bias_deg", "lat_bias_deg", "range_rate_bias_m_s", "time_bias_s"), 0.0
    )
    sensors = {name: sensor.model_copy(update=none) for name, sensor in config.sensor.items()}
    return config.model_copy(update={"sensor": sensors})


def measurements(files: list[Path], config: Config, orientation: EarthOrientation) -> StructArray:
    """All records as MEASUREMENT[n], in order of time."""
    decoder = B3Decoder("file", Outcomes())
    found = [decoder.decode([(0, gzip.decompress(path.read_bytes()))]).detections for path in files]
    detections = np.concatenate([*found, decoder.finish().detections])
    order = np.argsort(detections["t_meas_ns"], kind="stable")
    return Measurer(config, orientation, Outcomes()).measure(detections[order])


def truth_of(part: StructArray, config: Config, orientation: EarthOrientation) -> SensorTruth:
    """What the tracker makes of the sensors, from these measurements alone."""
    tracker = Tracker(config, orientation, Outcomes())
    tracker.process(part)
    last = int(part["t_meas_ns"][-1])
    tracker.advance(last)
    tracker.solve_arcs(last)
    return tracker.truth


def halves(part: StructArray) -> list[StructArray]:
    """Cut in the middle of its time."""
    t = part["t_meas_ns"]
    middle = (int(t[0]) + int(t[-1])) // 2
    return [part[t < middle], part[t >= middle]]


def report(title: str, part: StructArray, config: Config, orientation: EarthOrientation) -> bool:
    """Print one table; says whether the halves agree and their sigmas are of use."""
    both = [truth_of(half, config, orientation) for half in halves(part)]
    good = True
    print(f"{title}: {len(part)} records; arcs {both[0].biases.arcs} and {both[1].biases.arcs}")
    for sensor, name in enumerate(config.sensor):
        (b0, s0), (b1, s1) = (truth.biases.estimate() for truth in both)
        passes = [round(float(truth.biases.passes[sensor])) for truth in both]
        apart = (b0[sensor] - b1[sensor]) / np.hypot(s0[sensor], s1[sensor])
        good = good and bool((np.abs(apart) < 3.0).all())
        if min(passes) >= 6:
            good = good and bool((np.maximum(s0[sensor], s1[sensor]) * UNITS <= USEFUL).all())
        print(f"  {name}: passes {passes[0]} and {passes[1]}")
        for c, what in enumerate(("range m", "azimuth deg", "elevation deg", "time ms")):
            digits = (1, 4, 4, 2)[c]
            values = [
                f"{b[sensor, c] * UNITS[c]:9.{digits}f} +- {s[sensor, c] * UNITS[c]:.{digits}f}"
                for b, s in ((b0, s0), (b1, s1))
            ]
            print(f"    {what:13s} {values[0]:>22s} {values[1]:>22s}   apart {abs(apart[c]):.2f} sigma")
    spread = both[0].biases.spread()
    for sensor, name in enumerate(config.sensor):
        c = config.sensor[name]
        between = spread.between[sensor] * UNITS[:3]
        white = both[0].noise.of(sensor).white
        white = white * [c.range_sigma_m, c.lon_sigma_deg, c.lat_sigma_deg, c.range_rate_sigma_m_s]
        print(
            f"  {name}: from pass to pass {between[0]:.1f} m, {between[1]:.4f}, {between[2]:.4f} deg; from record to"
            f" record {white[0]:.1f} m, {white[1]:.4f}, {white[2]:.4f} deg, {white[3]:.2f} m/s"
        )
    return good


def main() -> int:
    """Each object by itself, then all three in one feed."""
    folder = Path(os.environ.get("FUSIONNODE_DATA", REPOSITORY.parent / "shared" / "data")) / "ssn_radar"
    if not folder.is_dir():
        print(f"no real data at {folder}: set FUSIONNODE_DATA", file=sys.stderr)
        return 1
    config, orientation = plain_config(), EarthOrientation()
    files = {name: folder / f"{number}_dec1996.b3.gz" for name, number in OBJECTS.items()}
    good = True
    for name, path in files.items():
        good = report(name, measurements([path], config, orientation), config, orientation) and good
    all_of_them = measurements(list(files.values()), config, orientation)
    good = report("all three in one feed", all_of_them, config, orientation) and good
    print("the halves agree" if good else "the halves do NOT agree, or a sigma is of no use")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
