from __future__ import annotations

import multiprocessing
from pathlib import Path

from llm_assets.store.ledger import Ledger, entry_hash


def append(home: Path, count: int) -> None:
    for number in range(count):
        Ledger(home).append("made", "tokens", str(number), manifest="0" * 64)


def test_lines_name_the_one_before_even_from_several_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=append, args=(tmp_path, 10)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    ledger = Ledger(tmp_path)
    assert ledger.breaks() == [] and len(list(ledger.entries())) == 30


def test_a_changed_a_lost_and_an_added_line_break_it(tmp_path: Path) -> None:
    append(tmp_path, 4)
    ledger = Ledger(tmp_path)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    for spoiled in ([lines[0].replace(b"made", b"judged"), *lines[1:]], [*lines[:1], *lines[2:]], [*lines[:2], lines[1], *lines[2:]]):
        ledger.path.write_bytes(b"".join(spoiled))
        assert ledger.breaks()
    ledger.path.write_bytes(b"".join(lines))
    assert ledger.breaks() == []


def test_a_line_cut_off_by_a_crash_breaks_nothing(tmp_path: Path) -> None:
    append(tmp_path, 2)
    ledger = Ledger(tmp_path)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-40])
    append(tmp_path, 1)
    assert ledger.breaks() == [] and len(list(ledger.entries())) == 2


def test_an_entry_hashes_alike_before_and_after_it_was_written() -> None:
    assert entry_hash({"at": "x", "record": {1: (2, float("inf"))}}) == entry_hash({"record": {"1": [2, float("inf")]}, "at": "x"})
