import json
import math
import re

import ccsds_ndm
import numpy as np
import pytest
from sgp4.api import WGS72, Satrec

from fusionnode.cli import main
from fusionnode.core import timescales
from fusionnode.release.exports import elements
from fusionnode.release.exports.arcs import in_rtn, rtn
from fusionnode.security.keyring import Keyring

EPOCH = timescales.tai_ns_from_utc_text("2025-09-01T00:00:00Z")
TRUE = {"motion": 15.1 * 2 * math.pi / 1440, "e": 0.0013, "i": 0.9, "node": 2.0, "perigee": 1.0, "mean": 0.3}
LOWER = np.tril_indices(6)
MU = 3.986004418e14

CONFIG = """
[node]
id = "n1"
classification_marking = "U//FOUO"
data_mode = "TEST"
source = "somewhere"
[release]
keys_directory = "keys"
audit_directory = "audit"
[site.s]
lat_deg = 21.57208
lon_deg = -158.26674
[sensor.kaena]
id = 932
kind = "radar"
site = "s"
[sensor.secret]
id = 933
kind = "radar"
site = "s"
[group.allies]
endpoint = "tcp://127.0.0.1:5610"
request_endpoint = "tcp://127.0.0.1:5611"
classification_marking = "U"
releasable_to = ["GBR", "FRA"]
[[group.allies.rule]]
name = "known"
release = true
uct = false
sensors_none = ["secret"]
[group.near]
endpoint = "tcp://127.0.0.1:5612"
request_endpoint = "tcp://127.0.0.1:5613"
classification_marking = "U"
releasable_to = ["ESP"]
[[group.near.rule]]
name = "blurred"
release = true
precision_m = 1000
"""


def truth(orientation, t_ns, e=TRUE["e"], i=TRUE["i"], motion=TRUE["motion"]):
    """GCRF states, SI, of a satellite that moves as SGP4 says."""
    satrec = elements._satrec(EPOCH, motion, e, i, TRUE["node"], TRUE["perigee"], TRUE["mean"])
    out = []
    for turn, t in zip(orientation.teme_to_gcrf(t_ns), t_ns.tolist(), strict=True):
        code, r, v = satrec.sgp4_tsince((t - EPOCH) / 60e9)
        assert code == 0
        out.append(np.concatenate([turn @ np.array(r), turn @ np.array(v)]) * 1e3)
    return np.array(out)


def line(track, t_ns, x, sat_no=None, sensors=("kaena",), **more):
    P = np.diag([100.0, 400.0, 900.0, 0.01, 0.04, 0.09])
    P[3, 0] = P[0, 3] = 0.5
    fields = {
        "trackId": track, "epoch": timescales.utc_text(int(t_ns)), "referenceFrame": "GCRF",
        **dict(zip(("xpos", "ypos", "zpos", "xvel", "yvel", "zvel"), (x / 1e3).tolist(), strict=True)),
        "cov": (P[LOWER] / 1e6).tolist(), "covReferenceFrame": "GCRF", "status": "confirmed", "uct": sat_no is None,
        "satNo": sat_no, "idOnOrbit": track if sat_no is None else "1998-067A",
        "name": None if sat_no is None else "STATION é", "objectProbability": None, "sensors": list(sensors),
        "lastObEnd": timescales.utc_text(int(t_ns)), "nis": 3.0, "dof": 4, "updates": 9, "existence": 1.0,
        "classificationMarking": "U//FOUO", "dataMode": "TEST", "source": "somewhere",
    }  # fmt: skip
    return json.dumps(fields | more)


@pytest.fixture(scope="module")
def times():
    first = EPOCH + np.arange(0, 600, 10) * 10**9
    return np.concatenate([first, first + 5_600 * 10**9])


@pytest.fixture(scope="module")
def states(orientation, times):
    return truth(orientation, times)


@pytest.fixture
def home(tmp_path, times, states):
    (tmp_path / "node.toml").write_text(CONFIG)
    Keyring(tmp_path / "keys").new("offset")
    lines = [line("n1-000001", t, x, 25544) for t, x in zip(times, states, strict=True)]
    lines += [line("n1-000002", t, x) for t, x in zip(times[:5], states[:5] + 1e4, strict=True)]
    lines += [line("n1-000003", times[0], states[0] * 1.1, 5, ("kaena", "secret"))]
    lines += [line("n1-000004", times[0], states[0] * 1.2, status="tentative")]
    event = {"type": "event", "trackId": "n1-000001", "event": "manoeuvre", "time": "2025-09-01T00:05:00.000000Z",
             "epoch": "2025-09-01T00:04:00.000000Z", "epochFrom": None, "epochTo": None,
             "deltaV": [1e-3, 0.0, -2e-3], "deltaVSigma": 1e-4, "satNo": 25544}  # fmt: skip
    lines.append(json.dumps(event))
    (tmp_path / "states.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def export(home, kind, out, *more):
    where = [str(home / "states.jsonl"), "--config", str(home / "node.toml")]
    return main(["export", *where, "--format", kind, "--out", str(home / out), *more])


def test_an_oem_has_every_state_and_covariance(home, times, states):
    assert export(home, "oem", "one.oem", "--object", "25544") == 0
    text = (home / "one.oem").read_text()
    assert not list(home.glob(".one*"))
    message = ccsds_ndm.Oem.from_str(text)
    assert [message.header.classification, message.header.originator] == ["U//FOUO", "n1"]
    assert len(message.segments) == 2  # the gap of more than an hour is none that may be interpolated
    meta = message.segments[0].metadata
    assert [meta.ref_frame, meta.time_system, meta.object_id] == ["GCRF", "UTC", "1998-067A"]
    read = np.array(
        [[s.x, s.y, s.z, s.x_dot, s.y_dot, s.z_dot] for g in message.segments for s in g.data.state_vector]
    )
    assert np.abs(read * 1e3 - states).max() < 1e-6
    epochs = [s.epoch for g in message.segments for s in g.data.state_vector]
    assert [timescales.tai_ns_from_utc_text(t) for t in epochs] == times.tolist()
    covariance = message.segments[0].data.covariance_matrix[3]
    assert (covariance.cx_x, covariance.cx_dot_x, covariance.cov_ref_frame) == (1e-4, 0.5e-6, "GCRF")
    assert "Releasable to: not marked for release" in text


def test_the_same_oem_by_a_reader_of_its_own(home, states):
    """Keyword=value text by nothing but the standard's rules: no library of ours."""
    assert export(home, "oem", "one.oem", "--track", "n1-000001") == 0
    lines = (home / "one.oem").read_text().splitlines()
    rows = [line.split() for line in lines if re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert len(rows) == len(states)
    r, v = np.array(rows[0][1:4], float) * 1e3, np.array(rows[0][4:], float) * 1e3
    for _ in range(100):  # 10 s by steps of 0.1 s, two bodies: J2 leaves 0.5 m
        a = -MU * r / np.linalg.norm(r) ** 3
        r, v = r + 0.1 * v + 0.005 * a, v + 0.05 * (a - MU * (r + 0.1 * v) / np.linalg.norm(r + 0.1 * v) ** 3)
    assert np.linalg.norm(r - np.array(rows[1][1:4], float) * 1e3) < 2.0
    assert all(line.isascii() for line in lines)


def test_the_package_oem_reads_it_too(home, states):
    oem = pytest.importorskip("oem")
    assert export(home, "oem", "one.oem", "--object", "25544") == 0
    lines = (home / "one.oem").read_text().splitlines(keepends=True)
    # It knows the header of issue 2 of the standard only.
    later = ("CLASSIFICATION", "MESSAGE_ID")
    text = "".join(line.replace("= 3.0", "= 2.0") for line in lines if not line.startswith(later))
    (home / "two.oem").write_text(text)
    read = list(oem.OrbitEphemerisMessage.open(home / "two.oem").states)
    assert len(read) == len(states)
    assert np.abs(np.array([s.position for s in read]) * 1e3 - states[:, :3]).max() < 1e-6


def test_an_opm_has_its_covariance_in_rtn(home, states):
    assert export(home, "opm", "one.opm", "--object", "25544") == 0
    message = ccsds_ndm.Opm.from_str((home / "one.opm").read_text())
    c = message.segment.data.covariance_matrix
    assert c.cov_ref_frame == "RTN"
    P = np.diag([100.0, 400.0, 900.0])
    axes = rtn(states[-1:])[0]
    assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert c.cx_x * 1e6 == pytest.approx(axes[0] @ P @ axes[0])
    assert c.cy_x * 1e6 == pytest.approx(axes[1] @ P @ axes[0])
    full = in_rtn(states[-1:], np.diag([1.0, 2, 3, 4, 5, 6])[None])[0]
    assert np.trace(full) == pytest.approx(21.0)
    assert message.segment.data.user_defined_parameters.user_defined["CLASSIFICATION_MARKING"] == "U//FOUO"


def test_an_ocm_has_states_covariances_and_the_burn(home, states):
    assert export(home, "ocm", "one.ocm", "--object", "25544") == 0
    message = ccsds_ndm.Ocm.from_str((home / "one.ocm").read_text())
    data = message.segment.data
    assert [len(t.traj_lines) for t in data.traj] == [60, 60]
    assert np.abs(np.array([r.values for r in data.traj[1].traj_lines]) * 1e3 - states[60:]).max() < 1e-6
    assert data.cov[0].cov_ordering.upper() == "LTM"
    assert data.cov[0].cov_lines[0].values[0] == 1e-4
    (burn,) = data.man
    assert [float(v) for v in burn.man_lines[0].values] == [1e-3, 0.0, -2e-3]


@pytest.mark.parametrize(
    ("e", "i", "a_day"), [(0.0013, 0.9, 15.1), (1e-6, 1.7, 14.5), (0.7, 1.1, 2.006), (0.01, 1e-4, 12.0)]
)
def test_mean_elements_are_those_that_made_the_states(orientation, times, e, i, a_day):
    motion = a_day * 2 * math.pi / 1440
    x = truth(orientation, times, e, i, motion)
    P = np.broadcast_to(np.diag([1.0, 1, 1, 1e-6, 1e-6, 1e-6]), (len(x), 6, 6))
    found = elements.fit(times, x, P, orientation)
    assert found.rms_m < 1.0
    later = times[-1:] + 6 * 3600 * 10**9
    code, r, _ = found.satrec().sgp4_tsince(6 * 60)
    assert code == 0
    at = orientation.teme_to_gcrf(later)[0] @ np.array(r) * 1e3
    # SGP4 with another epoch is not quite the same theory.
    assert np.linalg.norm(at - truth(orientation, later, e, i, motion)[0, :3]) < 2_000.0


def test_an_omm_says_how_well_it_fits(home, orientation, states, times):
    assert export(home, "omm", "one.omm", "--object", "25544") == 0
    text = (home / "one.omm").read_text()
    message = ccsds_ndm.Omm.from_str(text)
    mean = message.segment.data.mean_elements
    satrec = Satrec()
    day, fraction = timescales.utc_jd(timescales.tai_ns_from_utc_text(mean.epoch))
    radians = [math.radians(v) for v in (mean.arg_of_pericenter, mean.inclination, mean.mean_anomaly)]
    satrec.sgp4init(
        WGS72, "i", 25544, day - 2433281.5 + fraction, 0.0, 0.0, 0.0, mean.eccentricity, *radians,
        mean.mean_motion * 2 * math.pi / 1440, math.radians(mean.ra_of_asc_node),
    )  # fmt: skip
    _, r, _ = satrec.sgp4_tsince((times[0] - times[-1]) / 60e9)
    assert np.linalg.norm(orientation.teme_to_gcrf(times[:1])[0] @ np.array(r) * 1e3 - states[0, :3]) < 100.0
    assert "rms" in text
    assert "BSTAR was not estimated" in text


def test_elements_are_refused_where_they_would_be_made_up(home, capsys):
    assert export(home, "omm", "all") == 1
    said = capsys.readouterr().err
    assert "n1-000003" in said
    assert "one state alone" in said
    assert not (home / "all" / "n1-000003.omm").exists()


def test_czml_opens_as_a_list_of_packets(home, states):
    assert export(home, "czml", "all.czml") == 0
    document, *packets = json.loads((home / "all.czml").read_text())
    assert (document["id"], document["version"]) == ("document", "1.0")
    assert [p["id"] for p in packets] == ["n1-000001", "n1-000002", "n1-000003"]
    first = packets[0]["position"][0]
    assert first["referenceFrame"] == "INERTIAL"
    rows = np.array(first["cartesianVelocity"]).reshape(-1, 7)
    assert rows[:, 0].tolist() == [10.0 * n for n in range(60)]
    assert np.abs(rows[:, 1:] - states[:60]).max() < 1e-6
    assert "U//FOUO" in packets[0]["description"]


def test_udl_records_are_in_its_names_and_km(home, states):
    assert (
        export(home, "udl", "all.json", "--from", "2025-09-01T00:01:00Z", "--to", "2025-09-01T00:02:00Z") == 0
    )
    records = json.loads((home / "all.json").read_text())
    assert len(records) == 7
    for record in records:
        assert {
            "classificationMarking",
            "dataMode",
            "source",
            "epoch",
            "referenceFrame",
            "uct",
        } <= record.keys()
        assert len(record["cov"]) == 21
        assert not {"status", "nis", "trackId"} & record.keys()
    assert records[0]["xpos"] * 1e3 == pytest.approx(states[6, 0])
    assert records[0]["origObjectId"] == "n1-000001"


def test_a_group_gets_no_more_than_its_policy_lets_out(home, capsys):
    assert export(home, "udl", "allies.json", "--group", "allies") == 0
    records = json.loads((home / "allies.json").read_text())
    assert {record["satNo"] for record in records} == {25544}
    assert all(record["tags"] == ["REL:GBR", "REL:FRA"] for record in records)
    assert all(record["classificationMarking"] == "U" for record in records)
    text = (home / "allies.json").read_text()
    for never in ("n1-000002", "n1-000003", "FOUO", "secret"):
        assert never not in text
    assert export(home, "oem", "allies", "--group", "allies") == 0
    assert "Releasable to: GBR, FRA" in (home / "allies").read_text()
    # Offsets belong to a run: another one beside it would let both be found.
    assert export(home, "udl", "near.json", "--group", "near") == 2
    assert "from the journal" in capsys.readouterr().err
    assert not (home / "near.json").exists()


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("tdm", [], "measurements are in a journal"),
        ("udl", ["--group", "nobody"], "no [group.nobody]"),
        ("udl", ["--from", "yesterday"], "--from: 'yesterday' is not a time"),
        ("udl", ["--track", "n1-000099"], "there is no state to export"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(home, capsys, kind, more, said):
    before = sorted(home.iterdir())
    assert export(home, kind, "out", *more) in (1, 2)
    assert said in capsys.readouterr().err
    assert sorted(home.iterdir()) == before


def test_a_damaged_file_is_told_by_its_line(home, capsys):
    with (home / "states.jsonl").open("a") as file:
        file.write('{"trackId": "n1-0000')
    assert export(home, "czml", "out") == 2
    assert "line 129: expected a state" in capsys.readouterr().err
    assert export(home, "oem", "states.jsonl/x") == 2
