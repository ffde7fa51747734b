"""What drift is looked for in: each feature turns texts or answers into rows of numbers, whose means are compared by one statistic.

A statistic alone says nothing, since it depends on how many texts there are and how they vary. So each has a threshold for
each size of window: what the same statistic reaches among windows drawn from the reference itself (a permutation test, Good
2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, chapter 3). With R draws the k-th largest is exceeded by a
window of the reference with probability k / (R + 1), the drawing included; k is chosen so that all features together alarm in
at most ``false_alarms`` of the checks (Bonferroni's bound, so correlated features only make it rarer).

Evidently 0.7.23, which the field would name first, is not used: it imports what pandas 3 took away and so does not load here,
brings a web server and 22 packages (350 MB), and its presets compare each column at a fixed level whatever their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llm_assets.corpus.codepoints import letters, ngrams
from llm_assets.corpus.documents import text_key
from llm_assets.corpus.normalise import normalise
from llm_assets.training.heads import Problem, parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = Any  # [rows, columns], dense or scipy.sparse
    Vectors = NDArray[np.float64]  # sums over rows, [columns] or [windows, columns]; a statistic of them is a number or [windows]

RESAMPLES = 4_000  # windows drawn from the reference for each threshold
CHUNK = 250  # of them at once: 16 MB for the 8,192 buckets
BUCKETS = 8_192  # of letters and pairs of letters
BINS = 32  # of lengths and of probabilities, each with the same share of the reference
DIMENSIONS = 64  # of the embedding
RARE = 0.01  # languages with a smaller share of the reference count as one


@dataclass(frozen=True)
class Feature:
    """One thing that may drift."""

    name: str
    what: str  # in words, for the page
    statistic: Callable[[Vectors, Vectors], Vectors]  # the larger, the further apart
    of_texts: bool  # else of answers


def jensen_shannon(one: Vectors, other: Vectors) -> Vectors:
    """The Jensen-Shannon divergence of vectors of counts in bits, 0 to 1 (Lin 1991): the entropy of their mean less their mean entropy."""
    import numpy as np
    from scipy.special import entr

    p, q = _shares(one), _shares(other)
    nats = entr((p + q) / 2).sum(axis=-1) - (entr(p).sum(axis=-1) + entr(q).sum(axis=-1)) / 2
    bits: Vectors = np.maximum(nats, 0) / np.log(2)  # rounding may leave less than nothing
    return bits


def kolmogorov_smirnov(one: Vectors, other: Vectors) -> Vectors:
    """The largest distance of two distribution functions, given as counts in ordered bins; 0 to 1."""
    import numpy as np

    distance: Vectors = np.abs(np.cumsum(_shares(one) - _shares(other), axis=-1)).max(axis=-1)
    return distance


def total_variation(one: Vectors, other: Vectors) -> Vectors:
    """Half of what the shares of two vectors of counts differ in together; 0 to 1."""
    import numpy as np

    distance: Vectors = np.abs(_shares(one) - _shares(other)).sum(axis=-1) / 2
    return distance


def squared_distance(one: Vectors, other: Vectors) -> Vectors:
    """The squared distance of two mean vectors; the last column counts the rows."""
    import numpy as np

    means = [vectors[..., :-1] / np.maximum(vectors[..., -1:], 1) for vectors in (one, other)]
    distance: Vectors = ((means[0] - means[1]) ** 2).sum(axis=-1)
    return distance


def _shares(counts: Vectors) -> Vectors:
    import numpy as np

    shares: Vectors = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    return shares


FEATURES = (
    Feature("vocabulary", "letters and pairs of letters: Jensen-Shannon divergence of their frequencies", jensen_shannon, True),
    Feature("length", "characters of a text: distance of the distribution functions (Kolmogorov-Smirnov)", kolmogorov_smirnov, True),
    Feature("language", "language of a text (py3langid): total variation of the shares", total_variation, True),
    Feature("embedding", "the same as one vector a text, each text weighing the same: squared distance of the means", squared_distance, True),
    Feature("prediction", "labels answered, or how replies ended: total variation of the shares", total_variation, False),
    Feature("confidence", "probability of the answer: distance of the distribution functions (Kolmogorov-Smirnov)", kolmogorov_smirnov, False),
    Feature("answer_length", "characters of a reply: distance of the distribution functions (Kolmogorov-Smirnov)", kolmogorov_smirnov, False),
)
AT_ONCE = len(FEATURES) - 1  # that a chain has at most: a label has a probability, a reply a length


def gram_counts(texts: Sequence[str]) -> Matrix:
    """How often each text holds each letter and each pair of letters, hashed; scipy.sparse, [texts, BUCKETS].

    Not the model's tokens: letters need no tokenizer, and windows of one kind of text differ less in them. Among 2,648 book
    reviews 500 stay within 0.023 bits of the rest in letters, and within 0.071 in the tokens of a vocabulary of 8,192.
    """
    import numpy as np
    from scipy.sparse import csr_array

    points = letters([normalise(text) for text in texts])
    found = []
    for size in (1, 2):
        hashes, starts = ngrams(points, size)
        columns = (hashes % np.uint64(BUCKETS)).astype(np.int64)
        found.append(csr_array((np.ones(len(columns)), columns, starts), shape=(len(texts), BUCKETS)))
    counts = csr_array(found[0] + found[1])
    counts.sum_duplicates()
    return counts


def pair_shares(texts: Sequence[str], most: int) -> dict[str, float]:
    """The commonest pairs of letters, each with its share of all pairs."""
    pairs = Counter(one + other for text in texts for one, other in pairwise(text_key(normalise(text))))
    return {pair: count / pairs.total() for pair, count in pairs.most_common(most)}


def embedded(counts: Matrix) -> Matrix:
    """Each text as a point: square roots of its counts, of length 1, through a fixed random projection; [texts, DIMENSIONS + 1].

    Distances of the high-dimensional vectors survive it (Johnson and Lindenstrauss 1984), and no table has to be kept. The last column is 1.
    """
    import numpy as np
    from scipy.sparse import csr_array

    roots = csr_array(counts, copy=True)
    roots.data = np.sqrt(roots.data)
    norms = np.sqrt(np.asarray(counts.sum(axis=1)).ravel())  # the squared roots are the counts
    points = roots @ _projection() / np.maximum(norms, 1)[:, None]
    return np.hstack([points, np.ones((counts.shape[0], 1))])


@cache
def _projection() -> NDArray[np.float64]:
    import numpy as np

    projection: NDArray[np.float64] = np.random.default_rng(0).standard_normal((BUCKETS, DIMENSIONS)) / DIMENSIONS**0.5
    return projection


def languages(texts: Sequence[str]) -> list[str]:
    """The ISO 639-1 code that py3langid gives each text."""
    from py3langid import classify

    return [classify(text)[0] for text in texts]


def edges(values: Sequence[float]) -> list[float]:
    """Bounds between bins that hold equal shares of the values; fewer where values repeat."""
    import numpy as np

    found: list[float] = np.unique(np.quantile(np.asarray(values, float), np.arange(1, BINS) / BINS)).tolist()
    return found


def binned(values: Sequence[float], bounds: Sequence[float]) -> Matrix:
    """Each value as a row with a 1 in its bin."""
    import numpy as np

    return np.eye(len(bounds) + 1)[np.searchsorted(np.asarray(bounds), np.asarray(values, float), side="right")]


def named(values: Sequence[Sequence[str]], names: Sequence[str]) -> Matrix:
    """Each row's names as ones, the last column for any other name."""
    import numpy as np

    place = {name: number for number, name in enumerate(names)}
    rows = np.zeros((len(values), len(names) + 1))
    for row, found in zip(rows, values, strict=True):
        for name in found:
            row[place.get(name, len(names))] += 1
    return rows


def succeeded(rows: Matrix) -> Matrix:
    """Names as rows, with one row more for each name: what 2,500 texts never hold may still be the next (Laplace's rule of succession).

    Without it one text in a language that the reference does not know would be drift.
    """
    import numpy as np

    return np.vstack([rows, np.eye(rows.shape[1])])


def answers(labels: Sequence[str], problem: Problem, layout: Mapping[str, Any]) -> Matrix:
    """The answers as rows: names of labels, or the bin of a number."""
    if problem == "regression":
        return binned([float(label) for label in labels], layout["numbers"])
    return named([parts(label, problem) or ["none"] for label in labels], layout["labels"])


def level(features: int, false_alarms: float) -> int:
    """Which of the largest ``RESAMPLES`` statistics is a feature's threshold: 1 for the largest. Raises ``ValueError`` for too few resamples."""
    rank = int((RESAMPLES + 1) * false_alarms / features)
    if rank < 1:
        least = features / (RESAMPLES + 1)
        raise ValueError(f"false_alarms is {false_alarms:g}: with {RESAMPLES} resamples of {features} features it can be {least:.4f} at least")
    return rank


def threshold(rows: Matrix, feature: Feature, size: int, rank: int) -> float:
    """What the ``rank``-th largest statistic is of windows of ``size`` drawn from the reference ``rows``, against the rest of it.

    Texts are drawn without replacement: a window drawn with it would know every rare word of the reference, and a new text does
    not. Of answers there may be fewer than two windows, and their bins are coarse: they are drawn with replacement, both sides.
    """
    import numpy as np

    random, total = np.random.default_rng(size), rows.shape[0]
    found = []
    for start in range(0, RESAMPLES, CHUNK):
        count = min(CHUNK, RESAMPLES - start)
        if feature.of_texts:
            windows = _sums(rows, np.stack([random.choice(total, size, replace=False, shuffle=False) for _ in range(count)]))
            rests = np.asarray(rows.sum(axis=0)).ravel() - windows
        else:
            windows, rests = (_sums(rows, random.integers(0, total, (count, many))) for many in (size, total))
        found.append(feature.statistic(windows, rests))
    return float(np.sort(np.concatenate(found))[-rank])


def _sums(rows: Any, drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sums of the drawn rows; ``drawn`` [windows, size], result [windows, columns]."""
    import numpy as np
    from scipy.sparse import csr_array, issparse

    count, size = drawn.shape
    selection = csr_array((np.ones(drawn.size), drawn.ravel(), np.arange(0, drawn.size + 1, size)), shape=(count, rows.shape[0]))
    found = selection @ rows
    sums: NDArray[np.float64] = found.toarray() if issparse(found) else found
    return sums
