from __future__ import annotations

import asyncio
import json
import mmap
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop

from llm_assets.serving import request_log, spool
from llm_assets.serving.request_log import RequestLog, RequestLogError, newest_conversations
from llm_assets_tests.operation.traffic import reply, write_log
from llm_assets_tests.serving.test_recorder import lines, request

PATIENCE = 60.0  # seconds


def run(folder: Path, scenario: Callable[[RequestLog], Awaitable[None]]) -> list[int]:
    """Run a scenario over a log; the sizes of the groups that its recorder wrote."""
    groups: list[int] = []

    async def whole() -> None:
        log = RequestLog(folder, groups.append)
        await log.start()
        await scenario(log)
        await log.close()

    uvloop.run(whole())  # as the gateway does
    return groups


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def ids(folder: Path) -> list[str]:
    return [line["id"] for line in lines(folder)]


def in_memory(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(spool.place(folder).rglob("*.jsonl")))


def test_a_request_is_in_memory_at_once_and_in_its_file_soon(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        for number in range(9):
            log.write(request(number))
            assert f"classify-{number}" in in_memory(tmp_path).decode()
        await until(lambda: (tmp_path / "tiny").is_dir() and len(ids(tmp_path)) == 9)
        log.write(request(9))  # wakes a recorder that had nothing to do
        await until(lambda: len(ids(tmp_path)) == 10)

    assert sum(run(tmp_path, scenario)) == 10
    assert ids(tmp_path) == [f"classify-{number}" for number in range(10)]
    assert not spool.place(tmp_path).exists()


def test_the_newest_conversations_are_those_of_the_model_alone(tmp_path: Path) -> None:
    write_log(tmp_path, [reply(1, "十元", "多少钱"), reply(2, "ten yuan", "十元", adapter="translation"), reply(3, "好", "发货")])
    found = newest_conversations(tmp_path, "tiny", 9)
    assert found == [[{"role": "user", "content": "发货"}], [{"role": "user", "content": "多少钱"}]]


def test_closing_writes_what_there_is(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        for number in range(300):
            log.write(request(number))

    run(tmp_path, scenario)
    assert ids(tmp_path) == [f"classify-{number}" for number in range(300)]


def test_a_log_starts_its_recorder_with_the_first_request_where_nobody_did(tmp_path: Path) -> None:
    async def whole() -> None:
        log = RequestLog(tmp_path)
        log.write(request(1))
        await log.close()

    asyncio.run(whole())
    assert ids(tmp_path) == ["classify-1"]


def test_a_recorder_that_is_killed_loses_nothing_and_writes_nothing_twice(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        log.write(request(1))
        await until(lambda: (tmp_path / "tiny").is_dir() and ids(tmp_path))
        first = log.recorder
        assert first
        os.kill(first, signal.SIGSTOP)  # so that what comes now finds no recorder
        for number in (2, 3):
            log.write(request(number))
        os.kill(first, signal.SIGKILL)
        await until(lambda: log.recorder not in (None, first))
        log.write(request(4))

    run(tmp_path, scenario)
    assert ids(tmp_path) == [f"classify-{number}" for number in range(1, 5)]


def test_what_a_gateway_left_that_died_with_its_recorder_is_written_by_the_next(tmp_path: Path) -> None:
    left = spool.Spool(spool.place(tmp_path))
    for number in (1, 2):
        left.append(json.dumps(request(number, at="2026-03-01T12:00:00+00:00")).encode() + b"\n")
    left.append(b'{"id": "cut off')  # as by a kill in the middle of it
    left.close()

    async def scenario(log: RequestLog) -> None:
        assert ids(tmp_path) == ["classify-1", "classify-2"]
        log.write(request(3))

    run(tmp_path, scenario)
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir())[0] == "2026-03-01.jsonl"
    assert ids(tmp_path) == ["classify-1", "classify-2", "classify-3"] and not spool.place(tmp_path).exists()


def test_a_memory_that_a_dead_gateway_filled_is_emptied_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = spool.Spool(spool.place(tmp_path))
    left.append(json.dumps(request(1, at="2026-03-01T12:00:00+00:00")).encode() + b"\n")
    left.close()
    begin = spool.Spool._begin

    def begun(self: spool.Spool, path: Path, size: int) -> mmap.mmap:
        if left.folder.exists():
            raise spool.SpoolError("no space")
        return begin(self, path, size)

    monkeypatch.setattr(spool.Spool, "_begin", begun)

    async def scenario(log: RequestLog) -> None:
        log.write(request(2))

    run(tmp_path, scenario)
    assert ids(tmp_path) == ["classify-1", "classify-2"]


def test_the_log_of_a_living_gateway_is_its_own(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        log.write(request(1))
        other = RequestLog(tmp_path)
        await other.start()
        other.write(request(2))
        await other.close()
        log.write(request(3))

    run(tmp_path, scenario)
    assert sorted(ids(tmp_path)) == ["classify-1", "classify-2", "classify-3"]


def test_what_no_json_spells_fails_alone(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        with pytest.raises(RequestLogError, match="cannot be told"):
            log.write(request(1, ["\ud800"]))
        log.write(request(2))

    run(tmp_path, scenario)
    assert ids(tmp_path) == ["classify-2"]


def test_a_recorder_far_behind_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "CAPACITY", 1000)

    async def scenario(log: RequestLog) -> None:
        assert log.recorder
        os.kill(log.recorder, signal.SIGSTOP)
        log.write(request(1, ["好" * 1000]))
        with pytest.raises(RequestLogError, match="behind"):
            log.write(request(2))
        os.kill(log.recorder, signal.SIGCONT)
        await until(lambda: not log.backlog)
        log.write(request(3))

    run(tmp_path, scenario)
    assert ids(tmp_path) == ["classify-1", "classify-3"]


def test_a_memory_that_takes_no_more_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(log: RequestLog) -> None:
        def full(data: bytes) -> None:
            raise spool.SpoolError("no space")

        with monkeypatch.context() as patched:
            patched.setattr(log._spool, "append", full)
            with pytest.raises(RequestLogError, match="no space"):
                log.write(request(1))
        log.write(request(2))

    run(tmp_path, scenario)
    assert ids(tmp_path) == ["classify-2"]


def test_what_cannot_be_written_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder belongs")

    async def scenario(log: RequestLog) -> None:
        log.write(request(1))
        await until(lambda: log._failed)
        with pytest.raises(RequestLogError, match=r"log/tiny/.*free space"):
            log.write(request(2))
        log.write(request(3, chain="other"))  # its turn comes

    run(tmp_path / "log", scenario)
    assert "classify-1" in in_memory(tmp_path / "log").decode()  # for the next start
    (tmp_path / "log").unlink()

    async def nothing(log: RequestLog) -> None:
        pass

    run(tmp_path / "log", nothing)
    assert ids(tmp_path / "log") == ["classify-1"] and [line["id"] for line in lines(tmp_path / "log", "other")] == ["classify-3"]
    assert not spool.place(tmp_path / "log").exists()


def test_a_full_disk_fails_what_comes_and_space_heals_it_and_nothing_is_lost(tmp_path: Path) -> None:
    today = tmp_path / "tiny" / f"{datetime.now(UTC).date().isoformat()}.jsonl"
    today.parent.mkdir()
    today.symlink_to("/dev/full")

    async def scenario(log: RequestLog) -> None:
        log.write(request(1))
        await until(lambda: log._failed)
        with pytest.raises(RequestLogError, match=r"No space left on device.*free space"):
            log.write(request(2))
        today.unlink()
        await until(lambda: not log._failed)
        log.write(request(3))

    run(tmp_path, scenario)
    assert ids(tmp_path) == ["classify-1", "classify-3"]


def test_a_long_request_passes_through_whole(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        log.write(request(1, ["好" * 300_000, "\u2028 \n good"]))

    run(tmp_path, scenario)
    [line] = lines(tmp_path)
    assert [text["characters"] for text in line["texts"]] == [300_000, len("\u2028 \n good")] and json.dumps(line)
