"""A scorecard as Markdown: what the asset shows and `llm-assets scorecard --markdown` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SPEED = ("MB", "p50 ms", "p99 ms", "texts/s", "s to make", "GB to make")
CLASSES = ("model", "label", "precision", "recall", "F1", "documents")
FIGURES: dict[str, dict[str, str]] = {  # of each problem, in the order of the columns
    "single_label": {
        "test_accuracy": "accuracy", "test_macro_f1": "macro F1", "calibration_error": "calibration error", "brier_score": "Brier score",
    },
    "multi_label": {
        "test_micro_f1": "micro F1", "test_macro_f1": "macro F1", "test_subset_accuracy": "all labels right",
        "calibration_error": "calibration error", "brier_score": "Brier score",
    },
    "regression": {"test_r2": "R²", "test_mse": "squared error", "test_mae": "absolute error", "test_pearson": "Pearson"},
}  # fmt: skip


def as_markdown(record: Mapping[str, Any]) -> str:
    """The models, worst first, and their labels or tasks as Markdown tables, and what the figures rest on."""
    return _generating(record) if record.get("problem") == "generation" else _classifying(record)


def _classifying(record: Mapping[str, Any]) -> str:
    classes = [
        (model["name"], label, *(f"{figures[name]:.3f}" for name in ("precision", "recall", "f1")), f"{figures['support']:,}")
        for model in record["models"]
        for label, figures in model["per_class"].items()
    ]
    split, problem = record["split"], record.get("problem", "single_label")
    intervals = record["models"][0] if record["models"] else {}
    columns = [title + (" (95%)" if f"{name}_interval" in intervals else "") for name, title in FIGURES[problem].items()]
    unit = "squared error less than the baseline (95%)" if problem == "regression" else "points against baseline (95%)"
    lines = [
        f"# {record['chain']}",
        "",
        *_table(("model", *columns, *SPEED, unit), [_model(model, problem) for model in record["models"]]),
        "",
        *(_table(CLASSES, classes) if classes else ()),
        "",
        f"{split['train']} training, {split['validation']} validation and {split['test']} test documents; trainings behind each figure: "
        f"{record['seeds']}. The intervals are over test documents (bootstrap). The baseline compared with, strongest on validation: "
        f"{record['baseline'] or 'none was trained'}.",
        "",
        f"Against the champion: {record['champion']['found']}.",
        *(["", f"A canary is to answer otherwise in {foretold}."] if (foretold := record["champion"].get("prediction")) else []),
    ]
    return "\n".join(lines) + "\n"


def _generating(record: Mapping[str, Any]) -> str:
    rows = [
        (
            model["name"],
            _figure(model, "test_bits_per_byte"),
            f"{model['test_perplexity']:.2f}",
            f"{model['bytes'] / 1e6:.2f}",
            *(f"{model[name]:.2f}" if model.get(name) is not None else "" for name in ("p50_ms", "p99_ms", "tokens_per_second")),
        )
        for model in record["models"]
    ]
    figures = sorted({name for found in record["tasks"].values() for name in found})
    tasks = [(name, *(f"{found[figure]:.4g}" if figure in found else "" for figure in figures)) for name, found in record["tasks"].items()]
    columns = ("model", "bits per byte (95%)", "perplexity", "MB", "p50 ms to the first token", "p99 ms", "tokens/s")
    split, cost = record["split"], record["models"][0]["cost"]
    lines = [
        f"# {record['chain']}",
        "",
        *_table(columns, rows),
        "",
        "What the finetuned model does on the test split, beside its baselines:",
        "",
        *_table(("model", *figures), tasks),
        "",
        f"{split['train']} conversations to learn from, {split['validation']} validation and {split['test']} test documents; trainings behind each "
        f"figure: {record['seeds']}. The intervals are over test documents (bootstrap). {cost['seconds']:,.1f} s to make.",
        "",
        f"Against the champion: {record['champion']['found']}.",
        *(["", f"How far a canary's replies are to be apart from the champion's: {said}."] if (said := record["champion"].get("prediction")) else []),
    ]
    return "\n".join(lines) + "\n"


def _model(model: Mapping[str, Any], problem: str) -> tuple[str, ...]:
    cost, compared = model["cost"], model["against_baseline"]
    memory, scale = cost["peak_memory_bytes"], 1 if problem == "regression" else 100
    return (
        model["name"],
        *(_figure(model, name) for name in FIGURES[problem]),
        f"{model['bytes'] / 1e6:.2f}",
        f"{model['p50_ms']:.2f}",
        f"{model['p99_ms']:.2f}",
        f"{model['texts_per_second']:,.0f}",
        f"{cost['seconds']:,.1f}",
        "" if memory is None else f"{memory / 1e9:.2f}",
        "" if compared is None else f"{scale * compared['difference']:+.1f} {_interval([scale * end for end in compared['interval']], '+.1f')}",
    )


def _figure(model: Mapping[str, Any], name: str) -> str:
    ends = model.get(f"{name}_interval")
    return f"{model[name]:.3f}" + (f" {_interval(ends, '.3f')}" if ends else "")


def _interval(ends: Sequence[float], form: str) -> str:
    return f"({ends[0]:{form}} to {ends[1]:{form}})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
