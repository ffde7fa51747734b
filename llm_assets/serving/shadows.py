"""What the other release of a rollout said of the requests that it was asked too: in a shadow the new one, in a canary the stable one.

``<home>/serving/shadow/<chain>/<UTC date>.jsonl``, a line a request, ``{"id", "at", "release", "labels"}``, by the date in the
answer's id. Nobody waits for it, while a line of the request log is kept before its answer leaves: so it stands apart, and
whoever reads the log joins the two by the id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from llm_assets.serving.answers import moment_of
from llm_assets.serving.dated_files import DatedFiles
from llm_assets.store.journal import Journal


def shadow_folder(home: Path) -> Path:
    """Where they stand."""
    return home / "serving" / "shadow"


class Shadows:
    """Writes them. Not for two threads at once."""

    def __init__(self, home: Path) -> None:
        self._files = DatedFiles(shadow_folder(home))

    def note(self, chain: str, answer: str, release: str, labels: Sequence[str]) -> None:
        """Add what ``release`` said of the first texts of a request. Raises ``OSError`` where it cannot be written."""
        moment = datetime.now(UTC)
        line = {"id": answer, "at": moment.isoformat(), "release": release, "labels": list(labels)}
        day = (moment_of(answer) or moment).date()
        if failed := self._files.append({chain: json.dumps(line, ensure_ascii=False).encode() + b"\n"}, day, flush=False):
            raise failed[chain]

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def shadows_of_day(home: Path, chain: str, day: date) -> dict[str, Mapping[str, Any]]:
    """``{"release", "labels"}`` by the answer's id, of the requests in the log of a UTC date; an answer may be logged past its midnight."""
    return {line["id"]: {"release": line["release"], "labels": line["labels"]} for line in _lines(home, chain, day)}


def _lines(home: Path, chain: str, day: date) -> Iterator[dict[str, Any]]:
    for each in (day - timedelta(days=1), day):
        yield from Journal(shadow_folder(home) / chain / f"{each.isoformat()}.jsonl").entries()
