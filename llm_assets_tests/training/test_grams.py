from __future__ import annotations

import math

import numpy
import pytest
from pydantic import ValidationError

from llm_assets.training import grams
from llm_assets.training.grams import Grams, fit

SETTINGS = Grams(longest=2, slots=1009, penalty=1.0)
TEXTS = [[1, 2], [1, 2], [3], [3]]
POSITIVE = numpy.array([[True], [True], [False], [False]])


def key(*tokens: int) -> int:
    return sum(token + 1 << grams.WIDTH * step for step, token in enumerate(tokens))


def weight(sketch: grams.Sketch, *tokens: int) -> float:
    """What both rows hold for an n-gram, where they agree."""
    found = [sketch.weights[row * 1009 + grams._slots(numpy.array([key(*tokens)]), row, 1009), 0][0] for row in range(grams.ROWS)]
    first, second = (float(value) for value in found)
    return math.copysign(min(abs(first), abs(second)) ** 2, first) if first * second > 0 else 0.0


def test_the_features_are_those_of_the_formula() -> None:
    """Texts 1 and 2 have the n-grams (1), (2) and (1 2), so each counts 1 / root 3; texts 3 and 4 have (3) alone."""
    texts, keys = grams._occurrences(TEXTS, 2)
    known = numpy.unique(keys)
    assert known.tolist() == sorted([key(1), key(2), key(3), key(1, 2)])
    features = grams._features(texts, keys, known, 4).toarray()
    assert features[0, known.tolist().index(key(1, 2))] == pytest.approx(1 / math.sqrt(3))
    assert features[2].tolist() == [0.0 if place != known.tolist().index(key(3)) else 1.0 for place in range(4)]


def test_the_scale_is_the_log_ratio_times_the_inverse_frequency(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: (1) stands in 2 of 2 positive and 0 of 2 other texts: log(3/10) - log(1/6); it stands in 2 of 4: log(5/3) + 1."""
    given = []

    class Watched:
        coef_, intercept_ = numpy.ones((1, 4)), [0.0]

        def __init__(self, **_: object) -> None: ...

        def fit(self, features: object, positive: object) -> Watched:
            given.append(features.toarray())  # type: ignore[attr-defined]
            return self

    monkeypatch.setattr("sklearn.linear_model.LogisticRegression", Watched)
    texts, keys = grams._occurrences(TEXTS, 2)
    known = numpy.unique(keys)
    features = grams._features(texts, keys, known, 4)
    scaled, _ = grams._regression(features, POSITIVE[:, 0], 1.0)
    expected = (math.log(3 / 10) - math.log(1 / 6)) * (math.log(5 / 3) + 1)
    place = known.tolist().index(key(1))
    assert scaled[place] == pytest.approx(expected) and given[0][0, place] == pytest.approx(expected / math.sqrt(3))


def test_what_stands_in_positive_texts_weighs_for_them_and_what_was_never_seen_nothing() -> None:
    sketch = fit(TEXTS, POSITIVE, SETTINGS)
    assert weight(sketch, 1) > 0 and weight(sketch, 1, 2) > 0 and weight(sketch, 3) < 0
    assert weight(sketch, 7) == weight(sketch, 2, 1) == 0.0


def test_an_n_gram_of_one_text_alone_is_not_kept() -> None:
    sketch = fit([*TEXTS, [9]], numpy.array([[True], [True], [False], [False], [True]]), SETTINGS)
    assert weight(sketch, 9) == 0.0


def test_of_more_n_grams_than_fit_those_that_matter_most_are_kept() -> None:
    random = numpy.random.default_rng(0)
    noise = [[int(token) for token in random.integers(10, 2000, 20)] for _ in range(200)]
    texts = [[1, *ids] if place % 2 else [2, *ids] for place, ids in enumerate(noise)]
    sketch = fit(texts, numpy.array([[place % 2 == 1] for place in range(200)]), Grams(longest=1, slots=1009))
    assert numpy.count_nonzero(sketch.weights[:1009]) <= 1009 // 2
    assert weight(sketch, 1) > 0 > weight(sketch, 2)


def test_a_vocabulary_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="below 1048575 tokens"):
        fit([[(1 << 20) - 1]], numpy.array([[True]]), SETTINGS)


def test_a_text_without_tokens_says_nothing() -> None:
    sketch = fit([*TEXTS, []], numpy.array([[True], [True], [False], [False], [True]]), SETTINGS)
    assert numpy.isfinite(sketch.weights).all()


def test_longer_n_grams_than_three_are_no_setting() -> None:
    with pytest.raises(ValidationError, match="longest"):
        Grams(longest=4)
