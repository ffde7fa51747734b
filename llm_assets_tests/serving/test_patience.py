from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from llm_assets.serving.patience import HungUpError, Patience, TimedOutError


async def stays() -> bool:
    return False


async def has_gone() -> bool:
    return True


async def watched(patience: Patience, *waiting: object) -> list[object]:
    watching = asyncio.create_task(patience.watch())
    try:
        return await asyncio.gather(*waiting, return_exceptions=True)  # type: ignore[call-overload]
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def test_what_waits_too_long_or_for_nobody_is_ended_and_nothing_else() -> None:
    async def scenario() -> list[object]:
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        loop.call_later(0.3, answered.set_result, "answer")
        patience = Patience(timeout=30)
        return await watched(patience, patience.wait(answered, stays), patience.wait(loop.create_future(), has_gone))

    answer, gone = asyncio.run(scenario())
    assert answer == "answer" and isinstance(gone, HungUpError)


def test_a_deadline_is_kept() -> None:
    async def scenario() -> list[object]:
        patience = Patience(timeout=0.15)
        return await watched(patience, patience.wait(asyncio.get_running_loop().create_future(), stays))

    [late] = asyncio.run(scenario())
    assert isinstance(late, TimedOutError) and "0.15 s" in str(late)


def test_an_error_is_handed_on() -> None:
    async def scenario() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(RuntimeError("engine"))
        await Patience().wait(future, stays)

    with pytest.raises(RuntimeError, match="engine"):
        asyncio.run(scenario())
