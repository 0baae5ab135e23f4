"""The dynamics: against an independent propagator, against satellites, and against themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peer_orbits
import pytest
from peer_orbits import BALLISTIC, RADIATION, START_NS
from scene import NS, circular, measure, station

from fusionnode.config import ConfigError, Tracking
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import Channel
from fusionnode.track import lanes, picture
from fusionnode.track.association import associate
from fusionnode.track.filtering.engine import NumbaEngine
from fusionnode.track.filtering.engine_filterpy import FilterpyEngine
from fusionnode.track.filtering.filter import load_track, predict_slots, try_pairs
from fusionnode.track.filtering.sensing import COLUMNS
from fusionnode.track.motion import coefficients, dynamics, gravity, heaven
from fusionnode_hil.truth import load

DAY_S = 86_400.0
PLAIN = {"ballistic_m2_kg": BALLISTIC, "srp_m2_kg": RADIATION, "gravity_degree": 36}


def full(orientation: EarthOrientation, t_ns: int = START_NS, **keys: object) -> dynamics.Dynamics:
    return dynamics.make(Tracking.model_validate(PLAIN | keys), orientation, t_ns)


def predicted(
    x: np.ndarray, start_ns: int, times_s: list[float], model: dynamics.Dynamics, psd: float = 0.0
) -> np.ndarray:
    """States (n, k, 6) of orbits (n, 6), each predicted in one go."""
    n = len(x)
    out = np.zeros((n, len(times_s), 6))
    for k, t in enumerate(times_s):
        state, P, epoch = x.copy(), np.zeros((n, 36)), np.full(n, start_ns)
        to_ns = start_ns + round(t * NS)
        predict_slots(lanes.workspace(), np.arange(n), n, to_ns, state, P, epoch, model, psd)
        out[:, k] = state
    return out


def transit(
    x: np.ndarray, start_ns: int, t_s: float, model: dynamics.Dynamics
) -> tuple[np.ndarray, np.ndarray]:
    """States (8, 6) and state transitions (8, 6, 6) of eight orbits."""
    W = lanes.workspace()
    for m in range(lanes.LANES):
        load_track(W, m, x[m], np.zeros(36), (start_ns - model.ref_ns) * 1e-9, t_s, BALLISTIC, RADIATION)
    dynamics.transit_lanes(W, model)
    w = W.reshape(-1, lanes.LANES)
    at, to = lanes.X // lanes.LANES, lanes.TOTAL // lanes.LANES
    return w[at : at + 6].T.copy(), w[to : to + 36].T.reshape(-1, 6, 6).copy()


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm((a - b)[..., :3], axis=-1))


def eight(seed: int = 1) -> np.ndarray:
    """Low to geostationary orbits, a transfer ellipse among them."""
    rng = np.random.default_rng(seed)
    heights = [350e3, 500e3, 780e3, 1_336e3, 8_000e3, 20_200e3, 35_786e3]
    x = [circular(h, rng.uniform(0, 110), *rng.uniform(0, 360, 2)) for h in heights]
    perigee = circular(250e3, 7.0, 20.0)
    perigee[3:] *= 1.31
    return np.array([*x, perigee])


def test_the_field_is_the_gradient_of_its_potential() -> None:
    """Against Legendre functions of scipy, summed and differentiated by differences."""
    from scipy.special import assoc_legendre_p_all, factorial

    degree = 12
    C, S = gravity.coefficients(degree)

    def potential(r: np.ndarray) -> float:
        d = np.linalg.norm(r)
        lon = np.arctan2(r[1], r[0])
        p = assoc_legendre_p_all(degree, degree, r[2] / d)[0]
        total = 0.0
        for n in range(2, degree + 1):
            for m in range(n + 1):
                norm = np.sqrt((2 - (m == 0)) * (2 * n + 1) * factorial(n - m) / factorial(n + m)) * (-1) ** m
                total += (
                    (gravity.RADIUS / d) ** n * norm * p[n, m]
                    * (C[n, m] * np.cos(m * lon) + S[n, m] * np.sin(m * lon))
                )  # fmt: skip
        return float(gravity.MU / d * total)

    W = lanes.workspace()
    w = W.reshape(-1, lanes.LANES)
    rows = slice(gravity.PLACE // lanes.LANES, gravity.PLACE // lanes.LANES + 3)
    r = np.random.default_rng(2).normal(size=(3, lanes.LANES))
    r *= np.linspace(6.6e6, 9e6, lanes.LANES) / np.linalg.norm(r, axis=0)
    w[rows] = r
    gravity.harmonics(W, gravity.table(degree), degree)
    h = 30.0
    for k in range(lanes.LANES):
        slope = [(potential(r[:, k] + h * e) - potential(r[:, k] - h * e)) / (2 * h) for e in np.eye(3)]
        np.testing.assert_allclose(w[rows, k], slope, atol=3e-9)
    # at the pole, where longitude means nothing
    w[rows] = np.array([0.0, 0.0, 7e6])[:, None]
    gravity.harmonics(W, gravity.table(degree), degree)
    at_pole = w[rows, 0].copy()
    w[rows] = np.array([1e-3, 0.0, 7e6])[:, None]
    gravity.harmonics(W, gravity.table(degree), degree)
    np.testing.assert_allclose(at_pole, w[rows, 0], atol=1e-11)


def test_the_tables_turn_a_place_as_earth_orientation_does(orientation: EarthOrientation) -> None:
    sky, turn = heaven.tables(orientation, START_NS)
    offsets = np.array([-6.3, -0.9, 0.0, 0.1, 2.7, 7.4]) * DAY_S
    t_ns = START_NS + (offsets * NS).astype(np.int64)
    for offset, M in zip(offsets, orientation.gcrf_to_itrf(t_ns), strict=True):
        row = np.array(
            [np.interp(offset, heaven.FIRST_S + heaven.STEP_S * np.arange(len(sky)), c) for c in sky.T]
        )
        x, y, angle = row[0], row[1], turn[0] + row[2] + turn[1] * offset
        z = np.sqrt(1 - x * x - y * y)
        a = 1 / (1 + z)
        Q = np.array([[1 - a * x * x, -a * x * y, -x], [-a * x * y, 1 - a * y * y, -y], [x, y, z]])
        c, s = np.cos(angle), np.sin(angle)
        R = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        wobble = np.array([[1, 0, turn[2]], [0, 1, turn[3]], [-turn[2], -turn[3], 1]])
        np.testing.assert_allclose(wobble @ R @ Q, M, atol=1e-7)  # polar motion moves on


@pytest.mark.parametrize(("tides", "relativity"), [(False, False), (True, True)])
def test_an_independent_propagator_agrees(
    orientation: EarthOrientation, tides: bool, relativity: bool
) -> None:
    bh = pytest.importorskip("brahe")
    peer_orbits.set_up(bh)
    x = peer_orbits.low_orbits(bh, 8)
    times = [600.0, 5_700.0]
    truth = peer_orbits.propagate(
        bh, x, times, peer_orbits.forces(bh, 70, tides=tides, relativity=relativity)
    )
    same = predicted(
        x, START_NS, times, full(orientation, gravity_degree=70, earth_tides=tides, relativity=relativity)
    )
    e = apart(same, truth)
    # its Sun and Moon, and its tides, are of other formulas
    assert np.all(np.median(e, axis=0) < ([0.003, 0.05] if not tides else [0.01, 0.2]))
    usual = apart(predicted(x, START_NS, times, full(orientation)), truth)
    assert np.all(np.median(usual, axis=0) < [0.2, 5.0])


@pytest.mark.slow
def test_a_day_agrees_with_an_independent_propagator(orientation: EarthOrientation) -> None:
    bh = pytest.importorskip("brahe")
    peer_orbits.set_up(bh)
    x = peer_orbits.low_orbits(bh, 4, seed=9)
    truth = peer_orbits.propagate(bh, x, [DAY_S], peer_orbits.forces(bh, 70))
    model = full(orientation, earth_tides=False, relativity=False)
    assert np.median(apart(predicted(x, START_NS, [DAY_S], model), truth)) < 15.0


@pytest.mark.parametrize(
    ("name", "first_day", "limits_m"),
    [
        ("sentinel3a_20181224.sp3.gz", 17_890, (0.1, 1.0, 15.0)),
        ("jason1_20030107.sp3.gz", 12_060, (0.1, 1.0, 15.0)),
    ],
)
def test_real_satellites_go_where_they_are_predicted(
    shared_data: Path,
    orientation: EarthOrientation,
    name: str,
    first_day: int,
    limits_m: tuple[float, float, float],
) -> None:
    truth = load([shared_data / "precise_orbits" / name])
    times = [600.0, 3_600.0, 21_600.0]
    e = []
    for k in range(12):
        start_ns = first_day * heaven.DAY_NS + (12 + 13 * k) * 3_600 * NS
        states = truth.states(np.array([start_ns + round(t * NS) for t in [0.0, *times]]))[0]
        e.append(apart(predicted(states[:1], start_ns, times, full(orientation, start_ns))[0], states[1:]))
    assert np.all(np.median(e, axis=0) < limits_m)


@pytest.mark.parametrize("tier", ["zonal", "full"])
def test_there_and_back_again(orientation: EarthOrientation, tier: str) -> None:
    model = full(orientation, dynamics=tier)
    x = eight()
    for t, limit_m in ((7.0, 1e-6), (35.0, 1e-3), (400.0, 0.05), (5_000.0, 0.05)):
        there, _ = transit(x, START_NS, t, model)
        back, _ = transit(there, START_NS + round(t * NS), -t, model)
        assert apart(back, x).max() < limit_m * (100.0 if tier == "zonal" else 1.0)


def test_short_steps_and_long_arcs_are_one_motion(orientation: EarthOrientation) -> None:
    """Ten minutes by steps of a pass, and in one go."""
    model = full(orientation)
    x = eight()[:4]
    whole = predicted(x, START_NS, [600.0], model)[:, 0]
    for step in (1.0, 10.0, 40.0):
        at, t_ns = x, START_NS
        while t_ns < START_NS + 600 * NS:
            at = predicted(at, t_ns, [step], model)[:, 0]
            t_ns += round(step * NS)
        assert apart(at, whole).max() < 0.05


def test_transitions_are_the_derivatives_of_the_motion(orientation: EarthOrientation) -> None:
    """By differences; the transition knows no tesseral gravity, Moon, Sun nor air: that is worth a thousandth."""
    model = full(orientation)
    x = eight()
    scale = np.array([10.0] * 3 + [0.01] * 3)
    for t, share in ((10.0, 1e-4), (300.0, 1e-3), (3_000.0, 3e-3)):
        _, phi = transit(x, START_NS, t, model)
        seen = np.empty_like(phi)
        for j in range(6):
            step = scale[j] * np.eye(6)[j]
            up, _ = transit(x + step, START_NS, t, model)
            down, _ = transit(x - step, START_NS, t, model)
            seen[:, :, j] = (up - down) / (2 * scale[j])
        size = np.abs(seen * scale).max(axis=2, keepdims=True)
        assert (np.abs(phi - seen) * scale / size).max() < share


def test_a_prediction_across_midnight_does_not_care_whose_day_it_is(orientation: EarthOrientation) -> None:
    x = eight()
    midnight_ns = START_NS // heaven.DAY_NS * heaven.DAY_NS + heaven.DAY_NS
    start_ns = midnight_ns - 3_000 * NS
    times = [6_000.0]
    before = predicted(x, start_ns, times, full(orientation, start_ns))
    after = predicted(x, start_ns, times, full(orientation, midnight_ns))
    assert apart(before, after).max() < 0.02


def test_a_track_moves_alike_in_any_company(orientation: EarthOrientation) -> None:
    model = full(orientation, gravity_degree=12)
    x = eight(3)
    spans = np.array([3.0, 45.0, 900.0, -200.0, 0.0, 5_000.0, 30_000.0, 61.0])
    P = np.diag([1e4] * 3 + [1.0] * 3).reshape(36)

    def moved(chosen: list[int], spoilt: int | None = None) -> dict[int, bytes]:
        W = lanes.workspace()
        for m, i in enumerate(chosen):
            state = x[i] * np.nan if i == spoilt else x[i]
            load_track(W, m, state, P, 0.0, spans[i], BALLISTIC, RADIATION)
        dynamics.predict_lanes(W, model, 1e-9)
        w = W.reshape(-1, lanes.LANES)
        first, last = lanes.X // lanes.LANES, lanes.P // lanes.LANES + 21
        return {i: w[first:last, m].tobytes() for m, i in enumerate(chosen) if i != spoilt}

    together = moved(list(range(8)))
    assert moved(list(range(7, -1, -1))) == together
    for i in range(8):
        assert moved([i])[i] == together[i]
    spoilt = moved(list(range(8)), spoilt=5)
    assert spoilt == {i: b for i, b in together.items() if i != 5}


def test_both_engines_use_the_full_dynamics_alike(orientation: EarthOrientation) -> None:
    model = full(orientation)
    rules = picture.make_rules(station(), model)._replace(psd=1e-11)
    made = []
    for engine in (NumbaEngine(), FilterpyEngine()):
        p = picture.make_picture(8)
        p.high[0] = 8
        p.x[:], p.P[:], p.epoch[:] = eight(), np.diag([1e4] * 3 + [1.0] * 3).reshape(36), START_NS
        p.coefficients[:, :2] = BALLISTIC, RADIATION
        engine.predict(p, np.arange(8), START_NS + 700 * NS, rules)
        made.append((p.x.copy(), p.P.copy()))
    np.testing.assert_allclose(made[0][0], made[1][0], rtol=1e-12)
    np.testing.assert_allclose(made[0][1], made[1][1], rtol=1e-6)


def test_estimates_need_forces_to_be_estimated() -> None:
    assert Tracking.model_validate({"estimate": ["ballistic"]}).estimate == ("ballistic",)
    with pytest.raises(ValueError, match="estimate needs"):
        Tracking.model_validate({"estimate": ["ballistic"], "dynamics": "zonal"})
    with pytest.raises(ConfigError):
        station('estimate = ["srp"]')


def test_regression_on_the_state_is_the_filter_of_both_together() -> None:
    """Against a Kalman update of state and coefficients in one vector."""
    rng = np.random.default_rng(5)
    A = rng.normal(size=(8, 8)) * np.array([100.0] * 3 + [0.1] * 3 + [0.01] * 2)[:, None]
    joint = A @ A.T
    z = rng.normal(size=8)
    H = np.zeros((2, 8))
    H[:, :6] = rng.normal(size=(2, 6))
    y = np.array([30.0, -20.0])
    K = joint @ H.T @ np.linalg.inv(H @ joint @ H.T + 25.0 * np.eye(2))
    after, joint_after = z + K @ y, joint - K @ H @ joint
    z[6:] = 0.5, 0.6
    after[6:] += z[6:] - (after - K @ y)[6:]
    row, prior = np.zeros(coefficients.COLUMNS), np.zeros(coefficients.PRIOR)
    prior[:6] = z[:6]
    prior[6:27] = joint[:6, :6][np.tril_indices(6)]
    prior[27:29] = z[6:]
    prior[29:41] = joint[:6, 6:].reshape(-1)
    prior[41:44] = joint[6, 6], joint[6, 7], joint[7, 7]
    coefficients.regress(row, prior, after[:6], joint_after[:6, :6].reshape(36).copy())
    np.testing.assert_allclose(row[:2], after[6:], rtol=1e-9)
    np.testing.assert_allclose(row[2:14].reshape(6, 2), joint_after[:6, 6:], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(row[14:], [joint_after[6, 6], joint_after[6, 7], joint_after[7, 7]], rtol=1e-6)


def test_what_a_coefficient_does_not_say_stands_in_the_covariance(orientation: EarthOrientation) -> None:
    """The spread of a prediction over wrong coefficients is what P gains for not knowing them."""
    config = Tracking.model_validate(PLAIN | {"estimate": ["ballistic", "srp"]})
    n, t = 8, 20_000.0
    x = np.tile(circular(420e3, 60.0, 10.0), (n, 1))
    rows = np.tile(coefficients.fresh(config), (n, 1))
    model = dynamics.make(config, orientation, START_NS, rows)
    state, P, epoch = x.copy(), np.zeros((n, 36)), np.full(n, START_NS)
    rows[1:3, 0] += np.array([0.005, -0.005])
    rows[3:5, 1] += np.array([0.005, -0.005])
    predict_slots(lanes.workspace(), np.arange(n), n, START_NS + round(t * NS), state, P, epoch, model, 0.0)
    slopes = np.stack([(state[1] - state[2]) / 0.01, (state[3] - state[4]) / 0.01], axis=1)
    s = np.diag([config.ballistic_sigma_m2_kg, config.srp_sigma_m2_kg])
    expected = slopes @ s @ s @ slopes.T
    size = np.sqrt(np.diag(expected))
    # the walk adds a little, and the transition is that of the zonal field
    np.testing.assert_allclose(
        P[0].reshape(6, 6) / np.outer(size, size), expected / np.outer(size, size), atol=0.1
    )
    cross = rows[0, 2:14].reshape(6, 2)
    np.testing.assert_allclose(cross / size[:, None], (slopes @ s @ s) / size[:, None], atol=0.1 * s.max())


def test_drag_is_learnt_from_passes(orientation: EarthOrientation) -> None:
    """Eight objects of unlike drag, a short pass every two hours, for a day."""
    n, psd = 8, 1e-13
    rng = np.random.default_rng(11)
    keys = {"gravity_degree": 8, "ballistic_m2_kg": 0.02, "srp_m2_kg": RADIATION, "estimate": ["ballistic"]}
    config = Tracking.model_validate(keys)
    true = rng.uniform(0.005, 0.04, n)
    x0 = np.array([circular(450e3, rng.uniform(40, 100), *rng.uniform(0, 360, 2)) for _ in range(n)])
    true_rows = np.zeros((n, coefficients.COLUMNS))
    true_rows[:, 0], true_rows[:, 1] = true, RADIATION
    nature = dynamics.make(config, orientation, START_NS, true_rows)
    rows = np.tile(coefficients.fresh(config), (n, 1))
    model = dynamics.make(config, orientation, START_NS, rows)
    sigma = np.array([50.0] * 3 + [0.1] * 3)
    x, P = x0 + sigma * rng.normal(size=(n, 6)), np.tile(np.diag(sigma**2).reshape(36), (n, 1))
    epoch = np.full(n, START_NS)
    truth, _P, t_truth = x0.copy(), np.zeros((n, 36)), np.full(n, START_NS)
    W, room, slots = lanes.workspace(), associate.make_room(n, n), np.arange(n)
    channels = np.full(n, int(Channel.RANGE | Channel.ANGLES | Channel.RANGE_RATE), np.uint8)
    for k in range(12):
        for second in (0, 120, 240):
            t_ns = START_NS + (7_200 * (k + 1) + second) * NS
            predict_slots(W, slots, n, t_ns, truth, _P, t_truth, nature, 0.0)
            ms = np.concatenate(
                [
                    measure(
                        s[None], np.array([0.0]), rng,
                        sigma=(10.0, 1e-4, 0.1), lon_deg=float(np.degrees(np.arctan2(s[1], s[0]))),
                    )
                    for s in truth
                ]
            )  # fmt: skip
            ms["t_meas_ns"] = t_ns
            try_pairs(
                W, n, slots, slots, x, P, epoch, ms.view(np.float64).reshape(n, COLUMNS), ms["t_meas_ns"].copy(),
                channels, model, psd, np.full(5, np.inf), False, room.trials,
            )  # fmt: skip
            for i in range(n):
                coefficients.regress(rows[i], room.trials.prior[i], room.trials.x[i], room.trials.P[i])
            x[:], P[:], epoch[:] = room.trials.x, room.trials.P, t_ns
    off = rows[:, 0] - true
    assert np.sqrt(np.mean(off**2)) < 0.1 * np.std(true)
    assert np.mean((off / np.sqrt(rows[:, 14])) ** 2) < 4.0
    e = x - truth
    nees = [d @ np.linalg.solve(C.reshape(6, 6), d) for d, C in zip(e, P, strict=True)]
    assert 2.0 < np.mean(nees) < 12.0
