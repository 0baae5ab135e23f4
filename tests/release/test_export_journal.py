"""Real radar data through a journal, and out of it as files."""

import gzip
import json
import re
from itertools import pairwise
from pathlib import Path

import ccsds_ndm
import numpy as np
import pytest

from fusionnode.cli import main
from fusionnode.core import timescales
from fusionnode.core.outcome import Outcomes
from fusionnode.core.types import LinkRecord
from fusionnode.daemon import load_config, offset_key, run_meta
from fusionnode.record.entries import Tick
from fusionnode.record.journal import Journal
from fusionnode.security.keyring import Keyring

GROUPS = """
[link.radar]
kind = "zmq"
endpoint = "tcp://127.0.0.1:5699"
codec = "b3"
[release]
keys_directory = "keys"
audit_directory = "audit"
[group.allies]
endpoint = "tcp://127.0.0.1:5610"
request_endpoint = "tcp://127.0.0.1:5611"
classification_marking = "U"
releasable_to = ["GBR"]
[[group.allies.rule]]
name = "moved"
release = true
precision_m = 2000
"""


@pytest.fixture(scope="module")
def home(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    config = (Path(__file__).parents[2] / "configs" / "ssn_radar.toml").read_text()
    path = folder / "node.toml"
    path.write_text(config + GROUPS)
    Keyring(folder / "keys").new("offset")
    loaded, text = load_config(path)
    lines = gzip.decompress((shared_data / "ssn_radar" / "13736_dec1996.b3.gz").read_bytes()).splitlines(True)
    records = []
    for line in lines:
        year, day, hms = int(line[9:11]), int(line[11:14]), line[14:20].decode()
        first = timescales.day_from_year_doy(1900 + year, day)
        ns = (int(hms[:2]) * 3600 + int(hms[2:4]) * 60 + int(hms[4:6])) * 10**9
        records.append((int(timescales.tai_ns_from_utc(first, ns)), line))
    records.sort()
    # The first pass of a hundred records and more.
    times = np.array([t for t, _ in records])
    cuts = [0, *(np.flatnonzero(np.diff(times) > 300 * 10**9) + 1).tolist(), len(times)]
    first, last = next((a, b) for a, b in pairwise(cuts) if b - a > 100)
    meta = run_meta(loaded, text, "epoch-1", records[first][0], offset_key=offset_key(loaded, path))
    journal = Journal(folder / "journal", meta)
    for t, line in records[first:last]:
        journal.append(LinkRecord(t, "radar", line))
        journal.append(Tick(t))
    journal.append(Tick(records[last - 1][0] + 30 * 10**9))
    assert journal.close()
    return folder, last - first


def export(home, kind, out, *more):
    folder, _ = home
    where = [str(folder / "journal"), "--config", str(folder / "node.toml")]
    assert main(["export", *where, "--format", kind, "--out", str(folder / out), *more]) == 0
    return (folder / out).read_text()


def test_measurements_that_updated_a_track(home):
    text = export(home, "tdm", "all.tdm")
    states = [r for r in json.loads(export(home, "udl", "all.json")) if r["origObjectId"] == "ssn-000001"]
    message = ccsds_ndm.Tdm.from_str(text)
    (segment,) = message.body.segments[:1]
    meta = segment.metadata
    assert (str(meta.path), meta.range_units, meta.reference_frame) == ("1,2,1", "km", "ICRF")
    assert "Ranges are one way" in text
    assert "Releasable to: not marked" in text
    by_time = {}
    for o in segment.data.observations:
        by_time.setdefault(o.epoch, {})[o.keyword] = o.value
    assert 50 < len(by_time) <= home[1]
    at = {s["epoch"].removesuffix("Z"): s for s in states}
    # Every one at the epoch of a state that it updated, and its direction and range lead there from the site.
    assert set(by_time) <= set(at)
    # The node's own reader takes the file.
    from fusionnode.codec.tdm import TdmDecoder

    decoder = TdmDecoder("file", Outcomes())
    decoder.decode([(0, text.encode())])
    read = decoder.finish().detections
    assert decoder.reason is None
    assert len(read) == sum(len(s.data.observations) for s in message.body.segments) // 4
    sites = []
    for row in read[: len(by_time)]:
        lon, lat = row["lon_rad"], row["lat_rad"]
        line = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
        state = at[timescales.utc_text(int(row["t_meas_ns"])).removesuffix("Z")]
        r = np.array([state["xpos"], state["ypos"], state["zpos"]]) * 1e3
        sites.append(np.linalg.norm(r - row["range_m"] * line))
    assert np.median(np.abs(np.array(sites) - 6.3755e6)) < 10e3


def test_a_group_gets_what_its_stream_would(home, capsys):
    own = json.loads(export(home, "udl", "own.json"))
    theirs = json.loads(export(home, "udl", "theirs.json", "--group", "allies"))
    assert theirs
    assert all(record["tags"] == ["REL:GBR"] for record in theirs)
    assert not {r["origObjectId"] for r in own} & {r["origObjectId"] for r in theirs}
    at = {r["epoch"]: np.array([r["xpos"], r["ypos"], r["zpos"]]) for r in own}
    apart = [
        np.linalg.norm(at[r["epoch"]] - [r["xpos"], r["ypos"], r["zpos"]]) * 1e3
        for r in theirs
        if r["epoch"] in at
    ]
    assert apart
    assert min(apart) > 1.0
    # Again, and it is the same offset: nothing averages away.
    again = export(home, "udl", "again.json", "--group", "allies")
    assert json.loads(again) == theirs
    text = export(home, "oem", "theirs.oem", "--group", "allies", "--track", theirs[-1]["origObjectId"])
    assert "Releasable to: GBR" in text
    assert not re.search(r"ssn-0000", text)
    folder = home[0]
    argv = ["export", str(folder / "journal"), "--config", str(folder / "node.toml"), "--format", "tdm"]
    assert main([*argv, "--group", "allies", "--out", str(folder / "no")]) == 2
    assert "no rule releases measurements" in capsys.readouterr().err


def test_another_key_is_refused(home, capsys):
    folder = home[0]
    secret = folder / "keys" / "offset.secret"
    kept = secret.read_bytes()
    secret.unlink()
    Keyring(folder / "keys").new("offset")
    argv = ["export", str(folder / "journal"), "--config", str(folder / "node.toml"), "--format", "udl"]
    assert main([*argv, "--group", "allies", "--out", str(folder / "no")]) == 2
    assert "offsets average away" in capsys.readouterr().err
    secret.unlink()
    secret.write_bytes(kept)
    secret.chmod(0o600)
