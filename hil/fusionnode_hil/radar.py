"""An emulated radar: sees what returns enough power, measures range, azimuth, elevation and range rate."""

from __future__ import annotations

import numpy as np

from fusionnode_hil import wire
from fusionnode_hil.config import RadarConfig, SiteConfig
from fusionnode_hil.earth import OMEGA, from_lon_lat, lon_lat, rotate
from fusionnode_hil.refraction import Air
from fusionnode_hil.sensor import FALSE_ALARM, Sensor, Sky, Spotted, by_direction, measured_direction
from fusionnode_hil.sky import C
from fusionnode_hil.times import NS, FloatArray
from fusionnode_hil.truth import Truth

MAX_RATE_M_S = 8_000.0
"""False alarms have any range rate up to this."""


def mean_snr(range_m: FloatArray, rcs_m2: FloatArray, *, snr_ref_db: float, range_ref_m: float) -> FloatArray:
    """Mean signal-to-noise ratio (linear): the radar equation scaled from 1 m^2 at ``range_ref_m``."""
    reference: float = 10.0 ** (snr_ref_db / 10.0)
    return reference * rcs_m2 * (range_ref_m / range_m) ** 4


def detection_probability(snr: FloatArray, false_alarm_probability: float) -> FloatArray:
    """P_d of a Swerling 1 target by a square-law detector and one look: P_fa^(1 / (1 + SNR)).

    Skolnik, Introduction to Radar Systems, 3rd ed., sec. 2.8; DiFranco and Rubin, Radar Detection, ch. 10.
    """
    return false_alarm_probability ** (1.0 / (1.0 + snr))


class Radar(Sensor):
    """A radar after its `RadarConfig`.

    A scan's time is the moment of the bounce. Range is half the path of the pulse, which differs from the
    geometric range at the bounce by micrometres; the site's motion during the pulse's way back and the
    aberration it causes cancel to first order, so the angles are the geometric ones at the bounce, too. With
    ``time_tag = "receive"`` a detection is stamped one light time later.
    """

    def __init__(
        self, config: RadarConfig, site: SiteConfig, truth: Truth, *, seed: int, start_ns: int
    ) -> None:
        """See `Sensor`."""
        super().__init__(config, site, truth, seed=seed, start_ns=start_ns)
        self._config = config
        self._air = Air(site, radio=True) if config.refraction == "included" else None
        self._rcs = np.array([body.rcs_m2 for body in truth.bodies])
        self._power_rng = self.rng("detection")
        self._noise_rng = self.rng("noise")
        self._false_rng = self.rng("false alarms")
        self._sigma = (
            config.range_sigma_m,
            float(np.radians(config.lon_sigma_deg)),
            float(np.radians(config.lat_sigma_deg)),
            config.range_rate_sigma_m_s,
        )
        self._bias = (float(np.radians(config.lon_bias_deg)), float(np.radians(config.lat_bias_deg)))
        self._threshold = -np.log(config.false_alarm_probability)  # in units of the noise power

    def look(self, sky: Sky) -> None:
        """True range, azimuth, elevation and range rate of every object at every scan, (n, T)."""
        r = rotate(sky.orientation.itrf_gcrf, sky.state[..., :3])
        v = rotate(sky.orientation.itrf_gcrf, sky.state[..., 3:]) - np.cross(OMEGA, r)
        relative = r - self.place.itrf
        self.range_m = np.linalg.norm(relative, axis=-1)
        self.range_rate = np.sum(relative * v, axis=-1) / self.range_m
        self.az, self.el = lon_lat(relative @ self.place.horizon.T)
        if self._air is not None:
            self.range_m, self.el, ray = self._air.seen(self.range_m, self.el)
            # the path grows as the object moves along the ray, where it is (Fermat)
            self.range_rate = np.sum(from_lon_lat(self.az, ray) @ self.place.horizon * v, axis=-1)
        self._snr = mean_snr(
            self.range_m,
            self._rcs[:, None],
            snr_ref_db=self._config.snr_ref_db,
            range_ref_m=self._config.range_ref_m,
        )

    def scan(self, column: int, t_ns: int) -> list[Spotted]:
        """Detections and false alarms of one scan, in order of azimuth."""
        c = self._config
        n = len(self._rcs)
        # the power of a Swerling 1 echo in noise is exponential, mean 1 + SNR: one draw decides and measures
        draw = self._power_rng.standard_exponential(n)
        noise = self._noise_rng.standard_normal((n, 4))
        power = draw * (1.0 + np.nan_to_num(self._snr[:, column]))
        range_m = self.range_m[:, column]
        seen = self.field.contains(self.az[:, column], self.el[:, column])
        seen &= (power > self._threshold) & (range_m >= c.min_range_m) & (range_m <= c.max_range_m)
        rows = np.flatnonzero(seen)
        sigma = self._sigma
        lon, lat = measured_direction(
            self.az[rows, column],
            self.el[rows, column],
            offset_lon=noise[rows, 1] * sigma[1],
            offset_lat=noise[rows, 2] * sigma[2],
            bias=self._bias,
        )
        measured = range_m[rows] + noise[rows, 0] * sigma[0] + c.range_bias_m
        rate = self.range_rate[rows, column] + noise[rows, 3] * sigma[3] + c.range_rate_bias_m_s
        delay = range_m[rows] / C if c.time_tag == "receive" else np.zeros(len(rows))
        values = np.column_stack([measured, lon, lat, rate, power[rows] - 1.0, delay])
        found = [self._message(t_ns, row, int(body)) for row, body in zip(values, rows, strict=True)]
        found += [self._message(t_ns, row, FALSE_ALARM) for row in self._false_alarms()]
        return sorted(found, key=by_direction)

    def _false_alarms(self) -> FloatArray:
        """Rows as in `scan`: noise that crossed the threshold somewhere in the field and the range window."""
        rng, c = self._false_rng, self._config
        az, el = self.field.sample(rng, int(rng.poisson(c.false_alarms_per_scan)))
        n = len(az)
        range_m = rng.uniform(c.min_range_m, c.max_range_m, n)
        rate = rng.uniform(-MAX_RATE_M_S, MAX_RATE_M_S, n)
        snr = self._threshold + rng.standard_exponential(n) - 1.0
        delay = range_m / C if c.time_tag == "receive" else np.zeros(n)
        return np.column_stack([range_m, az, el, rate, snr, delay])

    def _message(self, t_ns: int, row: FloatArray, body: int) -> Spotted:
        range_m, az, el, rate, snr, delay = map(float, row)
        c = self._config
        snr_db = 10.0 * np.log10(snr)
        rcs_dbsm = snr_db - c.snr_ref_db + 40.0 * np.log10(range_m / c.range_ref_m)
        valid = wire.VALID_RANGE | wire.VALID_ANGLES | wire.VALID_SNR | wire.VALID_RCS
        if c.measures_range_rate:
            valid |= wire.VALID_RANGE_RATE
        ways = 2.0 if c.range_convention == "round_trip" else 1.0
        sigma = self._sigma if c.send_sigmas else (0.0, 0.0, 0.0, 0.0)
        message = wire.Radar(
            sensor_id=0,
            seq=0,
            t_ns=t_ns + round(delay * NS),
            range_mm=max(round(range_m * ways * 1e3), 1),
            az_bam32=wire.bam32(az),
            el_bam32=wire.bam32_signed(el),
            range_rate_mm_s=wire.clamp(rate * 1e3, 32, signed=True) if c.measures_range_rate else 0,
            range_sigma_mm=wire.clamp(sigma[0] * ways * 1e3, 32),
            az_sigma_nrad=wire.clamp(sigma[1] * 1e9, 32),
            el_sigma_nrad=wire.clamp(sigma[2] * 1e9, 32),
            range_rate_sigma_mm_s=wire.clamp(sigma[3] * 1e3, 32) if c.measures_range_rate else 0,
            snr_cdb=wire.clamp(snr_db * 100.0, 16, signed=True),
            rcs_cdbsm=wire.clamp(rcs_dbsm * 100.0, 16, signed=True),
            valid=valid,
        )
        return Spotted(message, body)
