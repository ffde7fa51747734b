"""Whose turn it is where llama.cpp adds adapters to one model: it generates side by side for one adapter at a time.

Its server puts into a batch what asks for the same adapter as the first of its busy slots, and lets the others stand until that slot
is free, for as long as new requests take it. Here they come in by turns instead: all that ask for one adapter together, and once
another has begun to wait, no more of them until it had its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NamedTuple


class Waiting(NamedTuple):
    """A request that is to come in."""

    adapter: str
    admitted: asyncio.Future[None]


class Turns:
    """Lets requests in, those of one adapter at a time, in the order in which the adapters were first asked for. For one event loop."""

    def __init__(self) -> None:
        self._adapter, self._inside = "", 0
        self._queue: list[Waiting] = []

    @asynccontextmanager
    async def of(self, adapter: str) -> AsyncGenerator[None]:
        """Wait until it is the adapter's turn, and hold it."""
        if self._queue or (self._inside and self._adapter != adapter):
            await self._wait(adapter)
        else:
            self._let_in(adapter)
        try:
            yield
        finally:
            self._leave()

    async def _wait(self, adapter: str) -> None:
        waiting = Waiting(adapter, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        try:
            await waiting.admitted
        except asyncio.CancelledError:
            if not waiting.admitted.cancelled():
                self._leave()  # let in, and gone at the same moment
            self._next()  # who waited behind it may go with those inside
            raise

    def _let_in(self, adapter: str) -> None:
        self._adapter = adapter
        self._inside += 1

    def _leave(self) -> None:
        self._inside -= 1
        self._next()

    def _next(self) -> None:
        """Let in whoever wants what the first in the queue wants, where that is what those inside want or nobody is."""
        self._queue = [one for one in self._queue if not one.admitted.cancelled()]
        if not self._queue or (self._inside and self._queue[0].adapter != self._adapter):
            return
        first = self._queue[0].adapter
        for waiting in self._queue:
            if waiting.adapter == first:
                self._let_in(first)
                waiting.admitted.set_result(None)
        self._queue = [one for one in self._queue if not one.admitted.done()]
