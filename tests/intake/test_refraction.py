"""Refraction against other ways to compute it: an integrator, a published fit, pyerfa, and weather of any kind."""

from __future__ import annotations

from typing import Any

import erfa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from fusionnode.config import Sensor, Site
from fusionnode.intake.refraction import air_of, direction, straight, true_elevation, weather

ARCSEC = np.pi / 648_000.0


def air(kind: str = "radar", refraction: str = "included", **site: Any) -> np.ndarray:
    tree = {"id": 1, "kind": kind, "site": "x", "refraction": refraction}
    if refraction == "stellar":
        tree["angles"] = "radec"
    return air_of(Sensor.model_validate(tree), Site.model_validate({"lat_deg": 45.0, "lon_deg": 0.0} | site))


def profile(height: float, p: float, t: float, e: float, site_m: float, kind: str) -> tuple[float, float]:
    """n - 1 and its slope, written down anew from the sources."""
    if kind == "radar":
        dry, wet = 77.6 * p / t, (3.75e5 / t - 5.6) * e / t
    else:
        dry = (287.6155 + 1.62887 / 0.575**2 + 0.0136 / 0.575**4) * 273.15 / 1013.25 * p / t
        wet = -11.27 * e / t
    knee = 11_000.0 - site_m
    power = 0.0341631947 / 0.0065 - 1.0
    if height < knee:
        d = dry * (1.0 - 0.0065 * height / t) ** power
        slope = -d * power * 0.0065 / (t - 0.0065 * height)
    else:
        cold = t - 0.0065 * knee
        d = dry * (cold / t) ** power * np.exp(-(height - knee) * 0.0341631947 / cold)
        slope = -d * 0.0341631947 / cold
    w = wet * np.exp(-height / 2_000.0)
    return 1e-6 * (d + w), 1e-6 * (slope - w / 2_000.0)


@pytest.mark.parametrize("kind", ["radar", "optical"])
@pytest.mark.parametrize("elevation_deg", [-0.5, 0.0, 1.0, 5.0, 30.0, 90.0])
def test_a_ray_is_that_of_an_integrator_with_a_step_of_its_own(kind: str, elevation_deg: float) -> None:
    """Spherical coordinates, steps chosen by the solver, the bend of the profile met by an event."""
    site = {"height_m": 2_000.0, "pressure_hpa": 800.0, "temperature_c": 12.0, "humidity": 0.7}
    it = air(kind, **site)
    p, t, e = weather(Site.model_validate({"lat_deg": 45.0, "lon_deg": 0.0} | site))
    r0, el, range_m = float(it[1]), np.radians(elevation_deg), 1.2e6

    def slope(_: float, y: np.ndarray) -> list[float]:
        r, _, tilt, _ = y  # radius, angle at the centre, elevation over the local horizon, delay
        excess, falling = profile(r - r0, p, t, e, 2_000.0, kind)
        turn = np.cos(tilt) * (1.0 / r + falling / (1.0 + excess))
        return [np.sin(tilt), np.cos(tilt) / r, turn, excess]

    def knee(_: float, y: np.ndarray) -> float:
        return float(y[0] - r0 - 9_000.0)

    def top(_: float, y: np.ndarray) -> float:
        return float(y[0] - r0 - 90_000.0)

    knee.terminal = top.terminal = True  # type: ignore[attr-defined]
    s, y = 0.0, np.array([r0, 0.0, el, 0.0])
    for event in (knee, top):
        part = solve_ivp(slope, [s, 3e6], y, events=event, rtol=1e-12, atol=1e-12, max_step=20_000.0)
        s, y = part.t[-1], part.y[:, -1]
    left = range_m - s - y[3]
    tilt = y[2] - y[1]  # over the site's horizon
    x = y[0] * np.sin(y[1]) + left * np.cos(tilt)
    up = y[0] * np.cos(y[1]) - r0 + left * np.sin(tilt)
    got_el, got_range, off = straight(it, el, range_m)
    assert abs(got_el - np.arctan2(up, x)) < 0.05 * ARCSEC
    assert abs(got_range - np.hypot(x, up)) < 0.01
    assert off == pytest.approx(abs(tilt - np.arctan2(up, x)), abs=1e-6)


@pytest.mark.parametrize("elevation_deg", [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 45.0])
def test_starlight_is_bent_as_the_published_fit_says(elevation_deg: float) -> None:
    """Bennett (Journal of Navigation 35, 1982) at 1010 hPa and 10 degrees, good to 0.07 minutes of arc."""
    it = air("optical", pressure_hpa=1010.0, temperature_c=10.0, humidity=0.0)
    el = np.radians(elevation_deg)
    bent = (el - direction(it, el)[1]) / ARCSEC / 60.0
    assert bent == pytest.approx(
        1.0 / np.tan(np.radians(elevation_deg + 7.31 / (elevation_deg + 4.4))),
        abs=0.5 if elevation_deg < 1.0 else 0.3,
    )


@pytest.mark.parametrize(("kind", "wavelength_um"), [("optical", 0.575), ("radar", 300.0)])
def test_well_above_the_horizon_it_is_pyerfas_two_terms(kind: str, wavelength_um: float) -> None:
    it = air(kind, height_m=100.0, pressure_hpa=1000.0, temperature_c=15.0, humidity=0.6)
    a, b = erfa.refco(1000.0, 15.0, 0.6, wavelength_um)
    for elevation_deg in (20.0, 35.0, 60.0, 80.0):
        el = np.radians(elevation_deg)
        tan = 1.0 / np.tan(el)
        assert abs(el - direction(it, el)[1] - (a * tan + b * tan**3)) < 0.5 * ARCSEC


def test_the_delay_at_the_zenith_is_saastamoinens() -> None:
    """0.0022768 m/hPa (Saastamoinen 1972, with gravity that falls with height, as here it does not); and what vapour
    adds: (3.75e5 e / T^2) 1e-6 over 2 km.
    """
    it = air("radar", pressure_hpa=1013.25, temperature_c=15.0, humidity=0.0)
    assert 1e6 - straight(it, np.pi / 2, 1e6)[1] == pytest.approx(0.0022768 * 1013.25, rel=0.003)
    wet = air("radar", pressure_hpa=1013.25, temperature_c=15.0, humidity=1.0)
    more = straight(it, np.pi / 2, 1e6)[1] - straight(wet, np.pi / 2, 1e6)[1]
    assert more == pytest.approx(3.75e5 * 17.1 / 288.15**2 * 2e-3, rel=0.03)


@pytest.mark.parametrize("range_m", [300.0, 5_000.0, 40_000.0])
def test_a_target_within_the_air_is_where_the_ray_has_got_to(range_m: float) -> None:
    """Near the ground a ray is an arc of curvature cos(elevation) dn/dh."""
    it = air("radar")
    el = np.radians(3.0)
    got_el, got_range, _ = straight(it, el, range_m)
    n1, falling = profile(0.0, *weather(Site(lat_deg=45.0, lon_deg=0.0)), 0.0, "radar")
    assert el - got_el == pytest.approx(-0.5 * falling * np.cos(el) * range_m, rel=0.01 + range_m / 1e5)
    assert range_m - got_range == pytest.approx(n1 * range_m, rel=0.001 + range_m / 2e5)


def test_relative_to_stars_only_the_nearness_of_the_target_is_left() -> None:
    it = air("optical", "stellar")
    near = [true_elevation(it, np.radians(e))[0] - np.radians(e) for e in (10.0, 30.0, 60.0)]
    # the ray goes over the straight line: a near target is higher than among the stars it is seen
    assert 2.0 * ARCSEC < near[0] < 20.0 * ARCSEC
    assert near[0] > near[1] > near[2] > 0.0
    it[9] = 1e9
    assert abs(true_elevation(it, np.radians(30.0))[0] - np.radians(30.0)) < 0.01 * ARCSEC


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["radar", "optical"]),
    st.floats(-500.0, 9_000.0),
    st.one_of(st.none(), st.floats(200.0, 1_100.0)),
    st.one_of(st.none(), st.floats(-90.0, 60.0)),
    st.one_of(st.none(), st.floats(0.0, 1.0)),
    st.floats(-np.pi / 2, np.pi / 2),
    st.floats(1e-3, 1e9),
)
def test_no_weather_makes_it_anything_but_finite(
    kind: str, height_m: float, p: float | None, t: float | None, rh: float | None, el: float, range_m: float
) -> None:
    """Not even vapour that traps a ray, or a ray into the ground."""
    it = air(kind, height_m=height_m, pressure_hpa=p, temperature_c=t, humidity=rh)
    assert np.isfinite([*straight(it, el, range_m), *direction(it, el)]).all()
    assert np.isfinite(true_elevation(air("optical", "stellar", height_m=height_m), el)).all()
