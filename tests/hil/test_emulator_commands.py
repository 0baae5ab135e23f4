"""The commands as processes of their own: deterministic, clean at the end, and one line for every mistake."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serial
import zmq
from hil_support import ELEMENTS, REPOSITORY
from test_playback import b3

from fusionnode import config as station_config
from fusionnode.codec.registry import make
from fusionnode.config import ConfigError
from fusionnode.core.outcome import Outcomes
from fusionnode_hil import wire
from fusionnode_hil.config import load
from fusionnode_hil.emulator import Emulator

EXAMPLES = sorted((REPOSITORY / "configs" / "emulators").glob("*.toml"))


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the bench's command as a process in the test's folder; none outlives the test."""
    processes = []

    def start_one(*args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-m", "fusionnode_hil", *args]
        processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        )
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


def toml(tmp_path: Path, link: str, extra: str = "") -> Path:
    path = tmp_path / "radar.toml"
    path.write_text(
        f"""seed = 3
[site]
lat_deg = 14.6
lon_deg = 121.0
[sensor]
kind = "radar"
name = "radar"
id = 101
snr_ref_db = 60.0
[objects]
files = ["{ELEMENTS}"]
rcs_m2 = 5.0
[link]
{link}
[clock]
epoch_utc = "2006-06-25T12:38:00"
rate = 60.0
{extra}"""
    )
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_configuration_loads_and_sees_something(path: Path) -> None:
    emulator = Emulator(load(path))
    emissions = emulator.sensor.advance(emulator.start_ns + 600 * 10**9)
    assert sum(body >= 0 for e in emissions for body in e.bodies) > 50


def test_there_are_examples_of_both_sensors_and_of_serial_and_zeromq() -> None:
    configs = [load(path) for path in EXAMPLES]
    assert {c.sensor.kind for c in configs} == {"radar", "telescope"}
    assert {c.link.kind for c in configs} >= {"pty", "zmq"}


def test_the_bench_station_fits_the_example_emulators() -> None:
    station = station_config.load(REPOSITORY / "configs" / "bench.toml")
    for emulator in map(load, EXAMPLES):
        sensor = station.sensor[emulator.sensor.name]
        site = station.site[sensor.site]
        names = ["id", "lon_sigma_deg", "lat_sigma_deg"]
        if emulator.sensor.kind == "radar":
            names += ["range_sigma_m", "range_rate_sigma_m_s", "range_convention", "time_tag"]
        else:
            names += ["angles", "aberration"]
        for name in names:
            assert getattr(sensor, name) == getattr(emulator.sensor, name), name
        assert sensor.revisit_s == emulator.sensor.cadence_s
        assert site.model_dump() == emulator.site.model_dump()
        for name in ("mode", "epoch_utc", "rate"):
            assert getattr(station.clock, name) == getattr(emulator.clock, name), name
    links = {load(path).link for path in EXAMPLES}
    for link in links:
        if link.kind == "pty":
            line = station.link["radar_line"]
            assert (line.device, line.baud) == (link.path, link.baud)
        else:
            assert station.link["telescope_feed"].endpoint == link.endpoint


def test_two_processes_make_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys, hashlib; from fusionnode_hil.emulator import trace; from fusionnode_hil.config import load\n"
        "for path in sys.argv[1:]:\n"
        "    h = hashlib.sha256()\n"
        "    for t, data in trace(load(path), 300.0): h.update(b'%d' % t + data)\n"
        "    print(h.hexdigest())\n"
    )
    command = [sys.executable, "-c", code, *map(str, EXAMPLES)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0].split())) == len(EXAMPLES)


def test_emulate_runs_on_a_pty_and_ends_cleanly_on_a_signal(start: Start, tmp_path: Path) -> None:
    config = toml(tmp_path, 'kind = "pty"\npath = "run/radar.tty"')
    process = start("emulate", "--config", str(config), "--wait-ready", "20")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("radar: pty run/radar.tty -> /dev/pts/")
    reader, found, end = wire.FrameReader(), [], time.monotonic() + 20.0
    with serial.Serial(str(tmp_path / "run" / "radar.tty"), 115_200, timeout=0.2) as port:
        while time.monotonic() < end and sum(isinstance(m, wire.Radar) for m in found) < 20:
            found += reader.feed(port.read(max(port.in_waiting, 1)))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert err == ""
    assert out.startswith("sensor: radar, sent: ")
    assert sum(isinstance(m, wire.Radar) for m in found) >= 20
    assert reader.bad == 0
    assert not (tmp_path / "run" / "radar.tty").is_symlink()


def test_emulate_ends_after_its_duration_and_reports_json(start: Start, tmp_path: Path) -> None:
    config = toml(tmp_path, 'kind = "pty"\npath = "radar.tty"')
    args = ["emulate", "--config", str(config), "--duration", "30", "--json", "--to", "pty:other.tty"]
    process = start(*args)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    summary = json.loads(out)
    assert summary["sensor"] == "radar"
    assert summary["sent"] > 30
    assert summary["dropped_bytes"] > 0  # nobody read


def test_playback_sends_all_files_in_order_of_time(start: Start, tmp_path: Path) -> None:
    lines = [b3(second=(18, f"{k:02d}")) for k in range(20)]
    (tmp_path / "one.b3").write_text("\n".join(lines[::2]))
    (tmp_path / "two.b3").write_text("\n".join(reversed(lines[1::2])))
    args = [
        "playback",
        "one.b3",
        "two.b3",
        "--to",
        "pty:radar.tty",
        "--rate",
        "0",
        "--sensor",
        "363=7",
        "--json",
    ]
    process = start(*args)
    reader, found, end = wire.FrameReader(), [], time.monotonic() + 20.0
    while not (tmp_path / "radar.tty").is_symlink() and time.monotonic() < end:
        time.sleep(0.02)
    with serial.Serial(str(tmp_path / "radar.tty"), 115_200, timeout=0.2) as port:
        while len(found) < 20 and time.monotonic() < end:
            found += reader.feed(port.read(max(port.in_waiting, 1)))
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["records"] == {"sent": 20}
    assert [(m.sensor_id, m.seq) for m in found] == [(7, k) for k in range(20)]
    assert [m.t_ns for m in found] == sorted(m.t_ns for m in found)


@pytest.mark.parametrize("form", ["frames", "msgpack", "columnar"])
def test_playback_over_zeromq_waits_for_a_node_that_comes_later(
    start: Start, tmp_path: Path, form: str
) -> None:
    (tmp_path / "one.b3").write_text("\n".join(b3(second=(18, f"{k % 60:02d}")) for k in range(2_000)))
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.setsockopt(zmq.RCVTIMEO, 10_000)
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        pull.unbind(f"tcp://127.0.0.1:{port}")
        process = start(
            "playback", "one.b3", "--to", f"tcp://127.0.0.1:{port}", "--rate", "0", "--form", form
        )
        time.sleep(1.0)
        pull.bind(f"tcp://127.0.0.1:{port}")
        decoder, n = make("auto", "link", Outcomes()), 0
        while n < 2_000:
            n += len(decoder.decode([(0, pull.recv())]).detections)
        _, err = process.communicate(timeout=20)
    assert (n, process.returncode, err) == (2_000, 0, "")


@pytest.fixture
def dead_endpoint() -> Iterator[str]:
    """A port that is taken, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def test_playback_to_where_nobody_listens_ends_after_its_wait(
    start: Start, tmp_path: Path, dead_endpoint: str
) -> None:
    (tmp_path / "one.b3").write_text("\n".join(b3() for _ in range(2_000)))
    process = start("playback", "one.b3", "--to", dead_endpoint, "--rate", "0", "--wait-ready", "0.5")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == (
        f"fusionnode: {dead_endpoint}: nobody took anything in 0.5 s: "
        "is the node running, and is this its link's endpoint?\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_playback_while_it_waits_for_a_node(
    start: Start, tmp_path: Path, dead_endpoint: str, number: signal.Signals
) -> None:
    (tmp_path / "one.b3").write_text(b3())
    process = start("playback", "one.b3", "--to", dead_endpoint, "--wait-ready", "3600")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, "")
    assert "sent: 0" in out


def test_a_signal_ends_playback_to_a_node_that_takes_no_more(start: Start, tmp_path: Path) -> None:
    (tmp_path / "one.b3").write_text("\n".join(b3() for _ in range(60_000)))
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.setsockopt(zmq.RCVHWM, 1)
        pull.setsockopt(zmq.RCVBUF, 4_096)
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        process = start("playback", "one.b3", "--to", f"tcp://127.0.0.1:{port}", "--rate", "0")
        assert pull.poll(20_000)
        time.sleep(0.5)  # until it is stuck, or nearly so: true either way
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, "")
    assert "dropped bytes" in out


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["emulate", "--config", "absent.toml"], 2, "absent.toml: cannot be read"),
        (["playback", "absent.b3", "--to", "pty:x.tty"], 2, "absent.b3: cannot be read"),
        (["playback", "one.b3", "--to", "usb:x"], 2, "expected pty:PATH"),
        (["playback", "one.b3", "--to", "udp://127.0.0.1:5610"], 2, "expected pty:PATH"),
        (["playback", "one.b3", "--to", "tcp://127.0.0.1"], 2, "expected pty:PATH"),
        (["playback", "one.b3", "--to", "pty:/absent/x.tty"], 1, "there is no folder /absent"),
        (
            ["emulate", "--config", str(REPOSITORY / "configs" / "station.toml")],
            2,
            "this is a node's configuration; an emulator's has [sensor] kind and seed",
        ),
        (["playback", "one.b3", "--to", "serial:absent"], 1, "absent: cannot be opened"),
        (["playback", "one.b3", "--to", "pty:x.tty", "--wait-ready", "0.1"], 1, "nobody reads"),
        (["playback", "one.b3", "--to", "pty:x.tty", "--rate", "-1"], 2, "expected a number of 0 or more"),
        (["playback", "one.b3", "--to", "pty:x.tty", "--sensor", "x"], 2, "expected NAME=ID"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    start: Start, tmp_path: Path, args: list[str], code: int, expected: str
) -> None:
    (tmp_path / "one.b3").write_text(b3())
    process = start(*args)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert expected in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("seed = 3", "seed = -1"), "seed: expected"),
        (('kind = "radar"', 'kind = "sonar"'), "sensor: "),
        (("snr_ref_db = 60.0", "snr_ref = 60.0"), "sensor.snr_ref: unknown key"),
        (("rcs_m2 = 5.0", 'rcs_m2 = "big"'), "objects.rcs_m2: "),
        (("rcs_m2 = 5.0", "select = [1]"), "objects.select: 1 is in none of the files"),
        (("rcs_m2 = 5.0", "properties.9 = { rcs_m2 = 1 }"), "objects.properties.9: no such object"),
        (("[link]\n", "[link]\nspeed = 3\n"), "link.speed: unknown key"),
        (('epoch_utc = "2006-06-25T12:38:00"', 'epoch_utc = "soon"'), "clock: expected a time"),
        (("seed = 3", "seed = "), "not TOML"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    path = toml(tmp_path, 'kind = "pty"\npath = "radar.tty"')
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ConfigError) as fault:
        Emulator(load(path))
    assert expected in str(fault.value)
    assert "\n" not in str(fault.value)


def test_the_examples_hash_the_same_within_a_process() -> None:
    from fusionnode_hil.emulator import trace

    config = load(EXAMPLES[0])
    hashes = {hashlib.sha256(b"".join(d for _, d in trace(config, 60.0))).hexdigest() for _ in range(2)}
    assert len(hashes) == 1


def test_a_second_signal_inside_the_first_ones_handler_does_not_lock_up() -> None:
    """What a process does whose whole family is told to end at once."""
    storm = """
import os, signal, threading
from fusionnode_hil.runner import stop_on_signal
with stop_on_signal() as stop:
    me = os.getpid()
    def shout():
        for _ in range(20_000):
            os.kill(me, signal.SIGTERM)
            os.kill(me, signal.SIGINT)
    thread = threading.Thread(target=shout)
    thread.start()
    while thread.is_alive():
        stop.wait(0.001)
    thread.join()
print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", storm], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "ended\n"
