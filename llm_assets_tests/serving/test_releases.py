from __future__ import annotations

from pathlib import Path

from llm_assets.serving.releases import champion, next_number, previous, releases
from llm_assets.store.journal import Journal


def entry(number: int, trial: bool = False, passed: bool = True) -> dict:
    verdict = {"check": "files_are_whole", "passed": passed, "blocking": True, "description": ""}
    record = {"release": f"tiny-{number}", "number": number}
    return {"run_id": "r", "trial": trial, "data_version": f"tiny-{number}", "verdicts": [verdict], "record": record}


def test_an_empty_journal_has_no_champion(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "release.jsonl")
    assert champion(journal) is None and previous(journal) is None and next_number(journal) == 1


def test_repeats_trials_and_failed_releases_do_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "release.jsonl")
    for written in (entry(1), entry(1), entry(2), entry(3, passed=False), entry(9, trial=True), entry(2)):
        journal.append(written)
    assert [release["number"] for release in releases(journal)] == [1, 2]
    newest, before = champion(journal), previous(journal)
    assert newest and before and (newest["release"], before["release"]) == ("tiny-2", "tiny-1")
    assert next_number(journal) == 4
