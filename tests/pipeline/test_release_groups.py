"""Release groups in the pipeline: beside the own stream, replayed, reloaded, and after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from sky import NS, detections, overhead, station

from fusionnode import daemon
from fusionnode.config import Config, ConfigError, parse
from fusionnode.core.refframes import EarthOrientation
from fusionnode.core.types import StructArray
from fusionnode.pipeline import Pipeline
from fusionnode.record.entries import Entry, Finish, Item, Reload, Tick
from fusionnode.record.journal import JournalError
from fusionnode.record.replay import Replay
from fusionnode.release import lists
from fusionnode.release.wire import StreamDigest

GROUPS = """
[release]
keys_directory = "keys"
audit_directory = "audit"
[group.near]
endpoint = "tcp://127.0.0.1:5610"
request_endpoint = "tcp://127.0.0.1:5611"
classification_marking = "U"
releasable_to = ["ESP"]
sensor_status = ["radar"]
[[group.near.rule]]
name = "all"
[group.far]
endpoint = "tcp://127.0.0.1:5612"
request_endpoint = "tcp://127.0.0.1:5613"
classification_marking = "U"
releasable_to = ["FRA"]
[[group.far.rule]]
name = "blurred"
precision_m = 300
delay_s = 5
fields = []
"""
KEY = b"a key that nobody else has......"
TIMES = np.arange(-20.0, 20.0)


def feed(pipeline: Pipeline, sky: StructArray, t_ns: int) -> None:
    due = (sky["t_rx_ns"] > t_ns - NS) & (sky["t_rx_ns"] <= t_ns)
    pipeline.feed_detections(sky[due])


class Run:
    """A pipeline fed second by second; ``reloads`` by second."""

    def __init__(
        self, orientation: EarthOrientation, config: Config, sky: StructArray, reloads: dict[int, Config] | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.pipeline = Pipeline(config, stream_epoch="test", orientation=orientation, offset_key=KEY)
        begin = int(sky["t_rx_ns"][0])
        if state is not None:
            self.pipeline.import_state(state, begin)
        self.own = StreamDigest()
        self.messages: dict[str, list[dict[str, Any]]] = {s.name: [] for s in self.pipeline.groups}
        self.grants: dict[str, list[Any]] = {s.name: [] for s in self.pipeline.groups}
        for k in range(len(TIMES)):
            t_ns = begin + k * NS
            if reloads and k in reloads:
                self.pipeline.reload(reloads[k], t_ns)
                self.take()
            feed(self.pipeline, sky, t_ns)
            self.own.update(self.pipeline.tick(t_ns))
            self.take()
        self.t_ns = t_ns
        self.saved = self.pipeline.export_state()

    def finish(self) -> Run:
        self.own.update(self.pipeline.finish(self.t_ns + NS))
        self.take()
        return self

    def take(self) -> None:
        for stream in self.pipeline.groups:
            released = stream.take()
            self.messages[stream.name] += [msgpack.unpackb(payload) for _, payload in released.messages]
            self.grants[stream.name] += released.grants


@pytest.fixture(scope="module")
def sky_seen(orientation: EarthOrientation) -> StructArray:
    return detections(orientation, overhead(orientation), TIMES, rng=np.random.default_rng(1))


def test_groups_get_their_share_and_the_own_stream_stays_as_it_is(
    orientation: EarthOrientation, sky_seen: StructArray
) -> None:
    alone = Run(orientation, station(), sky_seen).finish()
    run = Run(orientation, station(more=GROUPS), sky_seen).finish()
    assert run.own.hexdigest() == alone.own.hexdigest()
    near, far = ([m for m in run.messages[g] if m["type"] == "state"] for g in ("near", "far"))
    assert len(near) > len(far) > 5
    assert near[0]["trackId"] != far[0]["trackId"]
    by_epoch = {m["epoch"]: m for m in near}
    for body in far:
        exact = by_epoch[body["epoch"]]
        off = np.linalg.norm([body[axis] - exact[axis] for axis in ("xpos", "ypos", "zpos")])
        assert 0.3 < off < 1.3
    for group in ("near", "far"):
        seqs = [m["seq"] for m in run.messages[group]]
        assert seqs == list(range(1, len(seqs) + 1))
        assert [m["type"] for m in run.messages[group]][-1] == "tombstone"
        assert run.grants[group][0].seq == next(m["seq"] for m in run.messages[group] if m["type"] == "state")
        assert run.grants[group][-1].rule == ""
    summary: Any = run.pipeline.summary()["released"]
    assert summary["near"]["states"]["released"] == len(near)


def test_groups_need_a_key(orientation: EarthOrientation) -> None:
    with pytest.raises(ValueError, match="key"):
        Pipeline(station(more=GROUPS), stream_epoch="test", orientation=orientation)


def test_a_replay_gives_the_groups_the_same_bytes_over_a_reload(
    orientation: EarthOrientation, sky_seen: StructArray
) -> None:
    config, other = station(more=GROUPS), GROUPS.replace("precision_m = 300", "precision_m = 3000")
    other = other.replace('name = "all"', 'name = "none"\nrelease = false')
    run = Run(orientation, config, sky_seen, {30: station(more=other)}).finish()
    reasons = [m["reason"] for m in run.messages["near"] if m["type"] == "tombstone"]
    assert reasons == ["withdrawn"]
    kinds = [m["type"] for m in run.messages["near"]]
    assert "state" in kinds
    assert "state" not in kinds[kinds.index("tombstone") :]

    class Fed(Pipeline):
        def tick(self, t_ns: int) -> list[Any]:
            feed(self, sky_seen, t_ns)
            return super().tick(t_ns)

    begin = int(sky_seen["t_rx_ns"][0])
    items: list[Item] = [Tick(begin + k * NS) for k in range(len(TIMES))]
    items.insert(30, Reload(begin + 30 * NS, other))
    items.append(Finish(run.t_ns + NS, 0, "00"))
    entries = [Entry(i, item) for i, item in enumerate(items, 1)]
    again = Fed(config, stream_epoch="test", orientation=orientation, offset_key=KEY)
    own = StreamDigest()
    reload = lambda item: again.reload(station(more=item.config_text), item.t_ns)  # noqa: E731
    for messages in Replay(entries, again, reload):
        own.update(messages)
    assert own.hexdigest() == run.own.hexdigest()
    for a, b in zip(run.pipeline.groups, again.groups, strict=True):
        assert (a.digest.messages, a.digest.hexdigest()) == (b.digest.messages, b.digest.hexdigest())
        assert a.digest.messages > 10
    with pytest.raises(JournalError, match="change of configuration"):
        list(Replay(entries, again))


def test_names_and_offsets_outlive_a_restart(
    tmp_path: Path, orientation: EarthOrientation, sky_seen: StructArray
) -> None:
    config = station(more=GROUPS + f'[state]\ndirectory = "{tmp_path}"\n')
    run = Run(orientation, config, sky_seen)
    saved = run.pipeline.export_state()
    again = Pipeline(config, stream_epoch="another", orientation=orientation, offset_key=KEY)
    again.import_state(saved, run.t_ns)
    again.tick(run.t_ns + NS)
    last = [m for m in run.messages["near"] if m["type"] == "state"][-1]
    first = [msgpack.unpackb(p) for _, p in again.groups[0].take().messages if b"state" in p[:20]]
    assert first[0]["trackId"] == last["trackId"]
    assert first[0]["streamEpoch"] == "another"
    assert again.export_state()["release"]["offsets"] == saved["release"]["offsets"]
    saved["release"] = {"offsets": 7}
    fresh = Pipeline(config, stream_epoch="x", orientation=orientation, offset_key=KEY)
    with pytest.raises(ValueError, match="not what a node keeps"):
        fresh.import_state(saved, run.t_ns)


def test_what_a_running_node_can_take_up_and_what_not() -> None:
    old = station(more=GROUPS)
    text = GROUPS.replace("tcp://127.0.0.1:5611", "tcp://127.0.0.1:5777").replace('"FRA"', '"ITA"')
    new = station("confirm_hits = 5", text, 'releasable_to = ["ESP"]\nrange_bias_m = 3.0')
    merged, left = daemon.reloadable(old, new)
    assert sorted(left) == ["group.near.request_endpoint", "sensor", "tracking"]
    assert merged.tracking == old.tracking
    assert merged.sensor["radar"].releasable_to == ("ESP",)
    assert merged.sensor["radar"].range_bias_m == 0.0
    assert merged.group["far"].releasable_to == ("ITA",)
    assert merged.group["near"].request_endpoint == old.group["near"].request_endpoint


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ('keys_directory = "keys"', "", "release.keys_directory"),
        ('audit_directory = "audit"', "", "release.audit_directory"),
        ('classification_marking = "U"', "", "classification_marking"),
        ('classification_marking = "U"', 'classification_marking = " "', "classification_marking"),
        ('releasable_to = ["ESP"]', "releasable_to = []", "releasable_to"),
        ('sensor_status = ["radar"]', 'sensor_status = ["sonar"]', r"no \[sensor.sonar\]"),
        ("delay_s = 5", "delay_s = -5", "delay_s"),
        ("fields = []", 'fields = ["xpos"]', "fields"),
        ("fields = []", "inclination_deg = [50, 10]", "inclination_deg"),
        ("fields = []", 'owners = ["ESP"]', "owners_file"),
        ("fields = []", 'sensors_only = ["sonar"]', "sensors_only"),
        ("fields = []", "wavelength = 3", "wavelength"),
        ("tcp://127.0.0.1:5613", "tcp://127.0.0.1:5610", "also group.near.endpoint"),
        ('name = "blurred"', 'name = "blurred"\n[[group.far.rule]]\nname = "blurred"', "twice"),
        ("[group.far]", '[partner.p]\ngroup = "nobody"\n[group.far]', r"no \[group.nobody\]"),
    ],
)
def test_a_wrong_group_is_told_in_one_line(good: str, bad: str, told: str) -> None:
    assert good in GROUPS
    with pytest.raises(ConfigError, match=told) as caught:
        station(more=GROUPS.replace(good, bad, 1))
    assert "\n" not in str(caught.value)


def test_lists_are_read_and_faults_in_them_told(tmp_path: Path, orientation: EarthOrientation) -> None:
    (tmp_path / "objects.txt").write_text("# ours\n25544\n\n43437  # another\n")
    (tmp_path / "owners.csv").write_text("number,owner\n25544,ESP\n5,FRA\n")
    body = GROUPS.replace("fields = []", 'objects_file = "objects.txt"\nowners = ["ESP"]')
    config = parse(
        '[node]\nid = "t"\n[site.s]\nlat_deg = 0\nlon_deg = 0\n[sensor.radar]\nid = 1\nkind = "radar"\nsite = "s"\n'
        f'[catalogue]\nowners_file = "owners.csv"\n{body}',
        tmp_path / "station.toml",
    )
    read = lists.read(config)
    assert list(read.objects.values()) == [frozenset({25544, 43437})]
    assert read.owners == {25544: "ESP", 5: "FRA"}
    for name, wrong in (
        ("objects.txt", "x\n"),
        ("objects.txt", "-1\n"),
        ("owners.csv", "5\n"),
        ("owners.csv", "\xff"),
    ):
        keep = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(wrong.encode("latin-1"))
        with pytest.raises(ValueError, match=name) as caught:
            lists.read(config)
        assert "\n" not in str(caught.value)
        (tmp_path / name).write_bytes(keep)
    assert lists.read(config).sha256 == read.sha256
    (tmp_path / "objects.txt").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        lists.read(config)
