"""The finetuned classifier as an int8 ONNX graph, which serves without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.evaluation import predictions
from llm_assets.evaluation.quality import agreement
from llm_assets.links import plots
from llm_assets.links.finetuned_model import FINETUNED
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict

QUANTIZED = "quantized"
BATCH = 64


class QuantizedModelConfig(Section):
    """How the weights are rounded, and what that may cost."""

    per_channel: bool = Field(False, description="one scale an output channel instead of one a matrix; try it where the drop is too large")
    allowed_drop: float = Field(0.01, ge=0, le=1, description="accuracy on the validation split that rounding may cost; 0.01 is one point")


def quantized_model(bench: Bench, config: QuantizedModelConfig, finetuned_model: Artifact, evaluation_sets: Artifact) -> Made:
    """Exports the classifier to ONNX, rounds its weights to int8 and scores the result with the engine that will serve it.

    A quarter of the size. Accuracy against the float model is measured document by document: the drop on the validation
    split decides, the one on the test split is reported.
    """
    from llm_assets.compression.export import export_classifier
    from llm_assets.compression.quantize import quantize_int8

    exported = bench.scratch / "float.onnx"
    bench.progress(0, 3, "steps")
    export_classifier(finetuned_model.directory, exported)
    bench.progress(1, 3, "steps")
    quantize_int8(exported, bench.directory / "model.onnx", config.per_channel)
    bench.progress(2, 3, "steps")
    serving = finetuned_model.json("serving.json")
    write_json(bench.directory / "serving.json", {**serving, "normaliser": NORMALISER_VERSION})
    (bench.directory / "tokenizer.json").write_bytes(finetuned_model.path("tokenizer.json").read_bytes())
    rows = _score(bench, predictions.Examples.read(evaluation_sets, serving["labels"]))
    predictions.write(bench.directory / "predictions.parquet", rows)
    size = (bench.directory / "model.onnx").stat().st_size
    comparison = {split: _compare(finetuned_model, [row for row in rows if row["split"] == split], split) for split in predictions.SPLITS}
    float_size = finetuned_model.path("model.safetensors").stat().st_size
    plots.bars(bench.directory, "size", {"float32": float_size / 1e6, "int8": size / 1e6}, "Model size", "MB")
    models = {QUANTIZED: {**predictions.scores(rows), "bytes": size}}
    return Made({"models": models, "against_float": comparison, "times_smaller": round(float_size / size, 2)})


def _score(bench: Bench, examples: predictions.Examples) -> list[dict[str, Any]]:
    """Predictions of the written directory, through the serving engine."""
    from llm_assets.serving.engine import OnnxClassifier

    engine = OnnxClassifier(bench.directory, threads=2)
    order = sorted(range(len(examples.texts)), key=lambda index: len(examples.texts[index]))
    probabilities: list[list[float]] = [[] for _ in order]
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        for index, row in zip(chosen, engine.classify([examples.texts[index] for index in chosen]), strict=True):
            probabilities[index] = row
        bench.progress(start + len(chosen), len(order), "documents scored")
    return predictions.rows(QUANTIZED, examples, probabilities, engine.labels)


def _compare(finetuned_model: Artifact, rows: list[dict[str, Any]], split: str) -> dict[str, float]:
    """Drop in accuracy (float minus int8) and agreement on one split."""
    reference = predictions.read(finetuned_model, FINETUNED, split)
    drop = predictions.scores(reference)[split]["accuracy"] - predictions.scores(rows)[split]["accuracy"]
    return {"drop": drop, "agreement": agreement(predictions.predicted(reference), predictions.predicted(rows))}


def drop_within(quantized: Artifact, finetuned: Artifact, allowed: float) -> Verdict:
    """Whether int8 loses at most ``allowed`` accuracy on the validation split, judged from the two tables of predictions."""
    found = {split: _compare(finetuned, predictions.read(quantized, QUANTIZED, split), split) for split in predictions.SPLITS}
    drop = found["validation"]["drop"]
    return Verdict(
        check="drop_within",
        passed=drop <= allowed + 1e-9,
        description=(
            f"int8 loses {100 * drop:.2f} points on validation (at most {100 * allowed:.2f}), {100 * found['test']['drop']:.2f} on test; "
            f"same answer on {100 * found['test']['agreement']:.1f}% of the test documents"
        ),
        values={f"{split}_{name}": value for split, values in found.items() for name, value in values.items()},
    )


def _drop_within(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    return drop_within(artifact, inputs["finetuned_model"], artifact.manifest.recipe["config"]["allowed_drop"])


LINK = Link(
    name="quantized_model",
    version=1,
    make=quantized_model,
    config=QuantizedModelConfig,
    inputs=("finetuned_model", "evaluation_sets"),
    stage="model",
    role="model-optimization",
    kinds=("onnx",),
    checks=(Check("drop_within", "Rounding to int8 costs at most the allowed accuracy on the validation split.", _drop_within),),
    trained=True,
    libraries=("onnx", "onnxruntime", "onnxscript", "torch"),
)
