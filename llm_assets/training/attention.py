"""Attention inside each document of packed blocks, computed document by document: the rest of a block's square is never made.

A mask per document would compute all [context, context] scores and throw most away. Here documents of like length are laid side by
side, filled up at their end, where a causal model's earlier tokens do not look; so no mask is needed at all. The filling is at most
half of a short document (16 tokens and less) and a third of others.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

BY_DOCUMENT = "llm_assets_by_document"  # by which transformers' models find ``by_document``
PREFIX = "prefix"  # among what it takes as ``documents``, learnt keys and values before each of them (training/prefixes.py)
SMALLEST = 16  # tokens to which the shortest documents are filled up
ROOM = 1.5  # between two sizes, at most: the powers of 2 and those times 1.5


class Packing:
    """Where the documents of a batch of blocks stand, and how they are laid side by side.

    ``document`` numbers each token's document within its block, int64 [blocks, context]; a block's first document may be the
    rest of one that the block before began.
    """

    def __init__(self, document: numpy.ndarray) -> None:
        blocks, context = document.shape
        first = numpy.ones((blocks, context), bool)
        first[:, 1:] = document[:, 1:] != document[:, :-1]
        starts = numpy.flatnonzero(first.reshape(-1))
        lengths = numpy.diff(starts, append=blocks * context)
        self.positions = (numpy.arange(blocks * context) - numpy.repeat(starts, lengths)).reshape(blocks, context)
        sizes = _sizes(int(lengths.max()))
        size = numpy.asarray(sizes)[[bisect.bisect_left(sizes, length) for length in lengths.tolist()]]
        order = numpy.argsort(size, kind="stable")
        starts, lengths, size = starts[order], lengths[order], size[order]
        beginnings = numpy.cumsum(size) - size  # of each document among the rows laid side by side
        within = numpy.arange(int(size.sum())) - numpy.repeat(beginnings, size)
        filling = within >= numpy.repeat(lengths, size)
        there = numpy.repeat(starts, size) + numpy.where(filling, 0, within)
        back = numpy.empty(blocks * context, numpy.int64)
        back[there[~filling]] = numpy.flatnonzero(~filling)
        self.there, self.back, self.filling = there, back, numpy.flatnonzero(filling)
        self.shapes = [[int((size == one).sum()), one] for one in sizes if (size == one).any()]  # documents, and tokens to which each is filled up

    def tensors(self) -> dict[str, Any]:
        """What ``by_document`` takes as ``documents``. The shapes are an array, which stays on the host: each layer would wait for a GPU's."""
        arrays = {"there": self.there, "back": self.back, "filling": self.filling}
        rows = {name: torch.from_numpy(array.astype(numpy.int64)) for name, array in arrays.items()}
        return rows | {"shapes": numpy.asarray(self.shapes)}


def _sizes(longest: int) -> list[int]:
    """Lengths to which documents are filled up, the largest the longest document's own."""
    sizes = [SMALLEST]
    while sizes[-1] < longest:
        power = 1 << (sizes[-1].bit_length() - 1)
        sizes.append(power * 3 // 2 if sizes[-1] == power else 2 * power)
    return [*sizes[:-1], longest] if longest > SMALLEST else sizes


class _Rearranged(torch.autograd.Function):
    """Rows taken in another order, each real row once: both directions are plain look-ups, where autograd would add up row by row."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, take: torch.Tensor, give: torch.Tensor, filling: torch.Tensor | None) -> torch.Tensor:
        """``rows[take]``; its gradient is looked up with ``give``, and is none for the rows ``filling``, which are taken nowhere."""
        ctx.save_for_backward(give, filling)
        return rows.index_select(0, take)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The gradient of ``rows``."""
        give, filling = ctx.saved_tensors
        found = gradients[0].index_select(0, give)
        return (found if filling is None else found.index_fill_(0, filling, 0.0)), None, None, None


def _rearranged(rows: torch.Tensor, take: torch.Tensor, give: torch.Tensor, filling: torch.Tensor | None = None) -> torch.Tensor:
    found: torch.Tensor = _Rearranged.apply(rows, take, give, filling)  # type: ignore[no-untyped-call]
    return found


def by_document(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    documents: dict[str, Any],
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each of ``documents`` (``Packing.tensors``), in transformers' form for an attention function.

    ``query`` is [blocks, heads, context, size], ``key`` and ``value`` have as many heads or a divisor of them; the result is
    [blocks, context, heads, size]. No mask is looked at. Where ``documents`` have a ``PREFIX``, [layers, 2, heads of keys, count, size],
    every token sees the layer's keys and values in it besides.
    """
    blocks, heads, context, size = query.shape
    there, back, filling = documents["there"], documents["back"], documents["filling"]
    rows = [_rearranged(tensor.transpose(1, 2).reshape(blocks * context, -1), there, back) for tensor in (query, key, value)]
    shapes: Sequence[Sequence[int]] = documents["shapes"].tolist()
    parts = [torch.split(row, [count * length for count, length in shapes]) for row in rows]
    found = []
    for (count, length), *alike in zip(shapes, *parts, strict=True):
        asking, asked, given = (part.view(count, length, -1, size).transpose(1, 2) for part in alike)
        mask = None
        if PREFIX in documents:
            before = documents[PREFIX][int(module.layer_idx)].to(key.dtype)[:, None].expand(-1, count, -1, -1, -1)  # type: ignore[arg-type]  # a number
            asked, given = (torch.cat([first, own], 2) for first, own in zip(before, (asked, given), strict=True))
            mask = torch.ones(length, asked.shape[2], dtype=torch.bool, device=key.device).tril(asked.shape[2] - length)
        attended = scaled_dot_product_attention(
            asking, asked, given, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=key.shape[1] != heads
        )
        found.append(attended.transpose(1, 2).reshape(count * length, -1))
    joined = _rearranged(torch.cat(found), back, there, filling)
    return joined.view(blocks, context, heads, -1), None


AttentionInterface.register(BY_DOCUMENT, by_document)
