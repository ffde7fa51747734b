"""How good a classifier's predictions are, and whether one classifier's are better than another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llm_assets.training.heads import Problem, parts

if TYPE_CHECKING:
    import numpy

Intervals = dict[str, tuple[float, float]]
Outcome = Literal["better", "not worse", "undecided", "worse"]
SCORES: dict[Problem, str] = {"single_label": "accuracy", "multi_label": "micro_f1", "regression": "r2"}  # of ``figures``: more is better, 1 is best


def figures(labels: Sequence[str], predicted: Sequence[str], problem: Problem) -> dict[str, float]:
    """What predictions are worth, by metric; labels as tables have them (``training/heads.py: canonical``).

    One label: accuracy, macro F1. Several: the share of texts with exactly the right ones, micro and macro F1 over labels.
    Numbers: mean squared and absolute error, Pearson's correlation, and R², the share of the variance that is explained.
    """
    if problem == "regression":
        return _errors([float(label) for label in labels], [float(guess) for guess in predicted])
    if problem == "single_label":
        return {"accuracy": accuracy(labels, predicted), "macro_f1": macro_f1(labels, predicted)}
    found = per_label(labels, predicted, sorted({name for label in labels for name in parts(label, problem)}))
    hits = sum(len(set(parts(label, problem)) & set(parts(guess, problem))) for label, guess in zip(labels, predicted, strict=True))
    named = sum(len(parts(label, problem)) for label in (*labels, *predicted))
    return {
        "subset_accuracy": accuracy(labels, predicted),
        "micro_f1": 2 * hits / named if named else 1.0,
        "macro_f1": sum(row["f1"] for row in found.values()) / len(found) if found else 1.0,
    }


def constant_score(labels: Sequence[str], problem: Problem) -> float:
    """The score (``SCORES``) of the best answer that is the same for every text."""
    if problem == "regression":
        return 0.0  # the mean explains nothing of the variance
    counts = sorted(Counter(name for label in labels for name in parts(label, problem)).values(), reverse=True)
    if problem == "single_label":
        return counts[0] / len(labels)
    # Of all sets of k labels the k commonest hit most.
    return max((2 * sum(counts[:most]) / (most * len(labels) + sum(counts)) for most in range(1, len(counts) + 1)), default=1.0)


def per_label(labels: Sequence[str], predicted: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Like ``per_class`` where a text may have several labels: each label is a question of its own."""
    asked, said = ([parts(label, "multi_label") for label in column] for column in (labels, predicted))
    return {
        name: per_class([str(name in label) for label in asked], [str(name in label) for label in said], [str(True)])[str(True)] for name in names
    }


def _errors(truth: Sequence[float], guesses: Sequence[float]) -> dict[str, float]:
    """Errors of numbers; a correlation with a constant is 0, and so is R² where all numbers are one."""
    import numpy

    _require(truth, guesses)
    right, said = numpy.asarray(truth), numpy.asarray(guesses)
    squared, variance, spread = float(((said - right) ** 2).mean()), float(right.var()), float(said.std())
    pearson = float(((right - right.mean()) * (said - said.mean())).mean()) / (variance**0.5 * spread) if variance and spread else 0.0
    return {"mse": squared, "mae": float(abs(said - right).mean()), "pearson": pearson, "r2": 1 - squared / variance if variance else 0.0}


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


def confusion_by_label(labels: Sequence[str], predicted: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """``confusion`` where a text may have several labels: of each, how often it was rightly said, missed, wrongly said and rightly left out."""
    table = {name: dict.fromkeys(("rightly said", "missed", "wrongly said", "rightly left out"), 0) for name in names}
    for label, guess in zip(labels, predicted, strict=True):
        true, said = parts(label, "multi_label"), parts(guess, "multi_label")
        for name, row in table.items():
            outcome = ("rightly said" if name in said else "missed") if name in true else ("wrongly said" if name in said else "rightly left out")
            row[outcome] += 1
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


def bootstrap_intervals(labels: Sequence[str], predicted: Sequence[str], samples: int = 2000, seed: int = 0) -> Intervals:
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


def bootstrap_scores(labels: Sequence[str], predicted: Sequence[str], problem: Problem, samples: int = 2000, seed: int = 0) -> Intervals:
    """The 95% intervals of ``SCORES``' figure where texts have several labels or numbers, as ``bootstrap_intervals``; where one, of its two."""
    import numpy

    if problem == "single_label":
        return bootstrap_intervals(labels, predicted, samples, seed)
    if problem == "multi_label":
        asked, said = ([set(parts(label, problem)) for label in column] for column in (labels, predicted))
        columns: numpy.ndarray = numpy.array([[len(one & other), len(one) + len(other)] for one, other in zip(asked, said, strict=True)], dtype=float)
    else:
        truth, guesses = numpy.array(labels, dtype=float), numpy.array(predicted, dtype=float)
        columns = numpy.stack([(guesses - truth) ** 2, truth - truth.mean(), (truth - truth.mean()) ** 2], axis=1)
    random = numpy.random.default_rng(seed)
    sums = numpy.stack([columns[random.integers(0, len(columns), len(columns))].sum(axis=0) for _ in range(samples)])
    if problem == "multi_label":
        values = 2 * sums[:, 0] / numpy.maximum(sums[:, 1], 1)
    else:
        values = 1 - sums[:, 0] / numpy.maximum(sums[:, 2] - sums[:, 1] ** 2 / len(columns), numpy.finfo(float).tiny)
    return {SCORES[problem]: (float(numpy.quantile(values, 0.025)), float(numpy.quantile(values, 0.975)))}


@dataclass(frozen=True)
class Difference:
    """By how much one model is better than another, over the documents of both, with a 95% interval; the unit is that of what was compared."""

    documents: int
    mean: float
    low: float
    high: float

    def outcome(self, allowed: float) -> Outcome:
        """What the interval says where a loss of up to ``allowed`` counts as none (a non-inferiority margin).

        better: all of it above zero. not worse: none of it below ``-allowed``. worse: it reaches below that and lies below zero.
        undecided: it reaches below that and above zero, so more documents would be needed to tell.
        """
        if self.low > 0:
            return "better"
        if self.low >= -allowed:
            return "not worse"
        return "worse" if self.high < 0 else "undecided"


def paired_bootstrap(candidate: Mapping[str, float], champion: Mapping[str, float], samples: int = 2000, seed: int = 0) -> Difference | None:
    """Compare which documents two classifiers got right, or how near they came, resampling documents (Efron & Tibshirani 1993, chapter 13).

    Pairing by document takes out the part of the noise that both share. None where no document is common.
    """
    import numpy

    common = sorted(candidate.keys() & champion.keys())
    if not common:
        return None
    gains: numpy.ndarray = numpy.array([float(candidate[key]) - float(champion[key]) for key in common])
    random = numpy.random.default_rng(seed)
    # Right or wrong, only three values occur: a resample is one multinomial draw of their counts.
    values, counts = numpy.unique(gains, return_counts=True)
    means = random.multinomial(len(gains), counts / len(gains), size=samples) @ values / len(gains)
    low, high = numpy.quantile(means, (0.025, 0.975))
    return Difference(len(common), float(gains.mean()), float(low), float(high))


def paired_rates(
    candidate: Mapping[str, tuple[float, float]], champion: Mapping[str, tuple[float, float]], samples: int = 2000, seed: int = 0
) -> Difference | None:
    """Compare what two models spend on the same documents, each as (spent, size), by all that was spent over all sizes: bits a byte, say.

    The champion's rate minus the candidate's, so that more is better; long documents weigh more, as in either rate. Documents are drawn
    anew in pairs, and of a ratio both parts with them (Efron & Tibshirani 1993, chapter 13). None where no document is common.
    """
    import numpy

    common = sorted(candidate.keys() & champion.keys())
    if not common:
        return None
    table: numpy.ndarray = numpy.array([[*candidate[key], *champion[key]] for key in common], numpy.float64)
    counts = numpy.random.default_rng(seed).multinomial(len(common), numpy.full(len(common), 1 / len(common)), size=samples)
    ours, our_size, theirs, their_size = (numpy.vstack([table.sum(0), counts @ table])).T
    gains = theirs / their_size - ours / our_size
    low, high = numpy.quantile(gains[1:], (0.025, 0.975))
    return Difference(len(common), float(gains[0]), float(low), float(high))


def _require(labels: Sequence[object], predicted: Sequence[object]) -> None:
    if not labels or len(labels) != len(predicted):
        raise ValueError(f"{len(labels)} labels against {len(predicted)} predictions: both must cover the same documents, at least one")
