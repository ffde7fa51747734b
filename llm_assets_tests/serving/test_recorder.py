from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_assets.serving import recorder
from llm_assets.serving.recorder import MASKED_LENGTH, Recorder


def request(number: int, texts: list[str] | None = None, chain: str = "tiny", **more: Any) -> dict[str, Any]:
    answer = {"labels": ["positive"], "probs": [[0.1, 0.9]], "milliseconds": 1.5}
    return {"id": f"classify-{number}", "chain": chain, "release": "tiny-1", "client": "anonymous", "texts": texts or ["good"], **answer, **more}


def write(folder: Path, *requests: dict[str, Any]) -> list[str | None]:
    """What a recorder that just started says of a group."""
    fresh = Recorder(folder)
    try:
        return fresh.write(requests)
    finally:
        fresh.close()


def lines(folder: Path, chain: str = "tiny") -> list[Any]:
    return [json.loads(line) for path in sorted((folder / chain).iterdir()) for line in path.read_bytes().splitlines()]


def test_a_line_has_the_agreed_shape_and_masks_personal_data(tmp_path: Path) -> None:
    text = "联系我 13800138000"
    write(tmp_path, request(1, [text, "好" * 3000], shadow={"release": "tiny-2", "labels": ["negative"]}))
    [line] = lines(tmp_path)
    assert list(line)[:2] == ["id", "at"] and datetime.fromisoformat(line.pop("at")).tzinfo is not None
    [first, second] = line.pop("texts")
    assert first == {"characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest(), "masked": "联系我 [PHONE]"}
    assert second["characters"] == 3000 and second["masked"] == "好" * MASKED_LENGTH
    assert line == {
        "id": "classify-1", "chain": "tiny", "release": "tiny-1", "client": "anonymous", "labels": ["positive"], "probs": [[0.1, 0.9]],
        "milliseconds": 1.5, "shadow": {"release": "tiny-2", "labels": ["negative"]},
    }  # fmt: skip


def test_a_group_is_one_write_and_one_fsync_a_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, request(0), request(0, chain="other"))
    synced: list[int] = []
    monkeypatch.setattr("llm_assets.serving.dated_files.os.fsync", synced.append)
    assert write(tmp_path, *(request(number, chain=("tiny", "other")[number % 2]) for number in range(8))) == [None] * 8
    assert len(synced) == 2 and len(lines(tmp_path)) == len(lines(tmp_path, "other")) == 5


def test_a_line_cut_off_stays_alone(tmp_path: Path) -> None:
    write(tmp_path, request(1))
    (path,) = (tmp_path / "tiny").iterdir()
    with path.open("ab") as file:
        file.write(b'{"id": "cut')
    write(tmp_path, request(2))
    first, cut, second = path.read_text().splitlines()
    assert json.loads(first)["id"] == "classify-1" and cut == '{"id": "cut' and json.loads(second)["id"] == "classify-2"


def test_a_clock_that_jumps_goes_on_in_the_file_of_its_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(datetime(2026, 3, 2, 0, 30, tzinfo=UTC) + timedelta(hours=hours) for hours in (0, -1, 48, 0))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return next(moments)

    monkeypatch.setattr(recorder, "datetime", Clock)
    one = Recorder(tmp_path)
    for number in range(4):
        assert one.write([request(number)]) == [None]
    one.close()
    found = {path.name: [json.loads(line)["id"] for line in path.read_text().splitlines()] for path in (tmp_path / "tiny").iterdir()}
    assert found == {
        "2026-03-01.jsonl": ["classify-1"],
        "2026-03-02.jsonl": ["classify-0", "classify-3"],
        "2026-03-04.jsonl": ["classify-2"],
    }


def test_a_full_disk_is_named_leaves_no_piece_and_fails_no_other_chain(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / f"{datetime.now(UTC).date().isoformat()}.jsonl").symlink_to("/dev/full")
    failed, written = write(tmp_path, request(1, chain="full"), request(2))
    assert failed and "full" in failed and "free space" in failed
    assert written is None and [line["id"] for line in lines(tmp_path)] == ["classify-2"]


def test_what_could_not_be_flushed_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, request(1))

    def broken(descriptor: int) -> None:
        raise OSError("input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("llm_assets.serving.dated_files.os.fsync", broken)
        [failed] = write(tmp_path, request(2))
    assert failed and "input/output error" in failed
    assert write(tmp_path, request(3)) == [None] and [line["id"] for line in lines(tmp_path)] == ["classify-1", "classify-3"]


def test_a_file_that_somebody_deleted_is_made_anew(tmp_path: Path) -> None:
    one = Recorder(tmp_path)
    one.write([request(1)])
    next((tmp_path / "tiny").iterdir()).unlink()
    one.write([request(2)])
    one.close()
    assert [line["id"] for line in lines(tmp_path)] == ["classify-2"]


def test_the_process_answers_each_line_and_ends_with_its_input(tmp_path: Path) -> None:
    sent = "".join(json.dumps([request(number), request(number + 10)]) + "\n" for number in range(3))
    ended = subprocess.run(
        [sys.executable, "-m", "llm_assets.serving.recorder", str(tmp_path / "log")], input=sent, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "[null, null]\n" * 3 and ended.returncode == 0
    assert len(lines(tmp_path / "log")) == 6
