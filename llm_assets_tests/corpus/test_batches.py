from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from llm_assets.corpus.batches import batch_files, observe_batches, read_batches, row_key, schema, withdrawals, write_batch


def row(number: int, **fields: object) -> dict[str, object]:
    return {
        "doc_id": f"{number:020x}", "id": f"a{number}", "index": 0, "at": f"2026-11-{number:02}", "text": f"第{number}条", "label": "good",
        "votes": 1, "provenance": "feedback", **fields,
    }  # fmt: skip


def test_the_same_rows_are_the_same_file_and_others_another(tmp_path: Path) -> None:
    first = write_batch(tmp_path, [row(2), row(1)])
    content = first.read_bytes()
    assert write_batch(tmp_path, [row(1), row(2)]) == first and first.read_bytes() == content
    second = write_batch(tmp_path, [row(1), row(3, label="bad")])
    assert batch_files(tmp_path) == sorted([first, second])
    observed = observe_batches(tmp_path)
    assert set(observed) == {first.stem, second.stem} and len(set(observed.values())) == 2


def test_rows_come_oldest_first_and_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    write_batch(tmp_path, [row(3), row(1)])
    write_batch(tmp_path, [row(2, at="2026-11-01T12")])
    assert [each["id"] for each in read_batches(tmp_path).to_pylist()] == ["a1", "a2", "a3"]
    empty = read_batches(tmp_path / "none")
    assert len(empty) == 0 and empty.schema.equals(schema()) and observe_batches(tmp_path / "none") == {}


def test_withdrawn_rows_are_not_read_and_what_is_observed_says_so(tmp_path: Path) -> None:
    one, two = write_batch(tmp_path, [row(1), row(2)]), write_batch(tmp_path, [row(3)])
    before = observe_batches(tmp_path)
    withdrawals(tmp_path).append({"rows": [row_key(row(1))], "votes": []})
    less = observe_batches(tmp_path)
    assert [each["id"] for each in read_batches(tmp_path).to_pylist()] == ["a2", "a3"]
    assert less[two.stem] == before[two.stem] and less[one.stem] != before[one.stem]
    withdrawals(tmp_path).append({"rows": [row_key(row(2))], "votes": []})
    assert observe_batches(tmp_path) == {two.stem: before[two.stem]} and batch_files(tmp_path) == sorted([one, two])
    write_batch(tmp_path, [row(1, at="2026-12-01")])  # the answer's label, given anew
    assert [each["id"] for each in read_batches(tmp_path).to_pylist()] == ["a3", "a1"]


def test_a_file_that_is_no_batch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"not a table")
    with pytest.raises(pa.ArrowInvalid, match=r"mine\.parquet"):
        read_batches(tmp_path)
