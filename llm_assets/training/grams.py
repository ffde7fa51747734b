"""A linear model over a text's token n-grams, and the sum of its scores with an encoder's.

Which words stand beside which says much of a short text, and an encoder that was trained on few texts has not learned most
of it: the two are wrong about different texts. The weights are those of naive Bayes refined by a logistic regression (Wang &
Manning 2012, https://aclanthology.org/P12-2018), kept in a sketch (Tai et al. 2018, https://arxiv.org/abs/1711.02305)
of fixed size, so that no vocabulary of n-grams is served: two rows of slots, each n-gram in one slot of either. What an n-gram weighs is
what its two slots agree upon, the smaller value where the signs are equal, else nothing; so one that was never seen weighs something
only where both of its slots are taken and agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from llm_assets.store.progress import Progress, silent
from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

ROWS = 2  # of the sketch
# A slot is the sum of (token + 1) times these, modulo the slots: random odd numbers below 2^40, so that three products stay below 2^62.
MULTIPLIERS = ((0x9E3779B97F, 0x85EBCA6B13, 0xC2B2AE3D27), (0x27D4EB2F65, 0x165667B19E3, 0xD6E8FEB865))
WIDTH = 20  # bits of a token in the exact key of an n-gram
MINIMUM_TEXTS = 2  # that an n-gram stands in: one that stands in one teaches nothing of others
ITERATIONS = 100  # of the logistic regression


class Grams(Strict):
    """Which n-grams' scores are added to the encoder's."""

    longest: int = Field(0, ge=0, le=3, description="tokens of the longest n-grams whose scores are added to the encoder's; 0: none are")
    slots: int = Field(524_287, ge=1009, description="of one row of their sketch, best a prime; half as many n-grams are kept")
    penalty: float = Field(4.0, gt=0, description="of their squared weights: less for long texts, which say more")


class Sketch(NamedTuple):
    """What a text's n-grams say: sum of ``weights`` over the root of how many weigh something, plus ``bias``."""

    weights: NDArray[np.float32]  # [ROWS * slots, scores], each as sign and root of its size: eight bits then tell small ones apart
    bias: NDArray[np.float32]  # [scores]


def fit(tokens: Sequence[Sequence[int]], targets: NDArray[np.bool_], settings: Grams, progress: Progress = silent) -> Sketch:
    """The sketch for texts given as token ids; ``targets`` [texts, scores] says which texts each score is for.

    Of the n-grams, those that weigh most in most texts are kept. Raises ``ValueError`` for a token id above 2^20 - 2.
    """
    import numpy as np

    texts, keys = _occurrences(tokens, settings.longest)
    known, counts = np.unique(keys, return_counts=True)
    known = known[counts >= MINIMUM_TEXTS]
    features = _features(texts, keys, known, len(tokens))
    weights, bias = np.zeros((len(known), targets.shape[1])), np.zeros(targets.shape[1], np.float32)
    for score in range(targets.shape[1]):
        progress(score, targets.shape[1], "scores fitted")
        weights[:, score], bias[score] = _regression(features, targets[:, score], settings.penalty)
    return Sketch(_sketched(known, weights, np.asarray((features > 0).sum(0)).ravel(), settings.slots), bias)


def _occurrences(tokens: Sequence[Sequence[int]], longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The text and the exact key of every different n-gram in it."""
    import numpy as np

    texts, keys = [], []
    for number, ids in enumerate(tokens):
        own = np.asarray(ids, np.int64) + 1
        if len(own) and own.max() >= 1 << WIDTH:
            raise ValueError(f"token {own.max() - 1} does not fit: n-grams are known for vocabularies below {(1 << WIDTH) - 1} tokens")
        grams = [np.zeros(0, np.int64)]
        for size in range(1, min(longest, len(own)) + 1):
            places = len(own) - size + 1
            grams.append(sum((own[step : step + places] << WIDTH * step for step in range(size)), np.zeros(places, np.int64)))
        found = np.unique(np.concatenate(grams))
        keys.append(found)
        texts.append(np.full(len(found), number))
    return np.concatenate(texts), np.concatenate(keys)


def _features(texts: NDArray[np.int64], keys: NDArray[np.int64], known: NDArray[np.int64], count: int) -> csr_matrix:
    """[texts, known n-grams]: 1 over the root of how many of them a text has, where it has one."""
    import numpy as np
    from scipy.sparse import csr_matrix

    place = np.searchsorted(known, keys)
    place[place == len(known)] = 0
    kept = known[place] == keys if len(known) else np.zeros(len(keys), np.bool_)
    number = np.bincount(texts[kept], minlength=count)
    values = 1 / np.sqrt(number[texts[kept]], dtype=np.float32)
    return csr_matrix((values, (texts[kept], place[kept])), shape=(count, len(known)))


def _regression(features: csr_matrix, positive: NDArray[np.bool_], penalty: float) -> tuple[NDArray[np.float64], float]:
    """Weights and bias of a logistic regression whose features are scaled by naive Bayes' log ratio and the inverse document frequency."""
    import numpy as np
    from scipy.sparse import diags
    from sklearn.linear_model import LogisticRegression

    stands = features > 0
    often, among = (np.asarray(part.sum(0)).ravel() for part in (stands, stands[positive]))
    ratio = np.log((among + 1) / (among + 1).sum()) - np.log((often - among + 1) / (often - among + 1).sum())
    scale = (ratio * (np.log((1 + len(positive)) / (1 + often)) + 1)).astype(np.float32)
    model = LogisticRegression(C=1 / penalty, max_iter=ITERATIONS).fit(features @ diags(scale), positive)
    return model.coef_[0] * scale, float(model.intercept_[0])


def _sketched(known: NDArray[np.int64], weights: NDArray[np.float64], often: NDArray[np.int64], slots: int) -> NDArray[np.float32]:
    """The weights of those n-grams that matter most, in either row; where two meet in a slot, the one that matters more stands."""
    import numpy as np

    matters = np.abs(weights).max(1) * np.sqrt(often)
    order = np.argsort(matters, kind="stable")[-(slots // 2) :]
    table = np.zeros((ROWS * slots, weights.shape[1]), np.float32)
    for row in range(ROWS):
        table[row * slots + _slots(known[order], row, slots)] = np.sign(weights[order]) * np.sqrt(np.abs(weights[order]))
    return table


def _slots(keys: NDArray[np.int64], row: int, slots: int) -> NDArray[np.int64]:
    """The slot of each n-gram in a row of the sketch; the model computes the same (``training/summed.py``)."""
    import numpy as np

    found = np.zeros(len(keys), np.int64)
    for step, multiplier in enumerate(MULTIPLIERS[row]):
        found += (keys >> WIDTH * step & (1 << WIDTH) - 1) * multiplier
    return found % slots
