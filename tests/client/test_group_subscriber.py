"""The client against a release group's publisher over real sockets: keys, history, resume, the paced mode, cues."""

import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import time

import msgpack
import numpy as np
import pytest
import zmq
from stand_in import StandIn

from fusionnode.client import (
    CueReply,
    EpochChange,
    Filled,
    Gap,
    Heartbeat,
    Position,
    Refused,
    State,
    Subscriber,
    Synced,
    Tombstone,
)
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import TRACK_STATE, Status
from fusionnode.core.types import Tombstone as Ended
from fusionnode.release.wire import StreamEncoder

T0_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def seen(subscriber, enough, meanwhile=lambda: None):
    """Events until ``enough(events)``."""
    events, give_up_at = [], time.monotonic() + 20.0
    while not enough(events):
        assert time.monotonic() < give_up_at, events[-5:]
        meanwhile()
        events += subscriber.receive(0.1)
    return events


class Group:
    """A stand-in, and an encoder for it."""

    def __init__(self, addresses, **options):
        self.live, self.requests = addresses
        self.server = StandIn(*addresses, **options)
        self.sign = None
        self.new_stream("allies-1")

    def new_stream(self, epoch):
        self.encoder = StreamEncoder(node_id="alpha", stream_epoch=epoch, sensor_names=["north"])

    def send(self, messages, lose=False):
        self.server.publish([self.sign(*m) for m in messages] if self.sign else messages, lose)

    def cut(self):
        """The publisher is gone, with all connections; another one takes over what it kept."""
        old = self.server
        old.close()
        self.server = StandIn(self.live, self.requests)
        self.server.take_over(old)

    def states(self, *tracks, lose=False):
        out = np.zeros(len(tracks), TRACK_STATE)
        out["track"] = tracks
        out["epoch_ns"] = out["last_ob_ns"] = T0_NS
        out["status"] = Status.CONFIRMED
        out["x"] = [7e6, 0, 0, 0, 7.5e3, 0]
        out["P"] = np.diag([100.0, 100, 100, 1e-2, 1e-2, 1e-2])
        out["sensors"], out["object"] = 1, -1
        out["updates"] = self.encoder.seq
        self.send(self.encoder.states(out), lose)

    def end(self, track, lose=False):
        self.send(self.encoder.tombstones([Ended(track, T0_NS, "dropped", None)]), lose)

    def beat(self, lose=False):
        self.send([self.encoder.heartbeat(T0_NS, 0)], lose)


@pytest.fixture
def make_group(free_addresses):
    groups = []

    def make(**options):
        groups.append(Group(free_addresses, **options))
        return groups[-1]

    yield make
    for group in groups:
        with contextlib.suppress(zmq.ZMQError):
            group.server.close()


@pytest.fixture
def keys(tmp_path):
    """A server's pair, and a subscriber's in files."""
    server, own = zmq.curve_keypair(), zmq.curve_keypair()
    (tmp_path / "group-allies.public").write_bytes(server[0] + b"\n")
    secret = tmp_path / "centre.secret"
    secret.write_bytes(own[1] + b"\n")
    secret.chmod(0o600)
    return {"server": server, "own": own, "folder": tmp_path}


def options(keys):
    return {
        "server_key": str(keys["folder"] / "group-allies.public"),
        "secret_key_file": keys["folder"] / "centre.secret",
    }


def settled(group, subscriber, until, fresh=False):
    """Events up to a heartbeat sent now, with a whole picture; ``fresh``: it may not be subscribed yet."""
    group.beat()
    seq = group.encoder.seq
    return until(
        subscriber,
        lambda: subscriber.whole and (subscriber.seq or 0) >= seq and subscriber.stream_epoch,
        group.beat if fresh else lambda: None,
    )


def joined(group, until, **more):
    subscriber = Subscriber(group.live, group.requests, **more)
    until(subscriber, lambda: subscriber.whole and subscriber.seq and subscriber.node, group.beat)
    settled(group, subscriber, until)
    return subscriber


def test_lost_messages_come_from_history_in_order_and_only_once(make_group, until):
    group = make_group()
    group.states(1, 2)
    with joined(group, until) as subscriber:
        assert subscriber.node.group == "allies"
        first = group.encoder.seq + 1
        group.states(1, 2, 3, lose=True)
        group.end(2, lose=True)
        group.states(1)
        events = settled(group, subscriber, until)
        assert of(Gap, events) == []
        assert of(Filled, events) == [Filled("allies-1", first, first + 3)]
        seqs = [e.seq for e in events if isinstance(e, State | Tombstone | Heartbeat)]
        assert seqs == list(range(first, first + 6))
        assert set(subscriber.picture) == {"alpha-000001", "alpha-000003"}
        assert subscriber.counts["filled"] == 4


def test_hours_later_it_goes_on_where_the_file_says_over_a_restart_of_the_node(make_group, until, tmp_path):
    group = make_group()
    file = tmp_path / "position"
    group.states(1, 2)
    with joined(group, until, resume_file=file) as subscriber:
        subscriber.checkpoint()
        at = subscriber.position
    assert json.loads(file.read_text()) == {"streamEpoch": "allies-1", "seq": at.seq}
    group.server.a_reply = 3
    group.states(*range(1, 9))
    group.new_stream("allies-2")
    group.states(4, 5)
    with Subscriber(group.live, group.requests, resume_file=file) as subscriber:
        events = settled(group, subscriber, until, fresh=True)
        assert of(Gap, events) == []
        assert of(EpochChange, events) == [EpochChange("allies-1", "allies-2", complete=True)]
        assert [e.seq for e in of(State, events)] == [*range(at.seq + 1, at.seq + 9), 1, 2]
        assert set(subscriber.picture) == {"alpha-000004", "alpha-000005"}
    # What was returned last was not said to be dealt with: it comes again.
    saved = json.loads(file.read_text())
    assert (saved["streamEpoch"], saved["seq"] <= group.encoder.seq) in (
        ("allies-1", True),
        ("allies-2", True),
    )


@pytest.mark.parametrize("seed", [1])
def test_under_losses_cuts_and_restarts_the_picture_ends_as_the_nodes_and_nothing_is_missed(
    make_group, until, seed
):
    rng = random.Random(seed)
    group = make_group()
    group.states(1)
    with joined(group, until) as subscriber:
        events, seq = [], subscriber.seq
        for step in range(120):
            lose = rng.random() < 0.2
            if rng.random() < 0.2:
                group.end(rng.randrange(9), lose=lose)
            else:
                group.states(*rng.sample(range(9), rng.randrange(1, 5)), lose=lose)
            if step % 50 == 25:
                group.cut()
            if step % 50 == 45:
                group.new_stream(f"allies-{step}")
                group.states(1)
            events += subscriber.receive(0.005)
        events += settled(group, subscriber, until, fresh=True)
        held = {b"state." + name.encode() for name in subscriber.picture}
        assert held == {topic for topic in group.server._cache.newest if topic.startswith(b"state.")}
        assert of(Gap, events) == []
        assert [e.complete for e in of(EpochChange, events)] == [True, True]
        told = [
            e if isinstance(e, EpochChange) else e.seq for e in events if not isinstance(e, Filled | Synced)
        ]
        for one in told:
            seq = 0 if isinstance(one, EpochChange) else seq + 1
            assert isinstance(one, EpochChange) or one == seq


def test_what_the_history_does_not_keep_is_a_gap_and_a_snapshot(make_group, until):
    group = make_group()
    group.states(1, 2)
    with joined(group, until) as subscriber:
        at = subscriber.position
    for _ in range(5):
        group.states(1)
    group.end(2)
    group.server.keeps = 2
    with Subscriber(group.live, group.requests, since=at) as subscriber:
        events = settled(group, subscriber, until, fresh=True)
        assert sum(gap.missed for gap in of(Gap, events)) >= 5
        assert of(Synced, events)
        assert set(subscriber.picture) == {"alpha-000001"}
        assert subscriber.counts["history_not_kept"] == 1


def test_live_messages_do_not_wait_for_ever_for_a_history_that_does_not_come(make_group, until):
    group = make_group()
    group.states(1)
    with joined(group, until, request_timeout_s=0.3) as subscriber:
        group.server.deaf_to.add("history_request")
        group.states(1, 2, lose=True)
        group.end(1)
        events = seen(subscriber, lambda _: subscriber.seq == group.encoder.seq and subscriber.whole)
        assert [gap.missed for gap in of(Gap, events)] == [2]
        assert set(subscriber.picture) == {"alpha-000002"}


def test_an_older_node_that_knows_no_hello_is_followed_by_snapshots(make_group, until):
    group = make_group(hello=False)
    group.states(1, 2)
    with joined(group, until) as subscriber:
        assert subscriber.node.features == ("snapshot",)
        group.states(1, 2, lose=True)
        group.end(2)
        events = settled(group, subscriber, until)
        assert [gap.missed for gap in of(Gap, events)] == [2]
        assert set(subscriber.picture) == {"alpha-000001"}
    with Subscriber(group.live, group.requests, since=Position("allies-1", 1)) as subscriber:
        events = settled(group, subscriber, until, fresh=True)
        assert of(Gap, events)
        assert set(subscriber.picture) == {"alpha-000001"}


def test_with_keys_all_goes_encrypted(make_group, keys, until):
    group = make_group(server_secret=keys["server"][1])
    group.server.allowed.add(keys["own"][0])
    group.states(1)
    with joined(group, until, **options(keys)) as subscriber:
        assert set(subscriber.picture) == {"alpha-000001"}


def test_a_refused_key_is_told_with_what_to_do_and_tried_again(make_group, keys, until, monkeypatch):
    monkeypatch.setattr("fusionnode.client.sockets._RETRY_S", 0.3)
    group = make_group(server_secret=keys["server"][1])
    with Subscriber(group.live, group.requests, **options(keys)) as subscriber:
        events = seen(subscriber, lambda events: len({e.address for e in of(Refused, events)}) == 2)
        told = of(Refused, events)
        assert {one.address for one in told} == {group.live, group.requests}
        assert {one.what for one in told} == {"key"}
        assert keys["own"][0].decode() in told[0].text
        assert "fusionnode keys allow" in told[0].text
        assert keys["own"][1].decode() not in told[0].text
        assert not subscriber.reached
        # The operator allows it: no restart of anything is needed.
        group.server.allowed.add(keys["own"][0])
        group.states(1)
        until(subscriber, lambda: subscriber.whole and subscriber.reached, group.beat)


@pytest.mark.parametrize(
    ("theirs", "ours", "word"),
    [
        (True, "wrong", "hangs up before the handshake"),
        (True, None, "speak only encrypted|speaks only encrypted"),
        (False, "right", "does not speak encrypted"),
    ],
)
def test_wrong_server_key_or_one_side_plain_is_told(make_group, keys, theirs, ours, word):
    group = make_group(server_secret=keys["server"][1] if theirs else None)
    group.server.allowed.add(keys["own"][0])
    mine = options(keys) if ours else {}
    if ours == "wrong":
        mine["server_key"] = zmq.curve_keypair()[0].decode()
    with Subscriber(group.live, group.requests, **mine) as subscriber:
        events = seen(subscriber, lambda events: of(Refused, events))
        assert of(Refused, events)[0].what == "connection"
        assert re.search(word, of(Refused, events)[0].text)


def test_a_key_of_the_paced_mode_only_is_told_to_use_it(make_group, keys):
    group = make_group(server_secret=keys["server"][1])
    group.server.allowed.add(keys["own"][0])
    group.server.paced_only.add(keys["own"][0])
    group.server.fields = {"paced": True, "maxBytesPerS": 4000}
    with Subscriber(group.live, group.requests, **options(keys)) as subscriber:
        events = seen(subscriber, lambda events: len(of(Refused, events)) == 2)
        paced = next(one for one in of(Refused, events) if one.what == "paced")
        assert "paced_bytes_per_s (at most 4000)" in paced.text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda k: (k["folder"] / "centre.secret").chmod(0o644), "chmod 600"),
        (lambda k: (k["folder"] / "centre.secret").unlink(), "No such file"),
        (lambda k: (k["folder"] / "centre.secret").write_text("short"), "not a secret key"),
        (lambda k: (k["folder"] / "group-allies.public").write_text("short"), "40 characters of Z85"),
        (lambda k: (k["folder"] / "group-allies.public").write_bytes(k["own"][0]), "given as the node's"),
    ],
)
def test_a_key_that_cannot_be_used_is_one_line_without_the_secret(keys, free_addresses, change, word):
    change(keys)
    with pytest.raises(ValueError, match=word) as failure:
        Subscriber(*free_addresses, **options(keys))
    assert keys["own"][1].decode() not in str(failure.value)
    assert "\n" not in str(failure.value)


def test_versions_that_do_not_meet_are_told(make_group):
    group = make_group()
    group.server.fields = {"versions": [2, 3], "version": None}
    with Subscriber(group.live, group.requests) as subscriber:
        events = seen(subscriber, lambda events: of(Refused, events))
        assert of(Refused, events)[0].what == "version"
        assert "version 2, 3" in of(Refused, events)[0].text


@pytest.mark.parametrize("compact", [True, False])
def test_the_paced_mode_keeps_the_picture_with_requests_only(make_group, until, compact):
    group = make_group()
    group.states(*range(50))
    group.beat()
    with Subscriber(None, group.requests, paced_bytes_per_s=8000, compact=compact) as subscriber:
        events = until(subscriber, lambda: subscriber.whole)
        assert len(subscriber.picture) == 50
        assert [event.tracks for event in of(Synced, events)] == [50]
        assert subscriber.picture["alpha-000007"]["xpos"] == pytest.approx(7000.0, abs=0.01 / 20)
        group.end(7)
        group.states(8, 60)
        events = until(subscriber, lambda: subscriber.seq == group.encoder.seq and subscriber.whole)
        assert [event.track_id for event in of(Tombstone, events)] == ["alpha-000007"]
        assert len(subscriber.picture) == 50
        assert subscriber.rtt_s == 0.25
        sent = [one["n"] for one in group.server.paced_sent]
        seen(subscriber, lambda _: sent == [a["n"] for a in group.server.asked if a["type"] == "paced_ack"])
        assert subscriber.position == Position("allies-1", group.encoder.seq)


def test_after_a_cut_the_paced_mode_goes_on_from_what_is_held(make_group, until):
    group = make_group()
    group.states(*range(30))
    with Subscriber(None, group.requests, paced_bytes_per_s=8000) as subscriber:
        until(subscriber, lambda: subscriber.whole)
        at = subscriber.seq
        group.cut()
        group.states(3)
        until(subscriber, lambda: subscriber.seq == group.encoder.seq and subscriber.whole)
        assert len(subscriber.picture) == 30
        assert group.server.paced_sent[0]["base"] == at
        sent = [one for one in group.server.asked if one["type"] == "paced_request"]
        assert sent[0]["resume"] == {"streamEpoch": "allies-1", "seq": at}


def test_a_request_for_an_observation_is_answered_by_events(make_group):
    group = make_group()
    group.states(1)
    window = {"from_utc": "2026-03-01T12:00:00.000000Z", "to_utc": "2026-03-01T13:00:00.000000Z"}
    with Subscriber(group.live, group.requests) as subscriber:
        number = subscriber.request_observation(track_id="alpha-000001", **window)
        events = seen(subscriber, lambda events: len(of(CueReply, events)) == 2)
        assert [(e.request_id, e.state, e.last) for e in of(CueReply, events)] == [
            (number, "accepted", False),
            (number, "acknowledged", True),
        ]
        asked = next(one for one in group.server.asked if one["type"] == "cue_request")
        assert (asked["trackId"], asked["satNo"], asked["sensor"]) == ("alpha-000001", None, None)
        for wrong in ({}, {"track_id": "a", "sat_no": 1}):
            with pytest.raises(ValueError, match="one of the two"):
                subscriber.request_observation(**wrong, **window)


def signer(private):
    """Signs as docs/WIRE.md says: one entry more, the last, over the map without it."""

    def sign(topic, payload):
        body = msgpack.unpackb(payload)
        return topic, msgpack.packb(body | {"sig": private.sign(payload)})

    return sign


def test_what_is_not_signed_by_the_node_is_refused_and_counted(make_group, until):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    private, other = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw().hex()
    group = make_group()
    group.server.fields = {"signingKey": public}
    group.sign = signer(private)
    group.states(1)
    with joined(group, until, signing_key=public) as subscriber:
        assert set(subscriber.picture) == {"alpha-000001"}
        assert "sig" not in subscriber.picture["alpha-000001"]
        group.server.keeps = 0
        for sign, count in ((None, "unsigned"), (signer(other), "forged")):
            group.sign = sign
            group.states(2)
            until(subscriber, lambda count=count: subscriber.counts.get(count))
            assert set(subscriber.picture) == {"alpha-000001"}


def test_a_changed_bit_anywhere_is_a_forgery():
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from fusionnode.client import decode
    from fusionnode.client.signature import Signer

    private = ed25519.Ed25519PrivateKey.generate()
    verify = Signer(private.public_key().public_bytes_raw().hex()).verify
    encoder = StreamEncoder(node_id="a", stream_epoch="e", sensor_names=["north"])
    for topic, payload in (encoder.heartbeat(T0_NS, 0), encoder.sensors(T0_NS, {"n": {"alive": True}})[0]):
        _, good = signer(private)(topic, payload)
        decode.live(topic, good, verify)
        for at in range(len(good)):
            bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
            with pytest.raises(decode.Refused):
                decode.live(topic, bad, verify)


def test_in_asyncio_it_is_the_same(make_group):
    group = make_group()
    group.states(1, 2)

    async def follow():
        seen = []
        async with Subscriber(group.live, group.requests) as subscriber:
            ticks = 0

            async def tick():  # the loop is not blocked meanwhile
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1
                    group.beat()

            other = asyncio.create_task(tick())
            async for event in subscriber:
                seen.append(event)
                if of(Synced, seen) and len(of(Heartbeat, seen)) > 5:
                    break
            other.cancel()
            assert ticks > 3
            assert await subscriber.receive_async(0.0) is not None
            return set(subscriber.picture)

    assert asyncio.run(asyncio.wait_for(follow(), 20)) == {"alpha-000001", "alpha-000002"}


def test_the_command_says_what_to_do_about_a_refused_key(make_group, keys):
    group = make_group(server_secret=keys["server"][1])
    mine = options(keys)
    command = [sys.executable, "-m", "fusionnode", "subscribe", group.live, "--snapshot", group.requests]
    command += ["--server-key", mine["server_key"], "--timeout", "0.8"]
    command += ["--key", str(mine["secret_key_file"])]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert "fusionnode keys allow GROUP PARTNER FILE" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_command_resumes(make_group, tmp_path):
    group = make_group()
    group.states(1, 2)
    command = [sys.executable, "-m", "fusionnode", "subscribe", group.live, "--snapshot", group.requests]
    command += ["--resume", str(tmp_path / "position"), "--json", "--for", "0.6"]

    def run():
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                group.beat()
                time.sleep(0.05)
            assert process.returncode == 0
            return [json.loads(line) for line in process.stdout.read().splitlines()]

    first = run()
    at = json.loads((tmp_path / "position").read_text())["seq"]
    group.states(2)
    second = run()
    assert {e["trackId"] for e in first if e["type"] == "state"} == {"alpha-000001", "alpha-000002"}
    assert [e["trackId"] for e in second if e["type"] == "state"] == ["alpha-000002"]
    live = [e["seq"] for e in second if e["type"] in ("state", "heartbeat")]
    assert live == list(range(at + 1, at + 1 + len(live)))
