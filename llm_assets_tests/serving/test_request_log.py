from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_assets.serving import request_log
from llm_assets.serving.request_log import MASKED_LENGTH, Answered, RequestLog, RequestLogError


def answered(number: int, texts: list[str] | None = None, chain: str = "tiny", **more: Any) -> Answered:
    return Answered(chain, f"classify-{number}", "tiny-1", "anonymous", texts or ["good"], ["positive"], [[0.1, 0.9]], 1.5, more)


def write(log: RequestLog, *records: Answered) -> list[Any]:
    async def together() -> list[Any]:
        return await asyncio.gather(*(log.write(record) for record in records), return_exceptions=True)

    try:
        return asyncio.run(together())
    finally:
        log.close()


def lines(folder: Path, chain: str = "tiny") -> list[Any]:
    return [json.loads(line) for path in sorted((folder / chain).iterdir()) for line in path.read_text().splitlines()]


def test_a_line_has_the_agreed_shape_and_masks_personal_data(tmp_path: Path) -> None:
    text = "联系我 13800138000"
    write(RequestLog(tmp_path), answered(1, [text, "好" * 3000], shadow={"release": "tiny-2", "labels": ["negative"]}))
    [line] = lines(tmp_path)
    assert datetime.fromisoformat(line.pop("at")).tzinfo is not None
    [first, second] = line.pop("texts")
    assert first == {"characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest(), "masked": "联系我 [PHONE]"}
    assert second["characters"] == 3000 and second["masked"] == "好" * MASKED_LENGTH
    assert line == {
        "id": "classify-1", "chain": "tiny", "release": "tiny-1", "client": "anonymous", "labels": ["positive"], "probs": [[0.1, 0.9]],
        "milliseconds": 1.5, "shadow": {"release": "tiny-2", "labels": ["negative"]},
    }  # fmt: skip


def test_requests_that_end_together_share_a_write_and_none_returns_before_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []  # lines on the disk at each fsync
    may_end, groups = threading.Event(), list[int]()

    def fsync(descriptor: int) -> None:
        assert may_end.wait(10)
        synced.append(sum(path.read_bytes().count(b"\n") for path in (tmp_path / "tiny").iterdir()))

    monkeypatch.setattr("llm_assets.serving.dated_files.os.fsync", fsync)

    async def scenario(log: RequestLog) -> None:
        tasks = [asyncio.create_task(log.write(answered(0)))]
        await asyncio.sleep(0)  # its group is on its way
        tasks += [asyncio.create_task(log.write(answered(number))) for number in range(1, 9)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in tasks)
        may_end.set()
        await asyncio.gather(*tasks)

    log = RequestLog(tmp_path, groups.append)
    asyncio.run(scenario(log))
    log.close()
    assert groups == [1, 8] and synced == [0, 1, 9]  # the first is the new folder's own


def test_a_line_cut_off_stays_alone(tmp_path: Path) -> None:
    write(RequestLog(tmp_path), answered(1))
    (path,) = (tmp_path / "tiny").iterdir()
    with path.open("ab") as file:
        file.write(b'{"id": "cut')
    write(RequestLog(tmp_path), answered(2))
    first, cut, second = path.read_text().splitlines()
    assert json.loads(first)["id"] == "classify-1" and cut == '{"id": "cut' and json.loads(second)["id"] == "classify-2"


def test_a_clock_that_jumps_goes_on_in_the_file_of_its_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(datetime(2026, 3, 2, 0, 30, tzinfo=UTC) + timedelta(hours=hours) for hours in (0, -1, 48, 0))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return next(moments)

    monkeypatch.setattr(request_log, "datetime", Clock)

    async def scenario(log: RequestLog) -> None:
        for number in range(4):
            await log.write(answered(number))

    log = RequestLog(tmp_path)
    asyncio.run(scenario(log))
    log.close()
    found = {path.name: [json.loads(line)["id"] for line in path.read_text().splitlines()] for path in (tmp_path / "tiny").iterdir()}
    assert found == {
        "2026-03-01.jsonl": ["classify-1"],
        "2026-03-02.jsonl": ["classify-0", "classify-3"],
        "2026-03-04.jsonl": ["classify-2"],
    }


def test_a_full_disk_is_named_and_fails_no_other_chain(tmp_path: Path) -> None:
    log = RequestLog(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / f"{datetime.now(UTC).date().isoformat()}.jsonl").symlink_to("/dev/full")
    failed, written = write(log, answered(1, chain="full"), answered(2))
    assert isinstance(failed, RequestLogError) and "full" in str(failed) and "free space" in str(failed)
    assert written is None and [line["id"] for line in lines(tmp_path)] == ["classify-2"]


def test_a_file_that_somebody_deleted_is_made_anew(tmp_path: Path) -> None:
    async def scenario(log: RequestLog) -> None:
        await log.write(answered(1))
        next((tmp_path / "tiny").iterdir()).unlink()
        await log.write(answered(2))

    log = RequestLog(tmp_path)
    asyncio.run(scenario(log))
    log.close()
    assert [line["id"] for line in lines(tmp_path)] == ["classify-2"]
