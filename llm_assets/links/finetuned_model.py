"""A classifier finetuned from the pretrained encoder, beside its baselines."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from llm_assets.evaluation import predictions
from llm_assets.evaluation.baselines import MAJORITY, TFIDF, Majority, TfidfLogisticRegression
from llm_assets.evaluation.latency import single_text_latency, throughput
from llm_assets.evaluation.quality import confusion
from llm_assets.links import plots
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.pretrained_checkpoint import weights_finite
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict
from llm_assets.training.job import SUMMARY, Classification, Optimization, TrainingJob

FINETUNED = "finetuned"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
BASELINES: dict[str, type[Majority] | type[TfidfLogisticRegression]] = {MAJORITY: Majority, TFIDF: TfidfLogisticRegression}
LATENCY_CALLS = 60
Baseline = Literal["majority", "tfidf_logistic_regression"]


class FinetunedModelConfig(Section, Optimization):
    """How the classifier is trained, and what it is compared with."""

    max_length: int = Field(128, ge=8, description="tokens; longer texts are cut, in training and in service")
    epochs: float = Field(2.0, gt=0, description="passes over the labelled examples")
    max_steps: int = Field(0, ge=0, description="optimizer updates at most; 0 sets no limit")
    evaluations_per_epoch: int = Field(2, ge=1, description="on the validation split; the weights of the best one are kept")
    learning_rate: float = Field(5e-4, gt=0, description="highest learning rate of AdamW")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the embeddings, the layers and before the classifier")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="what DeepSpeed partitions: 1 optimizer, 2 and gradients, 3 and weights")
    processes: int = Field(2, ge=1, description="training processes, one a device (CPU: share the cores)")
    baselines: tuple[Baseline, ...] = Field((MAJORITY, TFIDF), description="trained and scored in the same run")
    margin_over_majority: float = Field(0.15, ge=-1, le=1, description="accuracy on the validation split above the best constant answer's, at least")


def finetuned_model(
    bench: Bench,
    config: FinetunedModelConfig,
    pretrained_checkpoint: Artifact,
    tokenizer: Artifact,
    labelled_examples: Artifact,
    evaluation_sets: Artifact,
    compute: Mapping[str, Any],
) -> Made:
    """Finetunes the encoder into a text classifier and scores it beside its baselines on the same frozen documents.

    The evaluation with the best validation accuracy is kept, and the check asks for a margin on validation too: the test
    split is scored here and judged by the scorecard alone. The saved model is loaded again and scored in torch, as are a
    majority vote and TF-IDF with logistic regression; every prediction is kept. Evaluation documents with a label that no
    example teaches are left out and counted.
    """
    labels: list[str] = labelled_examples.json("labels.json")
    examples = learnt_examples(evaluation_sets, labels)
    batch = config.micro_batch * config.accumulation * config.processes
    steps_per_epoch = max(1, labelled_examples.table("train.parquet", ["label"]).num_rows // batch)
    steps = max(1, round(config.epochs * steps_per_epoch))
    steps = min(steps, config.max_steps) if config.max_steps else steps
    job = TrainingJob(
        objective=Classification(
            train=labelled_examples.path("train.parquet"),
            evaluation=examples.write(bench.scratch / "evaluation.parquet"),
            labels=tuple(labels),
            max_length=config.max_length,
            dropout=config.dropout,
        ),
        tokenizer=tokenizer.directory,
        output=bench.directory,
        scratch=bench.scratch,
        start_from=pretrained_checkpoint.directory,
        steps=steps,
        evaluate_every=math.ceil(min(steps, steps_per_epoch) / config.evaluations_per_epoch),
        seed=bench.seed,
        **config.optimization(),
    )
    bench.launch(job.write(bench.scratch / "job.json"), config.processes, bench.progress)
    for name in TOKENIZER_FILES:
        if (source := tokenizer.directory / name).exists():
            (bench.directory / name).write_bytes(source.read_bytes())
    write_json(bench.directory / "serving.json", {"max_length": config.max_length, "labels": labels})
    left_out = len(predictions.Examples.read(evaluation_sets).doc_ids) - len(examples.doc_ids)
    return Made({**_score(bench, config, labels, labelled_examples, examples), "evaluation_documents_left_out": left_out})


def learnt_examples(evaluation_sets: Artifact, labels: list[str]) -> predictions.Examples:
    """The evaluation documents whose label is learnt. Raises ``ValueError`` when a split has none."""
    examples = predictions.Examples.read(evaluation_sets, labels)
    for split in predictions.SPLITS:
        if split not in examples.splits:
            raise ValueError(
                f"finetuned_model: no {split} document of evaluation_sets carries one of the labels learnt ({', '.join(labels)}); "
                "correct labelled_examples.labels, or draw larger evaluation sets"
            )
    return examples


def _score(
    bench: Bench, config: FinetunedModelConfig, labels: list[str], labelled_examples: Artifact, examples: predictions.Examples
) -> dict[str, Any]:
    """Fit the baselines, score every model, write predictions and pictures; returns the metrics."""
    import pyarrow.parquet

    from llm_assets.evaluation.torch_classifier import TorchClassifier

    finetuned = TorchClassifier(bench.directory)
    probabilities, speed = throughput(lambda texts: finetuned.classify(texts, bench.progress), examples.texts)
    rows = predictions.rows(FINETUNED, examples, probabilities, finetuned.labels)
    latency = single_text_latency(finetuned.classify, examples.texts, LATENCY_CALLS)
    size = (bench.directory / "model.safetensors").stat().st_size
    models: dict[str, Any] = {FINETUNED: {**predictions.scores(rows), **latency, "bytes": size, "texts_per_second": speed}}
    folder = bench.directory / "baselines"
    folder.mkdir()
    train = labelled_examples.table("train.parquet", ["text", "label"]).to_pydict()
    for number, name in enumerate(config.baselines):
        bench.progress(number, len(config.baselines), "baselines trained")
        before, started = _bytes(folder), time.perf_counter()
        baseline = BASELINES[name].fit(train["text"], train["label"])
        seconds = round(time.perf_counter() - started, 6)  # a majority vote takes microseconds
        baseline.save(folder)
        probabilities, speed = throughput(baseline.classify, examples.texts)
        found = predictions.rows(name, examples, probabilities, baseline.labels)
        models[name] = {**predictions.scores(found), "bytes": _bytes(folder) - before, "texts_per_second": speed, "training_seconds": seconds}
        rows += found
    predictions.write(bench.directory / "predictions.parquet", rows)
    test = [row for row in rows if row["model"] == FINETUNED and row["split"] == "test"]
    curve = pyarrow.parquet.read_table(bench.directory / "curve.parquet").to_pylist()
    _draw(bench, models, curve)
    return {
        "models": models,
        "confusion": confusion([row["label"] for row in test], [row["predicted"] for row in test], labels),
        "training_examples": len(train["label"]),
        **json.loads((bench.scratch / SUMMARY).read_text()),
    }


def _draw(bench: Bench, models: Mapping[str, Any], curve: list[dict[str, Any]]) -> None:
    for name, column, title, unit in (
        ("loss", "loss", "Classification loss", "nats a text"),
        ("accuracy", "validation_accuracy", "Validation accuracy", "share of texts"),
    ):
        rows = [row for row in curve if row[column] is not None]
        series = {column.replace("_", " "): ([row["step"] for row in rows], [row[column] for row in rows])}
        plots.curves(bench.directory, name, series, title, "step", unit)
    plots.bars(bench.directory, "models", {name: model["test"]["accuracy"] for name, model in models.items()}, "Test accuracy", "share of texts")


def _bytes(folder: Any) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _beats_majority(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    """Against the commonest label of the validation split itself, which no constant answer beats."""
    rows = predictions.read(artifact, FINETUNED, "validation")
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["label"]] = counts.get(row["label"], 0) + 1
    constant = max(counts.values()) / len(rows)
    found = predictions.scores(rows)["validation"]["accuracy"]
    margin = artifact.manifest.recipe["config"]["margin_over_majority"]
    return Verdict(
        check="beats_majority",
        passed=found >= constant + margin,
        description=f"{found:.3f} on {len(rows)} validation documents; the best constant answer {constant:.3f}, {margin:+.2f} above it is asked for",
        values={"validation_accuracy": found, "constant_accuracy": constant, "margin": margin},
    )


def _every_document_scored(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    expected = set(predictions.Examples.read(inputs["evaluation_sets"], artifact.json("serving.json")["labels"]).doc_ids)
    table = artifact.table("predictions.parquet", ["model", "doc_id"]).to_pylist()
    names = sorted({row["model"] for row in table})
    missing = {name: len(expected - {row["doc_id"] for row in table if row["model"] == name}) for name in names}
    return Verdict(
        check="every_document_scored",
        passed=FINETUNED in names and not any(missing.values()),
        description=f"{len(expected)} evaluation documents with a label learnt; without a prediction: {missing or 'all, no model scored any'}",
        values=missing,
    )


LINK = Link(
    name="finetuned_model",
    version=2,
    make=finetuned_model,
    config=FinetunedModelConfig,
    inputs=("pretrained_checkpoint", "tokenizer", "labelled_examples", "evaluation_sets", "compute"),
    stage="model",
    role="model-training",
    kinds=("torch", "deepspeed", "huggingface", "scikitlearn"),
    checks=(
        Check("beats_majority", "The classifier beats the best constant answer on the validation split by the stated margin.", _beats_majority),
        Check("every_document_scored", "Every model compared was scored on every evaluation document whose label it learns.", _every_document_scored),
        Check("weights_finite", "No weight is infinite or not a number.", weights_finite),
    ),
    trained=True,
    libraries=("torch", "transformers", "deepspeed", "safetensors", "scikit-learn", "datasets"),
)
