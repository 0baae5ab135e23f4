"""What a partner, or somebody without a key, can do to a group's publisher: nothing that others notice."""

import random
import socket as plain
import time
import zlib

import msgpack
import pytest
import zmq
from group_support import House, ask, received, reply, wait_until

from fusionnode.core import schema
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.release.settings import Partner

T_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


@pytest.fixture
def home(tmp_path, addresses):
    partners = {
        "bravo": Partner(),
        "mallory": Partner(),
        "slow": Partner(paced_bytes_per_s=20_000),
    }
    home = House(tmp_path, addresses, partners=partners)
    home.open()
    yield home
    home.close()


def memory(pid):
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123 - not a file of ours
        return int(file.read().split()[1]) * 4096


def subscribed(home, stream, name="bravo"):
    sub = home.sub(name)

    def beat():
        home.outlet.send([stream.heartbeat(T_NS, 0)])
        return sub.poll(50)

    wait_until(beat)
    received(sub)
    return sub


def test_a_hundred_thousand_malformed_requests_delay_nobody(home, encoder, states):
    stream, rng = encoder(), random.Random(4)
    sub = subscribed(home, stream)
    bad, dealer = home.dealer("mallory"), home.dealer()
    assert ask(dealer, "hello_request", versions=[1], client="x")[0]["type"] == "hello"
    before = memory(home.outlet.publisher_pid)
    pieces = [
        msgpack.packb({"v": 1, "type": "snapshot_request", "id": -1}),
        msgpack.packb({"v": 1, "type": "history_request", "id": 1, "streamEpoch": "x", "from": "1"}),
        msgpack.packb({"v": 1, "type": "paced_request", "id": 1, "bytesPerS": -5}),
        msgpack.packb({"v": 1, "type": "paced_ack", "id": 1, "n": 1 << 63}),
        msgpack.packb({"v": 1, "type": "cue_request", "id": 1}),
        msgpack.packb([[[[]]]]),
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 900,
        b"",
        bytes(1025),
        rng.randbytes(65_000),
    ]
    pieces += [rng.randbytes(rng.randrange(1, 200)) for _ in range(50)]
    sent, slowest = 0, 0.0
    while sent < 100_000:
        for _ in range(2_000):
            frames = [pieces[rng.randrange(len(pieces))] for _ in range(1 + (sent % 50 == 0))]
            if len(frames[0]) > 2_000 and sent % 10:
                continue
            bad.send_multipart(frames)
            sent += 1
        begun = time.monotonic()
        home.outlet.send(stream.states(states(1)))
        assert sub.poll(5_000)
        slowest = max(slowest, time.monotonic() - begun)
        received(sub, 0)
        while bad.poll(0):
            bad.recv_multipart()
    assert slowest < 2.0
    assert ask(dealer, "snapshot_request", 9)[0]["count"] == 1
    assert memory(home.outlet.publisher_pid) - before < 60e6
    assert home.outlet.restarts == 0
    assert ask(home.dealer("slow"), "hello_request", versions=[1], client="x")[0]["paced"]


def test_one_who_asks_and_never_reads_costs_a_bounded_lot(home, encoder, states):
    stream = encoder()
    sub = subscribed(home, stream)
    for _ in range(4):
        home.outlet.send(stream.states(states(2_000)))
        received(sub, 100)
    before = memory(home.outlet.publisher_pid)
    bad = home.dealer("mallory")
    bad.setsockopt(zmq.RCVHWM, 1)
    for request_id in range(500):
        for kind in ("snapshot_request", "history_request"):
            fields = {"streamEpoch": "alpha-1", "from": 1, "to": None}
            bad.send(msgpack.packb({"v": 1, "type": kind, "id": request_id} | fields))
    assert len(ask(home.dealer(), "snapshot_request")[1]) == 2_000
    assert memory(home.outlet.publisher_pid) - before < 80e6
    home.outlet.send(stream.states(states(10)))
    assert len(received(sub)) == 10


def test_strangers_that_connect_and_say_nothing_or_rubbish_keep_nobody_out(home, encoder):
    rng = random.Random(5)
    opened = []
    for n in range(200):
        host, port = (home.live, home.request)[n % 2].removeprefix("tcp://").split(":")
        connection = plain.create_connection((host, int(port)))
        opened.append(connection)
        if n % 3 == 1:
            connection.sendall(rng.randbytes(64))
        elif n % 3 == 2:
            connection.sendall(b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01CURVE" + bytes(47))
    try:
        subscribed(home, encoder())
        assert ask(home.dealer(), "hello_request", versions=[1], client="x")[0]["type"] == "hello"
    finally:
        for connection in opened:
            connection.close()


def test_one_who_fills_the_memory_with_subscriptions_is_put_out(home, encoder):
    stream = encoder()
    good = subscribed(home, stream)
    greedy = home.socket(zmq.SUB, home.pairs["mallory"], options=[(zmq.SNDHWM, 0)])
    for n in range(6_000):
        greedy.subscribe(f"state.{n:0200d}".encode())
    wait_until(lambda: '"put_out"' in home.audit_text())
    wait_until(lambda: home.outlet.send([stream.heartbeat(T_NS, 0)]) == 0 and good.poll(50))
    received(good)
    received(greedy)
    again = home.sub("mallory")
    wait_until(lambda: home.outlet.send([stream.heartbeat(T_NS, 0)]) == 0 and good.poll(50))
    assert not again.poll(300)
    assert not greedy.poll(0)


def test_a_route_of_ones_own_making_gets_no_answer(home, encoder):
    home.outlet.send([encoder().heartbeat(T_NS, 0)])
    socket = home.socket(zmq.DEALER, home.pairs["mallory"], options=[(zmq.ROUTING_ID, b"bravo")])
    socket.send(msgpack.packb({"v": 1, "type": "snapshot_request", "id": 1}))
    assert ask(home.dealer(), "hello_request", versions=[1], client="x")[0]["type"] == "hello"
    assert not socket.poll(200)


def test_a_paced_partner_over_real_sockets(home, encoder, states):
    stream = encoder()
    sub, slow = subscribed(home, stream), home.dealer("slow")
    home.outlet.send(stream.states(states(40)))
    received(sub)
    request = {
        "v": 1,
        "type": "paced_request",
        "id": 5,
        "bytesPerS": 1 << 40,
        "compact": True,
        "resume": None,
    }
    slow.send(msgpack.packb(request))
    seen, whole = {}, False
    for n in range(1, 200):
        body, _ = reply(slow)
        assert (body["type"], body["id"], body["n"], body["base"]) == ("paced", 5, n, None)
        slow.send(msgpack.packb({"v": 1, "type": "paced_ack", "id": 5, "n": n}))
        unpacker = msgpack.Unpacker()
        unpacker.feed(zlib.decompress(body["z"]))
        for item in unpacker:
            if isinstance(item, list):
                seen[item[2]] = item[1]
        if body["whole"]:
            whole = True
            break
    assert whole
    assert body["seq"] == stream.seq
    assert len(seen) == 40
    home.outlet.send(stream.states(states(1)))
    body, _ = reply(slow)
    assert body["rttS"] is not None
    assert body["whole"]
    assert body["type"] == schema.TYPE_PACED
