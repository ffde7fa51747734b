from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llm_assets.operation.champion import released
from llm_assets.serving.releases import CANDIDATE, release_journal, roll_back
from llm_assets.store.manifest import ArtifactError
from llm_assets_tests.operation.released import release, texts


def test_the_champion_with_what_it_learned_from(tmp_path: Path) -> None:
    assert released(tmp_path, "tiny") is None
    learned = texts(5, 1)
    release(tmp_path, learned)
    found = released(tmp_path, "tiny")
    assert found is not None and found.name == "tiny-1" and found.settings["labels"] == ["negative", "positive"]
    assert found.input("labelled_examples").table("train.parquet")["text"].to_pylist() == learned


def test_after_a_rollback_it_is_the_older_one_and_others_are_found_by_name(tmp_path: Path) -> None:
    for number in (1, 2):
        release(tmp_path, texts(5, number), number)
    assert released(tmp_path, "tiny").name == "tiny-2"  # type: ignore[union-attr]
    roll_back(tmp_path, "tiny", "tiny-1", by="test", note="")
    assert released(tmp_path, "tiny").name == "tiny-1"  # type: ignore[union-attr]
    assert released(tmp_path, "tiny", "tiny-2").model.fingerprint == "m2"  # type: ignore[union-attr]
    assert released(tmp_path, "tiny", "tiny-9") is None


def test_a_candidate_is_found_by_name_and_is_no_champion(tmp_path: Path) -> None:
    release(tmp_path, texts(5, 1), 1)
    release(tmp_path / "other", texts(5, 2), 2)
    shutil.copytree(tmp_path / "other" / "artifacts", tmp_path / "artifacts", dirs_exist_ok=True)
    record = next(release_journal(tmp_path / "other", "tiny").entries())["record"]
    release_journal(tmp_path, "tiny").append({"trial": False, "verdicts": [], "record": {**record, "state": CANDIDATE}})
    assert released(tmp_path, "tiny").name == "tiny-1"  # type: ignore[union-attr]
    assert released(tmp_path, "tiny", "tiny-2").name == "tiny-2"  # type: ignore[union-attr]


def test_files_that_are_gone_are_named(tmp_path: Path) -> None:
    release(tmp_path, texts(5, 1))
    found = released(tmp_path, "tiny")
    shutil.rmtree(tmp_path / "artifacts" / "labelled_examples")
    assert found is not None
    with pytest.raises(ArtifactError, match="labelled_examples/e1 holds no artifact: materialize labelled_examples again"):
        found.input("labelled_examples")
    shutil.rmtree(tmp_path / "artifacts")
    with pytest.raises(ArtifactError, match="quantized_model/m1 holds no artifact"):
        released(tmp_path, "tiny")
