"""Which labels are probably wrong: confident learning (Northcutt, Jiang, Chuang 2021, arXiv 1911.00068).

A label is suspect when a model that has not seen the example is confident of another: as confident as it is, on average,
of the examples that bear that other label. The counts of (given, confident) pairs estimate how many labels are wrong.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REGULARIZATION = 4.0  # as in the baseline
MINIMUM_DOCUMENTS = 5  # that hold a term
STEPS = 30  # of the solver: an estimate needs no last digit
ROUNDING = 1e-6  # a probability equal to the threshold reaches it, whatever the order of the sum


class TooFewExamplesError(ValueError):
    """There are fewer than two labels, or a label has fewer examples than there are folds."""


@dataclass(frozen=True)
class LabelNoise:
    """What confident learning finds. ``given`` and ``suggested`` are places in ``labels``."""

    labels: list[str]
    joint: NDArray[np.float64]  # [given, suggested]: estimated shares of all examples, sum 1
    suspects: NDArray[np.int64]  # places of the suspect examples, the largest margin first
    suggested: NDArray[np.int64]  # [suspects]
    margin: NDArray[np.float64]  # [suspects]: probability of the suggested label less that of the given

    @property
    def rate(self) -> float:
        """The estimated share of examples whose label is wrong."""
        return float(self.joint.sum() - self.joint.trace())

    @property
    def pairs(self) -> dict[str, float]:
        """For each "given -> suggested" pair the estimated share of the given label's examples."""
        import numpy as np

        shares = self.joint / np.maximum(self.joint.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        every = enumerate(self.labels)
        return {f"{given} -> {other}": float(shares[i, j]) for i, given in every for j, other in enumerate(self.labels) if i != j}


def estimate(texts: Sequence[str], answers: Sequence[str], folds: int, seed: int) -> LabelNoise:
    """Label noise of texts by a TF-IDF classifier. Raises ``TooFewExamplesError`` where it cannot be cross-validated."""
    import numpy as np

    labels, given = np.unique(np.asarray(answers, dtype=str), return_inverse=True)
    probabilities = out_of_fold(texts, given, len(labels), folds, seed)
    confident = confident_labels(probabilities, given)
    wrong = np.flatnonzero((confident >= 0) & (confident != given))
    margin = probabilities[wrong, confident[wrong]] - probabilities[wrong, given[wrong]]
    order = np.argsort(-margin, kind="stable")
    joint = calibrated_joint(confident_joint(confident, given, len(labels)), given)
    return LabelNoise(labels.tolist(), joint, wrong[order], confident[wrong[order]], margin[order])


def out_of_fold(texts: Sequence[str], given: NDArray[np.int64], labels: int, folds: int, seed: int) -> NDArray[np.float64]:
    """Probabilities [texts, labels], each text's from a model trained on the other folds; each label is dealt evenly to the folds.

    Raises ``TooFewExamplesError`` with fewer than two labels, or a label with fewer examples than folds.
    """
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    fewest = int(np.bincount(given, minlength=labels).min(initial=len(given)))
    if labels < 2 or fewest < folds:
        raise TooFewExamplesError(f"{labels} labels, the rarest with {fewest} examples: {folds} folds need two labels with {folds} examples each")
    fold = np.empty(len(given), np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(given))
    fold[shuffled[np.argsort(given[shuffled], kind="stable")]] = np.arange(len(given)) % folds
    rarest = MINIMUM_DOCUMENTS if len(given) >= 100 * MINIMUM_DOCUMENTS else 1
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32, min_df=rarest)
    features = vectorizer.fit_transform(texts)  # weights of terms see no labels, so one vectorizer serves all folds
    probabilities = np.empty((len(given), labels))
    for number in range(folds):
        rest, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        with warnings.catch_warnings():  # so few steps are a budget, no fault: which label is likelier is settled by then
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=REGULARIZATION, max_iter=STEPS, tol=1e-3).fit(features[rest], given[rest])
        probabilities[held] = model.predict_proba(features[held])
    return probabilities


def confident_labels(probabilities: NDArray[np.float64], given: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each example the likeliest label whose threshold is reached, or -1; shape [examples].

    A label's threshold is its mean probability over the examples that bear it; ``probabilities`` is [examples, labels].
    """
    import numpy as np

    thresholds = np.array([probabilities[given == label, label].mean() for label in range(probabilities.shape[1])])
    reached = np.where(probabilities >= thresholds - ROUNDING, probabilities, -1.0)
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)


def confident_joint(confident: NDArray[np.int64], given: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """How many examples have each (given, confident) pair: [labels, labels]; those without a confident label are not counted."""
    import numpy as np

    counted = confident >= 0
    return np.bincount(given[counted] * labels + confident[counted], minlength=labels * labels).reshape(labels, labels)


def calibrated_joint(joint: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.float64]:
    """The joint as shares of all examples, each row scaled to its given label's share: [labels, labels], sum 1.

    A label of which no example is confident counts as rightly given.
    """
    import numpy as np

    counts = joint + np.diag((joint.sum(axis=1) == 0).astype(np.int64))
    shares = np.bincount(given, minlength=len(joint)) / len(given)
    joint_shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True) * shares[:, None]
    return joint_shares
