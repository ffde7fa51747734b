"""Batching without waiting: what arrives while the engine works makes up its next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from llm_assets.serving.engine import Classified

# Texts a batch. All are padded to the longest, so more would make short requests pay for long neighbours.
BATCH = 32


class Batcher:
    """Joins concurrent requests into batches of at most ``BATCH`` texts, one batch at a time, off the event loop.

    An idle engine starts at once, so a lone request pays no delay; a request above ``BATCH`` texts runs in slices.
    """

    def __init__(self, answer: Callable[[Sequence[str]], list[Classified]], executor: Executor) -> None:
        self._answer = answer
        self._executor = executor
        self._waiting: deque[tuple[str, asyncio.Future[Classified]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, texts: Sequence[str]) -> list[Classified]:
        """The engine's answers, in the order of ``texts``. Raises what the engine raised."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in texts]
        self._waiting.extend(zip(texts, futures, strict=True))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return list(await asyncio.gather(*futures))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                answers = await loop.run_in_executor(self._executor, self._answer, [text for text, _ in batch])
            except Exception as error:
                for future in _open(batch):
                    future.set_exception(error)
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        self._worker = None


def _open(batch: list[tuple[str, asyncio.Future[Classified]]]) -> list[asyncio.Future[Classified]]:
    """The futures still awaited; a client that went away has cancelled its own."""
    return [future for _, future in batch if not future.done()]
