"""Work that is done in groups: what comes while one group is on its way to the disk shares the next write and fsync.

A disk makes a few hundred or thousand fsyncs a second, so one a request would be the limit of the whole service (group commit: DeWitt et al., 1984).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


class GroupCommit(Generic[Item, Done]):
    """Hands items to ``commit`` in groups, one at a time: while one group is written the next one gathers.

    ``commit`` returns one result an item; one that is an exception is raised to whoever submitted that item.
    """

    def __init__(self, commit: Callable[[list[Item]], Awaitable[Sequence[Done | Exception]]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[Item, asyncio.Future[Done]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Done:
        """What ``commit`` made of the item, once its group is written. Raises what ``commit`` raised or returned."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Done] = loop.create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await future

    async def end(self) -> None:
        """Return once nothing waits to be written."""
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            results: Sequence[Done | Exception]
            try:
                results = await self._commit([item for item, _ in group])
            except Exception as error:
                results = [error] * len(group)
            for (_, future), result in zip(group, results, strict=True):
                if future.done():
                    continue  # whoever waited for it has gone
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._worker = None
