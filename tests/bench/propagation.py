"""How far the node's predictions are from an independent propagator and from real satellites, and what they cost.

``python tests/bench/propagation.py [--orbits 40] [--degrees 20,36] [--tables peer,satellites,speed]``

Needs brahe (``pip install brahe``) for the first and third table, the real data ($FUSIONNODE_DATA) for the second;
what is not there is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "track"), str(HERE.parent)]

import peer_orbits  # noqa: E402
from peer_orbits import BALLISTIC, RADIATION, START_NS  # noqa: E402

from conftest import shared_data_folder  # noqa: E402
from fusionnode.config import Tracking  # noqa: E402
from fusionnode.core.refframes import EarthOrientation  # noqa: E402
from fusionnode.track.filtering.filter import predict_slots  # noqa: E402
from fusionnode.track.lanes import workspace  # noqa: E402
from fusionnode.track.motion import dynamics  # noqa: E402
from fusionnode.track.motion.heaven import DAY_NS  # noqa: E402
from fusionnode_hil.truth import load  # noqa: E402

NS = 1_000_000_000
TIMES = {"10 min": 600.0, "one orbit (95 min)": 5_700.0, "one day": 86_400.0}
KNOWN = {"ballistic_m2_kg": BALLISTIC, "srp_m2_kg": RADIATION}
SATELLITES = {
    "Sentinel-3A": ("sentinel3a_20181224.sp3.gz", 17_890),
    "Jason-1": ("jason1_20030107.sp3.gz", 12_060),
}
HOURS = (1 / 6, 1, 6, 24)
W = workspace()


def predict(x: np.ndarray, start_ns: int, seconds: float, model: dynamics.Dynamics) -> np.ndarray:
    """States (n, 6) of orbits (n, 6), predicted with their covariances."""
    n = len(x)
    x, P, epoch = x.copy(), np.zeros((n, 36)), np.full(n, start_ns)
    predict_slots(W, np.arange(n), n, start_ns + round(seconds * NS), x, P, epoch, model, 0.0)
    return x


def cost(call: Any, rounds: int) -> float:
    """Best processor time of a call, s."""
    best = np.inf
    for _ in range(rounds):
        began = process_time()
        call()
        best = min(best, process_time() - began)
    return best


def models(degrees: list[int]) -> dict[str, dict[str, object]]:
    """Settings by title."""
    out: dict[str, dict[str, object]] = {"zonal": {"dynamics": "zonal"}}
    for degree in degrees:
        out[f"full, {degree}"] = {"gravity_degree": degree}
    return out


def beside_peer(bh: Any, orbits: int, degrees: list[int], orientation: EarthOrientation) -> None:
    """Against brahe's 70x70, Sun, Moon, drag, sunlight; with our tides and relativity, and without."""
    x = peer_orbits.low_orbits(bh, orbits)
    truth = peer_orbits.propagate(bh, x, list(TIMES.values()), peer_orbits.forces(bh, 70))
    print(
        f"\n{orbits} low orbits (350 to 1,400 km) against brahe (70x70, Sun, Moon, drag, sunlight), m: median (90 %)"
    )
    extra = {"": {}, ", no tides, no relativity": {"earth_tides": False, "relativity": False}}
    for title, keys in models([*degrees, 70]).items():
        for more, off in extra.items():
            if title == "zonal" and more:
                continue
            model = dynamics.make(Tracking.model_validate(KNOWN | keys | off), orientation, START_NS)
            line = []
            for k, t in enumerate(TIMES.values()):
                e = np.linalg.norm((predict(x, START_NS, t, model) - truth[:, k])[:, :3], axis=1)
                line.append(f"{np.median(e):.3g} ({np.percentile(e, 90):.3g})")
            print(f"  {title + more:38s} " + "  ".join(f"{w}: {e}" for w, e in zip(TIMES, line, strict=True)))


def beside_satellites(folder: Path, degrees: list[int], orientation: EarthOrientation) -> None:
    """Predictions from one point of a precise orbit to a later one."""
    for name, (file, day) in SATELLITES.items():
        truth = load([folder / "precise_orbits" / file])
        print(f"\n{name}: from one SP3 state to a later one, 36 starts; m: median (along track rms)")
        for title, keys in models(degrees).items():
            errors = []
            for k in range(36):
                start_ns = day * DAY_NS + (4 + 5 * k) * 3_600 * NS
                model = dynamics.make(Tracking.model_validate(keys), orientation, start_ns)
                s = truth.states(np.array([start_ns + round(h * 3_600 * NS) for h in (0, *HOURS)]))[0]
                d = np.array([predict(s[:1], start_ns, h * 3_600.0, model)[0] for h in HOURS]) - s[1:]
                along = np.sum(d[:, :3] * s[1:, 3:], axis=1) / np.linalg.norm(s[1:, 3:], axis=1)
                errors.append(np.stack([np.linalg.norm(d[:, :3], axis=1), along]))
            e = np.array(errors)
            middle, rms = np.median(e[:, 0], axis=0), np.sqrt(np.mean(e[:, 1] ** 2, axis=0))
            print(
                f"  {title:12s} "
                + "  ".join(
                    f"{h:.3g} h: {a:.3g} ({b:.3g})" for h, a, b in zip(HOURS, middle, rms, strict=True)
                )
            )


def speed(bh: Any, degrees: list[int], orientation: EarthOrientation) -> None:
    """One day of low orbits with their transition matrices, ours and brahe's, and steps of a pass."""
    x = peer_orbits.low_orbits(bh, 8)
    print(
        "\nprocessor time of an orbit for a day and its transition matrix (8 low orbits), and for a step of 1 s"
    )
    plain = bh.NumericalPropagationConfig.default()
    config = bh.NumericalPropagationConfig.default().with_stm()
    many = np.tile(x, (64, 1))
    for title, keys in models(degrees).items():
        model = dynamics.make(Tracking.model_validate(KNOWN | keys), orientation, START_NS)
        day = cost(lambda m=model: predict(x, START_NS, 86_400.0, m), 4) / len(x)  # type: ignore[misc]
        step = cost(lambda m=model: predict(many, START_NS, 1.0, m), 40) / len(many)  # type: ignore[misc]
        line = f"  {title:12s} {day * 1e3:7.2f} ms   {step * 1e6:.3f} us"
        if "gravity_degree" in keys:
            force = peer_orbits.forces(bh, int(str(keys["gravity_degree"])), tides=False, relativity=True)
            line += "   brahe of the same degree:"
            for what, settings in (("with its transition", config), ("without", plain)):
                theirs = (
                    cost(lambda f=force, c=settings: peer_orbits.propagate(bh, x[:2], [86_400.0], f, c), 2)
                    / 2
                )  # type: ignore[misc]
                line += f" {what} {theirs * 1e3:.0f} ms, {theirs / day:.0f} times as long;"
        print(line)


def main() -> int:
    """All three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orbits", type=int, default=40)
    parser.add_argument("--degrees", type=lambda text: [int(d) for d in text.split(",")], default=[20, 36])
    parser.add_argument("--tables", default="peer,satellites,speed")
    given = parser.parse_args()
    tables = given.tables.split(",")
    orientation = EarthOrientation()
    try:
        import brahe as bh
    except ImportError:
        bh = None
        print("no brahe: nothing to compare with", file=sys.stderr)
    if bh is not None:
        peer_orbits.set_up(bh)
        if "peer" in tables:
            beside_peer(bh, given.orbits, given.degrees, orientation)
    folder = shared_data_folder()
    if folder.is_dir() and "satellites" in tables:
        beside_satellites(folder, given.degrees, orientation)
    if bh is not None and "speed" in tables:
        speed(bh, given.degrees, orientation)
    return 0


if __name__ == "__main__":
    sys.exit(main())
