"""Append-only journals: what acts did, one JSON object a line, on the disk before it counts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

Entry = dict[str, Any]


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat()


class Journal:
    """One append-only file. A line cut off by a crash is passed over and never joined to the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: Mapping[str, Any]) -> Entry:
        """Write one entry (``at`` is added) and flush it to the disk; returns what was written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written: Entry = {"at": now(), **entry}
        line = json.dumps(written, ensure_ascii=False, default=str).encode() + b"\n"
        with FileLock(f"{self.path}.lock"), self.path.open("ab+") as file:
            if file.tell() and not self._ends_with_newline(file):
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return written

    def turn(self) -> FileLock:
        """The lock under which an act reads its journal, acts and appends; another than the one each append takes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_suffix(".lock"))

    def entries(self) -> Iterator[Entry]:
        """Every whole entry, oldest first."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict):
                    yield entry

    def newest(self, where: Callable[[Entry], bool] = lambda entry: True) -> Entry | None:
        """The last entry for which ``where`` holds."""
        found = None
        for entry in self.entries():
            if where(entry):
                found = entry
        return found

    @staticmethod
    def _ends_with_newline(file: Any) -> bool:
        file.seek(-1, os.SEEK_END)
        return bool(file.read(1) == b"\n")
