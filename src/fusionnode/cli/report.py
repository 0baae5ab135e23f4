"""How commands print their summaries."""

from __future__ import annotations

import json
from collections.abc import Mapping


def print_summary(summary: Mapping[str, object], *, as_json: bool) -> None:
    """One JSON object on one line, or nested lines of ``key value``."""
    if as_json:
        print(json.dumps(summary), flush=True)
    else:
        print("\n".join(_lines(summary, "")), flush=True)


def _lines(tree: Mapping[str, object], indent: str) -> list[str]:
    lines = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat = value and not any(isinstance(v, Mapping | list) for v in value.values())
            if flat:
                lines.append(f"{indent}{key}: " + ", ".join(f"{k} {v}" for k, v in value.items()))
            elif value:
                lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif value not in (None, [], ""):
            lines.append(f"{indent}{key}: {value}")
    return lines
