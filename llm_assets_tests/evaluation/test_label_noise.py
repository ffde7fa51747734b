from __future__ import annotations

import numpy as np
import pytest

from llm_assets.evaluation.label_noise import TooFewExamplesError, calibrated_joint, confident_joint, confident_labels, estimate


def test_a_confident_joint_worked_by_hand() -> None:
    first = np.array([0.9, 0.8, 0.1, 0.6, 0.2, 0.1, 0.9])
    probabilities = np.stack([first, 1 - first], axis=1)
    given = np.array([0, 0, 0, 0, 1, 1, 1])
    # Thresholds: (.9 + .8 + .1 + .6) / 4 = .6 and (.8 + .9 + .1) / 3 = .6.
    confident = confident_labels(probabilities, given)
    assert confident.tolist() == [0, 0, 1, 0, 1, 1, 0]
    joint = confident_joint(confident, given, 2)
    assert joint.tolist() == [[3, 1], [1, 2]]
    expected = [[3 / 7, 1 / 7], [1 / 7, 2 / 7]]
    np.testing.assert_allclose(calibrated_joint(joint, given), expected)


def test_an_example_below_every_threshold_is_not_counted() -> None:
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    given = np.array([0, 0, 1])  # thresholds .7 and .9
    confident = confident_labels(probabilities, given)
    assert confident.tolist() == [0, -1, 1]
    joint = confident_joint(confident, given, 2)
    assert joint.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(calibrated_joint(joint, given).sum(axis=1), [2 / 3, 1 / 3])  # rows keep the labels' shares


def test_planted_flips_are_found() -> None:
    generator = np.random.default_rng(3)
    words = {"good": "好棒赞美喜爱值佳", "bad": "差烂糟坏失望退骗"}
    right = np.array(["good", "bad"] * 400)
    texts = ["".join(generator.choice(list(words[label]), 6)) + "".join(generator.choice(list("的了是我你他书店"), 10)) for label in right]
    flipped = generator.choice(len(right), 80, replace=False)  # 10 %
    given = right.copy()
    given[flipped] = np.where(right[flipped] == "good", "bad", "good")
    noise = estimate(texts, given.tolist(), folds=3, seed=1)
    found = set(noise.suspects.tolist())
    assert len(found & set(flipped.tolist())) >= 64  # 66 are found: those of which the model is less sure than on average are not
    assert not found - set(flipped.tolist())
    assert noise.rate == pytest.approx(0.1, abs=0.01)
    assert [noise.labels[place] for place in noise.suggested] == [str(right[one]) if one in flipped else noise.labels[place]
        for one, place in zip(noise.suspects, noise.suggested, strict=True)]  # fmt: skip
    assert (np.diff(noise.margin) <= 0).all()
    assert set(noise.pairs) == {"bad -> good", "good -> bad"}


def test_folds_need_examples() -> None:
    with pytest.raises(TooFewExamplesError, match="rarest with 1 examples"):
        estimate(["好", "好啊", "坏"], ["a", "a", "b"], folds=2, seed=0)
    with pytest.raises(TooFewExamplesError):
        estimate(["好", "坏"], ["a", "a"], folds=2, seed=0)
