from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_assets.serving.batching import BATCH, Batcher
from llm_assets.serving.engine import Classified


def test_what_waits_becomes_one_batch_and_each_gets_its_own_answers() -> None:
    batches: list[int] = []
    first_runs, may_end = threading.Event(), threading.Event()

    def answer(texts: Sequence[str]) -> list[Classified]:
        batches.append(len(texts))
        first_runs.set()
        assert may_end.wait(10)
        return [Classified([float(text)], 1) for text in texts]

    async def scenario(executor: ThreadPoolExecutor) -> list[list[Classified]]:
        batcher = Batcher(answer, executor)
        requests = [asyncio.create_task(batcher.submit(["0"]))]
        await asyncio.to_thread(first_runs.wait, 10)
        requests += [asyncio.create_task(batcher.submit([str(2 * n), str(2 * n + 1)])) for n in range(1, BATCH)]
        gone = asyncio.create_task(batcher.submit(["7"]))
        await asyncio.sleep(0)
        gone.cancel()
        may_end.set()
        return await asyncio.gather(*requests)

    with ThreadPoolExecutor(1) as executor:
        answers = asyncio.run(scenario(executor))
    assert [[entry.probabilities for entry in each] for each in answers[1:]] == [[[2.0 * n], [2.0 * n + 1]] for n in range(1, BATCH)]
    assert batches[0] == 1 and batches[1] == BATCH and max(batches) == BATCH and len(batches) == 3


def test_an_engine_that_fails_fails_its_batch_and_works_on() -> None:
    def answer(texts: Sequence[str]) -> list[Classified]:
        if "bad" in texts:
            raise RuntimeError("engine")
        return [Classified([1.0], 1) for _ in texts]

    async def scenario(executor: ThreadPoolExecutor) -> None:
        batcher = Batcher(answer, executor)
        with pytest.raises(RuntimeError, match="engine"):
            await batcher.submit(["bad"])
        assert len(await batcher.submit(["good"])) == 1

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(scenario(executor))
