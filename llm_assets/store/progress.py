"""Progress that any process can watch: a link writes it to a small file, the command line and the UI read it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

INTERVAL = 0.25  # seconds between two writes; a person cannot follow more


class Progress(Protocol):
    """Called by a link as it works: ``progress(done, total, "documents", loss=0.4)``."""

    def __call__(self, done: float, total: float, unit: str, **values: float) -> None:
        """Report ``done`` of ``total``, and figures worth watching."""
        ...


def silent(done: float, total: float, unit: str, **values: float) -> None:
    """A progress that nobody watches."""


class ProgressFile:
    """A stream of events for one run; readers tail it with ``follow``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = 0.0

    def event(self, link: str, state: str, **values: Any) -> None:
        """Append one event: ``state`` is ``start``, ``working``, ``made``, ``reused``, ``done`` or ``failed``."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": time.time(), "link": link, "state": state, **values}, default=str) + "\n")

    def for_link(self, link: str) -> Progress:
        """The callable handed to a link; calls closer than 0.25 s together are thinned out."""

        def report(done: float, total: float, unit: str, **values: float) -> None:
            moment = time.monotonic()
            if done < total and moment - self._written < INTERVAL:
                return
            self._written = moment
            self.event(link, "working", done=done, total=total, unit=unit, values=values)

        return report

    def follow(self, position: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Events past a byte position, each with the position after it; a half-written line waits for the next call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                yield position, json.loads(line)
