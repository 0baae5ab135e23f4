"""What the node's own dynamics leave of a precise orbit after a fit of state and coefficients by least squares.

``python tests/bench/orbit_residuals.py [--degrees 36,70] [--hours 24]``

Six elements and both coefficients through a position every two minutes (Gauss-Newton, derivatives by differences).
What is left is what process noise has to stand for. Needs the real data: $FUSIONNODE_DATA.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "track"), str(HERE.parent), str(HERE)]

from propagation import NS, SATELLITES  # noqa: E402

from conftest import shared_data_folder  # noqa: E402
from fusionnode.config import Tracking  # noqa: E402
from fusionnode.core.refframes import EarthOrientation  # noqa: E402
from fusionnode.track.filtering.filter import predict_slots  # noqa: E402
from fusionnode.track.lanes import workspace  # noqa: E402
from fusionnode.track.motion import dynamics  # noqa: E402
from fusionnode.track.motion.heaven import DAY_NS  # noqa: E402
from fusionnode_hil.truth import load  # noqa: E402

SPACING_S, ROUNDS = 120, 3
STEPS = np.array([1.0, 1.0, 1.0, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3])
W = workspace()


def paths(t_ns: np.ndarray, p: np.ndarray, models: dict[int, dynamics.Dynamics]) -> np.ndarray:
    """States (k, n, 6) at ``t_ns`` (n,) from states and coefficients ``p`` (k, 8) at the first of them."""
    k = len(p)
    x, P, epoch, slots = p[:, :6].copy(), np.zeros((k, 36)), np.full(k, t_ns[0]), np.arange(k)
    out = np.empty((k, len(t_ns), 6))
    out[:, 0] = x
    for i in range(1, len(t_ns)):
        model = models[int(t_ns[i - 1]) // DAY_NS]
        for j in range(k):
            terms = model.terms.copy()
            terms[2:4] = p[j, 6:]
            predict_slots(W, slots[j : j + 1], 1, int(t_ns[i]), x, P, epoch, model._replace(terms=terms), 0.0)
        out[:, i] = x
    return out


def axes(x: np.ndarray) -> np.ndarray:
    """Radial, along and across, (n, 3, 3), of states (n, 6)."""
    up = x[:, :3] / np.linalg.norm(x[:, :3], axis=1)[:, None]
    across = np.cross(x[:, :3], x[:, 3:])
    across /= np.linalg.norm(across, axis=1)[:, None]
    return np.stack([up, np.cross(across, up), across], axis=1)


def main() -> int:
    """Both satellites."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--degrees", type=lambda text: [int(degree) for degree in text.split(",")], default=[36, 70]
    )
    parser.add_argument("--hours", type=float, default=24.0)
    given = parser.parse_args()
    folder = shared_data_folder()
    if not folder.is_dir():
        print(f"no real data at {folder}: set FUSIONNODE_DATA", file=sys.stderr)
        return 1
    orientation = EarthOrientation()
    for name, (file, day) in SATELLITES.items():
        truth = load([folder / "precise_orbits" / file])
        t_ns = day * DAY_NS + 4 * 3_600 * NS + np.arange(0, int(given.hours * 3_600) + 1, SPACING_S) * NS
        true = truth.states(t_ns)[0]
        to_axes = axes(true)
        for degree in given.degrees:
            config = Tracking(gravity_degree=degree)
            models = {
                d: dynamics.make(config, orientation, d * DAY_NS)
                for d in sorted({int(t) // DAY_NS for t in t_ns})
            }
            p = np.concatenate([true[0], [config.ballistic_m2_kg, config.srp_m2_kg]])
            for _ in range(ROUNDS):
                o = paths(t_ns, np.vstack([p, p + np.diag(STEPS)]), models)[:, :, :3]
                J = np.stack([(o[1 + c] - o[0]).ravel() / STEPS[c] for c in range(8)], axis=1)
                scale = np.maximum(np.abs(J).max(axis=0), 1e-30)
                p = p + np.linalg.lstsq(J / scale, (true[:, :3] - o[0]).ravel(), rcond=1e-12)[0] / scale
            left = np.einsum("nij,nj->ni", to_axes, (paths(t_ns, p[None], models)[0] - true)[:, :3])
            r, t, n = np.sqrt(np.mean(left**2, axis=0))
            print(
                f"{name:12s} degree {degree}: rms radial {r:.3f}, along {t:.3f}, across {n:.3f} m;"
                f" Cd A/m {p[6]:.4f}, Cr A/m {p[7]:.4f} m^2/kg",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
