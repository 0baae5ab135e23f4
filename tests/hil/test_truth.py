"""Truth: files are read as they mean, frames agree with the node's, and SGP4 with centimetre orbits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hil_support import ELEMENTS, EPOCH
from sgp4.api import Satrec
from sgp4.exporter import export_omm

from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode_hil.earth import bundled_orientation, rotate, unit
from fusionnode_hil.ephemeris import Ephemeris, TruthError, read_oem, read_sp3
from fusionnode_hil.times import NS, day_to_tai_ns, parse_time, utc_text
from fusionnode_hil.truth import Body, load, read_tle

EPOCH_NS = parse_time(EPOCH)


@pytest.mark.parametrize("text", ["1996-12-08T13:37:31.5", "2006-06-25T12:38:00", "2016-12-31T23:59:60.25"])
def test_utc_becomes_the_tai_that_the_node_finds(text: str) -> None:
    t_ns = parse_time(text)
    assert t_ns == tai_ns_from_utc_text(text)
    assert utc_text(t_ns).startswith(text)


def test_time_systems_differ_by_their_constants() -> None:
    text = "2025-09-01T00:00:00"
    assert parse_time(text, "UTC") - parse_time(text, "TAI") == 37 * NS
    assert parse_time(text, "GPS") - parse_time(text, "TAI") == 19 * NS
    assert parse_time(text, "TAI") - parse_time(text, "TT") == 32_184_000_000


def test_the_bench_and_the_node_turn_the_earth_alike(orientation) -> None:
    for text in ("1996-12-08T00:00:00", "2006-06-25T00:00:00", "2025-09-01T00:00:00"):
        t_ns = parse_time(text) + np.arange(0, 86_400, 7_200, dtype=np.int64) * NS
        bench = bundled_orientation().at(t_ns)
        # 2e-8 rad is 0.14 m in low orbit: how the parameters are interpolated, and daily tides in 1996
        np.testing.assert_allclose(bench.itrf_gcrf, orientation.gcrf_to_itrf(t_ns), atol=2e-8)
        np.testing.assert_allclose(bench.gcrf_teme, orientation.teme_to_gcrf(t_ns), atol=2e-8)


def test_sp3_lines_are_read_as_they_stand(shared_data: Path) -> None:
    (table,) = read_sp3(shared_data / "precise_orbits" / "sentinel3a_20181224.sp3.gz")
    # the header says TAI; the second record of the file
    assert table.t_ns[1] == parse_time("2018-12-24T21:57:00", "TAI")
    np.testing.assert_array_equal(table.state[1, :3], [-4014845.710, 833323.197, -5904141.461])
    np.testing.assert_allclose(table.state[1, 3:], [6229.4733828, 1012.3435083, -4095.4849613], rtol=1e-12)
    np.testing.assert_array_equal(table.interpolate(table.t_ns[1:2])[0], table.state[1])


def test_interpolation_gives_back_points_that_were_left_out(shared_data: Path) -> None:
    (table,) = read_sp3(shared_data / "precise_orbits" / "jason1_20030107.sp3.gz")
    thinned = Ephemeris("half", "ITRF", table.t_ns[::2], table.state[::2])
    error = thinned.interpolate(table.t_ns[101:901:2]) - table.state[101:901:2]
    assert np.abs(error[:, :3]).max() < 0.005  # at twice the step the file has
    assert np.abs(error[:, 3:]).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "sp3", "limits_m"),
    [
        ("sentinel3a", "sentinel3a_20181224", (400, 1100, 460)),
        ("jason1", "jason1_20030107", (400, 1100, 460)),
    ],
)
def test_sgp4_is_as_far_from_a_precise_orbit_as_element_sets_are(
    shared_data: Path, name: str, sp3: str, limits_m: tuple[float, float, float]
) -> None:
    folder = shared_data / "precise_orbits"
    truth = load([folder / f"{name}.tle", folder / f"{sp3}.sp3.gz"])
    t_ns = parse_time("2018-12-27T00:00:00" if name == "sentinel3a" else "2003-01-10T00:00:00")
    t_ns = t_ns + np.arange(0, 4 * 86_400, 1_200, dtype=np.int64) * NS
    records = [record for _, record in read_tle((folder / f"{name}.tle").read_text(), name)]
    epochs = np.array([r.jdsatepoch + r.jdsatepochF for r in records])
    nearest = np.abs(epochs[:, None] - (t_ns / 86_400e9 + 2_440_587.5)).argmin(axis=0)
    states = truth.states(t_ns)
    precise = states[-1]
    difference = (states[nearest, np.arange(len(t_ns))] - precise)[:, :3]
    radial = unit(precise[:, :3])
    cross = unit(np.cross(precise[:, :3], precise[:, 3:]))
    along = np.cross(cross, radial)
    rms = [np.sqrt(np.mean(np.sum(difference * axis, axis=1) ** 2)) for axis in (radial, along, cross)]
    assert (np.array(rms) < limits_m).all(), rms
    # and the velocities are those of the positions, rotation of the frame included
    steps = truth.states(t_ns[:5] + NS // 2)[-1, :, :3] - truth.states(t_ns[:5] - NS // 2)[-1, :, :3]
    np.testing.assert_allclose(steps, precise[:5, 3:], atol=0.02)


def test_elements_mean_the_same_as_tle_and_as_omm_in_every_syntax(tmp_path: Path) -> None:
    lines = [line for line in ELEMENTS.read_text().splitlines() if not line.startswith("#")][:3]
    fields = export_omm(Satrec.twoline2rv(lines[1], lines[2]), lines[0])
    fields["EPOCH"] = fields["EPOCH"].removesuffix("Z")
    number = 700_123_456  # nine digits
    fields |= {"NORAD_CAT_ID": number}
    (tmp_path / "a.json").write_text(json.dumps([fields]))
    (tmp_path / "a.csv").write_text(
        ",".join(fields) + "\n" + ",".join(str(value) for value in fields.values()) + "\n"
    )
    tags = "".join(f"<{key}>{value}</{key}>" for key, value in fields.items())
    (tmp_path / "a.xml").write_text(
        "<ndm><omm><body><segment><metadata/><data><meanElements>"
        f"{tags}</meanElements><tleParameters/></data></segment></body></omm></ndm>"
    )
    (tmp_path / "a.tle").write_text("\n".join(lines))
    expected = load([tmp_path / "a.tle"]).states(EPOCH_NS)
    for kind in ("json", "csv", "xml"):
        truth = load([tmp_path / f"a.{kind}"])
        assert truth.bodies[0].sat_no == number
        assert truth.bodies[0].name == "DELTA 1 DEB"
        np.testing.assert_allclose(truth.states(EPOCH_NS), expected, rtol=0, atol=0.05)


def _oem(tmp_path: Path, frame: str, states: np.ndarray, t_ns: np.ndarray) -> Path:
    rows = "\n".join(
        f"{utc_text(int(t))} " + " ".join(f"{x / 1e3:.9f}" for x in row)
        for t, row in zip(t_ns, states, strict=True)
    )
    path = tmp_path / f"{frame}.oem"
    path.write_text(
        "CCSDS_OEM_VERS = 2.0\nCREATION_DATE = 2006-06-25T00:00:00\nORIGINATOR = TEST\nMETA_START\n"
        f"OBJECT_NAME = THING\nOBJECT_ID = 2000-001A\nCENTER_NAME = EARTH\nREF_FRAME = {frame}\n"
        f"TIME_SYSTEM = UTC\nSTART_TIME = {utc_text(int(t_ns[0]))}\nSTOP_TIME = {utc_text(int(t_ns[-1]))}\n"
        f"META_STOP\nCOMMENT states\n{rows}\n"
    )
    return path


def test_an_oem_in_any_of_its_frames_gives_the_orbit_it_was_made_from(tmp_path: Path) -> None:
    truth = load([ELEMENTS], select=[28057])
    t_ns = EPOCH_NS + np.arange(0, 1_800, 60, dtype=np.int64) * NS
    states = truth.states(t_ns)[0]
    between = t_ns[10:20] + 17 * NS
    for frame in ("GCRF", "ITRF2000", "TEME"):
        turn = bundled_orientation().at(t_ns)
        matrix = {"GCRF": np.eye(3), "ITRF2000": turn.itrf_gcrf, "TEME": np.swapaxes(turn.gcrf_teme, 1, 2)}[
            frame
        ]
        r, v = rotate(matrix, states[:, :3]), rotate(matrix, states[:, 3:])
        if frame == "ITRF2000":
            v = v - np.cross([0, 0, 7.292115146706979e-5], r)
        found = load([_oem(tmp_path, frame, np.hstack([r, v]), t_ns)])
        assert found.bodies == (Body("THING"),)
        np.testing.assert_allclose(found.states(between), truth.states(between), atol=0.02)


def test_outside_of_its_span_an_ephemeris_knows_nothing(tmp_path: Path) -> None:
    t_ns = EPOCH_NS + np.arange(0, 900, 60, dtype=np.int64) * NS
    path = _oem(tmp_path, "GCRF", load([ELEMENTS], select=[28057]).states(t_ns)[0], t_ns)
    states = load([path]).states([int(t_ns[0]) - 1, int(t_ns[3]), int(t_ns[-1]) + 1])
    assert np.isnan(states[0, [0, 2]]).all()
    assert np.isfinite(states[0, 1]).all()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.tle", "hello\n", "no element sets"),
        (
            "x.tle",
            "1 06251U 62025E   06176.82412014  .00008885  00000-0  12808-3 0  3985\nhello\n",
            "x.tle:2",
        ),
        ("x.json", "{", "not OMM"),
        ("x.json", '[{"EPOCH": 3}]', "not OMM"),
        ("x.xml", "<a>", "not OMM"),
        ("x.sp3", "*  2018 12 24 21 56  zero\n", "x.sp3:1"),
        ("x.oem", "META_START\nREF_FRAME = MARS\nMETA_STOP\n2018-01-01T00:00:00 1 2 3 4 5 6\n", "REF_FRAME"),
        ("x.oem", "2018-01-01T00:00:00 1 2 3\n", "x.oem:1"),
        ("x.sp3.gz", "not gzip", "cannot be read"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TruthError) as fault:
        load([tmp_path / name])
    assert expected in str(fault.value)
    assert name in str(fault.value)
    assert "\n" not in str(fault.value)


def test_sp3_positions_alone_give_velocities(tmp_path: Path, shared_data: Path) -> None:
    (full,) = read_sp3(shared_data / "precise_orbits" / "jason1_20030107.sp3.gz")
    lines = ["%c L  cc TAI ccc cccc cccc cccc cccc ccccc ccccc ccccc ccccc"]
    for t, row in zip(full.t_ns[:40], full.state[:40], strict=True):
        minute = int(t - full.t_ns[0]) // (60 * NS)
        lines.append(f"*  2003  1  7  {minute // 60} {minute % 60}  0.00000000")
        lines.append("PL27" + "".join(f"{x / 1e3:14.6f}" for x in row[:3]) + " 999999.999999")
    (tmp_path / "p.sp3").write_text("\n".join(lines))
    (table,) = read_sp3(tmp_path / "p.sp3")
    np.testing.assert_allclose(table.state[5:-5, 3:], full.state[5:35, 3:], atol=2e-3)


def test_oem_of_another_centre_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "moon.oem"
    path.write_text(
        "META_START\nREF_FRAME = GCRF\nCENTER_NAME = MOON\nMETA_STOP\n2018-01-01T00:00:00 1 2 3 4 5 6\n"
    )
    with pytest.raises(TruthError, match="CENTER_NAME"):
        read_oem(path)


def test_a_day_of_a_time_system_that_is_not_known_is_refused() -> None:
    from datetime import date

    with pytest.raises(ValueError, match="expected UTC, TAI, GPS or TT"):
        day_to_tai_ns(date(2020, 1, 1), 0, "UT1")
