"""EKF predict+update pairs a second: our kernels, our filterpy engine, plain filterpy; interleaved, on one core."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter

import numpy as np
from bench_sky import SIGMA, Scene
from plain_filterpy import PlainTrack, difference, seen, slope

from fusionnode.core.refframes import enu_itrf
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.filtering.engine_filterpy import FilterpyEngine

OURS, ENGINE, PLAIN = "our kernels", "filterpy engine", "plain filterpy"
_AT_LEAST_S = 0.2


class Plain:
    """A list of filterpy filters, and what they are to do."""

    def __init__(self, scene: Scene) -> None:
        from bench_sky import LAT, LON

        model = [float(c) for c in scene.rules.model.zonal]
        self.filters = [PlainTrack(model, scene.rules.psd) for _ in scene.x]
        self.start = [(x.copy(), P.copy()) for x, P in zip(scene.x, scene.P, strict=True)]
        t = scene.records["t_meas_ns"]
        axes = enu_itrf(LAT, LON) @ scene.sky.orientation.gcrf_to_itrf(t)
        self.dt = [float(dt) for dt in (t - scene.tracks.epoch[: len(t)]) * 1e-9]
        self.work = []
        for d, m, a in zip(scene.detections, scene.records, axes, strict=True):
            z = np.array([d["range_m"], d["lon_rad"], d["lat_rad"], d["range_rate_m_s"]])
            sigma = np.array(SIGMA)
            sigma[1] /= np.cos(d["lat_rad"])
            self.work.append((z, np.diag(sigma**2), (m["site_r"].copy(), m["site_v"].copy(), a)))

    def run(self) -> None:
        for kf, (x, P), dt, (z, R, where) in zip(self.filters, self.start, self.dt, self.work, strict=True):
            kf.x, kf.P = x, P
            kf.go(dt)
            kf.update(z, slope, seen, R=R, args=where, hx_args=where, residual=difference)


def contenders(n: int) -> tuple[dict[str, Callable[[], None]], Callable[[], float]]:
    """What is to be timed, by name; and how far apart the results of all are at most, in sigma."""
    ours, theirs = Scene(n), Scene(n)
    plain = Plain(ours)
    numba, filterpy = NumbaEngine(), FilterpyEngine()

    def apart() -> float:
        sigma = np.sqrt(ours.room.trials.P[:, ::7])
        of_plain = np.array([kf.x for kf in plain.filters])
        both = np.stack([theirs.room.trials.x, of_plain]) - ours.room.trials.x
        return float(np.max(np.abs(both) / sigma))

    return {
        OURS: lambda: numba.try_pairs(ours.tracks, ours.measurements, n, ours.rules, ours.room),
        ENGINE: lambda: filterpy.try_pairs(theirs.tracks, theirs.measurements, n, theirs.rules, theirs.room),
        PLAIN: plain.run,
    }, apart


def per_pair_us(work: Callable[[], None], n: int) -> float:
    """One timing of ``work`` (n pairs), repeated until it takes long enough to be timed."""
    times, began = 0, perf_counter()
    while (took := perf_counter() - began) < _AT_LEAST_S:
        work()
        times += 1
    return took / times / n * 1e6


def report(rounds: int = 5) -> None:
    """Print the table."""
    print(
        "EKF predict+update, J2-J6, 10 s ahead; range, azimuth, elevation, range rate. Microseconds a pair,"
    )
    print(f"best and median of {rounds} alternating rounds (3 at 10,000 tracks), one core.")
    for n in (1, 100, 10_000):
        work, apart = contenders(n)
        for once in work.values():
            once()
        gc.disable()
        took: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds if n < 10_000 else 3):
            for name, once in work.items():
                took[name].append(per_pair_us(once, n))
        gc.enable()
        best, median = ({k: float(f(v)) for k, v in took.items()} for f in (np.min, np.median))
        print(f"\n{n} tracks (results at most {apart():.1g} sigma apart)")
        for name in work:
            line = f"  {name:16s} best {best[name]:10.3f} us, median {median[name]:10.3f} us"
            line += f" = {1e6 / median[name]:11,.0f} pairs/s; {best[PLAIN] / best[name]:7.2f} x"
            print(f"{line} (best), {median[PLAIN] / median[name]:7.2f} x (median) plain filterpy")


if __name__ == "__main__":
    report()
