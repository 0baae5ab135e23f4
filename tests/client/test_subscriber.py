"""The client against the real publisher process, over real sockets."""

import os
import signal
import subprocess
import sys
import time

import msgpack
import pytest
import zmq

from fusionnode.client import EpochChange, Gap, Heartbeat, SensorState, Stale, State, Subscriber, Tombstone
from fusionnode.core import schema


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def joined(node, until, **options):
    """A subscriber whose picture is whole and whose live stream flows."""
    subscriber = Subscriber(node.live, node.snapshot, **options)
    beats = []

    def flows():
        return subscriber.whole and of(Heartbeat, beats)

    def read():
        node.beat()
        beats.extend(subscriber.receive(0.2))

    until(subscriber, flows, read)
    return subscriber


def settled(node, subscriber, until):
    """Events up to and with a heartbeat sent now."""
    node.beat()
    return until(subscriber, lambda: subscriber.seq == node.encoder.seq)


def test_a_late_joiner_has_each_tracks_newest_state_once_and_then_every_message(make_node, until):
    node = make_node()
    for _ in range(3):
        node.states(*range(500))
    node.end(107)
    with Subscriber(node.live, node.snapshot) as subscriber:
        # The stream goes on while the snapshot is asked for.
        events = until(subscriber, lambda: subscriber.whole, lambda: node.states(*range(100)))
        for _ in range(5):
            node.states(*range(100))
        last = node.encoder.seq
        events += until(subscriber, lambda: subscriber.seq == last and subscriber.whole)
        states = of(State, events)
        of_stream = sorted(event.seq for event in states)
        assert len(of_stream) == len(set(of_stream)), "a message was delivered twice"
        assert of(Gap, events) == []
        assert set(subscriber.picture) == {f"alpha-{t:06d}" for t in range(500) if t != 107}
        live = [event.seq for event in states if not event.from_snapshot]
        assert live[-100:] == list(range(last - 99, last + 1))
        newest = {event.state["trackId"]: event.state["updates"] for event in states}
        assert {t: s["updates"] for t, s in subscriber.picture.items()} == {
            t: newest[t] for t in subscriber.picture
        }


def test_a_tombstone_removes_the_track_and_names_its_successor(make_node, until):
    node = make_node()
    node.states(1, 2)
    with joined(node, until) as subscriber:
        assert set(subscriber.picture) == {"alpha-000001", "alpha-000002"}
        node.end(1, "merged", successor=2)
        events = until(subscriber, lambda: "alpha-000001" not in subscriber.picture)
        ended = of(Tombstone, events)[0]
        assert (ended.track_id, ended.reason, ended.successor) == ("alpha-000001", "merged", "alpha-000002")


def test_what_the_high_water_mark_dropped_is_reported_and_the_picture_mended(make_node, until, tmp_path):
    node = make_node(f"ipc://{tmp_path}/l", f"ipc://{tmp_path}/s", high_water_mark=10)
    node.states(*range(10))
    with joined(node, until, high_water_mark=10) as subscriber:
        seq, messages = subscriber.seq, subscriber.counts["messages"]
        for _ in range(40):  # nobody reads meanwhile
            node.states(*range(100))
            time.sleep(0.005)
        node.end(5)
        node.end(42)
        events = until(subscriber, lambda: len(subscriber.picture) == 98 and subscriber.whole, node.beat)
        gaps = of(Gap, events)
        assert gaps
        heard = subscriber.counts["messages"] - messages
        assert heard + sum(gap.missed for gap in gaps) == subscriber.seq - seq
        assert {"alpha-000005", "alpha-000042"}.isdisjoint(subscriber.picture)


def test_without_a_snapshot_address_a_gap_empties_the_picture_rather_than_keep_a_ghost(
    make_node, until, tmp_path
):
    node = make_node(f"ipc://{tmp_path}/l", f"ipc://{tmp_path}/s", high_water_mark=10)
    with Subscriber(node.live, high_water_mark=10) as subscriber:
        until(subscriber, lambda: subscriber.picture, lambda: node.states(*range(3)))
        for _ in range(40):
            node.states(*range(100))
            time.sleep(0.005)
        gone = until(subscriber, lambda: not subscriber.picture, node.beat)
        assert of(Gap, gone)
        assert not subscriber.whole


def test_a_killed_publisher_costs_a_gap_and_not_the_picture(make_node, until):
    node = make_node()
    node.states(*range(50))
    with joined(node, until) as subscriber:
        os.kill(node.outlet.publisher_pid, signal.SIGKILL)
        node.end(3)  # told to nobody, or to a dead process

        def go_on():
            node.states(4)

        events = until(subscriber, lambda: "alpha-000003" not in subscriber.picture, go_on)
        events += until(subscriber, lambda: subscriber.whole, go_on)
        assert node.outlet.restarts == 1
        assert of(Gap, events)
        assert [event.reason for event in of(Tombstone, events)] == ["missed"]
        assert len(subscriber.picture) == 49


def test_a_new_stream_empties_the_picture_and_starts_the_count_again(make_node, until):
    first = make_node()
    first.states(1, 2, 3)
    with joined(first, until) as subscriber:
        first.outlet.close()
        second = make_node()
        second.new_stream("alpha-2")
        second.states(9)
        events = until(subscriber, lambda: subscriber.stream_epoch == "alpha-2", second.beat)
        events += until(subscriber, lambda: subscriber.whole, second.beat)
        assert EpochChange("alpha-1", "alpha-2") in events
        assert of(Gap, events) == []
        assert set(subscriber.picture) == {"alpha-000009"}


def test_silence_is_reported_once_and_ends_with_the_next_message(make_node, until):
    node = make_node()
    with joined(node, until, stale_after_s=0.3) as subscriber:
        quiet = until(subscriber, lambda: subscriber.stale)
        assert len(of(Stale, quiet)) == 1
        assert subscriber.receive(0.5) == []
        until(subscriber, lambda: not subscriber.stale, node.beat)


def test_a_node_that_is_not_there_is_silence_and_not_an_error(free_addresses):
    with Subscriber(*free_addresses, stale_after_s=0.2) as subscriber:
        assert [type(event) for event in subscriber.receive(5.0)] == [Stale]
        assert subscriber.stream_epoch is None


def test_with_a_topic_filter_only_these_come_and_lost_ones_are_found_at_the_heartbeat(
    make_node, until, tmp_path
):
    node = make_node(f"ipc://{tmp_path}/l", f"ipc://{tmp_path}/s", high_water_mark=10)
    node.states(1)
    node.sensor(ratePerS=1.0)
    with joined(node, until, topics=["state."], high_water_mark=10) as subscriber:
        events = []
        for _ in range(10):
            node.sensor(ratePerS=2.0)
            node.states(1, 2)
            events += settled(node, subscriber, until)
        assert of(Gap, events) == []
        assert of(SensorState, events) == []
        assert subscriber.sensors == {}
        for _ in range(40):
            node.states(*range(3, 100))
            time.sleep(0.005)
        node.end(1)
        events = until(subscriber, lambda: len(subscriber.picture) == 98 and subscriber.whole, node.beat)
        assert of(Gap, events)


def test_what_is_not_a_message_is_counted_and_the_rest_used(until, tmp_path):
    address = f"ipc://{tmp_path}/l"
    good = {"v": 1, "type": "heartbeat", "streamEpoch": "e", "seq": 1, "nodeId": "a"}
    good |= {"time": "2026-03-01T12:00:00.000000Z", "tracks": 0, "messages": {"heartbeat": 1}}
    good |= {"classificationMarking": "U", "dataMode": "TEST", "source": "s"}
    future = {"v": 1, "type": "manoeuvre", "streamEpoch": "e", "seq": 2, "what": 3}
    with zmq.Context() as context, context.socket(zmq.XPUB) as node, Subscriber(address) as subscriber:
        node.setsockopt(zmq.LINGER, 0)
        node.bind(address)
        node.recv()  # the subscription
        node.send_multipart([b"heartbeat", b"\xc1 rubbish"])
        node.send_multipart([b"heartbeat"])
        node.send_multipart([b"heartbeat", bytes(schema.MAX_MESSAGE_BYTES + 1)])
        node.send_multipart([b"heartbeat", msgpack.packb(good | {"v": 2})])
        node.send_multipart([b"state.a", msgpack.packb(good)])
        node.send_multipart([b"heartbeat", msgpack.packb(good)])
        node.send_multipart([b"heartbeat", msgpack.packb(good)])
        node.send_multipart([b"manoeuvre", msgpack.packb(future)])
        node.send_multipart([b"heartbeat", msgpack.packb(good | {"seq": 3, "tracks": 8, "newKey": 1})])
        beats = []
        until(subscriber, lambda: len(beats) == 2, lambda: beats.extend(subscriber.receive(0.2)))
        assert [beat.tracks for beat in beats] == [0, 8]  # and no gap: the unknown type has its number
        assert subscriber.counts == {
            "malformed": 3,
            "too_large": 1,
            "other_version": 1,
            "messages": 4,
            "duplicates": 1,
        }


@pytest.mark.parametrize("address", ["", "nonsense", "tcp://", "tcp://127.0.0.1:notaport", "udp://x:1"])
def test_what_is_no_address_is_one_clear_line(address):
    with pytest.raises(ValueError, match="expected an address like") as failure:
        Subscriber(address)
    assert "\n" not in str(failure.value)


def test_a_subscriber_and_the_publisher_need_only_zmq_and_msgpack():
    program = (
        "import sys, fusionnode.client, fusionnode.release.publisher, fusionnode.cli.subscribe\n"
        "heavy = {'numpy', 'erfa', 'numba', 'scipy', 'pydantic', 'orjson', 'rich', 'cryptography'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
