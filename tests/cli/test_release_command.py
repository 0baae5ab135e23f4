"""``fusionnode release``: against a real publisher of a node's own stream."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fusionnode.cli import main
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.core.types import TRACK_STATE, KnownObject, Status
from fusionnode.release.outlet import Outlet
from fusionnode.release.wire import StreamEncoder

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
T0_NS = tai_ns_from_utc_text("2026-03-01T12:00:00Z")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a node whose own stream has two tracks."""
    folder = tmp_path_factory.mktemp("node")
    with socket.socket() as a, socket.socket() as b:
        for one in (a, b):
            one.bind(("127.0.0.1", 0))
        live, snapshot = (f"tcp://127.0.0.1:{one.getsockname()[1]}" for one in (a, b))
    text = (CONFIGS / "allied_station.toml").read_text()
    text = text.replace('"elements/', f'"{CONFIGS}/elements/')
    path = folder / "station.toml"
    path.write_text(f'{text}\n[publish]\nendpoint = "{live}"\nsnapshot_endpoint = "{snapshot}"\n')
    (folder / "keys").mkdir()
    (folder / "keys" / "offset.secret").write_text("5a" * 32)
    (folder / "keys" / "offset.secret").chmod(0o600)
    states = np.zeros(2, TRACK_STATE)
    states["track"], states["object"], states["sensors"] = [1, 2], [0, -1], [1, 3]
    states["epoch_ns"] = states["last_ob_ns"] = T0_NS
    states["status"] = Status.CONFIRMED
    states["x"] = [[7.0e6, 0, 0, 0, 3e3, 6.9e3], [4.2164e7, 0, 0, 0, 3_074.7, 0.0]]
    states["P"] = np.diag([100.0] * 3 + [0.01] * 3)
    encoder = StreamEncoder(
        node_id="madrid-1", stream_epoch="e", sensor_names=["radar", "guest"],
        known_object=lambda _row: KnownObject(43437, "PAZ", "2018-020A"),
    )  # fmt: skip
    with Outlet(live=live, snapshot=snapshot) as outlet:
        outlet.start()
        outlet.send(encoder.states(states))
        yield path


def explained(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    assert main(["release", "explain", *map(str, words), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_it_says_which_rule_decides_and_why_the_others_do_not(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = explained(capsys, "--config", node, "--partner", "paris", "--track", "madrid-1-000001")
    assert (found["released"], found["rule"], found["group"]) == (True, "own-satellites", "allies")
    assert [r["decided"] for r in found["rules"]] == [False, True]  # type: ignore[attr-defined]
    found = explained(capsys, "--config", node, "--partner", "university", "--track", 43437)
    assert (found["released"], found["rule"]) == (True, "catalogued-debris")
    assert found["effects"]["delay_s"] == 600.0  # type: ignore[index]
    found = explained(capsys, "--config", node, "--partner", "public", "--track", "madrid-1-000002")
    assert (found["released"], found["rule"]) == (False, None)
    assert "originator" in str(found["reason"])
    found = explained(capsys, "--config", node, "--partner", "ship", "--track", "madrid-1-000002")
    assert (found["released"], found["reason"]) == (False, "no rule releases it")
    assert "geo" in found["rules"][-1]["reason"]  # type: ignore[index]
    assert main(["release", "explain", "--config", str(node), "--partner", "paris", "--track", "43437"]) == 0
    shown = capsys.readouterr().out
    assert "RELEASED to partner paris" in shown
    assert "-> own-satellites: releases" in shown


@pytest.mark.parametrize(
    ("partner", "track", "told"),
    [("berlin", "1", r"no [partner.berlin]"), ("paris", "madrid-1-000077", "no track 'madrid-1-000077'")],
)
def test_what_is_not_there_is_told_in_one_line(
    node: Path, capsys: pytest.CaptureFixture[str], partner: str, track: str, told: str
) -> None:
    assert main(["release", "explain", "--config", str(node), "--partner", partner, "--track", track]) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1


def test_a_node_that_does_not_run_is_told_in_one_line(
    node: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fusionnode.cli.release as command

    monkeypatch.setattr(command, "_WAIT_MS", 100)
    path = CONFIGS / "allied_station.toml"
    silent = node.parent / "silent.toml"
    silent.write_text(path.read_text().replace('"elements/', f'"{CONFIGS}/elements/'))
    assert main(["release", "explain", "--config", str(silent), "--partner", "paris", "--track", "1"]) == 2
    assert "no node answers" in capsys.readouterr().err
    station = CONFIGS / "station.toml"
    assert main(["release", "explain", "--config", str(station), "--partner", "paris", "--track", "1"]) == 2
    assert "nothing is released" in capsys.readouterr().err


def test_rules_that_cannot_be_meant_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (CONFIGS / "allied_station.toml").read_text().replace('"elements/', f'"{CONFIGS}/elements/')
    path = tmp_path / "station.toml"
    path.write_text(text)
    assert main(["release", "check", "--config", str(path)]) == 0
    path.write_text(
        text
        + """
[[group.public.rule]]
name = "shadowed"
uct = false
perigee_km = [300.0, 1000.0]
[[group.public.rule]]
name = "impossible"
uct = true
objects = [5]
[[group.public.rule]]
name = "area-first"
area = { lat_deg = [0.0, 10.0] }
precision_m = 10.0
[[group.public.rule]]
name = "after"
""".replace("[[group.public.rule]]\n", "[[group.public.rule]]\n")
    )
    capsys.readouterr()
    assert main(["release", "check", "--config", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    said = "\n".join(found["public"])
    assert "'impossible' can never match" in said
    assert "different precision_m" in said
    assert found["allies"] == []
