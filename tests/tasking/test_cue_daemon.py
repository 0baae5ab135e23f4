"""A partner's request through everything: client, CURVE, publisher, daemon, serial line, emulated radar, and back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusionnode.client import CueReply, State, Subscriber
from fusionnode.core.timescales import tai_ns_from_utc_text, utc_text
from fusionnode.record import audit
from fusionnode.record.entries import Command
from fusionnode.record.reader import one_run
from fusionnode.security.keyring import Keyring

ELEMENTS = Path(__file__).resolve().parents[2] / "configs" / "elements" / "demo.tle"
STATION = """
[node]
id = "alpha"
[clock]
mode = "scaled"
epoch_utc = "2006-06-25T12:37:00"
anchor_unix_s = {anchor}
[site.here]
lat_deg = 14.6
lon_deg = 121.0
height_m = 60.0
[sensor.radar]
id = 101
kind = "radar"
site = "here"
[link.line]
kind = "serial"
device = "{folder}/radar.tty"
[tracking]
dynamics = "zonal"
[publish]
endpoint = "ipc://{folder}/own"
snapshot_endpoint = "ipc://{folder}/snap"
[journal]
directory = "{folder}/journal"
[release]
keys_directory = "{folder}/keys"
audit_directory = "{folder}/audit"
[group.allies]
endpoint = "ipc://{folder}/live"
request_endpoint = "ipc://{folder}/ask"
classification_marking = "U"
releasable_to = ["BRAVO"]
[[group.allies.rule]]
name = "all"
[partner.bravo]
group = "allies"
may_request = true
"""
RADAR = """
seed = 7
[site]
lat_deg = 14.6
lon_deg = 121.0
height_m = 60.0
[sensor]
kind = "radar"
name = "radar"
id = 101
snr_ref_db = 60.0
[objects]
files = ["{elements}"]
rcs_m2 = 5.0
[link]
kind = "pty"
path = "{folder}/radar.tty"
[clock]
epoch_utc = "2006-06-25T12:37:00"
anchor_unix_s = {anchor}
"""


@pytest.mark.slow
def test_a_partners_request_comes_back_acknowledged_and_is_on_record(tmp_path: Path) -> None:
    anchor = time.time() + 1.0
    (tmp_path / "keys").mkdir()
    ring, theirs = Keyring(tmp_path / "keys"), Keyring(tmp_path)
    for name in ("offset", "group-allies"):
        ring.new(name)
    theirs.new("bravo")
    ring.allow("allies", "bravo", tmp_path / "bravo.public")
    fields = {"folder": tmp_path, "anchor": anchor, "elements": ELEMENTS}
    (tmp_path / "node.toml").write_text(STATION.format(**fields))
    (tmp_path / "radar.toml").write_text(RADAR.format(**fields))
    with (tmp_path / "log").open("wb") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "fusionnode", command, "--config", str(tmp_path / file)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=tmp_path,
            )
            for command, file in (("emulate", "radar.toml"), ("run", "node.toml"))
        ]
    try:
        replies: list[CueReply] = []
        asked = False
        end = time.monotonic() + 240.0
        with Subscriber(
            f"ipc://{tmp_path}/live",
            f"ipc://{tmp_path}/ask",
            server_key=tmp_path / "keys" / "group-allies.public",
            secret_key_file=tmp_path / "bravo.secret",
        ) as subscriber:
            while not (replies and replies[-1].last):
                assert time.monotonic() < end, (tmp_path / "log").read_text()[-3000:]
                for event in subscriber.receive(0.2):
                    if isinstance(event, CueReply):
                        replies.append(event)
                    elif isinstance(event, State) and not asked and event.state["status"] == "confirmed":
                        asked = True
                        now_ns = tai_ns_from_utc_text(event.state["epoch"])
                        subscriber.request_observation(
                            track_id=event.state["trackId"],
                            from_utc=utc_text(now_ns),
                            to_utc=utc_text(now_ns + 60_000_000_000),
                            sensor="radar",
                        )
        assert [r.state for r in replies] == ["accepted", "sent", "acknowledged"]
        processes[1].send_signal(signal.SIGTERM)
        assert processes[1].wait(60) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    commands = [e.item for e in one_run(tmp_path / "journal") if isinstance(e.item, Command)]
    assert [c.link_id for c in commands] == ["line"]
    lines = [json.loads(line) for line in (tmp_path / "audit" / "node.log").read_text().splitlines()]
    assert [line["state"] for line in lines if line["kind"] == "cue"] == ["accepted", "sent", "acknowledged"]
    assert audit.verify(tmp_path / "audit")["node.log"] == len(lines)
