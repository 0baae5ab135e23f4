"""The project's own subscriber at a release group's publisher: the two ends of docs/WIRE.md, over real sockets."""

import os
import signal
import time
from dataclasses import replace

import msgpack
import pytest
from group_support import House

from fusionnode.client import Subscriber
from fusionnode.client.events import Gap, State, Tombstone
from fusionnode.core.schema import REASON_DROPPED
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import Tombstone as Ended
from fusionnode.release.settings import Partner

T_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


@pytest.fixture
def home(tmp_path, addresses):
    partners = {"bravo": Partner(), "slow": Partner(paced_bytes_per_s=60_000)}
    home = House(tmp_path, addresses, partners=partners, spool=str(tmp_path / "spool"))
    yield home
    home.close()


def connect(home, name="bravo", **options):
    secret = home.folder / f"{name}.secret"
    secret.write_bytes(home.pairs[name].secret + b"\n")
    secret.chmod(0o600)
    options = {"server_key": home.public.decode(), "secret_key_file": secret} | options
    return Subscriber(options.pop("live", home.live), home.request, **options)


def follow(subscriber, until, seconds=20, beat=lambda: None):
    events = []
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, (subscriber.counts, events[-3:])
        beat()
        events += subscriber.receive(0.05)
    return events


def beating(home, stream):
    return lambda: home.outlet.send([stream.heartbeat(T_NS, 0)])


def truth(home):
    states = (msgpack.unpackb(p) for t, p in home.outlet._cache.newest.items() if t.startswith(b"state."))
    return {body["trackId"]: body["epoch"] for body in states}


def picture(subscriber):
    return {track: state["epoch"] for track, state in subscriber.picture.items()}


def test_everything_comes_once_and_in_order_though_the_publisher_was_killed(home, encoder, states):
    home.open()
    stream = encoder()
    beat = beating(home, stream)
    with connect(home) as subscriber:
        follow(subscriber, lambda: subscriber.whole, beat=beat)
        home.outlet.send(stream.states(states(50)))
        events = follow(subscriber, lambda: subscriber.seq == stream.seq)
        assert len([event for event in events if isinstance(event, State)]) == 50
        os.kill(home.outlet.publisher_pid, signal.SIGKILL)
        home.outlet.send(stream.tombstones([Ended(3, T_NS, REASON_DROPPED)]))
        events = follow(
            subscriber, lambda: home.outlet.restarts == 1 and subscriber.seq == stream.seq, beat=beat
        )
        follow(subscriber, lambda: subscriber.whole, beat=beat)
        assert picture(subscriber) == truth(home)
        assert len(subscriber.picture) == 49


def test_one_who_was_away_over_a_restart_of_the_node_misses_nothing(home, encoder, states, tmp_path):
    home.open()
    stream = encoder()
    beat = beating(home, stream)
    place = tmp_path / "place.json"
    with connect(home, resume_file=place) as subscriber:
        follow(subscriber, lambda: subscriber.whole, beat=beat)
        home.outlet.send(stream.states(states(20)))
        follow(subscriber, lambda: subscriber.seq == stream.seq and subscriber.whole)
        subscriber.receive(0.05)  # whoever asks for more has dealt with what he had
    home.outlet.send(stream.states(states(30)))
    home.outlet.close()
    home.open()
    stream = encoder(stream_epoch="alpha-2")
    home.outlet.send(stream.states(states(10)))
    beat = beating(home, stream)
    with connect(home, resume_file=place) as subscriber:
        events = follow(
            subscriber, lambda: subscriber.whole and subscriber.stream_epoch == "alpha-2", beat=beat
        )
        events += follow(subscriber, lambda: subscriber.seq == stream.seq)
        seen = [event for event in events if isinstance(event, State) and not event.from_snapshot]
        assert len(seen) == 40
        assert not [event for event in events if isinstance(event, Gap)]
        assert picture(subscriber) == truth(home)


def test_a_paced_subscriber_holds_the_picture(home, encoder, states):
    home.open()
    stream = encoder()
    beat = beating(home, stream)
    home.outlet.send(stream.states(states(100)))
    with connect(home, "slow", live=None, paced_bytes_per_s=50_000) as subscriber:
        follow(subscriber, lambda: subscriber.whole)
        assert picture(subscriber) == truth(home)
        home.outlet.send(stream.tombstones([Ended(3, T_NS, REASON_DROPPED)]))
        home.outlet.send(stream.states(states(40, first=90)))
        events = follow(
            subscriber, lambda: subscriber.whole and subscriber.seq == stream.seq, beat=lambda: None
        )
        assert [event.track_id for event in events if isinstance(event, Tombstone)] == ["alpha-000003"]
        assert picture(subscriber) == truth(home)
        os.kill(home.outlet.publisher_pid, signal.SIGKILL)
        follow(
            subscriber, lambda: home.outlet.restarts and subscriber.seq == stream.seq and subscriber.whole,
            seconds=45, beat=beat,
        )  # fmt: skip
        assert picture(subscriber) == truth(home)


def test_signed_messages_are_proved_and_forged_ones_refused(home, encoder, states):
    signing = pytest.importorskip("fusionnode.release.signing")
    home.keys.new("signing")
    signer = signing.Signer(home.keys.signing_secret())
    forger = signing.Signer(bytes(32))
    home.settings = replace(home.settings, signing_key=signer.public)
    sign = [signer.sign]
    home.open(sign=lambda payload: sign[0](payload))
    stream = encoder()
    with connect(home, signing_key=home.keys.signing_public()) as subscriber:
        follow(subscriber, lambda: subscriber.whole, beat=beating(home, stream))
        home.outlet.send(stream.states(states(5)))
        follow(subscriber, lambda: len(subscriber.picture) == 5)
        sign[0] = forger.sign
        home.outlet.send(stream.states(states(20)))
        sign[0] = signer.sign
        follow(subscriber, lambda: subscriber.counts.get("forged") == 20)
        assert len(subscriber.picture) == 5
