"""What a day's batch fit makes of published states, and what shifts leave in it: ``python tests/bench/offsets.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "release"))

from test_precision import EVERY_S, NS, ORBITS, T0_NS, carried, from_elements, published, rms

from fusionnode.core.refframes import EarthOrientation
from fusionnode.release import precision

KEYS = 300
SIZE_M = 25_000.0


def moved(x: np.ndarray, t_ns: np.ndarray, dt_s: float, angle: float) -> np.ndarray:
    """States (k, 6) shifted in time, then turned about the Earth's axis."""
    pole = precision._pole(t_ns)
    y, _ = precision._flow(x, np.full(len(x), dt_s), pole)
    turn = precision._rotation(pole, np.full(len(x), angle))
    return np.concatenate([precision._times(turn, y[:, :3]), precision._times(turn, y[:, 3:])], axis=1)


def main() -> None:
    orientation = EarthOrientation()
    t_ns = T0_NS + (np.arange(49) * EVERY_S * NS).astype(np.int64)
    first = np.array([from_elements(*elements) for elements in ORBITS.values()])
    n, steps = len(first), np.array([0.1, 0.1, 0.1, 1e-4, 1e-4, 1e-4])
    x = np.concatenate([first, *(first + s * np.eye(6)[j] * steps for s in (1, -1) for j in range(6))])
    everything = carried(orientation, x, t_ns)
    states, beside = everything[:n], everything[n:, :, :3].reshape(2, 6, n, len(t_ns), 3)
    partials = np.moveaxis((beside[0] - beside[1]) / (2.0 * steps[:, None, None, None]), 0, -1)
    ways = {"Earth-fixed shift": (1.0, 1.0, 0.0), "shift in time": (1.0, 0.0, 0.0), "turn": (0.0, 0.0, 1.0)}
    left: dict[str, list[float]] = {}
    for way, (shift, spin, turn) in ways.items():
        dt = shift * SIZE_M / np.linalg.norm(first[:, 3:], axis=1)
        angle = -spin * precision._EARTH_RAD_S * dt + turn * SIZE_M / np.linalg.norm(first[:, :3], axis=1)
        y = np.array([moved(states[i], t_ns, dt[i], angle[i]) for i in range(n)])
        d = (carried(orientation, y[:, 0], t_ns) - y)[..., :3]
        left[way] = [rms(residual(partials[i], d[i])) / SIZE_M for i in range(n)]
    print(
        f"fit: rms error / precision_m (100 m), {KEYS} keys; left over by the fit of a day / size ({SIZE_M:g} m)"
    )
    print(
        f"{'orbit':18s} {'min':>6s} {'median':>6s} {'max':>6s}  " + "  ".join(f"{way:>18s}" for way in ways)
    )
    for i, name in enumerate(ORBITS):
        sizes = []
        for key in range(KEYS):
            y, _ = published(key, precision.level_of(100.0), t_ns, states[i])
            d = (y - states[i])[:, :3]
            sizes.append(rms(d - residual(partials[i], d)) / 100.0)
        figures = f"{min(sizes):6.2f} {np.median(sizes):6.2f} {max(sizes):6.2f}"
        print(f"{name:18s} {figures}  " + "  ".join(f"{left[way][i]:18.1e}" for way in ways))


def residual(partials: np.ndarray, d: np.ndarray) -> np.ndarray:
    """What a fit of the first state leaves of differences (k, 3)."""
    A = partials.reshape(-1, 6)
    A = A / np.linalg.norm(A, axis=0)
    flat = d.reshape(-1)
    return np.asarray((flat - A @ np.linalg.lstsq(A, flat, rcond=None)[0]).reshape(-1, 3))


if __name__ == "__main__":
    main()
