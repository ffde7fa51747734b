"""A gateway's log and votes as the gateway writes them, for tests of what reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def line(number: int, *texts: str, at: datetime | None = None, labels: Iterable[str] = (), **fields: Any) -> dict[str, Any]:
    """A line of the request log; of two labels, the first text's answer positive unless told otherwise."""
    named = list(labels) or ["positive"] * len(texts)
    return {
        "id": f"classify-{number:04}",
        "at": (at or NOON + timedelta(seconds=number)).isoformat(),
        "chain": "tiny",
        "release": "tiny-1",
        "client": "anonymous",
        "texts": [{"characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest(), "masked": text[:2000]} for text in texts],
        "labels": named,
        "probs": [[0.1, 0.9] if label == "positive" else [0.9, 0.1] for label in named],
        "milliseconds": 3.0,
        **fields,
    }


def reply(number: int, answer: str, *turns: str, finish: str = "stop", **fields: Any) -> dict[str, Any]:
    """A line of the request log of a model that talks: its answer, and the turns before it, the user's first unless told otherwise."""
    roles = fields.pop("roles", None) or [("user", "assistant")[place % 2] for place in range(len(turns))]
    made = line(number, answer, *turns, labels=["answer", *roles], finish=finish, tokens={"prompt": 9, "completion": 5})
    return {**made, "id": f"chatcmpl-{number:04}", "probs": [[]] * (1 + len(turns)), **fields}


def vote(number: int, at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """A line of feedback on answer ``number``."""
    moment = (at or NOON + timedelta(minutes=5, seconds=number)).isoformat()
    return {
        "id": f"classify-{number:04}", "index": 0, "at": moment, "client": "anonymous", "rating": None, "label": None, "comment": None, **fields
    }  # fmt: skip


def write_log(home: Path, entries: Iterable[Mapping[str, Any]], chain: str = "tiny", kind: str = "log") -> list[Path]:
    """Append lines to the files of their days; returns the files."""
    paths = []
    for entry in entries:
        path = home / "serving" / kind / chain / f"{entry['at'][:10]}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        paths.append(path)
    return list(dict.fromkeys(paths))
