from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from llm_assets.serving.group_commit import GroupCommit


def test_what_comes_while_a_group_is_written_is_the_next_group_and_nobody_returns_before_its_own() -> None:
    async def scenario() -> None:
        groups: list[list[int]] = []
        may_end = asyncio.Event()

        async def commit(group: list[int]) -> Sequence[int]:
            groups.append(group)
            await may_end.wait()
            return [-item for item in group]

        commits = GroupCommit(commit)
        tasks = [asyncio.create_task(commits.submit(0))]
        while not groups:
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(commits.submit(number)) for number in range(1, 9)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert groups == [[0]] and not any(task.done() for task in tasks)
        tasks[3].cancel()  # a client that has gone stops nobody else
        may_end.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert groups == [[0], [1, 2, 3, 4, 5, 6, 7, 8]]
        assert [result for result in results if not isinstance(result, BaseException)] == [0, -1, -2, -4, -5, -6, -7, -8]
        await commits.end()

    asyncio.run(scenario())


def test_an_error_reaches_those_it_is_about_and_the_next_group_is_written() -> None:
    async def commit(group: list[str]) -> Sequence[str | Exception]:
        if "all" in group:
            raise OSError("disk")
        return [ValueError(item) if item == "one" else item for item in group]

    async def scenario() -> list[str | BaseException]:
        commits = GroupCommit(commit)
        with pytest.raises(OSError, match="disk"):
            await commits.submit("all")
        return await asyncio.gather(*map(commits.submit, ["one", "other"]), return_exceptions=True)

    failed, other = asyncio.run(scenario())
    assert isinstance(failed, ValueError) and other == "other"
