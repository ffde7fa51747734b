"""Calibration figures on cases worked by hand, and their bounds on any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from llm_assets.evaluation.calibration import Bin, brier_score, expected_calibration_error, label_brier_score, reliability
from llm_assets.evaluation.worth import confidence


def test_the_error_of_two_bins_by_hand() -> None:
    # Of ten bins the sixth holds .55 and .6 (one of two right), the tenth .95 and 1 (both right).
    bins = reliability([0.55, 0.95, 1.0, 0.6], [True, True, True, False], bins=10)
    assert [found.documents for found in bins] == [2, 2]
    assert (bins[0].confidence, bins[0].accuracy) == (pytest.approx(0.575), 0.5)
    assert (bins[1].confidence, bins[1].accuracy) == (pytest.approx(0.975), 1.0)
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.075 + 2 * 0.025) / 4)


def test_always_sure_and_half_right_is_half_an_error() -> None:
    assert expected_calibration_error(reliability([1.0] * 4, [True, False, True, False])) == 0.5


def test_fifteen_bins_take_their_upper_end() -> None:
    assert reliability([2 / 15, 2 / 15 + 1e-6], [True, True]) == [Bin(1, 2 / 15, 1.0), Bin(1, 2 / 15 + 1e-6, 1.0)]
    assert len(reliability([0.0, 1 / 15], [False, False])) == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80))
def test_bins_hold_every_document_once(pairs: list[tuple[float, bool]]) -> None:
    bins = reliability([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    assert len(bins) <= 15 and sum(found.documents for found in bins) == len(pairs)
    assert -1e-12 <= expected_calibration_error(bins) <= 1 + 1e-12
    assert sum(found.documents * found.accuracy for found in bins) == pytest.approx(sum(pair[1] for pair in pairs))


def test_nothing_to_bin_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 probabilities against 1"):
        reliability([], [True])


def test_brier_by_hand() -> None:
    assert brier_score([[0.8, 0.2], [0.5, 0.5]], [0, 1]) == pytest.approx((2 * 0.04 + 2 * 0.25) / 2)
    assert brier_score([[0.7, 0.2, 0.1]], [1]) == pytest.approx(0.49 + 0.64 + 0.01)
    assert brier_score([[1.0, 0.0]], [0]) == 0 and brier_score([[1.0, 0.0]], [1]) == 2


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_for_two_labels_it_is_twice_scikit_learns(pairs: list[tuple[float, int]]) -> None:
    probability, truth = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    expected = 2 * brier_score_loss(truth, probability, labels=[0, 1])
    assert brier_score([[1 - value, value] for value in probability], truth) == pytest.approx(expected, abs=1e-12)


def test_several_labels_by_hand() -> None:
    assert label_brier_score([[0.8, 0.4], [0.5, 1.0]], [[1, 0], [1, 1]]) == pytest.approx((0.04 + 0.16 + 0.25 + 0.0) / 2)
    rows = [{"label": "a", "probabilities": [0.8, 0.4]}, {"label": "a|b", "probabilities": [0.5, 1.0]}]
    # Four answers, all right, as sure as .8, .6 (that it is not b), .5 and 1.
    bins = confidence(rows, ["a", "b"], "multi_label")
    assert [found.confidence for found in bins] == [pytest.approx(value) for value in (0.5, 0.6, 0.8, 1.0)] and all(
        found.accuracy == 1 for found in bins
    )
