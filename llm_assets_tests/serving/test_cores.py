from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from llm_assets.serving import cores
from llm_assets.serving.cores import Cores


def run(scenario: Callable[[Cores], Awaitable[None]], count: int = 2) -> None:
    async def whole() -> None:
        some = Cores(count)
        try:
            await scenario(some)
        finally:
            some.close()

    asyncio.run(whole())


def test_so_many_compute_at_a_time_and_the_rest_in_their_order() -> None:
    together, begun, lock = threading.Barrier(2), list[int](), threading.Lock()

    def compute(number: int) -> int:
        with lock:
            begun.append(number)
        together.wait(10)  # raises unless two are at work
        return number

    async def scenario(some: Cores) -> None:
        assert await asyncio.gather(*(some.run(lambda number=number: compute(number)) for number in range(6))) == list(range(6))  # type: ignore[misc]

    run(scenario)
    assert [sorted(begun[place : place + 2]) for place in (0, 2, 4)] == [[0, 1], [2, 3], [4, 5]]


def test_what_fails_fails_alone() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def scenario(some: Cores) -> None:
        with pytest.raises(ValueError, match="no"):
            await some.run(fail)
        assert await some.run(lambda: 1) == 1

    run(scenario)


def test_the_seconds_in_which_something_computed_are_counted_and_not_those_in_which_it_waited() -> None:
    def compute(fails: bool = False) -> None:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass
        if fails:
            raise ValueError("no")

    async def scenario(some: Cores) -> None:
        await asyncio.gather(*(some.run(lambda fails=fails: compute(fails)) for fails in (False, True, False)), return_exceptions=True)  # type: ignore[misc]
        assert 0.3 <= some.computed < 0.5
        await some.run(lambda: time.sleep(0.3))
        assert some.computed < 0.5

    run(scenario)


def test_where_all_threads_hang_the_others_get_threads_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "HANGS", 0.1)
    goes_on = threading.Event()

    async def scenario(some: Cores) -> None:
        hung = [asyncio.create_task(some.run(lambda: goes_on.wait(60))) for _ in range(2)]
        await asyncio.sleep(0)
        waits = asyncio.create_task(some.run(lambda: "moved on"))  # has yet to begin when they are given up
        try:
            assert await asyncio.wait_for(waits, 30) == "moved on"
            assert await asyncio.wait_for(some.run(lambda: "fresh"), 30) == "fresh"
            assert not any(task.done() for task in hung)
        finally:
            goes_on.set()
        assert await asyncio.gather(*hung) == [True, True]  # what comes late is heard all the same

    run(scenario)


def test_whoever_is_cancelled_stays_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "HANGS", 0.05)

    async def scenario(some: Cores) -> None:
        slow = asyncio.create_task(some.run(lambda: time.sleep(0.3)))
        await asyncio.sleep(0.15)  # given up by now
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(slow, 30)

    run(scenario, count=1)
