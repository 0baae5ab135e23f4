"""A rendered view as an SVG file that asks nothing of the network."""

from __future__ import annotations

import io
from typing import Final

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme

# rich's own template names a font on the network; this one takes what the reader's computer has. Every run of
# text carries its length, so that any font of fixed width fits; the size is the one at which the first needs no
# fitting (its characters are 0.602 em wide, rich's 12.2 px).
_TEMPLATE: Final = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace;
  font-size: 20.26px; line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: "DejaVu Sans", Arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""

_NIGHT: Final = TerminalTheme(
    (13, 17, 23),
    (201, 209, 217),
    [(13, 17, 23), (255, 123, 114), (86, 211, 100), (227, 179, 65),
     (121, 192, 255), (188, 140, 255), (86, 212, 221), (177, 186, 196)],
    [(72, 79, 88), (255, 123, 114), (86, 211, 100), (240, 200, 90),
     (121, 192, 255), (222, 160, 255), (118, 227, 234), (240, 246, 252)],
)  # fmt: skip


def svg(view: RenderableType, *, width: int, title: str) -> str:
    """The view at ``width`` columns as the text of an SVG file."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(view)
    text = console.export_svg(title=title, theme=_NIGHT, code_format=_TEMPLATE, unique_id="view")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
