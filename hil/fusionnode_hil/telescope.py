"""An emulated optical tracker: sees lit objects from a dark site, measures a direction and a magnitude."""

from __future__ import annotations

import numpy as np

from fusionnode_hil import wire
from fusionnode_hil.config import SiteConfig, TelescopeConfig
from fusionnode_hil.earth import from_lon_lat, lon_lat, rotate, unit
from fusionnode_hil.refraction import Air
from fusionnode_hil.sensor import FALSE_ALARM, Sensor, Sky, Spotted, by_direction, measured_direction
from fusionnode_hil.sky import C, diffuse_sphere_magnitude, earth_velocity, sun_gcrf, sunlit_fraction
from fusionnode_hil.times import FloatArray
from fusionnode_hil.truth import MU, Truth


def seen_light_time_ago(state: FloatArray, site: FloatArray) -> FloatArray:
    """Where objects were when the light left that arrives now, (n, T, 3), m, GCRF.

    ``state`` (n, T, 6) of now, ``site`` (T, 3). Solves tau = |r(t - tau) - site(t)| / c; the step back is a
    Taylor series with two-body acceleration, good to a micrometre over the 0.2 s that light ever takes.
    """
    r, v = state[..., :3], state[..., 3:]
    a = -MU * r / np.linalg.norm(r, axis=-1, keepdims=True) ** 3
    then = r
    for _ in range(3):  # each gains a factor v / c
        tau = np.linalg.norm(then - site, axis=-1, keepdims=True) / C
        then = r - v * tau + 0.5 * a * tau**2
    return then


def aberrate(direction: FloatArray, velocity: FloatArray) -> FloatArray:
    """How unit vectors (..., 3) look to an observer moving with ``velocity`` (..., 3), m/s.

    Special relativity, exact; ``-velocity`` is the inverse (Urban and Seidelmann, Explanatory Supplement to
    the Astronomical Almanac, 3rd ed., ch. 7).
    """
    beta = velocity / C
    inverse_gamma = np.sqrt(1.0 - np.sum(beta**2, axis=-1, keepdims=True))
    along = np.sum(direction * beta, axis=-1, keepdims=True)
    return unit(inverse_gamma * direction + (1.0 + along / (1.0 + inverse_gamma)) * beta)


class Telescope(Sensor):
    """A tracker after its `TelescopeConfig`. A scan's time is the middle of its exposure.

    ``aberration`` says what right ascension and declination are. ``"removed"``: the direction from the site at
    mid-exposure to where the object was one light time before, along GCRF axes. ``"included"``: as the site
    sees it, moving about the geocentre. ``"stellar"``: measured against catalogue places of stars, so that the
    stars' annual aberration is taken off an object that shares the Earth's motion and had none. Azimuth and
    elevation are geometric, refraction corrected by the instrument, unless ``refraction`` says otherwise.
    """

    def __init__(
        self, config: TelescopeConfig, site: SiteConfig, truth: Truth, *, seed: int, start_ns: int
    ) -> None:
        """See `Sensor`."""
        super().__init__(
            config, site, truth, seed=seed, start_ns=start_ns, send_delay_s=config.exposure_s / 2.0
        )
        self._config = config
        self._air = Air(site, radio=False) if config.refraction != "removed" else None
        self._diameter = np.array([body.diameter_m for body in truth.bodies])[:, None]
        self._albedo = np.array([body.albedo for body in truth.bodies])[:, None]
        self._luck_rng = self.rng("detection")
        self._noise_rng = self.rng("noise")
        self._false_rng = self.rng("false alarms")
        self._sigma = (float(np.radians(config.lon_sigma_deg)), float(np.radians(config.lat_sigma_deg)))
        self._bias = (float(np.radians(config.lon_bias_deg)), float(np.radians(config.lat_bias_deg)))

    def look(self, sky: Sky) -> None:
        """Direction, magnitude and chance of detection of every object at every exposure, (n, T)."""
        c = self._config
        site = self.place.gcrf(sky.orientation.itrf_gcrf)
        sun = sun_gcrf(sky.t_ns)
        then = seen_light_time_ago(sky.state, site[:, :3])
        relative = then - site[:, :3]
        direction = unit(relative)
        # horizon axes in GCRF, (T, 3, 3): rows north, east, up
        self._horizon = self.place.horizon @ sky.orientation.itrf_gcrf
        self.az, self.el = lon_lat(rotate(self._horizon, direction))
        if self._air is not None:
            _, self.el, _ = self._air.seen(np.linalg.norm(relative, axis=-1), self.el)
            as_reported = self.el if c.refraction == "included" else self._air.star(self.el)
            direction = rotate(np.swapaxes(self._horizon, -1, -2), from_lon_lat(self.az, as_reported))
        if c.aberration == "included":
            direction = aberrate(direction, site[:, 3:])
        elif c.aberration == "stellar":
            direction = aberrate(direction, -earth_velocity(sky.t_ns))
        self.lon, self.lat = lon_lat(direction if c.angles == "radec" else rotate(self._horizon, direction))
        self.sun_elevation = lon_lat(rotate(self._horizon, unit(sun - site[:, :3])))[1]
        self.lit = sunlit_fraction(then, sun) if c.needs_sunlit_object else np.ones(then.shape[:2])
        phase = np.arccos(np.clip(np.sum(unit(sun - then) * -unit(relative), axis=-1), -1.0, 1.0))
        self.magnitude = diffuse_sphere_magnitude(
            distance_m=np.linalg.norm(relative, axis=-1),
            phase_rad=phase,
            diameter_m=self._diameter,
            albedo=self._albedo,
        )
        with np.errstate(divide="ignore"):
            self.magnitude = self.magnitude - 2.5 * np.log10(self.lit)
        over = np.clip((self.magnitude - c.limiting_magnitude) / c.magnitude_softness, -50.0, 50.0)
        self.chance = np.where(self.lit > 0.0, 1.0 / (1.0 + np.exp(over)), 0.0)
        if c.needs_dark_site:
            self.dark = self.sun_elevation < np.radians(c.dark_sun_elevation_deg)
        else:
            self.dark = np.ones(len(sky.t_ns), bool)

    def scan(self, column: int, t_ns: int) -> list[Spotted]:
        """Detections and false alarms of one exposure, in order of right ascension or azimuth."""
        c = self._config
        n = len(self._diameter)
        luck = self._luck_rng.random(n)
        noise = self._noise_rng.standard_normal((n, 3))
        false = self._false_alarms(column)
        if not self.dark[column]:
            return []
        seen = self.field.contains(self.az[:, column], self.el[:, column]) & (luck < self.chance[:, column])
        rows = np.flatnonzero(seen)
        lon, lat = measured_direction(
            self.lon[rows, column],
            self.lat[rows, column],
            offset_lon=noise[rows, 0] * self._sigma[0],
            offset_lat=noise[rows, 1] * self._sigma[1],
            bias=self._bias,
        )
        magnitude = self.magnitude[rows, column] + noise[rows, 2] * c.magnitude_sigma
        values = np.column_stack([lon, lat, magnitude])
        found = [self._message(t_ns, row, int(body)) for row, body in zip(values, rows, strict=True)]
        found += [self._message(t_ns, row, FALSE_ALARM) for row in false]
        return sorted(found, key=by_direction)

    def _false_alarms(self, column: int) -> FloatArray:
        """Rows as in `scan`: noise peaks and cosmic rays near the limiting magnitude."""
        rng, c = self._false_rng, self._config
        lon, lat = self.field.sample(rng, int(rng.poisson(c.false_alarms_per_scan)))
        magnitude = c.limiting_magnitude - rng.standard_exponential(len(lon)) * c.magnitude_softness
        if c.angles == "radec":
            local = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
            lon, lat = lon_lat(local @ self._horizon[column])
        return np.column_stack([lon, lat, magnitude])

    def _message(self, t_ns: int, row: FloatArray, body: int) -> Spotted:
        lon, lat, magnitude = map(float, row)
        c = self._config
        sigma = self._sigma if c.send_sigmas else (0.0, 0.0)
        message = wire.Optical(
            sensor_id=0,
            seq=0,
            t_ns=t_ns,
            lon_bam32=wire.bam32(lon),
            lat_bam32=wire.bam32_signed(lat),
            lon_sigma_nrad=wire.clamp(sigma[0] * 1e9, 32),
            lat_sigma_nrad=wire.clamp(sigma[1] * 1e9, 32),
            magnitude_mmag=wire.clamp(magnitude * 1e3, 16, signed=True),
            valid=wire.VALID_ANGLES | wire.VALID_MAGNITUDE,
            coordinates=wire.RADEC if c.angles == "radec" else wire.AZEL,
            exposure_us=wire.clamp(c.exposure_s * 1e6, 32),
        )
        return Spotted(message, body)
