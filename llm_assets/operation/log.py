"""Reading the request log that the gateway writes, JSON lines a UTC day: newest first, or a day at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.request_log import log_folder
from llm_assets.serving.shadows import shadows_of_day

BLOCK = 1 << 16  # bytes read at once from a file's end: some 150 requests


@dataclass(frozen=True)
class Text:
    """One text of a request and what was answered."""

    index: int
    sha256: str  # of the text as it came
    characters: int  # of the text as it came
    masked: str | None  # None in logs of releases that kept no text
    label: str
    probs: list[float]
    shadow: str | None  # the label that the other release of a rollout gave

    @property
    def certainty(self) -> float | None:
        """The probability of the answer; of several labels that of the least certain one; None for a number."""
        if len(self.probs) < 2:
            return None
        if abs(sum(self.probs) - 1) < 1e-6:
            return max(self.probs)
        return min(max(probability, 1 - probability) for probability in self.probs)


@dataclass(frozen=True)
class Request:
    """One line of the request log."""

    id: str
    at: datetime
    release: str
    client: str
    milliseconds: float
    texts: Sequence[Text]


def requests(path: Path) -> Iterator[Request | None]:
    """Every line of a day's log, oldest first; None for one that a crash cut off or that is no request."""
    shadows = _shadows(path)
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield _request(_json(line), shadows)


def newest_requests(home: Path, chain: str) -> Iterator[Request]:
    """A chain's requests, newest first, read from the ends of its files; what cannot be read is passed over."""
    for path in reversed(list(dated_files(log_folder(home), chain))):
        shadows = _shadows(path)
        for line in _lines_backwards(path):
            if (request := _request(_json(line), shadows)) is not None:
                yield request


def requests_since(home: Path, chain: str, moment: datetime) -> list[Request]:
    """A chain's requests from a moment on, oldest first."""
    return list(takewhile(lambda request: request.at >= moment, newest_requests(home, chain)))[::-1]


def _json(line: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _shadows(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """What the other release said of a day's requests."""
    return shadows_of_day(path.parents[3], path.parent.name, date.fromisoformat(path.stem))


def _request(line: Mapping[str, Any] | None, shadows: Mapping[str, Mapping[str, Any]]) -> Request | None:
    if line is None:
        return None
    try:
        said = (line.get("shadow") or shadows.get(line["id"]) or {}).get("labels") or []
        shadow = [*said, *[None] * (len(line["texts"]) - len(said))]  # of a long request the first texts alone
        texts = [
            Text(index, text["sha256"], int(text["characters"]), text.get("masked"), str(label), [float(value) for value in probs], other)
            for index, (text, label, probs, other) in enumerate(zip(line["texts"], line["labels"], line["probs"], shadow, strict=True))
        ]
        moment = datetime.fromisoformat(line["at"])
        if moment.tzinfo is None:
            return None
        return Request(str(line["id"]), moment, str(line["release"]), str(line.get("client", "anonymous")), float(line["milliseconds"]), texts)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        position = file.seek(0, 2)
        rest = b""
        while position:
            size = min(BLOCK, position)
            position -= size
            file.seek(position)
            first, *whole = (file.read(size) + rest).split(b"\n")
            yield from (line for line in reversed(whole) if line)
            rest = first
        if rest:
            yield rest
