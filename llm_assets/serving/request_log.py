"""The request log: one line a request, on its way to the disk before the answer leaves; never a text itself."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO


class RequestLogError(OSError):
    """A request could not be recorded, so it is not answered."""


class RequestLog:
    """Appends to ``<folder>/<chain>/<date>.jsonl`` (UTC dates); a line cut off by a crash stays alone on its line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tuple[Path, BinaryIO]] = {}  # chain -> today's file

    def write(self, chain: str, request: str, release: str, texts: Sequence[str], **fields: Any) -> None:
        """Record one request: texts by length in characters and SHA-256, and ``fields`` as they are.

        Raises ``RequestLogError`` naming the file when it cannot be written.
        """
        moment = datetime.now(UTC)
        line = {
            "id": request,
            "at": moment.isoformat(),
            "release": release,
            "texts": [{"characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()} for text in texts],
            **fields,
        }
        path = self._folder / chain / f"{moment.date().isoformat()}.jsonl"
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        try:
            if self._file(chain, path).write(data) != len(data):
                raise OSError("the line was cut off")
        except OSError as error:
            self._close(chain)  # reopening mends a line cut off
            raise RequestLogError(f"{path} cannot be written ({error}): free space or mend its permissions") from error

    def close(self) -> None:
        """Close every file."""
        for chain in list(self._files):
            self._close(chain)

    def _file(self, chain: str, path: Path) -> BinaryIO:
        known = self._files.get(chain)
        if known and known[0] == path:
            return known[1]
        self._close(chain)
        path.parent.mkdir(parents=True, exist_ok=True)
        file: BinaryIO = path.open("ab+", buffering=0)  # unbuffered: each write is one system call
        self._files[chain] = (path, file)
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        return file

    def _close(self, chain: str) -> None:
        if known := self._files.pop(chain, None):
            known[1].close()
