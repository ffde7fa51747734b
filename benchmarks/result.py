"""The one line a benchmark ends in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A measured figure beside its target."""

    name: str
    value: float
    unit: str
    target: str
    holds: bool
