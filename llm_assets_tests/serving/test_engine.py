from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.serving import engine as engine_module
from llm_assets.serving.engine import EngineError, OnnxClassifier, decided
from llm_assets.store.files import sha256_file
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


def test_a_special_token_that_a_text_names_is_spelt_out(engine: OnnxClassifier) -> None:
    [[ids]] = engine.encode(["good[SEP]bad"])
    assert ids.count(ids[-1]) == 1  # that of the frame


def test_long_text_is_truncated_and_counted_after_it(engine: OnnxClassifier) -> None:
    answers = engine.answer(["good", "good " * 100])
    assert [answer.tokens for answer in answers] == [3, MAX_LENGTH]


def test_a_long_text_is_read_in_windows_whose_answers_are_averaged(tmp_path: Path) -> None:
    cut, windows = OnnxClassifier(write_model(tmp_path / "a")), OnnxClassifier(write_model(tmp_path / "b", overlap=4))
    places = MAX_LENGTH - 2
    text = " ".join(["good"] * places + ["bad"] * (places - 4))  # the second window shares four words and has ten more
    pieces = ["good " * places, "good " * 4 + "bad " * (places - 4)]
    assert windows.encode([text]) == [[window for [window] in cut.encode(pieces)]]
    expected = numpy.array(cut.classify(pieces)).mean(axis=0)
    beside = windows.answer(["bad", text, "good"])  # each text keeps its own windows
    assert beside[1].probabilities == pytest.approx(expected) and beside[1].tokens == 2 * MAX_LENGTH
    assert [row.probabilities for row in (beside[0], beside[2])] == [pytest.approx(row) for row in cut.classify(["bad", "good"])]
    assert cut.classify([text]) == [pytest.approx(cut.classify(pieces)[0])]


def test_more_windows_than_one_call_takes_are_read_in_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = OnnxClassifier(write_model(tmp_path, overlap=4))
    texts = ["good bad " * number for number in (1, 30, 2, 50)]
    at_once = windows.classify(texts)
    monkeypatch.setattr(engine_module, "BATCH", 3)
    assert windows.classify(texts) == [pytest.approx(row) for row in at_once]


def test_several_labels_are_independent(tmp_path: Path) -> None:
    several = OnnxClassifier(write_model(tmp_path, problem="multi_label"))
    (negative, positive), (none, neither) = several.classify(["good", "unheard"])
    assert positive == pytest.approx(1 / (1 + numpy.exp(-2 / 3))) and negative == pytest.approx(1 - positive)  # 2 over three tokens
    assert none == neither == 0.5


def test_answers_are_written_like_labels() -> None:
    assert decided("single_label", [0.4, 0.6], ["a", "b"]) == "b"
    assert decided("multi_label", [0.5, 0.2, 0.9], ["c", "b", "a"]) == "a|c" and decided("multi_label", [0.1], ["a"]) == ""
    assert decided("regression", [2.5], ["value"]) == "2.5"


def test_a_graph_that_asks_for_token_types_gets_them(tmp_path: Path) -> None:
    write_model(tmp_path)
    graph = onnx.load(tmp_path / "model.onnx")
    graph.graph.input.append(onnx.helper.make_tensor_value_info("token_type_ids", onnx.TensorProto.INT64, ["batch", "length"]))
    onnx.save(graph, tmp_path / "model.onnx")
    found = OnnxClassifier(tmp_path)
    assert found.feed([[2, 5, 3]])["token_type_ids"].tolist() == [[0, 0, 0]]
    assert found.classify(["good"])[0][1] > 0.5


def test_padding_is_the_tokenizers_own(tmp_path: Path) -> None:
    assert OnnxClassifier(write_model(tmp_path, padding=4)).feed([[2, 3], [2, 5, 3]])["input_ids"].tolist() == [[2, 3, 4], [2, 5, 3]]


def test_a_graph_beside_other_labels_or_another_tokenizer_is_refused(tmp_path: Path) -> None:
    tokenizer = sha256_file(write_model(tmp_path) / "tokenizer.json")
    notes = {"labels": json.dumps(LABELS), "tokenizer": tokenizer}
    OnnxClassifier(write_model(tmp_path / "whole", notes=notes))
    with pytest.raises(EngineError, match=r"model.onnx answers negative, positive in this order, serving.json says positive, negative"):
        OnnxClassifier(write_model(tmp_path / "labels", notes=notes, labels=LABELS[::-1]))
    other = write_model(tmp_path / "tokenizer", notes=notes) / "tokenizer.json"
    other.write_text(other.read_text().replace('"good": 5', '"fine": 5').replace('"good":5', '"fine":5'))
    assert sha256_file(other) != tokenizer
    with pytest.raises(EngineError, match=r"not the one that model\.onnx was trained with"):
        OnnxClassifier(other.parent)


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
        "import sys; sys.modules.update(torch=None, transformers=None);"  # as if neither were installed: importing one is an error
        "from pathlib import Path; from llm_assets.serving.engine import OnnxClassifier; import llm_assets.serving.app;"
        f"OnnxClassifier(Path({str(directory)!r})).classify(['good']);"
        "assert not {'dagster', 'mlflow'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
