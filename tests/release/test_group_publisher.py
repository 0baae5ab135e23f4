"""A release group's publisher: who gets in, what he gets, and what becomes of it when things break."""

import json
import os
import signal
import time

import msgpack
import pytest
import zmq
from group_support import Grant, House, ask, received, reply, wait_until

from fusionnode.core import schema
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.record import audit
from fusionnode.release.settings import Partner
from fusionnode.security.keyring import Pair

T_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


@pytest.fixture
def house(tmp_path, addresses):
    houses = []

    def make(**changes):
        houses.append(House(tmp_path, addresses, **changes))
        return houses[-1]

    yield make
    for one in houses:
        one.close()


def beats_until(house, stream, socket):
    """Heartbeats until the subscriber has one: its subscription is there."""

    def beat():
        house.outlet.send([stream.heartbeat(T_NS, 0)])
        return socket.poll(50)

    wait_until(beat)
    return received(socket)


def test_an_allowed_partner_gets_the_stream_and_its_answers(house, encoder, states):
    home = house()
    home.open()
    stream = encoder()
    sub, dealer = home.sub(), home.dealer()
    beats_until(home, stream, sub)
    messages = stream.states(states(20))
    home.outlet.send(messages, [Grant(f"alpha-{n:06d}", "leo", stream.seq) for n in range(20)])
    assert [tuple(m) for m in received(sub)] == messages
    header, payloads = ask(dealer, "snapshot_request")
    assert (header["type"], header["seq"], len(payloads)) == ("snapshot", stream.seq, 20)
    hello, _ = ask(dealer, "hello_request", 2, versions=[1], client="test")
    assert (hello["group"], hello["nodeId"], hello["paced"], hello["version"]) == (
        "allies",
        "alpha",
        False,
        1,
    )
    home.outlet.close()
    lines = [json.loads(line) for line in home.audit_text().splitlines()]
    assert [line["track"] for line in lines if line["kind"] == "grant"] == [
        f"alpha-{n:06d}" for n in range(20)
    ]
    assert {line["partner"] for line in lines if line["kind"] == "connected"} == {"bravo"}
    assert audit.verify(home.folder / "audit") == {"group-allies.log": len(lines)}


@pytest.mark.parametrize("which", ["random", "none", "wrong server", "other group", "file but no partner"])
def test_nobody_else_gets_a_byte(house, encoder, states, which):
    home = house()
    home.open()
    home.admit("otherwise", door="others")
    home.admit("stranger")
    pair, server = Pair(*zmq.curve_keypair()), None
    if which == "none":
        pair = None
    elif which == "wrong server":
        pair, server = home.pairs["bravo"], zmq.curve_keypair()[0]
    elif which == "other group":
        pair = home.pairs["otherwise"]
    elif which == "file but no partner":
        pair = home.pairs["stranger"]
        wait_until(lambda: "stranger" in home.audit_text())
    sub, dealer = home.socket(zmq.SUB, pair, server), home.socket(zmq.DEALER, pair, server)
    dealer.send(msgpack.packb({"v": 1, "type": "snapshot_request", "id": 1}))
    good, stream = home.sub(), encoder()
    beats_until(home, stream, good)
    home.outlet.send(stream.states(states(5)))
    assert len(received(good)) == 5
    assert not sub.poll(300)
    assert not dealer.poll(0)


def test_a_paced_partner_is_kept_from_the_live_stream(house, encoder, states):
    home = house(partners={"bravo": Partner(), "slow": Partner(paced_bytes_per_s=1000)})
    home.open()
    stream, good, slow = encoder(), home.sub(), home.sub("slow")
    beats_until(home, stream, good)
    home.outlet.send(stream.states(states(5)))
    assert len(received(good)) == 5
    assert not slow.poll(100)
    hello, _ = ask(home.dealer("slow"), "hello_request", versions=[1], client="test")
    assert (hello["paced"], hello["maxBytesPerS"]) == (True, 1000)


def test_a_revoked_key_is_cut_off_and_the_others_come_back(house, encoder):
    home = house(partners=("bravo", "charlie"))
    home.open()
    stream = encoder()
    bravo, charlie = home.sub(), home.sub("charlie")
    beats_until(home, stream, bravo)
    beats_until(home, stream, charlie)
    received(bravo)
    home.keys.revoke("allies", "bravo")
    wait_until(lambda: '"key_revoked"' in home.audit_text())
    beats_until(home, stream, charlie)
    received(bravo)  # what had come before
    beats_until(home, stream, charlie)
    assert not bravo.poll(100)
    home.admit("bravo")  # another key under the same name
    wait_until(
        lambda: home.audit_text().count('"key_allowed"') == 3
    )  # one that is refused does not try again
    again = home.sub()
    beats_until(home, stream, again)
    assert not bravo.poll(0)


def test_partners_change_without_a_restart(house, encoder):
    home = house()
    home.open()
    stream, bravo = encoder(), home.sub()
    beats_until(home, stream, bravo)
    home.admit("charlie")
    home.outlet.set_partners({"charlie": Partner()})
    beats_until(home, stream, home.sub("charlie"))
    received(bravo)
    beats_until(home, stream, home.sub("charlie"))
    assert not bravo.poll(100)


def test_history_fills_a_gap_and_not_under_another_policy(house, encoder, states):
    home = house(history_bytes=40_000)
    home.open()
    stream, dealer = encoder(), home.dealer()
    sent = []
    for _ in range(10):
        sent += stream.states(states(10))
        home.outlet.send(sent[-10:])
    wait_until(lambda: ask(dealer, "snapshot_request")[0].get("seq") == 100)
    header, payloads = ask(dealer, "history_request", streamEpoch="alpha-1", **{"from": 51, "to": 60})
    assert (header["type"], header["from"], header["to"], header["count"]) == ("history", 51, 60, 10)
    assert payloads == [msgpack.unpackb(payload) for _, payload in sent[50:60]]
    assert header["next"] is None
    header, payloads = ask(dealer, "history_request", streamEpoch="alpha-1", **{"from": 95, "to": None})
    assert (header["to"], len(payloads), header["next"], header["nextEpoch"]) == (100, 6, None, None)
    for first, epoch in ((2, "alpha-1"), (51, "alpha-0"), (102, "alpha-1")):
        header, _ = ask(dealer, "history_request", streamEpoch=epoch, **{"from": first, "to": 60})
        assert (header["type"], header["reason"]) == ("error", "not_kept")
    home.outlet.set_policy("p2")
    home.outlet.send([stream.heartbeat(T_NS, 10)])
    wait_until(lambda: ask(dealer, "snapshot_request")[0].get("seq") == 101)
    header, _ = ask(dealer, "history_request", streamEpoch="alpha-1", **{"from": 51, "to": 60})
    assert header["reason"] == "not_kept"
    assert ask(dealer, "snapshot_request")[0]["count"] == 0  # what is shown now is what is released now
    assert ask(dealer, "history_request", streamEpoch="alpha-1", **{"from": 101, "to": 101})[0]["count"] == 1


def test_a_killed_publisher_comes_back_with_all_grants(house, encoder, states):
    home = house()
    home.open()
    stream, dealer = encoder(), home.dealer()
    grants = [Grant(f"alpha-{n:06d}", "leo", 1, 25544) for n in range(5)]
    home.outlet.send(stream.states(states(5)), grants)
    wait_until(lambda: ask(dealer, "snapshot_request")[0].get("seq") == 5)
    home.outlet.send([stream.heartbeat(T_NS, 5)], [Grant("alpha-000003", "", 6)])
    os.kill(home.outlet.publisher_pid, signal.SIGKILL)

    def beat():
        home.outlet.send([stream.heartbeat(T_NS, 5)])
        time.sleep(0.05)
        return home.audit_text().count('"grants_whole"')

    wait_until(beat)
    lines = [json.loads(line) for line in home.audit_text().splitlines()]
    whole = next(i for i, line in enumerate(lines) if line["kind"] == "grants_whole")
    again = [line["track"] for line in lines[whole:] if line["kind"] == "grant"]
    assert again == [f"alpha-{n:06d}" for n in (0, 1, 2, 4)]
    assert len(ask(home.dealer(), "snapshot_request")[1]) == 5
    home.outlet.close()
    assert audit.verify(home.folder / "audit")["group-allies.log"] > len(lines)


def test_a_cue_goes_to_the_daemon_and_its_replies_come_back(house, encoder):
    home = house(partners={"bravo": Partner(may_request=True), "charlie": Partner()})
    home.open()
    bravo, charlie = home.dealer(), home.dealer("charlie")
    header, _ = ask(charlie, "cue_request", 3, trackId="a-1")
    assert (header["type"], header["state"], header["reason"]) == (
        "cue_reply",
        "refused",
        schema.ERROR_NOT_ALLOWED,
    )
    bravo.send(msgpack.packb({"v": 1, "type": "cue_request", "id": 7, "trackId": "a-1"}))
    (request,) = wait_until(home.outlet.requests)
    assert (request.partner, msgpack.unpackb(request.payload)["trackId"]) == ("bravo", "a-1")
    for state in ("accepted", "acknowledged"):
        body = {"v": 1, "type": "cue_reply", "id": 7, "state": state}
        assert home.outlet.reply("bravo", msgpack.packb(body))
        assert reply(bravo)[0] == body
    assert not charlie.poll(50)


def test_addresses_of_this_computer_are_there_again_after_a_revocation(house, encoder, tmp_path):
    home = house(partners=("bravo", "charlie"))
    home.live, home.request = f"ipc://{tmp_path}/live", f"ipc://{tmp_path}/request"
    home.open()
    stream = encoder()
    for n in range(1, 4):
        home.keys.revoke("allies", "bravo")
        wait_until(lambda n=n: home.audit_text().count('"key_revoked"') == n)
        beats_until(home, stream, home.sub("charlie"))
        assert ask(home.dealer("charlie"), "hello_request", versions=[1], client="x")[0]["type"] == "hello"
        home.admit("bravo")
        wait_until(lambda n=n: home.audit_text().count('"key_allowed"') == 2 + n)
