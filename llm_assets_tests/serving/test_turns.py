from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from llm_assets.serving.turns import Turns


class Room:
    """Requests that come in by turns, and stay until they are told to go."""

    def __init__(self) -> None:
        self.turns, self.inside, self.history = Turns(), list[str](), list[str]()
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> list[str]:
        """Have requests come, named by adapter and number (``a1``); who is inside then."""
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._stay(name))
        return await self.settled()

    async def go(self, *names: str) -> list[str]:
        for name in names:
            self.ends[name].set()
        return await self.settled()

    async def hang_up(self, *names: str) -> list[str]:
        for name in names:
            self.tasks[name].cancel()
        return await self.settled()

    async def settled(self) -> list[str]:
        for _ in range(10):
            await asyncio.sleep(0)
        assert len({name[0] for name in self.inside}) <= 1, "two adapters at once"
        return sorted(self.inside)

    async def _stay(self, name: str) -> None:
        async with self.turns.of(name[0]):
            self.inside.append(name)
            self.history.append(name)
            try:
                await self.ends[name].wait()
            finally:
                self.inside.remove(name)


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_one_adapter_is_answered_side_by_side_and_another_has_its_turn() -> None:
    async def story() -> None:
        room = Room()
        assert await room.come("a1", "a2") == ["a1", "a2"]
        assert await room.come("b1", "a3", "b2") == ["a1", "a2"]  # a3 does not push in front of b1
        assert await room.go("a1") == ["a2"]
        assert await room.go("a2") == ["b1", "b2"]
        assert await room.come("b3") == ["b1", "b2"]  # a3 waits
        assert await room.go("b1", "b2") == ["a3"]
        assert await room.go("a3") == ["b3"]
        assert await room.go("b3") == [] and await room.come("c1") == ["c1"]
        await room.go("c1")

    play(story())


def test_those_who_hang_up_hold_up_nobody() -> None:
    async def story() -> None:
        room = Room()
        await room.come("a1", "b1", "a2")
        assert await room.hang_up("b1") == ["a1", "a2"]  # nobody else waits in front of a2
        assert await room.come("b2", "c1") == ["a1", "a2"]
        assert await room.hang_up("a1", "a2", "b2") == ["c1"]
        assert await room.hang_up("c1") == [] and await room.come("a3") == ["a3"]
        await room.go("a3")

    play(story())


def test_one_who_is_let_in_and_gone_at_the_same_moment_leaves_no_trace() -> None:
    async def story() -> None:
        room = Room()
        await room.come("a1", "b1", "c1")
        room.ends["a1"].set()
        while room.inside:
            await asyncio.sleep(0)  # b1 is let in, and has not come to know it
        room.tasks["b1"].cancel()
        assert await room.settled() == ["c1"]
        await room.go("c1")

    play(story())


def test_nobody_waits_for_ever_however_many_come() -> None:
    async def story() -> None:
        room = Room()
        await room.come("a0")
        await room.come("b0")
        for number in range(20):
            await room.come(f"a{number + 1}")
            await room.go(f"a{number}")
        assert "b0" in room.history and room.history.index("b0") == 1
        await room.hang_up(*room.tasks)

    play(story())
