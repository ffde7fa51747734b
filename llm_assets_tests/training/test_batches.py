from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import ModernBertModel, PreTrainedTokenizerFast

from llm_assets.training.batches import IGNORED, Blocks, CollateBlocks, CollateTexts, Texts, sample_order
from llm_assets.training.job import Masked, ModelShape
from llm_assets.training.models import attention_windows, modernbert_config
from llm_assets_tests.links import trained


@given(count=st.integers(1, 200), steps=st.integers(1, 40), batch=st.integers(1, 16), seed=st.integers(0, 5), grouped=st.booleans())
def test_every_epoch_is_a_shuffle_in_whole_batches(count: int, steps: int, batch: int, seed: int, grouped: bool) -> None:
    lengths = [number % 7 for number in range(count)] if grouped else None
    order = sample_order(count, steps, batch, seed, lengths)
    assert len(order) == steps * batch and order.min() >= 0 and order.max() < count
    whole = count // batch * batch
    if whole and len(order) >= whole:
        assert len(set(order[:whole].tolist())) == whole
    assert (order == sample_order(count, steps, batch, seed, lengths)).all()
    assert (sample_order(count, steps + 1, batch, seed, lengths)[: len(order)] == order).all()


def test_batches_hold_texts_of_like_length() -> None:
    lengths = numpy.random.default_rng(0).integers(1, 100, 2000)
    batches = lengths[sample_order(2000, 100, 20, 0, lengths.tolist())].reshape(100, 20)
    assert 1 - lengths.mean() / batches.max(axis=1).mean() < 0.1  # share of padding; 0.5 without grouping
    assert not (numpy.diff(batches.mean(axis=1)) >= 0).all()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(trained.corpus()["tokenizer"].directory)


def blocks(tokenizer: PreTrainedTokenizerFast, seed: int = 0, probability: float = 0.3) -> Blocks:
    return Blocks(Masked(tokens=trained.corpus()["tokens"].directory, mask_probability=probability), tokenizer, numpy.arange(80), seed)


def test_masks_depend_on_seed_and_position_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    first, second, other = blocks(tokenizer), blocks(tokenizer), blocks(tokenizer, seed=1)
    second[3]  # reading something else before changes nothing
    assert (first[7]["input_ids"] == second[7]["input_ids"]).all()
    assert (first[7]["labels"] != other[7]["labels"]).any()


def test_masking_takes_the_stated_shares_and_no_special_token(tokenizer: PreTrainedTokenizerFast) -> None:
    masked = blocks(tokenizer)
    chosen = replaced = kept = ordinary = 0
    special = set(tokenizer.all_special_ids)
    for position in range(len(masked)):
        original = masked.blocks[position]
        for token, shown, label in zip(original.tolist(), masked[position]["input_ids"].tolist(), masked[position]["labels"].tolist(), strict=True):
            ordinary += token not in special
            if label == IGNORED:
                assert shown == token
                continue
            assert label == token and token not in special and (shown == tokenizer.mask_token_id or shown not in special)
            chosen += 1
            replaced += shown == tokenizer.mask_token_id
            kept += shown == token
    assert chosen / ordinary == pytest.approx(0.3, abs=0.03)
    assert replaced / chosen == pytest.approx(0.8, abs=0.05)
    assert kept / chosen == pytest.approx(0.1, abs=0.05)


def test_padding_is_hidden_from_attention(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = Texts([[2, 9, 3], [2, 3]], [1, 0])
    batch = CollateTexts(0)([texts[0], texts[1]])
    assert batch["input_ids"].tolist() == [[2, 3, 0], [2, 9, 3]] and batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [0, 1]


def test_a_document_is_encoded_alike_alone_and_among_others(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    shape = ModelShape(hidden=32, layers=4, heads=2, intermediate=48)  # layer 1 and 4 look at everything, 2 and 3 at a window
    config = modernbert_config(shape, tokenizer, 50, 40)
    config.local_attention = 6
    model = ModernBertModel(config).eval()
    opening, closing, padding = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    one, other = [opening, *range(10, 22), closing], [opening, *range(30, 45), closing]
    block = torch.tensor([*one, *other, *[padding] * 5])
    batch = CollateBlocks(padding, opening, attention_windows(config))([{"input_ids": block, "labels": block}])
    assert set(batch["attention_mask"]) == {"full_attention", "sliding_attention"}
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0][0]
        alone = [model(input_ids=torch.tensor([ids]))[0][0] for ids in (one, other)]
    assert torch.allclose(packed[: len(one)], alone[0], atol=1e-5)
    assert torch.allclose(packed[len(one) : len(one) + len(other)], alone[1], atol=1e-5)


def test_a_model_with_one_kind_of_attention_gets_one_mask() -> None:
    ids = torch.tensor([2, 9, 7, 3, 8, 0])
    mask = CollateBlocks(0, 7, {})([{"input_ids": ids, "labels": ids}])["attention_mask"]
    assert mask.shape == (1, 1, 6, 6)
    assert mask[0, 0].sum(1).tolist() == [2, 2, 3, 3, 3, 1]  # the block may begin in the middle of a document, and end in padding
    assert mask[0, 0, 0].tolist() == [True, True, False, False, False, False]


def test_a_wrong_layout_is_an_error(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    source = trained.corpus()["tokens"].directory
    layout = json.loads((source / "layout.json").read_text())
    (tmp_path / "layout.json").write_text(json.dumps({**layout, "blocks": layout["blocks"] + 1}))
    (tmp_path / "tokens.bin").write_bytes((source / "tokens.bin").read_bytes())
    with pytest.raises(ValueError, match="mmap length"):
        Blocks(Masked(tokens=tmp_path), tokenizer, numpy.arange(1), 0)
