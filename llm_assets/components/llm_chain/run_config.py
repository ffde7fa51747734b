"""A link's section as a typed Dagster config schema, so that the Launchpad shows each key with its default and meaning."""

from __future__ import annotations

import enum
import types
from typing import Any, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel

SCALARS = (int, float, str, bool)


def config_schema(section: BaseModel) -> dict[str, dg.Field]:
    """One Dagster field a key of the section, each defaulting to what the chain's YAML says."""
    return {
        name: dg.Field(
            _config_type(info.annotation),
            default_value=_plain(getattr(section, name)),
            is_required=False,
            description=info.description,
        )
        for name, info in type(section).model_fields.items()
    }


def _config_type(annotation: Any) -> Any:
    """The Dagster type of an annotation; what Dagster cannot say (a union of sections) is left open, pydantic judges it."""
    if annotation in SCALARS:
        return annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal and all(isinstance(value, str) for value in arguments):
        return dg.Enum(f"Choice_{'_'.join(arguments)}", [dg.EnumValue(value) for value in arguments])
    if origin in (Union, types.UnionType) and type(None) in arguments and len(arguments) == 2:
        inner = next(argument for argument in arguments if argument is not type(None))
        return dg.Noneable(_config_type(inner))
    if origin in (list, tuple) and arguments and arguments[0] in SCALARS:
        return dg.Array(_config_type(arguments[0]))
    return dg.Any


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.value if isinstance(value, enum.Enum) else value
