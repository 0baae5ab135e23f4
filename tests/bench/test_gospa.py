"""Our GOSPA against Stone Soup's."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from gospa import gospa


def test_nothing_and_nothing_are_no_distance_apart() -> None:
    none = np.zeros((0, 3))
    assert gospa(none, none) == (0.0, 0.0, 0, 0)
    one = np.zeros((1, 3))
    assert gospa(one, none, 10.0) == (pytest.approx(np.sqrt(50.0)), 0.0, 0, 1)
    assert gospa(none, one, 10.0) == (pytest.approx(np.sqrt(50.0)), 0.0, 1, 0)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_stone_soups(seed: int) -> None:
    metric = pytest.importorskip("stonesoup.metricgenerator.ospametric")
    state = pytest.importorskip("stonesoup.types.state")
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.0, 30e3, (rng.integers(1, 25), 3))
    kept = truth[rng.random(len(truth)) < 0.8]
    tracks = np.concatenate(
        [kept + rng.normal(scale=2_000.0, size=kept.shape), rng.uniform(0.0, 30e3, (5, 3))]
    )
    now = datetime(2026, 1, 1, tzinfo=UTC)
    theirs, _ = metric.GOSPAMetric(p=2, c=5_000.0).compute_gospa_metric(
        [state.State(x, timestamp=now) for x in tracks], [state.State(x, timestamp=now) for x in truth]
    )
    ours = gospa(tracks, truth)
    assert ours.distance == pytest.approx(theirs.value["distance"])
    assert 12.5e6 * ours.missed == pytest.approx(theirs.value["missed"])
    assert 12.5e6 * ours.false == pytest.approx(theirs.value["false"])
