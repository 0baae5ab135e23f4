"""TOML to frozen, validated models; at load time only.

An unknown key is an error; keys carry units. Every fault becomes one ``ConfigError`` whose text is one line:
file, key, what was expected.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from ipaddress import ip_address
from math import radians, sqrt
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fusionnode.core.types import MAX_SENSORS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Azimuth = Annotated[float, Field(ge=-360, le=720)]
Seconds = Annotated[float, Field(ge=1e-3, le=1e8, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=1e8, allow_inf_nan=False)]


class ConfigError(Exception):
    """The configuration cannot be used; the text is one line naming file, key and what was expected."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Model):
    """Who this node is, and the markings its products carry."""

    id: Name
    data_mode: Literal["REAL", "TEST", "SIMULATED", "EXERCISE"] = "TEST"
    classification_marking: Annotated[str, Field(min_length=1, max_length=64)] = "U"
    source: Annotated[str, Field(min_length=1, max_length=64)] = "fusionnode"


class Clock(_Model):
    """What time it is for the node.

    ``system``: the station computer's clock. ``scaled``: ``epoch_utc`` at the moment ``anchor_unix_s`` of the
    computer's clock, running ``rate`` times as fast (benches and demos). ``data``: as late as the newest
    measurement (recorded data being played back).
    """

    mode: Literal["system", "scaled", "data"] = "system"
    epoch_utc: str | None = None
    anchor_unix_s: Annotated[float, Field(ge=0, le=4e9, allow_inf_nan=False)] | None = None
    rate: Annotated[float, Field(ge=1e-3, le=1e6, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _scaled_needs_epoch(self) -> Clock:
        if self.mode == "scaled" and (self.epoch_utc is None or self.anchor_unix_s is None):
            raise ValueError("mode 'scaled' needs epoch_utc and anchor_unix_s")
        return self


class Site(_Model):
    """Where sensors stand: WGS 84 geodetic; and what the air is like there, for sensors with refraction in what they
    report: pressure at the site itself, temperature, relative humidity from 0 to 1. What is not given is that of the
    standard atmosphere at this height.
    """

    lat_deg: Annotated[float, Field(ge=-90, le=90)]
    lon_deg: Annotated[float, Field(ge=-180, le=360)]
    height_m: Annotated[float, Field(ge=-500, le=9000)] = 0.0
    pressure_hpa: Annotated[float, Field(ge=200, le=1100)] | None = None
    temperature_c: Annotated[float, Field(ge=-90, le=60)] | None = None
    humidity: Annotated[float, Field(ge=0, le=1)] | None = None


class Sensor(_Model):
    """One sensor: what it reports, how good it is, and the conventions it follows.

    Sigmas are 1 sigma and used where a detection brings none. Biases are measured minus true and are
    subtracted; what is left of them has the ``bias_sigma`` (see ``tracking.consider_biases``). ``lon`` is azimuth
    (az/el) or right ascension (RA/Dec); its sigmas are on the sky. ``participants`` are the names under which tracking
    data messages know the sensor, besides its own. ``wander`` is noise on top of the sigmas that is not white: its
    size, and the time over which it stays alike (a servo's lag; first-order Gauss-Markov).
    Where it is estimated, it may be ``wander_smooth`` (second order, critically damped), and wander and sigmas are
    ``pull_in_factor`` times as large when the sensor begins to follow an object, which dies away over ``pull_in_s``.
    ``bias_correlation_s`` is the time over which what is left of the biases stays alike; unless given, for ever.

    ``refraction``: ``removed`` by the sensor; ``included`` in its elevations and ranges; ``stellar``: right ascension
    and declination are relative to stars, so that only what differs for a near target is left in. Where no range is
    measured the target is taken to be ``target_height_m`` high. Of each correction, a share of ``refraction_error`` is
    added to its sigma.

    ``scan``: the sensor follows one object at a time ("track"), or looks at its whole field of view in every scan
    ("search"): then a track in the field that a scan does not report was missed. The field: ``field_azimuth_deg`` from
    and to, clockwise; ``min_elevation_deg`` to ``field_max_elevation_deg``; out to ``field_range_m`` (``max_range_m``).

    ``releasable_to``: what this sensor contributed to goes only to release groups all of whose ``releasable_to`` are in
    this list (originator control; not given: no caveat).
    """

    id: Annotated[int, Field(ge=1, le=0xFFFFFFFF)]
    kind: Literal["radar", "optical"]
    site: Name
    enabled: bool = True
    participants: tuple[str, ...] = ()
    angles: Literal["azel", "radec"] = "azel"
    range_sigma_m: Positive = 30.0
    lon_sigma_deg: Positive = 0.02
    lat_sigma_deg: Positive = 0.02
    range_rate_sigma_m_s: Positive = 1.0
    range_bias_m: Finite = 0.0
    lon_bias_deg: Finite = 0.0
    lat_bias_deg: Finite = 0.0
    range_rate_bias_m_s: Finite = 0.0
    time_bias_s: Finite = 0.0
    range_wander_m: NonNegative = 0.0
    lon_wander_deg: NonNegative = 0.0
    lat_wander_deg: NonNegative = 0.0
    range_rate_wander_m_s: NonNegative = 0.0
    wander_s: Seconds = 5.0
    wander_smooth: bool = False
    pull_in_factor: Annotated[float, Field(ge=1, le=100)] = 1.0
    pull_in_s: Seconds = 5.0
    range_bias_sigma_m: NonNegative = 0.0
    lon_bias_sigma_deg: NonNegative = 0.0
    lat_bias_sigma_deg: NonNegative = 0.0
    range_rate_bias_sigma_m_s: NonNegative = 0.0
    bias_correlation_s: Seconds | None = None
    use_range_rate: bool = True
    range_convention: Literal["one_way", "round_trip"] = "one_way"
    time_tag: Literal["bounce", "receive"] = "bounce"
    aberration: Literal["removed", "included", "stellar"] = "removed"
    refraction: Literal["removed", "included", "stellar"] = "removed"
    refraction_error: Annotated[float, Field(ge=0, le=1)] = 0.05
    target_height_m: Annotated[float, Field(ge=1e5, le=1e9)] = 1.0e6
    revisit_s: Seconds = 1.0
    max_range_m: Positive = 6.0e7
    min_elevation_deg: Annotated[float, Field(ge=-90, le=90)] = -2.0
    max_sigma_factor: Positive = 1000.0
    scan: Literal["track", "search"] = "track"
    detection_probability: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    clutter_per_scan: Annotated[float, Field(ge=1e-9, le=1e6)] = 0.1
    field_azimuth_deg: tuple[Azimuth, Azimuth] = (0.0, 360.0)
    field_max_elevation_deg: Annotated[float, Field(ge=-90, le=90)] = 90.0
    field_range_m: Positive | None = None
    releasable_to: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _field_is_one(self) -> Sensor:
        first, last = self.field_azimuth_deg
        if not first < last <= first + 360.0:
            raise ValueError("field_azimuth_deg: expected [from, to] with from < to <= from + 360")
        if not self.min_elevation_deg < self.field_max_elevation_deg:
            raise ValueError("field_max_elevation_deg: expected more than min_elevation_deg")
        return self

    def wander(self) -> tuple[float, float, float, float]:
        """Variances of the noise that wanders: m^2, rad^2 (lon on the sky), rad^2 (lat), m^2/s^2; one way."""
        scale = 0.5 if self.kind == "radar" and self.range_convention == "round_trip" else 1.0
        return (
            (scale * self.range_wander_m) ** 2,
            radians(self.lon_wander_deg) ** 2,
            radians(self.lat_wander_deg) ** 2,
            (scale * self.range_rate_wander_m_s) ** 2,
        )

    @model_validator(mode="after")
    def _radar_is_azel(self) -> Sensor:
        if self.kind == "radar" and self.angles != "azel":
            raise ValueError("a radar reports angles = 'azel'")
        if self.refraction == "stellar" and self.angles != "radec":
            raise ValueError("refraction = 'stellar' is for angles = 'radec'")
        return self

    def bias_sigmas(self) -> tuple[float, float, float, float]:
        """Sigmas of the biases left: range (m), lon and lat (rad, on the sky), range rate (m/s)."""
        return (
            self.range_bias_sigma_m,
            radians(self.lon_bias_sigma_deg),
            radians(self.lat_bias_sigma_deg),
            self.range_rate_bias_sigma_m_s,
        )

    def errors(
        self, kinds: int, estimated: bool
    ) -> tuple[tuple[float, ...], tuple[float, ...], tuple[bool, ...]]:
        """Sigmas (SI), correlation times (s) and whether they are estimated, of the errors that a filter carries beside
        the state: the biases left, and as further kinds what wanders and its rate; four channels each.
        """
        forever = self.bias_correlation_s is None
        bias_s = float("inf") if self.bias_correlation_s is None else self.bias_correlation_s
        sigmas, times, free = [*self.bias_sigmas()], [bias_s] * 4, [estimated and not forever] * 4
        if kinds > 1:
            wander = [sqrt(v) for v in self.wander()]
            sigmas += wander + [sigma if self.wander_smooth else 0.0 for sigma in wander]
            times, free = times + [self.wander_s] * 8, free + [estimated] * 8
        return tuple(sigmas), tuple(times), tuple(free)


class SerialLink(_Model):
    """A serial line. The port may be absent at start, vanish and come back."""

    kind: Literal["serial"]
    device: str
    baud: Annotated[int, Field(ge=300, le=12_000_000)] = 115_200
    codec: Name = "frames"
    retry_s: Seconds = 0.25


class ZmqLink(_Model):
    """A ZeroMQ PULL socket that sensors push to; each message is whole frames or one msgpack report.

    With ``curve`` it is encrypted, and takes messages from known senders only: its own key is ``link-NAME`` in
    ``release.keys_directory``, those of the senders are under ``allowed/link-NAME`` there.
    """

    kind: Literal["zmq"]
    endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc|inproc)://.+")]
    connect: bool = False
    codec: Name = "auto"
    allow_non_loopback: bool = False
    curve: bool = False
    high_water_mark: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000


class NodeLink(_Model):
    """Another node's release group, whose tracks are fused with one's own for what is published.

    ``endpoint`` and ``request_endpoint`` are the group's there, ``server_key`` is the file of its public key, and
    ``secret_key`` names the pair in ``release.keys_directory`` that this node shows (made by ``fusionnode keys new``).
    Heartbeats there say ``node_id``. States are fused as long as they are not older than ``stale_s``, and a track that
    only the other node sees is kept for ``end_s`` without news. No state is taken to be better than the least sigmas.
    """

    kind: Literal["node"]
    endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+")]
    request_endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+")]
    node_id: Name
    server_key: str
    secret_key: Name
    stale_s: Seconds = 60.0
    end_s: Seconds = 900.0
    most_tracks: Annotated[int, Field(ge=1, le=200_000)] = 20_000
    min_position_sigma_m: Positive = 1.0
    min_velocity_sigma_m_s: Positive = 1e-3
    high_water_mark: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000


Link = Annotated[SerialLink | ZmqLink | NodeLink, Field(discriminator="kind")]


class Tracking(_Model):
    """The fusion engine. Times are of measurement, not of arrival.

    Detections wait ``hold_back_s`` for older ones; one that is older than what was released is late. ``transit_s`` is
    how long one may be under way without being late when nothing newer came before it. A late one that is at most
    ``late_age_s`` older than what was released is still used: the tracker goes back and replays (0: it is refused). For
    that, at most ``late_log_measurements`` are kept.

    ``dynamics``: ``zonal`` is J2 to J6 (``zonal_degree``), for dense arcs of minutes; ``full`` is Earth's gravity to
    ``gravity_degree``, Moon, Sun, air and sunlight, with tides of the solid Earth and relativity unless switched off.
    ``ballistic_m2_kg`` (drag coefficient times area over mass) and ``srp_m2_kg`` (radiation coefficient times area over
    mass) are those of an object of which nothing better is known. ``accel_noise_psd_m2_s3`` is what the dynamics leave
    out; unless given, 3e-6 for ``zonal``, 1e-11 for ``full``; and where both coefficients are estimated, what follows
    from the degree of the gravity field, from height and from the drag itself, beside 2e-14.

    ``estimate`` names the coefficients to be estimated beside each track's state, from the values above with the sigmas
    here; they wander by ``coefficient_walk_per_day`` of these in a day.

    A radar's track begins from ``initiation_points`` detections that agree (1: from any, with a wide velocity). Where
    there are only directions, ``tracklet_points`` of them that move together, no faster than
    ``tracklet_max_rate_deg_s``, make a tracklet; what may be behind it, up to ``optical_max_range_m`` away, is kept for
    ``optical_memory_s`` as hypotheses, of ``optical_banks`` objects at most, until further tracklets leave one orbit.

    ``noise_memory``: the sigmas that are used for a track follow its innovations, sensor by sensor, over about so many
    detections (0: they do not).
    ``association``: the best assignment ("gnn"), or its probabilities where it is not sure ("jpda"). ``confirm``: by
    ``confirm_hits`` in ``confirm_revisits`` revisits, or by the probability that the track's object exists, which
    starts at ``birth_existence`` and halves in 0.69 ``existence_life_s`` without news.
    ``filter``: extended or unscented (thirteen points of a track in place of its derivatives, at more than ten times
    the cost). ``modes``: one model of motion, or two that interact: quiet, with ``accel_noise_psd_m2_s3``, and
    manoeuvring, with ``manoeuvre_psd_m2_s3``; an object stays in each for its ``mean_s`` on average.
    ``consider_biases``: what is left of the sensors' biases (their ``bias_sigma`` keys) is part of every covariance,
    and is not averaged away. ``estimate_errors``, with it: errors that change, which are biases with a
    ``bias_correlation_s`` and ``wander``, are estimated beside each track's state, sensor by sensor.
    """

    engine: Literal["numba", "filterpy"] = "numba"
    filter: Literal["ekf", "ukf"] = "ekf"
    modes: Literal["single", "imm"] = "single"
    consider_biases: bool = False
    estimate_errors: bool = False
    hold_back_s: SecondsOrZero = 0.25
    transit_s: SecondsOrZero = 1.0
    late_age_s: Annotated[float, Field(ge=0, le=3600.0, allow_inf_nan=False)] = 60.0
    late_log_measurements: Annotated[int, Field(ge=100, le=10_000_000)] = 200_000
    tick_s: Seconds = 1.0
    gate_probability: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.9999
    noise_memory: Annotated[int, Field(ge=0, le=100_000)] = 0
    outlier_channels: Annotated[int, Field(ge=0, le=1)] = 1
    dynamics: Literal["zonal", "full"] = "full"
    zonal_degree: Annotated[int, Field(ge=2, le=6)] = 6
    gravity_degree: Annotated[int, Field(ge=6, le=90)] = 36
    earth_tides: bool = True
    relativity: bool = True
    ballistic_m2_kg: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.02
    srp_m2_kg: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.02
    estimate: tuple[Literal["ballistic", "srp"], ...] = ()
    ballistic_sigma_m2_kg: Positive = 0.05
    srp_sigma_m2_kg: Positive = 0.01
    coefficient_walk_per_day: NonNegative = 0.1
    accel_noise_psd_m2_s3: Annotated[float | None, Field(gt=0, le=1e12)] = None
    manoeuvre_psd_m2_s3: Positive = 1.0
    quiet_mean_s: Seconds = 86_400.0
    manoeuvre_mean_s: Seconds = 120.0
    confirm_hits: Annotated[int, Field(ge=2, le=8)] = 6
    confirm_revisits: Annotated[int, Field(ge=2, le=1000)] = 12
    tentative_limit_s: Seconds = 30.0
    coast_after_revisits: Positive = 5.0
    coast_limit_s: Seconds = 172_800.0
    coast_publish_s: Seconds = 10.0
    drop_position_sigma_m: Positive = 100_000.0
    association: Literal["gnn", "jpda"] = "gnn"
    learn_clutter: bool = True
    confirm: Literal["m_of_n", "existence"] = "m_of_n"
    birth_existence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    confirm_existence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.999
    drop_existence: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.001
    existence_life_s: Seconds = 1.0e6
    initiation_points: Annotated[int, Field(ge=1, le=16)] = 4
    initiation_window_s: Seconds = 20.0
    initiation_buffer: Annotated[int, Field(ge=8, le=65_536)] = 8_192
    initiation_max_velocity_sigma_m_s: Positive = 300.0
    tracklet_points: Annotated[int, Field(ge=3, le=16)] = 4
    tracklet_max_rate_deg_s: Annotated[float, Field(gt=0, le=20, allow_inf_nan=False)] = 2.0
    optical_memory_s: Seconds = 129_600.0
    optical_banks: Annotated[int, Field(ge=1, le=4_096)] = 128
    optical_max_range_m: Annotated[float, Field(ge=1e6, le=4e8, allow_inf_nan=False)] = 6.0e7
    max_tracks: Annotated[int, Field(ge=16, le=1_000_000)] = 65_536
    future_tolerance_s: Seconds = 2.0

    @model_validator(mode="after")
    def _one_filter(self) -> Tracking:
        if self.engine == "filterpy" and self.filter != "ekf":
            raise ValueError("filter: engine 'filterpy' has 'ekf' only")
        chosen = [self.filter == "ukf", self.modes == "imm", self.consider_biases]
        if self.engine == "filterpy" and any(chosen):
            raise ValueError("modes, consider_biases: engine 'filterpy' has neither")
        if sum(chosen) > 1:
            raise ValueError("expected one of filter = 'ukf', modes = 'imm' and consider_biases, not several")
        if self.estimate and any(chosen):
            raise ValueError("estimate does not go with filter = 'ukf', modes = 'imm' or consider_biases")
        if self.association == "jpda" and (self.modes == "imm" or self.consider_biases):
            raise ValueError("association = 'jpda' does not go with modes = 'imm' or consider_biases")
        return self

    @model_validator(mode="after")
    def _errors_stand_beside_biases(self) -> Tracking:
        if self.estimate_errors and not self.consider_biases:
            raise ValueError("estimate_errors needs consider_biases = true")
        return self

    @property
    def error_kinds(self) -> int:
        """Kinds of errors of sensors that a filter carries beside the state: biases, what wanders, and its rate."""
        return int(self.consider_biases) + 2 * int(self.estimate_errors)

    @model_validator(mode="after")
    def _estimates_need_forces(self) -> Tracking:
        if self.estimate and (self.dynamics != "full" or self.engine != "numba"):
            raise ValueError("estimate needs dynamics = 'full' and engine = 'numba'")
        return self

    @property
    def process_noise_psd_m2_s3(self) -> float:
        """``accel_noise_psd_m2_s3``, or what the chosen dynamics leave out."""
        if self.accel_noise_psd_m2_s3 is not None:
            return self.accel_noise_psd_m2_s3
        if self.dynamics == "zonal":
            return 3.0e-6
        return 2.0e-14 if self.noise_follows_forces else 1.0e-11

    @property
    def noise_follows_forces(self) -> bool:
        """Whether process noise is what the forces leave out and not one number (see `track.motion.omitted`)."""
        return self.accel_noise_psd_m2_s3 is None and len(set(self.estimate)) == 2


class Calibration(_Model):
    """The truth about the sensors: biases, noise, and whether a sensor still makes sense.

    Biases come from the orbits of tracks over ``arc_h`` hours, one point in ``spacing_s`` of each; before anything is
    known they have the sigmas given here. ``objects`` are catalogue numbers of calibration objects: their orbits are
    tied to the catalogue as closely as its sigmas say. A bias is corrected if its own sigma is below ``apply_below`` of
    the sensor's configured sigma. With ``adapt_noise``, sigmas are scaled to what the innovations are, within bounds.

    A sensor is judged over at least ``trust_tracks`` tracks by its NIS per degree of freedom: from ``suspect_ratio`` on
    it is suspect (sigmas times ``suspect_factor``) or, if ``isolate`` is on and others agree against it, isolated;
    trust comes back after ``clear_s`` below ``clear_ratio``.
    """

    enabled: bool = True
    estimate_biases: bool = True
    apply_biases: bool = True
    apply_below: Annotated[float, Field(gt=0, le=10)] = 0.5
    objects: tuple[Annotated[int, Field(ge=1, le=999_999_999)], ...] = ()
    adapt_noise: bool = False
    noise_scale_min: Annotated[float, Field(ge=0.01, le=1)] = 0.5
    noise_scale_max: Annotated[float, Field(ge=1, le=1000)] = 10.0
    isolate: bool = True
    review_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    arc_h: Annotated[float, Field(ge=0.1, le=168)] = 36.0
    spacing_s: Annotated[float, Field(ge=0.1, le=600)] = 10.0
    tracks: Annotated[int, Field(ge=1, le=10_000)] = 64
    arc_points: Annotated[int, Field(ge=16, le=20_000)] = 1_500
    memory_days: Positive = 60.0
    range_bias_sigma_m: Positive = 300.0
    angle_bias_sigma_deg: Positive = 0.1
    time_bias_sigma_s: Positive = 0.003
    along_track_sigma_m_s2: Positive = 1.0e-7
    trust_tracks: Annotated[int, Field(ge=1, le=9)] = 3
    suspect_ratio: Annotated[float, Field(ge=1.5, le=9)] = 4.0
    clear_ratio: Annotated[float, Field(ge=1, le=9)] = 2.0
    suspect_factor: Annotated[float, Field(ge=1, le=100)] = 3.0
    trust_window_s: Seconds = 86_400.0
    clear_s: Seconds = 600.0


class Catalogue(_Model):
    """Known objects: priors for initiation and names for tracks.

    ``new_object_ratio``: objects that the sensors see and the catalogue does not have, for each that it has. A track
    gets the name of an object that it is with at least ``name_probability``. ``owners_file``: lines ``number,owner``
    (CSV), for rules of release.
    """

    files: tuple[str, ...] = ()
    max_age_days: Positive = 30.0
    sigma_radial_m: Positive = 1_000.0
    sigma_along_m: Positive = 3_000.0
    sigma_cross_m: Positive = 1_000.0
    sigma_along_growth_m_per_day: NonNegative = 3_000.0
    new_object_ratio: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 0.05
    name_probability: Annotated[float, Field(ge=0.5, lt=1, allow_inf_nan=False)] = 0.95
    initiate: bool = True
    owners_file: str | None = None


class Publish(_Model):
    """The stream to subscribers. It stays on this computer unless told otherwise."""

    endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+")] = "tcp://127.0.0.1:5600"
    snapshot_endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+")] = "tcp://127.0.0.1:5601"
    allow_non_loopback: bool = False
    heartbeat_s: Seconds = 1.0
    sensor_state_s: Seconds = 1.0
    tentative: bool = False
    high_water_mark: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000


class Events(_Model):
    """What is told of objects besides their states.

    A manoeuvre is told if its size is between the limits and so many sigma from nothing. A new object is told of whose
    orbit passes a known one's at less than the distance (or within its uncertainty) and the speed. Perigees are
    heights above the equator's radius, heights are above the ellipsoid.
    """

    enabled: bool = True
    manoeuvre_sigma: Annotated[float, Field(ge=3, le=100)] = 6.0
    manoeuvre_min_m_s: Positive = 0.5
    manoeuvre_max_m_s: Positive = 500.0
    parting_distance_m: Positive = 2_000.0
    parting_speed_m_s: Positive = 300.0
    parting_lookback_s: Seconds = 10_800.0
    breakup_count: Annotated[int, Field(ge=2, le=1000)] = 3
    breakup_window_s: Seconds = 3_600.0
    decay_height_m: Positive = 200_000.0
    reentry_height_m: Positive = 120_000.0
    reentry_ahead_s: Seconds = 86_400.0


SatNo = Annotated[int, Field(ge=1, le=999_999_999)]
Mark = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[ -~]*[!-~][ -~]*$")]
Band = tuple[Finite, Finite]
Regime = Literal["leo", "meo", "geo", "heo"]
StatusName = Literal["tentative", "confirmed", "coasting"]
WithheldField = Literal[
    "uct", "satNo", "idOnOrbit", "name", "objectProbability", "sensors", "lastObEnd", "nis", "dof", "updates",
    "existence", "provenance",
]  # fmt: skip


class Area(_Model):
    """Where the point below an object may be: WGS 84 geodetic. Longitudes go eastwards from the first to the second."""

    lat_deg: tuple[Annotated[float, Field(ge=-90, le=90)], Annotated[float, Field(ge=-90, le=90)]] = (-90, 90)
    lon_deg: tuple[Annotated[float, Field(ge=-180, le=360)], Annotated[float, Field(ge=-180, le=360)]] = (
        -180,
        180,
    )

    @model_validator(mode="after")
    def _has_an_inside(self) -> Area:
        if not self.lat_deg[0] < self.lat_deg[1]:
            raise ValueError("lat_deg: expected [from, to] with from < to")
        if self.lon_deg[0] == self.lon_deg[1]:
            raise ValueError("lon_deg: expected two different longitudes")
        return self


class Rule(_Model):
    """One rule of a group: the first whose conditions all hold decides; where none does, nothing goes out.

    A condition that is not given holds for all. Catalogue numbers stand in ``objects`` and, one a line, in
    ``objects_file``. ``regimes`` by the osculating orbit: ``geo`` a period within 10 % of a sidereal day and an
    eccentricity below 0.1, ``heo`` an eccentricity from 0.25 on, of the rest ``leo`` below 2,000 km of apogee and
    ``meo``. ``owners`` by ``catalogue.owners_file``. Heights are above the equator's radius. ``sensors_only``: all that
    contributed are in the list; ``sensors_none``: none is.

    ``fields``: what a state says beyond who, where, how well and the markings. ``precision_m``: positions are off by
    more than this (rms of a revolution), for good and on purpose (0: they are not); it is rounded up to 1, 3.16, 10,
    31.6 ... m. ``delay_s``: after the state's epoch, by the policy of that moment. ``min_interval_s``: from one state
    of an object to the next, the newest first. ``events``: what happens to the object is told too.
    """

    name: Name
    release: bool = True
    objects: tuple[SatNo, ...] | None = None
    objects_file: str | None = None
    regimes: tuple[Regime, ...] | None = None
    owners: tuple[str, ...] | None = None
    uct: bool | None = None
    inclination_deg: Band | None = None
    perigee_km: Band | None = None
    apogee_km: Band | None = None
    area: Area | None = None
    sensors_only: tuple[Name, ...] | None = None
    sensors_none: tuple[Name, ...] | None = None
    status: tuple[StatusName, ...] | None = None
    fields: Literal["all"] | tuple[WithheldField, ...] = "all"
    precision_m: Annotated[float, Field(ge=0, le=100_000.0, allow_inf_nan=False)] = 0.0
    delay_s: Annotated[float, Field(ge=0, le=604_800.0, allow_inf_nan=False)] = 0.0
    min_interval_s: Annotated[float, Field(ge=0, le=86_400.0, allow_inf_nan=False)] = 0.0
    events: bool = False

    @model_validator(mode="after")
    def _bands_have_an_inside(self) -> Rule:
        for key in ("inclination_deg", "perigee_km", "apogee_km"):
            band = getattr(self, key)
            if band is not None and not band[0] < band[1]:
                raise ValueError(f"{key}: expected [from, to] with from < to")
        return self


class Group(_Model):
    """What one circle of partners gets, and where. What no rule releases does not exist for it.

    ``endpoint`` carries the stream, ``request_endpoint`` snapshots and requests, both encrypted (CURVE).
    ``picture``: ``fused``, or ``local``: only tracks that this node's own sensors made. ``releasable_to`` is marked on
    all that goes out; a state with a sensor whose own ``releasable_to`` lacks one of these does not. ``sign``: each
    message carries a signature. ``sensor_status`` names the sensors whose liveness is told. ``history_bytes`` are kept
    in memory and, with a ``spool_directory``, ``spool_bytes`` on disk for ``spool_age_h``, for who was away.
    """

    endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+")]
    request_endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+")]
    picture: Literal["fused", "local"] = "fused"
    classification_marking: Mark
    releasable_to: Annotated[tuple[Mark, ...], Field(min_length=1)]
    data_mode: Literal["REAL", "TEST", "SIMULATED", "EXERCISE"] | None = None
    source: Mark | None = None
    sign: bool = False
    history_bytes: Annotated[int, Field(ge=65_536, le=1 << 34)] = 16 << 20
    spool_directory: str | None = None
    spool_bytes: Annotated[int, Field(ge=65_536, le=1 << 44)] = 1 << 30
    spool_age_h: Annotated[float, Field(gt=0, le=8760)] = 24.0
    high_water_mark: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    heartbeat_s: Seconds | None = None
    sensor_state_s: Seconds | None = None
    sensor_status: tuple[Name, ...] = ()
    rule: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _rules_have_names(self) -> Group:
        seen: list[str] = []
        for rule in self.rule:
            if rule.name in seen:
                raise ValueError(f"rule: the name {rule.name!r} is there twice")
            seen.append(rule.name)
        return self


class Release(_Model):
    """Where the keys of groups and partners are, and where the log of what was released to whom is written.

    ``audit_on_full``: where the disk does not take that log, a group stops (``stop``), or is released what nobody will
    be able to tell (``go_on``). A log's file of ``audit_rotate_bytes`` is put aside and its chain goes on in a new
    one; 0: never.
    """

    keys_directory: str | None = None
    audit_directory: str | None = None
    audit_on_full: Literal["stop", "go_on"] = "stop"
    audit_rotate_bytes: Annotated[int, Field(ge=0, le=1 << 40)] = 64 << 20


class Partner(_Model):
    """One partner. Its key is ``keys/allowed/GROUP/NAME.public``.

    With ``paced_bytes_per_s`` it gets so many bytes a second and no live stream, in the order of ``priority``:
    ``events``, ``uct``, or names of rules. ``may_request``: it may ask for observations.
    """

    group: Name
    paced_bytes_per_s: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    may_request: bool = False
    priority: tuple[str, ...] = ()


class Tasking(_Model):
    """Observations asked of one's own sensors, by cue commands over serial lines.

    A partner that may do so asks at most once in ``request_interval_s``, for times up to ``ahead_s`` ahead. A look
    takes ``dwell_s``; a sensor has ``acknowledge_s`` to answer. With ``refresh_sigma_m`` the node asks by itself: every
    ``refresh_every_s`` for ``most_cues`` of the tracks whose position is less sure than that, each again after
    ``again_s``.
    """

    request_interval_s: SecondsOrZero = 10.0
    ahead_s: Seconds = 3600.0
    dwell_s: Seconds = 10.0
    acknowledge_s: Seconds = 5.0
    refresh_sigma_m: Positive | None = None
    refresh_every_s: Seconds = 10.0
    most_cues: Annotated[int, Field(ge=1, le=100)] = 1
    again_s: Seconds = 300.0


class Journal(_Model):
    """Where the raw bytes are kept."""

    directory: str | None = None
    segment_bytes: Annotated[int, Field(ge=4096, le=1 << 32)] = 64 << 20
    sync_ms: Annotated[float, Field(gt=0, le=1000)] = 10.0


class State(_Model):
    """Where the tracks outlive the node: a file written every ``interval_s`` and at a stop, taken up again at a start
    unless it is older than ``max_age_s``. Without a directory a node starts empty.
    """

    directory: str | None = None
    interval_s: Seconds = 30.0
    max_age_s: Seconds = 86_400.0


class Daemon(_Model):
    """Queues of the daemon."""

    queue_records: Annotated[int, Field(ge=16, le=1_000_000)] = 20_000
    batch_records: Annotated[int, Field(ge=1, le=65_536)] = 1_024


class Config(_Model):
    """One station's configuration."""

    node: Node
    clock: Clock = Clock()
    site: dict[Name, Site]
    sensor: dict[Name, Sensor]
    link: dict[Name, Link] = {}
    tracking: Tracking = Tracking()
    calibration: Calibration = Calibration()
    catalogue: Catalogue = Catalogue()
    publish: Publish = Publish()
    journal: Journal = Journal()
    events: Events = Events()
    state: State = State()
    daemon: Daemon = Daemon()
    release: Release = Release()
    tasking: Tasking = Tasking()
    group: dict[Name, Group] = {}
    partner: dict[Name, Partner] = {}

    @field_validator("site", "sensor")
    @classmethod
    def _not_empty(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise ValueError("at least one is needed")
        return value

    @model_validator(mode="after")
    def _hangs_together(self) -> Config:
        if len(self.sensor) > MAX_SENSORS:
            raise ValueError(f"sensor: expected at most {MAX_SENSORS} of them")
        shaped = self.tracking.noise_memory > 0 or any(any(s.wander()) for s in self.sensor.values())
        if self.tracking.engine == "filterpy" and shaped:
            raise ValueError("tracking.engine: 'filterpy' knows neither noise_memory nor sensors that wander")
        seen: dict[int, str] = {}
        for name, sensor in self.sensor.items():
            if sensor.site not in self.site:
                raise ValueError(f"sensor.{name}.site: no [site.{sensor.site}]")
            if sensor.id in seen:
                raise ValueError(f"sensor.{name}.id: {sensor.id} is also that of sensor.{seen[sensor.id]}")
            seen[sensor.id] = name
        for name, link in self.link.items():
            if isinstance(link, ZmqLink) and not (link.connect or link.curve or link.allow_non_loopback):
                _require_loopback(f"link.{name}.endpoint", link.endpoint)
            if isinstance(link, ZmqLink) and link.curve and self.release.keys_directory is None:
                raise ValueError(f"link.{name}.curve: needs release.keys_directory")
            if isinstance(link, ZmqLink):
                _require_port(f"link.{name}.endpoint", link.endpoint)
            if isinstance(link, NodeLink):
                _require_port(f"link.{name}.endpoint", link.endpoint)
                _require_port(f"link.{name}.request_endpoint", link.request_endpoint)
                if self.release.keys_directory is None:
                    raise ValueError(f"link.{name}.secret_key: needs release.keys_directory")
                if link.node_id == self.node.id:
                    raise ValueError(f"link.{name}.node_id: {link.node_id!r} is this node's own")
        _require_port("publish.endpoint", self.publish.endpoint)
        _require_port("publish.snapshot_endpoint", self.publish.snapshot_endpoint)
        if self.publish.endpoint == self.publish.snapshot_endpoint:
            raise ValueError(f"publish.snapshot_endpoint: {self.publish.endpoint} is also publish.endpoint")
        if not self.publish.allow_non_loopback:
            _require_loopback("publish.endpoint", self.publish.endpoint)
            _require_loopback("publish.snapshot_endpoint", self.publish.snapshot_endpoint)
        return self

    @model_validator(mode="after")
    def _release_hangs_together(self) -> Config:
        if self.group and self.release.keys_directory is None:
            raise ValueError("release.keys_directory: needed where there are groups")
        if self.group and self.release.audit_directory is None:
            raise ValueError("release.audit_directory: needed where there are groups")
        taken = {
            self.publish.endpoint: "publish.endpoint",
            self.publish.snapshot_endpoint: "publish.snapshot_endpoint",
        }
        for name, group in self.group.items():
            for key, endpoint in (("endpoint", group.endpoint), ("request_endpoint", group.request_endpoint)):
                where = f"group.{name}.{key}"
                _require_port(where, endpoint)
                if endpoint in taken:
                    raise ValueError(f"{where}: {endpoint} is also {taken[endpoint]}")
                taken[endpoint] = where
            for sensor in group.sensor_status:
                if sensor not in self.sensor:
                    raise ValueError(f"group.{name}.sensor_status: no [sensor.{sensor}]")
            for rule in group.rule:
                for key in ("sensors_only", "sensors_none"):
                    for sensor in getattr(rule, key) or ():
                        if sensor not in self.sensor:
                            raise ValueError(f"group.{name}.rule.{rule.name}.{key}: no [sensor.{sensor}]")
                if rule.owners is not None and self.catalogue.owners_file is None:
                    raise ValueError(f"group.{name}.rule.{rule.name}.owners: needs catalogue.owners_file")
        for name, partner in self.partner.items():
            if partner.group not in self.group:
                raise ValueError(f"partner.{name}.group: no [group.{partner.group}]")
        return self

    def sensor_ids(self) -> dict[str, int]:
        """Numbers of sensors by each of their names."""
        return {name: s.id for key, s in self.sensor.items() for name in (key, *s.participants)}


def load(path: str | Path) -> Config:
    """Read and validate one TOML file; relative paths in it are taken from the file's folder.

    Raises:
        ConfigError: one line, whatever is wrong with the file or its contents.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8 text") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Validate TOML text that came from ``path`` (the file itself is not read).

    Raises:
        ConfigError: as for `load`.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    _place(tree, path.parent)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_fault(error)}") from None


_FOLDERS = (
    ("catalogue", "owners_file"),
    ("journal", "directory"),
    ("state", "directory"),
    ("release", "keys_directory"),
    ("release", "audit_directory"),
)
"""Keys that name files and folders; those of groups and rules come on top."""


def _place(tree: dict[str, Any], folder: Path) -> None:
    """Take relative paths from ``folder``."""

    def table(value: Any) -> dict[str, Any]:
        return value if isinstance(value, dict) else {}

    def place(keys: dict[str, Any], key: str) -> None:
        if isinstance(keys.get(key), str):
            keys[key] = str(folder / keys[key])

    catalogue = table(tree.get("catalogue"))
    if isinstance(catalogue.get("files"), list):
        catalogue["files"] = [str(folder / f) if isinstance(f, str) else f for f in catalogue["files"]]
    for name, key in _FOLDERS:
        place(table(tree.get(name)), key)
    for link in table(tree.get("link")).values():
        place(table(link), "server_key")
    for group in table(tree.get("group")).values():
        place(table(group), "spool_directory")
        rules = table(group).get("rule")
        for rule in rules if isinstance(rules, list) else []:
            place(table(rule), "objects_file")


def _first_fault(error: ValidationError) -> str:
    """The first fault as ``key: what was expected``, with the number of further ones."""
    faults = error.errors(include_url=False)
    first = faults[0]
    loc = first["loc"]
    parts = [str(p) for i, p in enumerate(loc) if i == 0 or p not in ("serial", "zmq", "node", "[key]")]
    key = ".".join(parts)
    if first["type"] == "extra_forbidden":
        text = "unknown key"
        known = [name for model in _Model.__subclasses__() for name in model.model_fields]
        if near := get_close_matches(parts[-1], known, 1):
            text += f"; did you mean {near[0]}?"
    else:
        text = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        shown = first.get("input")
        if isinstance(shown, str | int | float | bool):
            text += f" (is {shown!r})"
    if len(faults) > 1:
        text += f" (and {len(faults) - 1} more)"
    return f"{key}: {text}" if key else text


def _require_port(key: str, endpoint: str) -> None:
    if endpoint.startswith("tcp://"):
        port = endpoint.rpartition(":")[2]
        if port != "*" and not (port.isdigit() and 1 <= int(port) <= 65_535):
            raise ValueError(f"{key}: expected a port from 1 to 65535 (is {port!r})")


def _require_loopback(key: str, endpoint: str) -> None:
    if not endpoint.startswith("tcp://"):
        return
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        local = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ValueError(
            f"{key}: {endpoint} is not a loopback address, and this is not encrypted, "
            "so it needs allow_non_loopback = true"
        )
