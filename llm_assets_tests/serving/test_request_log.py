from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_assets.serving.request_log import RequestLog, RequestLogError
from llm_assets_tests.serving.test_recorder import lines, request


def run(folder: Path, scenario: Callable[[RequestLog], Awaitable[None]]) -> list[int]:
    """Run a scenario over a log; the sizes of the groups."""
    groups: list[int] = []

    async def whole() -> None:
        log = RequestLog(folder, groups.append)
        await scenario(log)
        await log.close()

    asyncio.run(whole())
    return groups


def test_requests_that_end_together_are_one_group_and_on_the_disk_when_they_return(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        async def write(number: int) -> None:
            await log.write(request(number))
            assert f"classify-{number}" in {line["id"] for line in lines(tmp_path)}

        await asyncio.gather(*map(write, range(9)))

    assert run(tmp_path, scenario) == [9] and len(lines(tmp_path)) == 9


def test_a_recorder_that_is_killed_fails_its_group_and_the_next_one_is_written(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        await log.write(request(1))
        recorder = await log.start()
        recorder.kill()
        await recorder.wait()
        with pytest.raises(RequestLogError, match="another one is started"):
            await log.write(request(2))
        await log.write(request(3))

    run(tmp_path, scenario)
    assert [line["id"] for line in lines(tmp_path)] == ["classify-1", "classify-3"]


def test_what_cannot_be_written_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder belongs")

    async def scenario(log: RequestLog) -> None:
        with pytest.raises(RequestLogError, match=r"log/tiny/.*free space"):
            await log.write(request(1))

    run(tmp_path / "log", scenario)


def test_a_full_disk_fails_what_is_written_and_space_heals_it(tmp_path: Path) -> None:
    today = tmp_path / "tiny" / f"{datetime.now(UTC).date().isoformat()}.jsonl"
    today.parent.mkdir()
    today.symlink_to("/dev/full")

    async def scenario(log: RequestLog) -> None:
        for number in (1, 2):
            with pytest.raises(RequestLogError, match=r"No space left on device.*free space"):
                await log.write(request(number))
        today.unlink()
        await log.write(request(3))

    run(tmp_path, scenario)
    assert [line["id"] for line in lines(tmp_path)] == ["classify-3"]


def test_a_long_request_passes_through_whole(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        await log.write(request(1, ["好" * 300_000, "\u2028 \n good"]))

    run(tmp_path, scenario)
    [line] = lines(tmp_path)
    assert [text["characters"] for text in line["texts"]] == [300_000, len("\u2028 \n good")] and json.dumps(line)
