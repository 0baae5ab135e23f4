"""The paced mode against a node in memory: whatever is cut, lost or restarted, a whole picture is the node's."""

import zlib
from collections import Counter

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_states import orbit, state

from fusionnode.client import decode
from fusionnode.client.decode import Refused
from fusionnode.client.events import EpochChange, State, Synced, Tombstone
from fusionnode.client.pacing import Pacing
from fusionnode.client.picture import Picture
from fusionnode.core import compact, schema

TIME = "2026-03-01T12:00:00.000000Z"
MARKINGS = {"classificationMarking": "U", "dataMode": "TEST", "source": "s"}


class PacedNode:
    """Newest message by topic, tombstones while they are needed, one session."""

    def __init__(self):
        self.runs, self.session = 0, None
        self.restart()

    def restart(self):
        self.epoch, self.seq = f"e{self.runs}", 0
        self.runs += 1
        self.newest, self.ended, self.session = {}, [], None

    def _publish(self, topic, body):
        self.seq += 1
        payload = msgpack.packb(
            {"v": 1, "type": body["type"], "streamEpoch": self.epoch, "seq": self.seq, **body}
        )
        if self.session is not None:
            self.session["topics"].pop(b"state." + topic.partition(b".")[2], None)
            self.session["topics"][topic] = payload
        return payload

    def state(self, track):
        body = state(*orbit(self.seq), trackId=track, idOnOrbit=track, updates=self.seq + 1)
        del body["v"], body["seq"], body["streamEpoch"]
        topic = b"state." + track.encode()
        self.newest[topic] = self._publish(topic, body)

    def end(self, track):
        body = {"type": "tombstone", "trackId": track, "epoch": TIME, "reason": "dropped", "successor": None}
        self.newest.pop(b"state." + track.encode(), None)
        self.ended.append(
            (self.seq + 1, track, self._publish(b"tombstone." + track.encode(), body | MARKINGS))
        )

    def request(self, fields):
        if self.session is not None and self.session["id"] == fields["id"]:
            return
        resume, base = fields["resume"], None
        if resume is not None and resume["streamEpoch"] == self.epoch:
            base = resume["seq"]
        topics = {t: p for t, p in self.newest.items() if base is None or msgpack.unpackb(p)["seq"] > base}
        topics |= {b"tombstone." + t.encode(): p for n, t, p in self.ended if base is not None and n > base}
        self.session = {
            "id": fields["id"],
            "n": 0,
            "base": base,
            "topics": topics,
            "compact": fields["compact"],
        }

    def message(self, items):
        one = self.session
        one["n"] += 1
        batch = [one["topics"].pop(topic) for topic in list(one["topics"])[:items]]
        packed = [(one["compact"] and compact.pack_state(p)) or p for p in batch]
        fields = {"id": one["id"], "n": one["n"], "sentNs": 1, "base": one["base"], "rttS": 0.5}
        fields |= {"streamEpoch": self.epoch, "seq": self.seq, "whole": not one["topics"]}
        return fields | {"z": zlib.compress(b"".join(packed))}


def taken(pacing, fields, now):
    reply = decode.reply(msgpack.packb({"v": 1, "type": "paced", **fields}))
    return pacing.take(reply.fields, now) if pacing.is_mine(reply.id) else ([], None)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.booleans(),  # it ends
        st.sampled_from(["quiet", "sent", "sent", "sent", "lost", "twice", "cut", "restart", "reconnect"]),
        st.integers(1, 4),  # items in a message
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(STEPS, st.booleans())
def test_whatever_is_cut_lost_or_restarted_a_whole_picture_is_that_of_the_node(steps, small):
    node, picture = PacedNode(), Picture(mendable=False)
    pacing = Pacing(picture, bytes_per_s=1000, compact=small, verify=None)
    events, ids, now, lives = [], iter(range(1, 10_000)), 1.0, Counter()

    def turn(items, way="sent"):
        nonlocal events
        request = pacing.request(now, next(ids))
        if request is not None:
            node.request(request)
        if node.session is None:
            return
        fields = node.message(items)
        for _ in range({"lost": 0, "twice": 2}.get(way, 1)):
            events += taken(pacing, fields, now)[0]

    for track, ends, way, items in steps:
        now += 1.0
        name = f"a-{track}-{lives[track]}"
        lives[track] += ends
        (node.end if ends else node.state)(name)
        if way == "restart":
            node.restart()
        elif way == "reconnect":  # the node has forgotten; the client knows that it connected again
            node.session = None
            pacing.renew(now)
        elif way == "cut":
            now += 200.0
        if way not in ("quiet", "cut"):
            turn(items, way)
    node.state("last")
    for _ in range(300):
        now += 5.0
        turn(4)
        if picture.whole and picture.seq == node.seq and picture.stream_epoch == node.epoch:
            break
    held = {b"state." + name.encode(): body["updates"] for name, body in picture.states.items()}
    assert held == {topic: msgpack.unpackb(payload)["updates"] for topic, payload in node.newest.items()}
    # Whoever keeps a picture from the events alone has the same one.
    kept = {}
    for event in events:
        if isinstance(event, EpochChange):
            kept.clear()
        elif isinstance(event, State):
            kept[event.state["trackId"]] = event.state["updates"]
        elif isinstance(event, Tombstone):
            kept.pop(event.track_id, None)
    assert kept == {name: body["updates"] for name, body in picture.states.items()}
    assert isinstance([e for e in events if isinstance(e, Synced | EpochChange)][-1], Synced)


def test_what_is_lost_between_makes_it_ask_anew_from_what_is_whole():
    node, picture = PacedNode(), Picture(mendable=False)
    pacing = Pacing(picture, bytes_per_s=1000, compact=True, verify=None)
    node.state("a")
    first = pacing.request(1.0, 1)
    assert (first["resume"], first["bytesPerS"], first["compact"]) == (None, 1000, True)
    node.request(first)
    _, acknowledgement = taken(pacing, node.message(9), 1.0)
    assert acknowledgement == {"type": "paced_ack", "id": 1, "n": 1}
    assert pacing.request(2.0, 2) is None
    assert pacing.request(1.0 + schema.PACED_RENEWAL_S, 3)["id"] == 1
    node.message(1)
    assert taken(pacing, node.message(1), 12.0) == ([], None)
    again = pacing.request(12.0, 4)
    assert (again["id"], again["resume"]) == (4, {"streamEpoch": "e0", "seq": 1})


def test_a_bomb_is_refused_and_asked_anew():
    pacing = Pacing(Picture(mendable=False), bytes_per_s=1000, compact=True, verify=None)
    pacing.request(1.0, 1)
    fields = {"id": 1, "n": 1, "sentNs": 1, "streamEpoch": "e", "seq": 1, "base": None, "whole": True}
    for z in (zlib.compress(bytes(1 << 25)), b"rubbish", zlib.compress(b"\xc0")[:-1]):
        with pytest.raises(Refused):
            taken(pacing, fields | {"rttS": None, "z": z}, 1.0)
        assert pacing.request(1.0, 1)["id"] == 1


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_content_gives_messages_or_refusals(content):
    try:
        for item in decode.mixed(content, "e"):
            assert isinstance(item, decode.Message | Refused)
    except Refused:
        pass
