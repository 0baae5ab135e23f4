"""Orbits by an independent propagator, brahe, in the forces that ours knows too. It is no dependency."""

from __future__ import annotations

from typing import Any

import astropy_iers_data
import numpy as np

from fusionnode.core.timescales import tai_ns_from_utc_text

START = "2024-03-10T05:00:00"
START_NS = int(tai_ns_from_utc_text(START))
BALLISTIC, RADIATION = 0.02, 0.02
"""Cd A/m and Cr A/m of all of them, m^2/kg."""


def set_up(bh: Any) -> None:
    """Give brahe the Earth orientation that ours has."""
    table = bh.FileEOPProvider.from_standard_file(str(astropy_iers_data.IERS_A_FILE), True, "Hold")
    bh.set_global_eop_provider_from_file_provider(table)


def low_orbits(bh: Any, n: int, seed: int = 4) -> np.ndarray:
    """States (n, 6) at START, GCRF: 350 to 1,400 km high, all inclinations."""
    rng = np.random.default_rng(seed)
    return np.array(
        [
            bh.state_koe_to_eci(
                np.array(
                    [
                        bh.R_EARTH + rng.uniform(350e3, 1_400e3),
                        rng.uniform(1e-4, 0.01),
                        rng.uniform(20.0, 110.0),
                        *rng.uniform(0.0, 360.0, 3),
                    ]
                ),
                bh.AngleFormat.DEGREES,
            )
            for _ in range(n)
        ]
    )


def forces(bh: Any, degree: int, *, tides: bool = False, relativity: bool = False) -> Any:
    """Gravity to ``degree``, Sun and Moon, Harris-Priester drag, sunlight with a conical shadow."""
    value = bh.ParameterSource.value
    low = bh.EphemerisSource.LowPrecision
    solid = bh.TidesConfiguration(bh.PermanentTideConfig.AUTO, bh.SolidTideConfig(False), None, low)
    return bh.ForceModelConfig(
        gravity=bh.GravityConfiguration(degree=degree, order=degree),
        drag=bh.DragConfiguration(bh.AtmosphericModel.HARRIS_PRIESTER, value(BALLISTIC), value(1.0)),
        srp=bh.SolarRadiationPressureConfiguration(value(RADIATION), value(1.0), bh.EclipseModel.CONICAL),
        third_body=[bh.ThirdBodyConfiguration(b, low) for b in (bh.ThirdBody.SUN, bh.ThirdBody.MOON)],
        mass=value(1.0),
        relativity=relativity,
        tides=solid if tides else None,
    )


def propagate(bh: Any, x: np.ndarray, times_s: list[float], force: Any, config: Any = None) -> np.ndarray:
    """States (n, k, 6) of orbits (n, 6) at START, so many seconds later."""
    epoch = bh.Epoch.from_datetime(2024, 3, 10, 5, 0, 0.0, 0.0, bh.TimeSystem.UTC)
    config = config or bh.NumericalPropagationConfig.high_precision()
    out = np.zeros((len(x), len(times_s), 6))
    for i, state in enumerate(x):
        orbit = bh.NumericalOrbitPropagator(epoch, state.copy(), config, force, None)
        for k, t in enumerate(times_s):
            orbit.propagate_to(epoch + t)
            out[i, k] = orbit.current_state()
    return out
