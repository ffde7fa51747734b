"""How good a classifier's predictions are, and whether one classifier's are better than another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


def accuracy(labels: Sequence[str], predicted: Sequence[str]) -> float:
    """The share of equal pairs. Raises ``ValueError`` for sequences that are empty or of unequal length."""
    _require(labels, predicted)
    return sum(label == guess for label, guess in zip(labels, predicted, strict=True)) / len(labels)


def macro_f1(labels: Sequence[str], predicted: Sequence[str]) -> float:
    """The mean over the classes in ``labels`` of F1 = 2 TP / (2 TP + FP + FN); every class weighs the same."""
    scores = [figures["f1"] for figures in per_class(labels, predicted, sorted(set(labels))).values()]
    return sum(scores) / len(scores)


def per_class(labels: Sequence[str], predicted: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """By label: ``precision``, ``recall``, ``f1`` and ``support`` (documents that carry it). A share of nothing is 0, as in scikit-learn."""
    _require(labels, predicted)
    report = {}
    for name in names:
        hits = sum(label == guess == name for label, guess in zip(labels, predicted, strict=True))
        support, guesses = sum(label == name for label in labels), sum(guess == name for guess in predicted)
        report[name] = {
            "precision": hits / guesses if guesses else 0.0,
            "recall": hits / support if support else 0.0,
            "f1": 2 * hits / (support + guesses) if support + guesses else 0.0,
            "support": support,
        }
    return report


def confusion(labels: Sequence[str], predicted: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Counts by true label, then by predicted label."""
    table = {name: dict.fromkeys(names, 0) for name in names}
    for label, guess in zip(labels, predicted, strict=True):
        table[label][guess] += 1
    return table


def agreement(one: Mapping[str, str], other: Mapping[str, str]) -> float:
    """The share of common documents on which two classifiers say the same. Raises ``ValueError`` where none is common."""
    common = one.keys() & other.keys()
    if not common:
        raise ValueError("the two sets of predictions have no document in common: score both on one evaluation set")
    return sum(one[key] == other[key] for key in common) / len(common)


def agreement_by_label(one: Mapping[str, str], other: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, float]:
    """``agreement`` on the documents of each true label; ``labels`` are the true ones, by document."""
    documents: dict[str, set[str]] = {}
    for key, label in labels.items():
        documents.setdefault(label, set()).add(key)
    return {label: agreement({key: one[key] for key in one.keys() & keys}, other) for label, keys in sorted(documents.items())}


def bootstrap_intervals(labels: Sequence[str], predicted: Sequence[str], samples: int = 2000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The 95% intervals of ``accuracy`` and ``macro_f1``, resampling documents (percentile bootstrap, Efron & Tibshirani 1993, chapter 13).

    They say how much the figures would move with another draw of as many documents; another training is not in them.
    """
    import numpy

    _require(labels, predicted)
    names = sorted({*labels, *predicted})
    table = confusion(labels, predicted, names)
    counts: numpy.ndarray = numpy.array([[table[label][guess] for guess in names] for label in names])
    # Documents of one cell are alike, so a resample is one multinomial draw of the confusion table.
    shares = counts.ravel() / len(labels)
    drawn = numpy.random.default_rng(seed).multinomial(len(labels), shares, size=samples).reshape(samples, *counts.shape)
    hits, support, guesses = numpy.diagonal(drawn, axis1=1, axis2=2), drawn.sum(axis=2), drawn.sum(axis=1)
    scores = 2 * hits / numpy.maximum(support + guesses, 1)
    # As in ``macro_f1``, a label that no drawn document carries does not count.
    found = {"accuracy": hits.sum(axis=1) / len(labels), "macro_f1": (scores * (support > 0)).sum(axis=1) / (support > 0).sum(axis=1)}
    return {name: (float(numpy.quantile(values, 0.025)), float(numpy.quantile(values, 0.975))) for name, values in found.items()}


@dataclass(frozen=True)
class Difference:
    """One classifier minus another in accuracy over the same documents, with a 95% interval."""

    documents: int
    mean: float
    low: float
    high: float

    @property
    def is_clearly_worse(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.high < 0


def paired_bootstrap(candidate: Mapping[str, bool], champion: Mapping[str, bool], samples: int = 2000, seed: int = 0) -> Difference | None:
    """Compare which documents two classifiers got right, resampling documents (Efron & Tibshirani 1993, chapter 13).

    Pairing by document takes out the part of the noise that both share. None where no document is common.
    """
    import numpy

    common = sorted(candidate.keys() & champion.keys())
    if not common:
        return None
    gains: numpy.ndarray = numpy.array([int(candidate[key]) - int(champion[key]) for key in common])
    random = numpy.random.default_rng(seed)
    # Only three values occur, so a resample is one multinomial draw of their counts.
    values, counts = numpy.unique(gains, return_counts=True)
    means = random.multinomial(len(gains), counts / len(gains), size=samples) @ values / len(gains)
    low, high = numpy.quantile(means, (0.025, 0.975))
    return Difference(len(common), float(gains.mean()), float(low), float(high))


def _require(labels: Sequence[str], predicted: Sequence[str]) -> None:
    if not labels or len(labels) != len(predicted):
        raise ValueError(f"{len(labels)} labels against {len(predicted)} predictions: both must cover the same documents, at least one")
