from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llm_assets.store.journal import Journal


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "chain" / "release.jsonl")
    for number in range(3):
        journal.append({"number": number})
    assert [entry["number"] for entry in journal.entries()] == [0, 1, 2]
    newest = journal.newest(lambda entry: entry["number"] < 2)
    assert newest is not None and newest["number"] == 1
    assert Journal(tmp_path / "absent.jsonl").newest() is None


@given(st.integers(min_value=0, max_value=60))
def test_a_cut_off_line_costs_only_itself(tmp_path_factory, cut: int) -> None:  # type: ignore[no-untyped-def]
    journal = Journal(tmp_path_factory.mktemp("journal") / "log.jsonl")
    journal.append({"text": "第一"})
    whole = journal.path.read_bytes()
    journal.append({"text": "第二", "more": "x" * 60})
    tail = journal.path.read_bytes()[len(whole) :]
    journal.path.write_bytes(whole + tail[:cut])
    journal.append({"text": "第三"})
    assert [entry["text"] for entry in journal.entries()] == ["第一", "第三"]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from llm_assets.store.journal import Journal
for n in range(40):
    Journal(Path(sys.argv[1])).append({"n": n})
"""
    path = tmp_path / "log.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert sorted(entry["n"] for entry in Journal(path).entries()) == sorted(list(range(40)) * 3)
