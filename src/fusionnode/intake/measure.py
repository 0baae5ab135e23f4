"""Detection + site -> Measurement: SI, biases off, the line of sight in GCRF axes.

Conventions, all in the sensor's configuration:

- Biases are measured minus true, of the quantity as the sensor reports it (of azimuth itself, of the round
  trip itself), and are subtracted first. A round-trip range, its rate and their sigmas are then halved.
- ``time_tag = "receive"``: the range holds at the bounce, one light time before; so target and site both are
  taken there. ``"bounce"``: everything at t_meas. Optical: target one light time before, site at t_meas.
- Azimuth and elevation are geometric, on the geodetic horizon; with ``refraction = "included"`` they, and the range,
  are as the ray came in, and are straightened (see `intake.refraction`). Limits hold for them as reported.
- RA/Dec is on GCRF axes; ``aberration`` says:

  - ``removed``: the direction from site to target, as geometry in GCRF with light time gives it.
  - ``included``: apparent, as the moving site sees it. Only the site's own velocity (0.3 arcsec) is taken
    off: the Earth's (20 arcsec) is shared by the target, so in a geocentric frame it is no aberration at all.
  - ``stellar``: relative to catalogue places of stars (a plate solution that nobody corrected). The stars'
    annual aberration is gone, and the target's with it, which had none; so the Earth's velocity is put back.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fusionnode.config import Config, Sensor
from fusionnode.core.kernels import kernel
from fusionnode.core.outcome import Outcome, Outcomes
from fusionnode.core.refframes import (
    EARTH_RATE_RAD_S,
    SPEED_OF_LIGHT_M_S,
    EarthOrientation,
    earth_velocity,
    enu_itrf,
    site_itrf,
)
from fusionnode.core.timescales import SECOND_NS
from fusionnode.core.types import DETECTION, MEASUREMENT, Channel, Kind, StructArray
from fusionnode.intake.refraction import REMOVED, airs, straighten, straighten_axes

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint8]

MAX_RANGE_RATE_M_S: Final = 1.0e5
"""Nothing near the Earth is faster."""
MAX_LON_RAD: Final = 4 * np.pi
MAX_UNKNOWN_SENSORS: Final = 64
"""Sensor numbers without a configuration that are counted by number; others share one counter."""

_REFUSALS: Final = (
    None,
    Outcome.UNKNOWN_SENSOR,
    Outcome.SENSOR_DISABLED,
    Outcome.WRONG_KIND,
    Outcome.NO_ANGLES,
    Outcome.NOT_FINITE,
    Outcome.OUT_OF_LIMITS,
    Outcome.TIME_IN_FUTURE,
)
_UNKNOWN, _DISABLED, _WRONG_KIND, _NO_ANGLES, _NOT_FINITE, _LIMITS, _FUTURE = range(1, len(_REFUSALS))

# Columns of the sensors' table.
_KIND, _ENABLED, _CHANNELS, _SCALE, _MAX_RANGE, _MIN_EL, _SIGMA_FACTOR, _TARGET, _SITE, _ABERRATION = range(
    10
)
_SIGMA, _BIAS, _WANDER, _COLUMNS = 10, 14, 18, 22
_ABERRATIONS: Final = {"removed": 0, "included": 1, "stellar": 2}
_INCLUDED, _STELLAR = 1, 2

# The float64 part of a record as columns of a matrix: kernels take plain arrays.
_DETECTED: Final = DETECTION.fields["range_m"][1] // 8  # type: ignore[index]
_SITE_R: Final = MEASUREMENT.fields["site_r"][1] // 8  # type: ignore[index]
_RANGE, _ANGLES, _RATE = int(Channel.RANGE), int(Channel.ANGLES), int(Channel.RANGE_RATE)
_RADEC = int(Kind.OPTICAL_RADEC)
_LATEST: Final = 1 << 62  # the year 2116: beyond it a time is damage


class Measurer:
    """Turns detections of the configured sensors into measurements; refused ones are counted by reason."""

    def __init__(self, config: Config, orientation: EarthOrientation, outcomes: Outcomes) -> None:
        self.names: tuple[str, ...] = tuple(config.sensor)
        """Sensor names; a measurement's ``sensor`` is an index into them."""
        self._orientation = orientation
        self._outcomes = outcomes
        self._future_ns = round(config.tracking.future_tolerance_s * SECOND_NS)
        sensors = list(config.sensor.values())
        sites = [config.site[s.site] for s in sensors]
        ids = np.array([s.id for s in sensors], np.uint32)
        self._order: I32 = np.argsort(ids).astype(np.int32)
        self._ids: U32 = ids[self._order]
        self._time_bias_ns: I64 = np.array([round(s.time_bias_s * SECOND_NS) for s in sensors], np.int64)
        self._table: F64 = np.array([_row(s) for s in sensors])
        self._site: F64 = np.array(
            [site_itrf(np.radians(s.lat_deg), np.radians(s.lon_deg), s.height_m) for s in sites]
        )
        self._enu: F64 = np.array([enu_itrf(np.radians(s.lat_deg), np.radians(s.lon_deg)) for s in sites])
        self._stellar = bool((self._table[:, _ABERRATION] == _STELLAR).any())
        self._air: F64 = airs(config)
        self._refracted = bool((self._air[:, 0] != REMOVED).any())
        self._kind: U8 = self._table[:, _KIND].astype(np.uint8)
        self._unknown: set[int] = set()

    def measure(self, detections: StructArray, now_ns: int | None = None) -> StructArray:
        """MEASUREMENT[m] of DETECTION[n], in the same order; those refused are missing and counted.

        With ``now_ns`` (TAI), detections stamped later than the configured tolerance after it are refused.
        """
        n = len(detections)
        if n == 0:
            return np.zeros(0, MEASUREMENT)
        # Copies: kernels are compiled for plain, writable arrays, and a view of one row would be another type.
        detections = np.array(detections)
        latest = _LATEST if now_ns is None else now_ns + self._future_ns
        code = np.zeros(n, np.uint8)
        channels = np.empty(n, np.uint8)
        index = np.empty(n, np.int32)
        t = np.empty(n, np.int64)
        value = np.empty((n, 4))
        var = np.empty((n, 4))
        _screen(
            detections.view(np.float64).reshape(n, -1),
            np.array(detections["t_meas_ns"]),
            np.array(detections["sensor_id"]),
            np.array(detections["kind"]),
            np.array(detections["channels"]),
            latest,
            (self._ids, self._order, self._time_bias_ns, self._table),
            (code, channels, index, t, value, var),
        )
        kept = detections
        if code.any():
            good = code == 0
            self._count(code, index, detections["sensor_id"])
            kept = detections[good]
            channels, index, t, value, var = channels[good], index[good], t[good], value[good], var[good]
        out = np.zeros(len(kept), MEASUREMENT)
        if len(kept) == 0:
            return out
        out["t_meas_ns"] = t
        out["t_rx_ns"] = kept["t_rx_ns"]
        out["sensor"] = index
        out["channels"] = channels
        out["seq"] = kept["seq"]
        low = np.zeros(len(kept), np.uint8)
        to_itrf = self._orientation.gcrf_to_itrf(t)
        if self._refracted:
            ranged, rated = channels & _RANGE != 0, channels & _RATE != 0
            straighten(index, self._kind, ranged, rated, value, var, self._air)
        _resolve(
            index,
            value,
            var,
            to_itrf,
            earth_velocity(t) if self._stellar else np.empty((0, 3)),
            (self._table, self._site, self._enu),
            out.view(np.float64).reshape(len(kept), -1),
            low,
        )
        if self._refracted:
            axes = [np.ascontiguousarray(out[name]) for name in ("los", "e_lon", "e_lat", "var")]
            straighten_axes(index, self._kind, to_itrf, self._enu, *axes, self._air)
            for name, values in zip(("los", "e_lon", "e_lat", "var"), axes, strict=True):
                out[name] = values
        if low.any():
            self._count(low, index, kept["sensor_id"])
            out = out[low == 0]
        return out

    def site_state(self, sensor: int, t_ns: I64 | int) -> tuple[F64, F64]:
        """Position (m) and velocity (m/s) of a sensor's site in GCRF at TAI times [n]; [n, 3] each."""
        to_itrf = self._orientation.gcrf_to_itrf(np.atleast_1d(np.asarray(t_ns, np.int64)))
        r = self._site[sensor]
        v = EARTH_RATE_RAD_S * np.array([-r[1], r[0], 0.0])
        return np.einsum("nji,j->ni", to_itrf, r), np.einsum("nji,j->ni", to_itrf, v)

    def _count(self, code: U8, index: I32, sensor_id: U32) -> None:
        refused = np.flatnonzero(code)
        known = index[refused] >= 0
        key = np.where(known, index[refused], sensor_id[refused]).astype(np.int64)
        rows = np.stack((known.astype(np.int64), key, code[refused]), axis=-1)
        for (is_known, which, reason), n in zip(*np.unique(rows, axis=0, return_counts=True), strict=True):
            source = self.names[which] if is_known else self._unknown_source(int(which))
            outcome = _REFUSALS[reason]
            assert outcome is not None
            self._outcomes.add(source, outcome, int(n))

    def _unknown_source(self, sensor_id: int) -> str:
        if sensor_id not in self._unknown:
            if len(self._unknown) >= MAX_UNKNOWN_SENSORS:
                return "sensor:other"
            self._unknown.add(sensor_id)
        return f"sensor:{sensor_id}"


def _row(sensor: Sensor) -> list[float]:
    """One line of the sensors' table."""
    radar = sensor.kind == "radar"
    channels = _ANGLES
    if radar:
        kind = Kind.RADAR_AZEL
        channels |= _RANGE | (_RATE if sensor.use_range_rate else 0)
    else:
        kind = Kind.OPTICAL_AZEL if sensor.angles == "azel" else Kind.OPTICAL_RADEC
    received = sensor.time_tag == "receive"
    return [
        float(kind),
        float(sensor.enabled),
        float(channels),
        0.5 if radar and sensor.range_convention == "round_trip" else 1.0,
        sensor.max_range_m,
        np.radians(sensor.min_elevation_deg),
        sensor.max_sigma_factor,
        float(received) if radar else 1.0,
        float(received) if radar else 0.0,
        float(_ABERRATIONS[sensor.aberration]),
        sensor.range_sigma_m,
        np.radians(sensor.lon_sigma_deg),
        np.radians(sensor.lat_sigma_deg),
        sensor.range_rate_sigma_m_s,
        sensor.range_bias_m,
        np.radians(sensor.lon_bias_deg),
        np.radians(sensor.lat_bias_deg),
        sensor.range_rate_bias_m_s,
        *sensor.wander(),
    ]


@kernel
def _screen(
    detected: F64,
    t_meas_ns: I64,
    sensor_id: U32,
    kind: U8,
    channels: U8,
    latest: int,
    sensors: tuple[U32, I32, I64, F64],
    out: tuple[U8, U8, I32, I64, F64, F64],
) -> None:
    """Look up the sensor, correct its channels, and give each detection a reason for refusal, or 0."""
    ids, order, time_bias_ns, table = sensors
    code, used, index, t, value, var = out
    for i in range(len(t_meas_ns)):
        k = np.searchsorted(ids, sensor_id[i])
        if k >= len(ids) or ids[k] != sensor_id[i]:
            code[i], index[i] = _UNKNOWN, -1
            continue
        s = order[k]
        index[i] = s
        row = table[s]
        if row[_ENABLED] == 0.0:
            code[i] = _DISABLED
            continue
        if kind[i] != row[_KIND]:
            code[i] = _WRONG_KIND
            continue
        present = channels[i] & int(row[_CHANNELS])
        if not present & _ANGLES:
            code[i] = _NO_ANGLES
            continue
        used[i] = present
        finite, within = True, 0 < t_meas_ns[i] < _LATEST
        for c in range(4):
            bit = _RANGE if c == 0 else (_RATE if c == 3 else _ANGLES)
            scale = row[_SCALE] if c == 0 or c == 3 else 1.0
            usual = row[_SIGMA + c]
            value[i, c], sigma = 0.0, 0.0
            if present & bit:
                value[i, c], sigma = detected[i, _DETECTED + c], detected[i, _DETECTED + 4 + c]
                finite = finite and np.isfinite(value[i, c]) and np.isfinite(sigma)
                # a sigma of 0 asks for the usual one; one that is absurdly small would outvote all else
                within = within and 0.0 <= sigma <= usual * row[_SIGMA_FACTOR]
                within = within and (sigma == 0.0 or sigma * row[_SIGMA_FACTOR] >= usual)
                if c == 2:
                    within = within and abs(value[i, c]) <= np.pi / 2 + 1e-9
                value[i, c] = (value[i, c] - row[_BIAS + c]) * scale
            var[i, c] = ((sigma if sigma > 0.0 else usual) * scale) ** 2 + row[_WANDER + c]
        within = within and abs(value[i, 1]) <= MAX_LON_RAD and abs(value[i, 3]) <= MAX_RANGE_RATE_M_S
        if present & _RANGE:
            within = within and 0.0 < value[i, 0] <= row[_MAX_RANGE]
        if kind[i] != _RADEC:
            within = within and value[i, 2] >= row[_MIN_EL]
        if not finite:
            code[i] = _NOT_FINITE
        elif not within:
            code[i] = _LIMITS
        else:
            t[i] = t_meas_ns[i] - time_bias_ns[s]
            code[i] = _FUTURE if t[i] > latest else 0


@kernel
def _resolve(
    index: I32,
    value: F64,
    var: F64,
    to_itrf: F64,
    earth_v: F64,
    sensors: tuple[F64, F64, F64],
    out: F64,
    low: U8,
) -> None:
    """Write the float part of the measurements; ``low``: refused, as the elevation is too low."""
    table, sites, horizons = sensors
    az_el = np.zeros((3, 3))  # rows: line of sight, e_lon, e_lat
    axes = np.zeros((3, 3))
    for i in range(len(index)):
        s = index[i]
        row, r, enu, m = table[s], sites[s], horizons[s], to_itrf[i]
        sin_lon, cos_lon = np.sin(value[i, 1]), np.cos(value[i, 1])
        sin_lat, cos_lat = np.sin(value[i, 2]), np.cos(value[i, 2])
        for j in range(3):
            out[i, _SITE_R + j] = m[0, j] * r[0] + m[1, j] * r[1] + m[2, j] * r[2]
            # The pole's 2e-6 rad away from the ITRF axis are worth 1 mm/s at most.
            out[i, _SITE_R + 3 + j] = EARTH_RATE_RAD_S * (m[1, j] * r[0] - m[0, j] * r[1])
        if row[_KIND] == _RADEC:
            axes[0, 0], axes[0, 1], axes[0, 2] = cos_lat * cos_lon, cos_lat * sin_lon, sin_lat
            axes[1, 0], axes[1, 1], axes[1, 2] = -sin_lon, cos_lon, 0.0
            axes[2, 0], axes[2, 1], axes[2, 2] = -sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat
            if row[_ABERRATION] == _INCLUDED:
                _aberrate(axes, out[i, _SITE_R + 3 : _SITE_R + 6], -1.0 / SPEED_OF_LIGHT_M_S)
            elif row[_ABERRATION] == _STELLAR:
                _aberrate(axes, earth_v[i], 1.0 / SPEED_OF_LIGHT_M_S)
            sin_el = 0.0
            for j in range(3):
                up = m[0, j] * enu[2, 0] + m[1, j] * enu[2, 1] + m[2, j] * enu[2, 2]
                sin_el += up * axes[0, j]
            if sin_el < np.sin(row[_MIN_EL]):
                low[i] = _LIMITS
        else:
            # Azimuth runs from north through east.
            az_el[0, 0], az_el[0, 1], az_el[0, 2] = cos_lat * sin_lon, cos_lat * cos_lon, sin_lat
            az_el[1, 0], az_el[1, 1], az_el[1, 2] = cos_lon, -sin_lon, 0.0
            az_el[2, 0], az_el[2, 1], az_el[2, 2] = -sin_lat * sin_lon, -sin_lat * cos_lon, cos_lat
            for k in range(3):
                e, n, u = az_el[k, 0], az_el[k, 1], az_el[k, 2]
                x = e * enu[0, 0] + n * enu[1, 0] + u * enu[2, 0]
                y = e * enu[0, 1] + n * enu[1, 1] + u * enu[2, 1]
                z = e * enu[0, 2] + n * enu[1, 2] + u * enu[2, 2]
                for j in range(3):
                    axes[k, j] = m[0, j] * x + m[1, j] * y + m[2, j] * z
        for k in range(3):
            for j in range(3):
                out[i, _SITE_R + 6 + 3 * k + j] = axes[k, j]
        out[i, _SITE_R + 15] = value[i, 0]
        out[i, _SITE_R + 16] = value[i, 3]
        for c in range(4):
            out[i, _SITE_R + 17 + c] = var[i, c]
        out[i, _SITE_R + 21] = row[_TARGET]
        out[i, _SITE_R + 22] = row[_SITE]


@kernel
def _aberrate(axes: F64, velocity: F64, factor: float) -> None:
    """Turn row 0 to what an observer moving with ``velocity * factor`` (of c) sees; the others go along.

    Special relativity, exact (Explanatory Supplement to the Astronomical Almanac, 3rd ed., eq. 7.40).
    """
    b = np.empty(3)
    pb, b2 = 0.0, 0.0
    for j in range(3):
        b[j] = velocity[j] * factor
        pb += axes[0, j] * b[j]
        b2 += b[j] * b[j]
    inverse_gamma = np.sqrt(1.0 - b2)
    for j in range(3):
        axes[0, j] = (inverse_gamma * axes[0, j] + (1.0 + pb / (1.0 + inverse_gamma)) * b[j]) / (1.0 + pb)
    for k in range(1, 3):
        dot, norm = 0.0, 0.0
        for j in range(3):
            dot += axes[k, j] * axes[0, j]
        for j in range(3):
            axes[k, j] -= dot * axes[0, j]
            norm += axes[k, j] ** 2
        for j in range(3):
            axes[k, j] /= np.sqrt(norm)
