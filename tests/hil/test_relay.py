"""The shaping relay: late, never incomplete."""

import io
import random
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionnode_hil.relay import SEGMENT, Line, Relay, Route, Shape, main, route_of

FAST = Shape(rate_bit_s=4e6, delay_s=0.005, jitter_s=0.002, loss=0.05)


class Echo(threading.Thread):
    """Sends back what comes, then ends."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = self.listening.getsockname()

    def run(self):
        while True:
            try:
                one, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(one,), daemon=True).start()

    def serve(self, one):
        with one:
            while data := one.recv(9_000):
                one.sendall(data)


@pytest.fixture
def relays():
    made = []

    def make(shape=FAST):
        echo = Echo()
        echo.start()
        relay = Relay([Route(("127.0.0.1", 0), echo.address)], shape)
        thread = threading.Thread(target=relay.run, daemon=True)
        thread.start()
        made.append((relay, thread, echo))
        return relay

    yield make
    for relay, thread, echo in made:
        relay.stop()
        thread.join(5)
        assert not thread.is_alive()
        echo.listening.close()


def through(relay, data):
    """What comes back of ``data``, to the end."""
    with socket.create_connection(relay.addresses[0]) as one:
        sender = threading.Thread(target=lambda: (one.sendall(data), one.shutdown(socket.SHUT_WR)))
        sender.start()
        back = b""
        one.settimeout(20)
        while more := one.recv(1 << 16):
            back += more
        sender.join()
    return back


@given(
    rate=st.floats(1e3, 1e7), delay=st.floats(0, 1), jitter=st.floats(0, 0.5), loss=st.floats(0, 0.4),
    seed=st.integers(0, 99), sizes=st.lists(st.integers(1, SEGMENT), min_size=1, max_size=30),
)  # fmt: skip
def test_a_line_is_never_faster_than_its_rate_and_the_same_for_the_same_seed(
    rate, delay, jitter, loss, seed, sizes
):
    lines = [Line(Shape(rate, delay, jitter, loss, seed), "up") for _ in range(2)]
    times = [[line.arrival(n, 0.0) for n in sizes] for line in lines]
    assert times[0] == times[1]
    total = 0.0
    for n, at in zip(sizes, times[0], strict=True):
        total += 8.0 * n / rate
        assert at >= (total + delay) * (1 - 1e-9)


def test_losses_are_as_many_as_asked_for_and_cost_time():
    line = Line(Shape(rate_bit_s=64_000, delay_s=0.3, loss=0.05), "down")
    calm = Line(Shape(rate_bit_s=64_000, delay_s=0.3, loss=0.0), "down")
    late = [line.arrival(1_000, n) - calm.arrival(1_000, n) for n in range(4_000)]
    assert 0.04 * 4_000 < line.sent_again < 0.06 * 4_000
    assert 0.04 * 4_000 < sum(wait > 0.6 for wait in late) < 0.06 * 4_000
    assert max(late) > 1.5  # one was lost twice


def test_every_byte_arrives_in_order_whatever_is_lost_cut_and_healed(relays):
    relay = relays()
    data = random.Random(3).randbytes(300_000)
    cutter = threading.Thread(target=lambda: [(time.sleep(0.1), relay.cut(0.1)) for _ in range(3)])
    cutter.start()
    assert through(relay, data) == data
    cutter.join()
    report = relay.report()
    assert report["cuts"] >= 2
    assert report["segments_sent_again"] > 5
    assert report["bytes_up"] == report["bytes_down"] == len(data)


def test_connections_share_the_line_and_each_gets_its_own_bytes(relays):
    relay = relays()
    blocks = [random.Random(n).randbytes(40_000) for n in range(4)]
    back = {}
    threads = [
        threading.Thread(target=lambda n=n: back.update({n: through(relay, blocks[n])})) for n in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [back[n] for n in range(4)] == blocks


def test_while_cut_nothing_passes_and_new_connections_wait(relays):
    relay = relays(Shape(rate_bit_s=0, delay_s=0, loss=0))
    assert through(relay, b"before") == b"before"
    relay.cut()
    with socket.create_connection(relay.addresses[0]) as one:
        one.sendall(b"x")
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.recv(1)
        relay.heal()
        one.settimeout(5)
        assert one.recv(1) == b"x"
        relay.drop()
        assert one.recv(1) == b""


def test_it_is_a_command(tmp_path):
    echo = Echo()
    echo.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    route = f"127.0.0.1:{port}=127.0.0.1:{echo.address[1]}"
    command = [
        sys.executable,
        "-m",
        "fusionnode_hil.relay",
        "--route",
        route,
        "--delay-ms",
        "1",
        "--loss",
        "0",
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(b"hello")
            assert one.recv(5) == b"hello"
        out, err = process.communicate("cut 0.1\nnonsense\nheal\nquit\n", timeout=10)
        assert '"bytes_up": 5' in out
        assert "not a command: 'nonsense'" in err
    echo.listening.close()


@pytest.mark.parametrize("args", [["--route", "x"], ["--route", "127.0.0.1:1=127.0.0.1:2", "--loss", "1"]])
def test_what_cannot_be_is_one_line(args, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    assert main(args) == 2
    assert said.getvalue().startswith("error: ")
    with pytest.raises(ValueError, match="HOST:PORT"):
        route_of("nothing")
