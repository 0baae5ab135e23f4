"""Clusters, the best assignment, and marginals against plain enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from fusionnode.track.association import jpda
from fusionnode.track.association.cluster import MOST_DENSE, assign, assigned, clusters_of


def graph(n_rows: int, n_slots: int, density: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, and what each weighs, ln."""
    rng = np.random.default_rng(seed)
    rows, slots = np.nonzero(rng.random((n_rows, n_slots)) < density)
    return rows, slots, rng.normal(2.0, 4.0, size=len(rows))


def enumerated(rows: np.ndarray, slots: np.ndarray, ln_ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Marginals by listing every joint event."""
    tracks = sorted(set(slots.tolist()))
    options = [[-1, *np.flatnonzero(slots == s).tolist()] for s in tracks]
    beta, total = np.zeros(len(rows)), 0.0
    for event in product(*options):
        pairs = [i for i in event if i >= 0]
        if len({int(rows[i]) for i in pairs}) < len(pairs):
            continue
        weight = float(np.exp(ln_ratio[pairs].sum()))
        total += weight
        beta[pairs] += weight
    beta /= total
    return beta, np.array([1.0 - beta[slots == s].sum() for s in slots])


def of_clusters(
    rows: np.ndarray, slots: np.ndarray, ln_ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    clusters = clusters_of(rows, slots, int(rows.max()) + 1, np.full(int(slots.max()) + 1, -1))
    beta, alone = np.zeros(len(rows)), np.zeros(len(rows))
    return beta, alone, int(jpda.marginals(clusters, ln_ratio, beta, alone))


shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.floats(0.1, 0.9), st.integers(0, 2**32 - 1))


@settings(max_examples=300, deadline=None)
@given(shapes)
def test_marginals_are_those_of_all_joint_events(shape: tuple[int, int, float, int]) -> None:
    rows, slots, ln_ratio = graph(*shape)
    if len(rows) == 0:
        return
    beta, alone, approximate = of_clusters(rows, slots, ln_ratio)
    want, want_alone = enumerated(rows, slots, ln_ratio)
    assert approximate == 0
    np.testing.assert_allclose(beta, want, atol=1e-12)
    np.testing.assert_allclose(alone, want_alone, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(shapes)
def test_belief_propagation_is_near_and_exact_on_trees(shape: tuple[int, int, float, int]) -> None:
    rows, slots, ln_ratio = graph(*shape)
    if len(rows) == 0:
        return
    beta, nothing = np.zeros(len(rows)), np.zeros(int(slots.max()) + 1)
    jpda.believed(rows, slots, ln_ratio, int(rows.max()) + 1, len(nothing), beta, nothing)
    want, _ = enumerated(rows, slots, ln_ratio)
    assert np.abs(beta - want).max() < 0.35
    assert (beta >= 0.0).all()
    for s in np.unique(slots):
        assert beta[slots == s].sum() + nothing[s] == pytest.approx(1.0)
    clusters = clusters_of(rows, slots, int(rows.max()) + 1, np.full(len(nothing), -1))
    for c, first in enumerate(clusters.start[:-1]):
        pairs = clusters.order[first : clusters.start[c + 1]]
        if len(pairs) == clusters.rows[c] + clusters.slots[c] - 1:
            np.testing.assert_allclose(beta[pairs], want[pairs], atol=1e-6)


def test_weights_far_beyond_what_a_float_multiplies_to_do_not_lose_the_cluster() -> None:
    # three tracks that all but surely made the two measurements
    rows, slots = np.repeat([0, 1], 3), np.tile([0, 1, 2], 2)
    beta, alone, approximate = of_clusters(rows, slots, np.full(6, 400.0))
    assert approximate == 0
    np.testing.assert_allclose(beta, 1.0 / 3.0)
    np.testing.assert_allclose(alone, 1.0 / 3.0)


def test_a_long_chain_of_overlapping_gates_is_exact_and_a_dense_crowd_is_approximated() -> None:
    rows = np.repeat(np.arange(60), 2)
    slots = rows + np.tile([0, 1], 60)
    ln_ratio = np.random.default_rng(1).normal(size=120)
    assert of_clusters(rows, slots, ln_ratio)[2] == 0
    rows, slots = np.repeat(np.arange(40), 40), np.tile(np.arange(40), 40)
    beta, alone, approximate = of_clusters(rows, slots, np.random.default_rng(2).normal(size=1_600))
    assert approximate == 1
    per_row = np.bincount(rows, beta)
    assert (per_row < 1.0 + 1e-6).all()
    assert np.bincount(slots, beta) + alone[:40] == pytest.approx(1.0)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.floats(0.1, 0.9), st.integers(0, 2**32 - 1))
def test_the_assignment_is_the_one_of_most_gain(n_rows: int, n_slots: int, density: float, seed: int) -> None:
    rows, slots, gain = graph(n_rows, n_slots, density, seed)
    taken = assign(rows, slots, gain)
    assert len(set(rows[taken])) == len(set(slots[taken])) == len(taken)
    full = np.zeros((n_rows, n_slots + n_rows))
    full[rows, slots] = -gain
    assert gain[taken].sum() == pytest.approx(-full[linear_sum_assignment(full)].sum())


def test_a_crowd_beyond_the_dense_bound_is_assigned_as_well() -> None:
    n = MOST_DENSE + 20
    rows, slots, gain = graph(n, n, 0.3, 3)
    clusters = clusters_of(rows, slots, n, np.full(n, -1))
    assert clusters.rows.max() > MOST_DENSE
    taken = assigned(clusters, gain)
    full = np.zeros((n, 2 * n))
    full[rows, slots] = -gain
    assert gain[taken].sum() == pytest.approx(-full[linear_sum_assignment(full)].sum())


def test_a_blend_has_the_moments_of_its_mixture() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(3, 6))
    root = rng.normal(size=(3, 6, 6))
    P = root @ root.transpose(0, 2, 1)
    share = np.array([0.2, 0.5, 0.3])
    to_x, to_P = np.zeros(6), np.zeros(36)
    jpda.blend(x, P.reshape(3, 36), share, np.arange(3), to_x, to_P)
    mean = share @ x
    second = np.einsum("k,kij->ij", share, P + np.einsum("ki,kj->kij", x, x))
    np.testing.assert_allclose(to_x, mean)
    np.testing.assert_allclose(to_P.reshape(6, 6), second - np.outer(mean, mean))
