"""Reading a chain's release journal, the truth about what was released; aliases elsewhere only mirror it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_assets.store.journal import Entry, Journal

Record = Mapping[str, Any]  # what the release link returned


def releases(journal: Journal) -> list[Record]:
    """Every release once, oldest first; a re-run that changed nothing repeats its entry, and trials release nothing."""
    found: dict[int, Record] = {}
    for entry in journal.entries():
        if _is_release(entry) and _passed(entry):
            found.setdefault(entry["record"]["number"], entry["record"])
    return [found[number] for number in sorted(found)]


def champion(journal: Journal) -> Record | None:
    """The newest release, which the endpoint serves."""
    return next(reversed(releases(journal)), None)


def previous(journal: Journal) -> Record | None:
    """The release before the champion: what a rollback returns to."""
    known = releases(journal)
    return known[-2] if len(known) > 1 else None


def next_number(journal: Journal) -> int:
    """The number of the release to come; one whose checks failed keeps its number to itself."""
    return 1 + max((entry["record"]["number"] for entry in journal.entries() if _is_release(entry)), default=0)


def _is_release(entry: Entry) -> bool:
    return not entry.get("trial")


def _passed(entry: Entry) -> bool:
    return all(verdict["passed"] for verdict in entry.get("verdicts") or () if verdict["blocking"])
