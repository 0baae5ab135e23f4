"""What happens to objects reaches the operator's log, whatever its fields are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusionnode import config as config_module
from fusionnode import pipeline
from fusionnode.cli.run import log_json, log_text
from fusionnode.core.schema import EVENTS
from fusionnode.core.types import ObjectEvent
from fusionnode.daemon import tell_events

CONFIG = """
[node]
id = "n1"
[site.s]
lat_deg = 10.0
lon_deg = 20.0
[sensor.radar]
id = 1
kind = "radar"
site = "s"
"""


def an_event(kind: str) -> ObjectEvent:
    return ObjectEvent(
        kind=kind, track=3, t_ns=1_700_000_000_000_000_000, epoch_ns=1_700_000_000_000_000_000,
        delta_v=(1.0, 0.0, 0.0), delta_v_sigma_m_s=0.1, sensors=1,
    )  # fmt: skip


@pytest.mark.parametrize("kind", EVENTS)
def test_every_kind_of_event_is_a_line_of_either_log(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    node = pipeline.build(config_module.parse(CONFIG, Path("station.toml")), "e")
    for log in (log_text, log_json):
        tell_events(node, log)
        assert node.on_event is not None
        node.on_event(an_event(kind))
    text, as_json = capsys.readouterr().err.splitlines()
    assert text.startswith(f"fusionnode: object_event trackId=n1-000003 kind={kind} ")
    line = json.loads(as_json)
    assert line["event"] == "object_event"
    assert line["kind"] == kind
    assert line["deltaV"] == [0.001, 0.0, 0.0]
    assert line["sensors"] == ["radar"]


def test_a_field_cannot_pass_for_the_line_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    log_json("what", event="other", time="never")
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "what"
    assert line["time"] != "never"
