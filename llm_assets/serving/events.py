"""What happened to a chain's service, for its operators: rollouts, rollbacks, alerts, votes withdrawn. Anything may append."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from llm_assets.store.journal import Entry, Journal

Kind = Literal["rollout", "rollback", "alert", "resolved", "drift", "approval", "withdrawal"]


def append_event(home: Path, chain: str, kind: Kind, message: str, release: str | None = None, **figures: Any) -> Entry:
    """Add one event, on the disk when this returns: ``{"at", "kind", "release", "message", ...figures}``."""
    return events_journal(home, chain).append({"kind": kind, "release": release, "message": message, **figures})


def read_events(home: Path, chain: str) -> list[Entry]:
    """Every event, oldest first."""
    return list(events_journal(home, chain).entries())


def events_journal(home: Path, chain: str) -> Journal:
    """The file they stand in."""
    return Journal(home / "serving" / "events" / f"{chain}.jsonl")


def alerts_path(home: Path, chain: str) -> Path:
    """Which alerts have begun and are not over, and what waits to be delivered; written by the look at the rules."""
    return home / "serving" / "alerts" / f"{chain}.json"
