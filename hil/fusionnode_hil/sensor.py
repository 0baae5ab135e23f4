"""What every emulated sensor does: scan on a cadence, keep a clock of its own, obey commands.

A sensor is stepped, never timed: `Sensor.advance` gives all it sends up to a moment of simulated time. Who
paces it (a clock, a test, nothing) does not change a byte. Randomness comes from one generator for each
purpose, seeded by (seed, sensor name, purpose), with a fixed number of draws for each scan and object:
adding noise to one thing does not reshuffle another.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fusionnode_hil import wire
from fusionnode_hil.config import RadarConfig, SiteConfig, TelescopeConfig
from fusionnode_hil.earth import Orientation, from_lon_lat, lon_lat
from fusionnode_hil.field import SkyField
from fusionnode_hil.times import NS, FloatArray, IntArray, tai_minus_utc_ns
from fusionnode_hil.truth import Truth

BLOCK = 32
"""Scans whose geometry is computed together."""

FALSE_ALARM, NO_DETECTION = -1, -2


class Emission(NamedTuple):
    """Messages a sensor hands to its link at one moment.

    ``bodies`` says what each message is really of (row of the truth, `FALSE_ALARM` or `NO_DETECTION`):
    for scoring, never sent.
    """

    t_ns: int
    messages: tuple[wire.Message, ...]
    bodies: tuple[int, ...]


class Spotted(NamedTuple):
    """A detection before it gets its sequence number."""

    message: wire.Radar | wire.Optical
    body: int


@dataclass(frozen=True)
class Sky:
    """Truth at the times of a block of scans: ``state`` (n, T, 6) in GCRF; ``t_ns`` (T,)."""

    t_ns: IntArray
    state: FloatArray
    orientation: Orientation


def generator(seed: int, name: str, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose of one sensor."""
    digest = hashlib.sha256(f"{seed}/{name}/{purpose}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


class Sensor(ABC):
    """The common part of `radar.Radar` and `telescope.Telescope`."""

    def __init__(
        self,
        config: RadarConfig | TelescopeConfig,
        site: SiteConfig,
        truth: Truth,
        *,
        seed: int,
        start_ns: int,
        send_delay_s: float = 0.0,
    ) -> None:
        """``start_ns``: TAI of switching on. ``send_delay_s``: from a scan to its sending, before latency."""
        self.name = config.name
        self.place = site.place()
        self.field = SkyField(config.field)
        self.mode = ("off", "standby", "survey", "track", "calibrate").index(config.mode)
        self._common = config
        self._truth = truth
        self._seed = seed
        self._start_ns = start_ns
        self._cadence_ns = round(config.cadence_s * NS)
        self._delay_ns = round((config.latency_s + send_delay_s) * NS)
        self._status_ns = round(config.status_interval_s * NS)
        self._time_ns = round(config.time_interval_s * NS)
        self._scans = self._statuses = self._times = 0  # done so far
        self._seq = 0
        self._sent = 0
        self._commands = 0
        self._reader = wire.FrameReader()
        self._step_ns = 0  # put right by time sync
        self._later: list[tuple[int, wire.Command]] = []  # to take effect at a device time to come
        self._block: tuple[int, Sky] | None = None

    @abstractmethod
    def look(self, sky: Sky) -> None:
        """Prepare what is needed for the scans of a block."""

    @abstractmethod
    def scan(self, column: int, t_ns: int) -> list[Spotted]:
        """Detections of the scan at ``t_ns``, column ``column`` of the block last looked at."""

    @property
    def next_ns(self) -> int:
        """Simulated time of the next thing this sensor will send or do."""
        return min(self._due())

    def advance(self, until_ns: int) -> list[Emission]:
        """Everything sent up to and including ``until_ns``, in order of time."""
        out = []
        while self.next_ns <= until_ns:
            emission = self._step()
            if emission.messages:
                out.append(emission)
        return out

    def hear(self, data: bytes, t_ns: int) -> list[Emission]:
        """Answers to bytes that came from the node at simulated ``t_ns``."""
        out = []
        for message in self._reader.feed(data):
            if isinstance(message, wire.Command) and message.sensor_id == self._common.id:
                self._commands += 1
                out.append(_report(t_ns, *self._answer(message, t_ns)))
        return out

    def device_ns(self, t_ns: int) -> int:
        """What the device's clock shows at true time ``t_ns``."""
        clock = self._common.clock
        drift = (t_ns - self._start_ns) * clock.drift_ppb * 1e-9
        return t_ns + round(clock.offset_s * NS + drift) + self._step_ns

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator of this sensor."""
        return generator(self._seed, self.name, purpose)

    def _due(self) -> tuple[int, ...]:
        return (
            self._start_ns + self._statuses * self._status_ns,
            self._start_ns + self._times * self._time_ns,
            self._start_ns + self._scans * self._cadence_ns + self._delay_ns,
            *(t_ns for t_ns, _ in self._later),
        )

    def _step(self) -> Emission:
        due = self._due()
        t_ns = min(due)
        what = due.index(t_ns)
        if what == 0:
            self._statuses += 1
            return _report(t_ns, self._status(t_ns))
        if what == 1:
            self._times += 1
            return _report(t_ns, self._time(t_ns))
        if what > 2:
            _, command = self._later.pop(what - 3)
            if command.code == wire.CUE:
                return _report(t_ns, self._ack(command, t_ns, wire.DONE))
            return _report(t_ns, self._ack(command, t_ns, wire.DONE), *self._set_mode(command.argument, t_ns))
        scan, self._scans = self._scans, self._scans + 1
        sky = self._sky(scan // BLOCK)
        column = scan % BLOCK
        spotted = self.scan(column, int(sky.t_ns[column]))
        if self.mode < wire.MODE_SURVEY:
            spotted = []  # looked all the same, so that the random numbers of later scans are the same
        self._sent += len(spotted)
        messages = tuple(self._stamped(item.message) for item in spotted)
        return Emission(t_ns, messages, tuple(item.body for item in spotted))

    def _sky(self, block: int) -> Sky:
        if self._block is None or self._block[0] != block:
            first = self._start_ns + block * BLOCK * self._cadence_ns
            t_ns = first + np.arange(BLOCK, dtype=np.int64) * self._cadence_ns
            sky = Sky(t_ns, self._truth.states(t_ns), self._truth.orientation.at(t_ns))
            self.look(sky)
            self._block = (block, sky)
        return self._block[1]

    def _stamped(self, message: wire.Radar | wire.Optical) -> wire.Message:
        """The detection, its true time replaced by the device's, with flags and sequence number."""
        return replace(message, **self._header(message.t_ns))

    def _header(self, t_ns: int) -> dict[str, Any]:
        flags = wire.SIMULATED
        if self._common.clock.locked:
            flags |= wire.TIME_LOCKED
        if self.mode == wire.MODE_CALIBRATE:
            flags |= wire.CALIBRATION
        seq, self._seq = self._seq, (self._seq + 1) & 0xFFFFFFFF
        return {"sensor_id": self._common.id, "seq": seq, "t_ns": self.device_ns(t_ns), "flags": flags}

    def _status(self, t_ns: int) -> wire.Status:
        return wire.Status(
            **self._header(t_ns),
            uptime_s=(t_ns - self._start_ns) // NS,
            detections_sent=self._sent & 0xFFFFFFFF,
            frames_bad=self._reader.bad & 0xFFFFFFFF,
            commands_received=self._commands & 0xFFFFFFFF,
            health=0 if self._common.clock.locked else wire.HEALTH_TIME,
            mode=self.mode,
        )

    def _time(self, t_ns: int) -> wire.Time:
        clock = self._common.clock
        return wire.Time(
            **self._header(t_ns),
            sigma_ns=wire.clamp(clock.sigma_s * NS, 32),
            tai_minus_utc_s=int(tai_minus_utc_ns(t_ns)) // NS,
            source=("free", "ntp", "ptp", "gnss").index(clock.source),
        )

    def _answer(self, command: wire.Command, t_ns: int) -> list[wire.Message]:
        """The acknowledgement of a command, and what it makes the sensor send at once."""
        if command.code == wire.SET_MODE and command.argument <= wire.MODE_CALIBRATE:
            wait_ns = command.t_ns - self.device_ns(t_ns)
            if wait_ns > 0:
                self._later.append((t_ns + wait_ns, command))
                return [self._ack(command, t_ns, wire.ACCEPTED)]
            return [self._ack(command, t_ns, wire.DONE), *self._set_mode(command.argument, t_ns)]
        if command.code == wire.TIME_SYNC and not self._common.clock.locked:
            self._step_ns += command.t_ns - self.device_ns(t_ns)
            return [self._ack(command, t_ns, wire.DONE)]
        if command.code == wire.PING:
            return [self._ack(command, t_ns, wire.DONE)]
        if command.code == wire.CUE and self._can_look(command, t_ns):
            self._later.append((t_ns + command.until_ns - self.device_ns(t_ns), command))
            return [self._ack(command, t_ns, wire.ACCEPTED)]
        # a place outside its field of view, and a locked clock knows better
        known = command.code in (wire.SET_MODE, wire.CUE, wire.TIME_SYNC)
        return [self._ack(command, t_ns, wire.REFUSED if known else wire.UNKNOWN)]

    def _can_look(self, command: wire.Command, t_ns: int) -> bool:
        """Whether a cue is to a direction in the field, which it looks at anyway, and not over yet."""
        if command.coordinates != wire.AZEL or command.until_ns <= self.device_ns(t_ns):
            return False
        az, el = (bam * 2.0 * np.pi / 2**32 for bam in (command.lon_bam32, command.lat_bam32))
        return bool(self.field.contains(np.array([az]), np.array([el]))[0])

    def _set_mode(self, mode: int, t_ns: int) -> list[wire.Message]:
        changed, self.mode = mode != self.mode, mode
        return [self._status(t_ns)] if changed else []

    def _ack(self, command: wire.Command, t_ns: int, result: int) -> wire.Ack:
        return wire.Ack(
            **self._header(t_ns),
            command_id=command.command_id,
            code=command.code,
            result=result,
            received_ns=self.device_ns(t_ns),
        )


def _report(t_ns: int, *messages: wire.Message) -> Emission:
    return Emission(t_ns, messages, (NO_DETECTION,) * len(messages))


def by_direction(spotted: Spotted) -> int:
    """Sorting key of a scan: azimuth or right ascension, so that the order tells nothing of the truth."""
    message = spotted.message
    return message.az_bam32 if isinstance(message, wire.Radar) else message.lon_bam32


def measured_direction(
    lon: FloatArray,
    lat: FloatArray,
    *,
    offset_lon: FloatArray,
    offset_lat: FloatArray,
    bias: tuple[float, float],
) -> tuple[FloatArray, FloatArray]:
    """Directions moved on the sky by offsets (rad, n), then by a bias in (lon, lat) itself (rad).

    The step is taken on the tangent plane, so that zenith and poles need no care.
    """
    zero = np.zeros_like(lon)
    e_lon = np.stack([-np.sin(lon), np.cos(lon), zero], axis=-1)
    e_lat = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    moved = from_lon_lat(lon, lat) + offset_lon[..., None] * e_lon + offset_lat[..., None] * e_lat
    new_lon, new_lat = lon_lat(moved)
    return (new_lon + bias[0]) % (2.0 * np.pi), np.clip(new_lat + bias[1], -np.pi / 2.0, np.pi / 2.0)
