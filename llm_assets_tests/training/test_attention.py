"""Attention by document against a mask over whole blocks, and the loss without logits against the one with them."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from llm_assets.training import cross_entropy as module
from llm_assets.training.attention import Packing, by_document
from llm_assets.training.cross_entropy import linear_cross_entropy


def documents(blocks: int, context: int, seed: int = 0) -> numpy.ndarray:
    return (numpy.random.default_rng(seed).random((blocks, context)) < 0.08).cumsum(1)


@pytest.mark.parametrize("heads, shared", [(4, 4), (4, 2)])
def test_it_is_attention_under_a_mask_per_document_and_so_are_its_gradients(heads: int, shared: int) -> None:
    torch.manual_seed(0)
    document, size = documents(3, 90), 8
    query, key, value = (torch.randn(3, number, 90, size, requires_grad=True) for number in (heads, shared, shared))
    ours, _ = by_document(torch.nn.Module(), query, key, value, None, Packing(document).tensors(), scaling=0.3)
    same = torch.from_numpy(document[:, :, None] == document[:, None, :])[:, None] & torch.ones(90, 90, dtype=torch.bool).tril()
    masked = scaled_dot_product_attention(query, key, value, same, scale=0.3, enable_gqa=heads != shared).transpose(1, 2)
    weight = torch.randn_like(masked)
    assert torch.allclose(ours, masked, atol=1e-6)
    for one, other in zip(*(torch.autograd.grad((out * weight).sum(), (query, key, value)) for out in (ours, masked)), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 70), st.integers(0, 9))
def test_every_token_has_a_place_of_its_own_and_filling_is_bounded(blocks: int, context: int, seed: int) -> None:
    packing = Packing(documents(blocks, context, seed))
    tokens = blocks * context
    assert sorted(packing.there[packing.back].tolist()) == list(range(tokens))
    assert sum(count * length for count, length in packing.shapes) == len(packing.there) == tokens + len(packing.filling)
    longer = sum(count * length for count, length in packing.shapes if length > 16)
    short = sum(count for count, length in packing.shapes if length <= 16)
    assert len(packing.there) - tokens <= 15 * short + longer / 3


def test_positions_begin_anew_in_each_document() -> None:
    packing = Packing(numpy.asarray([[0, 0, 0, 1, 1], [0, 1, 2, 2, -1]]))
    assert packing.positions.tolist() == [[0, 1, 2, 0, 1], [0, 0, 0, 1, 0]]


@pytest.mark.parametrize("chunk", [3, 8, 100])
def test_the_loss_without_logits_is_cross_entropy_and_so_are_its_gradients(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setitem(module.CHUNK, "cpu", chunk)
    torch.manual_seed(1)
    hidden, weight, labels = torch.randn(20, 6, requires_grad=True), torch.randn(11, 6, requires_grad=True), torch.randint(11, (20,))
    ours, plain = linear_cross_entropy(hidden, weight, labels) / 7, cross_entropy(hidden @ weight.T, labels, reduction="sum") / 7
    assert float(ours) == pytest.approx(float(plain), rel=1e-6)
    for one, other in zip(*(torch.autograd.grad(3 * loss, (hidden, weight)) for loss in (ours, plain)), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    with torch.no_grad():
        assert float(linear_cross_entropy(hidden, weight, labels) / 7) == pytest.approx(float(plain), rel=1e-6)


def test_a_hand_worked_loss() -> None:
    """Two tokens scored 1 and 0: -log p of the first is log(1 + e^-1) = 0.3133, of the second log(1 + e) = 1.3133."""
    hidden, weight = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    assert float(linear_cross_entropy(hidden, weight, torch.tensor([0, 1]))) == pytest.approx(0.313262 + 1.313262, abs=1e-5)


def test_the_gradient_of_the_head_is_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 chunks of bfloat16 numbers, within 1%; a sum in bfloat16 is farther off."""
    monkeypatch.setitem(module.CHUNK, "cpu", 4)
    torch.manual_seed(2)
    hidden, weight, labels = torch.randn(2000, 6).bfloat16(), torch.randn(11, 6).bfloat16().requires_grad_(), torch.randint(11, (2000,))
    (found,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), weight)
    exact = weight.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(cross_entropy(hidden.double() @ exact.T, labels, reduction="sum"), exact)
    assert found.dtype == torch.bfloat16
    assert float((found.double() - wanted).norm() / wanted.norm()) < 0.01
