"""A part of a YAML in which an unknown key is an error that names the allowed ones."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails


class Strict(BaseModel):
    """Immutable settings; an unknown key is answered at its own place with the keys there are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _name_the_allowed_keys(cls, values: Any) -> Any:
        unknown = [key for key in values if key not in cls.model_fields] if isinstance(values, dict) else []
        if unknown:
            # A type of pydantic's own: Dagster rebuilds the error from its type to add file and line.
            cause = {"error": ValueError(f"unknown key; there are: {', '.join(cls.model_fields)}")}
            details = [InitErrorDetails(type="value_error", loc=(key,), input=values[key], ctx=cause) for key in unknown]
            raise ValidationError.from_exception_data(cls.__name__, details)
        return values
