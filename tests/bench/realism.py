"""Whether a covariance says how wrong a track is, by the density of process noise: real satellites, made-up radar.

``python tests/bench/realism.py [--psd 1e-12,3e-12,1e-11]``

32 tracks of each satellite, from different hours on; a pass of eight looks, a minute apart, every three hours (20 m,
0.01 deg, 0.5 m/s). Squared errors over their covariances (NEES, six degrees of freedom) ought to be 6 on average. Needs
the real data: $FUSIONNODE_DATA.
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
from fusionnode.core.types import MEASUREMENT, Channel, StructArray  # noqa: E402
from fusionnode.track.association import associate  # noqa: E402
from fusionnode.track.filtering.filter import predict_slots, try_pairs  # noqa: E402
from fusionnode.track.filtering.sensing import COLUMNS  # noqa: E402
from fusionnode.track.lanes import workspace  # noqa: E402
from fusionnode.track.motion import coefficients, dynamics  # noqa: E402
from fusionnode.track.motion.heaven import DAY_NS  # noqa: E402
from fusionnode_hil.truth import Truth, load  # noqa: E402

TRACKS, PASSES, LOOKS = 32, 12, 8
SIGMA = (20.0, float(np.radians(0.01)), 0.5)
START = np.array([50.0] * 3 + [0.5] * 3)
W = workspace()


def nees(e: np.ndarray, P: np.ndarray) -> float:
    """Mean over tracks."""
    return float(np.mean([d @ np.linalg.solve(C.reshape(6, 6), d) for d, C in zip(e, P, strict=True)]))


def seen(x: np.ndarray, rng: np.random.Generator) -> StructArray:
    """MEASUREMENT[1] of a state (6,) from a radar within some hundred km of the point below it, at rest."""
    m = np.zeros(1, MEASUREMENT)
    site = x[:3] * 6.378e6 / np.linalg.norm(x[:3]) + 4e5 * rng.normal(size=3)
    rho = x[:3] - site
    distance = float(np.linalg.norm(rho))
    u = rho / distance
    east = np.cross([0.0, 0.0, 1.0], u)
    east /= np.linalg.norm(east)
    los = u + SIGMA[1] * (rng.normal() * east + rng.normal() * np.cross(u, east))
    los /= np.linalg.norm(los)
    east = np.cross([0.0, 0.0, 1.0], los)
    east /= np.linalg.norm(east)
    m["los"], m["e_lon"], m["e_lat"], m["site_r"] = los, east, np.cross(los, east), site
    m["range_m"] = distance + SIGMA[0] * rng.normal()
    m["range_rate_m_s"] = u @ x[3:] + SIGMA[2] * rng.normal()
    m["var"] = [SIGMA[0] ** 2, SIGMA[1] ** 2, SIGMA[1] ** 2, SIGMA[2] ** 2]
    m["channels"] = Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE
    return m


def run(truth: Truth, day: int, psd: float, config: Tracking, orientation: EarthOrientation) -> str:
    """One line of the table."""
    rng = np.random.default_rng(0)
    n = TRACKS
    begin = day * DAY_NS + (np.arange(n) * 3 * 3_600 + 600) * NS
    x = truth.states(begin)[0] + START * rng.normal(size=(n, 6))
    P, epoch = np.tile(np.diag(START**2).reshape(36), (n, 1)), begin.copy()
    rows = np.tile(coefficients.fresh(config), (n, 1))
    room, slots = associate.make_room(n, n), np.arange(n)
    made: dict[int, dynamics.Dynamics] = {}

    def predict(to_ns: np.ndarray, x: np.ndarray, P: np.ndarray, epoch: np.ndarray, rows: np.ndarray) -> None:
        for i in range(n):
            of = int(epoch[i]) // DAY_NS
            if of not in made:
                made[of] = dynamics.make(config, orientation, int(epoch[i]), rows)
            model = made[of]._replace(tracks=rows)
            predict_slots(W, np.array([i]), 1, int(to_ns[i]), x, P, epoch, model, psd)

    after, before, nis = [], [], []
    for k in range(PASSES):
        for look in range(LOOKS):
            to_ns = begin + (10_800 * k + 60 * (look + 1)) * NS
            true = truth.states(to_ns)[0]
            predict(to_ns, x, P, epoch, rows)
            if look == 0:
                before.append(nees(x - true, P))
            ms = np.concatenate([seen(state, rng) for state in true])
            ms["t_meas_ns"] = to_ns
            try_pairs(
                W, n, slots, slots, x, P, epoch, ms.view(np.float64).reshape(n, COLUMNS), to_ns.copy(),
                ms["channels"].copy(), made[int(begin[0]) // DAY_NS], psd, np.full(5, np.inf), False, room.trials,
            )  # fmt: skip
            nis.append(np.mean(room.trials.nis) / 4)
            for i in range(n if config.estimate else 0):
                coefficients.regress(rows[i], room.trials.prior[i], room.trials.x[i], room.trials.P[i])
            x[:], P[:], epoch[:] = room.trials.x, room.trials.P, to_ns
        after.append(nees(x - true, P))
    line = f"NEES after passes 4 to 6: {np.mean(after[3:6]):.1f}, 7 to 12: {np.mean(after[6:]):.1f};"
    line += f" before passes 7 to 12: {np.mean(before[6:]):.1f}; NIS/dof {np.mean(nis[LOOKS:]):.2f};"
    for hours in (6, 24):
        far, wide, t, own = x.copy(), P.copy(), epoch.copy(), rows.copy()
        predict(epoch + hours * 3_600 * NS, far, wide, t, own)
        e = far - truth.states(t)[0]
        line += (
            f" {hours} h on: {np.median(np.linalg.norm(e[:, :3], axis=1)):.0f} m, NEES {nees(e, wide):.1f};"
        )
    return line


def main() -> int:
    """Both satellites."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--psd", type=lambda text: [float(q) for q in text.split(",")], default=[1e-12, 3e-12, 1e-11]
    )
    given = parser.parse_args()
    folder = shared_data_folder()
    if not folder.is_dir():
        print(f"no real data at {folder}: set FUSIONNODE_DATA", file=sys.stderr)
        return 1
    orientation = EarthOrientation()
    for name, (file, day) in SATELLITES.items():
        truth = load([folder / "precise_orbits" / file])
        for psd in given.psd:
            for estimate in ((), ("ballistic",)):
                config = Tracking.model_validate({"estimate": estimate})
                print(
                    f"{name} {psd:g} {' '.join(estimate):9s} {run(truth, day, psd, config, orientation)}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
