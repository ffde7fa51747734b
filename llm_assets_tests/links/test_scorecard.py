"""The scorecard's record, and each gate failing on a model that should not be released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from llm_assets.links.link import Acted, Office
from llm_assets.links.scorecard import LINK, ScorecardConfig, scorecard
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.journal import Journal
from llm_assets.store.verdict import Verdict
from llm_assets_tests.links import trained


@pytest.fixture
def office(tmp_path: Path) -> Office:
    directory = tmp_path / "acts"
    directory.mkdir()
    return Office("tiny", tmp_path, Journal(tmp_path / "journal" / "tiny" / "scorecard.jsonl"), directory)


def run(office: Office, **replaced: Artifact) -> Acted:
    inputs = {**trained.corpus(), "finetuned_model": trained.finetuned().artifact, "quantized_model": trained.quantized().artifact, **replaced}
    return scorecard(office, ScorecardConfig(latency_calls=5), **{name: inputs[name] for name in LINK.inputs})


def gate(name: str, record: Any) -> Verdict:
    return next(check for check in LINK.checks if check.name == name).judge(record, {})


def answering_wrongly(folder: Path, model: Artifact, share: float) -> Artifact:
    """The quantized model with a share of its right answers turned around."""
    folder.mkdir()
    for name in ("model.onnx", "tokenizer.json", "serving.json"):
        (folder / name).write_bytes(model.path(name).read_bytes())
    rows = model.table("predictions.parquet").to_pylist()
    for row in rows[: int(share * len(rows))] + rows[-int(share * 80) :]:
        row["predicted"] = "positive" if row["label"] == "negative" else "negative"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "predictions.parquet")
    return Artifact(folder, model.manifest.model_copy(update={"fingerprint": folder.name}))


def release(office: Office, model: Artifact) -> None:
    record = {"number": 1, "release": "tiny-1", "quantized_model": model.fingerprint, "directory": str(model.directory)}
    Journal(office.home / "journal" / "tiny" / "release.jsonl").append({"trial": False, "verdicts": [], "record": record})


def test_the_record_has_what_the_command_line_prints(office: Office) -> None:
    record = run(office).record
    assert {model["name"] for model in record["models"]} == {"majority", "tfidf_logistic_regression", "finetuned", "quantized"}
    for model in record["models"]:
        assert {"name", "test_accuracy", "test_macro_f1", "bytes", "p50_ms", "p99_ms", "timed"} == set(model)
        assert 0 < model["p50_ms"] <= model["p99_ms"]
    assert record["split"] == {"train": 280, "validation": 40, "test": 80}
    assert all(check.judge(record, {}).passed and check.blocking for check in LINK.checks)
    write_json(office.home / "again.json", record)  # JSON can say all of it
    assert "| quantized |" in (office.directory / "scorecard.md").read_text()
    assert (office.directory / "plots" / "models.png").exists()


def test_its_data_version_does_not_follow_the_clock(office: Office) -> None:
    assert run(office).data_version == run(office).data_version


def test_a_model_near_the_majority_baseline_is_not_released(office: Office) -> None:
    record = dict(run(office).record)
    record["models"] = [{**model, "test_accuracy": 0.55} if model["name"] == "quantized" else model for model in record["models"]]
    assert not gate("beats_majority", record).passed


def test_int8_that_lost_more_than_a_point_is_not_released(office: Office, tmp_path: Path) -> None:
    worse = answering_wrongly(tmp_path / "worse", trained.quantized().artifact, share=0.2)
    assert not gate("int8_within", run(office, quantized_model=worse).record).passed


def test_a_candidate_clearly_worse_than_the_champion_is_not_released(office: Office, tmp_path: Path) -> None:
    champion = trained.quantized().artifact
    release(office, champion)
    worse = answering_wrongly(tmp_path / "worse", champion, share=0.2)
    record = run(office, quantized_model=worse).record
    found = gate("not_worse_than_champion", record)
    assert not found.passed and "tiny-1" in found.description and record["champion"]["documents"] == 80


def test_the_champion_itself_and_a_better_candidate_pass(office: Office, tmp_path: Path) -> None:
    better = trained.quantized().artifact
    release(office, answering_wrongly(tmp_path / "before", better, share=0.2))
    assert gate("not_worse_than_champion", run(office).record).passed
    release(office, better)
    assert gate("not_worse_than_champion", run(office).record).passed


def test_a_champion_whose_files_are_gone_is_said_so(office: Office, tmp_path: Path) -> None:
    gone = Artifact(tmp_path / "gone", trained.quantized().artifact.manifest.model_copy(update={"fingerprint": "gone"}))
    release(office, gone)
    found = gate("not_worse_than_champion", run(office).record)
    assert found.passed and "gone from the store" in found.description
