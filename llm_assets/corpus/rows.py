"""What reading a file gives, a row at a time."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One document as its file has it."""

    line: int  # from 1
    text: str
    label: str | None = None
    id: str | None = None


class BadRow(NamedTuple):
    """A row that gives no document; ``detail`` says why and quotes nothing of it."""

    line: int
    rule: str
    detail: str
