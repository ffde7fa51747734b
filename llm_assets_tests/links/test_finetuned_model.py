"""Finetuning through the real worker, and checks that fail when they should."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from llm_assets.evaluation import predictions
from llm_assets.evaluation.baselines import Majority, TfidfLogisticRegression
from llm_assets.evaluation.torch_classifier import TorchClassifier
from llm_assets.links import quantized_model
from llm_assets.links.finetuned_model import LINK, learnt_examples
from llm_assets.links.link import Bench
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict
from llm_assets.training.job import TrainingJob
from llm_assets.training.launch import PreemptedError, launch
from llm_assets_tests.links import trained


def verdict(artifact: Artifact, name: str) -> Verdict:
    return next(check for check in LINK.checks if check.name == name).judge(artifact, trained.corpus())


def test_it_learns_passes_its_checks_and_says_how_it_compares() -> None:
    outcome = trained.finetuned()
    assert all(found.passed for found in outcome.verdicts), outcome.verdicts
    models = outcome.artifact.metrics["models"]
    assert set(models) == {"finetuned", "majority", "tfidf_logistic_regression"}
    assert models["finetuned"]["test"]["accuracy"] > 0.9 and models["finetuned"]["test"]["documents"] == 80
    assert models["majority"]["test"]["accuracy"] == 0.5
    assert all(model["bytes"] > 0 and model["texts_per_second"] > 0 for model in models.values())
    assert all(models[name]["training_seconds"] > 0 for name in ("majority", "tfidf_logistic_regression"))
    assert sum(sum(row.values()) for row in outcome.artifact.metrics["confusion"].values()) == 80


def test_the_reported_loss_is_the_loss(tmp_path: Path) -> None:
    """On two processes transformers doubles ModernBERT's own classification loss."""
    rows = trained.finetuned().artifact.table("curve.parquet").to_pylist()
    first = next(row["loss"] for row in rows if row["loss"] is not None)
    assert 0.5 < first < 1.0  # ln 2 = 0.69 for an untrained classifier of two classes


def test_the_best_evaluation_is_what_is_kept() -> None:
    made = trained.finetuned().artifact
    curve = [row for row in made.table("curve.parquet").to_pylist() if row["validation_accuracy"] is not None]
    best = max(curve, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert made.metrics["best"]["step"] == best["step"]
    assert made.metrics["models"]["finetuned"]["validation"]["accuracy"] == pytest.approx(best["validation_accuracy"])


def test_what_is_stored_says_what_was_recorded() -> None:
    made = trained.finetuned().artifact
    examples = predictions.Examples.read(trained.corpus()["evaluation_sets"])
    baselines = made.path("baselines")
    table = made.table("predictions.parquet").to_pylist()
    for name, model in (
        ("finetuned", TorchClassifier(made.directory)),
        ("majority", Majority.load(baselines)),
        ("tfidf_logistic_regression", TfidfLogisticRegression.load(baselines)),
    ):
        again = {row["doc_id"]: row["predicted"] for row in predictions.rows(name, examples, model.classify(examples.texts), model.labels)}
        assert again == {row["doc_id"]: row["predicted"] for row in table if row["model"] == name}
    assert not [path for path in made.directory.rglob("*") if path.suffix in (".pkl", ".bin", ".pt", ".joblib")]


def test_beats_majority_fails_on_a_model_that_answers_one_label(tmp_path: Path) -> None:
    made = trained.finetuned().artifact
    table = made.table("predictions.parquet")
    constant = table.set_column(table.schema.get_field_index("predicted"), "predicted", [["positive"] * table.num_rows])
    pyarrow.parquet.write_table(constant, tmp_path / "predictions.parquet")
    assert not verdict(trained.changed(made, directory=tmp_path), "beats_majority").passed


def with_splits(folder: Path, **replaced: str) -> Artifact:
    """The finetuned model, in one split every prediction turned into one label."""
    made = trained.finetuned().artifact
    rows = [{**row, "predicted": replaced.get(row["split"], row["predicted"])} for row in made.table("predictions.parquet").to_pylist()]
    folder.mkdir()
    predictions.write(folder / "predictions.parquet", rows)
    return trained.changed(made, directory=folder)


def test_the_test_split_decides_nothing(tmp_path: Path) -> None:
    assert verdict(with_splits(tmp_path / "a", test="positive"), "beats_majority").passed
    assert not verdict(with_splits(tmp_path / "b", validation="positive"), "beats_majority").passed


def relabelled(folder: Path, name: str, **renamed: str) -> Artifact:
    """Evaluation sets whose first document of each named split carries another label."""
    table = trained.corpus()["evaluation_sets"].table("evaluation.parquet").to_pylist()
    for split, label in renamed.items():
        next(row for row in table if row["split"] == split)["label"] = label
    (folder / name).mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), folder / name / "evaluation.parquet")
    return trained.artifact(folder / name, "evaluation_sets")


def test_evaluation_documents_of_other_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    made, inputs = trained.finetuned().artifact, trained.corpus()
    trained_on: list[Path] = []

    def copy_weights(job: Path, processes: int, progress: object) -> None:
        trained_on.append(TrainingJob.read(job).objective.evaluation)
        for name in ("config.json", "model.safetensors", "curve.parquet"):
            shutil.copy(made.path(name), tmp_path / "out")
        (tmp_path / "summary.json").write_text("{}")

    (tmp_path / "out").mkdir()
    bench = Bench(tmp_path / "out", tmp_path, 1, tmp_path, copy_weights)
    evaluation = relabelled(tmp_path, "sets", validation="neutral", test="neutral")
    given = (trained.pretrained().artifact, inputs["tokenizer"], inputs["labelled_examples"], evaluation, trained.COMPUTE)
    metrics = LINK.make(bench, trained.FINETUNING, *given).metrics
    assert metrics["evaluation_documents_left_out"] == 2
    assert metrics["models"]["finetuned"]["test"]["documents"] == 79 and metrics["models"]["majority"]["validation"]["documents"] == 39
    assert "neutral" not in pyarrow.parquet.read_table(trained_on[0])["label"].to_pylist()
    check = next(check for check in LINK.checks if check.name == "every_document_scored")
    result = trained.artifact(tmp_path / "out", "finetuned_model")
    assert check.judge(result, {"evaluation_sets": evaluation}).passed

    (tmp_path / "quantized").mkdir()
    bench = Bench(tmp_path / "quantized", tmp_path, 1, tmp_path, copy_weights)
    given = (result, inputs["labelled_examples"], evaluation)
    quantized = quantized_model.LINK.make(bench, quantized_model.QuantizedModelConfig(method="dynamic"), *given)
    assert quantized.metrics["models"]["quantized"]["test"]["documents"] == 79


def test_evaluation_sets_without_a_label_that_is_learnt_are_refused(tmp_path: Path) -> None:
    examples = predictions.Examples.read(trained.corpus()["evaluation_sets"])
    foreign = predictions.Examples(examples.doc_ids, examples.texts, ["neutral"] * len(examples.texts), examples.splits)
    foreign.write(tmp_path / "evaluation.parquet")
    with pytest.raises(ValueError, match="no validation document of evaluation_sets carries one of the labels learnt"):
        learnt_examples(trained.artifact(tmp_path, "evaluation_sets"), trained.LABELS)


def with_examples(folder: Path, rows: list[dict[str, str]], labels: list[str], problem: str = "single_label") -> Artifact:
    """labelled_examples of these rows and this labels.json."""
    folder.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    (folder / "labels.json").write_text(json.dumps(labels))
    return trained.artifact(folder, "labelled_examples", config={"problem": problem})


def refused(tmp_path: Path, reason: str, **replaced: Artifact) -> None:
    """Finetuning with other inputs is refused for this reason, before any process starts."""

    def launched(job: Path, processes: int, progress: object) -> None:
        raise AssertionError("a process was started")

    (tmp_path / "refused").mkdir()
    bench = Bench(tmp_path / "refused", tmp_path, 1, tmp_path, launched)
    inputs = {**trained.corpus(), "pretrained_checkpoint": trained.pretrained().artifact, "compute": trained.COMPUTE, **replaced}
    with pytest.raises(ValueError, match=reason):
        LINK.make(bench, trained.FINETUNING, **{name: inputs[name] for name in LINK.inputs})


def test_a_label_without_an_example_is_refused(tmp_path: Path) -> None:
    rows = [row for row in trained.corpus()["labelled_examples"].table("train.parquet").to_pylist() if row["label"] == "positive"]
    examples = with_examples(tmp_path / "examples", rows, trained.LABELS)
    refused(tmp_path, "names negative that no example carries", labelled_examples=examples)


def test_a_label_that_labels_json_lacks_is_refused(tmp_path: Path) -> None:
    rows = trained.corpus()["labelled_examples"].table("train.parquet").to_pylist()
    refused(tmp_path, "lacks positive that examples carry", labelled_examples=with_examples(tmp_path / "examples", rows, ["negative"]))


def test_examples_of_another_problem_are_refused(tmp_path: Path) -> None:
    rows = trained.corpus()["labelled_examples"].table("train.parquet").to_pylist()
    examples = with_examples(tmp_path / "examples", rows, trained.LABELS, "multi_label")
    refused(tmp_path, "finetuned_model.problem is single_label, labelled_examples.problem is multi_label", labelled_examples=examples)


def test_a_tokenizer_of_more_tokens_than_the_model_knows_is_refused(tmp_path: Path) -> None:
    shutil.copytree(trained.corpus()["tokenizer"].directory, tmp_path / "tokenizer")
    raw = json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text())
    raw["model"]["vocab"]["beyond"] = 1000
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps(raw))
    refused(
        tmp_path, "the tokenizer makes 1001: name that checkpoint's own tokenizer", tokenizer=trained.artifact(tmp_path / "tokenizer", "tokenizer")
    )


def test_a_model_whose_labels_stand_in_another_order_is_refused(tmp_path: Path) -> None:
    made = trained.finetuned().artifact
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "serving.json"):
        shutil.copy(made.path(name), tmp_path)
    serving = json.loads((tmp_path / "serving.json").read_text())
    (tmp_path / "serving.json").write_text(json.dumps({**serving, "labels": trained.LABELS[::-1]}))
    reason = "the model answers negative, positive in this order, serving.json says positive, negative"
    with pytest.raises(ValueError, match=reason):
        TorchClassifier(tmp_path)
    turned = trained.artifact(tmp_path, "finetuned_model")
    inputs = trained.corpus()
    (tmp_path / "out").mkdir()
    bench = Bench(tmp_path / "out", tmp_path, 1, tmp_path, trained.launch_quietly)
    with pytest.raises(ValueError, match=reason):
        quantized_model.LINK.make(bench, quantized_model.QuantizedModelConfig(), turned, inputs["labelled_examples"], inputs["evaluation_sets"])


def test_a_split_without_one_class_is_said(tmp_path: Path) -> None:
    made = trained.finetuned().artifact
    rows = [row for row in made.table("predictions.parquet").to_pylist() if (row["split"], row["label"]) != ("validation", "positive")]
    predictions.write(tmp_path / "predictions.parquet", rows)
    shutil.copy(made.path("serving.json"), tmp_path)
    found = verdict(trained.changed(made, directory=tmp_path), "every_label_judged")
    assert not found.passed and found.values == {"validation": ["positive"], "test": []}
    assert predictions.scores(rows)["validation"]["macro_f1"] == 1.0  # over the labels that occur
    assert not verdict(trained.changed(made, directory=tmp_path), "beats_majority").passed  # one constant answer is always right


def test_every_document_scored_fails_when_one_is_missing(tmp_path: Path) -> None:
    made = trained.finetuned().artifact
    pyarrow.parquet.write_table(made.table("predictions.parquet").slice(1), tmp_path / "predictions.parquet")
    shutil.copy(made.path("serving.json"), tmp_path)
    assert not verdict(trained.changed(made, directory=tmp_path), "every_document_scored").passed


@pytest.mark.slow
def test_a_preempted_finetuning_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Dropout draws random numbers and the best evaluation is kept across the break: both must be taken up again."""
    made, inputs, config = trained.finetuned().artifact, trained.corpus(), trained.FINETUNING
    job = TrainingJob(
        objective={
            "kind": "classification", "train": inputs["labelled_examples"].path("train.parquet"), "labels": trained.LABELS,
            "evaluation": inputs["evaluation_sets"].path("evaluation.parquet"), "max_length": config.max_length, "dropout": config.dropout,
        },
        tokenizer=inputs["tokenizer"].directory, output=tmp_path / "out", scratch=tmp_path, start_from=trained.pretrained().artifact.directory,
        steps=made.metrics["steps"], evaluate_every=9, seed=1, micro_batch=8, learning_rate=1e-2, zero_stage=2, checkpoint_seconds=0,
    )  # fmt: skip
    path, sent = job.write(tmp_path / "job.json"), []

    def preempt(done: float, total: float, unit: str, **values: float) -> None:
        if done >= 12 and not sent:
            sent.append(min(int(entry.name) for entry in (tmp_path / "workers").iterdir()))
            os.kill(sent[0], signal.SIGTERM)

    with pytest.raises(PreemptedError):
        launch(path, 2, preempt, {"OMP_NUM_THREADS": "1"})
    trained.launch_quietly(path, 2, lambda *_, **__: None)

    assert json.loads((tmp_path / "summary.json").read_text())["resumed_from"] >= 12
    resumed, reference = load_file(tmp_path / "out" / "model.safetensors"), load_file(made.path("model.safetensors"))
    assert all(torch.equal(resumed[name], reference[name]) for name in reference)
    kept = json.loads((tmp_path / "best.json").read_text())
    assert kept == made.metrics["best"]
