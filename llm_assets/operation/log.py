"""Reading the request log that the gateway writes, JSON lines a UTC day: newest first, or a day at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from llm_assets.corpus.conversations import ROLES, Turn, text_of, turns
from llm_assets.serving.answers import GENERATED
from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.request_log import MASKED_LENGTH, log_folder
from llm_assets.serving.shadows import shadows_of_day

BLOCK = 1 << 16  # bytes read at once from a file's end: some 150 requests


@dataclass(frozen=True)
class Reply:
    """An answer that was generated."""

    masked: str | None  # None where it was erased
    characters: int  # as it went out
    asked: str  # the conversation before it, a turn a line, the user's first and last; empty where the log holds no such one whole

    @property
    def is_whole(self) -> bool:
        """Whether the log holds every word of it."""
        return _is_whole({"masked": self.masked, "characters": self.characters})


@dataclass(frozen=True)
class Text:
    """One text of a request and what was answered."""

    index: int
    sha256: str  # of the text as it came
    characters: int  # of the text as it came
    masked: str | None  # None in logs of releases that kept no text
    label: str  # of a reply how it ended: stop, length or broken off
    probs: list[float]
    shadow: str | None  # the label that the other release of a rollout gave
    reply: Reply | None = None  # where the answer was generated; the text is then the last turn before it

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
    adapter: str = ""  # beside the model, where the answer is one's; empty for the model alone


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
        if str(line["id"]).startswith(GENERATED):
            texts = [_replied(line, texts[-1])]
        moment = datetime.fromisoformat(line["at"])
        if moment.tzinfo is None:
            return None
        client, adapter = str(line.get("client", "anonymous")), str(line.get("adapter", ""))
        return Request(str(line["id"]), moment, str(line["release"]), client, float(line["milliseconds"]), texts, adapter)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _replied(line: Mapping[str, Any], last: Text) -> Text:
    """The last turn of a conversation with the answer to it, which stands first in the line."""
    answer, *said = line["texts"]
    spoken = [Turn(role, turn.get("masked") or "") for role, turn in zip(line["labels"][1:], said, strict=True)]
    whole = all(turn.role in ROLES for turn in spoken) and all(map(_is_whole, said))
    asked = text_of(spoken) if whole else ""
    reply = Reply(answer.get("masked"), int(answer["characters"]), asked if len(turns(asked)) % 2 else "")
    return replace(last, index=0, label=str(line["finish"]), reply=reply)


def _is_whole(text: Mapping[str, Any]) -> bool:
    """Whether the log holds all of a text; masking may have made it longer."""
    return isinstance(text.get("masked"), str) and max(int(text["characters"]), len(text["masked"])) < MASKED_LENGTH


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
