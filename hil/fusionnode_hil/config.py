"""An emulator's TOML: one sensor, what it can see, and the link it writes to. An unknown key is an error."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fusionnode.config import ConfigError
from fusionnode_hil.earth import Place
from fusionnode_hil.times import parse_time

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Degrees = Annotated[float, Field(ge=-360, le=360)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteConfig(_Model):
    """Where the sensor stands: WGS 84 geodetic; and the air there, if it bends what the sensor sees (relative humidity
    from 0 to 1; what is not given is the standard atmosphere's).
    """

    lat_deg: Annotated[float, Field(ge=-90, le=90)]
    lon_deg: Annotated[float, Field(ge=-180, le=360)]
    height_m: Annotated[float, Field(ge=-500, le=9000)] = 0.0
    pressure_hpa: Annotated[float, Field(ge=200, le=1100)] | None = None
    temperature_c: Annotated[float, Field(ge=-90, le=60)] | None = None
    humidity: Annotated[float, Field(ge=0, le=1)] | None = None

    def place(self) -> Place:
        """The site in ITRF."""
        return Place.geodetic(self.lat_deg, self.lon_deg, self.height_m)


class FieldOfView(_Model):
    """What part of the sky is searched: a band of elevation, a sector of azimuth, and a cone if one is
    given."""

    min_elevation_deg: Annotated[float, Field(ge=-5, lt=90)] = 10.0
    max_elevation_deg: Annotated[float, Field(gt=-5, le=90)] = 90.0
    azimuth_from_deg: Degrees = 0.0
    azimuth_to_deg: Degrees = 360.0
    boresight_azimuth_deg: Degrees | None = None
    boresight_elevation_deg: Annotated[float, Field(ge=-5, le=90)] | None = None
    half_angle_deg: Annotated[float, Field(gt=0, le=90)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> FieldOfView:
        cone = (self.boresight_azimuth_deg, self.boresight_elevation_deg, self.half_angle_deg)
        if any(c is None for c in cone) and any(c is not None for c in cone):
            raise ValueError("a cone needs boresight_azimuth_deg, boresight_elevation_deg and half_angle_deg")
        if self.min_elevation_deg >= self.max_elevation_deg:
            raise ValueError("expected min_elevation_deg below max_elevation_deg")
        return self


class DeviceClock(_Model):
    """How far the device's clock is off: device time minus true time, and what it says about itself."""

    offset_s: Finite = 0.0
    drift_ppb: Finite = 0.0
    locked: bool = True
    source: Literal["free", "ntp", "ptp", "gnss"] = "gnss"
    sigma_s: NonNegative = 1e-6


class _Sensor(_Model):
    name: Name
    id: Annotated[int, Field(ge=1, le=0xFFFFFFFF)]
    cadence_s: Positive = 1.0
    latency_s: NonNegative = 0.05
    status_interval_s: Annotated[float, Field(gt=0, le=5)] = 2.0
    time_interval_s: Positive = 10.0
    mode: Literal["off", "standby", "survey", "track", "calibrate"] = "survey"
    send_sigmas: bool = True
    lon_sigma_deg: Positive = 0.01
    lat_sigma_deg: Positive = 0.01
    lon_bias_deg: Finite = 0.0
    lat_bias_deg: Finite = 0.0
    false_alarms_per_scan: NonNegative = 0.0
    field: FieldOfView = FieldOfView()
    clock: DeviceClock = DeviceClock()


class RadarConfig(_Sensor):
    """A tracking radar. ``lon`` is azimuth (sigma on the sky), ``lat`` elevation; bias: measured minus true.

    ``refraction = "included"``: it reports where the bent ray comes from, and how long its path is.
    ``snr_ref_db`` is the mean signal-to-noise ratio of an object of 1 m^2 at ``range_ref_m``.
    """

    kind: Literal["radar"]
    range_sigma_m: Positive = 15.0
    range_rate_sigma_m_s: Positive = 0.5
    range_bias_m: Finite = 0.0
    range_rate_bias_m_s: Finite = 0.0
    snr_ref_db: Finite = 20.0
    range_ref_m: Positive = 1.0e6
    false_alarm_probability: Annotated[float, Field(gt=0, lt=0.1)] = 1.0e-6
    min_range_m: NonNegative = 1.0e5
    max_range_m: Positive = 5.0e7
    range_convention: Literal["one_way", "round_trip"] = "one_way"
    time_tag: Literal["bounce", "receive"] = "bounce"
    refraction: Literal["removed", "included"] = "removed"
    measures_range_rate: bool = True


class TelescopeConfig(_Sensor):
    """An optical tracker. ``lon``: right ascension or azimuth (sigma on the sky), ``lat``: the other
    angle. ``refraction``: ``included`` in them, or ``stellar``: they are relative to stars, with the
    refraction of stars taken off.
    """

    kind: Literal["telescope"]
    angles: Literal["radec", "azel"] = "radec"
    aberration: Literal["removed", "included", "stellar"] = "removed"
    refraction: Literal["removed", "included", "stellar"] = "removed"
    exposure_s: Positive = 0.5
    limiting_magnitude: Finite = 14.0
    magnitude_softness: Positive = 0.3
    magnitude_sigma: NonNegative = 0.1
    needs_dark_site: bool = True
    dark_sun_elevation_deg: Annotated[float, Field(ge=-90, le=90)] = -12.0
    needs_sunlit_object: bool = True

    @model_validator(mode="after")
    def _azel_is_geometric(self) -> TelescopeConfig:
        if self.angles == "azel" and self.aberration != "removed":
            raise ValueError("azimuth and elevation have aberration = 'removed'")
        if self.angles == "azel" and self.refraction == "stellar":
            raise ValueError("refraction = 'stellar' is for right ascension and declination")
        return self


SensorConfig = Annotated[RadarConfig | TelescopeConfig, Field(discriminator="kind")]


class BodyProperties(_Model):
    """How an object looks; what is not given is taken from the default."""

    rcs_m2: Positive | None = None
    diameter_m: Positive | None = None
    albedo: Annotated[float, Field(gt=0, le=1)] | None = None


class Objects(_Model):
    """What flies: files (see `truth.load`) or TLE text; ``select`` keeps these catalogue numbers only."""

    files: tuple[str, ...] = ()
    tle: str = ""
    select: tuple[int, ...] = ()
    rcs_m2: Positive = 1.0
    diameter_m: Positive = 2.0
    albedo: Annotated[float, Field(gt=0, le=1)] = 0.2
    properties: dict[str, BodyProperties] = {}

    @model_validator(mode="after")
    def _some(self) -> Objects:
        if not self.files and not self.tle:
            raise ValueError("expected files or tle")
        return self


class PtyLinkConfig(_Model):
    """A pseudo-terminal whose reader's side is found at ``path`` (relative to the working folder)."""

    kind: Literal["pty"]
    path: str
    baud: Annotated[int, Field(ge=300, le=12_000_000)] | None = 115_200


class SerialLinkConfig(_Model):
    """A named serial device."""

    kind: Literal["serial"]
    device: str
    baud: Annotated[int, Field(ge=300, le=12_000_000)] = 115_200


class ZmqLinkConfig(_Model):
    """A ZeroMQ PUSH socket; it connects unless told to bind."""

    kind: Literal["zmq"]
    endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+")]
    bind: bool = False
    form: Literal["frames", "msgpack", "columnar"] = "frames"
    high_water_mark: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000


LinkConfig = Annotated[PtyLinkConfig | SerialLinkConfig | ZmqLinkConfig, Field(discriminator="kind")]


class ClockConfig(_Model):
    """What time it is for the emulator: the computer's (``system``), or ``epoch_utc`` at ``anchor_unix_s``
    of the computer's clock (the moment of the start if not given), then ``rate`` times as fast (``scaled``).
    """

    mode: Literal["system", "scaled"] = "scaled"
    epoch_utc: str | None = None
    anchor_unix_s: float | None = None
    rate: Positive = 1.0

    @model_validator(mode="after")
    def _scaled_needs_epoch(self) -> ClockConfig:
        if self.mode == "scaled" and self.epoch_utc is None:
            raise ValueError("mode 'scaled' needs epoch_utc")
        if self.epoch_utc is not None:
            parse_time(self.epoch_utc)
        return self


class EmulatorConfig(_Model):
    """One emulated sensor."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    site: SiteConfig
    sensor: SensorConfig
    objects: Objects
    link: LinkConfig
    clock: ClockConfig


def load(path: str | Path) -> EmulatorConfig:
    """Read and validate one TOML file; object files in it are taken from the file's folder.

    Raises:
        ConfigError: one line naming file, key and what was expected.
    """
    path = Path(path)
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return parse(tree, path)


def parse(tree: dict[str, Any], path: Path) -> EmulatorConfig:
    """Validate a parsed TOML tree that came from ``path``.

    Raises:
        ConfigError: as for `load`.
    """
    if "node" in tree:
        raise ConfigError(f"{path}: this is a node's configuration; an emulator's has [sensor] kind and seed")
    objects = tree.get("objects")
    if isinstance(objects, dict) and isinstance(objects.get("files"), list):
        files = [str(path.parent / f) if isinstance(f, str) else f for f in objects["files"]]
        tree = {**tree, "objects": {**objects, "files": files}}
    try:
        return EmulatorConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_fault(error)}") from None


def first_fault(error: ValidationError) -> str:
    """The first fault as ``key: what was expected``."""
    fault = error.errors(include_url=False)[0]
    tags = ("radar", "telescope", "pty", "serial", "zmq")  # of unions, not keys
    parts = [str(p) for i, p in enumerate(fault["loc"]) if not (i == 1 and p in tags)]
    if fault["type"] == "extra_forbidden":
        text = "unknown key"
    else:
        text = fault["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        if isinstance(fault.get("input"), str | int | float | bool):
            text += f" (is {fault['input']!r})"
    return f"{'.'.join(parts)}: {text}" if parts else text
