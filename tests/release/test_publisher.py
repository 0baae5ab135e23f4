"""The publisher as a process of its own, spoken to over real sockets."""

import os
import random
import signal
import subprocess
import sys
import time

import msgpack
import pytest
import zmq

from fusionnode.core import schema
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import Tombstone
from fusionnode.release.outlet import Outlet, OutletError

T_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")
WAIT_MS = 10_000


@pytest.fixture
def outlet(addresses):
    live, snapshot = addresses
    with Outlet(live=live, snapshot=snapshot) as outlet:
        outlet.start()
        yield outlet


@pytest.fixture
def dealer(addresses):
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(addresses[1])
        yield socket


def request(request_id=1, **changes):
    return msgpack.packb({"v": 1, "type": schema.TYPE_SNAPSHOT_REQUEST, "id": request_id} | changes)


def answer(socket):
    assert socket.poll(WAIT_MS), "no answer"
    header, *parts = socket.recv_multipart()
    unpacker = msgpack.Unpacker()
    for part in parts:
        assert len(part) <= schema.MAX_MESSAGE_BYTES
        unpacker.feed(part)
    return msgpack.unpackb(header), list(unpacker)


def snapshot(socket, until=lambda _header: True):
    """A snapshot that is ``until``: what the outlet was given last may still be on its way."""
    for request_id in range(1, 200):
        socket.send(request(request_id))
        header, messages = answer(socket)
        assert header["id"] == request_id
        if header["type"] == schema.TYPE_SNAPSHOT and until(header):
            return header, messages
        time.sleep(0.02)
    raise AssertionError(header)


def wait_until(true):
    for _ in range(500):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it never came to be")


def test_a_snapshot_holds_the_newest_of_each_living_track_and_sensor(outlet, dealer, encoder, states):
    stream = encoder()
    outlet.send(stream.states(states(300)))
    newest = stream.states(states(300))
    outlet.send(newest)
    outlet.send(stream.tombstones([Tombstone(t, T_NS, schema.REASON_DROPPED) for t in range(0, 300, 2)]))
    sensor = stream.sensors(T_NS, {"north": {"ratePerS": 1.0}})
    outlet.send([*sensor, stream.heartbeat(T_NS, 150)])
    header, messages = snapshot(dealer, until=lambda header: header["seq"] == stream.seq)
    expected = [msgpack.unpackb(payload) for _topic, payload in newest[1::2] + sensor]
    assert header == {
        "v": 1,
        "type": "snapshot",
        "id": header["id"],
        "streamEpoch": "alpha-1",
        "seq": stream.seq,
        "count": 151,
    }
    assert sorted(messages, key=lambda m: m["seq"]) == expected


def test_before_the_first_message_there_is_a_clear_answer(outlet, dealer):
    dealer.send(request(5))
    assert answer(dealer)[0] == {"v": 1, "type": "error", "id": 5, "reason": "nothing yet"}


def test_a_req_socket_is_answered_too(outlet, dealer, encoder, states, addresses):
    outlet.send(encoder().states(states(2)))
    snapshot(dealer)
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.connect(addresses[1])
        socket.send(request(9))
        header, messages = answer(socket)
    assert (header["id"], len(messages)) == (9, 2)


def test_malformed_requests_are_answered_and_counted_and_stop_nothing(outlet, dealer, encoder, states):
    rng = random.Random(3)
    outlet.send(encoder().states(states(5)))
    snapshot(dealer)
    bad = [
        [request(v=2)],
        [request(type="give")],
        [request(-1)],
        [request(), request()],
        [request() + b"\x00"],
        [b"\xc1"],
        [b""],
        [msgpack.packb([1, 2])],
        [b"\x91" * 200],
        [b"\xdf\xff\xff\xff\xff"],
        [bytes(4000)],
    ]
    bad += [[rng.randbytes(rng.randrange(1, 300))] for _ in range(1000)]
    for frames in bad:
        dealer.send_multipart(frames)
        assert answer(dealer)[0]["type"] == schema.TYPE_ERROR
    assert len(snapshot(dealer)[1]) == 5
    outlet.close()
    assert outlet.report["refused_requests"] == len(bad)


def test_an_address_in_use_is_one_line(outlet, addresses):
    live, snapshot_address = addresses
    second = Outlet(live=live, snapshot=snapshot_address)
    with pytest.raises(OutletError) as failure:
        second.start()
    assert str(failure.value) == f"cannot publish at {live}: Address already in use"


def test_an_address_that_cannot_be_bound_ends_the_process_with_3(tmp_path):
    command = [sys.executable, "-m", "fusionnode.release.publisher", "--feed", f"ipc://{tmp_path}/f"]
    result = subprocess.run(
        [*command, "--live", "tcp://nowhere", "--snapshot", "tcp://127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.returncode, result.stderr) == (3, "")
    assert result.stdout == "error: cannot publish at tcp://nowhere: Invalid argument\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_publisher_cleanly(addresses, tmp_path, number):
    command = [sys.executable, "-m", "fusionnode.release.publisher", "--feed", f"ipc://{tmp_path}/f"]
    with subprocess.Popen(
        [*command, "--live", addresses[0], "--snapshot", addresses[1]], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(10) == 0


def test_the_publisher_does_not_outlive_a_daemon_that_was_killed(addresses):
    program = (
        "import sys, time; from fusionnode.release.outlet import Outlet\n"
        "outlet = Outlet(live=sys.argv[1], snapshot=sys.argv[2]); outlet.start()\n"
        "print(outlet.publisher_pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, *addresses], stdout=subprocess.PIPE, text=True
    ) as process:
        pid = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        wait_until(lambda: not _lives(pid))


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - not a file of ours
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_publisher_is_started_again_with_everything_it_knew(addresses, dealer, encoder, states):
    faults = []
    with Outlet(live=addresses[0], snapshot=addresses[1], on_fault=faults.append) as outlet:
        outlet.start()
        stream = encoder()
        outlet.send(stream.states(states(20)))
        snapshot(dealer)
        os.kill(outlet.publisher_pid, signal.SIGKILL)
        lost = 0

        def beat():
            nonlocal lost
            lost += outlet.send([stream.heartbeat(T_NS, 20)])
            return outlet.restarts == 1 and outlet.watch() and outlet.send([stream.heartbeat(T_NS, 20)]) == 0

        wait_until(beat)
        _, messages = snapshot(dealer, until=lambda header: header["seq"] == stream.seq)
        assert len(messages) == 20
        assert faults == ["the publisher ended by itself (signal 9); starting it again"]
        assert outlet.dropped >= lost
        assert outlet.digest.messages == stream.seq


def test_what_a_stalled_publisher_cannot_take_is_counted_and_its_cache_made_whole(
    outlet, dealer, encoder, states
):
    stream = encoder()
    outlet.send(stream.states(states(10)))
    snapshot(dealer)
    os.kill(outlet.publisher_pid, signal.SIGSTOP)
    try:
        dropped = 0
        while not dropped:
            dropped = outlet.send([stream.heartbeat(T_NS, 10)])
        dropped += outlet.send(stream.states(states(600, first=10)))
        dropped += outlet.send(stream.tombstones([Tombstone(3, T_NS, schema.REASON_DROPPED)]))
    finally:
        os.kill(outlet.publisher_pid, signal.SIGCONT)
    assert outlet.dropped == dropped >= 602
    wait_until(lambda: outlet.send([stream.heartbeat(T_NS, 609)]) == 0)
    _, messages = snapshot(dealer, until=lambda header: header["seq"] == stream.seq)
    expected = {f"alpha-{track:06d}" for track in range(610) if track != 3}
    assert {m["trackId"] for m in messages} == expected
