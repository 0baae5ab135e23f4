"""The paced stream against a model of a thin link and of a subscriber who follows docs/WIRE.md."""

import random
import zlib
from collections import Counter

import msgpack
import pytest

from fusionnode.core import schema
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import Tombstone
from fusionnode.release.cache import Cache
from fusionnode.release.paced import Pacer
from fusionnode.release.requests import Request
from fusionnode.release.settings import Partner

T_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


class Thin:
    """A link of so many bytes a second each way, with a delay; nothing is lost on it, as on TCP."""

    def __init__(self, bytes_per_s, delay_s, queue=4):
        self.rate, self.delay, self.queue = bytes_per_s, delay_s, queue
        self.free_at = 0.0
        self.under_way = []

    def send(self, now, frame):
        waiting = sum(1 for at, _ in self.under_way if at > now + self.delay)
        if waiting >= self.queue:
            return False
        self.free_at = max(self.free_at, now) + len(frame) / self.rate
        self.under_way.append((self.free_at + self.delay, frame))
        return True

    def arrived(self, now):
        here = [frame for at, frame in self.under_way if at <= now]
        self.under_way = [(at, frame) for at, frame in self.under_way if at > now]
        return here


class Scene:
    """A publisher's cache and pacer, a thin link, a subscriber; time is simulated."""

    def __init__(self, encoder, bytes_per_s=8_000, delay_s=0.3, partner=None, seed=1):
        self.stream = encoder()
        self.cache = Cache()
        self.counts = Counter()
        self.pacer = Pacer(send=self._send, cache=lambda: self.cache, counts=self.counts)
        self.partner = partner or Partner(paced_bytes_per_s=7_000)
        self.link, self.back = Thin(bytes_per_s, delay_s), Thin(8_000, delay_s)
        self.now = 0.0
        self.rng = random.Random(seed)
        self.sent = []
        self.request_id = 0
        self.cut = False
        self.held, self.heard = {}, None
        self.position = None
        self.log = []
        self.order = []
        self.made = {}
        self.renews, self.renewed = (), 0.0

    def _send(self, _envelope, frames):
        if self.cut or not self.link.send(self.now, frames[0]):
            return False
        self.sent.append((self.now, len(frames[0])))
        return True

    def ask(self, rate=7_000, compact=True, resume=None, anew=True):
        if anew:
            self.request_id += 1
            self.n = 0
        self.renews, self.renewed = (rate, compact), self.now
        fields = {"bytesPerS": rate, "compact": compact, "resume": resume}
        request = Request("paced_request", self.request_id, None, fields)
        self.pacer.request([b"\0r"], "slow", self.partner, request, self.now)

    def publish(self, messages):
        if not messages:
            return
        first = self.stream.seq - len(messages) + 1
        for topic, payload in messages:
            self.cache.apply(topic, payload)
            self.made[topic] = self.now
        self.pacer.note(
            "alpha-1", first, [topic for topic, _ in messages], [payload for _, payload in messages]
        )

    def step(self, dt=0.02):
        self.now += dt
        if self.renews and not self.cut and self.now >= self.renewed + 10:
            self.ask(*self.renews, anew=False)
        for frame in self.link.arrived(self.now):
            body = msgpack.unpackb(frame)
            if body["id"] != self.request_id:
                continue
            assert body["n"] == self.n + 1
            self.n = body["n"]
            self.back.send(self.now, str(self.n).encode())
            self._take(body)
        for ack in self.back.arrived(self.now):
            if not self.cut:
                self.pacer.ack("slow", Request("paced_ack", self.request_id, None, {"n": int(ack)}), self.now)
        while self.pacer.due_in(self.now) == 0.0:
            before = self.counts["paced"]
            self.pacer.serve(self.now)
            if self.counts["paced"] == before:
                break

    def _take(self, body):
        if body["n"] == 1:
            self.heard = {} if body["base"] is None else None
        unpacker = msgpack.Unpacker()
        unpacker.feed(zlib.decompress(body["z"]))
        for item in unpacker:
            kind, seq, track = ("state", item[1], item[2]) if isinstance(item, list) else (
                item["type"], item["seq"], item.get("trackId")
            )  # fmt: skip
            self.order.append((kind, track))
            if self.heard is not None and track:
                self.heard[track] = True
            if kind == "state":
                assert seq > self.held.get(track, (0,))[0]
                self.held[track] = (seq, self.now)
            elif kind == "tombstone":
                self.held.pop(track, None)
        self.log.append((self.now, body["seq"], body["whole"], body["rttS"]))
        if body["whole"]:
            assert self.position is None or body["seq"] >= self.position or body["n"] == 1
            self.position = body["seq"]
            if self.heard is not None:
                for track in list(self.held):
                    if track not in self.heard and self.held[track][0] <= body["seq"]:
                        del self.held[track]
                self.heard = None

    def settle(self, seconds=60):
        end = self.now + seconds
        while self.now < end:
            self.step(0.05)
        assert self.truth() == {track: seq for track, (seq, _) in self.held.items()}
        assert self.position == self.stream.seq

    def truth(self):
        states = (msgpack.unpackb(p) for t, p in self.cache.newest.items() if t.startswith(b"state."))
        return {body["trackId"]: body["seq"] for body in states}


def some(states, n, at):
    """States of ``n`` tracks, moved on a little, so that no two are the same."""
    out = states(n)
    out["epoch_ns"] += round(at * 1e9)
    out["last_ob_ns"] = out["epoch_ns"]
    return out


def run(scene, states, seconds, tracks, per_s):
    """Every track is updated ``per_s`` times a second; a heartbeat each second."""
    due, beat = scene.now, scene.now
    end = scene.now + seconds
    while scene.now < end:
        while due <= scene.now:
            scene.publish(scene.stream.states(some(states, tracks, due)))
            due += 1 / per_s
        if beat <= scene.now:
            scene.publish([scene.stream.heartbeat(T_NS, tracks)])
            beat += 1
        scene.step()


def test_an_overloaded_link_brings_every_object_young_and_within_its_pace(encoder, states):
    scene = Scene(encoder)
    scene.ask()
    run(scene, states, 40, tracks=200, per_s=1)
    sizes = [size for at, size in scene.sent if at >= 10]
    assert 0.8 * 7_000 * 30 < sum(sizes) < 1.1 * 7_000 * 30
    assert max(size for _, size in scene.sent) < 4_000
    ages = [scene.now - at for _, at in scene.held.values()]
    assert len(ages) == 200
    assert max(ages) < 8.0  # one round over all objects
    assert [whole for at, _, whole, _ in scene.log if at > 15].count(False) == 0
    assert scene.log[-1][3] == pytest.approx(0.6, abs=0.5)
    scene.settle()


def test_a_link_that_is_thinner_than_asked_for_does_not_fill_up(encoder, states):
    """1,500 bytes a second, 8,000 asked for: two round trips under way, not minutes."""
    scene = Scene(encoder, bytes_per_s=1_500)
    scene.ask()
    run(scene, states, 40, tracks=100, per_s=1)
    assert scene.link.free_at - scene.now < 6.0
    scene.settle(90)


def test_a_quiet_stream_is_whole_and_kept_alive(encoder, states):
    scene = Scene(encoder)
    scene.ask(compact=False)
    run(scene, states, 5, tracks=3, per_s=0.5)
    beats = len(scene.log)
    for _ in range(10):
        scene.publish([scene.stream.heartbeat(T_NS, 3)])
        for _ in range(100):
            scene.step()
    assert len(scene.log) - beats >= 10
    assert all(whole for _, _, whole, _ in scene.log[beats:])
    scene.settle()


def test_tombstones_come_and_nothing_comes_back_to_life(encoder, states):
    scene = Scene(encoder, bytes_per_s=2_000, seed=2)
    scene.ask(rate=2_000)
    ended = set()
    for second in range(60):
        living = [n for n in range(150) if n not in ended]
        rows = some(states, 150, second)
        scene.publish(scene.stream.states(rows[living]))
        for track in scene.rng.sample(living, 2):
            ended.add(track)
            scene.publish(scene.stream.tombstones([Tombstone(track, T_NS, schema.REASON_DROPPED)]))
        for _ in range(100):
            scene.step()
    scene.settle(90)
    dead = [track for kind, track in scene.order if kind == "tombstone"]
    assert len(dead) == 120
    for track in dead:
        assert ("state", track) not in scene.order[scene.order.index(("tombstone", track)) :]


def test_after_a_cut_only_what_is_newer_is_sent(encoder, states):
    scene = Scene(encoder)
    scene.ask()
    run(scene, states, 20, tracks=100, per_s=0.2)
    scene.settle(10)
    scene.cut = True
    rows = some(states, 100, 500)
    scene.publish(scene.stream.states(rows[:10]))
    scene.publish(scene.stream.tombstones([Tombstone(99, T_NS, schema.REASON_DROPPED)]))
    for _ in range(6_000):
        scene.step(0.1)  # ten minutes: the node has forgotten
    scene.cut = False
    before = len(scene.order)
    scene.ask(resume={"streamEpoch": "alpha-1", "seq": scene.position})
    scene.settle(10)
    assert sorted({track for kind, track in scene.order[before:] if kind == "state"}) == [
        f"alpha-{n:06d}" for n in range(10)
    ]


@pytest.mark.parametrize(
    "resume", [None, {"streamEpoch": "alpha-0", "seq": 5}, {"streamEpoch": "alpha-1", "seq": 999_999}]
)
def test_without_a_base_everything_is_sent_and_ghosts_end(encoder, states, resume):
    scene = Scene(encoder)
    scene.publish(scene.stream.states(states(50)))
    scene.held = {"alpha-000777": (1, 0.0)}
    scene.ask(resume=resume)
    scene.settle(20)
    assert len(scene.held) == 50


def test_the_partners_order_of_priority_and_that_nobody_starves(encoder, states):
    scene = Scene(encoder, partner=Partner(paced_bytes_per_s=1_000, priority=("watched", "uct")))
    scene.pacer.note_rule("alpha-000007", "watched")
    scene.publish(scene.stream.states(states(60)))
    scene.ask(rate=1_000)
    run(scene, states, 90, tracks=60, per_s=1)
    first = [track for kind, track in scene.order if kind == "state"][:10]
    assert first[0] == "alpha-000007"
    # Every second state is of an uncorrelated track: even numbers in the folder's states.
    times = Counter(track for kind, track in scene.order if kind == "state")
    assert times["alpha-000007"] > max(n for track, n in times.items() if track != "alpha-000007")
    assert len(times) == 60
    scene.settle(60)


def test_what_waits_for_one_who_takes_nothing_is_bounded(encoder, states):
    scene = Scene(encoder)
    scene.ask()
    scene.cut = True
    for second in range(20):
        scene.publish(scene.stream.states(some(states, 100, second)))
        scene.step(1.0)
    (session,) = scene.pacer._sessions.values()
    assert session.waiting <= 101
    for _ in range(20):
        scene.step(1.0)
    assert scene.pacer._sessions == {}
