"""Considered biases: against an augmented filterpy filter, and against truth."""

from __future__ import annotations

import numpy as np
import pytest
from filterpy.kalman import KalmanFilter
from scene import GRAVITY, NS, FixedPole, circular, ephemeris, in_order, measure, station
from test_definite import sound
from test_kernels import RULES

from fusionnode.config import ConfigError
from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import MEASUREMENT, StructArray
from fusionnode.track import picture
from fusionnode.track.association import associate
from fusionnode.track.filtering import consider
from fusionnode.track.filtering.engine_filterpy import noise, observe, second_order, step
from fusionnode.track.filtering.engine_variants import ConsideringEngine, kept_beside, make_engine
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.tracker import Tracker

OVERHEAD = circular(800e3, 60.0, -3.0)
BIASES = np.array([[50.0, 2e-4, 1e-4, 0.3], [10.0, 0.0, 3e-4, 0.0], [0.0, 0.0, 0.0, 0.0]])
SIGMA = (20.0, 1e-4, 0.5)


def filterpys(records: StructArray, x: np.ndarray, P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The state with the biases of three sensors beside it, whose rows of the gain are set to zero."""
    joint = KalmanFilter(dim_x=18, dim_z=4)
    joint.x = np.concatenate([x, np.zeros(12)])
    joint.P = np.zeros((18, 18))
    joint.P[:6, :6] = P
    joint.P[6:, 6:] = np.diag(BIASES.reshape(12) ** 2)
    t = 0
    for m in records:
        F, Q = np.eye(18), np.zeros((18, 18))
        dt = (int(m["t_meas_ns"]) - t) * 1e-9
        t = int(m["t_meas_ns"])
        if dt:
            x_next, F[:6, :6] = step(joint.x[:6], dt, GRAVITY.zonal)
            Q[:6, :6] = noise(dt, RULES.psd)
            joint.predict(F=F, Q=Q)
            joint.x[:6] = x_next
        at = joint.x[:6].copy()
        h, H6 = observe(at, m)
        H = np.zeros((4, 18))
        H[:, :6] = H6
        H[:, 6 + 4 * m["sensor"] : 10 + 4 * m["sensor"]] = np.eye(4)
        R = m["var"] + second_order(at, joint.P[:6, :6], m)
        y = np.array([m["range_m"], 0.0, 0.0, m["range_rate_m_s"]]) - h
        for c in range(4):
            joint.H, joint.R = H[c : c + 1], R[c]
            S = joint.H @ joint.P @ joint.H.T + joint.R
            K = joint.P @ joint.H.T / S
            K[6:] = 0.0
            innovation = y[c] - H6[c] @ (joint.x[:6] - at)
            joint.x = joint.x + K[:, 0] * innovation
            A = np.eye(18) - K @ joint.H
            joint.P = A @ joint.P @ A.T + K @ K.T * joint.R
    return joint.x[:6], joint.P


def test_our_considering_filter_is_the_augmented_one_with_part_of_its_gain_set_to_zero() -> None:
    times = np.arange(0.0, 40.0, 2.0)
    truth = ephemeris(OVERHEAD, times)
    rng = np.random.default_rng(1)
    records = in_order(*(measure(truth, times, rng, sensor=s, sigma=SIGMA) for s in range(3)))
    P = np.diag([100.0**2] * 3 + [1.0] * 3)
    start = OVERHEAD + rng.multivariate_normal(np.zeros(6), P)
    want_x, want_P = filterpys(records, start, P)
    tracks = picture.make_picture(1, consider.BESIDE)
    tracks.high[0], tracks.active[0], tracks.x[0], tracks.P[0] = 1, True, start, P.reshape(36)
    room = associate.make_room(1, 1, consider.BESIDE)
    n = len(records)
    ms = associate.Measurements(
        records.view(np.float64).reshape(n, COLUMNS),
        records["t_meas_ns"].copy(),
        records["sensor"].copy(),
        records["channels"].copy(),
    )
    rules = RULES._replace(consider=BIASES, gates=np.full(5, np.inf), may_drop=False)
    engine = ConsideringEngine()
    for row in range(n):
        room.rows[0] = row
        engine.try_pairs(tracks, ms, 1, rules, room)
        tracks.x[0], tracks.P[0] = room.trials.x[0], room.trials.P[0]
        tracks.beside[0], tracks.epoch[0] = room.trials.beside[0], ms.t[row]
        assert sound(tracks.P[0])
    sigma = np.sqrt(np.diag(want_P))
    np.testing.assert_allclose((tracks.x[0] - want_x) / sigma[:6], 0.0, atol=1e-5)
    np.testing.assert_allclose(tracks.P[0, ::7], np.diag(want_P)[:6], rtol=1e-6)
    sensors = tracks.beside[0, 6:10].astype(int) - 1
    cross = tracks.beside[0, 10:].reshape(4, 6, 4)
    for k, sensor in enumerate(sensors):
        if sensor >= 0:
            want = want_P[:6, 6 + 4 * sensor : 10 + 4 * sensor]
            np.testing.assert_allclose(
                cross[k] * BIASES[sensor] / sigma[:6, None], want / sigma[:6, None], atol=1e-5 * BIASES.max()
            )


def nees_of_runs(considered: bool, runs: int = 20) -> np.ndarray:
    """NEES at the end of a pass of 100 s over one radar whose biases are drawn anew for each run."""
    sigmas = (60.0, 3e-4, 3e-4, 0.0)
    config = station(f"consider_biases = {str(considered).lower()}\ngate_probability = 0.999999")
    radar = config.sensor["radar"].model_copy(
        update={
            "range_bias_sigma_m": sigmas[0],
            "lon_bias_sigma_deg": float(np.degrees(sigmas[1])),
            "lat_bias_sigma_deg": float(np.degrees(sigmas[2])),
        }
    )
    config = config.model_copy(update={"sensor": {**config.sensor, "radar": radar}})
    times = np.arange(0.0, 100.0)
    truth = ephemeris(OVERHEAD, times)
    out = []
    for seed in range(runs):
        rng = np.random.default_rng(1000 + seed)
        records = measure(truth, times, rng, sigma=SIGMA)
        bias = rng.normal(size=3) * sigmas[:3]
        records["range_m"] += bias[0]
        los = records["los"] + bias[1] * records["e_lon"] + bias[2] * records["e_lat"]
        records["los"] = los / np.linalg.norm(los, axis=1)[:, None]
        records["e_lon"] -= np.sum(records["e_lon"] * records["los"], axis=1)[:, None] * records["los"]
        records["e_lon"] /= np.linalg.norm(records["e_lon"], axis=1)[:, None]
        records["e_lat"] = np.cross(records["los"], records["e_lon"])
        tracker = Tracker(config, FixedPole(), Outcomes())
        tracker.process(records)
        states = np.concatenate([e for e in tracker.take() if isinstance(e, np.ndarray)])
        assert set(states["track"]) == {1}
        error = states["x"][-1] - truth[-1]
        out.append(float(error @ np.linalg.solve(states["P"][-1], error)))
    return np.array(out)


def test_a_biased_radar_is_believed_as_much_as_it_deserves() -> None:
    """Mean NEES of 20 runs with biases drawn from their sigmas: six with them considered, far more without."""
    with_them, without = nees_of_runs(True), nees_of_runs(False)
    assert 3.7 < with_them.mean() < 8.3  # six, plus and minus three sigma of the mean of 20
    assert without.mean() > 20.0


def test_the_covariance_stays_above_the_bias_however_much_is_measured() -> None:
    config = station("consider_biases = true")
    assert kept_beside(config.tracking) == consider.BESIDE
    assert isinstance(make_engine(config.tracking), ConsideringEngine)
    tracks = picture.make_picture(1, consider.BESIDE)
    tracks.high[0], tracks.active[0], tracks.x[0] = 1, True, OVERHEAD
    tracks.P[0] = np.diag([1e6] * 3 + [1e2] * 3).reshape(36)
    record = measure(OVERHEAD[None], np.zeros(1), np.random.default_rng(1), sigma=(5.0, 1e-5, 0.1))
    ms = associate.Measurements(
        record.view(np.float64).reshape(1, COLUMNS), record["t_meas_ns"].copy(),
        record["sensor"].copy(), record["channels"].copy(),
    )  # fmt: skip
    rules = RULES._replace(consider=BIASES, gates=np.full(5, np.inf), may_drop=False)
    room = associate.make_room(1, 1, consider.BESIDE)
    engine = ConsideringEngine()
    for _ in range(2_000):
        engine.try_pairs(tracks, ms, 1, rules, room)
        tracks.P[0], tracks.beside[0] = room.trials.P[0], room.trials.beside[0]
        tracks.beside[0, :6] = tracks.x[0]  # the state is held still
    assert sound(tracks.P[0])
    m = record.view(MEASUREMENT)[0]
    H = observe(OVERHEAD, m)[1]
    along = np.sqrt(np.diag(H @ tracks.P[0].reshape(6, 6) @ H.T))
    np.testing.assert_allclose(along, BIASES[0], rtol=0.03)


def test_a_state_set_by_someone_else_knows_no_biases() -> None:
    tracks = picture.make_picture(1, consider.BESIDE)
    tracks.x[0], tracks.P[0] = OVERHEAD, np.diag([1e4] * 3 + [1.0] * 3).reshape(36)
    tracks.beside[0] = 1.0  # of another state
    tracks.epoch[0] = 0
    ConsideringEngine().predict(tracks, np.array([0]), 10 * NS, RULES)
    np.testing.assert_array_equal(tracks.beside[0, :6], tracks.x[0])
    assert (tracks.beside[0, 6:] == 0.0).all()


@pytest.mark.parametrize("pair", ['filter = "ukf"', 'modes = "imm"', 'engine = "filterpy"'])
def test_what_cannot_go_together_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match="consider_biases"):
        station(f"consider_biases = true\n{pair}")
