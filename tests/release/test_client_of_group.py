"""The client against a release group's real publisher process: keys, losses, hours away, the paced mode, signatures."""

import os
import signal
import time

import numpy as np
import pytest

from fusionnode.client import EpochChange, Gap, Refused, State, Subscriber, Synced, Tombstone
from fusionnode.client.signature import signed_bytes
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import Tombstone as Ended

keyring = pytest.importorskip("fusionnode.security.keyring")
settings = pytest.importorskip("fusionnode.release.settings")
group_support = pytest.importorskip("group_support")

T_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def seen(subscriber, enough, meanwhile=lambda: None, seconds=30.0):
    """Events until ``enough(events)``."""
    events, give_up_at = [], time.monotonic() + seconds
    while not enough(events):
        assert time.monotonic() < give_up_at, (events[-5:], subscriber.counts)
        meanwhile()
        events += subscriber.receive(0.1)
    return events


class Station:
    """A house and its stream."""

    def __init__(self, house, encoder, states):
        self.house, self.encoder, self.states = house, encoder, states
        self.stream = encoder()
        house.open(**({"sign": self.sign} if house.settings.signing_key else {}))

    def send(self, n, first=0):
        self.house.outlet.send(self.stream.states(self.states(n, first)))

    def end(self, track):
        self.house.outlet.send(self.stream.tombstones([Ended(track, T_NS, "dropped")]))

    def beat(self):
        self.house.outlet.send([self.stream.heartbeat(T_NS, 0)])

    def sign(self, payload):
        from fusionnode.release.signing import Signer

        return Signer(self.house.keys.signing_secret()).sign(payload)

    def restart(self, epoch):
        self.house.outlet.close()
        self.stream = self.encoder(stream_epoch=epoch)
        self.house.open()

    def subscriber(self, name="bravo", live=True, **options):
        secret = self.house.folder / f"{name}.secret"
        secret.write_bytes(self.house.pairs[name].secret + b"\n")
        secret.chmod(0o600)
        return Subscriber(
            self.house.live if live else None,
            self.house.request,
            server_key=self.house.folder / "keys" / "group-allies.public",
            secret_key_file=secret,
            **options,
        )

    def followed(self, subscriber):
        """Events until the subscriber has all that was sent."""

        def enough(_):
            return (
                subscriber.whole
                and subscriber.stream_epoch == self.stream._stream_epoch
                and subscriber.seq == self.stream.seq
            )

        beaten = 0.0

        def meanwhile():
            nonlocal beaten
            if time.monotonic() - beaten > 0.3:
                beaten = time.monotonic()
                self.beat()

        return seen(subscriber, enough, meanwhile)


@pytest.fixture
def station(tmp_path, addresses, encoder, states):
    made = []

    def make(**changes):
        house = group_support.House(tmp_path, addresses, **changes)
        made.append(house)
        return Station(house, encoder, states)

    yield make
    for house in made:
        house.close()


def test_a_partner_follows_and_a_killed_publisher_is_told_and_mended(station):
    home = station()
    home.send(30)
    with home.subscriber() as subscriber:
        home.followed(subscriber)
        assert len(subscriber.picture) == 30
        assert subscriber.node.group == "allies"
        assert "history" in subscriber.node.features
        os.kill(home.house.outlet.publisher_pid, signal.SIGKILL)
        home.end(3)
        time.sleep(1.1)
        home.send(5, 100)
        home.followed(subscriber)
        assert len(subscriber.picture) == 34


def test_after_hours_and_a_restart_all_comes_from_the_spool(station, tmp_path):
    home = station(spool=str(tmp_path / "spool"))
    home.send(10)
    file = tmp_path / "position"
    with home.subscriber(resume_file=file) as subscriber:
        home.followed(subscriber)
        subscriber.checkpoint()
        at = subscriber.position
    home.send(10)
    home.end(3)
    last = home.stream.seq
    home.restart("alpha-2")
    home.send(4)
    with home.subscriber(resume_file=file) as subscriber:
        events = home.followed(subscriber)
        assert of(Gap, events) == []
        assert of(EpochChange, events) == [EpochChange("alpha-1", "alpha-2", complete=True)]
        assert [e.seq for e in of(State, events)] == [*range(at.seq + 1, at.seq + 11), 1, 2, 3, 4]
        assert [e.seq for e in of(Tombstone, events)] == [last]
        assert len(subscriber.picture) == 4


def test_a_thin_link_is_paced_and_goes_on_after_a_restart_of_the_publisher(station):
    home = station(partners={"bravo": settings.Partner(paced_bytes_per_s=20_000)})
    home.send(60)
    with home.subscriber(live=False, paced_bytes_per_s=20_000) as subscriber:
        home.followed(subscriber)
        assert subscriber.node.paced_only
        sent = home.states(60)
        for row in sent:
            held = subscriber.picture[f"alpha-{row['track']:06d}"]
            off = np.array([held[k] for k in ("xpos", "ypos", "zpos")]) * 1e3 - row["x"][:3]
            assert np.abs(off).max() < np.sqrt(np.diag(row["P"])[:3].max()) / 20
        home.end(7)
        home.send(2, 70)
        events = home.followed(subscriber)
        assert [e.track_id for e in of(Tombstone, events)] == ["alpha-000007"]
        assert len(subscriber.picture) == 61
        os.kill(home.house.outlet.publisher_pid, signal.SIGKILL)
        home.end(8)
        time.sleep(1.1)
        home.send(1, 90)
        events = home.followed(subscriber)
        assert len(subscriber.picture) == 61
        assert "alpha-000008" not in subscriber.picture
        assert of(Synced, events)


def test_a_revoked_partner_is_told_and_the_others_go_on(station, monkeypatch):
    monkeypatch.setattr("fusionnode.client.sockets._RETRY_S", 0.3)
    home = station(partners=("bravo", "charlie"))
    home.send(3)
    with home.subscriber("bravo") as bravo, home.subscriber("charlie") as charlie:
        home.followed(bravo)
        home.followed(charlie)
        home.house.keys.revoke("allies", "bravo")
        events = seen(bravo, lambda events: len({e.address for e in of(Refused, events)}) == 2, home.beat)
        assert {e.what for e in of(Refused, events)} == {"key"}
        home.send(2, 50)
        home.followed(charlie)
        assert len(charlie.picture) == 5
        assert len(bravo.picture) == 3


def test_what_a_node_signs_is_verified(station, tmp_path):
    pytest.importorskip("cryptography")
    keys = keyring.Keyring(tmp_path / "keys")
    keys.new("signing")
    public = keys.signing_public()
    home = station(signing_key=public)
    home.send(20)
    with home.subscriber(signing_key=public) as subscriber:
        home.followed(subscriber)
        assert len(subscriber.picture) == 20
        assert {"unsigned", "forged"}.isdisjoint(subscriber.counts)
    payload = home.stream.heartbeat(T_NS, 0)[1]
    assert signed_bytes(home.sign(payload)) == payload
