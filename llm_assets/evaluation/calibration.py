"""Whether a classifier's probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BINS = 15  # as in Guo et al. 2017


@dataclass(frozen=True)
class Bin:
    """The documents whose predicted label has a probability within one interval of equal width."""

    documents: int
    confidence: float  # mean probability of the predicted label
    accuracy: float  # share of right predictions


def reliability(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> list[Bin]:
    """Documents binned by the predicted label's probability, empty bins left out: what a reliability diagram draws.

    Bin m of M holds the probabilities in ((m - 1) / M, m / M] (Guo, Pleiss, Sun & Weinberger 2017, section 2). Raises
    ``ValueError`` for sequences that are empty or of unequal length.
    """
    import numpy

    if not confidences or len(confidences) != len(correct):
        raise ValueError(f"{len(confidences)} probabilities against {len(correct)} predictions: both must cover the same documents, at least one")
    probability, right = numpy.asarray(confidences, dtype=float), numpy.asarray(correct, dtype=float)
    place = numpy.clip(numpy.ceil(probability * bins) - 1, 0, bins - 1).astype(int)
    chosen = (place == number for number in numpy.unique(place))
    return [Bin(int(mask.sum()), float(probability[mask].mean()), float(right[mask].mean())) for mask in chosen]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean distance of accuracy and confidence over the bins of ``reliability``, each weighing its documents; 0 to 1."""
    documents = sum(found.documents for found in bins)
    return sum(found.documents * abs(found.accuracy - found.confidence) for found in bins) / documents


def brier_score(probabilities: Sequence[Sequence[float]], truth: Sequence[int]) -> float:
    """The mean squared distance of ``probabilities`` [documents, labels] from 1 at the true label and 0 elsewhere, summed over labels.

    Brier 1950: 0 is best, 2 is worst, an even guess of two labels scores 0.5. ``truth`` holds the index of each true label.
    """
    import numpy

    errors = numpy.array(probabilities, dtype=float)
    errors[numpy.arange(len(errors)), numpy.asarray(truth)] -= 1
    return float((errors**2).sum(axis=1).mean())


def label_brier_score(probabilities: Sequence[Sequence[float]], truth: Sequence[Sequence[float]]) -> float:
    """``brier_score`` where a text may have several labels: ``truth`` [documents, labels] holds 1 for those it has. 0 is best."""
    import numpy

    return float(((numpy.asarray(probabilities, dtype=float) - numpy.asarray(truth, dtype=float)) ** 2).sum(axis=1).mean())
