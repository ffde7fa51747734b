"""Work that nobody waits for, such as comparing two releases: one piece at a time, and a share of the time at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any


class Sparing:
    """Begins pieces of such work in tasks of the event loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._rested = 0.0  # ``time.perf_counter()`` from which another piece may begin

    def attempt(self, work: Callable[[], Coroutine[Any, Any, None]], share: float) -> None:
        """Begin a piece, unless the one before is under way, or at rest after it; ``share`` is the part of the time that such pieces may take."""
        if (self._task is None or self._task.done()) and time.perf_counter() >= self._rested:
            self._task = asyncio.get_running_loop().create_task(self._timed(work, share))

    def cancel(self) -> None:
        """Break off the piece that is under way."""
        if self._task:
            self._task.cancel()

    async def _timed(self, work: Callable[[], Coroutine[Any, Any, None]], share: float) -> None:
        began = time.perf_counter()
        try:
            await work()
        finally:
            ended = time.perf_counter()
            self._rested = ended + (ended - began) * (1 / share - 1)
