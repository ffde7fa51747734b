from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.evaluation.baselines import Majority, TfidfLogisticRegression

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
    vectorizer = _vectorizer(min_df=2)
    reference = LogisticRegression(C=REGULARIZATION, max_iter=300).fit(vectorizer.fit_transform(TEXTS), answers)
    new = ["书很好看", "太差了", "没见过的字"]
    assert model.labels == list(reference.classes_)
    for row, expected in zip(model.classify(new), reference.predict_proba(vectorizer.transform(new)), strict=True):
        assert row == pytest.approx(expected.tolist(), abs=2e-3)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
