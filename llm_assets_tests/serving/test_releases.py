from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.serving.releases import ReleaseError, champion, next_number, previous, release_journal, releases, returnable, roll_back, standing
from llm_assets.store.journal import Journal
from llm_assets.store.ledger import Ledger, entry_hash
from llm_assets_tests.serving.tiny import release


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


def names(home: Path) -> tuple[str | None, str | None, str | None, set[str]]:
    """Champion, previous, candidate and what was withdrawn."""
    known = standing(release_journal(home, "tiny"))
    return (*(record["release"] if record else None for record in (known.champion, known.previous, known.candidate)), set(known.withdrawn))


def test_a_rollback_withdraws_what_came_after_and_the_next_goes_further_back(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        release(tmp_path, number)
    record = roll_back(tmp_path, "tiny", "tiny-2", by="Ann", note="too slow")
    assert record and record["rolled_back_from"] == "tiny-3" and record["previous"] == "tiny-1"
    assert (record["approved_by"], record["note"], record["directory"]) == ("Ann", "too slow", "artifacts/quantized_model/tiny2")
    assert record["aliases"] == {"candidate": "tiny-2", "champion": "tiny-2", "previous": "tiny-1"}
    assert names(tmp_path) == ("tiny-2", "tiny-1", None, {"tiny-3"})
    newest, [acted] = release_journal(tmp_path, "tiny").newest(), Ledger(tmp_path).entries()
    assert newest and (acted["event"], acted["name"], acted["entry"]) == ("acted", newest["at"], entry_hash(newest))
    assert returnable(tmp_path, "tiny")["release"] == "tiny-1"
    release(tmp_path, 4)
    assert names(tmp_path) == ("tiny-4", "tiny-2", None, {"tiny-3"})
    assert roll_back(tmp_path, "tiny", "tiny-3", by="Ann", note="it was the network after all")
    assert names(tmp_path) == ("tiny-3", "tiny-4", None, set())
    assert [record["release"] for record in releases(release_journal(tmp_path, "tiny"))] == ["tiny-1", "tiny-2", "tiny-3", "tiny-4"]
    assert next_number(release_journal(tmp_path, "tiny")) == 5


def test_a_rollback_by_the_gateway_leaves_a_newer_champion_alone(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        release(tmp_path, number)
    before = list(release_journal(tmp_path, "tiny").entries())
    assert roll_back(tmp_path, "tiny", "tiny-1", by="gateway", note="", only_from="tiny-2") is None
    assert roll_back(tmp_path, "tiny", "tiny-3", by="gateway", note="") is None  # the champion already
    assert roll_back(tmp_path, "tiny", "tiny-9", by="gateway", note="") is None
    assert list(release_journal(tmp_path, "tiny").entries()) == before


def test_what_cannot_be_returned_to_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="no release before its champion to go back to; there are: none"):
        returnable(tmp_path, "tiny")
    release(tmp_path, 1)
    with pytest.raises(ReleaseError, match="no release before its champion to go back to; there are: tiny-1"):
        returnable(tmp_path, "tiny")
    release(tmp_path, 2)
    with pytest.raises(ReleaseError, match="no release tiny-7 to go back to; there are: tiny-1, tiny-2"):
        returnable(tmp_path, "tiny", "tiny-7")
    model = tmp_path / "artifacts" / "quantized_model" / "tiny1" / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(ReleaseError, match=r"tiny-1: .*model\.onnx is not the file that was released"):
        returnable(tmp_path, "tiny")
    model.unlink()
    with pytest.raises(ReleaseError, match=r"tiny-1: .*model\.onnx is missing"):
        returnable(tmp_path, "tiny")
