from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.evaluation.baselines import Majority, TfidfLogisticRegression, WordTfidfLogisticRegression

TEXTS = ["这本书很好看", "房间很干净", "很好很满意", "质量太差", "服务很差劲", "非常失望不好"] * 4
BINARY = ["positive", "positive", "positive", "negative", "negative", "negative"] * 4
THREE = ["book", "hotel", "other", "other", "hotel", "other"] * 4


def test_majority_says_the_commonest_label_with_the_shares(tmp_path: Path) -> None:
    Majority.fit(["x"] * 4, ["a", "b", "b", "b"]).save(tmp_path)
    model = Majority.load(tmp_path)
    assert model.labels == ["a", "b"] and model.classify(["?", "!"]) == [[0.25, 0.75]] * 2


@pytest.mark.parametrize("answers", [BINARY, THREE])
def test_a_stored_tfidf_model_gives_scikit_learns_probabilities(tmp_path: Path, answers: list[str]) -> None:
    from sklearn.linear_model import LogisticRegression

    from llm_assets.evaluation.baselines import REGULARIZATION, _vectorizer

    TfidfLogisticRegression.fit(TEXTS, answers).save(tmp_path)
    model = TfidfLogisticRegression.load(tmp_path)
    vectorizer = _vectorizer(TfidfLogisticRegression.TERMS, min_df=2)
    reference = LogisticRegression(C=REGULARIZATION, max_iter=300).fit(vectorizer.fit_transform(TEXTS), answers)
    new = ["书很好看", "太差了", "没见过的字"]
    assert model.labels == list(reference.classes_)
    for row, expected in zip(model.classify(new), reference.predict_proba(vectorizer.transform(new)), strict=True):
        assert row == pytest.approx(expected.tolist(), abs=2e-3)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_words_and_characters_stand_beside_each_other(tmp_path: Path) -> None:
    texts = ["a good book", "a good room", "not good at all", "at all not nice"] * 4
    answers = ["positive", "positive", "negative", "negative"] * 4
    for kind in (TfidfLogisticRegression, WordTfidfLogisticRegression):
        kind.fit(texts, answers).save(tmp_path)
    words, characters = WordTfidfLogisticRegression.load(tmp_path), TfidfLogisticRegression.load(tmp_path)
    assert "not good" in words.terms and "oo" in characters.terms and "oo" not in words.terms
    assert words.classify(["not good"])[0][words.labels.index("negative")] > 0.5


def test_majority_of_several_labels_and_of_numbers(tmp_path: Path) -> None:
    several = Majority.fit(["x"] * 4, ["a", "a|b", "", "a"], "multi_label")
    assert several.labels == ["a", "b"] and several.classify(["?"]) == [[0.75, 0.25]]
    assert Majority.fit(["x"] * 2, ["1.0", "4.0"], "regression").classify(["?"]) == [[2.5]]


def test_tfidf_of_several_labels_is_a_logistic_regression_each(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    from llm_assets.evaluation.baselines import REGULARIZATION, _vectorizer

    answers = ["good|thing", "thing", "good", "", "bad", "bad"] * 4
    TfidfLogisticRegression.fit(TEXTS, answers, "multi_label").save(tmp_path)
    model = TfidfLogisticRegression.load(tmp_path)
    vectorizer = _vectorizer(TfidfLogisticRegression.TERMS, min_df=2)
    features, new = vectorizer.fit_transform(TEXTS), ["书很好看", "太差了"]
    assert model.labels == ["bad", "good", "thing"]
    for column, label in enumerate(model.labels):
        reference = LogisticRegression(C=REGULARIZATION, max_iter=300).fit(features, [label in answer for answer in answers])
        found = [row[column] for row in model.classify(new)]
        assert found == pytest.approx(reference.predict_proba(vectorizer.transform(new))[:, 1].tolist(), abs=2e-3)


def test_tfidf_of_numbers_is_a_ridge_regression(tmp_path: Path) -> None:
    from sklearn.linear_model import Ridge

    from llm_assets.evaluation.baselines import REGULARIZATION, _vectorizer

    answers = ["3.0", "2.0", "4.5", "1.0", "0.5", "0.0"] * 4
    TfidfLogisticRegression.fit(TEXTS, answers, "regression").save(tmp_path)
    vectorizer = _vectorizer(TfidfLogisticRegression.TERMS, min_df=2)
    reference = Ridge(alpha=1 / REGULARIZATION).fit(vectorizer.fit_transform(TEXTS), list(map(float, answers)))
    found = TfidfLogisticRegression.load(tmp_path).classify(["书很好看", "太差了"])
    assert [row[0] for row in found] == pytest.approx(reference.predict(vectorizer.transform(["书很好看", "太差了"])).tolist(), abs=1e-3)
