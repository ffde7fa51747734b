"""The finetuned classifier as an int8 ONNX graph, which serves without torch."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.evaluation import predictions
from llm_assets.evaluation.latency import BATCH, alternating_latency, throughput
from llm_assets.evaluation.quality import agreement, agreement_by_label
from llm_assets.links import pages, plots
from llm_assets.links.finetuned_model import FINETUNED
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.progress import Progress, silent
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    from llm_assets.serving.engine import OnnxClassifier

QUANTIZED = "quantized"
METHODS: tuple[Method, ...] = ("dynamic", "static")
LATENCY_CALLS = 60
COLUMNS = ("validation_accuracy", "drop", "agreement", "p50_ms", "p99_ms", "bytes", "seconds")
Method = Literal["dynamic", "static"]
Rows = list[dict[str, Any]]


class QuantizedModelConfig(Section):
    """How the weights are rounded, and what that may cost."""

    method: Literal["auto", "dynamic", "static"] = Field(
        "auto", description="dynamic: activations rounded as they come; static: over calibrated ranges; auto: both made, the better one taken"
    )
    calibration_texts: int = Field(256, ge=1, description="labelled training examples, drawn by hash, that set the static ranges")
    per_channel: bool = Field(False, description="one scale an output channel instead of one a matrix; try it where the drop is too large")
    allowed_drop: float = Field(0.01, ge=0, le=1, description="accuracy on the validation split that rounding may cost; 0.01 is one point")


def quantized_model(
    bench: Bench, config: QuantizedModelConfig, finetuned_model: Artifact, labelled_examples: Artifact, evaluation_sets: Artifact
) -> Made:
    """Exports the classifier to ONNX, rounds it to int8 and scores the result with the engine that will serve it.

    A quarter of the size. With `method: auto` it is rounded twice, with ranges of activations found as they come (dynamic) and
    calibrated on training examples (static). The one that loses less accuracy on the validation split is taken; where the two
    differ by one document at most, the one that answers a single text faster, timed by turns. Such a tie may fall differently
    on another machine: name the method where that matters. Accuracy against the float model is measured document by document:
    the drop on the validation split decides, the one on the test split is reported, for the model taken alone.
    """
    from llm_assets.serving.engine import OnnxClassifier

    texts = [] if config.method == "dynamic" else calibration_texts(labelled_examples, config.calibration_texts)
    made = _candidates(bench, config, finetuned_model, texts)
    examples = predictions.Examples.read(evaluation_sets, finetuned_model.json("serving.json")["labels"])
    validation, cores = examples.of("validation"), os.cpu_count() or 1
    rows = {method: _score(OnnxClassifier(folder, threads=cores), validation)[0] for method, (folder, _) in made.items()}
    # Timed on one core, as the gateway answers.
    latency = alternating_latency({method: OnnxClassifier(folder).classify for method, (folder, _) in made.items()}, validation.texts, LATENCY_CALLS)
    candidates = {
        method: {**_figures(finetuned_model, rows[method], folder), **latency[method], "seconds": seconds}
        for method, (folder, seconds) in made.items()
    }
    chosen = better(candidates, len(validation.texts))
    for name in ("model.onnx", "tokenizer.json", "serving.json"):
        shutil.copyfile(made[chosen][0] / name, bench.directory / name)
    tested, speed = _score(OnnxClassifier(bench.directory, threads=cores), examples.of("test"), bench.progress)
    predictions.write(bench.directory / "predictions.parquet", rows[chosen] + tested)
    size, float_size = candidates[chosen]["bytes"], finetuned_model.path("model.safetensors").stat().st_size
    _show(bench.directory, candidates, chosen, float_size, len(validation.texts))
    return Made(
        {
            "models": {QUANTIZED: {**predictions.scores(rows[chosen] + tested), "bytes": size, "texts_per_second": speed}},
            "method": chosen,
            "candidates": candidates,
            "calibration_texts": len(texts),
            "against_float": {
                "validation": _against_float(finetuned_model, rows[chosen], "validation"),
                "test": _against_float(finetuned_model, tested, "test"),
            },
            "times_smaller": round(float_size / size, 2),
        }
    )


def better(candidates: Mapping[Method, Mapping[str, float]], documents: int) -> Method:
    """The method with the smallest ``drop`` over so many validation documents; among those within one document of it, the lowest ``p50_ms``."""
    lost = {method: round(figures["drop"] * documents) for method, figures in candidates.items()}
    level = [method for method in candidates if lost[method] <= min(lost.values()) + 1]
    return min(level, key=lambda method: candidates[method]["p50_ms"])


def calibration_texts(labelled_examples: Artifact, count: int) -> list[str]:
    """At most ``count`` training texts, those whose document's hash is smallest: the same ones for the same examples in any order."""
    rows = labelled_examples.table("train.parquet", ["doc_id", "text"]).to_pylist()
    rows.sort(key=lambda row: hashlib.sha256(f"calibration:{row['doc_id']}".encode()).digest())
    return [row["text"] for row in rows[:count]]


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


def _candidates(bench: Bench, config: QuantizedModelConfig, finetuned_model: Artifact, texts: Sequence[str]) -> dict[Method, tuple[Path, float]]:
    """By method, a folder that the serving engine opens and the seconds that rounding took."""
    from llm_assets.compression.export import export_classifier
    from llm_assets.compression.quantize import quantize_dynamic, quantize_static
    from llm_assets.serving.engine import OnnxClassifier

    methods = METHODS if config.method == "auto" else (config.method,)
    floating = _folder(bench.scratch / "float", finetuned_model)
    bench.progress(0, len(methods) + 1, "steps")
    export_classifier(finetuned_model.directory, floating / "model.onnx")
    made = {}
    for number, method in enumerate(methods, 1):
        bench.progress(number, len(methods) + 1, "steps")
        started, folder = time.perf_counter(), _folder(bench.scratch / method, finetuned_model)
        if method == "dynamic":
            quantize_dynamic(floating / "model.onnx", folder / "model.onnx", config.per_channel)
        else:
            engine = OnnxClassifier(floating)
            feeds = (engine.feed([ids]) for ids in engine.encode(texts))  # one by one: padding must not widen the ranges
            quantize_static(floating / "model.onnx", folder / "model.onnx", feeds, config.per_channel)
        made[method] = folder, round(time.perf_counter() - started, 3)
    return made


def _folder(directory: Path, finetuned_model: Artifact) -> Path:
    """A folder with all that the serving engine reads but the graph."""
    directory.mkdir(exist_ok=True)
    shutil.copyfile(finetuned_model.path("tokenizer.json"), directory / "tokenizer.json")
    write_json(directory / "serving.json", {**finetuned_model.json("serving.json"), "normaliser": NORMALISER_VERSION})
    return directory


def _score(engine: OnnxClassifier, examples: predictions.Examples, progress: Progress = silent) -> tuple[Rows, float]:
    """Predictions in batches of texts of like length, and how many of them came a second."""

    def classify(texts: Sequence[str]) -> list[list[float]]:
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        probabilities: list[list[float]] = [[] for _ in order]
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            for index, row in zip(chosen, engine.classify([texts[index] for index in chosen]), strict=True):
                probabilities[index] = row
            progress(start + len(chosen), len(order), "documents scored")
        return probabilities

    probabilities, speed = throughput(classify, examples.texts)
    return predictions.rows(QUANTIZED, examples, probabilities, engine.labels), speed


def _figures(finetuned_model: Artifact, rows: Rows, folder: Path) -> dict[str, float]:
    """What a candidate is worth on the validation split."""
    found = _compare(finetuned_model, rows, "validation")
    accuracy = predictions.scores(rows)["validation"]["accuracy"]
    return {"validation_accuracy": accuracy, **found, "bytes": (folder / "model.onnx").stat().st_size}


def _compare(finetuned_model: Artifact, rows: Rows, split: str) -> dict[str, float]:
    """Drop in accuracy (float minus int8) and agreement on one split."""
    reference = predictions.read(finetuned_model, FINETUNED, split)
    drop = predictions.scores(reference)[split]["accuracy"] - predictions.scores(rows)[split]["accuracy"]
    return {"drop": drop, "agreement": agreement(predictions.predicted(reference), predictions.predicted(rows))}


def _against_float(finetuned_model: Artifact, rows: Rows, split: str) -> dict[str, Any]:
    """Like ``_compare``, with the agreement on the documents of each true label."""
    reference = predictions.predicted(predictions.read(finetuned_model, FINETUNED, split))
    labels = {row["doc_id"]: row["label"] for row in rows}
    by_label = agreement_by_label(reference, predictions.predicted(rows), labels)
    return {**_compare(finetuned_model, rows, split), "agreement_by_label": by_label}


def _show(directory: Path, candidates: Mapping[Method, Mapping[str, float]], chosen: Method, float_size: int, documents: int) -> None:
    """The page `candidates` and the plot `size`."""
    rows = [
        (f"{method} (taken)" if method == chosen else method, *(f"{figures[name]:,.6g}" for name in COLUMNS))
        for method, figures in candidates.items()
    ]
    note = f"On {documents} validation documents; drop is the float model's accuracy less int8's, seconds is what rounding took."
    pages.table(directory, "candidates", "Ways to int8", ("method", *COLUMNS), rows, note)
    sizes: dict[str, float] = {"float32": float_size, **{method: figures["bytes"] for method, figures in candidates.items()}}
    plots.bars(directory, "size", {name: size / 1e6 for name, size in sizes.items()}, "Model size", "MB")


def _drop_within(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    return drop_within(artifact, inputs["finetuned_model"], artifact.manifest.recipe["config"]["allowed_drop"])


LINK = Link(
    name="quantized_model",
    version=2,
    make=quantized_model,
    config=QuantizedModelConfig,
    inputs=("finetuned_model", "labelled_examples", "evaluation_sets"),
    stage="model",
    role="model-optimization",
    kinds=("onnx",),
    checks=(Check("drop_within", "Rounding to int8 costs at most the allowed accuracy on the validation split.", _drop_within),),
    trained=True,
    libraries=("onnx", "onnxruntime", "onnxscript", "torch"),
)
