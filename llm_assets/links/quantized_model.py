"""The finetuned classifier as an int8 ONNX graph, which serves without torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from llm_assets.corpus.normalise import NORMALISER_VERSION
from llm_assets.evaluation import predictions
from llm_assets.evaluation.latency import BATCH, alternating_latency, throughput
from llm_assets.evaluation.quality import SCORES, agreement, agreement_by_label, figures
from llm_assets.evaluation.torch_classifier import refuse_other_labels
from llm_assets.links import pages, plots
from llm_assets.links.finetuned_model import FINETUNED
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import sha256_file, write_json
from llm_assets.store.progress import Progress, silent
from llm_assets.store.verdict import Verdict
from llm_assets.training.heads import Problem

if TYPE_CHECKING:
    from llm_assets.serving.engine import OnnxClassifier

QUANTIZED = "quantized"
METHODS: tuple[Method, ...] = ("dynamic", "static")
LATENCY_CALLS = 60
COLUMNS = ("drop", "agreement", "p50_ms", "p99_ms", "bytes", "seconds")
Method = Literal["dynamic", "static"]
Rows = list[dict[str, Any]]


class QuantizedModelConfig(Section):
    """How the weights are rounded, and what that may cost."""

    method: Literal["auto", "dynamic", "static"] = Field(
        "auto", description="dynamic: activations rounded as they come; static: over calibrated ranges; auto: both made, the better one taken"
    )
    calibration_texts: int = Field(256, ge=1, description="labelled training examples, drawn by hash, that set the static ranges")
    per_channel: bool = Field(False, description="one scale an output channel instead of one a matrix; try it where the drop is too large")
    allowed_drop: float = Field(0.01, ge=0, le=1, description="score (accuracy, micro F1, R²) on validation that rounding may cost; 0.01 is a point")


def quantized_model(
    bench: Bench, config: QuantizedModelConfig, finetuned_model: Artifact, labelled_examples: Artifact, evaluation_sets: Artifact
) -> Made:
    """Exports the classifier to ONNX, rounds it to int8 and scores the result with the engine that will serve it.

    A quarter of the size. With `method: auto` it is rounded twice, with ranges of activations found as they come (dynamic) and
    calibrated on training examples (static). The one that loses less of its score on the validation split is taken; where the two
    differ by one document at most, the one that answers a single text faster, timed by turns. Such a tie may fall differently
    on another machine: name the method where that matters. The score against the float model is measured document by document:
    the drop on the validation split decides, the one on the test split is reported, for the model taken alone.
    """
    from llm_assets.serving.engine import OnnxClassifier

    texts = [] if config.method == "dynamic" else calibration_texts(labelled_examples, config.calibration_texts)
    made = _candidates(bench, config, finetuned_model, texts)
    problem = problem_of(finetuned_model)
    examples = predictions.Examples.read(evaluation_sets, finetuned_model.json("serving.json")["labels"], problem)
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
    _show(bench.directory, candidates, chosen, float_size, len(validation.texts), f"validation_{SCORES[problem]}")
    return Made(
        {
            "models": {QUANTIZED: {**predictions.scores(rows[chosen] + tested, problem), "bytes": size, "texts_per_second": speed}},
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


def problem_of(finetuned_model: Artifact) -> Problem:
    """What a finetuned model answers."""
    problem: Problem = finetuned_model.manifest.recipe["config"].get("problem", "single_label")
    return problem


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
    """Whether int8 loses at most ``allowed`` of the score on the validation split, judged from the two tables of predictions."""
    found = {split: _compare(finetuned, predictions.read(quantized, QUANTIZED, split), split) for split in predictions.SPLITS}
    drop = found["validation"]["drop"]
    return Verdict(
        check="drop_within",
        passed=drop <= allowed + 1e-9,
        description=(
            f"int8 loses {100 * drop:.2f} points on validation (at most {100 * allowed:.2f}), {100 * found['test']['drop']:.2f} on test; "
            f"agreement on the test documents {100 * found['test']['agreement']:.1f}%"
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
    export_classifier(finetuned_model.directory, floating / "model.onnx", _notes(finetuned_model))
    made = {}
    for number, method in enumerate(methods, 1):
        bench.progress(number, len(methods) + 1, "steps")
        started, folder = time.perf_counter(), _folder(bench.scratch / method, finetuned_model)
        if method == "dynamic":
            quantize_dynamic(floating / "model.onnx", folder / "model.onnx", config.per_channel)
        else:
            engine = OnnxClassifier(floating)
            windows = (window for text in engine.encode(texts) for window in text)
            feeds = (engine.feed([window]) for window in windows)  # one by one: padding must not widen the ranges
            quantize_static(floating / "model.onnx", folder / "model.onnx", feeds, config.per_channel)
        made[method] = folder, round(time.perf_counter() - started, 3)
    return made


def _notes(finetuned_model: Artifact) -> dict[str, str]:
    """What the graph says of itself, so that the engine refuses it beside other labels or another tokenizer.

    Raises ``ValueError`` where the model's labels are not in the order of ``serving.json``.
    """
    labels, named = finetuned_model.json("serving.json")["labels"], finetuned_model.json("config.json")["id2label"]
    refuse_other_labels([named[str(index)] for index in range(len(named))], labels)
    return {"labels": json.dumps(labels), "tokenizer": sha256_file(finetuned_model.path("tokenizer.json"))}


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
    return predictions.rows(QUANTIZED, examples, probabilities, engine.labels, cast(Problem, engine.problem)), speed


def _figures(finetuned_model: Artifact, rows: Rows, folder: Path) -> dict[str, float]:
    """What a candidate is worth on the validation split."""
    problem = problem_of(finetuned_model)
    score = {f"validation_{SCORES[problem]}": predictions.score(rows, "validation", problem)}
    return {**score, **_compare(finetuned_model, rows, "validation"), "bytes": (folder / "model.onnx").stat().st_size}


def _compare(finetuned_model: Artifact, rows: Rows, split: str) -> dict[str, float]:
    """Drop in the score (float minus int8) and agreement on one split: the share of equal answers, or the R² of numbers with float's."""
    problem, reference = problem_of(finetuned_model), predictions.read(finetuned_model, FINETUNED, split)
    drop = predictions.score(reference, split, problem) - predictions.score(rows, split, problem)
    one, other = predictions.predicted(reference), predictions.predicted(rows)
    if problem != "regression":
        return {"drop": drop, "agreement": agreement(one, other)}
    return {"drop": drop, "agreement": figures([one[key] for key in other], list(other.values()), problem)["r2"]}


def _against_float(finetuned_model: Artifact, rows: Rows, split: str) -> dict[str, Any]:
    """Like ``_compare``, with the agreement on the documents of each true label where a text has one."""
    found: dict[str, Any] = _compare(finetuned_model, rows, split)
    if problem_of(finetuned_model) != "single_label":
        return found
    reference = predictions.predicted(predictions.read(finetuned_model, FINETUNED, split))
    labels = {row["doc_id"]: row["label"] for row in rows}
    return {**found, "agreement_by_label": agreement_by_label(reference, predictions.predicted(rows), labels)}


def _show(directory: Path, candidates: Mapping[Method, Mapping[str, float]], chosen: Method, float_size: int, documents: int, score: str) -> None:
    """The page `candidates` and the plot `size`."""
    columns = (score, *COLUMNS)
    rows = [
        (f"{method} (taken)" if method == chosen else method, *(f"{worth[name]:,.6g}" for name in columns)) for method, worth in candidates.items()
    ]
    note = f"On {documents} validation documents; drop is the float model's score less int8's, seconds is what rounding took."
    pages.table(directory, "candidates", "Ways to int8", ("method", *columns), rows, note)
    sizes: dict[str, float] = {"float32": float_size, **{method: figures["bytes"] for method, figures in candidates.items()}}
    plots.bars(directory, "size", {name: size / 1e6 for name, size in sizes.items()}, "Model size", "MB")


def _drop_within(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    return drop_within(artifact, inputs["finetuned_model"], artifact.manifest.recipe["config"]["allowed_drop"])


LINK = Link(
    name="quantized_model",
    version=4,
    make=quantized_model,
    config=QuantizedModelConfig,
    inputs=("finetuned_model", "labelled_examples", "evaluation_sets"),
    stage="model",
    role="programmer",
    kinds=("onnx",),
    checks=(Check("drop_within", "Rounding to int8 costs at most the allowed accuracy on the validation split.", _drop_within),),
    trained=True,
    libraries=("onnx", "onnxruntime", "onnxscript", "torch"),
)
