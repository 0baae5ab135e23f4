"""Requests for observations, through the whole node and over a real serial line to the emulated radar."""

from __future__ import annotations

import os
import pty
import select
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from fusionnode import config as node_config
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.timescales import utc_text
from fusionnode.core.types import LinkRecord
from fusionnode.link.poller import Poller
from fusionnode.pipeline import Pipeline
from fusionnode.tasking.desk import Order
from fusionnode_hil import config as hil_config
from fusionnode_hil import wire
from fusionnode_hil.emulator import Emulator

NS = 1_000_000_000
ELEMENTS = Path(__file__).resolve().parents[2] / "configs" / "elements" / "demo.tle"
STATION = """
[node]
id = "alpha"
[site.here]
lat_deg = 14.6
lon_deg = 121.0
height_m = 60.0
[sensor.radar]
id = 101
kind = "radar"
site = "here"
min_elevation_deg = 10.0
[sensor.other]
id = 102
kind = "radar"
site = "here"
[link.line]
kind = "serial"
device = "{device}"
[tracking]
hold_back_s = 0.0
transit_s = 0.0
dynamics = "zonal"
[calibration]
enabled = false
[release]
keys_directory = "keys"
audit_directory = "audit"
[group.allies]
endpoint = "tcp://127.0.0.1:5610"
request_endpoint = "tcp://127.0.0.1:5611"
classification_marking = "U"
releasable_to = ["BRAVO"]
[[group.allies.rule]]
name = "all"
release = {release}
[partner.bravo]
group = "allies"
may_request = true
[partner.charlie]
group = "allies"
{more}
"""


class Station:
    """A node's pipeline and links, and the emulated radar at the other end of the line; time is stepped."""

    def __init__(
        self, folder: Path, orientation: EarthOrientation, *, release: str = "true", more: str = ""
    ) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(self.master)
        os.set_blocking(self.master, False)
        text = STATION.format(device=os.ttyname(slave), release=release, more=more)
        self.config = node_config.parse(text, folder / "node.toml")
        self.orientation = orientation
        self.emulator = Emulator(
            hil_config.parse(
                {
                    "seed": 7,
                    "site": {"lat_deg": 14.6, "lon_deg": 121.0, "height_m": 60.0},
                    "sensor": {
                        "kind": "radar",
                        "name": "radar",
                        "id": 101,
                        "snr_ref_db": 60.0,
                        "latency_s": 0.0,
                    },
                    "objects": {"files": [str(ELEMENTS)], "rcs_m2": 5.0},
                    "link": {"kind": "pty", "path": "unused"},
                    "clock": {"epoch_utc": "2006-06-25T12:38:00"},
                },
                folder / "radar.toml",
            )
        )
        self.now = self.emulator.start_ns
        self.calls: list[Any] = []
        self.inbox: list[LinkRecord] = []
        self.pipeline = self.fresh()
        self.poller = Poller(self.config.link, self, self.inbox.extend, lambda *event: None)  # type: ignore[arg-type]
        self.orders: list[Order] = []
        self.replies: list[dict[str, Any]] = []
        self.audit: list[dict[str, Any]] = []
        self.states: list[dict[str, Any]] = []
        self.deaf = False
        self.answered = False

    def fresh(self) -> Pipeline:
        return Pipeline(
            self.config, stream_epoch="alpha-1", orientation=self.orientation, offset_key=bytes(range(32))
        )

    def now_ns(self) -> int:
        return self.now

    def ask(self, partner: str = "bravo", request: int = 1, **fields: Any) -> None:
        body = {
            "v": 1, "type": "cue_request", "id": request, "trackId": None, "satNo": None,
            "fromUtc": utc_text(self.now + 2 * NS), "toUtc": utc_text(self.now + 30 * NS), "sensor": None,
        } | fields  # fmt: skip
        self.inbox.append(LinkRecord(self.now, "group:allies", msgpack.packb([partner, msgpack.packb(body)])))

    def step(self, seconds: float = 1.0, n: int = 1) -> None:
        for _ in range(n):
            self.now += round(seconds * NS)
            for _, data in self.emulator.advance(self.now):
                os.write(self.master, data)
                self.answered = True
            # What was written is not there at once on a busy computer.
            self.poller.run_once(2.0 if self.answered else 0.0)
            self.answered = False
            self.calls += [list(self.inbox), self.now]
            self.pipeline.feed(self.inbox)
            self.inbox.clear()
            self.pipeline.tick(self.now)
            self.states += [
                m
                for _, p in self.pipeline.groups[0].take().messages
                if (m := msgpack.unpackb(p))["type"] == "state"
            ]
            orders = self.pipeline.take_orders()
            self.orders += orders.commands
            self.replies += [msgpack.unpackb(r.payload) for r in orders.replies]
            self.audit += orders.audit
            for order in orders.commands:
                self.poller.post(order.link_id, order.data)
            self.poller.run_once(0.0)
            if orders.commands:
                select.select([self.master], [], [], 2.0)
            try:
                heard = os.read(self.master, 4096)
            except BlockingIOError:
                continue
            for _, data in [] if self.deaf else self.emulator.hear(heard, self.now):
                os.write(self.master, data)
                self.answered = True

    def until_tracked(self) -> str:
        while not any(s["status"] == "confirmed" for s in self.states):
            self.step()
            assert len(self.calls) < 200
        return str(self.states[-1]["trackId"])

    def said(self, request: int = 1) -> list[str]:
        return [r["state"] for r in self.replies if r["id"] == request]


@pytest.fixture
def station(tmp_path: Path, orientation: EarthOrientation) -> Iterator[Any]:
    made: list[Station] = []

    def make(**options: str) -> Station:
        made.append(Station(tmp_path, orientation, **options))
        return made[-1]

    yield make
    for one in made:
        one.poller.close()
        os.close(one.master)


def test_a_cue_reaches_the_radar_and_is_acknowledged_and_a_replay_gives_the_same(station: Any) -> None:
    s = station()
    track = s.until_tracked()
    s.ask(trackId=track, sensor="radar")
    s.step(n=4)
    assert s.said() == ["accepted", "sent", "acknowledged"]
    assert s.replies[-1]["sensor"] == "radar"
    assert [a["state"] for a in s.audit] == ["accepted", "sent", "acknowledged"]
    assert all(a["partner"] == "bravo" and a["sensor"] == "radar" for a in s.audit)
    (command,) = wire.FrameReader().feed(s.orders[0].data)
    assert isinstance(command, wire.Command)
    # It points to where the object will be in the middle of the look.
    middle = (command.t_ns + command.until_ns) // 2
    found = [
        m
        for e in s.emulator.sensor.advance(middle + NS)
        for m in e.messages
        if isinstance(m, wire.Radar) and abs(m.t_ns - middle) <= NS
    ]
    turn = 2.0 * np.pi / 2**32
    off = min(
        abs(m.el_bam32 - command.lat_bam32) * turn
        + abs((m.az_bam32 - command.lon_bam32 + 2**31) % 2**32 - 2**31) * turn
        for m in found
    )
    assert off < 3.0 * command.lon_sigma_nrad * 1e-9 + np.radians(0.1)
    # The same calls to a fresh pipeline, without any line: the same commands to the last bit.
    again, orders = s.fresh(), []
    for call in s.calls:
        if isinstance(call, list):
            again.feed(call)
        else:
            again.tick(call)
            orders += again.take_orders().commands
    assert orders == s.orders
    # The same request once more is no second cue.
    s.ask(trackId=track, sensor="radar")
    s.step(n=2)
    assert s.said() == ["accepted", "sent", "acknowledged", "acknowledged"]
    assert len(s.orders) == 1


def test_what_a_partner_may_not_is_refused(station: Any) -> None:
    s = station(more="[tasking]\nrequest_interval_s = 5.0")
    track = s.until_tracked()
    s.ask("charlie", 1, trackId=track)
    s.ask("mallory", 2, trackId=track)
    s.ask("bravo", 3, trackId="alpha-000001")  # the node's own name, which the group is not told
    s.ask("bravo", 4, trackId=track)  # too soon
    s.step(n=6)
    s.ask("bravo", 5, trackId=track, fromUtc=utc_text(s.now - 60 * NS), toUtc=utc_text(s.now - NS))
    s.step(n=6)
    s.ask("bravo", 6, trackId=track, sensor="other")  # nobody knows by what line
    s.step(n=6)
    s.ask("bravo", 7, trackId=track, satNo=5)
    s.step(n=6)
    for odd in (
        b"",
        b"\xc1",
        msgpack.packb(["bravo", b"\x80"]),
        msgpack.packb([1, 2]),
        msgpack.packb(["bravo", 3]),
    ):
        s.inbox.append(LinkRecord(s.now, "group:allies", odd))
    s.step()
    assert {r["id"]: (r["state"], r["reason"]) for r in s.replies} == {
        1: ("refused", "not allowed"),
        2: ("refused", "not allowed"),
        3: ("refused", "no such object"),
        4: ("refused", "too many requests"),
        5: ("refused", "the time is past, or too far ahead"),
        6: ("refused", "no sensor can see it then"),
        7: ("refused", "expected a trackId or a satNo"),
    }
    assert s.orders == []
    cues: Any = s.pipeline.summary()["cues"]
    assert (cues["refused"], cues["malformed"], cues["open"]) == (7, 5, 0)


def test_what_a_group_is_not_shown_does_not_exist_for_its_requests(station: Any) -> None:
    s = station(release="false")
    s.step(n=20)
    assert s.pipeline.summary()["tracks"]["confirmed"] > 0
    for number, name in enumerate(("alpha-000001", "000001", ""), start=1):
        s.now += 20 * NS
        s.ask(request=number, trackId=name)
        s.step()
    assert {r["reason"] for r in s.replies} == {"no such object"}


def test_a_sensor_that_does_not_answer_lets_the_cue_expire(station: Any) -> None:
    s = station()
    track = s.until_tracked()
    s.deaf = True
    s.ask(trackId=track)
    s.step(n=8)
    assert s.said() == ["accepted", "sent", "expired"]
    assert all(r["sensor"] is None for r in s.replies)  # not asked for by name, so not told


def test_the_node_asks_by_itself_for_what_it_is_not_sure_of(station: Any) -> None:
    s = station(more="[tasking]\nrefresh_sigma_m = 1.0\nrefresh_every_s = 2.0\nagain_s = 1000.0")
    s.until_tracked()
    s.step(n=8)
    assert s.orders
    assert s.replies == []
    tracks = [a["track"] for a in s.audit if a["state"] == "sent"]
    assert len(tracks) == len(set(tracks)) == len(s.orders)
    assert any(a["state"] == "acknowledged" for a in s.audit)
