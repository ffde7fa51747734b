from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from llm_assets.links.link import Acted, Office
from llm_assets.links.release import LINK, ReleaseConfig, release
from llm_assets.serving.releases import champion
from llm_assets.store.artifact import Artifact
from llm_assets.store.journal import Journal
from llm_assets_tests.serving.tiny import write_artifact

SCORECARD = {"chain": "tiny", "models": [{"name": "finetuned", "test_accuracy": 0.9}, {"name": "quantized", "test_accuracy": 0.89}]}


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office("tiny", tmp_path, Journal(tmp_path / "journal" / "tiny" / "release.jsonl"), tmp_path)


def run(office: Office, model: Artifact, note: str = "") -> Acted:
    """Release a model and write the journal as the edge does."""
    acted = release(office, ReleaseConfig(note=note), scorecard={**SCORECARD, "quantized_model": model.fingerprint}, quantized_model=model)
    verdict = LINK.checks[0].judge(acted.record, {"quantized_model": model})
    entry = {"run_id": "r", "trial": False, "data_version": acted.data_version, "verdicts": [verdict.model_dump()], "record": acted.record}
    office.journal.append(entry)
    return acted


def test_the_first_release_says_what_is_served(office: Office, tmp_path: Path) -> None:
    model = write_artifact(tmp_path, "aaa")
    acted = run(office, model, note="first")
    assert acted.data_version == "tiny-1"
    assert (acted.record["release"], acted.record["number"], acted.record["quantized_model"]) == ("tiny-1", 1, "aaa")
    assert acted.record["directory"] == "artifacts/quantized_model/aaa"
    assert acted.record["files"] == {name: model.manifest.files[name].sha256 for name in ("model.onnx", "tokenizer.json", "serving.json")}
    assert acted.record["previous"] is None and acted.record["note"] == "first"
    assert acted.record["metrics"]["test_accuracy"] == 0.89


def test_the_champion_released_again_stays_the_same_release(office: Office, tmp_path: Path) -> None:
    model = write_artifact(tmp_path, "aaa")
    first, second, third = run(office, model), run(office, model), run(office, model, note="another note")
    assert first == second == third


def test_a_new_model_and_an_old_one_that_comes_back_get_new_numbers(office: Office, tmp_path: Path) -> None:
    old, new = write_artifact(tmp_path, "aaa"), write_artifact(tmp_path, "bbb")
    names = [run(office, model).record["release"] for model in (old, new, new, old)]
    assert names == ["tiny-1", "tiny-2", "tiny-2", "tiny-3"]
    newest = champion(office.journal)
    assert newest and newest["quantized_model"] == "aaa" and newest["aliases"] == {"candidate": "tiny-3", "champion": "tiny-3", "previous": "tiny-2"}


def test_a_damaged_model_fails_its_check_and_becomes_no_champion(office: Office, tmp_path: Path) -> None:
    model = write_artifact(tmp_path, "aaa")
    path = model.directory / "model.onnx"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    acted = run(office, model)
    verdict = LINK.checks[0].judge(acted.record, {"quantized_model": model})
    assert not verdict.passed and verdict.blocking and "model.onnx" in verdict.description
    assert champion(office.journal) is None


def test_a_scorecard_without_the_model_is_refused(office: Office, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="judges finetuned and no quantized"):
        scorecard = {"models": SCORECARD["models"][:1], "quantized_model": "aaa"}
        release(office, ReleaseConfig(), scorecard=scorecard, quantized_model=write_artifact(tmp_path, "aaa"))


def test_a_scorecard_of_another_model_releases_nothing(office: Office, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the scorecard judged quantized_model bbb, not aaa"):
        release(office, ReleaseConfig(), scorecard={**SCORECARD, "quantized_model": "bbb"}, quantized_model=write_artifact(tmp_path, "aaa"))


def test_an_unknown_kind_of_approval_is_an_error() -> None:
    with pytest.raises(ValidationError, match="approval"):
        ReleaseConfig(approval="committee")
