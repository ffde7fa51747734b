from __future__ import annotations

import numpy as np
import pytest

from llm_assets.operation import features
from llm_assets.operation.features import FEATURES, Feature

LENGTH = next(feature for feature in FEATURES if feature.name == "length")
VOCABULARY = next(feature for feature in FEATURES if feature.name == "vocabulary")
PREDICTION = next(feature for feature in FEATURES if feature.name == "prediction")


def test_statistics_are_those_of_the_books() -> None:
    one, other = np.array([2.0, 2, 0]), np.array([0.0, 1, 1])
    from scipy.spatial.distance import jensenshannon

    assert features.jensen_shannon(one, other) == pytest.approx(jensenshannon(one, other, base=2) ** 2)
    assert features.jensen_shannon(one, np.array([0.0, 0, 5])) == pytest.approx(1)
    assert features.kolmogorov_smirnov(one, other) == pytest.approx(0.5) == features.total_variation(one, other)
    assert features.squared_distance(np.array([2.0, 4, 2]), np.array([3.0, 3, 3])) == pytest.approx(1)  # of (1, 2) and (1, 1)
    assert all(feature.statistic(one, one) == pytest.approx(0) for feature in FEATURES)
    both = features.jensen_shannon(np.stack([one, other]), np.stack([other, other]))  # a row is a window
    assert both.tolist() == pytest.approx([features.jensen_shannon(one, other), 0])


def test_kolmogorov_smirnov_over_bins_is_scipys_where_each_value_has_its_own() -> None:
    from scipy.stats import ks_2samp

    random = np.random.default_rng(0)
    one, other = random.integers(0, 9, 50), random.integers(2, 12, 40)
    bounds = np.arange(1, 12) - 0.5
    sums = [features.binned(values, bounds).sum(axis=0) for values in (one, other)]
    assert features.kolmogorov_smirnov(*sums) == pytest.approx(ks_2samp(one, other).statistic)


@pytest.mark.parametrize("feature", [VOCABULARY, PREDICTION], ids=lambda feature: feature.name)
def test_a_threshold_is_exceeded_by_the_share_of_windows_that_it_says(feature: Feature, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 new windows of the same distribution as the reference, a threshold for 5 in 100."""
    monkeypatch.setattr(features, "RESAMPLES", 400)
    random = np.random.default_rng(1)
    shares = random.dirichlet(np.ones(60))
    draw = lambda count: random.multinomial(12 if feature.of_texts else 1, shares, count).astype(float)  # noqa: E731
    reference = draw(1_000)
    found = features.threshold(reference, feature, 50, features.level(1, 0.05))
    total = reference.sum(axis=0)
    alarms = np.mean([feature.statistic(draw(50).sum(axis=0), total) > found for _ in range(1_000)])
    assert 0.01 < alarms < 0.1, alarms


def test_more_features_or_fewer_false_alarms_ask_for_more_extreme_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert features.level(1, 0.01) == 40 and features.level(4, 0.01) == 10 and features.level(6, 0.0015) == 1
    with pytest.raises(ValueError, match=r"false_alarms is 0.001: with 4000 resamples of 6 features it can be 0.0015 at least"):
        features.level(6, 0.001)
    lengths = features.binned(np.random.default_rng(0).normal(size=400), np.linspace(-2, 2, 20))
    monkeypatch.setattr(features, "RESAMPLES", 200)
    assert features.threshold(lengths, LENGTH, 50, 1) > features.threshold(lengths, LENGTH, 50, 20)
    assert features.threshold(lengths, LENGTH, 50, 1) > features.threshold(lengths, LENGTH, 200, 1)  # fewer texts vary more


def test_answers_of_every_problem_become_rows() -> None:
    layout = {"labels": ["a", "b"], "numbers": [1.0, 2.0]}
    assert features.answers(["a", "c"], "single_label", layout).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert features.answers(["a|b", ""], "multi_label", layout).tolist() == [[1, 1, 0], [0, 0, 1]]
    assert features.answers(["0.5", "1.0", "7"], "regression", layout).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_one_text_in_a_language_never_seen_is_no_drift_and_ten_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "RESAMPLES", 1_000)
    language = next(feature for feature in FEATURES if feature.name == "language")
    reference = features.succeeded(features.named([["en"]] * 2_500, ["en"]))
    found = features.threshold(reference, language, 100, features.level(1, 0.01))

    def value(others: int) -> float:
        window = features.named([["en"]] * (100 - others) + [["fr"]] * others, ["en"])
        return float(language.statistic(window.sum(axis=0), reference.sum(axis=0)))

    assert value(0) < value(1) <= found < value(10)
