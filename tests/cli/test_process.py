from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import fusionnode.cli as cli

CONFIG = """
[node]
id = "n1"
[site.s]
lat_deg = 21.57208
lon_deg = -158.26674
[sensor.kaena]
id = 932
kind = "radar"
site = "s"
"""
# Range 1384.6842 km, going away at 1.22729 km/s, one record a second.
B3 = "U12345932963431337{second:02d}000740309 2404565 13846842 -122729 02191 01811 00000  4 4   00000\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(CONFIG)
    return path


def test_files_are_merged_by_time_and_the_summary_comes_last(
    config: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    even, odd = tmp_path / "even.b3", tmp_path / "odd.b3.gz"
    even.write_text("".join(B3.format(second=s) for s in range(0, 60, 2)))
    odd.write_bytes(gzip.compress("".join(B3.format(second=s) for s in range(1, 60, 2)).encode()))
    argv = ["process", str(even), str(odd), "--config", str(config), "--json"]
    assert cli.main([*argv, "--out", "-"]) == 0
    *states, last = capfdbinary.readouterr().out.splitlines()
    summary = json.loads(last)
    assert summary["records"] == 60
    assert summary["states"] == len(states)
    assert summary["files"] == {path.name: {"frame_accepted": 30} for path in (even, odd)}
    kaena = summary["sensors"]["kaena"]
    assert kaena["in"] == 60
    assert "late" not in kaena
    assert cli.main([*argv, "--out", str(tmp_path / "out.jsonl")]) == 0
    assert (tmp_path / "out.jsonl").read_bytes().splitlines() == states


@pytest.mark.parametrize(
    ("inputs", "out", "said"),
    [
        (["none.b3"], "o", "none.b3: cannot be read: No such file"),
        (["text"], "o", "text: expected a file of observations"),
        (["folder"], "o", "folder: expected a folder with journal segments"),
        (["folder", "text"], "o", "not several of these"),
        (["text"], "folder", "folder: cannot be written: Is a directory"),
    ],
)
def test_inputs_that_are_none_are_one_line_and_exit_code_2(
    inputs: list[str], out: str, said: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "folder").mkdir()
    paths = [str(tmp_path / name) for name in inputs]
    code = cli.main(["process", *paths, "--config", str(config), "--out", str(tmp_path / out)])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1
    assert said in captured.err
