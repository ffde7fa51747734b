"""The request log: one line a request, on the disk before the answer leaves; texts masked, never as they came.

Masking is most of the cost, 0.05 ms a short text on a quiet core of 2026, so it is done beside the event loop, for a group at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llm_assets.corpus.pii import mask_all
from llm_assets.serving.dated_files import DatedFiles
from llm_assets.serving.group_commit import GroupCommit

MASKED_LENGTH = 2000  # characters of a masked text that are kept
READ_LENGTH = 4 * MASKED_LENGTH  # characters that are masked, so that nothing is cut in two before it is found
PIECE, APART = 480, 16  # characters masked in one call, and what stands between two texts there


class RequestLogError(OSError):
    """A request could not be recorded, so it is not answered."""


@dataclass(frozen=True)
class Answered:
    """One request and its answer."""

    chain: str
    id: str
    release: str
    client: str  # the name of its API key, or "anonymous"
    texts: Sequence[str]
    labels: Sequence[str]
    probs: Sequence[Sequence[float]]
    milliseconds: float
    more: dict[str, Any]  # what a rollout adds, such as the shadow's answers


def log_folder(home: Path) -> Path:
    """Where the request logs of a data root stand: ``<chain>/<UTC date>.jsonl``."""
    return home / "serving" / "log"


class RequestLog:
    """Appends to ``<folder>/<chain>/<date>.jsonl`` (UTC dates), the requests that end together in one write.

    A line: ``{"id", "at", "chain", "release", "client", "texts": [{"characters", "sha256", "masked"}], "labels", "probs",
    "milliseconds"}``.
    """

    def __init__(self, folder: Path, watch: Callable[[int], None] = lambda records: None) -> None:
        """``watch`` is told the size of each group."""
        self._files = DatedFiles(folder)
        self._group = GroupCommit(self._commit, "request-log")
        self._watch = watch

    async def write(self, record: Answered) -> None:
        """Return once the request is on the disk. Raises ``RequestLogError`` naming the file when it cannot be written."""
        await self._group.submit(record)

    def close(self) -> None:
        """End the writing and close every file."""
        self._group.close()
        self._files.close()

    def _commit(self, records: list[Answered]) -> list[Exception | None]:
        moment = datetime.now(UTC)
        texts = [text[:READ_LENGTH] for record in records for text in record.texts]
        masked = (text for piece in _pieces(texts) for text in mask_all(piece)[0])
        lines: dict[str, bytes] = {}
        for record in records:
            described = [_described(text, next(masked)) for text in record.texts]
            lines[record.chain] = lines.get(record.chain, b"") + _line(record, moment, described)
        failed = self._files.append(lines, moment.date())
        self._watch(len(records))
        return [self._error(record.chain, moment, failed[record.chain]) if record.chain in failed else None for record in records]

    def _error(self, chain: str, moment: datetime, error: OSError) -> RequestLogError:
        path = self._files.path(chain, moment.date())
        return RequestLogError(f"{path} cannot be written ({error}): free space or mend its permissions")


def _pieces(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in pieces of a few hundred characters: numpy lets other threads run in each step over more, and getting the
    interpreter back from a busy event loop costs more than the step (0.20 ms a text became 0.11 at 32 connections)."""
    piece, size = list[str](), 0
    for text in texts:
        if piece and size + len(text) + APART > PIECE:
            yield piece
            piece, size = [], 0
        piece.append(text)
        size += len(text) + APART
    yield piece


def _described(text: str, masked: str) -> dict[str, Any]:
    return {"characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest(), "masked": masked[:MASKED_LENGTH]}


def _line(record: Answered, moment: datetime, texts: Sequence[dict[str, Any]]) -> bytes:
    line = {
        "id": record.id,
        "at": moment.isoformat(),
        "chain": record.chain,
        "release": record.release,
        "client": record.client,
        "texts": texts,
        "labels": record.labels,
        "probs": record.probs,
        "milliseconds": record.milliseconds,
        **record.more,
    }
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
