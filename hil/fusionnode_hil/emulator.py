"""One emulated sensor, put together from its configuration; stepped by a test, or run by `runner`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fusionnode.config import ConfigError
from fusionnode_hil.config import EmulatorConfig, RadarConfig, ZmqLinkConfig
from fusionnode_hil.radar import Radar
from fusionnode_hil.sensor import Emission, Sensor
from fusionnode_hil.telescope import Telescope
from fusionnode_hil.times import NS, parse_time
from fusionnode_hil.truth import Body, Truth, TruthError, load
from fusionnode_hil.wire_msgpack import Form, encode


class Emulator:
    """A sensor with its truth: ``advance`` and ``hear`` give what it sends, as bytes for its link.

    ``truth.states(t_ns)`` tells where the objects really are, for scoring.
    """

    def __init__(self, config: EmulatorConfig, start_ns: int | None = None) -> None:
        """``start_ns``: TAI of switching on; the configured epoch if not given.

        Raises:
            ConfigError: if the objects' files cannot be used, or there is no start.
        """
        self.config = config
        self.truth = load_truth(config)
        if start_ns is None:
            if config.clock.epoch_utc is None:
                raise ConfigError("clock.epoch_utc: needed to start from")
            start_ns = parse_time(config.clock.epoch_utc)
        self.start_ns = start_ns
        self.sensor = _sensor(config, self.truth, start_ns)
        self.form: Form = config.link.form if isinstance(config.link, ZmqLinkConfig) else "frames"

    @property
    def next_ns(self) -> int:
        """Simulated time of the next thing to do."""
        return self.sensor.next_ns

    def advance(self, until_ns: int) -> list[tuple[int, bytes]]:
        """What is sent up to and including ``until_ns``, in order: (simulated TAI ns, a message's bytes)."""
        return list(self._encoded(self.sensor.advance(until_ns)))

    def hear(self, data: bytes, t_ns: int) -> list[tuple[int, bytes]]:
        """Answers to bytes from the node, in the same form."""
        return list(self._encoded(self.sensor.hear(data, t_ns)))

    def _encoded(self, emissions: list[Emission]) -> Iterator[tuple[int, bytes]]:
        for emission in emissions:
            for data in encode(emission.messages, self.form):
                yield emission.t_ns, data


def trace(config: EmulatorConfig, duration_s: float) -> list[tuple[int, bytes]]:
    """All that an emulator sends in its first ``duration_s`` of simulated time: the same bytes each time."""
    emulator = Emulator(config)
    return emulator.advance(emulator.start_ns + round(duration_s * NS))


def load_truth(config: EmulatorConfig) -> Truth:
    """The objects of a configuration.

    Raises:
        ConfigError: one line.
    """
    objects = config.objects
    default = Body("default", rcs_m2=objects.rcs_m2, diameter_m=objects.diameter_m, albedo=objects.albedo)
    own = {key: body.model_dump(exclude_none=True) for key, body in objects.properties.items()}
    try:
        return load(
            [Path(file) for file in objects.files],
            select=objects.select,
            default=default,
            properties=own,
            inline=objects.tle,
        )
    except TruthError as error:
        raise ConfigError(str(error)) from None


def _sensor(config: EmulatorConfig, truth: Truth, start_ns: int) -> Sensor:
    if isinstance(config.sensor, RadarConfig):
        return Radar(config.sensor, config.site, truth, seed=config.seed, start_ns=start_ns)
    return Telescope(config.sensor, config.site, truth, seed=config.seed, start_ns=start_ns)
