import json
import math
import re
from pathlib import Path

import msgpack
import numpy as np
import pytest

from fusionnode.core import schema
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import KnownObject, Tombstone
from fusionnode.release.wire import StreamDigest

WIRE_MD = Path(__file__).parents[2] / "docs" / "WIRE.md"
ENVELOPE = list(schema.Envelope.__annotations__)
T_NS = tai_ns_from_utc_text("2026-03-01T12:00:30.25Z")


def bodies(messages):
    return [msgpack.unpackb(payload) for _topic, payload in messages]


def test_a_state_has_the_keys_of_the_schema_in_their_order(encoder, states):
    body = bodies(encoder().states(states(1)))[0]
    assert list(body) == ENVELOPE + list(schema.ObjectState.__annotations__)
    assert [body[key] for key in ENVELOPE] == [1, "state", "alpha-1", 1]


def test_si_goes_out_as_kilometres_and_the_covariance_row_by_row_of_the_lower_triangle(encoder, states):
    one = states(1)
    one["x"] = [[6_778_137.0, -2.5, 0.0, 7_500.0, -0.25, 1.0]]
    lower = [[1e6 * (10 * i + j) for j in range(6)] for i in range(6)]
    one["P"] = np.tril(lower) + np.tril(lower, -1).T
    body = bodies(encoder().states(one))[0]
    keys = ("xpos", "ypos", "zpos", "xvel", "yvel", "zvel")
    assert [body[key] for key in keys] == [6_778.137, -0.0025, 0.0, 7.5, -0.00025, 0.001]
    assert body["cov"] == [10.0 * i + j for i in range(6) for j in range(i + 1)]


@pytest.mark.parametrize("n", [1, 3, 40])
def test_stream_and_json_lines_share_every_value(encoder, states, n):
    lines = encoder().json_lines(states(n)).splitlines()
    from_stream = bodies(encoder().states(states(n)))
    assert len(lines) == n
    for line, body in zip(lines, from_stream, strict=True):
        assert json.loads(line) == {key: value for key, value in body.items() if key not in ENVELOPE}
        assert list(json.loads(line)) == list(schema.ObjectState.__annotations__)


def test_bytes_do_not_depend_on_how_states_were_batched(encoder, states):
    at_once, one_by_one = encoder(), encoder()
    together = at_once.states(states(50))
    apart = [message for row in states(50).reshape(-1, 1) for message in one_by_one.states(row)]
    assert together == apart
    assert encoder().json_lines(states(50)) == b"".join(
        encoder().json_lines(row) for row in states(50).reshape(-1, 1)
    )


def test_sequence_numbers_rise_by_one_over_all_types_and_json_takes_none(encoder, states):
    stream = encoder()
    messages = stream.states(states(3))
    stream.json_lines(states(3))
    messages += stream.tombstones([Tombstone(0, T_NS, schema.REASON_DROPPED)])
    messages += stream.sensors(T_NS, {"north": {"ratePerS": 2.5}})
    messages += [stream.heartbeat(T_NS, 2)]
    assert [body["seq"] for body in bodies(messages)] == [1, 2, 3, 4, 5, 6]
    assert bodies(messages)[-1]["messages"] == {"state": 3, "tombstone": 1, "sensor": 1, "heartbeat": 1}
    assert [topic for topic, _ in messages[2:]] == [
        b"state.alpha-000002",
        b"tombstone.alpha-000000",
        b"sensor.north",
        b"heartbeat",
    ]


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_state_with_a_nan_is_left_out_and_counted(encoder, states, poison):
    three = states(3)
    three["x"][0, 4] = poison
    three["P"][1, 2, 5] = three["P"][1, 5, 2] = poison
    stream = encoder()
    messages = stream.states(three)
    assert [body["trackId"] for body in bodies(messages)] == ["alpha-000002"]
    assert (stream.not_finite, stream.seq) == (2, 1)
    assert b"NaN" not in stream.json_lines(three)


def test_nan_never_goes_out_where_it_means_unknown(encoder, states):
    coasting = states(1)
    coasting["nis"], coasting["dof"] = math.nan, 0
    stream = encoder()
    body = bodies(stream.states(coasting))[0]
    assert (body["nis"], body["dof"]) == (None, None)
    fields = {"latencyS": math.nan, "outcomes": {"used": 3, "x": [math.inf, 1.0]}}
    body = bodies(stream.sensors(T_NS, {"north": fields}))[0]
    assert (body["latencyS"], body["outcomes"]) == (None, {"used": 3, "x": [None, 1.0]})


def test_a_correlated_track_carries_its_objects_names_and_a_uct_its_own(encoder, states):
    uct, known = bodies(encoder().states(states(2)))
    assert (known["uct"], known["satNo"], known["idOnOrbit"], known["name"]) == (
        False,
        25544,
        "1998-067A",
        "ISS (ZARYA)",
    )
    assert (uct["uct"], uct["satNo"], uct["idOnOrbit"], uct["name"]) == (True, None, "alpha-000000", None)
    assert (uct["sensors"], known["sensors"]) == (["north"], ["south"])


def test_a_name_from_a_catalogue_cannot_steer_a_terminal(encoder, states):
    stream = encoder(known_object=lambda _row: KnownObject(1, "EVIL\x1b[2J\nSAT" + "x" * 99, ""))
    body = bodies(stream.states(states(2)))[1]
    assert body["name"] == ("EVIL[2JSAT" + "x" * 99)[:64]
    assert body["idOnOrbit"] == "alpha-000001"


def test_times_are_utc_with_leap_seconds(encoder, states):
    one = states(1)
    one["epoch_ns"] = tai_ns_from_utc_text("2016-12-31T23:59:60.5Z")
    assert bodies(encoder().states(one))[0]["epoch"] == "2016-12-31T23:59:60.500000Z"


def test_the_digest_does_not_depend_on_grouping_but_on_every_boundary(encoder, states):
    messages = encoder().states(states(9))
    whole, parts, other = StreamDigest(), StreamDigest(), StreamDigest()
    whole.update(messages)
    for cut in (slice(0, 2), slice(2, 2), slice(2, 9)):
        parts.update(messages[cut])
    assert whole.hexdigest() == parts.hexdigest()
    assert whole.messages == parts.messages == 9
    topic, payload = messages[0]
    other.update([(topic + payload[:1], payload[1:]), *messages[1:]])
    assert other.hexdigest() != whole.hexdigest()


def test_the_example_in_the_document_is_what_the_encoder_sends(encoder):
    block = re.search(r"```\n(8b .*?)```", WIRE_MD.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    shown = bytes.fromhex("".join(line[:50] for line in block[1].splitlines()))
    stream = encoder(stream_epoch="alpha-1871f2")
    stream.seq = 517
    sent = stream.tombstones([Tombstone(7, T_NS, schema.REASON_MERGED, successor=4)])
    assert sent == [(b"tombstone.alpha-000007", shown)]


def test_the_document_names_every_field():
    text = WIRE_MD.read_text(encoding="utf-8")
    missing = [key for key in [*ENVELOPE, *schema.ObjectState.__annotations__] if f"`{key}`" not in text]
    assert missing == []
