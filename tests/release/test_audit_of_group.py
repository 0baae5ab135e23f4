"""Nothing is released that is not on record first, whenever the publisher is killed."""

import os
import random
import signal
import time

import msgpack
import pytest
from group_support import Grant, House, received, wait_until

from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.record.audit import entries, examine

T_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


@pytest.fixture
def home(tmp_path, addresses):
    one = House(tmp_path, addresses)
    yield one
    one.close()


def granted(home):
    """Track and the sequence number it was granted from, as the log has it now."""
    found = {}
    for entry in entries(home.folder / "audit" / "group-allies.log"):
        if entry["kind"] == "grant":
            found.setdefault(entry["track"], entry["fromSeq"])
    return found


def test_a_killed_publisher_has_sent_nothing_that_its_log_does_not_grant(home, encoder, states):
    rng = random.Random(11)
    home.open()
    stream = encoder()
    seen = 0
    for _ in range(4):
        sub = home.sub()

        def beat(sub=sub):
            home.outlet.send([stream.heartbeat(T_NS, 0)])
            return sub.poll(50)

        wait_until(beat)
        received(sub)
        end = time.monotonic() + rng.uniform(0.02, 0.3)
        first = stream.seq
        while time.monotonic() < end:
            # Every state is of a track that was never released before.
            (message,) = stream.states(states(1))
            body = msgpack.unpackb(message[1])
            body["trackId"] = f"alpha-{stream.seq:06d}"
            payload = msgpack.packb(body)
            topic = b"state." + body["trackId"].encode()
            home.outlet.send([(topic, payload)], [Grant(body["trackId"], "leo", stream.seq)])
        os.kill(home.outlet.publisher_pid, signal.SIGKILL)
        # What has left is what can still arrive; the log is read before anybody writes to it again.
        got = [msgpack.unpackb(payload) for _, payload in received(sub)]
        on_record = granted(home)
        (checked,) = examine(home.folder / "audit")
        assert checked.faults == []
        for body in got:
            if body["type"] == "state":
                assert on_record[body["trackId"]] <= body["seq"]
                seen += body["seq"] > first
    assert seen > 10
    wait_until(lambda: home.outlet.watch() and runs_cut_short(home) == 4)
    home.outlet.close()
    (checked,) = examine(home.folder / "audit")
    assert checked.faults == []
    assert runs_cut_short(home) == 4


def runs_cut_short(home):
    return sum("without a last word" in gap for gap in examine(home.folder / "audit")[0].gaps)
