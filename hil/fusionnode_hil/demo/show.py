"""The demo on a terminal: the live view or lines of progress, then the verdict."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fusionnode.ops.live_view import LABEL, View, render
from fusionnode.ops.local_sky import LocalSky
from fusionnode.ops.picture_file import svg
from fusionnode.ops.stream_watch import StreamWatch
from fusionnode_hil.demo.run import Demo, play, replay
from fusionnode_hil.demo.summary import show, summarise
from fusionnode_hil.times import NS

PICTURE_SIZE: Final = (100, 30)
PICTURE_AT_S: Final = 560.0
"""Of simulated time, if the demo runs that long: the new object coasts, a pass is under way, both sensors hold one."""
_REDRAW_S: Final = 0.15
_PROGRESS_S: Final = 5.0
_LONGEST_SOCKET_FOLDER: Final = 70  # an ipc address has 107 characters


def perform(args: argparse.Namespace) -> int:
    """Run the demo as asked; gives the exit code."""
    began = time.monotonic()
    # The JSON object has standard output for itself.
    console = Console(stderr=args.json)
    live = console.is_terminal and not args.no_view
    with ExitStack() as stack:
        sockets = stack.enter_context(_sockets())
        if args.keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fusionnode-demo-")))
        else:
            folder = args.keep.resolve()
            folder.mkdir(parents=True, exist_ok=True)
        screen = Screen(console, live=live, picture=args.picture)
        console.print(
            "starting a radar, a telescope, a node and a subscriber …", style=LABEL, highlight=False
        )
        with screen:
            result = play(
                folder,
                sockets,
                seed=args.seed,
                duration_s=args.duration,
                draw=screen.draw,
                say=lambda text: console.print(text, style=LABEL, highlight=False),
            )
        console.print("scoring against truth, and replaying the journal …", style=LABEL, highlight=False)
        summary = summarise(result, replay(result.demo.scenario))
        screen.save_picture()
    summary["wall_s"] = round(time.monotonic() - began, 1)
    if args.keep is not None:
        summary["kept"] = str(args.keep)
    show(console, summary)
    if args.json:
        print(json.dumps(summary), flush=True)
    return 0 if summary["held"] else 1


class Screen:
    """Draws a demo under way, in the manner that the terminal allows."""

    def __init__(self, console: Console, *, live: bool, picture: Path | None) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False) if live else None
        self._picture = picture
        self._svg = ""
        self._sky: LocalSky | None = None
        self._next_draw = self._next_line = time.monotonic()
        self._watch: StreamWatch | None = None
        self._told = 0

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def draw(self, demo: Demo) -> None:
        """Draw or tell what is new, if it is time to."""
        if self._live is None:
            self._tell(demo)
        elif time.monotonic() >= self._next_draw:
            width, height = self._console.size
            self._live.update(self._view(demo, width, height), refresh=True)
            self._next_draw = time.monotonic() + _REDRAW_S
        if self._picture is not None and not self._svg and demo.from_ns is not None:
            simulated_s = (demo.clock.now_ns() - demo.scenario.epoch_ns) / NS
            if simulated_s >= PICTURE_AT_S or demo.remaining_s < 0.5:
                width, height = PICTURE_SIZE
                self._svg = svg(self._view(demo, width, height), width=width, title="fusionnode demo")

    def save_picture(self) -> None:
        """Write the picture, if one was asked for."""
        if self._picture is not None:
            self._picture.write_text(self._svg, encoding="utf-8")

    def _view(self, demo: Demo, width: int, height: int) -> RenderableType:
        self._sky = self._sky or LocalSky()
        view = View(
            states=demo.subscriber.picture,
            sensors=demo.subscriber.sensors,
            stream=demo.watch,
            seq=demo.subscriber.seq,
            whole=demo.subscriber.whole,
            note=f"demo ×{demo.scenario.rate:g}",
            footer=_footer(demo),
        )
        return render(view, self._sky, width=width, height=height)

    def _tell(self, demo: Demo) -> None:
        log = demo.watch
        if log is not self._watch:  # begun again
            self._watch, self._told = log, 0
        fresh = log.told(self._told)
        self._told += len(fresh)
        for happening in fresh:
            self._line(happening.time[11:19], happening.text)
        now = time.monotonic()
        if now >= self._next_line and log.node_time is not None:
            self._next_line = now + _PROGRESS_S
            states = demo.subscriber.picture.values()
            confirmed = sum(state["status"] == "confirmed" for state in states)
            text = (
                f"{len(states)} tracks, {confirmed} confirmed; message {demo.subscriber.seq}, {log.gaps} gaps; "
                f"{demo.remaining_s:.0f} s to go"
            )
            self._line(log.node_time[11:19], text)

    def _line(self, clock: str, text: str) -> None:
        self._console.print(f"{clock:8}  {text}", markup=False, highlight=False, soft_wrap=True)


def _footer(demo: Demo) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    if demo.from_ns is None:
        grid.add_row(Text(" starting", LABEL), "", Text("Ctrl-C ends it ", LABEL))
        return grid
    done = demo.duration_s - demo.remaining_s
    bar = ProgressBar(
        total=demo.duration_s, completed=done, style="bright_black", complete_style="bright_green"
    )
    left = f" {demo.remaining_s:.0f} s to go, seed {demo.scenario.seed}"
    grid.add_row(Text(left, LABEL), bar, Text("Ctrl-C ends it ", LABEL))
    return grid


@contextmanager
def _sockets() -> Iterator[Path]:
    """A folder with a name short enough for sockets' addresses."""
    folder = Path(tempfile.mkdtemp(prefix="fn-demo-"))
    if len(str(folder)) > _LONGEST_SOCKET_FOLDER:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="fn-demo-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
