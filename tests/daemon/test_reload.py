"""SIGHUP: other rules of release in a running node, journalled; a wrong file changes nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from test_node import Echo, Running, wait

from fusionnode import daemon
from fusionnode.config import Config, ConfigError
from fusionnode.record.entries import Finish, Reload
from fusionnode.record.reader import one_run

STATION = """
[node]
id = "n1"
[site.s]
lat_deg = 0.0
lon_deg = 0.0
[sensor.r]
id = 1
kind = "radar"
site = "s"
"""


class Reloading(Echo):
    def __init__(self) -> None:
        super().__init__()
        self.reloads: list[tuple[Config, int]] = []

    def reload(self, config: Config, t_ns: int) -> str:
        if "refused" in config.partner:
            raise ValueError("other groups need a restart")
        self.reloads.append((config, t_ns))
        self.out.append((b"reload", b"%d" % t_ns))
        return ""


def test_a_hangup_takes_up_the_file_and_a_wrong_file_is_told_and_left(tmp_path: Path) -> None:
    pipeline = Reloading()
    node = Running(tmp_path, pipeline)
    try:
        path = tmp_path / "station.toml"
        node.node.config_path = path
        path.write_text(STATION.replace("lat_deg = 0.0", "lat_deg = 900.0"))
        node.wake.up(signal.SIGHUP)
        node.wait_for_log("reload_refused")
        assert pipeline.reloads == []
        path.write_text(STATION)
        node.wake.up(signal.SIGHUP)
        node.wait_for_log("reloaded")
        wait(lambda: len(pipeline.reloads) == 1)
        assert node.node.config.link  # what needs a restart stays
        assert node.stop() == 0
    finally:
        node.close()
    items = [entry.item for entry in one_run(tmp_path / "journal")]
    reloads = [item for item in items if isinstance(item, Reload)]
    assert [(item.t_ns, item.config_text) for item in reloads] == [(pipeline.reloads[0][1], STATION)]
    assert isinstance(items[-1], Finish)


@pytest.mark.parametrize("content", [None, "zz" * 32, "ab" * 31, "open"])
def test_the_offset_key_is_needed_whole_and_private(tmp_path: Path, content: str | None) -> None:
    group: Any = """
[release]
keys_directory = "keys"
audit_directory = "audit"
[group.g]
endpoint = "tcp://127.0.0.1:5610"
request_endpoint = "tcp://127.0.0.1:5611"
classification_marking = "U"
releasable_to = ["ESP"]
"""
    path = tmp_path / "station.toml"
    path.write_text(STATION + group)
    config, _ = daemon.load_config(path)
    key = tmp_path / "keys" / "offset.secret"
    key.parent.mkdir()
    if content is not None:
        key.write_text(("ab" * 32 if content == "open" else content) + "\n")
        key.chmod(0o644 if content == "open" else 0o600)
    with pytest.raises(ConfigError, match=r"offset\.secret") as caught:
        daemon.offset_key(config, path)
    assert "\n" not in str(caught.value)
    assert "abab" not in str(caught.value)
    if content == "open":
        key.chmod(0o600)
        assert daemon.offset_key(config, path) == bytes.fromhex("ab" * 32)
