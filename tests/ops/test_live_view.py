"""The live view: what is on the screen, whatever the stream brings."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text
from view_samples import SENSORS, state, view

from fusionnode.core.refframes import EarthOrientation, enu_itrf, site_itrf
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.ops.live_view import View, metres, render, seconds
from fusionnode.ops.local_sky import LocalSky, Site, orbit_kind
from fusionnode.ops.picture_file import svg
from fusionnode.ops.stream_watch import StreamWatch


@pytest.fixture(scope="module")
def sky(orientation: EarthOrientation) -> LocalSky:
    return LocalSky(orientation)


def lines(view: View, sky: LocalSky, width: int = 100, height: int = 30) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(render(view, sky, width=width, height=height))
    return capture.get().rstrip("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (140, 50)])
@pytest.mark.parametrize("tracks", [0, 1, 9, 40])
def test_the_view_fits_the_terminal(sky: LocalSky, width: int, height: int, tracks: int) -> None:
    states = [
        state(f"demo-{i:06d}", name=f"SATELLITE {i} WITH A LONG NAME", uct=i % 3 == 0) for i in range(tracks)
    ]
    shown = lines(view(*states, footer=Text("Ctrl-C ends it")), sky, width, height)
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    assert "Ctrl-C ends it" in shown[-1]
    assert any("telescope" in line and "silent" in line for line in shown)


def test_a_track_is_shown_with_name_place_sigma_and_age(sky: LocalSky) -> None:
    text = "\n".join(lines(view(state("demo-000007")), sky))
    row = next(line for line in text.split("\n") if "VANGUARD 1" in line and "LEO" in line)
    assert "17 m" in row
    assert "30 s" in row
    look = sky.looks([state("demo-000007")], [Site(14.6, 121.0, 60.0)])[0]
    assert f"{look.range_km:,.0f}" in row
    assert f"{look.az_deg:.1f}" in row


def test_an_unknown_object_is_shown_as_uncorrelated(sky: LocalSky) -> None:
    text = "\n".join(lines(view(state("demo-000007", uct=True, name=None, satNo=None)), sky))
    assert "uncorrelated" in text


def test_the_reasons_for_not_using_detections_are_shown_with_the_largest_first(sky: LocalSky) -> None:
    row = next(line for line in lines(view(), sky) if "radar" in line)
    assert re.search(r"120\s+104\s+unassociated 6 · gated out 3 · \(waiting 7\)", row)


def test_markup_in_names_is_shown_as_it_is(sky: LocalSky) -> None:
    hostile = "[bold red]X[/] [link=x]"
    sensors = {"[red]a[/]": SENSORS["radar"]}
    text = "\n".join(lines(view(state("[b]t[/b]", name=hostile, sensors=["[i]s[/i]"]), sensors=sensors), sky))
    assert hostile in text
    assert "[b]t[/b]" in text
    assert "[red]a[/]" in text


def test_a_track_whose_sensor_is_not_known_yet_has_no_place(sky: LocalSky) -> None:
    row = next(line for line in lines(view(state("demo-000001"), sensors={}), sky) if "LEO" in line)
    assert row.count("–") == 3


def test_sensor_fields_of_the_wrong_kind_do_no_harm(sky: LocalSky) -> None:
    odd = {"radar": {"alive": "yes", "latDeg": "x", "outcomes": [1], "rateHz": None, "detections": {}}}
    assert any("radar" in line for line in lines(view(state("demo-000001"), sensors=odd), sky))


@pytest.mark.parametrize(
    ("changes", "word"),
    [({}, "no gaps"), ({"whole": False}, "incomplete"), ({"stream": StreamWatch()}, "waiting")],
)
def test_the_header_says_how_the_stream_is(sky: LocalSky, changes: dict[str, object], word: str) -> None:
    assert word in lines(view(**changes), sky)[1]


def test_the_picture_asks_nothing_of_the_network(sky: LocalSky) -> None:
    text = svg(render(view(state("demo-000001")), sky, width=100, height=30), width=100, title="x")
    assert "@font-face" not in text
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert "url(#" in text
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 200_000


def test_a_look_is_what_the_rotation_to_the_horizon_gives(
    orientation: EarthOrientation, sky: LocalSky
) -> None:
    site = Site(-31.0, 136.8, 160.0)
    s = state("t", xpos=-20_000.0, ypos=30_000.0, zpos=-9_000.0)
    t_ns = np.array([tai_ns_from_utc_text(s["epoch"])])
    lat, lon = np.radians(site.lat_deg), np.radians(site.lon_deg)
    itrf = orientation.gcrf_to_itrf(t_ns)[0] @ np.array([-20e6, 30e6, -9e6])
    enu = enu_itrf(lat, lon) @ (itrf - site_itrf(lat, lon, 160.0))
    look = sky.looks([s], [site])[0]
    assert look.range_km == pytest.approx(np.linalg.norm(enu) / 1e3, rel=1e-12)
    assert np.sin(np.radians(look.el_deg)) == pytest.approx(enu[2] / np.linalg.norm(enu), abs=1e-12)
    assert np.tan(np.radians(look.az_deg)) == pytest.approx(enu[0] / enu[1], rel=1e-9)


@pytest.mark.parametrize(
    ("radius_km", "speed", "kind"),
    [
        (7_000.0, 1.0, "LEO"),
        (26_560.0, 1.0, "MEO"),
        (42_164.0, 1.0, "GEO"),
        (7_000.0, 1.3, "HEO"),
        (7_000.0, 1.5, "?"),
    ],
)
def test_the_kind_of_orbit_follows_from_the_state(radius_km: float, speed: float, kind: str) -> None:
    circular = (398_600.4418 / radius_km) ** 0.5
    assert orbit_kind(state("t", xpos=radius_km, yvel=speed * circular)) == kind


def test_lengths_and_times_are_short_at_any_size() -> None:
    assert [metres(v) for v in (12.3, 999.4, 1_500.0, 123_456.0, float("nan"))] == [
        "12 m", "999 m", "1.5 km", "123 km", "?"
    ]  # fmt: skip
    assert [seconds(v) for v in (-0.1, 12.0, 600.0, 7_200.0)] == ["0 s", "12 s", "10 min", "2.0 h"]
