"""Rules of the user's own: a function of theirs judges, lists of theirs overrule, each with its name or reason."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field, model_validator

from llm_assets.corpus.archives import SourceError
from llm_assets.store.strict import Strict


class OwnFunction(Strict):
    """A function of the user's own, by name."""

    WHAT: ClassVar[str]  # it is, in a message

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="stands in figures, counters and rejects")
    function: str = Field(pattern=r"^[\w.]+:\w+$", description="module:function, importable where the chain runs")

    def load(self) -> Callable[..., Any]:
        """The function. Raises ``SourceError`` where there is none."""
        module, _, name = self.function.partition(":")
        try:
            return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
        except (ImportError, AttributeError) as error:
            raise SourceError(f"{self.WHAT} {self.name}: {self.function} cannot be imported ({error}); correct it or install its package") from error

    def source_hash(self) -> str:
        """The SHA-256 of the module that holds the function: an edit of it is another recipe. Raises ``SourceError`` for one without source."""
        try:
            source = inspect.getsource(importlib.import_module(self.load().__module__))
        except (OSError, TypeError) as error:
            raise SourceError(f"{self.WHAT} {self.name}: the source of {self.function} cannot be read, so no recipe could name it") from error
        return hashlib.sha256(source.encode()).hexdigest()


class OwnRule(OwnFunction):
    """A function from an Arrow array of normalised, masked texts to as many booleans, true where a text is to be dropped."""

    WHAT: ClassVar[str] = "own rule"

    def dropped(self, texts: Any) -> list[bool]:
        """The function's verdicts. Raises ``SourceError`` when there are more or fewer of them than texts."""
        verdicts = self.load()(texts)
        found = [bool(value) for value in (verdicts.to_pylist() if hasattr(verdicts, "to_pylist") else list(verdicts))]
        if len(found) != len(texts):
            raise SourceError(f"own rule {self.name}: {self.function} gave {len(found)} verdicts for {len(texts)} texts")
        return found


class Listed(Strict):
    """One document, or all whose text matches, kept or dropped whatever the rules say."""

    doc_id: str | None = Field(None, pattern=r"^[0-9a-f]{20}$")
    matching: str | None = Field(None, min_length=1, description="regular expression on the normalised text")
    reason: str = Field(min_length=3, description="why; stands in the rejects as evidence")

    @model_validator(mode="after")
    def _one_of_two(self) -> Listed:
        if (self.doc_id is None) == (self.matching is None):
            raise ValueError("give either doc_id or matching")
        try:
            re.compile(self.matching or "")
        except re.error as error:
            raise ValueError(f"matching is no regular expression ({error})") from error
        return self

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(self.matching or "")

    def names(self, doc_id: str, text: str) -> bool:
        """Whether this entry is about the document."""
        return doc_id == self.doc_id if self.doc_id else bool(self._expression.search(text))


def reason_for(entries: Sequence[Listed], doc_id: str, text: str) -> str | None:
    """The reason of the first entry about a document, or None."""
    return next((entry.reason for entry in entries if entry.names(doc_id, text)), None)
