"""Every architecture alike: padding changes nothing, it comes back from its files, learns, and answers the same as an ONNX graph."""

from __future__ import annotations

from pathlib import Path

import numpy
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from llm_assets.compression.export import export_classifier
from llm_assets.training.architectures import ARCHITECTURES

WORDS = 60


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config, model = ARCHITECTURES[name]
    return model(config(vocab_size=WORDS, num_labels=3))


def texts(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1, WORDS, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(sum(lengths)))
    mask = (torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]).long()
    return ids, mask


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_changes_nothing(name: str) -> None:
    model = build(name).eval()
    ids, mask = texts(12, 7, 2)  # 2 tokens: shorter than the widest kernel
    with torch.no_grad():
        beside = model(input_ids=ids, attention_mask=mask).logits
        other = model(input_ids=torch.where(mask.bool(), ids, 5), attention_mask=mask).logits  # something else stands in the padding
        alone = [
            model(input_ids=ids[row : row + 1, :length], attention_mask=mask[row : row + 1, :length]).logits[0] for row, length in ((1, 7), (2, 2))
        ]
    assert torch.equal(beside, other)
    assert torch.allclose(beside[1:], torch.stack(alone), atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_order_of_tokens_counts(name: str) -> None:
    model = build(name).eval()
    ids, mask = texts(9)
    with torch.no_grad():
        assert not torch.allclose(
            model(input_ids=ids, attention_mask=mask).logits, model(input_ids=ids.flip(1), attention_mask=mask).logits, atol=1e-4
        )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_learns(name: str) -> None:
    model = build(name).train()
    ids, mask = texts(*[8] * 32)
    labels = (ids[:, 3] > WORDS // 2).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model.eval()(input_ids=ids, attention_mask=mask).logits.argmax(1) == labels).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_files_and_graph_answer_as_the_model_did(name: str, tmp_path: Path) -> None:
    model = build(name).eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    export_classifier(tmp_path, tmp_path / "model.onnx")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True).eval()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for lengths in ((1,), (40, 23, 5), (200, 2)):
        ids, mask = texts(*lengths)
        with torch.no_grad():
            expected = model(input_ids=ids, attention_mask=mask).logits.numpy()
            found = again(input_ids=ids, attention_mask=mask).logits.numpy()
        numpy.testing.assert_allclose(found, expected, atol=1e-6)
        numpy.testing.assert_allclose(session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0], expected, atol=1e-5)
