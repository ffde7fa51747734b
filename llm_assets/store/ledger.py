"""The ledger: what a home committed, judged, removed and acted, one line each, every line naming the hash of the one before.

A manifest, a verdict or a journal entry that was changed afterwards no longer has the hash that stands here; a line that was
changed, left out or put in breaks the hashes after it. Whoever can write the whole file can write another one: signing
(`llm-assets verify --sign`) binds it to a key that is kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from llm_assets.store.journal import Entry, Journal
from llm_assets.store.records import keeping_records

TAIL = 1 << 14  # bytes of the end that are read for the last line; a line has 300


class Ledger:
    """``<home>/audit/chain.jsonl``."""

    def __init__(self, home: Path) -> None:
        self.path = home / "audit" / "chain.jsonl"
        self._journal = Journal(self.path)

    @keeping_records()
    def append(self, event: str, link: str, name: str, **hashes: str) -> None:
        """Record an event: ``made``, ``judged`` and ``removed`` name a fingerprint, ``acted`` the time of a journal's entry."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            self._journal.append({"event": event, "link": link, "name": name, **hashes, "before": self._last()})

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first."""
        return self._journal.entries()

    def breaks(self) -> list[str]:
        """Where a line does not name the hash of the one before it, a sentence each."""
        found, before = [], ""
        for number, line in enumerate(self.lines(), start=1):
            try:
                named = json.loads(line)["before"]
            except (ValueError, KeyError, TypeError):
                named = before  # cut off by a crash: the next line names it as it is
            if named != before:
                found.append(f"line {number} of {self.path} names another hash than that of the line before: one was changed, left out or put in")
            before = sha256(line)
        return found

    def lines(self) -> Iterator[bytes]:
        """Its lines as they stand, without their ends."""
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from (line.rstrip(b"\n") for line in file if line.strip())

    def _last(self) -> str:
        """The hash of the last line; empty where there is none."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            lines = _tail(file).split(b"\n")
        last = next((line for line in reversed(lines) if line.strip()), None)
        return sha256(last) if last else ""


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def entry_hash(entry: Mapping[str, Any]) -> str:
    """The hash of a journal's entry, the same before it was written and after it was read."""
    plain = json.loads(json.dumps(entry, default=str))
    return sha256(json.dumps(plain, sort_keys=True, ensure_ascii=False).encode())


def _tail(file: BinaryIO) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - TAIL))
    return file.read()
