"""The example configurations load, and a wrong one is told in one line: file, key, what was expected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fusionnode import config as node_config
from fusionnode.cli import main
from fusionnode.config import ConfigError
from fusionnode_hil import config as hil_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
STATION = (CONFIGS / "station.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.toml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_example_loads(path: Path) -> None:
    if "[node]" in path.read_text(encoding="utf-8"):
        node_config.load(path)
    else:
        hil_config.load(path)


WRONG = [
    ("lat_deg = 40.43", "latitude_deg = 40.43", r"site\.hill\.(latitude_deg|lat_deg)"),
    (
        "range_sigma_m = 20.0",
        "range_sigam_m = 20.0",
        r"sensor\.radar\.range_sigam_m: .*did you mean range_sigma_m\?",
    ),
    ("lat_deg = 40.43", "lat_deg = 140.43", r"site\.hill\.lat_deg: .*90.*140\.43"),
    ('site = "hill"', 'site = "valley"', r"sensor\.radar\.site: no \[site\.valley\]"),
    ("id = 201", "id = 101", r"sensor\.telescope\.id: 101 is also that of sensor\.radar"),
    ('kind = "radar"', 'kind = "sonar"', r"sensor\.radar\.kind: .*'radar' or 'optical'.*'sonar'"),
    (
        "range_sigma_m = 20.0",
        "range_sigma_m = -1.0",
        r"sensor\.radar\.range_sigma_m: .*greater than 0.*-1\.0",
    ),
    ("range_sigma_m = 20.0", "range_sigma_m = nan", r"sensor\.radar\.range_sigma_m: "),
    ("range_sigma_m = 20.0", 'range_sigma_m = "wide"', r"sensor\.radar\.range_sigma_m: .*'wide'"),
    ("baud = 921600", "baudrate = 921600", r"link\.radar_line\.baudrate: unknown key"),
    ('"tcp://127.0.0.1:5600"', '"tcp://0.0.0.0:5600"', r"publish\.endpoint: .*loopback.*allow_non_loopback"),
    ('"tcp://127.0.0.1:5550"', '"tcp://*:5550"', r"link\.telescope_socket\.endpoint: .*loopback"),
    ('mode = "system"', 'mode = "scaled"', r"clock: .*epoch_utc and anchor_unix_s"),
    ("[node]", "[node", r"not TOML"),
    (
        '"tcp://127.0.0.1:5550"',
        '"tcp://127.0.0.1:99999"',
        r"link\.telescope_socket\.endpoint: .*65535.*99999",
    ),
    ('"tcp://127.0.0.1:5550"', '"tcp://127.evil.org:5550"', r"link\.telescope_socket\.endpoint: .*loopback"),
    (
        '"tcp://127.0.0.1:5601"',
        '"tcp://127.0.0.1:5600"',
        r"publish\.snapshot_endpoint: .*also publish\.endpoint",
    ),
    ("hold_back_s = 0.25", "hold_back_s = 1e300", r"tracking\.hold_back_s: .*1e\+300"),
    ("[journal]", "heartbeat_s = 1e-12\n[journal]", r"publish\.heartbeat_s: .*1e-12"),
    ("confirm_hits = 6", "confirm_hits = 99", r"tracking\.confirm_hits: .*8.*99"),
]


@pytest.mark.parametrize(("good", "bad", "told"), WRONG, ids=[w[1] for w in WRONG])
def test_a_wrong_configuration_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], good: str, bad: str, told: str
) -> None:
    assert good in STATION
    path = tmp_path / "wrong.toml"
    path.write_text(STATION.replace(good, bad, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        node_config.load(path)
    assert re.search(told, str(caught.value)), str(caught.value)
    assert main(["check", "--config", str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert str(path) in shown.err
    assert shown.out == ""


def test_a_file_that_is_not_there_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", "nowhere.toml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_reference_of_keys_is_what_the_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Made by: fusionnode check --keys > docs/CONFIGURATION.md"""
    assert main(["check", "--keys"]) == 0
    reference = Path(__file__).resolve().parents[1] / "docs" / "CONFIGURATION.md"
    assert capsys.readouterr().out == reference.read_text(encoding="utf-8")


def test_check_looks_into_the_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "station.toml"
    path.write_text(STATION.replace("elements/demo.tle", "rubbish.tle"), encoding="utf-8")
    (tmp_path / "rubbish.tle").write_bytes(b"\x00\xff no elements")
    assert main(["check", "--config", str(path)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "catalogue.files" in shown


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(CONFIGS.rglob("*.toml")) if "[node]" in p.read_text(encoding="utf-8")],
    ids=lambda p: str(p.relative_to(CONFIGS)),
)
def test_every_example_of_a_node_passes_its_own_check(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(path)]) == 0, capsys.readouterr().err


def test_a_scaled_clock_without_its_anchor_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(CONFIGS / "bench.toml")]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "--anchor-unix-s" in shown
