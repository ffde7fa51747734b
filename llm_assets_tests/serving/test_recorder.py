from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_assets.serving import recorder
from llm_assets.serving.dated_files import DatedFiles
from llm_assets.serving.recorder import MASKED_LENGTH, Recorder
from llm_assets_tests.serving.conftest import eventually


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


def test_no_write_waits_for_its_flush_which_comes_once_for_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushing, flushed, goes_on = threading.Event(), list[str](), threading.Event()
    write(tmp_path, request(0))  # its file and folder are there, and flushed

    def slow(descriptor: int) -> None:
        flushing.set()
        assert goes_on.wait(60)
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().parent.name)

    monkeypatch.setattr("llm_assets.serving.dated_files.os.fsync", slow)
    one = Recorder(tmp_path)
    assert one.write([request(1)]) == [None] and flushing.wait(60)
    for number in range(2, 9):  # while the disk is at the first
        assert one.write([request(number)]) == [None]
    assert [line["id"] for line in lines(tmp_path)] == [f"classify-{number}" for number in range(9)] and not flushed
    goes_on.set()
    one.close()
    assert flushed == ["tiny", "tiny"]


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


def test_a_flush_that_fails_is_told_with_the_next_line_of_its_chain_and_then_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError("input/output error")

    one = Recorder(tmp_path)
    assert one.write([request(1), request(1, chain="other")]) == [None, None]
    eventually(lambda: not one._files._unflushed)
    with monkeypatch.context() as patched:
        patched.setattr("llm_assets.serving.dated_files.os.fsync", broken)
        assert one.write([request(2)]) == [None]
        eventually(lambda: "may be lost" in caplog.text)
    failed, other = one.write([request(3), request(3, chain="other")])
    assert failed and "input/output error" in failed and "free space" in failed and other is None
    assert one.write([request(4)]) == [None]
    one.close()
    assert [line["id"] for line in lines(tmp_path)] == ["classify-1", "classify-2", "classify-4"]


def test_what_could_not_be_flushed_before_its_file_is_closed_fails_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At midnight, when the next line goes to another file."""
    files = DatedFiles(tmp_path)
    assert not files.append({"tiny": b"1\n"}, date(2026, 3, 1), flush=False)

    def broken(descriptor: int) -> None:
        raise OSError("input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("llm_assets.serving.dated_files.os.fsync", broken)
        assert "input/output" in str(files.append({"tiny": b"2\n"}, date(2026, 3, 2), flush=False)["tiny"])
    assert not files.append({"tiny": b"3\n"}, date(2026, 3, 2), flush=False) and not files.flush()
    files.close()
    assert [path.read_bytes() for path in sorted((tmp_path / "tiny").iterdir())] == [b"1\n", b"3\n"]


def test_what_must_be_flushed_and_cannot_be_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = DatedFiles(tmp_path)
    assert not files.append({"tiny": b"1\n"}, date(2026, 3, 1))

    def broken(descriptor: int) -> None:
        raise OSError("input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("llm_assets.serving.dated_files.os.fsync", broken)
        assert "input/output" in str(files.append({"tiny": b"2\n"}, date(2026, 3, 1))["tiny"])
    files.close()
    assert (tmp_path / "tiny" / "2026-03-01.jsonl").read_bytes() == b"1\n"


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
