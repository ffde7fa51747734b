"""Random checkpoints of every encoder there is: each learns, and its graph answers like torch; everything else is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from llm_assets.compression.export import export_classifier
from llm_assets.compression.quantize import quantize_dynamic
from llm_assets.training import heads
from llm_assets.training.encoders import DROPOUTS, EncoderError, longest_text, refuse_unfit
from llm_assets.training.job import Classification
from llm_assets.training.models import classifier
from llm_assets_tests.links import trained

WORDS, POSITIONS = 60, 66
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
# Weights as large as training makes them: with the usual 0.02 all answers are alike, and so are wrong ones.
COMMON = {"vocab_size": WORDS, "max_position_embeddings": POSITIONS, "initializer_range": 0.3}
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}
SPECIAL = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
KINDS: dict[str, dict[str, Any]] = {
    "modernbert": {**SHAPE, **SPECIAL},
    "bert": SHAPE,
    "roberta": {**SHAPE, "pad_token_id": 1},
    "xlm-roberta": {**SHAPE, "pad_token_id": 1},
    "deberta": {**SHAPE, **RELATIVE},
    "deberta-v2": {**SHAPE, **RELATIVE, "share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"},  # as version 3 is
    "electra": {**SHAPE, "embedding_size": 32},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
}


def checkpoint(folder: Path, kind: str, **changes: Any) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**COMMON, **KINDS[kind], **changes})
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    return folder


def objective(**changes: Any) -> Classification:
    return Classification(train=Path("t"), evaluation=Path("e"), labels=("a", "b", "c"), **{"dropout": 0.25, **changes})


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(trained.corpus()["tokenizer"].directory)


def test_every_kind_that_is_taken_is_tested() -> None:
    assert set(KINDS) == set(DROPOUTS)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_its_graph_answers_like_torch(kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = checkpoint(tmp_path / "pretrained", kind)
    padding = KINDS[kind].get("pad_token_id", 0)
    longest = POSITIONS - 2 if kind in ("roberta", "xlm-roberta") else POSITIONS
    refuse_unfit(folder, WORDS, padding, longest)
    model = classifier(objective(), folder, tokenizer)
    used = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert 0.25 in used and all(getattr(model.config, name) == 0.25 for name in DROPOUTS[kind])
    assert [model.config.id2label[index] for index in range(3)] == ["a", "b", "c"] and model.config.problem_type == "single_label_classification"

    ids = torch.randint(5, WORDS, (12, 20), generator=torch.Generator().manual_seed(1))
    feed, labels = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids[:, 3] % 3
    optimizer, costs = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(12):
        cost = heads.loss("single_label")({"logits": model(**feed).logits}, labels)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(float(cost.detach()))
    assert min(costs[-3:]) < 0.9 * costs[0]
    model.eval().save_pretrained(tmp_path / "finetuned")

    export_classifier(tmp_path / "finetuned", tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    session, rounded = (onnxruntime.InferenceSession(tmp_path / name) for name in ("float.onnx", "int8.onnx"))
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "finetuned").eval()
    found, near = [], []
    for lengths in ((3,), (40, 11), (longest, 2)):
        mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
        ids = torch.where(mask.bool(), torch.randint(5, WORDS, mask.shape, generator=torch.Generator().manual_seed(7)), padding)
        with torch.no_grad():
            expected = again(input_ids=ids, attention_mask=mask).logits.numpy()
        given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        numpy.testing.assert_allclose(session.run(None, given)[0], expected, atol=1e-4)
        found.append(expected)
        near.append(rounded.run(None, given)[0])
    assert numpy.ptp(numpy.concatenate(found), axis=0).min() > 0.05  # the answers differ from text to text
    assert numpy.corrcoef(numpy.concatenate(found).ravel(), numpy.concatenate(near).ravel())[0, 1] > 0.95


def config(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "gpt2"}, "it is a decoder"),
        ({"model_type": "bert", "is_decoder": True}, "it is a decoder"),
        ({"model_type": "bart"}, "it writes text from text"),
        ({"model_type": "vit"}, "no sequence-classification head"),
        ({"model_type": "mobilebert"}, "no test shows that its ONNX graph"),
        ({"model_type": "of-tomorrow", "auto_map": {"AutoModel": "code.Model"}}, "names no architecture that transformers has"),
        ({}, "names no architecture that transformers has"),
        ({"model_type": "bert", "type_vocab_size": 0}, "type_vocab_size is 0"),
        ({"model_type": "bert", "vocab_size": 40}, "it knows 40 tokens, the tokenizer makes 60: name that checkpoint's own tokenizer"),
        ({"model_type": "roberta"}, "its padding token is 1, the tokenizer's is 0"),
        ({"model_type": "bert", "max_position_embeddings": 32}, "positions for 32 tokens: lower finetuned_model.max_length, which is 64"),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 65, "pad_token_id": 0}, "positions for 64 tokens"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    length = 65 if settings.get("model_type") == "xlm-roberta" else 64
    with pytest.raises(EncoderError, match=reason):
        refuse_unfit(config(tmp_path / "c", **settings), 60, 0, length)


def test_a_model_without_positions_has_no_longest_text() -> None:
    assert longest_text(AutoConfig.for_model("t5")) is None
