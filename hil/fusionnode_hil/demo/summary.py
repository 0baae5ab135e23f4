"""The demo's verdict: as one JSON object, and as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fusionnode.ops.live_view import LABEL, STYLES, metres
from fusionnode_hil.config import load
from fusionnode_hil.demo.run import Result
from fusionnode_hil.demo.scenario import NEW_OBJECT
from fusionnode_hil.demo.score import ObjectScore, as_dict, doubles, ledger_faults, objects, rms, sightings
from fusionnode_hil.emulator import Emulator
from fusionnode_hil.times import NS, utc_text

FUSED = 2
"""An object seen by this many sensors shows what the node is for."""


def summarise(result: Result, replayed: Mapping[str, Any]) -> dict[str, Any]:
    """Score a run; ``held`` says whether everything was as it should be, ``failures`` what was not."""
    demo, node = result.demo, result.node
    scenario, from_ns = demo.scenario, demo.from_ns
    assert from_ns is not None
    emulators = {name: Emulator(load(getattr(scenario, name))) for name in result.sent}
    truth = next(iter(emulators.values())).truth
    seen = [
        sighting
        for name, emulator in emulators.items()
        for sighting in sightings(emulator, name, result.until_ns)
        if sighting.t_ns >= from_ns
    ]
    histories = list(demo.histories.by_track.values())
    catalogued = [body.sat_no for body in truth.bodies if body.sat_no != NEW_OBJECT]
    scores, false = objects(histories, truth, seen, catalogued)
    doubled = doubles(histories, scores)
    trackable = [score for score in scores if score.trackable]
    lost = {
        name: sent["sent"] - frames_seen(node["links"][link])
        for (name, sent), link in zip(sorted(result.sent.items()), LINK_OF_SENSOR, strict=True)
    }
    summary: dict[str, Any] = {
        "held": False,
        "failures": [],
        "seed": scenario.seed,
        "duration_s": demo.duration_s,
        "rate": scenario.rate,
        "from_utc": utc_text(from_ns),
        "until_utc": utc_text(result.until_ns),
        "simulated_s": round((result.until_ns - from_ns) / NS, 1),
        "tracks": {
            "published": len(histories),
            "objects_trackable": len(trackable),
            "objects_held": sum(score.held for score in trackable),
            "objects_missed": sum(not score.held for score in trackable),
            "objects_fused": sum(len(score.detections) >= FUSED for score in trackable),
            "false": len(false),
            "doubled": len(doubled),
            "uncorrelated": sum(history.sat_no is None for history in histories),
            "ended": demo.watch.ended,
        },
        "error_rms_m": _rounded(rms([s.error_rms_m for s in trackable if s.error_rms_m is not None])),
        "error_rms_radar_m": _rounded(_rms_of(trackable, "radar")),
        "objects": [as_dict(score) for score in scores],
        "sensors": node["sensors"],
        "links": node["links"],
        "lost_between_sensor_and_node": lost,
        "stream": {
            "published": node["published"],
            "received_to_seq": demo.subscriber.seq,
            "sha256": node["sha256"],
            "gaps": demo.watch.gaps,
            "missed": demo.watch.missed,
            "whole": demo.subscriber.whole,
            "subscriber": demo.subscriber.counts,
            "publisher": node["publisher"],
        },
        "replay": {key: replayed.get(key) for key in ("published", "sha256", "as_published")},
    }
    summary["failures"] = _failures(summary, scores, false, doubled)
    summary["held"] = not summary["failures"]
    return summary


LINK_OF_SENSOR = ("radar_line", "telescope_feed")
"""In the order of the sensors' names."""


def frames_seen(link: Mapping[str, Any]) -> int:
    """Frames of a link's ledger: accepted and refused ones."""
    return sum(n for key, n in link.items() if key.startswith("frame_"))


def _failures(
    summary: Mapping[str, Any], scores: Sequence[ObjectScore], false: Sequence[str], doubled: Sequence[str]
) -> list[str]:
    """The criteria that were not met, one line each."""
    failures = [f"{score.name}: {score.trouble}" for score in scores if score.trouble]
    failures += [f"{track}: of no object" for track in false]
    failures += [f"{track}: a second track of an object that had one" for track in doubled]
    if not summary["tracks"]["objects_trackable"]:
        failures.append("no object was seen long enough to be tracked")
    failures += ledger_faults(summary["sensors"])
    failures += [
        f"{name}: {n} messages sent never came to the node"
        for name, n in summary["lost_between_sensor_and_node"].items()
        if n
    ]
    stream, replayed = summary["stream"], summary["replay"]
    if not stream["whole"]:
        failures.append("the subscriber's picture has gaps that were not mended")
    if stream["received_to_seq"] != stream["published"]:
        failures.append(f"published {stream['published']} messages, but the last to come was "
                        f"{stream['received_to_seq']}")  # fmt: skip
    if replayed["sha256"] != stream["sha256"]:
        failures.append("the journal's replay is not what was published")
    return failures


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Print the verdict for people."""
    console.print(report(summary))


def report(summary: Mapping[str, Any]) -> RenderableType:
    """The verdict as something rich can print; plain enough for a file, too."""
    t, stream = summary["tracks"], summary["stream"]
    lines: list[RenderableType] = [Text()]
    lines.append(_objects_table(summary["objects"]))
    lines.append(Text())
    lines.append(
        Text(
            f"tracks      {t['objects_held']} held, {t['objects_missed']} missed, {t['false']} false, "
            f"{t['doubled']} doubled, of {t['objects_trackable']} objects seen long enough; "
            f"{t['objects_fused']} by both sensors; {t['ended']} ended"
        )
    )
    for name, counts in summary["sensors"].items():
        parts = " + ".join(f"{n} {key.replace('_', ' ')}" for key, n in counts.items() if key != "in" and n)
        lines.append(Text(f"{name:<11} {counts['in']} detections = {parts or 'none'}"))
    gaps = "no gaps" if not stream["gaps"] else f"{stream['gaps']} gaps ({stream['missed']} messages)"
    lines.append(Text(f"stream      {stream['published']} messages, {gaps}, sha256 {stream['sha256'][:16]}…"))
    same = summary["replay"]["sha256"] == stream["sha256"]
    lines.append(Text(f"replay      {'the same, byte for byte' if same else 'NOT the same'}"))
    lines.append(Text())
    if summary["held"]:
        lines.append(
            Text(
                f"HELD: {summary['simulated_s'] / 60:.0f} simulated minutes, seed {summary['seed']}",
                f"bold {STYLES['confirmed']}",
            )
        )
    else:
        lines.append(Text("NOT HELD:", STYLES["trouble"]))
        lines += [Text(f"  {failure}", STYLES["trouble"]) for failure in summary["failures"]]
    return Group(*lines)


def _objects_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=LABEL)
    table.add_column("object", no_wrap=True)
    for name in ("radar", "optical", "error rms", "at end", "its 1σ"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for score in scores:
        if score["held"]:
            verdict, style = "held", STYLES["confirmed"]
        elif score["trackable"]:
            verdict, style = score["trouble"], STYLES["trouble"]
        else:
            verdict, style = score["trouble"] or "seen too briefly", STYLES["coasting"]
        if not score["catalogued"]:
            verdict += ", uncatalogued"
        errors = (score[key] for key in ("error_rms_m", "error_end_m", "sigma_end_m"))
        table.add_row(
            Text(score["name"]),
            *(str(score["detections"].get(sensor, "–")) for sensor in ("radar", "telescope")),
            *("–" if error is None else metres(error) for error in errors),
            Text(verdict, style),
        )
    return table


def _rms_of(scores: Sequence[ObjectScore], sensor: str) -> float | None:
    """Over objects that only this sensor saw."""
    return rms(
        [s.error_rms_m for s in scores if s.error_rms_m is not None and list(s.detections) == [sensor]]
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(np.round(value, 1))
