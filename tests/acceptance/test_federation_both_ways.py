"""Two pipelines that take each other's local pictures: no sockets, the real messages."""

from __future__ import annotations

from typing import Any

import federation as fed
import msgpack
import numpy as np
import pytest

from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import LinkRecord
from fusionnode.pipeline import Pipeline

TIMES = np.arange(-15.0, 15.0)


@pytest.fixture(scope="module")
def scene() -> tuple[EarthOrientation, np.ndarray, dict[str, Any]]:
    orientation = EarthOrientation()
    rng = np.random.default_rng(11)
    x0 = fed.orbit(orientation, 800e3, 30.0, 1.0)
    return orientation, x0, {site: fed.seen(orientation, x0, site, TIMES, rng) for site in fed.SITES}


def ledger_adds_up(pipeline: Pipeline) -> bool:
    summary: Any = pipeline.summary()["federation"]
    return all(p["states"] == sum(p["outcomes"].values()) for p in summary["partners"].values())


def test_fused_is_better_than_either_alone_and_not_overconfident() -> None:
    found: Any = fed.measure(40, seconds=30.0)
    assert found["nees_mean"]["fused"] <= found["nees_upper_95"]
    assert found["rms_m"]["fused"] < min(found["rms_m"]["alpha"], found["rms_m"]["bravo"])


def test_both_see_one_object_and_what_they_send_each_other_is_their_own(scene: Any) -> None:
    orientation, _, looks = scene
    run = fed.both_ways(orientation, looks, TIMES)
    for name, messages in run.fused.items():
        assert {s["trackId"] for s in fed.of(messages)[-5:]} == {f"{name}-000001"}
        assert fed.of(messages)[-1]["provenance"] == [name, *(n for n in fed.SEEN_BY if n != name)]
        assert all(s["provenance"] == [name] for s in fed.of(run.local[name]))
        assert ledger_adds_up(run.pipelines[name])


def test_what_the_other_sends_changes_no_bit_of_the_own_tracks(scene: Any) -> None:
    orientation, _, looks = scene
    run = fed.both_ways(orientation, looks, TIMES)
    alone = fed.both_ways(orientation, looks, TIMES, change=lambda payloads, tick: [])
    assert run.local["alpha"] == alone.local["alpha"]


def test_the_same_records_and_ticks_give_the_same_bytes(scene: Any) -> None:
    orientation, _, looks = scene
    a = fed.both_ways(orientation, looks, TIMES)
    b = fed.both_ways(orientation, looks, TIMES)
    assert msgpack.packb(a.fused) == msgpack.packb(b.fused)


def test_an_object_that_only_the_other_sees_is_told_of_and_ends(scene: Any) -> None:
    orientation, _, looks = scene
    nothing = {site: d if site == "east" else d[:0] for site, d in looks.items()}
    times = [*TIMES, *np.arange(20.0, 1000.0, 20.0)]
    run = fed.both_ways(orientation, nothing, times, change=lambda p, tick: p if tick < len(TIMES) else [])
    states = [m for m in run.fused["alpha"] if m["type"] == "state"]
    assert {tuple(s["provenance"]) for s in states} == {("bravo",)}
    assert {s["trackId"] for s in states} == {"alpha-1000000001"}
    assert states[0]["releasableTo"] == ["ALPHA"]
    assert states[-1]["status"] == "coasting"
    ends = [m for m in run.fused["alpha"] if m["type"] == "tombstone"]
    assert [(e["trackId"], e["reason"]) for e in ends] == [("alpha-1000000001", "dropped")]
    assert run.local["alpha"] == [m for m in run.local["alpha"] if m["type"] == "heartbeat"]


def test_an_object_seen_by_the_other_first_goes_over_into_the_own_track(scene: Any) -> None:
    orientation, _, looks = scene
    later = {s: d[15:] if s != "east" else d for s, d in looks.items()}
    looks = later | {"common": later["common"][:0]}
    run = fed.both_ways(orientation, looks, TIMES)
    ends = [m for m in run.fused["alpha"] if m["type"] == "tombstone"]
    assert [(e["trackId"], e["reason"], e["successor"]) for e in ends] == [
        ("alpha-1000000001", "merged", "alpha-000001")
    ]
    assert fed.of(run.fused["alpha"])[-1]["provenance"] == ["alpha", "bravo"]


def test_a_restart_of_the_other_is_taken_up(scene: Any) -> None:
    """Another stream epoch, sequence numbers from one, other names of tracks."""
    orientation, _, looks = scene

    def anew(payloads: list[bytes], tick: int) -> list[bytes]:
        if tick < 20:
            return payloads
        out = []
        for payload in payloads:
            m = msgpack.unpackb(payload)
            m |= {"streamEpoch": "bravo-2", "seq": m["seq"] % 1000}
            if "trackId" in m:
                m["trackId"] = "bravo-anew"
            out.append(msgpack.packb(m))
        if tick == 20:
            states = [p for p in out if msgpack.unpackb(p)["type"] == "state"]
            head = {
                "v": 1,
                "type": "snapshot",
                "id": 1,
                "streamEpoch": "bravo-2",
                "seq": 0,
                "count": len(states),
            }
            out.insert(0, msgpack.packb(head) + b"".join(states))
        return out

    run = fed.both_ways(orientation, looks, TIMES, change=anew)
    last = fed.of(run.fused["alpha"])[-1]
    assert last["provenance"] == ["alpha", "bravo"]
    assert {s["trackId"] for s in fed.of(run.fused["alpha"])} == {"alpha-000001"}
    assert ledger_adds_up(run.pipelines["alpha"])


@pytest.mark.parametrize(
    "lie", ["far", "sure", "echo", "other_mode", "unmarked", "garbage", "stranger", "future"]
)
def test_a_liar_is_counted_and_moves_nothing(scene: Any, lie: str) -> None:
    orientation, x0, looks = scene

    def lying(payloads: list[bytes], tick: int) -> list[bytes]:
        out = []
        for payload in payloads:
            m = msgpack.unpackb(payload)
            if lie == "stranger" and m["type"] == "heartbeat":
                m["nodeId"] = "mallory"
            if m["type"] == "state":
                if lie == "far":
                    m["xpos"] = m["xpos"] + 50.0
                elif lie == "sure":
                    m["xpos"] = m["xpos"] + 5.0
                    m["cov"] = [c * 1e-12 for c in m["cov"]]
                elif lie == "echo":
                    m["provenance"] = ["alpha", "bravo"]
                elif lie == "other_mode":
                    m["dataMode"] = "EXERCISE"
                elif lie == "unmarked":
                    del m["releasableTo"]
                elif lie == "future":
                    m["epoch"] = "2025-09-02T00:00:00.000000Z"
            out.append(msgpack.packb(m) if lie != "garbage" else payload[: len(payload) // 2])
        return out

    run = fed.both_ways(orientation, looks, TIMES, change=lying)
    own = fed.newest(run.fused["alpha"], nodes=1)
    assert own is not None
    states = [s for s in fed.of(run.fused["alpha"]) if "alpha" in s["provenance"]]
    assert all(s["provenance"] == ["alpha"] for s in states[-10:])
    e, _ = fed.error(states[-1], orientation, x0)
    assert float(np.linalg.norm(e[:3])) < 200.0
    pipeline = run.pipelines["alpha"]
    assert ledger_adds_up(pipeline)
    summary: Any = pipeline.summary()
    outcomes = summary["federation"]["partners"]["bravo"]["outcomes"]
    expected = {
        "echo": "foreign_own", "other_mode": "foreign_other_mode", "unmarked": "foreign_unmarked",
        "stranger": "foreign_stranger", "future": "time_in_future",
    }.get(lie)  # fmt: skip
    if expected is not None:
        assert outcomes[expected] > 10
    elif lie == "garbage":
        assert summary["links"]["bravo"]["frame_malformed"] > 10


def test_what_the_partner_does_not_release_further_is_held_back(scene: Any) -> None:
    """A third group gets own states of what both see, and nothing of what only the partner sees."""
    orientation, _, looks = scene
    more = """
[group.third]
endpoint = "tcp://127.0.0.1:5630"
request_endpoint = "tcp://127.0.0.1:5631"
classification_marking = "U"
releasable_to = ["{}"]
[[group.third.rule]]
name = "all"
"""
    for to, nodes in (("CHARLIE", {("alpha",)}), ("ALPHA", {("alpha",), ("alpha", "bravo")})):
        configs = {
            "alpha": fed.node("alpha", "bravo", more=more.format(to)),
            "bravo": fed.node("bravo", "alpha"),
        }
        run = fed.both_ways(orientation, looks, TIMES, configs=configs)
        third = run.pipelines["alpha"].groups[1].take().messages
        states = [m for _, p in third if (m := msgpack.unpackb(p))["type"] == "state"]
        assert {tuple(s["provenance"]) for s in states} == nodes
        assert all(s["releasableTo"] == [to] for s in states)


def test_a_journal_of_records_and_ticks_gives_the_same_stream(scene: Any) -> None:
    orientation, _, looks = scene
    nothing = {site: d if site == "east" else d[:0] for site, d in looks.items()}
    run = fed.both_ways(orientation, nothing, TIMES)
    again = Pipeline(
        fed.node("alpha", "bravo"), stream_epoch="alpha-1", orientation=orientation, offset_key=fed.KEY
    )
    messages: list[Any] = []
    for item in run.records["alpha"]:
        if isinstance(item, LinkRecord):
            again.feed([item])
        else:
            messages += [msgpack.unpackb(p) for _, p in again.tick(item)]
    assert messages == run.fused["alpha"]
