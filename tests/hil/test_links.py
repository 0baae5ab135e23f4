"""Links are real: a pty read through pyserial, ZeroMQ sockets; and what a reader sees when they break."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import serial
import zmq
from hil_support import radar_config, telescope_config

from fusionnode.core.clock import ScaledClock
from fusionnode_hil import wire
from fusionnode_hil.emulator import Emulator, trace
from fusionnode_hil.links import LinkError, Pace, PtyLink, SerialLink, ZmqLink
from fusionnode_hil.runner import run
from fusionnode_hil.times import NS


def read_until(port: serial.Serial, n: int, seconds: float = 10.0) -> bytes:
    """``n`` bytes of a port, or what came in time."""
    end, data = time.monotonic() + seconds, b""
    while len(data) < n and time.monotonic() < end:
        data += port.read(n - len(data))
    return data


def opened(path: Path) -> serial.Serial:
    return serial.Serial(str(path), 115_200, timeout=0.2)


def test_all_byte_values_pass_a_pty_both_ways_unchanged(tmp_path: Path) -> None:
    link = PtyLink(tmp_path / "radar.tty")
    with opened(link.path) as port:
        assert link.wait_ready(5.0)
        every = bytes(range(256)) * 40
        sender = threading.Thread(target=link.write, args=(every,))
        sender.start()
        assert read_until(port, len(every)) == every
        sender.join()
        port.write(every[:256])
        time.sleep(0.1)
        assert link.read() == every[:256]
        assert link.read() == b""
    link.close()
    assert not link.path.is_symlink()


def test_a_plain_open_without_any_settings_gets_raw_bytes(tmp_path: Path) -> None:
    link = PtyLink(tmp_path / "radar.tty")
    fd = os.open(link.path, os.O_RDWR | os.O_NOCTTY)
    assert link.wait_ready(5.0)
    link.write(b"\x03\r\n\x00\x04")
    time.sleep(0.05)
    assert os.read(fd, 100) == b"\x03\r\n\x00\x04"
    assert link.read() == b""  # no echo
    os.close(fd)
    link.close()


def test_what_is_sent_while_nobody_reads_is_lost_and_counted(tmp_path: Path) -> None:
    link = PtyLink(tmp_path / "radar.tty")
    assert not link.wait_ready(0.05)
    link.write(b"lost")
    assert link.dropped_bytes == 4
    with opened(link.path) as port:
        assert link.wait_ready(5.0)
        link.write(b"kept")
        assert read_until(port, 4) == b"kept"
    link.write(b"lost")
    assert link.dropped_bytes == 8
    link.close()


def test_unplugging_hangs_up_and_plugging_in_again_serves_the_same_name(tmp_path: Path) -> None:
    link = PtyLink(tmp_path / "radar.tty")
    port = opened(link.path)
    assert link.wait_ready(5.0)
    link.unplug()
    assert not link.path.exists()
    with pytest.raises((serial.SerialException, OSError)):
        read_until(port, 10)
    port.close()
    link.write(b"lost")
    assert link.dropped_bytes == 4
    link.plug()
    with opened(link.path) as again:
        assert link.wait_ready(5.0)
        link.write(b"back")
        assert read_until(again, 4) == b"back"
    link.close()


def test_an_emulator_goes_on_while_its_port_is_unplugged_and_plugged_in(tmp_path: Path) -> None:
    emulator = Emulator(radar_config())
    link = PtyLink(tmp_path / "radar.tty")
    stop = threading.Event()
    clock = ScaledClock(emulator.start_ns, time.time(), 100.0)
    runner = threading.Thread(target=run, args=(emulator, link, clock, stop))
    runner.start()
    found: list[list[wire.Message]] = []
    for _ in range(3):
        reader, got, end = wire.FrameReader(), [], time.monotonic() + 10.0
        with opened(link.path) as port:
            while len(got) < 20 and time.monotonic() < end:
                got += reader.feed(port.read(max(port.in_waiting, 1)))
        found.append(got)
        link.unplug()
        time.sleep(0.1)
        link.plug()
    stop.set()
    runner.join(5.0)
    link.close()
    assert not runner.is_alive()
    assert all(len(got) >= 20 for got in found)
    # what was sent in between is missing, by its sequence numbers
    assert found[1][0].seq > found[0][-1].seq + 1
    assert link.dropped_bytes > 0


def test_a_reader_that_does_not_read_cannot_hold_up_the_sensor(tmp_path: Path) -> None:
    link = PtyLink(tmp_path / "radar.tty", stall_s=0.05)
    with opened(link.path):
        assert link.wait_ready(5.0)
        link.write(b"x" * 100_000)
        assert 0 < link.dropped_bytes < 100_000
    link.close()


def test_a_file_in_the_way_of_the_symlink_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "radar.tty").write_text("mine")
    with pytest.raises(LinkError, match="not a symbolic link"):
        PtyLink(tmp_path / "radar.tty")
    assert (tmp_path / "radar.tty").read_text() == "mine"


def test_a_paced_line_never_runs_ahead_of_its_baud_rate() -> None:
    pace = Pace(100_000)
    start = time.monotonic()
    for _ in range(20):
        for piece in pace.chunks(b"x" * 100):
            pace.wait(len(piece))
    assert time.monotonic() - start >= 2_000 * 10 / 100_000 - 1e-3
    assert b"".join(pace.chunks(bytes(range(100)))) == bytes(range(100))


def test_draining_waits_for_a_slow_reader(tmp_path: Path) -> None:
    link = PtyLink(tmp_path / "radar.tty")
    got = bytearray()
    with opened(link.path) as port:
        assert link.wait_ready(5.0)
        link.write(b"z" * 3_000)

        def slow() -> None:
            while len(got) < 3_000:
                got.extend(port.read(100))
                time.sleep(0.005)

        reader = threading.Thread(target=slow)
        reader.start()
        assert link.drain(10.0)
        link.close()
        reader.join(5.0)
    assert len(got) == 3_000


def test_an_emulator_on_a_pty_is_heard_and_answers_a_ping(tmp_path: Path) -> None:
    emulator = Emulator(radar_config())
    link = PtyLink(tmp_path / "radar.tty", baud=1_000_000)
    stop = threading.Event()
    with opened(link.path) as port:
        assert link.wait_ready(5.0)
        clock = ScaledClock(emulator.start_ns, time.time(), 30.0)
        runner = threading.Thread(
            target=run, args=(emulator, link, clock, stop), kwargs={"until_ns": emulator.start_ns + 600 * NS}
        )
        runner.start()
        reader, found, end = wire.FrameReader(), [], time.monotonic() + 20.0
        port.write(b"\x00noise\x00" + wire.frame(wire.Command(sensor_id=101, seq=0, t_ns=0, command_id=5)))
        while time.monotonic() < end:
            found += reader.feed(port.read(1_000))
            kinds = {type(m) for m in found}
            if {wire.Radar, wire.Status, wire.Time, wire.Ack} <= kinds:
                break
        stop.set()
        runner.join(5.0)
    assert not runner.is_alive()
    assert {type(m) for m in found} == {wire.Radar, wire.Status, wire.Time, wire.Ack}
    assert [m.command_id for m in found if isinstance(m, wire.Ack)] == [5]
    assert reader.bad == 0
    assert [m.seq for m in found] == list(range(len(found)))
    link.close()


def test_pacing_by_a_clock_changes_no_byte(tmp_path: Path) -> None:
    config = radar_config()
    expected = b"".join(data for _, data in trace(config, 30.0))
    emulator = Emulator(config)
    link = PtyLink(tmp_path / "radar.tty")
    with opened(link.path) as port:
        assert link.wait_ready(5.0)
        clock = ScaledClock(emulator.start_ns, time.time(), 60.0)
        until = {"until_ns": emulator.start_ns + 30 * NS}
        runner = threading.Thread(target=run, args=(emulator, link, clock, threading.Event()), kwargs=until)
        runner.start()
        assert read_until(port, len(expected)) == expected
        runner.join(5.0)
        assert not runner.is_alive()
    link.close()


@pytest.mark.parametrize("bind", [True, False])
@pytest.mark.parametrize("form", ["frames", "columnar"])
def test_an_emulator_pushes_over_zeromq_either_way_round(bind: bool, form: str) -> None:
    config = telescope_config(link={"form": form})
    expected = [data for _, data in trace(config, 20.0)]
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.setsockopt(zmq.RCVTIMEO, 5_000)
        if bind:
            link = ZmqLink("tcp://127.0.0.1:*", bind=True)
            pull.connect(link.endpoint)
        else:
            link = ZmqLink(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
        assert link.wait_ready(5.0)
        for data in expected:
            link.write(data)
        assert [pull.recv() for _ in expected] == expected
        assert link.dropped_bytes == 0
        link.close()


def test_a_serial_device_is_written_to_by_its_name(tmp_path: Path) -> None:
    master, slave = os.openpty()
    link = SerialLink(os.ttyname(slave), 115_200)
    link.write(b"\x00abc\x00")
    assert os.read(master, 100) == b"\x00abc\x00"
    os.write(master, b"hello")
    time.sleep(0.05)
    assert link.read() == b"hello"
    link.close()
    os.close(master)
    os.close(slave)
    with pytest.raises(LinkError, match="cannot be opened"):
        SerialLink(str(tmp_path / "absent"), 9_600)


def test_a_serial_port_is_made_in_one_new_folder_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    PtyLink("run/radar.tty").close()
    assert (tmp_path / "run").is_dir()
    for path in ("run/deep/radar.tty", "../elsewhere/radar.tty", str(tmp_path / "absent" / "radar.tty")):
        with pytest.raises(LinkError, match="there is no folder"):
            PtyLink(path)
    assert [p.name for p in tmp_path.rglob("*")] == ["run"]
    assert not (tmp_path.parent / "elsewhere").exists()


@pytest.mark.parametrize("kind", [zmq.PULL, zmq.PUB])
def test_only_a_pull_socket_counts_as_somebody_who_listens(kind: int) -> None:
    with zmq.Context() as context, context.socket(kind) as other:
        link = ZmqLink(f"tcp://127.0.0.1:{other.bind_to_random_port('tcp://127.0.0.1')}")
        assert link.wait_ready(5.0 if kind == zmq.PULL else 0.3) == (kind == zmq.PULL)
        link.close()


def test_of_messages_without_room_only_the_first_waits_and_all_are_counted() -> None:
    link = ZmqLink("tcp://127.0.0.1:*", bind=True, wait_s=0.05)
    for _ in range(100):
        link.write(b"lost")
    assert link.dropped_bytes == 400
    link.close()


def test_what_was_written_arrives_although_the_link_is_closed_at_once() -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.setsockopt(zmq.RCVTIMEO, 5_000)
        link = ZmqLink(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
        for k in range(500):
            link.write(b"%d" % k)
        link.drain(5.0)
        link.close()
        assert [pull.recv() for _ in range(500)] == [b"%d" % k for k in range(500)]


def test_a_stop_ends_every_wait_of_a_link(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    long = 3_600.0  # the test would not end
    push = ZmqLink("tcp://127.0.0.1:*", bind=True, wait_s=long, stop=stop)
    assert not push.wait_ready(long)
    push.write(b"lost")
    push.drain(long)
    push.close()
    assert push.dropped_bytes == 4
    pty = PtyLink(tmp_path / "radar.tty", stall_s=long, stop=stop)
    assert not pty.wait_ready(long)
    with opened(pty.path):
        pty.write(b"x" * 100_000)
        assert pty.dropped_bytes > 0
        assert not pty.drain(long)
    pty.close()
