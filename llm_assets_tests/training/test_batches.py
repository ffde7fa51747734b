from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import ModernBertModel, PreTrainedTokenizerFast

from llm_assets.training.batches import Blocks, CollateBlocks, CollateTexts, Encoded, Texts, encode_texts, padding_share, sample_order
from llm_assets.training.heads import IGNORED
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


def test_blocks_have_as_many_masks_each_unless_they_hold_too_few_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    masked = blocks(tokenizer)
    assert masked.chosen > 1
    for position in range(len(masked)):
        ordinary = (~numpy.isin(masked.blocks[position], tokenizer.all_special_ids)).sum()
        assert (masked[position]["labels"] != IGNORED).sum().item() == min(ordinary, masked.chosen)


def ids(*texts: list[int]) -> list[numpy.ndarray]:
    return [numpy.asarray(text, numpy.int32) for text in texts]


def test_padding_is_hidden_from_attention() -> None:
    texts = Texts(Encoded(ids([2, 9, 3], [2, 3], [2, 0, 3]), [1, 0, 1], [0, 1, 2]))
    batch = CollateTexts(0)([texts[number] for number in range(3)])
    assert batch["input_ids"].tolist() == [[2, 3, 0], [2, 9, 3], [2, 0, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]  # a text may spell the padding token
    assert batch["labels"].tolist() == [0, 1, 1] and batch["labels"].dtype == torch.int64


def test_the_share_of_padding_by_hand() -> None:
    # Forward passes of two: (3, 1) and (4, 4) tokens; 6 and 8 places, of which 2 hold padding.
    assert padding_share([3, 4, 1], numpy.array([0, 2, 1, 1]), 2) == pytest.approx(2 / 14)


def test_the_windows_of_a_document_weigh_what_another_document_does() -> None:
    encoded = Encoded(ids([1], [2], [3], [4]), [0, 1, 1, 1], [0, 1, 1, 1])  # one short text and one of three windows
    assert encoded.weights == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    texts = Texts(encoded, numpy.array([3, 0]), weighted=True)
    assert texts.order.tolist() == [1, 0]  # rows of the table, which a fault names its documents by
    assert CollateTexts(0)([texts[0], texts[1]])["labels"].tolist() == pytest.approx(numpy.array([[1, 2 / 3], [0, 2]]))
    several = Texts(Encoded(ids([1]), [[1.0, 0.0]], [0]), weighted=True)
    assert several[0]["labels"] == [1.0, 0.0, 1.0]


def test_windows_overlap_and_cover_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["好" * 3, "".join(trained.NEUTRAL[number % 12] for number in range(20))]
    ids, documents = encode_texts(tokenizer, texts, 10, 2)
    assert documents == [0, 1, 1, 1] and max(map(len, ids)) == 10
    whole, pieces = tokenizer(texts[1])["input_ids"][1:-1], [window[1:-1] for window in ids[1:]]
    assert pieces[0] + pieces[1][2:] + pieces[2][2:] == whole and pieces[0][-2:] == pieces[1][:2]
    assert all(window[0] == tokenizer.cls_token_id and window[-1] == tokenizer.sep_token_id for window in ids)
    assert encode_texts(tokenizer, texts, 10, None) == ([ids[0], ids[1]], [0, 1])


def test_a_special_token_that_a_text_names_is_spelt_out(tokenizer: PreTrainedTokenizerFast) -> None:
    for overlap in (None, 2):
        [ids], _ = encode_texts(tokenizer, [f"好{tokenizer.mask_token}{tokenizer.sep_token}"], 40, overlap)
        assert tokenizer.mask_token_id not in ids and ids.count(tokenizer.sep_token_id) == 1


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
