from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from llm_assets.serving.request_log import RequestLog, RequestLogError, newest_conversations
from llm_assets_tests.operation.traffic import reply, write_log
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


def test_the_newest_conversations_are_those_of_the_model_alone(tmp_path: Path) -> None:
    write_log(tmp_path, [reply(1, "十元", "多少钱"), reply(2, "ten yuan", "十元", adapter="translation"), reply(3, "好", "发货")])
    found = newest_conversations(tmp_path, "tiny", 9)
    assert found == [[{"role": "user", "content": "发货"}], [{"role": "user", "content": "多少钱"}]]


def test_a_recorder_that_is_killed_fails_what_it_had_and_the_next_is_written(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        await log.write(request(1))
        recorder = await log.start()
        recorder.send_signal(signal.SIGSTOP)  # so that it has what comes now, and answers nothing
        had = [asyncio.create_task(log.write(request(number))) for number in (2, 3)]
        await asyncio.sleep(0.1)
        recorder.kill()
        for write in had:
            with pytest.raises(RequestLogError, match="another one is started"):
                await write
        await log.write(request(4))

    run(tmp_path, scenario)
    assert [line["id"] for line in lines(tmp_path)] == ["classify-1", "classify-4"]


def test_what_no_json_spells_fails_alone_and_closing_waits_for_nobody_who_has_gone(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        with pytest.raises(RequestLogError, match="cannot be told"):
            await log.write(request(1, ["\ud800"]))
        recorder = await log.start()
        recorder.send_signal(signal.SIGSTOP)
        gone = asyncio.create_task(log.write(request(2)))
        await asyncio.sleep(0.05)
        gone.cancel()
        asyncio.get_running_loop().call_later(0.1, recorder.send_signal, signal.SIGCONT)

    run(tmp_path, scenario)
    assert [line["id"] for line in lines(tmp_path)] == ["classify-2"]


def test_what_comes_while_the_recorder_is_busy_is_one_group(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        await log.write(request(0))
        recorder = await log.start()
        recorder.send_signal(signal.SIGSTOP)
        while psutil.Process(recorder.pid).status() != psutil.STATUS_STOPPED:  # else it may still read the first of them
            await asyncio.sleep(0.01)
        writes = []
        for number in range(1, 6):
            writes.append(asyncio.create_task(log.write(request(number))))
            await asyncio.sleep(0.01)  # each in a line of its own
        recorder.send_signal(signal.SIGCONT)
        await asyncio.gather(*writes)

    assert run(tmp_path, scenario) == [1] * 6
    found = lines(tmp_path)
    assert len(found) == 6 and len({line["at"] for line in found[1:]}) == 1  # one write has one time


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
