from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from llm_assets.serving import batching
from llm_assets.serving.batching import LEAST, OVERHEAD, Batcher, QueueFullError
from llm_assets.serving.cores import Cores
from llm_assets.serving.engine import Classified


class Numbers:
    """An engine whose texts are numbers: "3*5" has three windows of five tokens, "7" one of one; a window's answer is its length.

    The first batch waits until it is told to go on, so that a test may fill the queue.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []  # lengths of the windows of each
        self.texts: list[str] = []
        self.runs, self.may_go_on = threading.Event(), threading.Event()

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        if "unreadable" in texts:
            raise RuntimeError("encoding")
        self.texts += texts
        shapes = [[int(number) for number in text.split("*")] for text in texts]
        return [[[shape[-1]] * shape[-1] for _ in range(shape[0] if shape[1:] else 1)] for shape in shapes]

    def probabilities(self, encoded: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        self.batches.append([len(window) for [window] in encoded])
        self.runs.set()
        assert self.may_go_on.wait(10)
        if any(window[0] == 13 for [window] in encoded):
            raise RuntimeError("engine")
        return [[float(window[0])] for [window] in encoded]


def run(scenario: Callable[[Batcher, Numbers], Awaitable[None]], goal: float = 60.0) -> Numbers:
    engine = Numbers()

    async def whole() -> None:
        cores = Cores(1)
        await scenario(Batcher(engine, cores, goal), engine)
        cores.close()

    asyncio.run(whole())
    return engine


async def busy(batcher: Batcher, engine: Numbers) -> asyncio.Future[list[Classified]]:
    """A request that the engine is at work on."""
    future = batcher.submit(["1"])
    await asyncio.to_thread(engine.runs.wait, 10)
    return future


def test_what_waits_becomes_one_batch_of_like_lengths_and_each_gets_its_own_answers() -> None:
    async def scenario(batcher: Batcher, engine: Numbers) -> None:
        first = await busy(batcher, engine)
        batcher.budget = 300  # padded tokens
        texts = [["100", "9"], ["101"], ["8", "99"], ["102"], ["7"]]
        requests = [batcher.submit(some) for some in texts]
        engine.may_go_on.set()
        await first
        answers = await asyncio.gather(*requests)
        assert [[answer.probabilities[0] for answer in some] for some in answers] == [[float(text) for text in some] for some in texts]
        assert [answer.tokens for answer in answers[0]] == [100, 9]
        assert batcher.waiting == 0

    assert run(scenario).batches == [[1], [100, 101], [8, 7, 9], [102, 99]]  # the oldest and its neighbours in length


def test_windows_of_a_text_are_averaged() -> None:
    async def scenario(batcher: Batcher, engine: Numbers) -> None:
        engine.may_go_on.set()
        [answer] = await batcher.submit(["3*5"])
        assert answer == Classified([5.0], 15)

    run(scenario)


def test_a_short_request_passes_the_tail_of_a_long_one_and_the_long_one_ends() -> None:
    ended: list[str] = []

    async def scenario(batcher: Batcher, engine: Numbers) -> None:
        first = await busy(batcher, engine)
        batcher.budget = LEAST
        long = batcher.submit(["40*64"])
        short = batcher.submit(["64"])
        long.add_done_callback(lambda _: ended.append("long"))
        short.add_done_callback(lambda _: ended.append("short"))
        engine.may_go_on.set()
        await asyncio.gather(first, long, short)
        await asyncio.sleep(0)

    run(scenario, goal=0.0)  # a goal that no batch meets keeps the budget at its least
    assert ended == ["short", "long"]


def test_the_budget_follows_the_goal() -> None:
    async def slow(batcher: Batcher, engine: Numbers) -> None:
        engine.may_go_on.set()
        before = batcher.budget
        await batcher.submit(["8"] * 60)
        assert LEAST <= batcher.budget < before

    async def quick(batcher: Batcher, engine: Numbers) -> None:
        engine.may_go_on.set()
        before = batcher.budget
        await batcher.submit(["8"] * 300)
        assert batcher.budget > before

    run(slow, goal=1e-9)
    run(quick)


def test_who_gives_up_gives_up_its_place() -> None:
    async def scenario(batcher: Batcher, engine: Numbers) -> None:
        first = await busy(batcher, engine)
        gone, stays = batcher.submit(["2"]), batcher.submit(["3"])
        gone.cancel()
        await asyncio.sleep(0)
        assert batcher.waiting == 2 * (OVERHEAD + 1)
        engine.may_go_on.set()
        await asyncio.gather(first, stays)

    assert run(scenario).batches == [[1], [3]]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "QUEUE", 3 * (OVERHEAD + 1))

    async def scenario(batcher: Batcher, engine: Numbers) -> None:
        first = await busy(batcher, engine)
        others = [batcher.submit(["2"]) for _ in range(2)]
        with pytest.raises(QueueFullError) as refused:
            batcher.submit(["4"])
        assert refused.value.seconds >= 1
        engine.may_go_on.set()
        await asyncio.gather(first, *others)
        await asyncio.sleep(0)
        assert len(await batcher.submit(["5"] * 100)) == 100  # whatever its size, one that finds nobody waiting is served

    assert "4" not in run(scenario).texts


def test_an_engine_that_fails_fails_its_batch_and_works_on() -> None:
    async def scenario(batcher: Batcher, engine: Numbers) -> None:
        engine.may_go_on.set()
        with pytest.raises(RuntimeError, match="engine"):
            await batcher.submit(["13", "2"])
        with pytest.raises(RuntimeError, match="encoding"):
            await batcher.submit(["unreadable"])
        assert [answer.probabilities for answer in await batcher.submit(["2"])] == [[2.0]]

    run(scenario)


def test_as_many_batches_run_at_a_time_as_there_are_cores_and_share_one_request() -> None:
    together = threading.Barrier(2)

    class Together(Numbers):
        def probabilities(self, encoded: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
            together.wait(10)  # raises unless another batch is at work too
            return super().probabilities(encoded)

    async def whole() -> list[Classified]:
        cores = Cores(2)
        batcher = Batcher(engine, cores, 0.0)  # a goal never met: the budget stays
        batcher.budget = LEAST
        first, second = batcher.submit([f"2*{LEAST}"]), batcher.submit([f"2*{LEAST}"])  # a batch holds one window
        answers = [*await first, *await second]
        cores.close()
        return answers

    engine = Together()
    engine.may_go_on.set()
    assert [answer.probabilities for answer in asyncio.run(whole())] == [[float(LEAST)]] * 2
    assert engine.batches == [[LEAST]] * 4
