"""What one model's predictions of a split are worth: every figure of a scorecard's line, with intervals where documents were resampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_assets.evaluation.calibration import Bin, brier_score, expected_calibration_error, label_brier_score, reliability
from llm_assets.evaluation.quality import bootstrap_scores, figures, per_class, per_label
from llm_assets.training.heads import Problem, targets

Rows = list[dict[str, Any]]


def worth(rows: Rows, names: Sequence[str], problem: Problem) -> dict[str, Any]:
    """``test_<figure>`` and ``test_<figure>_interval``, calibration and the report of each label; a number has neither.

    ``rows`` are those of ``predictions.rows``; their probabilities stand in the order of ``names``.
    """
    labels, predicted, probabilities = ([row[column] for row in rows] for column in ("label", "predicted", "probabilities"))
    found: dict[str, Any] = {f"test_{name}": value for name, value in figures(labels, predicted, problem).items()}
    found |= {f"test_{name}_interval": list(ends) for name, ends in bootstrap_scores(labels, predicted, problem).items()}
    if problem == "regression":
        return {**found, "calibration_error": None, "brier_score": None, "per_class": {}}
    truth: Any = targets(labels, names, problem)
    brier = brier_score(probabilities, truth) if problem == "single_label" else label_brier_score(probabilities, truth)
    report = per_class if problem == "single_label" else per_label
    error = expected_calibration_error(confidence(rows, names, problem))
    return {**found, "calibration_error": error, "brier_score": brier, "per_class": report(labels, predicted, names)}


def confidence(rows: Rows, names: Sequence[str], problem: Problem) -> list[Bin]:
    """Answers by how sure they were: one a document, or where a text may have several labels one a document and label."""
    if problem == "single_label":
        return reliability([max(row["probabilities"]) for row in rows], [row["predicted"] == row["label"] for row in rows])
    truth: Any = targets([row["label"] for row in rows], names, problem)
    pairs = [(value, has) for row, aims in zip(rows, truth, strict=True) for value, has in zip(row["probabilities"], aims, strict=True)]
    return reliability([max(value, 1 - value) for value, _ in pairs], [(value >= 0.5) == bool(has) for value, has in pairs])
