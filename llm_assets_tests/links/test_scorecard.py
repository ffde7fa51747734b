"""The scorecard's record, and each gate failing on a model that should not be released."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from rich.console import Console

from llm_assets.links.champion import against_champion, not_worse_than_champion
from llm_assets.links.link import Acted, Office
from llm_assets.links.scorecard import LINK, ScorecardConfig, scorecard
from llm_assets.links.scorecard_page import as_markdown
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.journal import Journal
from llm_assets.store.verdict import Verdict
from llm_assets.terminal.tables import scorecard_table
from llm_assets_tests.links import trained


@pytest.fixture
def office(tmp_path: Path) -> Office:
    directory = tmp_path / "acts"
    directory.mkdir()
    return Office("tiny", tmp_path, Journal(tmp_path / "journal" / "tiny" / "scorecard.jsonl"), directory)


def run(office: Office, **replaced: Artifact) -> Acted:
    made = {name: getattr(trained, name.split("_")[0])().artifact for name in ("pretrained_checkpoint", "finetuned_model", "quantized_model")}
    inputs = {**trained.corpus(), **made, **replaced}
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
        assert set(model) == {
            "name", "test_accuracy", "test_accuracy_interval", "test_macro_f1", "test_macro_f1_interval", "calibration_error", "brier_score",
            "per_class", "bytes", "p50_ms", "p99_ms", "timed", "texts_per_second", "cost", "against_baseline",
        }  # fmt: skip
        assert 0 < model["p50_ms"] <= model["p99_ms"] and model["texts_per_second"] > 0
        for name in ("test_accuracy", "test_macro_f1"):
            low, high = model[f"{name}_interval"]
            assert 0 <= low <= model[name] <= high <= 1
        assert 0 <= model["calibration_error"] <= 1 and 0 <= model["brier_score"] <= 2
        assert {label: figures["support"] for label, figures in model["per_class"].items()} == {"negative": 40, "positive": 40}
    assert set(record) == {
        "chain", "problem", "models", "baseline", "seeds", "split", "seconds", "quantized_model", "champion", "rounding", "margin_over_majority"
    }  # fmt: skip
    assert record["seeds"] == 1
    assert record["split"] == {"train": 280, "validation": 40, "test": 80}
    assert all(check.judge(record, {}).passed and check.blocking for check in LINK.checks)
    write_json(office.home / "again.json", record)  # JSON can say all of it
    assert "| quantized |" in (office.directory / "scorecard.md").read_text()
    assert {path.name for path in (office.directory / "plots").iterdir()} == {"models.png", "reliability.png", "confusion.png"}


def test_quality_is_what_the_models_own_metrics_say(office: Office) -> None:
    measured = trained.finetuned().artifact.metrics["models"] | trained.quantized().artifact.metrics["models"]
    for model in run(office).record["models"]:
        test = measured[model["name"]]["test"]
        assert (model["test_accuracy"], model["test_macro_f1"]) == (test["accuracy"], test["macro_f1"])


def test_every_model_but_the_strongest_baseline_is_compared_with_it(office: Office) -> None:
    record = run(office).record
    assert record["baseline"] == "tfidf_logistic_regression"
    models = {model["name"]: model for model in record["models"]}
    assert models["tfidf_logistic_regression"]["against_baseline"] is None
    for name in ("majority", "finetuned", "quantized"):
        compared = models[name]["against_baseline"]
        assert compared["documents"] == 80 and compared["interval"][0] <= compared["difference"] <= compared["interval"][1]
        expected = models[name]["test_accuracy"] - models["tfidf_logistic_regression"]["test_accuracy"]
        assert compared["difference"] == pytest.approx(expected)


def test_a_model_costs_what_the_links_that_made_it_took(office: Office) -> None:
    costs = {model["name"]: model["cost"] for model in run(office).record["models"]}
    pretrained, finetuned, quantized = (outcome().artifact.manifest for outcome in (trained.pretrained, trained.finetuned, trained.quantized))
    baselines = sum(costs[name]["seconds"] for name in ("majority", "tfidf_logistic_regression"))
    assert costs["finetuned"]["seconds"] == pytest.approx(pretrained.seconds + finetuned.seconds - baselines, abs=1e-3)
    assert costs["quantized"]["seconds"] == pytest.approx(costs["finetuned"]["seconds"] + quantized.seconds, abs=1e-2)
    assert costs["finetuned"]["peak_memory_bytes"] == max(pretrained.peak_memory_bytes, finetuned.peak_memory_bytes)
    assert costs["majority"]["peak_memory_bytes"] is None


def test_a_model_of_an_earlier_release_is_named(office: Office) -> None:
    made = trained.quantized().artifact
    figures = {name: value for name, value in made.metrics["models"]["quantized"].items() if name != "texts_per_second"}
    with pytest.raises(ValueError, match=f"quantized_model {made.fingerprint} .* materialize it again"):
        run(office, quantized_model=trained.changed(made, metrics={"models": {"quantized": figures}}))


def test_probabilities_stand_in_the_order_of_the_labels(office: Office) -> None:
    for artifact in (trained.finetuned().artifact, trained.quantized().artifact):
        for row in artifact.table("predictions.parquet").to_pylist():
            assert trained.LABELS[row["probabilities"].index(max(row["probabilities"]))] == row["predicted"]


def test_its_table_fits_a_terminal_and_its_markdown_says_all(office: Office) -> None:
    record = run(office).record
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(scorecard_table({**record, "release": None}))
    assert "…" not in (printed := console.export_text()) and "quantized" in printed
    page = as_markdown(record)
    assert page.count("\n| quantized |") == 1 + len(trained.LABELS) and "trainings behind each figure: 1" in page


def test_its_data_version_does_not_follow_the_clock(office: Office) -> None:
    assert run(office).data_version == run(office).data_version


def test_a_model_near_the_majority_baseline_is_not_released(office: Office) -> None:
    record = dict(run(office).record)
    record["models"] = [{**model, "test_accuracy": 0.55} if model["name"] == "quantized" else model for model in record["models"]]
    assert not gate("beats_majority", record).passed


def test_int8_that_lost_more_than_a_point_is_not_released(office: Office, tmp_path: Path) -> None:
    worse = answering_wrongly(tmp_path / "worse", trained.quantized().artifact, share=0.2)
    assert not gate("int8_within", run(office, quantized_model=worse).record).passed


def test_a_candidate_worse_than_the_champion_is_not_released(office: Office, tmp_path: Path) -> None:
    champion = trained.quantized().artifact
    release(office, champion)
    worse = answering_wrongly(tmp_path / "worse", champion, share=0.2)
    acted = run(office, quantized_model=worse)
    found, compared = gate("not_worse_than_champion", acted.record), acted.record["champion"]
    assert not found.passed and found.description.startswith("worse than tiny-1") and compared["documents"] == 80
    assert compared["outcome"] == "worse" and compared["interval"][0] < compared["difference"] < compared["interval"][1] < 0
    assert f"Against the champion: {compared['found']}" in as_markdown(acted.record)


def test_better_not_worse_and_undecided_pass_and_are_called_so(office: Office, tmp_path: Path) -> None:
    model = trained.quantized().artifact
    release(office, answering_wrongly(tmp_path / "before", model, share=0.2))
    better = run(office).record
    assert better["champion"]["outcome"] == "better" and gate("not_worse_than_champion", better).passed
    release(office, model)
    hardly_worse = answering_wrongly(tmp_path / "hardly", model, share=0.02)
    hardly = against_champion(office, hardly_worse, "single_label", 0.001)
    assert hardly["outcome"] == "undecided" and "undecided against tiny-1" in hardly["found"]
    assert not_worse_than_champion({"champion": hardly}, {}).passed
    assert against_champion(office, hardly_worse, "single_label", 0.5)["outcome"] == "not worse"
    same = run(office).record
    assert same["champion"]["outcome"] is None and gate("not_worse_than_champion", same).passed


def test_the_share_of_answers_that_will_differ_is_predicted(office: Office, tmp_path: Path) -> None:
    model = trained.quantized().artifact
    release(office, model)
    other = answering_wrongly(tmp_path / "other", model, share=0.2)
    mine, theirs = ({row["doc_id"]: row["predicted"] for row in each.table("predictions.parquet").to_pylist()
                     if row["split"] == "test" and row["model"] == "quantized"} for each in (model, other))  # fmt: skip
    record = run(office, quantized_model=other).record
    found = record["champion"]["disagreement"]
    assert found == pytest.approx(sum(mine[key] != theirs[key] for key in mine) / len(mine)) and found > 0
    assert f"answer otherwise in {found:.1%} of 80 test documents; the request log holds 0 texts, 100 are needed." in as_markdown(record)


def test_an_allowed_loss_of_numbers_is_a_share_of_their_squared_error(office: Office, tmp_path: Path) -> None:
    def numbers(name: str, off: float) -> Artifact:
        folder = tmp_path / name
        folder.mkdir()
        rows = [{"model": "quantized", "split": "test", "doc_id": str(n), "label": str(float(n)), "predicted": str(n + off * (1 + n % 2)),
                 "probabilities": [0.0]} for n in range(200)]  # fmt: skip
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "predictions.parquet")
        return Artifact(folder, trained.quantized().artifact.manifest.model_copy(update={"fingerprint": name}))

    release(office, numbers("before", off=2.0))
    slightly = numbers("slightly", off=2.1)  # a tenth more squared error
    assert against_champion(office, slightly, "regression", 0.01)["outcome"] == "worse"
    found = against_champion(office, slightly, "regression", 0.2)
    assert found["outcome"] == "not worse" and found["disagreement"] is None and found["allowed"] == pytest.approx(0.2 * 10)


def test_a_champion_whose_files_are_gone_is_said_so(office: Office, tmp_path: Path) -> None:
    gone = Artifact(tmp_path / "gone", trained.quantized().artifact.manifest.model_copy(update={"fingerprint": "gone"}))
    release(office, gone)
    found = gate("not_worse_than_champion", run(office).record)
    assert found.passed and "gone from the store" in found.description
