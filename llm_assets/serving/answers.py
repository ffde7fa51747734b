"""Which answers were given. Their ids begin with their time, so that an id says in which day's file of the log it stands.

The shape is that of UUID version 7 (RFC 9562): 48 bits of milliseconds, then 80 random ones.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from llm_assets.serving.dated_files import dated_files, last_lines, lines_with
from llm_assets.serving.request_log import log_folder

REMEMBERED = 50_000  # answers whose ids are known without a look at the log, about 15 MB

ANSWER = "answer"  # in a line of the log, the label of a text that was generated; those of the turns before it are their speakers'
GENERATED = ("chatcmpl-", "cmpl-")  # what the ids of such lines begin with
FINISHES = ("stop", "length", "broken off")  # how an answer that was generated ended: by itself, at its limit, or with its client or engine
ID = re.compile(r"(?:classify|chatcmpl|cmpl)-([0-9a-f]{12})[0-9a-f]{20}")


def new_id(kind: str = "classify") -> str:
    """The kind of answer, then 48 bits of milliseconds since 1970 and 80 random bits, in hexadecimal."""
    return f"{kind}-{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def moment_of(answer: str) -> datetime | None:
    """When an id was made; None for what is no id."""
    found = ID.fullmatch(answer)
    try:
        return datetime.fromtimestamp(int(found[1], 16) / 1000, UTC) if found else None
    except (ValueError, OverflowError, OSError):  # a year beyond 9999
        return None


class Known(NamedTuple):
    """An answer that may be voted on."""

    chain: str
    texts: int  # that were answered


def answered(line: Mapping[str, Any]) -> int:
    """How many texts a line of the log holds an answer to: all of a classifier's; what was generated ends one conversation."""
    return 1 if line["id"].startswith(GENERATED) else len(line["texts"])


class Answers:
    """Which ids were answered: the newest in memory, the others in the request log. Safe for threads."""

    def __init__(self, home: Path, size: int = REMEMBERED) -> None:
        self._folder, self._size = log_folder(home), size
        self._known: OrderedDict[str, tuple[str, int]] = OrderedDict()  # plain: the garbage collector passes such tuples by, but no named ones
        self._lock = threading.Lock()

    def remember(self, answer: str, chain: str, texts: int) -> None:
        """Note an answer that is in the log."""
        with self._lock:
            self._known[answer] = chain, texts
            if len(self._known) > self._size:
                self._known.popitem(last=False)

    def recall(self, answer: str) -> Known | None:
        """An answer by its id, from memory."""
        known = self._known.get(answer)
        return known and Known(*known)

    def load(self) -> None:
        """Fill the memory from the newest files of the log; to be called once. What was noted meanwhile is newer."""
        for _, answer, chain, texts in sorted((line for folder in self._chains() for line in self._newest(folder)), reverse=True):
            with self._lock:
                if len(self._known) >= self._size:
                    break
                if answer not in self._known:
                    self._known[answer] = chain, texts
                    self._known.move_to_end(answer, last=False)

    def find(self, answer: str) -> Known | None:
        """An answer by its id, from memory or else from the log of the days about its making, of any chain."""
        if known := self.recall(answer):
            return known
        moment = moment_of(answer)
        if moment is None:
            return None
        for folder in self._chains():
            for day in (moment.date(), moment.date() + timedelta(days=1)):  # it may have been written past midnight
                for line in lines_with(folder / f"{day.isoformat()}.jsonl", answer):
                    if line.get("id") == answer:
                        return Known(folder.name, answered(line))
        return None

    def _newest(self, folder: Path) -> list[tuple[str, str, str, int]]:
        found: list[tuple[str, str, str, int]] = []
        for path in reversed(list(dated_files(self._folder, folder.name))):
            lines = last_lines(path, self._size - len(found))
            found += [(line["at"], line["id"], folder.name, answered(line)) for line in lines]
            if len(found) >= self._size:
                break
        return found

    def _chains(self) -> Iterator[Path]:
        if self._folder.is_dir():
            yield from (path for path in sorted(self._folder.iterdir()) if path.is_dir())
