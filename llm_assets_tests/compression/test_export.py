"""The exported graph against torch, at batches and lengths it was not traced with."""

from __future__ import annotations

from pathlib import Path

import numpy
import onnxruntime
import pytest
import torch
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from llm_assets.compression.export import export_classifier
from llm_assets.compression.quantize import quantize_dynamic, quantize_static

SHAPE = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 6000}
IDS = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "max_position_embeddings": 256}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    ModernBertForSequenceClassification(ModernBertConfig(**SHAPE, **IDS, num_labels=3, classifier_pooling="mean")).save_pretrained(folder)
    export_classifier(folder, folder / "float.onnx")
    quantize_dynamic(folder / "float.onnx", folder / "int8.onnx")
    ids = numpy.random.default_rng(0).integers(5, 60, (20, 1, 24))
    quantize_static(folder / "float.onnx", folder / "static.onnx", ({"input_ids": row, "attention_mask": numpy.ones_like(row)} for row in ids))
    return folder


def answer(path: Path, batch: int, length: int, padded: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    ids = numpy.random.default_rng(batch * length).integers(5, 60, (batch, length))
    mask = numpy.ones_like(ids)
    if padded:
        ids[0, -padded:], mask[0, -padded:] = 0, 0
    model = ModernBertForSequenceClassification.from_pretrained(path.parent).eval()
    with torch.inference_mode():
        expected = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
    return onnxruntime.InferenceSession(path).run(None, {"input_ids": ids, "attention_mask": mask})[0], expected


@pytest.mark.parametrize(("batch", "length", "padded"), [(1, 3, 0), (1, 16, 0), (5, 40, 7), (2, 200, 60)])
def test_float_equals_torch(exported: Path, batch: int, length: int, padded: int) -> None:
    found, expected = answer(exported / "float.onnx", batch, length, padded)
    numpy.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_graph_names_no_path_of_the_machine_that_exported(exported: Path) -> None:
    for name in ("float.onnx", "int8.onnx", "static.onnx"):
        content = (exported / name).read_bytes()
        assert b"site-packages" not in content and b"stack_trace" not in content


@pytest.mark.parametrize("name", ["int8.onnx", "static.onnx"])
def test_int8_is_smaller_and_close(exported: Path, name: str) -> None:
    found, expected = answer(exported / name, 8, 30, 4)
    assert numpy.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98
    assert (exported / name).stat().st_size < 0.5 * (exported / "float.onnx").stat().st_size
