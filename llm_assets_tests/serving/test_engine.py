from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.serving.engine import EngineError, OnnxClassifier
from llm_assets_tests.serving.tiny import LABELS, MAX_LENGTH, write_model


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(directory: Path) -> OnnxClassifier:
    return OnnxClassifier(directory)


def test_probabilities_come_in_the_order_of_the_labels(engine: OnnxClassifier) -> None:
    assert engine.labels == LABELS
    good, bad = engine.classify(["good 喜欢", "bad"])
    assert good[1] > 0.5 > good[0]
    assert bad[0] > 0.5 > bad[1]
    assert sum(good) == pytest.approx(1)


def test_padding_does_not_change_an_answer(engine: OnnxClassifier) -> None:
    alone = engine.classify(["good"])[0]
    beside = engine.classify(["good", "bad bad bad bad bad bad"])[0]
    assert alone == pytest.approx(beside)


def test_text_is_normalised_as_in_training(engine: OnnxClassifier) -> None:
    assert engine.classify(["ｇｏｏｄ<br />喜欢​"]) == engine.classify(["good 喜欢"])


def test_long_text_is_truncated_and_counted_after_it(engine: OnnxClassifier) -> None:
    answers = engine.answer(["good", "good " * 100])
    assert [answer.tokens for answer in answers] == [3, MAX_LENGTH]


def test_no_texts_give_no_answers(engine: OnnxClassifier) -> None:
    assert engine.classify([]) == []


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_any_text_gets_a_distribution(engine: OnnxClassifier, texts: list[str]) -> None:
    rows = numpy.array(engine.classify(texts))
    assert rows.shape == (len(texts), len(LABELS))
    assert numpy.allclose(rows.sum(axis=1), 1)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "serving.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_model(tmp_path) / name).unlink()
    with pytest.raises(EngineError, match=f"holds no {name}"):
        OnnxClassifier(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (write_model(tmp_path) / name).write_bytes(b"junk")
    with pytest.raises(EngineError, match=name):
        OnnxClassifier(tmp_path)


def test_another_normaliser_is_refused(tmp_path: Path) -> None:
    settings = write_model(tmp_path) / "serving.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "normaliser": 99}))
    with pytest.raises(EngineError, match="normaliser 99"):
        OnnxClassifier(tmp_path)


def test_serving_needs_no_torch(directory: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from llm_assets.serving.engine import OnnxClassifier; import llm_assets.serving.gateway;"
        f"OnnxClassifier(Path({str(directory)!r})).classify(['good']);"
        "assert not {'torch', 'transformers', 'dagster', 'mlflow'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
