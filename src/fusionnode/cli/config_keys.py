"""Every key of the configuration, from the models themselves."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fusionnode.config import Area, Config, NodeLink, Rule, SerialLink, ZmqLink

_TABLES: dict[str, tuple[type[BaseModel], ...]] = {"link": (SerialLink, ZmqLink, NodeLink)}
_INNER: dict[str, tuple[tuple[str, type[BaseModel]], ...]] = {
    "group": (("rule", Rule), ("[group.NAME.rule.area]", Area))
}
"""Tables within tables."""


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
            _print_rows(model, skip=tuple(key for key, _ in _INNER.get(name, ())))
        for inner, inner_model in _INNER.get(name, ()):
            print(f"\n## {inner}\n" if inner.startswith("[") else f"\n## [[{name}.NAME.{inner}]]\n")
            print(inspect.cleandoc(inner_model.__doc__ or "") + "\n")
            print("| key | expected | default |\n|---|---|---|")
            _print_rows(inner_model)


def _print_rows(model: type[BaseModel], skip: tuple[str, ...] = ()) -> None:
    for key, of in model.model_fields.items():
        if key in skip:
            continue
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
    bounds = []
    for item in field.metadata:
        for limit, sign in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
            value = getattr(item, limit, None)
            if value is not None:
                bounds.append(f"{sign} {value:g}")
        if getattr(item, "pattern", None):
            bounds.append(f"like `{item.pattern}`".replace("|", "\\|"))
    return " ".join([_word(field.annotation), *bounds])


def _word(annotation: Any) -> str:
    """What a type is called: its values, or a kind of value."""
    origin, options = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _word(options[0])
    if origin is tuple:
        items = [_word(option) for option in options if option is not Ellipsis]
        return f"list of {items[0]}" if Ellipsis in options else f"list of {len(items)}: {', '.join(items)}"
    if origin is Literal:
        return " or ".join(f'`"{option}"`' for option in options)
    if options:
        return " or ".join(_word(option) for option in options if option is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return {float: "number", int: "whole number", bool: "true or false"}.get(annotation, "text")
