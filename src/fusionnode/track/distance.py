"""How far apart two things are, by the covariance of their difference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def distance2(d: F64, covariance: F64) -> float:
    """Squared Mahalanobis distance of ``d`` (k,) by ``covariance`` (k, k), in its units.

    Infinite where nothing can be told: the matrix is singular or no covariance, or something is not a number.
    """
    try:
        d2 = float(d @ np.linalg.solve(covariance, d))
    except np.linalg.LinAlgError:
        return np.inf
    return d2 if d2 >= 0.0 else np.inf
