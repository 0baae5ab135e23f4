"""`fusionnode subscribe` as a user runs it."""

import json
import signal
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "fusionnode", "subscribe"]


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def node(make_node):
    node = make_node()
    node.states(1, 2)
    node.sensor(ratePerS=2.5)
    return node


def test_json_prints_one_object_a_line_and_ends_after_count(node):
    result = run(node.live, "--snapshot", node.snapshot, "--json", "--count", "4")
    assert (result.returncode, result.stderr) == (0, "")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["type"] for event in events] == ["state", "state", "sensor", "synced"]
    assert (events[0]["trackId"], events[0]["xpos"]) == ("alpha-000001", 7000.0)
    assert (events[0]["seq"], events[0]["fromSnapshot"]) == (1, True)
    assert (events[2]["sensor"], events[2]["ratePerS"]) == ("north", 2.5)
    assert (events[3]["streamEpoch"], events[3]["tracks"]) == ("alpha-1", 2)


def test_text_prints_one_line_for_each_event(node):
    with subprocess.Popen(
        [*COMMAND, node.live, "--count", "5"], stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            node.states(1)
            node.end(2, "merged", successor=1)
            node.sensor(ratePerS=2.5)
            node.beat()
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        lines = process.stdout.read().splitlines()
    assert (process.returncode, len(lines)) == (0, 5)
    text = "\n".join(lines)
    assert (
        "state     alpha-000001 confirmed     7000.000        0.000        0.000 km  sigma 2 m  UCT" in text
    )
    assert "tombstone alpha-000002 merged, goes on as alpha-000001" in text


def test_a_node_that_is_not_there_is_one_line_saying_what_to_do(free_addresses):
    result = run(free_addresses[0], "--timeout", "0.5")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"fusionnode: nothing came from {free_addresses[0]} in 0.5 s: is the node running, and is this its "
        "publish.endpoint?"
    ]


def test_what_is_no_address_is_one_line_and_2():
    result = run("nonsense")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("fusionnode: nonsense: ")
    assert len(result.stderr.splitlines()) == 1


def test_it_ends_after_the_time_it_was_given(node):
    result = run(node.live, "--snapshot", node.snapshot, "--for", "0.5", "--json")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 4


def test_ctrl_c_ends_it_cleanly(node):
    with subprocess.Popen(
        [*COMMAND, node.live, "--snapshot", node.snapshot],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
