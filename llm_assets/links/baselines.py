"""The baselines of finetuned_model: fitted here, or trained by the same worker on the same split, and what each is worth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from llm_assets.evaluation import predictions
from llm_assets.evaluation.baselines import MAJORITY, TFIDF, TFIDF_WORDS, Classifier, Majority, TfidfLogisticRegression, WordTfidfLogisticRegression
from llm_assets.evaluation.latency import single_text_latency, throughput
from llm_assets.links.link import Bench
from llm_assets.links.training import train
from llm_assets.store.progress import Progress, silent
from llm_assets.store.strict import Strict
from llm_assets.training.heads import Problem
from llm_assets.training.job import TrainingJob

if TYPE_CHECKING:
    from llm_assets.evaluation.torch_classifier import TorchClassifier

Baseline = Literal["majority", "tfidf_logistic_regression", "tfidf_words_logistic_regression", "conv1d", "lstm", "gru"]
FITTED: dict[str, type[Majority] | type[TfidfLogisticRegression]] = {
    MAJORITY: Majority,
    TFIDF: TfidfLogisticRegression,
    TFIDF_WORDS: WordTfidfLogisticRegression,
}
LATENCY_CALLS = 60
Measured = tuple[dict[str, Any], list[dict[str, Any]]]  # figures and rows of predictions


class BaselineTraining(Strict):
    """How conv1d, lstm and gru are trained, which begin with random weights; all else is as for the encoder."""

    epochs: float = Field(4.0, gt=0, description="passes over the labelled examples")
    learning_rate: float = Field(2e-3, gt=0, description="highest learning rate")


def fitted(name: str, folder: Path, known: Mapping[str, Sequence[str]], examples: predictions.Examples, problem: Problem) -> Measured:
    """Fit a baseline that needs no worker, keep it in ``folder``, and score it."""
    before, started = _bytes(folder), time.perf_counter()
    baseline = FITTED[name].fit(known["text"], known["label"], problem)
    seconds = round(time.perf_counter() - started, 6)  # a majority vote takes microseconds
    baseline.save(folder)
    probabilities, speed = throughput(baseline.classify, examples.texts)
    rows = predictions.rows(name, examples, probabilities, baseline.labels, problem)
    figures = {"bytes": _bytes(folder) - before, "texts_per_second": speed, "training_seconds": seconds}
    return {**predictions.scores(rows, problem), **figures}, rows


def trained(name: str, bench: Bench, job: TrainingJob, processes: int, compute: Mapping[str, Any], examples: predictions.Examples) -> Measured:
    """Train a baseline in the worker, in a launch of its own, and score what it saved, which reads the tokenizer of ``bench``'s model."""
    from llm_assets.evaluation.torch_classifier import TorchClassifier

    for place in (job.scratch, job.output):
        place.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    summary = train(replace(bench, directory=job.output, scratch=job.scratch), job, processes, compute)
    seconds = round(time.perf_counter() - started, 3)
    figures, rows = scored(name, TorchClassifier(job.output, bench.directory), examples)
    size = (job.output / "model.safetensors").stat().st_size
    return {**figures, "bytes": size, "training_seconds": seconds, "peak_memory_bytes": summary.get("peak_memory_bytes")}, rows


def scored(name: str, model: TorchClassifier, examples: predictions.Examples, progress: Progress = silent) -> Measured:
    """Predictions of a torch model for all evaluation documents, their worth, and its speed."""
    probabilities, speed = throughput(lambda texts: model.classify(texts, progress), examples.texts)
    rows = predictions.rows(name, examples, probabilities, model.labels, model.problem)
    latency = single_text_latency(model.classify, examples.texts, LATENCY_CALLS)
    return {**predictions.scores(rows, model.problem), **latency, "texts_per_second": speed}, rows


def load(name: str, folder: Path) -> Classifier | None:
    """A fitted baseline out of ``folder``; None for one that only torch runs."""
    return FITTED[name].load(folder) if name in FITTED else None


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
