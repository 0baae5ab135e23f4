"""Two daemons, real sockets, CURVE: each fuses the other's tracks, and a restart of one is taken up by the other."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import federation as fed
import msgpack
import numpy as np
import pytest
import zmq

from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.timescales import utc_text
from fusionnode.core.types import LinkRecord
from fusionnode.record.reader import one_run
from fusionnode.security.keyring import Keyring
from fusionnode_hil import wire

pytestmark = pytest.mark.slow
NAMES = ("alpha", "bravo")
BEFORE_S = 300.0  # the pass begins; in its middle the object is above the common site
CONFIG = """
[node]
id = "{name}"
[clock]
mode = "scaled"
epoch_utc = "{epoch}"
anchor_unix_s = {anchor}
{sensors}
[link.sensors]
kind = "zmq"
endpoint = "ipc://{folder}/{name}-in"
[link.{other}]
kind = "node"
endpoint = "ipc://{folder}/{other}-live"
request_endpoint = "ipc://{folder}/{other}-ask"
node_id = "{other}"
server_key = "{folder}/{other}-keys/group-{name}.public"
secret_key = "here"
[tracking]
dynamics = "zonal"
[publish]
endpoint = "ipc://{folder}/{name}-own"
snapshot_endpoint = "ipc://{folder}/{name}-snap"
[journal]
directory = "{folder}/{name}-journal"
[release]
keys_directory = "{folder}/{name}-keys"
audit_directory = "{folder}/{name}-audit"
[group.{other}]
endpoint = "ipc://{folder}/{name}-live"
request_endpoint = "ipc://{folder}/{name}-ask"
picture = "local"
classification_marking = "U"
releasable_to = ["{OTHER}"]
[[group.{other}.rule]]
name = "all"
[partner.{other}]
group = "{other}"
"""


class Two:
    """Two stations in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.anchor = time.time()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.rng = np.random.default_rng(1)
        self.orientation = EarthOrientation()
        self.x0 = fed.orbit(self.orientation, 1200e3, 30.0, 1.0)
        self.context: zmq.Context[Any] = zmq.Context()
        self.push = {name: self.context.socket(zmq.PUSH) for name in NAMES}
        self.own = {name: self.context.socket(zmq.SUB) for name in NAMES}
        self.messages: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
        self.seq = 0
        rings = {name: Keyring(folder / f"{name}-keys") for name in NAMES}
        for name, other in (NAMES, NAMES[::-1]):
            (folder / f"{name}-keys").mkdir()
            for key in ("offset", "here", f"group-{other}"):
                rings[name].new(key)
        for name, other in (NAMES, NAMES[::-1]):
            rings[name].allow(other, other, folder / f"{other}-keys" / "here.public")
        for name, other in (NAMES, NAMES[::-1]):
            sensors = "".join(
                f"[site.{s}]\nlat_deg = {fed.SITES[s][1]}\nlon_deg = {fed.SITES[s][2]}\n[sensor.{s}]\n"
                f'id = {fed.SITES[s][0]}\nkind = "radar"\nsite = "{s}"\nrange_sigma_m = 20.0\n'
                "lon_sigma_deg = 0.01\nlat_sigma_deg = 0.01\n"
                for s in fed.SEEN_BY[name]
            )
            text = CONFIG.format(
                name=name, other=other, OTHER=other.upper(), folder=folder, sensors=sensors, anchor=self.anchor,
                epoch=utc_text(fed.START_NS - round(BEFORE_S * 1e9)),
            )  # fmt: skip
            (folder / f"{name}.toml").write_text(text)
            self.push[name].connect(f"ipc://{folder}/{name}-in")
            self.own[name].setsockopt(zmq.SUBSCRIBE, b"")
            self.own[name].connect(f"ipc://{folder}/{name}-own")

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "fusionnode",
                    "run",
                    "--config",
                    f"{self.folder}/{name}.toml",
                    "--json",
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def look(self) -> None:
        """Each radar sees the object now."""
        t_s = time.time() - self.anchor - BEFORE_S
        self.seq += 1
        for site in fed.SITES:
            row = fed.seen(self.orientation, self.x0, site, [t_s], self.rng)[0]
            if row["lat_rad"] < 0.05:
                continue
            frame = wire.frame(
                wire.Radar(
                    sensor_id=int(row["sensor_id"]), seq=self.seq, flags=wire.TIME_LOCKED, t_ns=int(row["t_meas_ns"]),
                    range_mm=round(row["range_m"] * 1e3), az_bam32=wire.bam32(row["lon_rad"]),
                    el_bam32=wire.bam32_signed(row["lat_rad"]), range_rate_mm_s=round(row["range_rate_m_s"] * 1e3),
                    range_sigma_mm=20_000, az_sigma_nrad=174_533, el_sigma_nrad=174_533,
                    range_rate_sigma_mm_s=1000, snr_cdb=2000, rcs_cdbsm=0,
                    valid=wire.VALID_RANGE | wire.VALID_ANGLES | wire.VALID_RANGE_RATE, target=0,
                )
            )  # fmt: skip
            for name in NAMES:
                if site in fed.SEEN_BY[name]:
                    self.push[name].send(frame, zmq.NOBLOCK)

    def until(self, what: Callable[[], bool], seconds: float, *, looking: bool = True) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, (self.log("alpha")[-3000:], self.log("bravo")[-3000:])
            if looking:
                self.look()
            time.sleep(0.5)
            for name, socket in self.own.items():
                while socket.poll(0):
                    self.messages[name].append(msgpack.unpackb(socket.recv_multipart()[1]))

    def both(self, name: str) -> list[dict[str, Any]]:
        return [s for s in fed.of(self.messages[name]) if s["provenance"] == [name, _other(name)]]

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for socket in (*self.push.values(), *self.own.values()):
            socket.close(linger=0)
        self.context.term()


def _other(name: str) -> str:
    return NAMES[1 - NAMES.index(name)]


def test_two_stations_see_one_picture_and_a_killed_one_comes_back(tmp_path: Path) -> None:
    two = Two(tmp_path)
    try:
        for name in NAMES:
            two.start(name)
        two.until(lambda: all(": ready " in two.log(name) for name in NAMES), 200, looking=False)
        two.until(lambda: all(len(two.both(name)) > 3 for name in NAMES), 60)
        for name in NAMES:
            e, _ = fed.error(two.both(name)[-1], two.orientation, two.x0)
            assert float(np.linalg.norm(e[:3])) < 300.0
        # Killed, and started again: another stream epoch, numbers of tracks from one.
        two.processes["bravo"].send_signal(signal.SIGKILL)
        two.processes["bravo"].wait()
        two.start("bravo")
        two.until(lambda: two.log("bravo").count(": ready ") == 2, 100)
        two.messages["alpha"].clear()
        two.until(lambda: len(two.both("alpha")) > 3, 60)
        assert {s["trackId"] for s in two.both("alpha")} == {"alpha-000001"}
        for name in NAMES:
            two.processes[name].send_signal(signal.SIGTERM)
            assert two.processes[name].wait(60) == 0
        # The journal gives the same stream again, what came from the other node included.
        items = [entry.item for entry in one_run(tmp_path / "alpha-journal")]
        assert any(isinstance(item, LinkRecord) and item.link_id == "bravo" for item in items)
        done = subprocess.run(
            [sys.executable, "-m", "fusionnode", "replay", "--config", f"{tmp_path}/alpha.toml",
             f"{tmp_path}/alpha-journal"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
    finally:
        two.close()
