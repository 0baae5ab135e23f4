"""Published states as a site sees them: range, azimuth, elevation; and what kind of orbit they are on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from fusionnode.core.refframes import EarthOrientation, enu_itrf, site_itrf
from fusionnode.core.schema import ObjectState
from fusionnode.core.timescales import tai_ns_from_utc_text

_GM_KM3_S2: Final = 398_600.4418
_EARTH_KM: Final = 6_378.137
_LOW_KM: Final = 2_000.0
_GEO_PERIOD_S: Final = 86_164.0
_ECCENTRIC: Final = 0.25


class Site(NamedTuple):
    """WGS 84 geodetic."""

    lat_deg: float
    lon_deg: float
    height_m: float


class Look(NamedTuple):
    """A direction and distance from a site: azimuth from north towards east, geometric elevation."""

    range_km: float
    az_deg: float
    el_deg: float


class LocalSky:
    """Turns states to looks. Not thread-safe, as `EarthOrientation` is not."""

    def __init__(self, orientation: EarthOrientation | None = None) -> None:
        self._orientation = orientation or EarthOrientation()

    def looks(self, states: Sequence[ObjectState], sites: Sequence[Site]) -> list[Look]:
        """Where each state is for the site of the same index, at the state's own epoch, without light time."""
        if not states:
            return []
        t_ns = np.array([tai_ns_from_utc_text(state["epoch"]) for state in states], np.int64)
        r = np.array([[state["xpos"], state["ypos"], state["zpos"]] for state in states])
        itrf = np.einsum("nij,nj->ni", self._orientation.gcrf_to_itrf(t_ns), r)
        return [_look(position, site) for position, site in zip(itrf, sites, strict=True)]


def orbit_kind(state: ObjectState) -> str:
    """LEO, MEO, GEO or HEO, by the osculating orbit; "?" for what is on none."""
    r = np.array([state["xpos"], state["ypos"], state["zpos"]])
    v = np.array([state["xvel"], state["yvel"], state["zvel"]])
    distance = float(np.linalg.norm(r))
    if distance == 0.0:
        return "?"
    energy = float(v @ v) / 2.0 - _GM_KM3_S2 / distance
    if energy >= 0.0:
        return "?"
    axis = -_GM_KM3_S2 / (2.0 * energy)
    eccentricity = float(np.linalg.norm(np.cross(v, np.cross(r, v)) / _GM_KM3_S2 - r / distance))
    if eccentricity >= _ECCENTRIC:
        return "HEO"
    if axis - _EARTH_KM < _LOW_KM:
        return "LEO"
    period = 2.0 * np.pi * np.sqrt(axis**3 / _GM_KM3_S2)
    return "GEO" if abs(period / _GEO_PERIOD_S - 1.0) < 0.1 else "MEO"


def _look(itrf_km: np.ndarray, site: Site) -> Look:
    lat, lon = np.radians(site.lat_deg), np.radians(site.lon_deg)
    east, north, up = enu_itrf(lat, lon) @ (itrf_km - site_itrf(lat, lon, site.height_m) / 1e3)
    return Look(
        range_km=float(np.sqrt(east**2 + north**2 + up**2)),
        az_deg=float(np.degrees(np.arctan2(east, north)) % 360.0),
        el_deg=float(np.degrees(np.arctan2(up, np.hypot(east, north)))),
    )
