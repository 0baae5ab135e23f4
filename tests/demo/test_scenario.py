"""What the demo is played with: honest configurations, and a catalogue that is wrong by as much as it says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from fusionnode.config import load as load_station
from fusionnode_hil.config import load as load_emulator
from fusionnode_hil.demo.scenario import CLIP_SIGMA, NEW_OBJECT, catalogue, toml, write
from fusionnode_hil.times import parse_time
from fusionnode_hil.truth import load as load_truth

CONFIGS = Path(__file__).parents[2] / "configs"
ELEMENTS = CONFIGS / "elements" / "demo.tle"
SIGMAS = tomllib.loads((CONFIGS / "demo" / "station.toml").read_text())["catalogue"]
T_NS = parse_time("2006-06-25T12:36:30")


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_every_object_is_off_its_true_path_by_no_more_than_the_stated_sigmas(
    tmp_path: Path, seed: int
) -> None:
    (tmp_path / "c.tle").write_text(catalogue(ELEMENTS.read_text(), SIGMAS, T_NS, seed))
    known, truth = load_truth([tmp_path / "c.tle"]), load_truth([ELEMENTS])
    assert {b.sat_no for b in known.bodies} == {b.sat_no for b in truth.bodies} - {NEW_OBJECT}
    moved = []
    for body, x in zip(known.bodies, known.states(T_NS)[:, 0], strict=True):
        y = truth.states(T_NS)[truth.index(body.sat_no), 0]
        path, normal = y[3:] / np.linalg.norm(y[3:]), np.cross(y[:3], y[3:])
        normal /= np.linalg.norm(normal)
        age_days = 2.0  # all element sets are younger
        along = SIGMAS["sigma_along_m"] + SIGMAS["sigma_along_growth_m_per_day"] * age_days
        d = x[:3] - y[:3]
        assert abs(d @ path) < CLIP_SIGMA * along
        assert abs(d @ normal) < CLIP_SIGMA * SIGMAS["sigma_cross_m"] + 100.0  # digits of a TLE
        assert abs(d @ np.cross(normal, path)) < SIGMAS["sigma_radial_m"]
        moved.append(np.linalg.norm(d))
    assert np.median(moved) > 500.0


def test_the_same_seed_gives_the_same_catalogue_and_another_seed_another() -> None:
    text = ELEMENTS.read_text()
    assert catalogue(text, SIGMAS, T_NS, 7) == catalogue(text, SIGMAS, T_NS, 7)
    assert catalogue(text, SIGMAS, T_NS, 7) != catalogue(text, SIGMAS, T_NS, 8)


def test_the_configurations_in_the_repository_load_as_they_are() -> None:
    load_station(CONFIGS / "demo" / "station.toml")
    for name in ("radar", "telescope"):
        load_emulator(CONFIGS / "demo" / f"{name}.toml")


def test_what_is_written_for_a_run_agrees_on_clock_sensors_and_links(tmp_path: Path) -> None:
    scenario = write(tmp_path, tmp_path, seed=5, anchor_unix_s=1_234_567_890.5)
    station = load_station(scenario.station)
    for name, link in (("radar", "radar_line"), ("telescope", "telescope_feed")):
        emulator = load_emulator(getattr(scenario, name))
        assert emulator.seed == 5
        assert emulator.sensor.id == station.sensor[name].id
        assert emulator.clock.model_dump() == station.clock.model_dump()
        place = station.site[station.sensor[name].site]
        assert emulator.site.model_dump() == place.model_dump()
        wanted = getattr(emulator.link, "path", None) or emulator.link.endpoint  # type: ignore[union-attr]
        assert wanted == (getattr(station.link[link], "device", None) or station.link[link].endpoint)  # type: ignore[union-attr]
    assert station.journal.directory == str(scenario.journal)


def test_a_written_tree_reads_back_as_it_was() -> None:
    tree = {
        "a": 1,
        "b": {"c": 'x"\\y\n', "d": [1.5, "z"], "e": {"f": True}},
        "empty": {},
        "g": {"h": {"i": 1e-6}},
    }
    assert tomllib.loads(toml(tree)) == tree
