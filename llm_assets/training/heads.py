"""What a classifier answers, one label, several or a number: how its labels are written, its loss, and what its evaluations are judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy
    import torch

Problem = Literal["single_label", "multi_label", "regression"]
Target = int | float | list[float]
SEPARATOR = "|"  # between the labels of one text: `hotel|price`; the empty string says that none applies
VALUE = "value"  # what the one output of a regression is called
IGNORED = -100  # the label that transformers' losses leave out
PROBLEM_TYPES: dict[Problem, str] = {  # transformers' names
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
METRICS: dict[Problem, str] = {"single_label": "accuracy", "multi_label": "micro_f1", "regression": "mse"}  # that evaluations are judged by


class LabelError(ValueError):
    """A label is none that the problem has."""


def parts(label: str, problem: Problem) -> list[str]:
    """The names in a label as it stands in a table, in alphabetical order and without repetition; a number has the one name ``VALUE``.

    Raises ``LabelError`` for a regression's label that is no finite number.
    """
    if problem == "multi_label":
        return sorted({name.strip() for name in label.split(SEPARATOR)} - {""})
    if problem == "regression":
        _number(label)
        return [VALUE]
    return [label]


def canonical(label: str, problem: Problem) -> str:
    """A label as every table has it: several names in alphabetical order, a number as Python writes it. Raises as ``parts`` does."""
    if problem == "regression":
        return repr(_number(label))
    return SEPARATOR.join(parts(label, problem)) if problem == "multi_label" else label


def targets(labels: Sequence[str], names: Sequence[str], problem: Problem) -> list[Target]:
    """What a model with outputs ``names`` should give for each label: a place, a list of 0 and 1, or a number.

    Raises ``LabelError`` for a label that is not among ``names``, or is no number where one is asked for.
    """
    if problem == "regression":
        # The Trainer counts only labels other than IGNORED.
        return [value if value != IGNORED else IGNORED + 1e-4 for value in map(_number, labels)]
    place = {name: index for index, name in enumerate(names)}
    found: list[Target] = []
    for label in labels:
        named = parts(label, problem)
        if unknown := [name for name in named if name not in place]:
            raise LabelError(f"the label {', '.join(unknown)} is not among those of the model: {', '.join(names)}")
        found.append([float(name in named) for name in names] if problem == "multi_label" else place[label])
    return found


def loss(problem: Problem, weighted: bool = False) -> Callable[..., torch.Tensor]:
    """The loss of an update, as transformers' Trainer asks for it: (outputs, labels, num_items_in_batch).

    Cross-entropy, binary cross-entropy or squared error, summed and divided by the entries of ``labels`` in the whole update,
    which the Trainer then multiplies by the processes. ModernBERT's own classification loss takes that number and ignores it,
    so the Trainer's factor would double loss and gradients on two processes. Labels are int64 [texts], or float32 [texts, labels]
    (multi_label) or [texts] (regression); ``weighted`` ones are float32 [texts, columns + 1], the last column each text's weight.
    """

    def mean(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
        count: int | torch.Tensor = labels.numel() if num_items_in_batch is None else num_items_in_batch
        if not weighted:
            return _losses(problem, outputs["logits"], labels, "sum") / count
        columns = labels.shape[1] - 1
        aim = labels[:, :-1] if problem == "multi_label" else labels[:, 0]
        each = _losses(problem, outputs["logits"], aim if problem != "single_label" else aim.long(), "none")
        entries = count * columns / (columns + 1)  # the weights were counted as well
        return (each.reshape(len(labels), -1).sum(1) * labels[:, -1]).sum() / entries

    return mean


def validation(problem: Problem, logits: numpy.ndarray, aims: Sequence[Target], documents: Sequence[int]) -> dict[str, float]:
    """The metric of an evaluation by its name in ``METRICS``, and ``score``, of which more is better.

    ``logits`` are [texts, outputs]; those of one of ``documents`` are averaged as probabilities, as in service.
    """
    import numpy
    import torch

    answers = probabilities(problem, torch.from_numpy(numpy.asarray(logits, dtype=numpy.float64))).numpy()
    _, first, place = numpy.unique(numpy.asarray(documents), return_index=True, return_inverse=True)
    mean = numpy.zeros((len(first), answers.shape[1]))
    numpy.add.at(mean, place, answers)
    mean /= numpy.bincount(place)[:, None]
    truth = numpy.asarray([aims[index] for index in first])
    if problem == "regression":
        value = float(((mean[:, 0] - truth) ** 2).mean())
    elif problem == "multi_label":
        said = mean >= 0.5
        value = float(2 * (said * truth).sum() / max(1.0, said.sum() + truth.sum()))
    else:
        value = float((mean.argmax(1) == truth).mean())
    return {METRICS[problem]: value, "score": -value if problem == "regression" else value}


def probabilities(problem: Problem, logits: torch.Tensor) -> torch.Tensor:
    """Softmax, sigmoid, or the value itself, of logits [texts, outputs]."""
    if problem == "regression":
        return logits
    return logits.sigmoid() if problem == "multi_label" else logits.softmax(-1)


def _losses(problem: Problem, logits: torch.Tensor, aims: torch.Tensor, reduction: str) -> torch.Tensor:
    from torch.nn import functional

    if problem == "single_label":
        return functional.cross_entropy(logits.float(), aims, reduction=reduction)
    if problem == "multi_label":
        return functional.binary_cross_entropy_with_logits(logits.float(), aims.float(), reduction=reduction)
    return functional.mse_loss(logits.float().squeeze(-1), aims.float(), reduction=reduction)


def _number(label: str) -> float:
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LabelError(f"the label {label!r} is no finite number, which regression learns from")
    return value
