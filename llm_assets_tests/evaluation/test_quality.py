from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from llm_assets.evaluation.quality import (
    accuracy,
    agreement,
    agreement_by_label,
    bootstrap_intervals,
    bootstrap_scores,
    confusion,
    confusion_by_label,
    constant_score,
    figures,
    macro_f1,
    paired_bootstrap,
    paired_rates,
    per_class,
    per_label,
)

PAIRS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=60)


@given(PAIRS)
def test_accuracy_and_macro_f1_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    labels, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert accuracy(labels, predicted) == pytest.approx(accuracy_score(labels, predicted))
    expected = f1_score(labels, predicted, average="macro", labels=sorted(set(labels)), zero_division=0)
    assert macro_f1(labels, predicted) == pytest.approx(expected)


def test_the_report_of_a_class_by_hand() -> None:
    report = per_class(list("aaab"), list("aabb"), ["a", "b", "c"])
    assert report["a"] == {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": pytest.approx(0.8), "support": 3}
    assert report["b"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert report["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


@given(PAIRS)
def test_the_report_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    labels, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = per_class(labels, predicted, list("abc"))
    expected = zip(*precision_recall_fscore_support(labels, predicted, labels=list("abc"), zero_division=0), strict=True)
    for name, row in zip("abc", expected, strict=True):
        assert list(found[name].values()) == pytest.approx(row)


def test_the_interval_of_a_binomial() -> None:
    labels, predicted = ["a"] * 400, ["a"] * 320 + ["b"] * 80
    low, high = bootstrap_intervals(labels, predicted)["accuracy"]
    spread = 1.96 * (0.8 * 0.2 / 400) ** 0.5  # the normal one of 320 in 400: .761 to .839
    assert low == pytest.approx(0.8 - spread, abs=0.005) and high == pytest.approx(0.8 + spread, abs=0.005)
    assert bootstrap_intervals(labels, predicted) == bootstrap_intervals(labels, predicted)
    assert bootstrap_intervals(labels, predicted, seed=1) != bootstrap_intervals(labels, predicted)


def test_the_interval_of_macro_f1_is_the_one_of_resampled_documents() -> None:
    rng = random.Random(0)
    pairs = [(label, label if rng.random() < 0.7 else rng.choice("abc")) for label in rng.choices("abc", (6, 3, 1), k=150)]
    draws = [list(zip(*rng.choices(pairs, k=150), strict=True)) for _ in range(1000)]
    expected = sorted(macro_f1(labels, predicted) for labels, predicted in draws)
    low, high = bootstrap_intervals(*zip(*pairs, strict=True))["macro_f1"]
    assert low == pytest.approx(expected[25], abs=0.015) and high == pytest.approx(expected[975], abs=0.015)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 labels against 0"):
        accuracy([], [])
    with pytest.raises(ValueError, match="1 labels against 2"):
        macro_f1(["a"], ["a", "b"])


def test_confusion_by_label_asks_of_each_label_what_became_of_it() -> None:
    found = confusion_by_label(["a|b", "b", "c"], ["a", "b|c", "c"], ["a", "b"])
    outcomes = ("rightly said", "missed", "wrongly said", "rightly left out")
    assert found == {"a": dict(zip(outcomes, (1, 0, 0, 2), strict=True)), "b": dict(zip(outcomes, (1, 1, 0, 1), strict=True))}


def test_confusion_counts_by_true_then_predicted_label() -> None:
    assert confusion(["a", "a", "b"], ["a", "b", "b"], ["a", "b"]) == {"a": {"a": 1, "b": 1}, "b": {"a": 0, "b": 1}}


def test_agreement_is_over_common_documents() -> None:
    assert agreement({"1": "a", "2": "b", "3": "a"}, {"2": "b", "3": "b", "4": "a"}) == 0.5
    with pytest.raises(ValueError, match="no document in common"):
        agreement({"1": "a"}, {"2": "a"})


def test_agreement_by_label_splits_by_the_true_label() -> None:
    labels = {"1": "a", "2": "a", "3": "b"}
    assert agreement_by_label({"1": "a", "2": "a", "3": "b"}, {"1": "a", "2": "b", "3": "b"}, labels) == {"a": 0.5, "b": 1.0}


def test_paired_bootstrap_tells_clearly_worse_from_noise() -> None:
    champion = {str(number): number % 5 != 0 for number in range(500)}
    worse = {**champion, **{str(number): False for number in range(60)}}
    noise = {**champion, "0": True, "1": False, "2": False}
    found = paired_bootstrap(worse, champion)
    assert found is not None and found.outcome(0.01) == "worse" and found.low < found.mean < found.high < 0
    assert found.mean == pytest.approx(-48 / 500)
    assert found.outcome(0.2) == "not worse"  # the loss is sure, and allowed
    assert paired_bootstrap(noise, champion).outcome(0.02) == "not worse"
    assert paired_bootstrap(noise, champion).outcome(0.001) == "undecided"
    assert paired_bootstrap(champion, worse).outcome(0.01) == "better"
    assert paired_bootstrap(champion, champion).outcome(0) == "not worse"
    assert paired_bootstrap({"x": True}, champion) is None


def test_paired_rates_weigh_documents_by_their_size() -> None:
    """A gain of a bit per byte on a hundred short documents, and a loss of a tenth on as many long ones, which is more in all."""
    champion = {f"{size}-{number}": (2.0 * size, float(size)) for size in (1, 100) for number in range(100)}
    mixed = {key: (spent - size if size == 1 else spent + 0.1 * size, size) for key, (spent, size) in champion.items()}
    found = paired_rates(mixed, champion)
    assert found is not None and found.documents == 200 and found.mean == pytest.approx((100 - 1000) / (100 + 10000))
    assert found.low < found.mean < found.high < 0 and found.outcome(0.01) == "worse"
    assert paired_bootstrap({key: -spent / size for key, (spent, size) in mixed.items()}, dict.fromkeys(champion, -2.0)).outcome(0.01) == "better"
    assert paired_rates(champion, mixed).mean == pytest.approx(-found.mean) and paired_rates(champion, mixed).outcome(0) == "better"
    assert paired_rates(champion, champion).outcome(0) == "not worse" and paired_rates({"x": (1, 1)}, champion) is None


def test_several_labels_by_hand() -> None:
    # Labels named: 2 + 1 + 0, said: 1 + 1 + 1, right among them: 1 + 1 + 0.
    found = figures(["a|b", "b", ""], ["a", "b", "a"], "multi_label")
    assert found["subset_accuracy"] == pytest.approx(1 / 3) and found["micro_f1"] == pytest.approx(2 * 2 / (3 + 3))
    report = per_label(["a|b", "b", ""], ["a", "b", "a"], ["a", "b"])
    assert report["a"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert report["b"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert found["macro_f1"] == pytest.approx(2 / 3)


SETS = st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc"))), min_size=1, max_size=40)


@given(SETS)
def test_micro_and_macro_f1_of_several_labels_are_scikit_learns(pairs: list[tuple[set[str], set[str]]]) -> None:
    labels, predicted = (["|".join(sorted(names)) for names in column] for column in zip(*pairs, strict=True))
    found, names = figures(labels, predicted, "multi_label"), sorted({name for label, _ in pairs for name in label})
    asked, said = ([[name in label for name in "abc"] for label in column] for column in zip(*pairs, strict=True))
    if any(map(any, asked)) or any(map(any, said)):
        assert found["micro_f1"] == pytest.approx(f1_score(asked, said, average="micro", zero_division=0))
    if names:
        kept = ["abc".index(name) for name in names]
        assert found["macro_f1"] == pytest.approx(f1_score(asked, said, average="macro", labels=kept, zero_division=0))


def test_errors_of_numbers_by_hand() -> None:
    # Truth 1, 2, 3 (variance 2/3), answers 1, 2, 5: squared errors 0, 0, 4. Deviations (-1, 0, 1) and (-5/3, -2/3, 7/3).
    found = figures(["1.0", "2.0", "3.0"], ["1.0", "2.0", "5.0"], "regression")
    assert found["mse"] == pytest.approx(4 / 3) and found["mae"] == pytest.approx(2 / 3)
    assert found["r2"] == pytest.approx(1 - (4 / 3) / (2 / 3))
    assert found["pearson"] == pytest.approx(4 / (2 * (25 + 4 + 49) / 9) ** 0.5)
    assert figures(["1.0", "2.0"], ["7.0", "7.0"], "regression")["pearson"] == 0.0
    assert figures(["1.0", "1.0"], ["1.0", "2.0"], "regression")["r2"] == 0.0


def test_the_best_constant_answer_by_hand() -> None:
    assert constant_score(["a", "b", "b"], "single_label") == pytest.approx(2 / 3)
    # Saying b alone: 2 right of 3 said and 3 asked. Saying a and b: 3 right of 6 said and 3 asked, the same.
    assert constant_score(["a|b", "b", ""], "multi_label") == pytest.approx(2 * 2 / (3 + 3)) == pytest.approx(2 * 3 / (6 + 3))
    assert constant_score(["1.0", "5.0"], "regression") == 0.0


@pytest.mark.parametrize("problem", ["multi_label", "regression"])
def test_the_interval_of_a_score_is_the_one_of_resampled_documents(problem: str) -> None:
    rng = random.Random(0)
    if problem == "regression":
        numbers = [rng.gauss(0, 1) for _ in range(120)]
        pairs = [(str(number), str(number + rng.gauss(0, 0.7))) for number in numbers]
        name = "r2"
    else:
        pairs = [("|".join(sorted(rng.sample("abc", rng.randrange(3)))), "|".join(sorted(rng.sample("abc", rng.randrange(3))))) for _ in range(120)]
        name = "micro_f1"
    draws = [list(zip(*rng.choices(pairs, k=120), strict=True)) for _ in range(800)]
    expected = sorted(figures(labels, predicted, problem)[name] for labels, predicted in draws)
    low, high = bootstrap_scores(*zip(*pairs, strict=True), problem)[name]
    assert low == pytest.approx(expected[20], abs=0.03) and high == pytest.approx(expected[780], abs=0.03)
