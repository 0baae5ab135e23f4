"""Every key of the configuration, from the models themselves."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fusionnode.config import Config, SerialLink, ZmqLink

_TABLES: dict[str, tuple[type[BaseModel], ...]] = {"link": (SerialLink, ZmqLink)}


def print_keys() -> None:
    """Print the reference, as Markdown (docs/CONFIGURATION.md is its output)."""
    print("# Configuration\n")
    print(
        "Every key, from the models themselves: the output of `fusionnode check --keys`. Keys carry their units; an"
    )
    print(
        "unknown key is an error. `[sensor.NAME]` and the like may be repeated, each under a name of its own."
    )
    for name, field in Config.model_fields.items():
        named = get_origin(field.annotation) is dict
        models = _TABLES.get(name) or (_model_of(field),)
        for model in models:
            kind = f", kind = {model.__name__.removesuffix('Link').lower()!r}" if len(models) > 1 else ""
            print(f"\n## [{name}{'.NAME' if named else ''}]{kind}\n")
            print(inspect.cleandoc(model.__doc__ or "") + "\n")
            print("| key | expected | default |\n|---|---|---|")
            for key, of in model.model_fields.items():
                default = "**required**" if of.is_required() else f"`{_shown(of.default)}`"
                print(f"| `{key}` | {_expected(of)} | {default} |")


def _model_of(field: FieldInfo) -> type[BaseModel]:
    annotation = field.annotation
    return get_args(annotation)[1] if get_origin(annotation) is dict else annotation  # type: ignore[return-value]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[]" if not value else str(list(value))
    return (
        f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _expected(field: FieldInfo) -> str:
    annotation = field.annotation
    options = get_args(annotation)
    if options and all(isinstance(option, str) for option in options):
        return " or ".join(f'`"{option}"`' for option in options)
    plain: Any = next((o for o in options if o is not type(None)), None) if options else annotation
    plain = getattr(plain, "__origin__", plain)  # of Annotated
    word = {float: "number", int: "whole number", str: "text", bool: "true or false"}.get(plain, "")
    if get_origin(annotation) is tuple:
        word = "list of text"
    bounds = []
    for item in field.metadata:
        for limit, sign in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
            value = getattr(item, limit, None)
            if value is not None:
                bounds.append(f"{sign} {value:g}")
        if getattr(item, "pattern", None):
            bounds.append(f"like `{item.pattern}`".replace("|", "\\|"))
    return " ".join([word or "text", *bounds])
