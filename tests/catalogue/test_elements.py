from __future__ import annotations

import gzip
import io
import json
from csv import DictWriter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionnode.catalogue.elements import ElementSet, load, parse
from fusionnode.core import timescales as ts

# Made up: an ordinary low orbit.
LINE1 = "1 25544U 98067A   25244.50000000  .00010000  00000-0  18000-3 0  999"
LINE2 = "2 25544  51.6400 100.0000 0004000  80.0000 280.0000 15.4980000012345"
FIELDS: dict[str, Any] = {
    "OBJECT_NAME": "STATION",
    "OBJECT_ID": "1998-067A",
    "EPOCH": "2025-09-01T12:00:00.000000",
    "MEAN_MOTION": 15.498,
    "ECCENTRICITY": 0.0004,
    "INCLINATION": 51.64,
    "RA_OF_ASC_NODE": 100.0,
    "ARG_OF_PERICENTER": 80.0,
    "MEAN_ANOMALY": 280.0,
    "NORAD_CAT_ID": 25544,
    "BSTAR": 0.00018,
    "MEAN_MOTION_DOT": 0.0001,
    "MEAN_MOTION_DDOT": 0,
}


def checked(line: str) -> str:
    """With the sum of its digits."""
    return line + str(sum(int(c) if c.isdigit() else c == "-" for c in line[:68]) % 10)


def tle(number: str = "25544", name: str | None = "0 STATION") -> str:
    lines = [checked(LINE1.replace("25544", number)), checked(LINE2.replace("25544", number))]
    return "\n".join(([name] if name else []) + lines) + "\n"


def omm(form: str, *entries: dict[str, Any]) -> str:
    if form == "json":
        return json.dumps(list(entries))
    if form == "csv":
        out = io.StringIO()
        writer = DictWriter(out, list(FIELDS))
        writer.writeheader()
        writer.writerows(entries)
        return out.getvalue()
    if form == "kvn":
        texts = [
            "CCSDS_OMM_VERS = 2.0\nCOMMENT as = made\n" + "".join(f"{k} = {v}\n" for k, v in e.items())
            for e in entries
        ]
        return "\n".join(texts).replace("51.64", "51.64 [deg]")
    bodies = ["".join(f"<{k}>{v}</{k}>" for k, v in e.items()) for e in entries]
    parts = [f"<omm><body><segment><data>{body}</data></segment></body></omm>" for body in bodies]
    return '<?xml version="1.0"?><ndm xmlns="urn:ccsds:schema:ndmxml">' + "".join(parts) + "</ndm>"


def position(known: ElementSet) -> Any:
    error, r, _ = known.satrec.sgp4(*ts.uniform_jd(ts.tai_ns_from_utc_text("2025-09-01T15:00:00"), 37))
    assert error == 0
    return r


def test_two_and_three_line_sets_are_read() -> None:
    sets, n_bad = parse("# a comment\n" + tle() + tle(name=None) + tle(name="STATION B"))
    assert [s.name for s in sets] == ["STATION", "", "STATION B"]
    assert n_bad == 0
    assert sets[0].sat_no == 25544
    assert sets[0].international_designator == "1998-067A"
    assert ts.utc_text(sets[0].epoch_ns) == "2025-09-01T12:00:00.000000Z"


@pytest.mark.parametrize(
    ("text", "number"), [("A0000", 100_000), ("T0438", 270_438), ("Z9999", 339_999), ("00005", 5)]
)
def test_five_characters_hold_numbers_to_339999(text: str, number: int) -> None:
    (known,), _ = parse(tle(text))
    assert known.sat_no == number


@pytest.mark.parametrize("form", ["json", "csv", "xml", "kvn"])
def test_every_form_of_omm_gives_the_orbit_of_the_tle(form: str) -> None:
    (of_tle,), _ = parse(tle())
    sets, n_bad = parse(omm(form, FIELDS, FIELDS | {"NORAD_CAT_ID": 799_500_123}))
    assert n_bad == 0
    assert [s.sat_no for s in sets] == [25_544, 799_500_123]
    for known in sets:
        assert (known.name, known.international_designator) == ("STATION", "1998-067A")
        assert known.epoch_ns == of_tle.epoch_ns
        np.testing.assert_allclose(position(known), position(of_tle), atol=1e-6)


BAD: list[dict[str, Any]] = [
    {"MEAN_MOTION": ""},
    {"MEAN_MOTION": 0},
    {"MEAN_MOTION": 40},
    {"ECCENTRICITY": 1.2},
    {"INCLINATION": "steep"},
    {"BSTAR": "nan"},
    {"EPOCH": "2025-02-30T00:00:00"},
    {"NORAD_CAT_ID": 1_000_000_000},
    {"NORAD_CAT_ID": None},
]


@pytest.mark.parametrize("form", ["json", "csv", "kvn", "xml"])
@pytest.mark.parametrize("change", BAD)
def test_a_bad_entry_is_counted_and_spares_its_neighbours(form: str, change: dict[str, Any]) -> None:
    sets, n_bad = parse(omm(form, FIELDS, FIELDS | change, FIELDS))
    assert (len(sets), n_bad) == (2, 1)


@pytest.mark.parametrize(
    "change", [{"EPHEMERIS_TYPE": 4}, {"MEAN_ELEMENT_THEORY": "SGP4-XP"}, {"TIME_SYSTEM": "TAI"}]
)
def test_elements_of_another_theory_or_time_are_not_taken_for_sgp4s(change: dict[str, Any]) -> None:
    assert parse(json.dumps([FIELDS | change])) == ([], 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.replace("51.6400", "51.7400"),  # the sum no longer fits
        lambda t: t.replace("2 25544", "2 25545"),
        lambda t: "\n".join(t.split("\n")[:2]) + "\n",
        lambda t: "\n".join(t.split("\n")[2:]),
    ],
)
def test_a_damaged_tle_is_counted_and_spares_its_neighbours(damage: Any) -> None:
    sets, n_bad = parse(tle(name="BEFORE") + damage(tle()) + tle(name="AFTER"))
    assert [s.name for s in sets] == ["BEFORE", "AFTER"]
    assert n_bad == 1


@given(st.integers(0, 500), st.binary(min_size=0, max_size=5))
@settings(max_examples=150)
def test_any_damage_is_counted_or_clearly_refused(place: int, rubbish: bytes) -> None:
    for whole in (tle() + tle(), omm("json", FIELDS, FIELDS), omm("xml", FIELDS), omm("kvn", FIELDS)):
        data = bytearray(whole.encode())
        data[place : place + len(rubbish)] = rubbish
        try:
            sets, n_bad = parse(data.decode(errors="replace"))
        except ValueError as error:
            assert "begins like" in str(error)  # noqa: PT017 - either way is right
        else:
            assert len(sets) + n_bad <= 4


def test_a_file_may_be_gzipped_and_says_what_it_was(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.tle", tmp_path / "a.tle.gz"
    plain.write_text(tle())
    packed.write_bytes(gzip.compress(tle().encode()))
    assert [s.sat_no for s in load(plain).sets] == [s.sat_no for s in load(packed).sets] == [25_544]
    assert load(plain).sha256 != load(packed).sha256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found none"),
        (b"no elements here\n", "found none"),
        (b"[{]", "begins like JSON"),
        (b"<ndm><omm>", "begins like XML"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><ndm/>', "entities"),
        (gzip.compress(tle().encode())[:-20], "damaged gzip"),
        (b"\x1f\x8brubbish", "gzip"),
        (b"\xff\xfe\x00\x01", "found none"),
    ],
)
def test_a_file_of_no_use_is_one_clear_error(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        load(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        load(tmp_path / "none")


def test_the_whole_public_catalogue_is_read(shared_data: Path) -> None:
    elements = load(shared_data / "catalogue" / "20250901.tle.gz")
    assert (len(elements.sets), elements.n_bad) == (28_488, 0)
    assert sum(s.sat_no > 99_999 for s in elements.sets) == 296
