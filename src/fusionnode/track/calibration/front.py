"""What the tracker calls to know the truth about its sensors: statistics in, corrections and verdicts out.

All of it happens at times of measurement, on a fixed grid of reviews, so that what comes out does not depend on how
measurements were cut into calls. What a review changes holds for the measurements after it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config, Sensor
from fusionnode.core.types import Channel, KnownObject, StructArray
from fusionnode.track.association.associate import Log, Measurements, Room
from fusionnode.track.calibration.bias import BiasEstimator, Limits
from fusionnode.track.calibration.collect import Collector
from fusionnode.track.calibration.correct import corrected, uncorrected
from fusionnode.track.calibration.noise import NoiseKeeper
from fusionnode.track.calibration.orbit import Orbit
from fusionnode.track.calibration.tally import copy_of, make_tally, note_refused, note_updates
from fusionnode.track.calibration.trust import Criteria, Evidence, Trust, TrustKeeper
from fusionnode.track.filtering.sensing import COLUMNS, FIRST_COLUMN
from fusionnode.track.lanes import workspace
from fusionnode.track.motion.dynamics import Dynamics
from fusionnode.track.picture import Picture

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SECOND_NS = 1_000_000_000
HOUR_NS = 3_600 * SECOND_NS
BETWEEN_PART = 1.0
WITHIN_PART = 0.5
"""Pass error and wander assumed at first, in parts of the configured sigma."""
SURE = 2.0
UNSURE = 1.0
"""A bias is corrected from so many of its sigmas on, and until it is less than so many."""
LEAST_PASSES = 3
LOOK_S = 1.0
"""A sensor's detections without a track are looked for elsewhere at most so often."""
SAME_RANGE_M = 3_000.0
SAME_RATE_M_S = 30.0
ELSEWHERE_RAD = np.radians(0.5)
ELSEWHERE_SIGMAS = 30.0
"""A direction that is off by less than this is a noisy one and no other."""
STALE_NS = 40 * SECOND_NS
_RANGE = int(Channel.RANGE)
STATE_VERSION = 1
Trial = Callable[[Measurements], tuple[I64, I64, F64, I64]]
"""Tries measurements of one scan against the tracks and updates none: rows, slots, NIS and track numbers of the
pairs."""


class Reference(Protocol):
    """What is asked of the catalogue about objects that serve for calibration."""

    def object(self, row: int) -> KnownObject | None:
        """What catalogue row ``row`` is called."""
        ...

    def prior(self, row: int, t_ns: int) -> tuple[F64, F64] | None:
        """Its state (6,) and covariance (6, 6), if there is a prediction."""
        ...


class SensorTruth:
    """Biases, noise and trust of all sensors of a station.

    Args:
        config: the station's configuration.
        slots: capacity of the picture.
        reference: the catalogue, for the orbits of calibration objects.
    """

    def __init__(self, config: Config, slots: int, reference: Reference | None = None) -> None:
        c = self._config = config.calibration
        self._reference = reference if c.objects else None
        self._names = list(config.sensor)
        sensors = list(config.sensor.values())
        n = len(sensors)
        self._sigma = np.array([_sigmas(s) for s in sensors])
        self._wander = np.zeros((len(sensors), 4))
        if config.tracking.estimate_errors:
            # points of arcs are further apart than what wanders stays alike: to an arc it is white
            self._wander = np.array([s.wander() for s in sensors])
            self._sigma = np.sqrt(
                self._sigma**2 + self._wander + np.array([s.bias_sigmas() for s in sensors]) ** 2
            )
        self._inertial = np.array([s.angles == "radec" and s.kind == "optical" for s in sensors])
        prior = [
            c.range_bias_sigma_m,
            np.radians(c.angle_bias_sigma_deg),
            np.radians(c.angle_bias_sigma_deg),
            c.time_bias_sigma_s,
        ]
        self.biases = BiasEstimator(
            Limits(
                np.tile(prior, (n, 1)),
                BETWEEN_PART * self._sigma[:, :3],
                WITHIN_PART * self._sigma[:, :3],
                self._inertial,
                c.memory_days,
                c.along_track_sigma_m_s2,
            )
        )
        self._tally = make_tally(n, slots if c.enabled else 1)
        self.noise = NoiseKeeper(self._tally, c.adapt_noise, c.noise_scale_min, c.noise_scale_max)
        self.trust = TrustKeeper(
            n, Criteria(c.trust_tracks, c.suspect_ratio, c.clear_ratio, c.trust_window_s, c.clear_s)
        )
        self._collector = Collector(slots if c.estimate_biases else 1, c.spacing_s, c.tracks, c.arc_points)
        self._collecting = c.enabled and c.estimate_biases
        self._w = workspace()
        self._next_ns = 0
        self._review_ns = round(c.review_s * SECOND_NS)
        self._applied = np.zeros((n, 4))
        self._widened = np.ones(n)
        self._scales = np.ones((n, 4))
        self._plain = True
        self._isolated = np.zeros(n, np.bool_)
        self._aside: list[StructArray] = []
        self._looked_ns = np.zeros(n, np.int64)
        self._high = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> SensorTruth:
        """What a checkpoint of the tracker takes: all that changes, and of arrays by slot only what was used."""
        new = copy.copy(self)
        memo[id(self)] = new
        new._tally = copy_of(self._tally, self._high)
        new.noise = self.noise.twin(new._tally)
        new.trust = self.trust.twin()
        new.biases = copy.deepcopy(self.biases, memo)
        new._collector = self._collector.twin(self._high)
        new._aside = list(self._aside)
        new._looked_ns = self._looked_ns.copy()
        return new

    # -- measurements on their way in

    def parts(
        self,
        measurements: StructArray,
        model: Callable[[int], Dynamics],
        trial: Trial,
        isolated: Callable[[int, int], None],
    ) -> Iterator[StructArray]:
        """MEASUREMENT[n] in order, corrected, in pieces between reviews; a review takes place when the piece before
        it has been settled. Those of isolated sensors are counted by ``isolated`` (sensor, how many) and left out.

        ``model``: dynamics for a time, TAI ns. ``trial``: see `Trial`.
        """
        if not self._config.enabled:
            yield measurements
            return
        t = measurements["t_meas_ns"]
        at, n = 0, len(measurements)
        while at < n:
            first = int(t[at])
            if first >= self._next_ns:
                self._review(first, model, trial)
            end = int(np.searchsorted(t, self._next_ns, side="left"))
            piece = measurements[at : max(end, at + 1)]
            at += len(piece)
            if self._isolated.any():
                out = self._isolated[piece["sensor"]]
                if out.any():
                    self._aside.append(piece[out])
                    for sensor, count in enumerate(np.bincount(piece["sensor"][out]).tolist()):
                        if count:
                            isolated(sensor, count)
                    piece = piece[~out]
            if not self._plain and len(piece):
                piece = corrected(piece, self._applied, self._scales * self._widened[:, None], self._inertial)
            if len(piece):
                yield piece

    def advance(self, t_ns: int, model: Callable[[int], Dynamics], trial: Trial) -> None:
        """No measurement at or before ``t_ns`` will come any more."""
        if self._config.enabled and self._next_ns and t_ns >= self._next_ns:
            self._review(t_ns, model, trial)

    # -- what became of them

    def updates(self, picture: Picture, ms: Measurements, log: Log, slots: I64) -> None:
        """Updates that were just logged, before the log is cleared; ``slots`` (n,) of the picture."""
        if not self._config.enabled:
            return
        n = len(slots)
        self._high = max(self._high, int(picture.high[0]))
        numbers = picture.number[slots]
        note_updates(
            self._w, self._tally, n, slots, log.row, numbers, log.x, log.P, log.used, log.nis, log.sensors,
            log.taken, self._widened, ms,
        )  # fmt: skip
        if self._collecting:
            self._collector.take(
                slots, numbers, log.row[:n], log.used[:n], log.x, picture.object[slots],
                ms.z, ms.t, ms.sensor, ms.channels, self._undo,
                lambda: picture.number[: int(picture.high[0])][picture.active[: int(picture.high[0])]],
            )  # fmt: skip

    def refused(
        self, picture: Picture, ms: Measurements, room: Room, n: int, done: npt.NDArray[np.bool_], start: int
    ) -> None:
        """A scan was settled: of its ``n`` pairs in ``room``, rows from ``start`` on that are not ``done`` found no
        track."""
        if not self._config.enabled or n == 0:
            return
        left = np.flatnonzero(~done[room.rows[:n] - start])
        if len(left) == 0:
            return
        slots = room.slots[left]
        held = picture.active[slots] & (picture.status[slots] != 0)
        left, slots = left[held], slots[held]
        if len(left):
            note_refused(
                self._tally,
                len(left),
                room.rows[left],
                slots,
                picture.number[slots],
                room.trials.nis[left],
                ms,
            )

    def orphan(self, picture: Picture, ms: Measurements, row: int) -> None:
        """A detection is near no track: is it where another sensor's track would be, were it not for the
        direction?"""
        if not self._config.enabled or len(self._names) < 2:
            return
        sensor, t_ns = int(ms.sensor[row]), int(ms.t[row])
        self._tally.support[sensor, 1] += 1
        self._tally.busy[0] = True
        if not ms.channels[row] & _RANGE or t_ns - self._looked_ns[sensor] < LOOK_S * SECOND_NS:
            return
        self._looked_ns[sensor] = t_ns
        self.trust.note_astray(sensor, self._same_echo(picture, ms, row))

    def _same_echo(self, picture: Picture, ms: Measurements, row: int) -> int | None:
        """A track that other sensors hold, of this range and range rate; its number."""
        p, z, t_ns = picture, ms.z[row], int(ms.t[row])
        high = int(p.high[0])
        others = p.sensors[:high] & ~(np.uint64(1) << np.uint64(ms.sensor[row])) != 0
        fresh = np.abs(t_ns - p.coarse_ns[:high]) < STALE_NS
        held = np.flatnonzero(p.active[:high] & (p.status[:high] != 0) & others & fresh)
        if len(held) == 0:
            return None
        dt = (t_ns - p.coarse_ns[held]) * 1e-9
        c = p.coarse[:, held]
        d = c[:3] + dt * c[3:6] + 0.5 * dt * dt * c[6:9] - z[FIRST_COLUMN : FIRST_COLUMN + 3, None]
        v = c[3:6] + dt * c[6:9] - z[FIRST_COLUMN + 3 : FIRST_COLUMN + 6, None]
        rho = np.linalg.norm(d, axis=0)
        near = np.abs(rho - z[FIRST_COLUMN + 15]) < SAME_RANGE_M
        if ms.channels[row] & int(Channel.RANGE_RATE):
            sigma = np.sqrt(z[FIRST_COLUMN + 20])
            near &= np.abs((d * v).sum(axis=0) / rho - z[FIRST_COLUMN + 16]) < SAME_RATE_M_S + 3.0 * sigma
        los = z[FIRST_COLUMN + 6 : FIRST_COLUMN + 9]
        apart = np.arccos(np.clip(los @ d / rho, -1.0, 1.0))
        sigma = float(np.sqrt(z[FIRST_COLUMN + 18 : FIRST_COLUMN + 20].max()))
        near &= apart > max(ELSEWHERE_RAD, ELSEWHERE_SIGMAS * sigma)
        found = held[near]
        return int(p.number[found[0]]) if len(found) else None

    # -- reviews

    def _review(self, t_ns: int, model: Callable[[int], Dynamics], trial: Trial) -> None:
        due, grid = self._next_ns, t_ns // self._review_ns * self._review_ns
        self._next_ns = grid + self._review_ns
        if due == 0:
            return
        changed = self._judge(due, trial) if self._tally.busy[0] or self._aside else False
        if self._collecting and self._solve_ripe(grid, round(self._config.arc_h * HOUR_NS), model):
            changed = True
        if changed:
            self._set_corrections()

    def solve_all(self, t_ns: int, model: Callable[[int], Dynamics]) -> None:
        """Solve the arcs as they stand at ``t_ns``, however short: nothing more will come."""
        if self._collecting and self._solve_ripe(t_ns, 0, model):
            self._set_corrections()

    def _solve_ripe(self, t_ns: int, length_ns: int, model: Callable[[int], Dynamics]) -> bool:
        """Solve the arcs that are ``length_ns`` long; says whether there was one."""
        solved = False
        while ripe := self._collector.ripe(t_ns, length_ns):
            points = ripe[1].points()
            if points is not None and int(points.passage[-1]) + 1 >= LEAST_PASSES:
                orbit = Orbit(model(t_ns))
                first = int(points.t[0])
                x0 = orbit.flow(ripe[1].x, ripe[1].last_ns, np.array([first]), 0.0).x[0]
                self.biases.add(points, x0, first, orbit.flow, self._known_orbit(ripe[1].object, first))
                solved = True
        return solved

    def _known_orbit(self, row: int, t_ns: int) -> tuple[F64, F64] | None:
        """Where a calibration object was, and how well that is known; None of any other object."""
        if self._reference is None or row < 0:
            return None
        known = self._reference.object(row)
        if known is None or known.sat_no not in self._config.objects:
            return None
        return self._reference.prior(row, t_ns)

    def _judge(self, t_ns: int, trial: Trial) -> bool:
        for batch in self._aside:
            plain = (
                corrected(batch, self._applied, self._scales, self._inertial) if not self._plain else batch
            )
            self._try_aside(plain, trial)
        self._aside = []
        tally = self._tally
        for k in np.flatnonzero(tally.fresh).tolist():
            track, sensor, before, _, newest, n = tally.visit[k].tolist()
            self.trust.note(Evidence(newest, sensor, before, track, float(tally.ratio[k]), n))
        tally.fresh[:] = False
        for sensor in range(len(self._names)):
            self.trust.note_support(sensor, int(tally.support[sensor, 0]), int(tally.support[sensor, 1]))
        tally.support[:] = 0
        tally.busy[0] = False
        changed = bool(self.trust.review(t_ns))
        return self.noise.review() or changed

    def _try_aside(self, batch: StructArray, trial: Trial) -> None:
        t, sensor = batch["t_meas_ns"], batch["sensor"]
        cuts = np.flatnonzero((np.diff(t) != 0) | (np.diff(sensor) != 0)) + 1
        for scan in np.split(batch, cuts):
            ms = as_measurements(scan)
            rows, slots, nis, numbers = trial(ms)
            if len(rows):
                note_refused(self._tally, len(rows), rows, slots, numbers, nis, ms)

    def _set_corrections(self) -> None:
        states = [self.trust.state(s) for s in range(len(self._names))]
        self._isolated = np.array([s is Trust.ISOLATED and self._config.isolate for s in states])
        self._widened = np.array([1.0 if s is Trust.OK else self._config.suspect_factor for s in states])
        self._scales = self.noise.scales
        if self._config.apply_biases and self._collecting:
            value, sigma = self.biases.estimate()
            useful = sigma <= self._config.apply_below * np.column_stack(
                [self._sigma[:, :3], np.full(len(sigma), np.inf)]
            )
            useful[:, 3] = sigma[:, 3] < 0.5 * self._config.time_bias_sigma_s
            threshold = np.where(self._applied != 0.0, UNSURE, SURE)
            self._applied = np.where(useful & (np.abs(value) >= threshold * sigma), value, 0.0)
        self._plain = not self._applied.any() and bool(
            (self._scales == 1.0).all() and (self._widened == 1.0).all()
        )

    def as_taken(self, measurements: StructArray) -> StructArray:
        """MEASUREMENT[n] as it would be processed now: corrected, its sigmas scaled."""
        if self._plain:
            return measurements
        return corrected(measurements, self._applied, self._scales * self._widened[:, None], self._inertial)

    def _undo(self, z: F64, t_ns: int, sensor: int) -> tuple[F64, int]:
        """A measurement as it was before it was corrected, for an arc."""
        if self._applied[sensor].any():
            z, t_ns = uncorrected(z, t_ns, self._applied[sensor], bool(self._inertial[sensor]))
        if self._wander[sensor].any():
            z = z.copy()
            z[FIRST_COLUMN + 17 : FIRST_COLUMN + 21] += self._wander[sensor]
        return z, t_ns

    # -- what there is to know

    def report(self, sensor: int) -> dict[str, Any]:
        """Fields of the sensor's published state."""
        value, sigma = self.biases.estimate()
        spread = self.biases.spread()
        noise = self.noise.of(sensor)
        angles = np.degrees
        return {
            "trust": self.trust.state(sensor).name.lower(),
            "trustReason": self.trust.reason(sensor),
            "rangeBiasM": float(value[sensor, 0]),
            "rangeBiasSigmaM": float(sigma[sensor, 0]),
            "lonBiasDeg": float(angles(value[sensor, 1])),
            "lonBiasSigmaDeg": float(angles(sigma[sensor, 1])),
            "latBiasDeg": float(angles(value[sensor, 2])),
            "latBiasSigmaDeg": float(angles(sigma[sensor, 2])),
            "timeBiasS": float(value[sensor, 3]),
            "timeBiasSigmaS": float(sigma[sensor, 3]),
            "biasPasses": round(float(self.biases.passes[sensor])),
            "biasApplied": bool(self._applied[sensor].any()),
            "passErrorM": float(spread.between[sensor, 0]),
            "passErrorDeg": angles(spread.between[sensor, 1:]).tolist(),
            "noiseScale": noise.white.tolist() if noise.samples.any() else None,
            "innovationScale": noise.consistency.tolist() if noise.samples.any() else None,
            "innovationCorrelation": noise.correlation.tolist() if noise.samples.any() else None,
            "sigmaFactor": (self._scales[sensor] * self._widened[sensor]).tolist(),
        }

    # -- what outlives a run

    def export_state(self) -> dict[str, Any]:
        """Plain numbers and texts that `import_state` takes, sensors by name. Arcs not yet solved are not part of
        it."""
        return {
            "version": STATE_VERSION,
            "sensors": list(self._names),
            "biases": self.biases.export_state(),
            "noise": self.noise.export_state(),
            "trust": self.trust.export_state(self._names),
            "applied": self._applied.tolist(),
        }

    def import_state(self, state: dict[str, Any]) -> None:
        """Take up again what `export_state` gave. Sensors that are new start from nothing, those gone are forgotten.

        Raises:
            ValueError: it is not such a state, or of another version.
        """
        try:
            if state["version"] != STATE_VERSION:
                raise ValueError(f"calibration state of version {state['version']}")
            there = list(state["sensors"])
            to = [i for i, name in enumerate(self._names) if name in there]
            of = [there.index(self._names[i]) for i in to]
            self.biases.import_state(state["biases"], to, of, len(there))
            self.noise.import_state(state["noise"], to, of)
            self.trust.import_state(self._names, state["trust"])
            self._applied[to] = np.array(state["applied"]).reshape(len(there), 4)[of]
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not a calibration state: {error!r}") from None
        self._set_corrections()


def as_measurements(measurements: StructArray) -> Measurements:
    """MEASUREMENT[n] as the kernels see it."""
    return Measurements(
        np.ascontiguousarray(measurements).view(np.float64).reshape(len(measurements), COLUMNS),
        np.ascontiguousarray(measurements["t_meas_ns"]),
        np.ascontiguousarray(measurements["sensor"]),
        np.ascontiguousarray(measurements["channels"]),
    )


def _sigmas(sensor: Sensor) -> list[float]:
    half = 0.5 if sensor.kind == "radar" and sensor.range_convention == "round_trip" else 1.0
    return [
        half * sensor.range_sigma_m,
        np.radians(sensor.lon_sigma_deg),
        np.radians(sensor.lat_sigma_deg),
        half * sensor.range_rate_sigma_m_s,
    ]
