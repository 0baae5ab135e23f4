"""Print how the errors of three real radars change with time: ``python tests/acceptance/radar_noise.py [--tag TAG]``.

Each pass of at least LONG records is held against the orbit that its track had at its end, taken back through it; what
is left is freed of a quartic in time. Of each radar and channel: the noise from one record to the next, from second
differences (quartiles over passes); and the structure function, the rms of e(t + lag) - e(t) over the root of two, at
lags of 1 to 60 s (median over passes, robust within one). White noise of sigma s with an error that wanders beside it
begins at s and rises to the rms of both; an error that is smooth rises in proportion to the lag.

Needs the real data: $FUSIONNODE_DATA.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from new_pass import NS, OBJECTS, Feed, data_folder, read, slot_of
from radar_truth import CONFIG

from fusionnode.config import Config, load
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.track.tracker import Tracker

LONG = 100
LAGS = (1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 60)
UNITS = np.array([1.0, np.degrees(1.0), np.degrees(1.0), 1.0])
FAR_M = 3_000.0


def left_over(config: Config, feed: Feed) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(sensor, seconds (n,), residuals (n, 4)) of each long pass, without a quartic."""
    tracker = Tracker(config, EarthOrientation(), Outcomes())
    m = feed.measurements
    out = []
    ends = np.array([np.flatnonzero(feed.pass_of == k)[-1] for k in range(feed.pass_of.max() + 1)])
    at = 0
    for which in np.argsort(ends):
        tracker.process(m[at : ends[which] + 1])
        at = int(ends[which]) + 1
        events = [e for e in tracker.take() if isinstance(e, np.ndarray)]
        rows = np.flatnonzero(feed.pass_of == which)
        last = [s for e in events for s in e if s["last_ob_ns"] == m["t_meas_ns"][rows[-1]]]
        slot = slot_of(tracker, int(last[-1]["track"])) if last else None
        if slot is None or len(rows) < LONG:
            continue
        y = np.array([tracker.look(m[i : i + 1], slot)[0].y for i in rows])
        t = (m["t_meas_ns"][rows] - m["t_meas_ns"][rows[0]]) / NS
        if np.median(np.abs(y[:, 0])) < FAR_M:
            out.append((int(m["sensor"][rows[0]]), t, flattened(t, y)))
    return out


def flattened(t: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``y`` (n, 4) without a quartic in ``t``, which wild points do not bend."""
    u = (t - t.mean()) / np.ptp(t)
    out = y.copy()
    for c in range(4):
        kept = np.ones(len(t), bool)
        for _ in range(5):
            out[:, c] = y[:, c] - np.polyval(np.polyfit(u[kept], y[kept, c], 4), u)
            kept = np.abs(out[:, c]) <= 4.0 * 1.4826 * np.median(np.abs(out[kept, c])) + 1e-12
    return out


def structure(t: np.ndarray, e: np.ndarray, lag: int) -> np.ndarray:
    """Robust rms of the differences of ``e`` (n, 4) at ``lag`` s over the root of two; nan if there are few."""
    second = {round(s): i for i, s in enumerate(t.tolist())}
    pairs = np.array([(i, second[s + lag]) for s, i in second.items() if s + lag in second])
    if len(pairs) < 20:
        return np.full(4, np.nan)
    return 1.4826 * np.median(np.abs(e[pairs[:, 1]] - e[pairs[:, 0]]), axis=0) / np.sqrt(2.0)


def white(t: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Robust sigma of second differences of ``e`` (n, 4), over the root of six."""
    steady = np.abs(t[2:] - t[:-2] - 2.0) < 0.3
    return 1.4826 * np.median(np.abs((e[2:] - 2.0 * e[1:-1] + e[:-2])[steady]), axis=0) / np.sqrt(6.0)


def main() -> int:
    """One table a radar."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--tag", type=int, choices=list(OBJECTS), default=22076)
    given = words.parse_args()
    if not data_folder().is_dir():
        print(f"no real data at {data_folder()}: set FUSIONNODE_DATA", file=sys.stderr)
        return 1
    config = load(CONFIG)
    passes = left_over(config, read(data_folder(), config, (given.tag,)))
    for sensor, name in enumerate(config.sensor):
        mine = [(t, e) for s, t, e in passes if s == sensor]
        if not mine:
            continue
        print(
            f"{name}: {len(mine)} passes of {OBJECTS[given.tag]}; range m, azimuth deg, elevation deg, range rate m/s"
        )
        quartiles = np.percentile([white(t, e) * UNITS for t, e in mine], [25, 50, 75], axis=0)
        for part, values in zip((25, 50, 75), quartiles, strict=True):
            print(f"  record to record, {part} %: " + ", ".join(f"{v:.4g}" for v in values))
        for lag in LAGS:
            values = np.nanmedian([structure(t, e, lag) for t, e in mine], axis=0) * UNITS
            print(f"  lag {lag:2d} s: " + ", ".join(f"{v:.4g}" for v in values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
