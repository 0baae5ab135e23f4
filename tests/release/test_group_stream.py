"""What a release group gets, message by message, and what of the rest it can tell: nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from fusionnode.config import Config, parse
from fusionnode.core.outcome import Outcomes
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import TRACK_STATE, KnownObject, ObjectEvent, Status, StructArray, Tombstone
from fusionnode.release.group_wire import GroupEncoder, Markings
from fusionnode.release.groups import Groups

NS = 1_000_000_000
T0_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")
OBJECTS = [KnownObject(25544, "ISS (ZARYA)", "1998-067A"), KnownObject(43437, "PAZ", "2018-020A")]
STATION = """
[node]
id = "alpha"
[site.here]
lat_deg = 40.0
lon_deg = -3.0
[sensor.north]
id = 1
kind = "radar"
site = "here"
[sensor.south]
id = 2
kind = "radar"
site = "here"
{sensor}
[release]
keys_directory = "keys"
audit_directory = "audit"
[group.g]
endpoint = "tcp://0.0.0.0:5610"
request_endpoint = "tcp://0.0.0.0:5611"
classification_marking = "R"
releasable_to = ["GBR", "FRA"]
{group}
{rules}
"""


def station(rules: str = "", group: str = "", sensor: str = "", more: str = "") -> Config:
    return parse(STATION.format(rules=rules, group=group, sensor=sensor) + more, Path("allied.toml"))


class Catalogue:
    sat_no = np.array([known.sat_no for known in OBJECTS])


class Bench:
    """The groups of a node, fed by hand."""

    def __init__(self, orientation: EarthOrientation, config: Config, key: bytes = b"k" * 32) -> None:
        self.outcomes = Outcomes()
        self.groups = Groups(
            config, orientation, Catalogue(), lambda row: OBJECTS[row], self.outcomes, stream_epoch="alpha-1", key=key
        )  # fmt: skip
        self.stream = self.groups.streams[0]
        self.now = T0_NS

    def at(self, seconds: float, *rows: StructArray) -> list[dict[str, Any]]:
        """Tick, with states; gives the group's messages but for heartbeats and sensors."""
        self.now = T0_NS + round(seconds * NS)
        if rows:
            self.groups.states(np.concatenate(rows), self.now)
        self.groups.turn(self.now, lambda: {"north": {"alive": True, "detections": 17, "rateHz": 3.0}})
        return self.take()

    def take(self) -> list[dict[str, Any]]:
        released = self.stream.take()
        self.grants = released.grants
        self.everything = [msgpack.unpackb(payload) for _, payload in released.messages]
        for (topic, _), body in zip(released.messages, self.everything, strict=True):
            assert topic.split(b".")[0].decode() == body["type"]
            assert body["releasableTo"] == list(self.stream.policy.group.releasable_to)
        return [body for body in self.everything if body["type"] not in ("heartbeat", "sensor")]


def state(track: int, seconds: float = 0.0, known: int = -1, sensors: int = 1, **orbit: float) -> StructArray:
    """A low circular orbit's state, ``seconds`` after the start."""
    out = np.zeros(1, TRACK_STATE)
    out["track"], out["object"], out["sensors"] = track, known, sensors
    out["epoch_ns"] = out["last_ob_ns"] = T0_NS + round(seconds * NS)
    out["status"] = Status.CONFIRMED
    a = 6_378_137.0 + orbit.get("height_km", 700.0) * 1e3
    i, u = np.radians(orbit.get("inclination_deg", 60.0)), np.radians(orbit.get("u_deg", 0.0))
    n = np.sqrt(3.986004418e14 / a**3)
    u = u + n * seconds
    plane = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(i), np.sin(i)]])
    out["x"] = np.concatenate(
        [a * np.array([np.cos(u), np.sin(u)]) @ plane, a * n * np.array([-np.sin(u), np.cos(u)]) @ plane]
    )
    out["P"] = np.diag([100.0] * 3 + [0.01] * 3)
    out["nis"], out["dof"], out["updates"], out["existence"], out["object_p"] = 3.75, 4, 40, 0.999, 0.99
    return out


@pytest.fixture
def bench(orientation: EarthOrientation) -> Callable[..., Bench]:
    return lambda *args, **more: Bench(orientation, station(*args, **more))


RULE = '[[group.g.rule]]\nname = "r"\n'


def test_without_a_rule_nothing_goes_out(bench: Callable[..., Bench]) -> None:
    b = bench()
    assert b.at(1.0, state(1), state(2, known=0)) == []
    b.groups.event(ObjectEvent("manoeuvre", 1, b.now), b.now)
    b.groups.end(Tombstone(1, b.now, "dropped"), b.now)
    assert b.take() == []
    assert b.at(2.0) == []
    assert [m["tracks"] for m in b.everything if m["type"] == "heartbeat"] == [0]


def test_what_no_rule_releases_shows_in_no_count_and_no_name(orientation: EarthOrientation) -> None:
    """A node that tracks twenty things more gives the very same bytes."""
    config = station(RULE + "uct = false\nevents = true\n", group='sensor_status = ["north"]')
    taken = []
    for others in (0, 20):
        b = Bench(orientation, config)
        for k in range(6):
            hidden = [state(100 + j, k, u_deg=10.0 * j) for j in range(others)]
            b.at(k, *hidden[: others // 2], state(1, k, known=0), *hidden[others // 2 :])
            taken.append((others, b.everything))
            if others:
                b.groups.event(ObjectEvent("new_object_near", 1, b.now, related=105), b.now)
                b.groups.end(Tombstone(119, b.now, "merged", 1), b.now)
    assert [m for n, m in taken if n == 0] == [m for n, m in taken if n == 20]


def test_names_of_tracks_count_nothing_and_differ_between_groups(orientation: EarthOrientation) -> None:
    second = """
[group.h]
endpoint = "tcp://0.0.0.0:5612"
request_endpoint = "tcp://0.0.0.0:5613"
classification_marking = "R"
releasable_to = ["ITA"]
[[group.h.rule]]
name = "all"
"""
    config = station(RULE, more=second)
    b = Bench(orientation, config)
    b.groups.states(np.concatenate([state(n) for n in range(1, 40)]), b.now)
    ids = [[msgpack.unpackb(p)["trackId"] for _, p in s.take().messages] for s in b.groups.streams]
    assert len({*ids[0], *ids[1]}) == 78
    assert all(one.startswith("alpha-") and len(one) == 22 for one in ids[0])
    numbers = [int(one[6:], 16) for one in ids[0]]
    assert numbers != sorted(numbers)
    other = Bench(orientation, config, key=b"o" * 32)
    other.groups.states(state(1), b.now)
    assert other.stream.take().messages[0][0] != b"state." + ids[0][0].encode()


def test_fields_that_are_withheld_are_not_there(bench: Callable[..., Bench]) -> None:
    always = {
        "v", "type", "streamEpoch", "seq", "trackId", "epoch", "referenceFrame", "xpos", "ypos", "zpos", "xvel", "yvel",
        "zvel", "cov", "covReferenceFrame", "status", "classificationMarking", "dataMode", "source", "releasableTo",
    }  # fmt: skip
    (body,) = bench(RULE + 'fields = ["satNo", "updates"]\n').at(1.0, state(1, known=0))
    assert set(body) == always | {"satNo", "updates"}
    (body,) = bench(RULE + "fields = []\n").at(1.0, state(1, known=0))
    assert set(body) == always
    (body,) = bench(RULE).at(1.0, state(1, known=0))
    assert {"uct", "name", "idOnOrbit", "sensors", "existence"} < set(body)
    assert body["provenance"] == ["alpha"]
    assert body["idOnOrbit"] == "1998-067A"


def test_a_state_goes_out_when_its_delay_has_passed_and_so_does_what_happens_to_it(
    bench: Callable[..., Bench],
) -> None:
    b = bench(RULE + "delay_s = 10\nevents = true\n")
    got: list[tuple[float, str, str]] = []
    for k in range(25):
        rows = [state(1, k)] if k < 6 else []
        if k == 6:
            b.groups.end(Tombstone(1, T0_NS + 5 * NS, "dropped"), T0_NS + 5 * NS)
        if k == 4:
            b.groups.event(ObjectEvent("manoeuvre", 1, T0_NS + 4 * NS, sensors=1), T0_NS + 4 * NS)
        got += [(k, m["type"], m.get("epoch") or m.get("time")) for m in b.at(k, *rows)]
    assert [k for k, kind, _ in got if kind == "state"] == [10, 11, 12, 13, 14, 15]
    assert [(k, kind) for k, kind, _ in got if kind != "state"] == [(14, "event"), (15, "tombstone")]
    for k, kind, epoch in got:
        if kind == "state":
            assert tai_ns_from_utc_text(epoch) == T0_NS + (k - 10) * NS


def test_a_delayed_state_is_judged_by_the_policy_and_the_name_of_its_moment(
    orientation: EarthOrientation,
) -> None:
    rules = RULE + "delay_s = 10\nuct = true\n"
    b = Bench(orientation, station(rules))
    for k in range(5):
        b.at(k, state(1, k), state(2, k, u_deg=90.0))
    b.at(5, state(1, 5, known=0), state(2, 5, u_deg=90.0))  # track 1 is no UCT any more
    ids = {m["trackId"] for k in range(6, 15) for m in b.at(k)}
    assert len(ids) == 1
    b.groups.reload(station(RULE + "release = false\n"), b.now)
    assert [(m["type"], m["reason"]) for m in b.take()] == [("tombstone", "withdrawn")]
    assert [m for k in range(15, 40) for m in b.at(k)] == []


def test_memory_of_what_waits_is_bounded(bench: Callable[..., Bench]) -> None:
    b = bench(RULE + "delay_s = 64000\n")
    for k in range(3_000):
        b.at(k, state(1, k))
    assert b.stream.summary()["waiting"] == 3
    counts = b.outcomes.of("group:g")
    assert counts == {"superseded": 2_997}


def test_the_newest_state_goes_out_once_an_interval(bench: Callable[..., Bench]) -> None:
    b = bench(RULE + "min_interval_s = 5\n")
    sent = [(k, m["epoch"]) for k in range(22) for m in b.at(k, state(1, k)) if k < 20 or m]
    assert [k for k, _ in sent] == [0, 5, 10, 15, 20]
    epochs = [tai_ns_from_utc_text(epoch) for _, epoch in sent]
    assert epochs == [T0_NS + k * NS for k, _ in sent]


def test_of_a_track_that_falls_silent_the_last_state_still_comes(bench: Callable[..., Bench]) -> None:
    b = bench(RULE + "min_interval_s = 5\n")
    b.at(0, state(1, 0))
    assert b.at(3, state(1, 3)) == []
    later = [m for k in range(4, 12) for m in b.at(k, *([state(2, k, u_deg=80.0)] if k == 4 else []))]
    assert [
        m["trackId"] for m in later if m["epoch"].endswith("00:03.000000Z")
    ] == []  # too soon after the first
    assert b.at(12, state(1, 12)) != []


def test_leaving_the_area_withdraws_and_coming_back_needs_a_margin(bench: Callable[..., Bench]) -> None:
    b = bench(RULE + "inclination_deg = [50, 60]\n")
    (first,) = b.at(0, state(1, 0, inclination_deg=59.99))
    (gone,) = b.at(1, state(1, 1, inclination_deg=60.01))
    assert (gone["type"], gone["reason"], gone["successor"]) == ("tombstone", "withdrawn", None)
    assert gone["trackId"] == first["trackId"]
    assert [g.rule for g in b.grants] == [""]
    assert b.at(2, state(1, 2, inclination_deg=59.99)) == []  # does not flap
    (back,) = b.at(3, state(1, 3, inclination_deg=59.9))
    assert back["trackId"] == first["trackId"]
    assert b.grants == [(first["trackId"], None, "r", back["seq"])]


def test_a_change_of_correlation_that_changes_the_decision_withdraws(bench: Callable[..., Bench]) -> None:
    b = bench(RULE + "uct = true\n")
    assert [m["type"] for m in b.at(0, state(1))] == ["state"]
    assert [m["type"] for m in b.at(1, state(1, 1, known=1))] == ["tombstone"]


def test_a_successor_that_is_not_released_is_no_successor(bench: Callable[..., Bench]) -> None:
    b = bench(RULE + "uct = true\n")
    one, two, _ = b.at(0, state(1), state(2, u_deg=50.0), state(3, known=0), state(4, u_deg=99.0))
    b.groups.end(Tombstone(1, b.now, "merged", 3), b.now)
    b.groups.end(Tombstone(2, b.now, "merged", 4), b.now)
    b.groups.end(Tombstone(3, b.now, "merged", 4), b.now)
    hidden, shown = b.take()
    assert (hidden["trackId"], hidden["reason"], hidden["successor"]) == (one["trackId"], "dropped", None)
    assert (shown["trackId"], shown["reason"]) == (two["trackId"], "merged")
    assert shown["successor"] == _["trackId"]


def test_events_name_nothing_that_is_not_released(bench: Callable[..., Bench]) -> None:
    b = bench(
        RULE + 'uct = true\nevents = true\nfields = ["sensors"]\n', sensor='releasable_to = ["GBR", "FRA"]'
    )
    b.at(0, state(1), state(2, u_deg=50.0), state(3, known=0))
    for related, sensors in ((3, 1), (2, 1), (None, 1)):
        b.groups.event(
            ObjectEvent("breakup", 1, b.now, related=related, count=7, sensors=sensors, nis=9.0), b.now
        )
    b.groups.event(ObjectEvent("manoeuvre", 3, b.now), b.now)
    told = b.take()
    assert [m["relatedTrackId"] is None for m in told] == [False, True]
    assert all(m["count"] is None and m["nis"] is None and m["sensors"] == ["north"] for m in told)


def test_an_event_of_an_object_with_an_offset_gives_no_time_or_place_of_the_object_itself(
    bench: Callable[..., Bench],
) -> None:
    b = bench(RULE + "precision_m = 10000\nevents = true\n")
    b.at(0, state(1), state(2, u_deg=1.0))
    told = {}
    for epoch_ns, related in ((b.now - 123_456_789, None), (b.now, None), (b.now - 123_456_789, 2)):
        b.groups.event(
            ObjectEvent(
                "manoeuvre", 1, b.now, epoch_ns=epoch_ns, from_ns=b.now - 5 * NS, to_ns=b.now, related=related,
                delta_v=(1.0, 2.0, 3.0), distance_m=10.0, speed_m_s=3.0, height_m=7e5, perigee_m=6e5, nis=1.0, dof=2.0,
            ),
            b.now,
        )  # fmt: skip
        (told[epoch_ns, related],) = b.take()
    shifted, on_grid, near = told.values()
    for body in told.values():
        for key in (
            "epochFrom",
            "epochTo",
            "distance",
            "relativeSpeed",
            "height",
            "perigeeHeight",
            "nis",
            "dof",
        ):
            assert body[key] is None
    assert on_grid["epoch"] is None
    assert near["epoch"] is None
    moved = tai_ns_from_utc_text(shifted["epoch"]) - (b.now - 123_456_789)
    assert 1.3e4 / 7.6e3 < abs(moved) / NS < 3.6e4 / 7.0e3
    assert 1e-9 < np.abs(np.array(shifted["deltaV"]) * 1e3 - [1.0, 2.0, 3.0]).max() < 5e-3


def test_originator_control_comes_before_all_rules(orientation: EarthOrientation) -> None:
    for allowed, n in ((["GBR"], 1), (["FRA", "GBR", "ESP"], 3), ([], 1)):
        b = Bench(orientation, station(RULE, sensor=f"releasable_to = {allowed}"))
        assert len(b.at(0, state(1, sensors=1), state(2, sensors=2), state(3, sensors=3))) == n


def test_the_first_rule_that_holds_decides(bench: Callable[..., Bench]) -> None:
    rules = """
[[group.g.rule]]
name = "not-this"
release = false
objects = [25544]
[[group.g.rule]]
name = "known"
uct = false
fields = ["name"]
[[group.g.rule]]
name = "rest"
fields = []
"""
    b = bench(rules)
    known, unknown = b.at(0, state(1, known=0), state(2, known=1), state(3))
    assert known["name"] == "PAZ"
    assert "name" not in unknown
    assert [(g.rule, g.sat_no) for g in b.grants] == [("known", 43437), ("rest", None)]


def test_a_precision_never_becomes_finer_again_until_the_rules_change(orientation: EarthOrientation) -> None:
    text = """
[[group.g.rule]]
name = "coarse"
status = ["coasting"]
precision_m = 1000
[[group.g.rule]]
name = "fine"
"""
    b = Bench(orientation, station(text))
    row = state(1, 0)
    row["status"] = Status.COASTING

    def off(body: dict[str, Any], row: StructArray) -> float:
        return float(
            np.linalg.norm(np.array([body["xpos"], body["ypos"], body["zpos"]]) * 1e3 - row["x"][0, :3])
        )

    assert off(b.at(0, row)[0], row) > 1_000.0
    assert off(b.at(1, state(1, 1))[0], state(1, 1)) > 1_000.0
    kept = b.groups.export()
    again = Bench(orientation, station(text))
    again.groups.take_up(kept)
    assert off(again.at(1, state(1, 1))[0], state(1, 1)) > 1_000.0
    b.groups.reload(station(RULE), b.now)
    assert off(b.take()[0], state(1, 1)) < 1e-3


def test_reload_swaps_rules_at_once_and_refuses_other_groups(orientation: EarthOrientation) -> None:
    b = Bench(orientation, station(RULE))
    one, two = b.at(0, state(1, known=0), state(2, u_deg=40.0))
    before = b.stream.policy.digest
    b.groups.reload(station(RULE.replace('"r"', '"new"') + 'uct = false\nfields = ["name"]\n'), b.now)
    assert b.stream.policy.digest != before
    renewed, gone = sorted(b.take(), key=lambda m: m["type"])
    assert (gone["trackId"], gone["reason"]) == (two["trackId"], "withdrawn")
    assert renewed["trackId"] == one["trackId"]
    assert "nis" not in renewed
    assert sorted(g.rule for g in b.grants) == ["", "new"]
    with pytest.raises(ValueError, match="restart"):
        b.groups.reload(station(RULE).model_copy(update={"group": {}}), b.now)


def test_without_markings_nothing_goes_out_and_nothing_is_raised(orientation: EarthOrientation) -> None:
    whole = ("U", "TEST", "node", ["GBR"])
    assert Markings(*whole).packed is not None
    for broken in (
        ("", *whole[1:]),
        ("U", "", "node", ["GBR"]),
        (*whole[:2], " ", ["GBR"]),
        (*whole[:3], []),
    ):
        encoder = GroupEncoder(node_id="n", group="g", stream_epoch="e", markings=Markings(*broken))
        assert encoder.heartbeat(T0_NS, 0, 1.0) is None
        assert encoder.tombstone("a", T0_NS, "dropped", None) is None
        assert (encoder.unmarked, encoder.seq) == (2, 0)
    b = Bench(orientation, station(RULE))
    b.stream.encoder.markings = Markings("U", "TEST", "node", [])
    assert b.at(0, state(1)) == []
    assert b.everything == []
    assert b.outcomes.of("group:g") == {"unmarked": 1}
    assert b.stream.tracks == 0


def test_sensors_are_told_of_by_name_and_without_counts(bench: Callable[..., Bench]) -> None:
    b = bench(group='sensor_status = ["north"]')
    b.at(1.0)
    sensors = [m for m in b.everything if m["type"] == "sensor"]
    assert [m["sensor"] for m in sensors] == ["north"]
    assert "detections" not in sensors[0]
    assert "rateHz" not in sensors[0]
    assert sensors[0]["alive"] is True
    bench().at(1.0)
    heartbeat = b.everything[-1]
    assert "links" not in heartbeat
    assert heartbeat["group"] == "g"


def test_the_groups_counts_add_up(orientation: EarthOrientation) -> None:
    rules = RULE + 'uct = true\ndelay_s = 3\nmin_interval_s = 4\nsensors_none = ["south"]\n'
    b = Bench(orientation, station(rules))
    rng = np.random.default_rng(5)
    fed = 0
    for k in range(60):
        rows = [
            state(
                t,
                k,
                known=int(rng.integers(-1, 1)) if t == 2 else -1,
                sensors=int(rng.integers(1, 3)),
                u_deg=30.0 * t,
            )
            for t in range(1, 6)
            if rng.random() < 0.8
        ]
        if rows:
            fed += len(rows)
            b.at(k, *rows)
        if k % 20 == 19:
            b.groups.end(Tombstone(k % 5 + 1, b.now, "dropped"), b.now)
    b.groups.stop(b.now)
    counts = b.outcomes.of("group:g")
    assert sum(counts.values()) == fed
    assert counts["released"] > 10
    assert b.stream.summary()["waiting"] == 0
    assert b.stream.tracks == 0


def test_a_state_that_is_not_finite_is_not_released(bench: Callable[..., Bench]) -> None:
    b = bench(RULE + "precision_m = 100\n")
    bad = state(1)
    bad["x"][0, 2] = np.nan
    worse = state(2)
    worse["P"][0, 3, 3] = np.inf
    assert [m["type"] for m in b.at(0, bad, worse, state(3))] == ["state"]
