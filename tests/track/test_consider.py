"""Errors of sensors beside the state: against an augmented filterpy filter, and against truth."""

from __future__ import annotations

import numpy as np
import pytest
from filterpy.kalman import KalmanFilter
from scene import GRAVITY, NS, FixedPole, circular, ephemeris, in_order, measure, station
from scipy.stats import chi2
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
from fusionnode.track.filtering.errors import Errors
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.tracker import Tracker

OVERHEAD = circular(800e3, 60.0, -3.0)
BIASES = np.array([[50.0, 2e-4, 1e-4, 0.3], [10.0, 0.0, 3e-4, 0.0], [0.0, 0.0, 0.0, 0.0]])
SIGMA = (20.0, 1e-4, 0.5)
ONE = consider.kept(1)
FOREVER = np.full((3, 4), np.inf)
NONE_FREE = np.zeros((3, 4), np.bool_)


def errors_like(sigma: np.ndarray, times_s: np.ndarray, free: np.ndarray, start: float = 1.0) -> Errors:
    """Of sensors that pull in once in 100 s."""
    n = len(sigma)
    return Errors(sigma, times_s, free, np.full(n, start), np.full(n, 5.0), np.full(n, 100.0))


def filterpys(
    records: StructArray,
    x: np.ndarray,
    P: np.ndarray,
    sigma: np.ndarray,
    times_s: np.ndarray,
    free: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The state with the errors of three sensors beside it, (3, errors of one); rows of the gain of those that are not
    free are set to zero.
    """
    own = sigma.shape[1]
    size = 6 + 3 * own
    joint = KalmanFilter(dim_x=size, dim_z=4)
    joint.x = np.concatenate([x, np.zeros(3 * own)])
    joint.P = np.zeros((size, size))
    joint.P[:6, :6] = P
    joint.P[6:, 6:] = np.diag(sigma.reshape(-1) ** 2)
    t = 0
    for m in records:
        F, Q = np.eye(size), np.zeros((size, size))
        dt = (int(m["t_meas_ns"]) - t) * 1e-9
        t = int(m["t_meas_ns"])
        if dt:
            x_next, F[:6, :6] = step(joint.x[:6], dt, GRAVITY.zonal)
            Q[:6, :6] = noise(dt, RULES.psd)
            keeps = np.exp(-dt / times_s.reshape(-1))
            F[6:, 6:] = np.diag(keeps)
            for s, c in np.ndindex(3, 4):
                if own > 8 and sigma[s, 8 + c] > 0.0:  # with the rate beside it, both in units of one sigma
                    u = 2.0 * dt / times_s[s, 4 + c]
                    pair = [6 + own * s + 4 + c, 6 + own * s + 8 + c]
                    F[np.ix_(pair, pair)] = np.exp(-u) * np.array([[1.0 + u, u], [-u, 1.0 - u]])
            stationary = np.diag(sigma.reshape(-1) ** 2)
            Q[6:, 6:] = stationary - F[6:, 6:] @ stationary @ F[6:, 6:].T
            joint.predict(F=F, Q=Q)
            joint.x[:6] = x_next
        at = joint.x[:6].copy()
        h, H6 = observe(at, m)
        H = np.zeros((4, size))
        H[:, :6] = H6
        H[:, 6 + own * m["sensor"] : 6 + own * (m["sensor"] + 1)] = np.tile(np.eye(4), own // 4)
        if own > 8:
            H[:, 6 + own * m["sensor"] + 8 : 6 + own * (m["sensor"] + 1)] = 0.0  # rates are not seen
        R = m["var"] + second_order(at, joint.P[:6, :6], m)
        y = np.array([m["range_m"], 0.0, 0.0, m["range_rate_m_s"]]) - h
        for c in range(4):
            joint.H, joint.R = H[c : c + 1], R[c]
            S = joint.H @ joint.P @ joint.H.T + joint.R
            K = joint.P @ joint.H.T / S
            K[6:][~free.reshape(-1)] = 0.0
            innovation = y[c] - H6[c] @ (joint.x[:6] - at) - H[c, 6:] @ joint.x[6:]
            joint.x = joint.x + K[:, 0] * innovation
            A = np.eye(size) - K @ joint.H
            joint.P = A @ joint.P @ A.T + K @ K.T * joint.R
    return joint.x, joint.P


def as_kernels_see(records: StructArray) -> associate.Measurements:
    n = len(records)
    return associate.Measurements(
        records.view(np.float64).reshape(n, COLUMNS), records["t_meas_ns"].copy(),
        records["sensor"].copy(), records["channels"].copy(),
    )  # fmt: skip


DRIFTS = np.array(
    [[0.0, 0.0, 0.0, 0.2, 30.0, 3e-4, 2e-4, 0.0], [15.0, 1e-4, 1e-4, 0.0, 40.0, 0.0, 0.0, 0.4], [0.0] * 8]
)
DRIFT_S = np.array([[900.0] * 4 + [7.0] * 4, [np.inf] * 4 + [12.0] * 4, [5.0] * 8])
DRIFTS_FREE = np.array([[True] * 8, [False] * 4 + [True] * 4, [True] * 8])


@pytest.mark.parametrize(
    ("sigma", "times_s", "free"),
    [
        (BIASES, FOREVER, NONE_FREE),
        (BIASES, np.full((3, 4), 20.0), NONE_FREE),
        (BIASES, np.full((3, 4), 20.0), ~NONE_FREE),
        (DRIFTS, DRIFT_S, DRIFTS_FREE),
        (
            np.hstack([DRIFTS, DRIFTS[:, 4:] * [[1.0], [0.0], [1.0]]]),
            np.hstack([DRIFT_S, DRIFT_S[:, 4:]]),
            np.hstack([DRIFTS_FREE, DRIFTS_FREE[:, 4:]]),
        ),
    ],
    ids=["considered for ever", "considered", "estimated", "both", "both, smooth"],
)
def test_ours_is_the_augmented_filter_with_part_of_its_gain_set_to_zero(
    sigma: np.ndarray, times_s: np.ndarray, free: np.ndarray
) -> None:
    times = np.arange(0.0, 40.0, 2.0)
    truth = ephemeris(OVERHEAD, times)
    rng = np.random.default_rng(1)
    records = in_order(*(measure(truth, times, rng, sensor=s, sigma=SIGMA) for s in range(3)))
    P = np.diag([100.0**2] * 3 + [1.0] * 3)
    start = OVERHEAD + rng.multivariate_normal(np.zeros(6), P)
    want_x, want_P = filterpys(records, start, P, sigma, times_s, free)
    own = sigma.shape[1]
    kept = consider.kept(own // 4)
    tracks = picture.make_picture(1, kept)
    tracks.high[0], tracks.active[0], tracks.x[0], tracks.P[0] = 1, True, start, P.reshape(36)
    room = associate.make_room(1, 1, kept)
    ms = as_kernels_see(records)
    rules = RULES._replace(errors=errors_like(sigma, times_s, free), gates=np.full(5, np.inf), may_drop=False)
    engine = ConsideringEngine()
    for row in range(len(records)):
        room.rows[0] = row
        engine.try_pairs(tracks, ms, 1, rules, room)
        tracks.x[0], tracks.P[0] = room.trials.x[0], room.trials.P[0]
        tracks.beside[0], tracks.epoch[0] = room.trials.beside[0], ms.t[row]
        assert sound(tracks.P[0])
    spread = np.sqrt(np.diag(want_P)[:6])
    np.testing.assert_allclose((tracks.x[0] - want_x[:6]) / spread, 0.0, atol=1e-5)
    np.testing.assert_allclose(tracks.P[0, ::7], np.diag(want_P)[:6], rtol=1e-6)
    for sensor in range(3):
        mean, cross_, square_ = consider.errors_of(
            tracks.beside[0], tracks.x[0], sensor, int(tracks.epoch[0]), rules.errors
        )
        rows = 6 + own * sensor + np.arange(min(own, 8)).reshape(-1, 4)
        size = np.maximum(sigma[sensor].reshape(-1, 4).max(axis=0), 1e-12)
        np.testing.assert_allclose(mean / size, want_x[rows].sum(axis=0) / size, atol=1e-5)
        cross = sum(want_P[:6, r] for r in rows)
        np.testing.assert_allclose(cross_ / size / spread[:, None], cross / size / spread[:, None], atol=1e-5)
        square = sum(want_P[np.ix_(r, s)] for r in rows for s in rows)
        np.testing.assert_allclose(square_ / np.outer(size, size), square / np.outer(size, size), atol=1e-5)


def test_a_sensor_that_three_others_followed_is_remembered_and_the_fifth_is_forgotten() -> None:
    times = np.arange(0.0, 10.0, 2.0)
    truth = ephemeris(OVERHEAD, times)
    rng = np.random.default_rng(1)
    records = np.concatenate([measure(truth[k : k + 1], times[k : k + 1], rng, sensor=k) for k in range(5)])
    sigma = np.full((6, 4), [50.0, 2e-4, 2e-4, 0.3])
    tracks = picture.make_picture(1, ONE)
    tracks.high[0], tracks.active[0], tracks.x[0] = 1, True, OVERHEAD
    tracks.P[0] = np.diag([100.0**2] * 3 + [1.0] * 3).reshape(36)
    room = associate.make_room(1, 1, ONE)
    rules = RULES._replace(
        errors=errors_like(sigma, np.full((6, 4), 1e5), np.ones((6, 4), np.bool_)),
        gates=np.full(5, np.inf), may_drop=False,
    )  # fmt: skip
    engine = ConsideringEngine()
    known = []
    for row in range(5):
        room.rows[0] = row
        engine.try_pairs(tracks, as_kernels_see(records), 1, rules, room)
        tracks.x[0], tracks.P[0] = room.trials.x[0], room.trials.P[0]
        tracks.beside[0], tracks.epoch[0] = room.trials.beside[0], records["t_meas_ns"][row]
        at = (tracks.beside[0], tracks.x[0])
        t_ns = int(tracks.epoch[0])
        known.append([abs(consider.errors_of(*at, s, t_ns, rules.errors)[0]).max() > 0.0 for s in range(6)])
    assert known[3] == [True] * 4 + [False] * 2
    assert known[4] == [False] + [True] * 4 + [False]


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


def wandering_passes(seed: int, tau_s: float) -> tuple[StructArray, np.ndarray]:
    """A pass of 150 s over one radar whose range and angles wander (first-order Gauss-Markov), and the truth."""
    times = np.arange(0.0, 150.0)
    truth = ephemeris(OVERHEAD, times)
    rng = np.random.default_rng(seed)
    records = measure(truth, times, rng, sigma=(2.0, 1e-5, 0.5))
    f = np.exp(-1.0 / tau_s)
    e = rng.normal(size=3)
    for k in range(len(times)):
        records["range_m"][k] += WANDER[0] * e[0]
        los = (
            records["los"][k]
            + WANDER[1] * e[1] * records["e_lon"][k]
            + WANDER[2] * e[2] * records["e_lat"][k]
        )
        los /= np.linalg.norm(los)
        east = records["e_lon"][k] - (records["e_lon"][k] @ los) * los
        records["los"][k], records["e_lon"][k] = los, east / np.linalg.norm(east)
        records["e_lat"][k] = np.cross(los, records["e_lon"][k])
        e = f * e + np.sqrt(1.0 - f * f) * rng.normal(size=3)
    return records, truth


WANDER = (15.0, 1e-4, 1e-4)


def test_a_wander_that_is_estimated_leaves_innovations_of_the_expected_size_and_states_that_are_honest() -> (
    None
):
    """Over 12 seeds: the median NIS of each pass is that of chi-square within the bounds asked of real radars, and the
    mean NEES is six; of a filter that takes all of it for white noise it is not.
    """
    tau_s = 20.0
    config = station("consider_biases = true\nestimate_errors = true\ngate_probability = 0.999999")
    update = {
        "range_wander_m": WANDER[0],
        "lon_wander_deg": float(np.degrees(WANDER[1])),
        "lat_wander_deg": float(np.degrees(WANDER[2])),
        "wander_s": tau_s,
    }
    radar = config.sensor["radar"].model_copy(update=update)
    config = config.model_copy(update={"sensor": {**config.sensor, "radar": radar}})
    nees, medians = [], []
    for seed in range(12):
        records, truth = wandering_passes(seed, tau_s)
        tracker = Tracker(config, FixedPole(), Outcomes())
        tracker.process(records)
        states = np.concatenate([e for e in tracker.take() if isinstance(e, np.ndarray)])
        assert set(states["track"]) == {1}
        error = states["x"][-1] - truth[-1]
        nees.append(float(error @ np.linalg.solve(states["P"][-1], error)))
        used = states[states["dof"] == 4][20:]
        medians.append(float(np.median(used["nis"])) / chi2.median(4))
    assert 3.0 < np.mean(nees) < 9.0  # six, plus and minus three sigma of the mean of 12
    assert np.mean([0.7 <= m <= 1.4 for m in medians]) >= 0.9


def test_a_sensor_that_pulls_in_is_believed_less_at_first() -> None:
    sigma = np.hstack([np.zeros((1, 4)), [[30.0, 2e-4, 2e-4, 0.3]], np.zeros((1, 4))])
    spec = Errors(
        sigma, np.full((1, 12), 5.0), np.ones((1, 12), np.bool_), *(np.array([v]) for v in (4.0, 5.0, 10.0))
    )
    beside = np.zeros(consider.kept(3))
    _, _, own = consider.errors_of(beside, OVERHEAD, 0, 0, spec)
    np.testing.assert_allclose(np.sqrt(np.diag(own)), 4.0 * sigma[0, 4:8])
    assert consider.loudness_of(beside, OVERHEAD, 0, 0, spec) == pytest.approx(16.0)
    tracks = picture.make_picture(1, len(beside))
    tracks.high[0], tracks.active[0], tracks.x[0] = 1, True, OVERHEAD
    tracks.P[0] = np.diag([100.0**2] * 3 + [1.0] * 3).reshape(36)
    room = associate.make_room(1, 1, len(beside))
    rules = RULES._replace(errors=spec, gates=np.full(5, np.inf), may_drop=False)
    times = np.arange(0.0, 40.0, 1.0)
    ms = as_kernels_see(measure(ephemeris(OVERHEAD, times), times, np.random.default_rng(3)))
    for row in range(len(times)):
        room.rows[0] = row
        ConsideringEngine().try_pairs(tracks, ms, 1, rules, room)
        tracks.x[0], tracks.P[0] = room.trials.x[0], room.trials.P[0]
        tracks.beside[0], tracks.epoch[0] = room.trials.beside[0], ms.t[row]
    at = (tracks.beside[0], tracks.x[0], 0)
    assert consider.loudness_of(*at, int(ms.t[-1]) + NS, spec) < 1.1
    assert consider.loudness_of(*at, int(ms.t[-1]) + 20 * NS, spec) == pytest.approx(16.0)  # taken up again


def test_the_covariance_stays_above_the_bias_however_much_is_measured() -> None:
    config = station("consider_biases = true")
    assert kept_beside(config.tracking) == ONE
    assert isinstance(make_engine(config.tracking), ConsideringEngine)
    tracks = picture.make_picture(1, ONE)
    tracks.high[0], tracks.active[0], tracks.x[0] = 1, True, OVERHEAD
    tracks.P[0] = np.diag([1e6] * 3 + [1e2] * 3).reshape(36)
    record = measure(OVERHEAD[None], np.zeros(1), np.random.default_rng(1), sigma=(5.0, 1e-5, 0.1))
    ms = as_kernels_see(record)
    rules = RULES._replace(
        errors=errors_like(BIASES, FOREVER, NONE_FREE), gates=np.full(5, np.inf), may_drop=False
    )
    room = associate.make_room(1, 1, ONE)
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
    tracks = picture.make_picture(1, ONE)
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
