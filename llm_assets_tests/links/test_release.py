from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from llm_assets.links.link import Acted, Office
from llm_assets.links.release import LINK, ReleaseConfig, release
from llm_assets.serving.events import read_events
from llm_assets.serving.releases import ReleaseError, champion, roll_back, standing, verify_files
from llm_assets.store.artifact import Artifact
from llm_assets.store.journal import Journal
from llm_assets_tests.serving.tiny import committed, write_artifact

GATE = {
    "release": "tiny-1", "outcome": "better", "found": "better than tiny-1", "disagreement": 0.3, "disagreement_on_test": 0.03,
    "disagreement_on_traffic": 0.3, "traffic_texts": 500, "prediction": "30.0% of the newest 500 texts of the request log, 3.0% of 80 test documents",
}  # fmt: skip
SCORECARD = {
    "chain": "tiny",
    "champion": {**GATE, "documents": 80},
    "models": [{"name": "finetuned", "test_accuracy": 0.9}, {"name": "quantized", "test_accuracy": 0.89}],
}


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office("tiny", tmp_path, Journal(tmp_path / "journal" / "tiny" / "release.jsonl"), tmp_path)


def run(office: Office, model: Artifact, note: str = "", **config: str) -> Acted:
    """Release a model and write the journal as the edge does."""
    judged = {**SCORECARD, "quantized_model": model.fingerprint}
    acted = release(office, ReleaseConfig(note=note, **config), scorecard=judged, quantized_model=model)
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
    assert acted.record["metrics"]["test_accuracy"] == 0.89 and acted.record["gate"] == GATE
    assert (acted.record["state"], acted.record["approved_by"]) == ("champion", "auto")


def test_a_release_carries_the_adapters_beside_its_model(office: Office, tmp_path: Path) -> None:
    directory = tmp_path / "artifacts" / "quantized_model" / "talk"
    directory.mkdir(parents=True)
    for name in ("model-q8_0.gguf", "model-f16.gguf", "adapter-one.gguf", "adapter-two.gguf", "tokenizer.json"):
        (directory / name).write_text(name)
    adapters = {"one": "adapter-one.gguf", "two": "adapter-two.gguf"}
    (directory / "serving.json").write_text(json.dumps({"model": "model-q8_0.gguf", "adapters": adapters}))
    record = run(office, committed(directory)).record
    assert set(record["files"]) == {"model-q8_0.gguf", "adapter-one.gguf", "adapter-two.gguf", "tokenizer.json", "serving.json"}
    (directory / "adapter-two.gguf").write_text("another")
    with pytest.raises(ReleaseError, match=r"adapter-two\.gguf is not the file that was released"):
        verify_files(record["release"], directory, record["files"])


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


def standings(office: Office) -> tuple[str | None, str | None]:
    """Champion and candidate."""
    known = standing(office.journal)
    return known.champion["release"] if known.champion else None, known.candidate["release"] if known.candidate else None


def test_by_hand_a_model_waits_until_somebody_approves_it(office: Office, tmp_path: Path) -> None:
    first, second = write_artifact(tmp_path, "aaa"), write_artifact(tmp_path, "bbb")
    run(office, first)
    waiting = run(office, second, approval="by_hand")
    assert (waiting.data_version, waiting.record["state"], waiting.record["approved_by"]) == ("tiny-2-candidate", "candidate", None)
    assert waiting.record["aliases"] == {"candidate": "tiny-2", "champion": "tiny-1", "previous": None}
    assert standings(office) == ("tiny-1", "tiny-2")
    assert run(office, second, approval="by_hand") == waiting  # a nightly run repeats it
    approved = run(office, second, "read it", approval="by_hand", approved_by="Ann")
    assert (approved.data_version, approved.record["approved_by"], approved.record["note"]) == ("tiny-2", "Ann", "read it")
    assert standings(office) == ("tiny-2", None)
    [event] = read_events(tmp_path, "tiny")
    assert (event["kind"], event["release"], event["by"], event["note"]) == ("approval", "tiny-2", "Ann", "read it")


def test_a_named_candidate_is_approved_whatever_was_made_since(office: Office, tmp_path: Path) -> None:
    models = [write_artifact(tmp_path, name) for name in ("aaa", "bbb", "ccc")]
    for model in models:
        run(office, model, approval="by_hand")
    acted = run(office, models[2], approval="by_hand", approved_by="Ann", candidate="tiny-2")
    assert acted.record["quantized_model"] == "bbb" and standings(office) == ("tiny-2", "tiny-3")
    assert run(office, models[2], approval="by_hand", approved_by="Ann", candidate="tiny-2").record == acted.record  # a run repeated
    with pytest.raises(ReleaseError, match="no release tiny-1 that waits for approval; there are: tiny-3"):  # overtaken
        run(office, models[2], approved_by="Ann", candidate="tiny-1")
    with pytest.raises(ReleaseError, match="nobody approves it"):
        run(office, models[2], candidate="tiny-3")
    (models[2].directory / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ReleaseError, match=r"tiny-3: .*model\.onnx is not the file that was released"):
        run(office, models[2], approved_by="Ann", candidate="tiny-3")
    assert standings(office) == ("tiny-2", "tiny-3")


def test_what_was_rolled_back_from_is_not_released_again_by_a_run(office: Office, tmp_path: Path) -> None:
    old, bad, better = (write_artifact(tmp_path, name) for name in ("aaa", "bbb", "ccc"))
    run(office, old), run(office, bad)
    assert roll_back(tmp_path, "tiny", "tiny-1", by="gateway", note="it failed", only_from="tiny-2")
    again = run(office, bad)
    assert (again.record["release"], again.record["state"]) == ("tiny-2", "candidate") and standings(office) == ("tiny-1", "tiny-2")
    run(office, better)
    assert standings(office) == ("tiny-3", None)
    assert run(office, bad).record["state"] == "candidate"  # for good
    assert run(office, bad, approved_by="Ann").record["state"] == "champion" and standings(office) == ("tiny-2", None)


def test_the_champion_after_a_rollback_stays_the_same_release(office: Office, tmp_path: Path) -> None:
    old, bad = write_artifact(tmp_path, "aaa"), write_artifact(tmp_path, "bbb")
    run(office, old), run(office, bad)
    record = roll_back(tmp_path, "tiny", "tiny-1", by="Ann", note="")
    assert run(office, old).record == record and standings(office) == ("tiny-1", None)
