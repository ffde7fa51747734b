"""A scorecard as Markdown: what the asset shows and `llm-assets scorecard --markdown` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MODELS = (
    "model", "accuracy (95%)", "macro F1 (95%)", "calibration error", "Brier score", "MB", "p50 ms", "p99 ms", "texts/s", "s to make", "GB to make",
    "points against baseline (95%)",
)  # fmt: skip
CLASSES = ("model", "label", "precision", "recall", "F1", "documents")


def as_markdown(record: Mapping[str, Any]) -> str:
    """The models, worst first, and their labels as Markdown tables, and what the figures rest on."""
    classes = [
        (model["name"], label, *(f"{figures[name]:.3f}" for name in ("precision", "recall", "f1")), f"{figures['support']:,}")
        for model in record["models"]
        for label, figures in model["per_class"].items()
    ]
    split = record["split"]
    lines = [
        f"# {record['chain']}",
        "",
        *_table(MODELS, [_model(model) for model in record["models"]]),
        "",
        *_table(CLASSES, classes),
        "",
        f"{split['train']} training, {split['validation']} validation and {split['test']} test documents; trainings behind each figure: "
        f"{record['seeds']}. The intervals are over test documents (bootstrap). The baseline compared with, strongest on validation: "
        f"{record['baseline'] or 'none was trained'}.",
    ]
    return "\n".join(lines) + "\n"


def _model(model: Mapping[str, Any]) -> tuple[str, ...]:
    cost, compared = model["cost"], model["against_baseline"]
    memory = cost["peak_memory_bytes"]
    return (
        model["name"],
        f"{model['test_accuracy']:.3f} {_interval(model['test_accuracy_interval'], '.3f')}",
        f"{model['test_macro_f1']:.3f} {_interval(model['test_macro_f1_interval'], '.3f')}",
        f"{model['calibration_error']:.3f}",
        f"{model['brier_score']:.3f}",
        f"{model['bytes'] / 1e6:.2f}",
        f"{model['p50_ms']:.2f}",
        f"{model['p99_ms']:.2f}",
        f"{model['texts_per_second']:,.0f}",
        f"{cost['seconds']:,.1f}",
        "" if memory is None else f"{memory / 1e9:.2f}",
        "" if compared is None else f"{100 * compared['difference']:+.1f} {_interval([100 * end for end in compared['interval']], '+.1f')}",
    )


def _interval(ends: Sequence[float], form: str) -> str:
    return f"({ends[0]:{form}} to {ends[1]:{form}})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
