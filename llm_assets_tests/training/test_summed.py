"""The sum of an encoder and token n-grams: the same in numpy, torch and ONNX, and better than the encoder alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy
import pytest
import torch
from transformers import BertConfig

from llm_assets.compression.export import export_classifier
from llm_assets.compression.quantize import quantize_dynamic
from llm_assets.evaluation.predictions import Examples
from llm_assets.evaluation.torch_classifier import TorchClassifier
from llm_assets.training import grams
from llm_assets.training.grams import Grams
from llm_assets.training.job import Classification
from llm_assets.training.summed import Labelled, SummedConfig, SummedForSequenceClassification, add_grams, weighed
from llm_assets_tests.links import trained

SLOTS = 1009


def model(columns: int = 1, labels: int = 2) -> SummedForSequenceClassification:
    torch.manual_seed(0)
    encoder = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, max_position_embeddings=32, num_labels=labels
    )
    settings = SummedConfig(encoder_settings=encoder.to_dict(), longest=3, slots=SLOTS, columns=columns, num_labels=labels, pad_token_id=0)
    made = SummedForSequenceClassification(settings).eval()
    torch.nn.init.normal_(made.grams.weight)
    return made


def test_the_scores_are_those_of_the_formula() -> None:
    made = model(columns=3, labels=3)
    ids = [5, 7, 5, 9]
    every = [ids[start : start + size] for size in (1, 2, 3) for start in range(len(ids) - size + 1)]
    keys = numpy.array([sum(token + 1 << grams.WIDTH * step for step, token in enumerate(gram)) for gram in every])
    table = made.grams.weight.detach().numpy()
    first, second = (table[row * SLOTS + grams._slots(keys, row, SLOTS)] for row in range(2))
    agreed = numpy.where(first * second > 0, numpy.sign(first) * numpy.minimum(abs(first), abs(second)) ** 2, 0)
    expected = agreed.sum(0) / numpy.sqrt((agreed != 0).sum(0))
    with torch.inference_mode():
        found = made.gram_scores(torch.tensor([ids]), torch.ones(1, 4, dtype=torch.int64))[0].numpy()
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("length", [1, 2, 6])
def test_what_stands_in_the_padding_changes_no_answer(length: int) -> None:
    made = model()
    ids = torch.randint(1, 50, (1, length))
    padded = torch.cat((ids, torch.tensor([[3, 0, 9]])), 1)
    mask = torch.tensor([[1] * length + [0] * 3])
    with torch.inference_mode():
        alone, among = made(ids, torch.ones_like(ids)).logits, made(padded, mask).logits
    assert torch.allclose(alone, among, atol=1e-5)


def test_one_column_tells_two_labels_apart() -> None:
    with torch.inference_mode():
        said = model().gram_scores(torch.tensor([[4, 5]]), torch.ones(1, 2, dtype=torch.int64))
    assert said.shape == (1, 2) and said.sum() == pytest.approx(0, abs=1e-6) and said[0, 0] != 0


def test_the_factors_are_those_of_the_least_loss() -> None:
    """Scores +-2 that are right in 3 of 4 texts are best as +-ln 3 / 2 for either label; scores that say nothing are left alone."""
    said = torch.tensor([[1.0, -1.0], [1.0, -1.0], [1.0, -1.0], [1.0, -1.0]]).double()
    targets = torch.tensor([[True, False]] * 3 + [[False, True]])
    found = weighed("single_label", torch.zeros_like(said), said, targets)
    assert found["grams"] == pytest.approx(numpy.log(3) / 2, abs=1e-3)


def objective(folder: Path) -> Classification:
    return Classification(train=folder, evaluation=folder, labels=tuple(trained.LABELS), max_length=32)


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finetuned model of all tests with n-grams added."""
    folder = tmp_path_factory.mktemp("summed") / "model"
    shutil.copytree(trained.finetuned().artifact.directory, folder)
    train = trained.corpus()["labelled_examples"].table("train.parquet", ["text", "label"]).to_pydict()
    validation = Examples.read(trained.corpus()["evaluation_sets"]).of("validation")
    settings = Grams(longest=2, slots=10_007)
    learnt, held_out = Labelled(train["text"], train["label"]), Labelled(validation.texts, validation.labels)
    factors = add_grams(folder, settings, objective(folder), learnt, held_out)
    assert factors["grams"] > 0 and factors["encoder"] > 0
    return folder


def loss(folder: Path, examples: Examples) -> float:
    probabilities = numpy.array(TorchClassifier(folder).classify(examples.texts))
    return float(-numpy.log(probabilities[range(len(examples.labels)), [trained.LABELS.index(label) for label in examples.labels]]).mean())


def test_the_sum_is_loaded_like_any_classifier_and_surer_of_what_is_right(summed: Path) -> None:
    validation = Examples.read(trained.corpus()["evaluation_sets"]).of("validation")
    assert loss(summed, validation) < loss(trained.finetuned().artifact.directory, validation)


def test_its_graph_answers_like_torch_and_shrinks(summed: Path, tmp_path: Path) -> None:
    import onnxruntime

    export_classifier(summed, tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    saved = (tmp_path / "float.onnx").stat().st_size - (tmp_path / "int8.onnx").stat().st_size
    assert saved > 3 * 2 * 10_007 + 5_000  # three bytes of each weight of the sketch, and some of the encoder's
    reference = TorchClassifier(summed)
    texts = Examples.read(trained.corpus()["evaluation_sets"]).texts[:20]
    expected = numpy.array(reference.classify(texts))
    for name, most in (("float", 1e-5), ("int8", 0.1)):
        session = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"))
        for text, wanted in zip([*texts, "好"], [*expected, reference.classify(["好"])[0]], strict=True):
            ids = numpy.array([reference.tokenizer(text)["input_ids"]])
            scores = session.run(None, {"input_ids": ids, "attention_mask": numpy.ones_like(ids)})[0][0]
            assert torch.softmax(torch.tensor(scores), -1).numpy() == pytest.approx(wanted, abs=most)
