"""The threads in which engines compute: one a core, for all of them together.

While one waits for the interpreter's lock another one computes, without it; with more of them all wait: a canary with threads of its own
raised the p99 near a gateway's peak. A thread that has ended a batch goes on with whatever is next, of any engine: handing
its turn to another thread, by a lock or by way of the event loop, cost more than it gained.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

HANGS = 1.0  # seconds after which what is computed counts no more: a batch takes hundredths


class Cores:
    """Computes in as many threads as there are cores. Where something hangs, the threads are left to it and others take their place."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or _cores()
        self.computed = 0.0  # seconds of processor time, of all threads together
        self._threads: Executor = self._started()

    async def run(self, compute: Callable[[], T]) -> T:
        """What ``compute`` returns, in a thread, when its turn has come. Raises what it raises."""
        while True:
            threads = self._threads
            try:
                return await self._watched(threads, compute)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if threads is self._threads or (task and task.cancelling()):  # else it was cancelled because its threads were given up
                    raise

    async def _watched(self, threads: Executor, compute: Callable[[], T]) -> T:
        """What it returns; the threads are given up where that takes longer than ``HANGS`` from its beginning."""
        loop, began, spent = asyncio.get_running_loop(), list[float](), list[float]()
        watch = loop.call_later(HANGS, lambda: look())

        def timed() -> T:
            began.append(time.monotonic())
            before = time.thread_time()
            try:
                return compute()
            finally:
                spent.append(time.thread_time() - before)

        def look() -> None:
            nonlocal watch
            left = began[0] + HANGS - time.monotonic() if began else HANGS
            if left > 0:
                watch = loop.call_later(left, look)
            else:
                self._give_up(threads)

        try:
            return await loop.run_in_executor(threads, timed)
        finally:
            watch.cancel()
            self.computed += sum(spent)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _give_up(self, threads: Executor) -> None:
        if threads is self._threads:
            logger.warning("something has been computed for %g s: the others get threads of their own", HANGS)
            self._threads = self._started()
            threads.shutdown(wait=False, cancel_futures=True)  # what has yet to begin moves on

    def _started(self) -> Executor:
        return ThreadPoolExecutor(self.count, thread_name_prefix="engine")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
