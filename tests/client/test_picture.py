"""What messages mean together, without sockets."""

import contextlib
from collections import Counter

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fusionnode.client import decode
from fusionnode.client.decode import Message, Refused
from fusionnode.client.events import Gap, State, Tombstone
from fusionnode.client.picture import Picture
from fusionnode.core import schema

STATE = {
    "v": 1,
    "type": "state",
    "streamEpoch": "e",
    "seq": 5,
    "trackId": "a-000001",
    "epoch": "2026-03-01T12:00:00.000000Z",
    "referenceFrame": "GCRF",
    **dict.fromkeys(("xpos", "ypos", "zpos", "xvel", "yvel", "zvel"), 1.5),
    "cov": [0.25] * 21,
    "covReferenceFrame": "GCRF",
    "status": "confirmed",
    "uct": True,
    "satNo": None,
    "idOnOrbit": "a-000001",
    "name": None,
    "objectProbability": None,
    "sensors": ["north"],
    "lastObEnd": "2026-03-01T12:00:00.000000Z",
    "nis": None,
    "dof": None,
    "updates": 3,
    "existence": 0.5,
    "classificationMarking": "U",
    "dataMode": "TEST",
    "source": "s",
}
NAN, INF = float("nan"), float("inf")
TOPIC = b"state.a-000001"


def state(seq, track):
    return Message("state", "e", seq, {"trackId": track, "mark": seq})


def tombstone(seq, track):
    body = {"trackId": track, "reason": "dropped", "epoch": "t", "successor": None}
    return Message("tombstone", "e", seq, body)


class Truth:
    """The node's side: a stream, and what it adds up to at any moment."""

    def __init__(self):
        self.seq, self.newest, self.counts = 0, {}, dict.fromkeys(schema.TOPICS, 0)

    def step(self, track, ends):
        self.seq += 1
        if ends:
            self.newest.pop(track, None)
            message = tombstone(self.seq, track)
        else:
            message = self.newest[track] = state(self.seq, track)
        self.counts[message.type] += 1
        return message

    def beat(self):
        self.seq += 1
        self.counts["heartbeat"] += 1
        body = {"nodeId": "a", "time": "t", "tracks": 0, "messages": dict(self.counts)}
        return Message("heartbeat", "e", self.seq, body)

    def snapshot(self):
        header = Message("snapshot", "e", self.seq, {"count": len(self.newest)})
        return header, list(self.newest.values())


STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),  # track
        st.booleans(),  # it ends
        st.booleans(),  # the message is lost
        st.sampled_from(["nothing", "make snapshot", "deliver snapshot"]),
        st.booleans(),  # a heartbeat follows
    ),
    max_size=60,
)


@pytest.mark.parametrize("prefixes", [(), (b"state.", b"tombstone.", b"heartbeat")])
@settings(deadline=None)
@given(steps=STEPS)
@example(steps=[(1, False, False, "make snapshot", True), (1, True, False, "deliver snapshot", True)])
@example(steps=[(1, False, False, "nothing", False), (1, True, True, "nothing", True)])
def test_whatever_is_lost_and_whenever_snapshots_come_a_whole_picture_is_the_truth(prefixes, steps):
    truth, picture = Truth(), Picture(prefixes=prefixes)
    lives, on_its_way, delivered = Counter(), None, []
    for track, ends, lost, snapshot, beat in steps:
        message = truth.step(f"a-{track}-{lives[track]}", ends)
        lives[track] += ends  # a name is never used twice
        messages = [message] * (not lost) + [truth.beat()] * beat
        for one in messages:
            delivered += picture.live(one)
        if snapshot == "make snapshot" and picture.wants_snapshot:
            on_its_way = truth.snapshot()
        elif snapshot == "deliver snapshot" and on_its_way:
            delivered += picture.snapshot(*on_its_way)
            on_its_way = None
    delivered += picture.live(truth.beat())
    for _ in range(2):
        if picture.wants_snapshot:
            delivered += picture.snapshot(*truth.snapshot())
    assert picture.whole
    held = {name: body["mark"] for name, body in picture.states.items()}
    assert held == {name: message.seq for name, message in truth.newest.items()}
    seqs = [event.seq for event in delivered if isinstance(event, State)]
    assert len(seqs) == len(set(seqs))
    # Whoever keeps a picture from the events alone has the same one.
    kept = {}
    for event in delivered:
        if isinstance(event, State):
            kept[event.state["trackId"]] = event.seq
        elif isinstance(event, Tombstone):
            kept.pop(event.track_id, None)
    assert kept == held


def test_a_gap_says_how_many_were_missed():
    picture = Picture()
    picture.live(state(4, "a"))
    assert picture.live(state(9, "a"))[0] == Gap(9, 4)


def test_a_snapshot_of_another_stream_changes_nothing():
    picture = Picture()
    picture.live(state(4, "a"))
    assert picture.snapshot(Message("snapshot", "other", 9, {"count": 0}), []) == []
    assert set(picture.states) == {"a"}
    assert picture.wants_snapshot


def test_a_state_that_is_right_is_read_with_the_fields_of_the_schema():
    message = decode.live(TOPIC, msgpack.packb(STATE | {"later": 1}))
    assert (message.type, message.stream_epoch, message.seq) == ("state", "e", 5)
    assert message.body == {key: STATE[key] for key in schema.ObjectState.__annotations__}


@pytest.mark.parametrize(
    "change",
    [
        {"xpos": NAN},
        {"zvel": INF},
        {"xpos": 1},
        {"ypos": "1.0"},
        {"cov": [0.25] * 20},
        {"cov": [0.25] * 20 + [NAN]},
        {"cov": None},
        {"status": "lost"},
        {"status": []},
        {"uct": 1},
        {"satNo": -1},
        {"satNo": True},
        {"epoch": "2026-03-01 12:00:00Z"},
        {"sensors": "north"},
        {"sensors": [1]},
        {"name": "x" * 257},
        {"name": "\x1b[2J"},
        {"trackId": "a-000002"},
        {"updates": 1.0},
        {"seq": "5"},
        {"seq": -5},
        {"streamEpoch": ""},
        {"type": None},
        {"v": "1"},
    ],
    ids=str,
)
def test_a_state_with_a_field_that_is_wrong_is_refused(change):
    with pytest.raises(Refused, match="malformed"):
        decode.live(TOPIC, msgpack.packb(STATE | change))


WITHHELD = {
    "uct": None,
    "satNo": None,
    "idOnOrbit": "a-000001",
    "name": None,
    "objectProbability": None,
    "sensors": [],
    "lastObEnd": None,
    "nis": None,
    "dof": None,
    "updates": None,
    "existence": None,
}


@pytest.mark.parametrize("key", WITHHELD)
def test_what_a_policy_withholds_or_an_older_node_does_not_send_is_not_known(key):
    less = {k: v for k, v in STATE.items() if k != key}
    assert decode.live(b"state.a-000001", msgpack.packb(less)).body[key] == WITHHELD[key]


@pytest.mark.parametrize("key", [k for k in STATE if k not in WITHHELD])
def test_a_state_with_a_field_missing_is_refused(key):
    with pytest.raises(Refused, match="malformed"):
        decode.live(TOPIC, msgpack.packb({k: v for k, v in STATE.items() if k != key}))


def test_a_key_that_is_there_twice_is_refused():
    payload = bytearray(msgpack.packb(STATE))
    payload[:3] = b"\xde\x00" + bytes([len(STATE) + 1])
    with pytest.raises(Refused, match="malformed"):
        decode.live(TOPIC, bytes(payload) + msgpack.packb("seq") + msgpack.packb(9))


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 700), st.binary(min_size=1, max_size=3))
def test_any_bytes_give_a_message_or_a_refusal(rubbish, position, damage):
    good = msgpack.packb(STATE)
    at = position % len(good)
    for payload in (rubbish, good[:at], good[:at] + damage + good[at + len(damage) :], good + rubbish):
        for read in (
            lambda p: decode.live(TOPIC, p),
            decode.reply,
            lambda p: list(decode.snapshot_part(p)),
        ):
            with contextlib.suppress(Refused):
                read(payload)


def test_a_snapshot_part_that_is_cut_off_is_refused():
    part = msgpack.packb(STATE) * 3
    assert len(list(decode.snapshot_part(part))) == 3
    with pytest.raises(Refused):
        list(decode.snapshot_part(part[:-1]))
