"""Requests that wait: each has a deadline, and one whose client has hung up gives its place to others.

Looked at from one task ten times a second, since a timer and a watcher for each request would cost a tenth of the throughput.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

TIMEOUT = 30.0  # seconds a request may wait for its answer
INTERVAL = 0.1  # seconds between two looks


class TimedOutError(RuntimeError):
    """A request waited too long."""


class HungUpError(RuntimeError):
    """The client of a request has gone."""


class Patience:
    """Ends what waits too long, or for nobody."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._open: dict[asyncio.Future[Any], tuple[float, Callable[[], Awaitable[bool]]]] = {}

    async def wait(self, future: asyncio.Future[T], is_gone: Callable[[], Awaitable[bool]]) -> T:
        """The future's result. Raises ``TimedOutError``, and ``HungUpError`` where ``is_gone`` says so."""
        self._open[future] = time.monotonic(), is_gone
        try:
            return await future
        finally:
            del self._open[future]

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            now = time.monotonic()
            for future, (began, is_gone) in list(self._open.items()):
                if now - began < INTERVAL:
                    continue
                if now - began > self._timeout:
                    _end(future, TimedOutError(f"no answer within {self._timeout:g} s"))
                elif await is_gone():
                    _end(future, HungUpError("the client has hung up"))


def _end(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
