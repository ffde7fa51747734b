"""Halves that change places, and the loss over them, on cases worked by hand."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import ModernBertConfig, ModernBertForMaskedLM

from llm_assets.training import next_sentence
from llm_assets.training.heads import IGNORED
from llm_assets.training.next_sentence import OTHER, OWN, Halves, MaskedAndNext, accuracy

PAD, OPEN, CLOSE, STOP = 0, 1, 2, 3


class Letters:
    """A tokenizer whose token 3 is a full stop and whose tokens from 4 on are letters."""

    cls_token_id, sep_token_id, pad_token_id = OPEN, CLOSE, PAD
    decoded = ("", "", "", "。", *"abcdefghijklmnopqrstuvwxyz")

    def __len__(self) -> int:
        return len(self.decoded)

    def batch_decode(self, ids: list[list[int]]) -> list[str]:
        return [self.decoded[token] for (token,) in ids]


def halves() -> Halves:
    return Halves(Letters())


def block(*documents: list[int], size: int) -> numpy.ndarray:
    flat = [token for document in documents for token in (OPEN, *document, CLOSE)]
    return numpy.asarray(flat + [PAD] * (size - len(flat)), numpy.int64)


def test_second_halves_go_round_among_the_documents_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_sentence, "SWAPPED", 1.0)
    tokens = block([10, 11, 12, STOP, 13, 14, 15, 16, 17], [9, 9], [20, 21, 22, 23, 24, 25, 26, 27], size=30)
    swapped, labels = halves().swap(tokens, numpy.random.default_rng(0))
    # The first breaks after its sentence, the third, in which none ends, in the middle; the second is too short.
    assert swapped.tolist() == block([10, 11, 12, STOP, 24, 25, 26, 27], [9, 9], [20, 21, 22, 23, 13, 14, 15, 16, 17], size=30).tolist()
    assert {place: int(label) for place, label in enumerate(labels) if label != IGNORED} == {0: OTHER, 14: OTHER}


def test_a_single_document_keeps_its_half() -> None:
    tokens = block(list(range(4, 14)), size=12)
    swapped, labels = halves().swap(tokens, numpy.random.default_rng(0))
    assert swapped.tolist() == tokens.tolist() and labels[0] == OWN and (labels[1:] == IGNORED).all()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(3, 28), max_size=20), max_size=6), st.integers(0, 9), st.integers(0, 10**6))
def test_no_token_is_lost_and_labels_stand_at_openings(documents: list[list[int]], padding: int, seed: int) -> None:
    size = sum(len(document) + 2 for document in documents) + padding
    tokens = block(*documents, size=size)
    swapped, labels = halves().swap(tokens, numpy.random.default_rng(seed))
    assert sorted(swapped.tolist()) == sorted(tokens.tolist()) and len(labels) == size
    asked = numpy.flatnonzero(labels != IGNORED)
    assert (swapped[asked] == OPEN).all() and len(asked) == sum(len(document) >= next_sentence.SHORTEST for document in documents)
    if (labels != OTHER).all():
        assert swapped.tolist() == tokens.tolist()


@pytest.fixture(scope="module")
def model() -> MaskedAndNext:
    torch.manual_seed(0)
    special = {"pad_token_id": PAD, "cls_token_id": OPEN, "sep_token_id": CLOSE, "bos_token_id": OPEN, "eos_token_id": CLOSE}
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return MaskedAndNext(ModernBertConfig(vocab_size=30, sparse_prediction=True, **shape, **special)).eval()


def batch() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[OPEN, 5, 6, 7, CLOSE, OPEN, 8, 9]])
    labels = torch.full_like(ids, IGNORED)
    labels[0, 2], labels[0, 6] = 11, 12
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def test_the_loss_is_the_masked_tokens_and_the_openings(model: MaskedAndNext) -> None:
    following = torch.full_like(batch()["labels"], IGNORED)
    following[0, 0], following[0, 5] = OWN, OTHER
    plain = ModernBertForMaskedLM(model.config).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    masked = plain(**batch()).loss
    assert model(**batch()).loss.item() == pytest.approx(masked.item(), rel=1e-6)
    both = model(**batch(), next_labels=following)
    openings = cross_entropy(both.next_logits, torch.tensor([OWN, OTHER]))
    assert both.loss.item() == pytest.approx((masked + openings).item(), rel=1e-6)
    # Of an update with 8 masked tokens this pass, with 2 of them, is a quarter.
    assert model(**batch(), next_labels=following, num_items_in_batch=8).loss.item() == pytest.approx((masked + openings).item() / 4, rel=1e-6)
    nothing = model(**batch(), next_labels=torch.full_like(following, IGNORED))
    assert nothing.loss.item() == pytest.approx(masked.item(), rel=1e-6)


def test_accuracy_counts_the_openings_told_right(model: MaskedAndNext) -> None:
    following = torch.full_like(batch()["labels"], IGNORED)
    said = model(**batch(), next_labels=torch.where(batch()["input_ids"] == OPEN, OWN, IGNORED)).next_logits.argmax(1)
    following[0, 0], following[0, 5] = said[0], 1 - said[1]
    assert accuracy(model, [{**batch(), "next_labels": following}] * 3) == {"next_sentence_accuracy": 0.5, "next_sentence_documents": 6}
    assert accuracy(model, []) == {"next_sentence_accuracy": None, "next_sentence_documents": 0}
