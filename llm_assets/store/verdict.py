"""Verdicts: what a check said of one artifact. They stand beside the manifest and the store enforces them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

VERDICTS = "verdicts.json"
VERDICT_PAGES = "checks"  # the folder of the pages that checks come with


class Verdict(BaseModel):
    """One check's judgement of one version."""

    model_config = ConfigDict(extra="forbid")
    check: str
    passed: bool
    blocking: bool = True
    description: str = Field(description="what was found, in a sentence with the figures")
    values: dict[str, Any] = Field(default_factory=dict)
    page: str | None = Field(None, exclude=True, description="HTML that shows what was found; kept as a page beside the verdicts")


class RefusedError(RuntimeError):
    """An input whose blocking check failed was asked for."""


def failed(verdicts: list[Verdict]) -> list[Verdict]:
    """The verdicts that forbid building on what they judge."""
    return [verdict for verdict in verdicts if verdict.blocking and not verdict.passed]
