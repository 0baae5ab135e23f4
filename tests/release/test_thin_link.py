"""A thin link that is cut for a while: afterwards the subscriber holds what the publisher has released, just that."""

import threading
import time

import msgpack
import pytest
from group_support import House

from fusionnode.client import Subscriber
from fusionnode.client.events import Gap, State
from fusionnode.core.schema import REASON_DROPPED
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import Tombstone as Ended
from fusionnode.release.settings import Partner
from fusionnode_hil.relay import Relay, Route, Shape

T_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")
THIN = Shape(rate_bit_s=1_200_000, delay_s=0.03, jitter_s=0.01, loss=0.05)


def endpoint(address):
    host, port = address.removeprefix("tcp://").split(":")
    return host, int(port)


@pytest.fixture
def home(tmp_path, addresses):
    home = House(
        tmp_path, addresses, partners={"bravo": Partner(), "slow": Partner(paced_bytes_per_s=40_000)}
    )
    home.open()
    yield home
    home.close()


@pytest.fixture
def relay(home):
    relay = Relay([Route(("127.0.0.1", 0), endpoint(address)) for address in (home.live, home.request)], THIN)
    thread = threading.Thread(target=relay.run, daemon=True)
    thread.start()
    yield relay
    relay.stop()
    thread.join(5)


def connect(home, relay, name, **options):
    secret = home.folder / f"{name}.secret"
    secret.write_bytes(home.pairs[name].secret + b"\n")
    secret.chmod(0o600)
    live, request = (f"tcp://{host}:{port}" for host, port in relay.addresses)
    if "paced_bytes_per_s" in options:
        live = None
    return Subscriber(live, request, server_key=home.public.decode(), secret_key_file=secret, **options)


def follow(subscriber, until, beat, seconds=40):
    events, end = [], time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, (subscriber.counts, subscriber.seq, len(subscriber.picture))
        beat()
        events += subscriber.receive(0.05)
    return events


@pytest.mark.parametrize("way", ["paced", "live", "dropped"])
def test_after_a_cut_the_picture_is_that_of_the_publisher(home, relay, encoder, states, way):
    stream = encoder()
    beat = lambda: home.outlet.send([stream.heartbeat(T_NS, 0)])  # noqa: E731
    options = {"paced_bytes_per_s": 40_000} if way == "paced" else {}
    with connect(home, relay, "slow" if way == "paced" else "bravo", **options) as subscriber:
        home.outlet.send(stream.states(states(40)))
        follow(subscriber, lambda: subscriber.whole and len(subscriber.picture) == 40, beat)
        relay.cut()
        if way == "dropped":
            relay.drop()
        for n in range(10):
            home.outlet.send(stream.states(states(30, first=10 * n)))
            home.outlet.send(
                stream.tombstones([Ended(n, T_NS, REASON_DROPPED), Ended(12 * n + 30, T_NS, REASON_DROPPED)])
            )
            subscriber.receive(0.05)
        assert len(subscriber.picture) == 40  # nothing came through
        relay.heal()
        truth = {
            (body := msgpack.unpackb(payload))["trackId"]: body["epoch"]
            for topic, payload in home.outlet._cache.newest.items()
            if topic.startswith(b"state.")
        }

        def equal():
            return subscriber.whole and {t: s["epoch"] for t, s in subscriber.picture.items()} == truth

        events = follow(subscriber, equal, beat)
        assert len(truth) > 90
        if way == "paced":
            return
        # A snapshot may have come first; then every message of the cut comes nevertheless, in order.
        got = [event.seq for event in events if isinstance(event, State) and not event.from_snapshot]

        end = time.monotonic() + 20
        while len(got) < 300 and time.monotonic() < end:
            beat()
            events += (more := subscriber.receive(0.05))
            got += [event.seq for event in more if isinstance(event, State) and not event.from_snapshot]
        assert len(got) >= 300
        assert got == sorted(got)
        assert not [event for event in events if isinstance(event, Gap)]
        assert equal()
