from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llm_assets.serving import recorder, spool
from llm_assets.serving.dated_files import DatedFiles
from llm_assets.serving.recorder import MASKED_LENGTH, Recorder, Report, follow, settle
from llm_assets.serving.spool import Backlog, Spool, pending, place
from llm_assets_tests.serving.conftest import eventually


def request(number: int, texts: list[str] | None = None, chain: str = "tiny", **more: Any) -> dict[str, Any]:
    answer = {"labels": ["positive"], "probs": [[0.1, 0.9]], "milliseconds": 1.5}
    at = datetime.now(UTC).isoformat()
    whence = {"id": f"classify-{number}", "at": at, "chain": chain, "release": "tiny-1", "client": "anonymous"}
    return {**whence, "texts": texts or ["good"], **answer, **more}


def write(folder: Path, *requests: dict[str, Any]) -> dict[str, str]:
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
    assert not one.write([request(1)]) and flushing.wait(60)
    for number in range(2, 9):  # while the disk is at the first
        assert not one.write([request(number)])
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


def test_each_line_goes_to_the_file_of_its_date_as_the_clock_was(tmp_path: Path) -> None:
    moments = [datetime(2026, 3, 2, 0, 30, tzinfo=UTC) + timedelta(hours=hours) for hours in (0, -1, 48, 0)]  # it jumps
    assert not write(tmp_path, *(request(number, at=moment.isoformat()) for number, moment in enumerate(moments)))
    found = {path.name: [json.loads(line)["id"] for line in path.read_text().splitlines()] for path in (tmp_path / "tiny").iterdir()}
    assert found == {
        "2026-03-01.jsonl": ["classify-1"],
        "2026-03-02.jsonl": ["classify-0", "classify-3"],
        "2026-03-04.jsonl": ["classify-2"],
    }


def test_a_full_disk_is_named_fails_no_other_chain_and_gets_its_lines_once_there_is_space(tmp_path: Path) -> None:
    full = tmp_path / "full" / f"{datetime.now(UTC).date().isoformat()}.jsonl"
    full.parent.mkdir()
    full.symlink_to("/dev/full")
    one = Recorder(tmp_path)
    failed = one.write([request(1, chain="full"), request(2)])
    assert list(failed) == ["full"] and str(full) in failed["full"] and "free space" in failed["full"]
    assert [line["id"] for line in lines(tmp_path)] == ["classify-2"]
    assert list(one.write([request(3)])) == ["full"]
    full.unlink()
    assert not one.write([])
    one.close()
    assert [line["id"] for line in lines(tmp_path, "full")] == ["classify-1"]
    assert [line["id"] for line in lines(tmp_path)] == ["classify-2", "classify-3"]


def test_a_flush_that_fails_is_told_with_the_next_group_and_then_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError("input/output error")

    one = Recorder(tmp_path)
    assert not one.write([request(1), request(1, chain="other")])
    eventually(lambda: not one._files._unflushed)
    with monkeypatch.context() as patched:
        patched.setattr("llm_assets.serving.dated_files.os.fsync", broken)
        assert not one.write([request(2)])
        eventually(lambda: "may be lost" in caplog.text)
    failed = one.write([])
    assert list(failed) == ["tiny"] and "input/output error" in failed["tiny"]
    assert not one.write([request(3), request(3, chain="other")])
    one.close()
    assert [line["id"] for line in lines(tmp_path)] == ["classify-1", "classify-2", "classify-3"]


def test_a_text_that_cannot_be_masked_is_left_out_and_keeps_no_other_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = recorder.mask_all

    def weak(texts: Sequence[str]) -> tuple[list[str], dict[int, Any]]:
        if "bad" in texts:
            raise ValueError("no")
        return real(texts)

    monkeypatch.setattr(recorder, "mask_all", weak)
    assert not write(tmp_path, request(1, ["one", "bad", "13800138000"]), request(2))
    assert [[text["masked"] for text in line["texts"]] for line in lines(tmp_path)] == [["one", "", "[PHONE]"], ["good"]]


def test_only_what_is_in_no_file_is_missing(tmp_path: Path) -> None:
    one = Recorder(tmp_path)
    assert [each["id"] for each in one.missing([request(0)])] == ["classify-0"]
    one.write([request(1), request(2)])
    assert [each["id"] for each in one.missing([request(1), request(2), request(3), request(4, chain="other")])] == ["classify-3", "classify-4"]
    one.close()


def test_groups_are_written_with_rests_that_grow_with_their_work_and_none_is_forgotten_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SEGMENT", 1)
    writer, one = Spool(tmp_path / "spool"), Recorder(tmp_path / "log")
    groups = follow(one, Backlog(writer.folder))
    assert next(groups) == (Report(0, 0, {}, True), None)
    writer.append(json.dumps(request(1)).encode() + b"\n")
    report, rest = next(groups)
    assert report == Report(writer.position, 1, {}, False) and rest and rest <= recorder.LONGEST_REST
    today = tmp_path / "log" / "full" / f"{datetime.now(UTC).date().isoformat()}.jsonl"
    today.parent.mkdir()
    today.symlink_to("/dev/full")
    for number in (2, 3):
        writer.append(json.dumps(request(number, chain="full")).encode() + b"\n")
    assert [list(next(groups)[0].failed) for _ in range(2)] == [["full"]] * 2
    report, rest = next(groups)
    assert (report.position, report.requests, list(report.failed), rest) == (writer.position, 0, ["full"], recorder.AGAIN)
    kept = [line for path in pending(place(tmp_path / "log")) for line in path.read_bytes().splitlines()]  # in a spool of the recorder's own
    assert [json.loads(line)["id"] for line in kept] == ["classify-2", "classify-3"]
    today.unlink()
    assert next(groups) == (Report(writer.position, 0, {}, True), None) and not pending(place(tmp_path / "log"))
    assert len(list(writer.folder.glob("*.jsonl"))) == 1 and len(lines(tmp_path / "log", "full")) == 2
    one.close()


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


def test_the_process_writes_all_there_is_and_ends_with_its_input_though_nobody_hears_it(tmp_path: Path) -> None:
    writer = Spool(tmp_path / "spool")
    for number in range(3):
        writer.append(json.dumps(request(number)).encode() + b"\n")
    command = [sys.executable, "-m", "llm_assets.serving.recorder", str(tmp_path / "log"), str(writer.folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdout.close()
    process.stdin.close()
    assert process.wait(60) == 0
    assert len(lines(tmp_path / "log")) == 3 and not writer.folder.exists()


def test_what_was_answered_before_now_is_in_its_file_once_it_is_settled(tmp_path: Path) -> None:
    parent = place(tmp_path)
    dead, living = Spool(parent), Spool(parent)
    dead.append(json.dumps(request(1)).encode() + b"\n")
    dead.close()
    living.append(json.dumps(request(2)).encode() + b"\n")
    assert settle(tmp_path, 0.1) == [living.folder / "0000000000000001.jsonl"]  # nobody reads it
    assert [line["id"] for line in lines(tmp_path)] == ["classify-1"] and not dead.folder.exists()
    reader = Backlog(living.folder)
    reader.read(1000)
    threading.Timer(0.2, reader.forget).start()
    assert settle(tmp_path, 60) == []
    reader.remove()
    living.close()


def test_what_no_recorder_could_write_is_inherited_and_keeps_no_other_chain_back(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.write_text("a file where the folder belongs")
    one = Recorder(tmp_path)
    assert list(one.write([request(1, chain="full"), request(2)])) == ["full"]
    one.close()
    assert [line["id"] for line in lines(tmp_path)] == ["classify-2"]
    assert len(settle(tmp_path, 0.1)) == 1  # still
    full.unlink()
    assert settle(tmp_path) == [] and [line["id"] for line in lines(tmp_path, "full")] == ["classify-1"]
    assert len(lines(tmp_path)) == 1 and not place(tmp_path).exists()
