from __future__ import annotations

import numpy as np
import pytest

from fusionnode.track.distance import distance2
from fusionnode.track.events.crossing import Crossing


def test_it_is_that_of_the_covariance() -> None:
    assert distance2(np.array([2.0, 3.0]), np.diag([4.0, 9.0])) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "covariance",
    [np.zeros((3, 3)), np.ones((3, 3)), -np.eye(3), np.full((3, 3), np.nan), np.diag([1.0, np.inf, np.nan])],
)
def test_what_is_no_covariance_is_infinitely_far_and_never_an_error(covariance: np.ndarray) -> None:
    assert distance2(np.array([1.0, 2.0, 3.0]), covariance) == np.inf


def test_a_change_of_velocity_of_which_nothing_is_known_is_no_burn() -> None:
    crossing = Crossing(0, 0, 0, np.zeros(3), 0.0, 0.0, np.array([1.0, 0.0, 0.0]), np.zeros((3, 3)))
    assert crossing.delta_v_d2 == 0.0
