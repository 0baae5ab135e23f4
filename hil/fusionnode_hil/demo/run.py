"""One run of the demo: start everything, watch, stop in order, gather what is to be scored."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from fusionnode.client import Event, Subscriber
from fusionnode.core.clock import ScaledClock
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.ops.stream_watch import StreamWatch
from fusionnode_hil.demo import scenario as scenario_module
from fusionnode_hil.demo.processes import Child, DemoError, stop_all
from fusionnode_hil.demo.scenario import Scenario
from fusionnode_hil.demo.score import Histories
from fusionnode_hil.times import NS

LEAD_S: Final = 4.0
"""From starting the processes to the scenario's first moment."""
LATE_S: Final = 45.0
"""Of simulated time: if the sensors are heard of later than this, it is begun again, once."""
_START_S: Final = 180.0  # kernels may have to be compiled first
_STEP_S: Final = 0.1
_LAST_MESSAGES_S: Final = 3.0


@dataclass
class Demo:
    """A run under way, as whoever draws it sees it."""

    scenario: Scenario
    clock: ScaledClock
    subscriber: Subscriber
    children: list[Child]
    duration_s: float
    end_unix_s: float
    watch: StreamWatch = field(default_factory=StreamWatch)
    histories: Histories = field(default_factory=Histories)
    from_ns: int | None = None
    """Simulated time from which all sensors are known to be heard; TAI ns."""

    @property
    def remaining_s(self) -> float:
        """Until the sensors are stopped, by the computer's clock."""
        return max(self.end_unix_s - time.time(), 0.0)

    def receive(self, timeout_s: float) -> list[Event]:
        """Take what came from the node."""
        events = self.subscriber.receive(timeout_s)
        self.watch.take(events)
        self.histories.take(events)
        return events

    def check(self) -> None:
        """Nothing, as long as all processes run.

        Raises:
            DemoError: one has ended.
        """
        for child in self.children:
            child.check()


@dataclass(frozen=True)
class Result:
    """What is left when it is over."""

    demo: Demo
    until_ns: int
    node: dict[str, Any]
    sent: dict[str, dict[str, Any]]


Draw = Callable[[Demo], None]
"""Called several times a second while it runs."""
Say = Callable[[str], None]


def play(folder: Path, sockets: Path, *, seed: int, duration_s: float, draw: Draw, say: Say) -> Result:
    """Run it to its end.

    Raises:
        DemoError, ConfigError: it could not be run; one line.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; everything has ended.
    """
    with _interruptible():
        for last_try in (False, True):
            demo = _start(folder, sockets, seed, duration_s)
            try:
                if _wait_for_sensors(demo, draw, last_try):
                    while demo.remaining_s > 0:
                        demo.receive(min(_STEP_S, demo.remaining_s))
                        demo.check()
                        draw(demo)
                    return _finish(demo)
            finally:
                stop_all(demo.children)
                demo.subscriber.close()
            say("that took long (kernels had to be compiled, perhaps): beginning again")
    raise AssertionError("the last try never gives up quietly")


def replay(scenario: Scenario) -> dict[str, Any]:
    """The journal's stream once more, by ``fusionnode replay``.

    Raises:
        DemoError: the replay failed, other than by giving something else than was published.
    """
    arguments = ["replay", str(scenario.journal), "--config", str(scenario.station), "--json"]
    child = Child("replay", arguments, scenario.folder)
    try:
        if child.wait(60.0) == 1:  # not as published: that is a result
            return dict(json.loads(child.said().splitlines()[-1]))
        return child.result()
    finally:
        stop_all([child])


def _start(folder: Path, sockets: Path, seed: int, duration_s: float) -> Demo:
    anchor = round(time.time() + LEAD_S, 3)
    scenario = scenario_module.write(folder, sockets, seed=seed, anchor_unix_s=anchor)
    children = []
    try:
        for name, arguments in (
            ("node", ["run", "--config", str(scenario.station), "--json", "--log-json"]),
            ("radar", ["emulate", "--config", str(scenario.radar), "--wait-ready", "150", "--json"]),
            ("telescope", ["emulate", "--config", str(scenario.telescope), "--wait-ready", "150", "--json"]),
        ):
            children.append(Child(name, arguments, folder))
        subscriber = Subscriber(scenario.live, scenario.snapshot, request_timeout_s=2.0)
    except BaseException:
        stop_all(children)
        raise
    clock = ScaledClock(scenario.epoch_ns, anchor, scenario.rate)
    return Demo(scenario, clock, subscriber, children, duration_s, anchor + duration_s)


def _wait_for_sensors(demo: Demo, draw: Draw, last_try: bool) -> bool:
    """Wait until the node hears all sensors; False if that was so late that it is better begun again."""
    give_up = time.monotonic() + _START_S
    while demo.from_ns is None:
        demo.receive(_STEP_S)
        demo.check()
        draw(demo)
        sensors = demo.subscriber.sensors
        if sensors and all(fields.get("alive") is True for fields in sensors.values()):
            demo.from_ns = max(tai_ns_from_utc_text(str(fields["time"])) for fields in sensors.values())
        elif time.monotonic() > give_up:
            raise DemoError(f"the node did not hear its sensors within {_START_S:.0f} s")
    late_s = (demo.from_ns - demo.scenario.epoch_ns) / NS
    if late_s > LATE_S and not last_try:
        return False
    # What a late start took is given back at the end.
    if late_s > LATE_S:
        demo.end_unix_s = time.time() + demo.duration_s
    return True


def _finish(demo: Demo) -> Result:
    """Sensors first, then the node, listening all the while."""
    node, *emulators = demo.children
    until_ns = demo.clock.now_ns()
    for child in emulators:
        child.stop()
    while not all(child.ended() for child in emulators):
        demo.receive(_STEP_S)
        node.check()
    sent = {child.name: child.result() for child in emulators}
    node.stop()
    while not node.ended():
        demo.receive(_STEP_S)
    summary = node.result()
    end = time.monotonic() + _LAST_MESSAGES_S
    while time.monotonic() < end and (demo.subscriber.seq or 0) < summary["published"]:
        demo.receive(_STEP_S)
    return Result(demo, until_ns, summary, sent)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end it as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
