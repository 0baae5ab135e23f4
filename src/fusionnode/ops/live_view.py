"""The live view: a subscriber's picture as something that rich can draw. Rendering only: no sockets, no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fusionnode.core.schema import ObjectState
from fusionnode.core.timescales import tai_ns_from_utc_text
from fusionnode.ops.local_sky import LocalSky, Look, Site, orbit_kind
from fusionnode.ops.stream_watch import Happening, StreamWatch

# Bright colours of the terminal's own palette: readable on black at night, and where red light is the rule.
STYLES: Final = {
    "confirmed": "bright_green",
    "coasting": "bright_yellow",
    "tentative": "bright_cyan",
    "ended": "white",
    "stream": "bright_cyan",
    "trouble": "bold bright_red",
}
SIGNS: Final = {"confirmed": "●", "coasting": "◐", "tentative": "○", "ended": "×", "trouble": "!"}
FRAME: Final = "bright_black"
LABEL: Final = "white"
UNKNOWN: Final = "bright_magenta"

_WIDE: Final = 96
_VERY_WIDE: Final = 108
_ORDER: Final = ("confirmed", "coasting", "tentative")
_HEADER_LINES: Final = 3
_FRAME_LINES: Final = 3  # two borders and a row of titles

_Justify = Literal["left", "center", "right"]
_HEADER_COLUMNS: Final[tuple[_Justify, ...]] = ("left", "center", "center", "right")
_SENSOR_COLUMNS: Final[tuple[tuple[str, _Justify], ...]] = (
    ("", "left"),
    ("sensor", "left"),
    ("kind", "left"),
    ("rate", "right"),
    ("latency", "right"),
    ("in", "right"),
    ("used", "right"),
    ("not used, by reason", "left"),
)


@dataclass(frozen=True)
class View:
    """What is to be drawn. ``states`` and ``sensors`` as a `client.Subscriber` has them."""

    states: Mapping[str, ObjectState]
    sensors: Mapping[str, Mapping[str, Any]]
    stream: StreamWatch
    seq: int | None
    whole: bool
    title: str = "fusionnode"
    note: str = ""
    footer: RenderableType | None = None


def render(view: View, sky: LocalSky, *, width: int, height: int) -> RenderableType:
    """The whole screen of ``width`` columns and ``height`` lines; at home from 80 x 24 on."""
    wide = width >= _WIDE
    footer_lines = 0 if view.footer is None else 1
    room = height - _HEADER_LINES - footer_lines
    sensors = _sensors(view, wide)
    sensor_lines = _FRAME_LINES + max(len(view.sensors), 1)
    room -= sensor_lines
    # The log gets what the tracks leave, but never takes their last lines.
    wanted = _FRAME_LINES + max(len(view.states), 1)
    log_lines = min(max(room - wanted, 0), 2 + 8)
    log_lines = log_lines if log_lines >= 3 else 0
    parts: list[RenderableType] = [_header(view, wide), _tracks(view, sky, room - log_lines, width), sensors]
    if log_lines:
        parts.append(_log(view.stream.log, log_lines))
    if view.footer is not None:
        parts.append(view.footer)
    return Group(*parts)


def metres(value_m: float) -> str:
    """A length in the unit that suits it."""
    if not math.isfinite(value_m):
        return "?"
    if value_m < 999.5:
        return f"{value_m:.0f} m"
    return f"{value_m / 1e3:.1f} km" if value_m < 99_950.0 else f"{value_m / 1e3:.0f} km"


def seconds(value_s: float) -> str:
    """A time span, short."""
    if value_s < 99.5:
        return f"{max(value_s, 0.0):.0f} s"
    return f"{value_s / 60.0:.0f} min" if value_s < 5_970.0 else f"{value_s / 3600.0:.1f} h"


def position_sigma_m(state: ObjectState) -> float:
    """Root of the sum of the three position variances, m."""
    cov = state["cov"]
    return math.sqrt(max(cov[0] + cov[2] + cov[5], 0.0)) * 1e3


def _header(view: View, wide: bool) -> RenderableType:
    stream = view.stream
    counts = {status: sum(s["status"] == status for s in view.states.values()) for status in _ORDER}
    left = Text.assemble((view.title, "bold bright_white"), (f"  {view.note}" if view.note else "", LABEL))
    time = "no time yet" if stream.node_time is None else f"{_clock(stream.node_time, dated=wide)} UTC"
    middle = Text()
    for status in _ORDER:
        if counts[status]:
            middle.append(f"{SIGNS[status]} {counts[status]} {status}  ", STYLES[status])
    right = Text.assemble((f"seq {view.seq or 0}  " if wide else "", LABEL), _health(view))
    grid = Table.grid(expand=True, padding=(0, 1))
    for justify in _HEADER_COLUMNS:
        grid.add_column(justify=justify, no_wrap=True)
    grid.add_row(left, Text(time, "bright_white"), middle, right)
    return Panel(grid, box=box.ROUNDED, border_style=FRAME, padding=(0, 1))


def _health(view: View) -> Text:
    stream = view.stream
    if stream.node_time is None:
        return Text("waiting", STYLES["tentative"])
    if stream.stale:
        return Text("silent", STYLES["trouble"])
    if not view.whole:
        return Text("incomplete", STYLES["coasting"])
    if stream.gaps:
        return Text(f"{stream.gaps} gaps mended", STYLES["coasting"])
    return Text("no gaps", STYLES["confirmed"])


def _tracks(view: View, sky: LocalSky, lines: int, width: int) -> RenderableType:
    wide = width >= _WIDE
    table = _table(wide)
    columns = ["", "track", "object", "orbit", "km", "az °", "el °", "1σ", "seen", "sensors"]
    if width >= _VERY_WIDE:
        columns[-1:-1] = ["upd."]
    numbers = {"km", "az °", "el °", "1σ", "seen", "upd."}
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in numbers else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if name == "object" else None,
        )
    # Known ones by name, uncorrelated ones after them: a row does not jump when others come and go.
    states = sorted(view.states.values(), key=lambda s: (s["uct"], s["name"] or "", s["trackId"]))
    most = max(lines - _FRAME_LINES, 1)
    shown = states if len(states) <= most else states[: most - 1]
    sites = [_site(state, view.sensors) for state in shown]
    with_site = [(s, site) for s, site in zip(shown, sites, strict=True) if site is not None]
    looks = sky.looks([s for s, _ in with_site], [site for _, site in with_site])
    look_of = {s["trackId"]: look for (s, _), look in zip(with_site, looks, strict=True)}
    now = view.stream.node_time
    for state in shown:
        table.add_row(*_track_row(state, look_of.get(state["trackId"]), now, width))
    if len(shown) < len(states):
        table.add_row("", Text(f"and {len(states) - len(shown)} more", LABEL))
    if not states:
        table.add_row("", "", Text("no tracks yet", LABEL))
    title = f"{len(states)} tracks: range, azimuth and elevation from the first of their sensors"
    return _panel(table, title, height=min(lines, _FRAME_LINES + max(len(states), 1)))


def _track_row(state: ObjectState, look: Look | None, now: str | None, width: int) -> list[Text]:
    status = state["status"]
    style = STYLES[status]
    name = Text("uncorrelated", UNKNOWN) if state["uct"] else Text(state["name"] or state["idOnOrbit"], style)
    age_s = 0.0 if now is None else (_ns(now) - _ns(state["lastObEnd"] or state["epoch"])) / 1e9
    place = ["–"] * 3
    if look is not None:
        place = [f"{look.range_km:,.0f}", f"{look.az_deg:.1f}", f"{look.el_deg:.1f}"]
    row = [
        Text(SIGNS[status], style),
        Text(state["trackId"] if width >= _WIDE else state["trackId"].rpartition("-")[2], style),
        name,
        Text(orbit_kind(state), LABEL),
        *(Text(text, "bright_white") for text in place),
        Text(metres(position_sigma_m(state)), "bright_white"),
        Text(seconds(age_s), LABEL if status == "confirmed" else style),
        Text("+".join(state["sensors"]), LABEL),
    ]
    if width >= _VERY_WIDE:
        row[-1:-1] = [Text(str(state["updates"]), LABEL)]
    return row


def _site(state: ObjectState, sensors: Mapping[str, Mapping[str, Any]]) -> Site | None:
    for name in state["sensors"]:
        fields = sensors.get(name, {})
        place = [fields.get(key) for key in ("latDeg", "lonDeg", "heightM")]
        numbers = [float(value) for value in place if isinstance(value, int | float)]
        if len(numbers) == 3:
            return Site(*numbers)
    return None


def _sensors(view: View, wide: bool) -> RenderableType:
    table = _table(wide)
    for name, justify in _SENSOR_COLUMNS:
        if name != "kind" or wide:
            table.add_column(
                name,
                justify=justify,
                no_wrap=True,
                overflow="ellipsis",
                ratio=1 if "reason" in name else None,
            )
    for name, fields in sorted(view.sensors.items()):
        table.add_row(*_sensor_row(name, fields, wide))
    if not view.sensors:
        table.add_row("", Text("none heard of", LABEL))
    return _panel(table, "sensors")


def _sensor_row(name: str, fields: Mapping[str, Any], wide: bool) -> list[Text]:
    alive = fields.get("alive") is True
    style = STYLES["confirmed" if alive else "trouble"]
    counts = _counts(fields.get("outcomes"))
    used = counts.pop("used", 0) + counts.pop("used_initiation", 0)
    pending = counts.pop("pending", 0)
    reasons = [
        f"{key.replace('_', ' ')} {n}" for key, n in sorted(counts.items(), key=lambda kn: -kn[1]) if n
    ]
    if pending:
        reasons.append(f"(waiting {pending})")
    rate, latency = _number(fields.get("rateHz")), _number(fields.get("latencyP50S"))
    row = [
        Text("●" if alive else "!", style),
        Text(name, style),
        Text("–" if rate is None else f"{rate:.1f}/s", "bright_white"),
        Text("–" if latency is None else f"{latency:.2f} s", "bright_white"),
        Text(str(fields.get("detections", "–")), "bright_white"),
        Text(str(used), "bright_white"),
        Text(" · ".join(reasons) if alive else _silence(fields), LABEL if alive else style),
    ]
    if wide:
        row.insert(2, Text(str(fields.get("kind", "")), LABEL))
    return row


def _silence(fields: Mapping[str, Any]) -> str:
    silent_s = _number(fields.get("silentS"))
    return "never heard of" if silent_s is None else f"silent for {seconds(silent_s)}"


def _log(log: Sequence[Happening], lines: int) -> RenderableType:
    text = Text(no_wrap=True, overflow="ellipsis")
    for happening in list(log)[-(lines - 2) :]:
        style = STYLES.get(happening.kind, LABEL)
        text.append(f"{_clock(happening.time)}  ", LABEL)
        text.append(f"{SIGNS.get(happening.kind, '·')} {happening.text}\n", style)
    text.rstrip()
    return _panel(text, "what happened", height=lines)


def _table(wide: bool) -> Table:
    gap = 2 if wide else 1
    return Table(box=None, expand=True, padding=(0, gap, 0, 0), pad_edge=False, header_style=LABEL)


def _panel(inside: RenderableType, title: str, height: int | None = None) -> Panel:
    return Panel(
        inside,
        title=Text(title, LABEL),
        title_align="left",
        box=box.ROUNDED,
        border_style=FRAME,
        padding=(0, 1),
        height=height,
    )


def _clock(time: str, *, dated: bool = False) -> str:
    """``2006-06-25 12:36:30`` or ``12:36:30`` of a published time."""
    return time[:19].replace("T", " ") if dated else time[11:19].ljust(8)


def _ns(time: str) -> int:
    return tai_ns_from_utc_text(time)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _counts(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping):
        return {}
    return {str(key): n for key, n in value.items() if isinstance(n, int)}
