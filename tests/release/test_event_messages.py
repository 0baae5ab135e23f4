"""An event on its way: encoder, publisher's cache, client, and clients that do not know it."""

from __future__ import annotations

import json

import msgpack
import numpy as np
import pytest

from fusionnode.cli.subscribe import _as_json, _as_text
from fusionnode.client import ObjectEvent as ClientEvent
from fusionnode.client import State, decode
from fusionnode.client.picture import Picture
from fusionnode.core import schema
from fusionnode.core.types import TRACK_STATE, ObjectEvent, Tombstone
from fusionnode.release.publisher import Cache
from fusionnode.release.wire import StreamEncoder

T = 1_750_000_000_000_000_000
BURN = ObjectEvent(
    kind=schema.EVENT_MANOEUVRE,
    track=7,
    t_ns=T,
    epoch_ns=T - 10_000_000_000,
    to_ns=T - 5_000_000_000,
    delta_v=(1.0, -2.0, 2.0),
    delta_v_sigma_m_s=0.25,
    distance_m=40.0,
    distance_sigma_m=30.0,
    sensors=0b10,
    nis=90.0,
    dof=20.0,
)
NEAR = ObjectEvent(
    schema.EVENT_NEW_OBJECT_NEAR, 8, T, epoch_ns=T, related=7, distance_m=500.0, speed_m_s=12.5
)


def encoder() -> StreamEncoder:
    return StreamEncoder(node_id="n", stream_epoch="n-1", sensor_names=("north", "south"))


def state(track: int = 7) -> np.ndarray:
    one = np.zeros(1, TRACK_STATE)
    one["track"], one["epoch_ns"], one["last_ob_ns"], one["status"], one["object"] = track, T, T, 1, -1
    one["P"] = np.eye(6)
    return one


def test_an_event_reaches_the_subscriber_with_its_evidence_in_km() -> None:
    stream = encoder()
    ((topic, payload),) = stream.events([BURN])
    assert topic == b"event.manoeuvre.n-000007"
    picture = Picture()
    (event,) = picture.live(decode.live(topic, payload))
    assert isinstance(event, ClientEvent)
    assert (event.kind, event.track_id, event.seq) == ("manoeuvre", "n-000007", 1)
    assert event.fields["deltaV"] == [0.001, -0.002, 0.002]
    assert event.fields["deltaVSigma"] == 0.00025
    assert event.fields["epochFrom"] is None
    assert event.fields["sensors"] == ["south"]
    assert "manoeuvre" in _as_text(event)
    assert "3.00 m/s" in _as_text(event)
    assert json.loads(_as_json(event))["deltaV"] == event.fields["deltaV"]
    line = json.loads(stream.event_line(BURN))
    body = msgpack.unpackb(payload)
    assert {k: v for k, v in line.items() if k != "type"} == {
        k: v for k, v in body.items() if k not in schema.Envelope.__annotations__
    }


def test_a_topic_that_is_not_the_events_is_refused() -> None:
    ((_, payload),) = encoder().events([BURN])
    with pytest.raises(decode.Refused, match=decode.MALFORMED):
        decode.live(b"event.decay.n-000007", payload)


def test_a_snapshot_holds_events_as_long_as_their_track_lives_and_none_is_told_twice() -> None:
    stream, cache = encoder(), Cache()
    sent = [
        *stream.states(state()),
        *stream.states(state(8)),
        *stream.events([BURN, NEAR]),
        *stream.events([BURN]),
    ]
    for message in sent:
        cache.apply(*message)
    header, parts = cache.snapshot() or ({}, [])
    assert header["count"] == 4
    live, late = Picture(), Picture()
    told = [event for message in sent for event in live.live(decode.live(*message))]
    assert [type(event) for event in told] == [State, State, ClientEvent, ClientEvent, ClientEvent]
    top = decode.Message(schema.TYPE_SNAPSHOT, "n-1", header["seq"], {"count": 4})
    messages = [m for part in parts for m in decode.snapshot_part(part)]
    assert not [e for e in live.snapshot(top, messages) if isinstance(e, ClientEvent)]
    again = [e for e in late.snapshot(top, messages) if isinstance(e, ClientEvent)]
    assert [(e.kind, e.from_snapshot) for e in again] == [("manoeuvre", True), ("new_object_near", True)]
    (gone,) = stream.tombstones([Tombstone(7, T, "dropped")])
    cache.apply(*gone)
    assert list(cache.newest) == [b"state.n-000008", b"event.new_object_near.n-000008"]
    cache.apply(*stream.events([BURN])[0])
    assert len(cache.newest) == 2


def test_a_client_counts_types_it_does_not_know_in_the_sequence_and_does_nothing_else() -> None:
    stream = encoder()
    ((_, payload),) = stream.events([BURN])
    unknown = msgpack.packb({**msgpack.unpackb(payload), "type": "novelty"})
    messages = [(b"novelty.x", unknown), *stream.states(state()), stream.heartbeat(T, 1)]
    picture = Picture()
    told = [type(e).__name__ for m in messages for e in picture.live(decode.live(*m))]
    assert told == ["State", "Heartbeat"]
