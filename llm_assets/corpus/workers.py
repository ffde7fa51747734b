"""Work spread over processes: results in the order of the items, and no process that outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT = 2  # items a process: one at work, one waiting, so that memory does not grow with the input


class WorkerDiedError(RuntimeError):
    """A worker process ended before its work was done."""


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_workers(function: Callable[[Item], Result], items: Iterable[Item], processes: int) -> Iterator[Result]:
    """``function`` of every item, in their order; with one process here, else in so many that start afresh.

    ``function`` must be importable, items and results picklable between processes of one program. However this one ends,
    its workers end too. Raises ``WorkerDiedError`` when a worker is killed, and what ``function`` raises.
    """
    if processes == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, initializer=_end_with_parent)
    waiting: deque[Future[Result]] = deque()
    number = 0
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= IN_FLIGHT * processes:
                yield waiting.popleft().result()
                number += 1
        while waiting:
            yield waiting.popleft().result()
            number += 1
    except BrokenProcessPool as error:
        shards = f"shard {number + 1} or one of the next {IN_FLIGHT * processes - 1}"
        raise WorkerDiedError(
            f"a worker process ended at {shards} ({error}); nothing was committed. Was memory short? Free some and run again"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
