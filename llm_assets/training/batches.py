"""Which sequences each step sees, and how they become tensors: a pure function of the seed, so that resuming repeats nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from llm_assets.training.job import Classification, Masked

IGNORED = -100  # the label that transformers' losses leave out
GROUPED_BATCHES = 50  # batches that are sorted by length together: padding falls to a few percent, order stays random


def sample_order(count: int, steps: int, batch: int, seed: int, lengths: Sequence[int] | None = None) -> numpy.ndarray:
    """Indices [steps * batch] into ``count`` samples: a new shuffle every epoch, in whole batches.

    With ``lengths`` sequences of like length share a batch. Fewer samples than a batch are repeated to fill it.
    """
    epochs: list[numpy.ndarray] = []
    needed = steps * batch
    while sum(map(len, epochs)) < needed:
        random = numpy.random.default_rng([seed, len(epochs)])
        order = random.permutation(count)
        order = order[: count // batch * batch] if count >= batch else numpy.resize(order, batch)
        epochs.append(order if lengths is None else _group(order, batch, numpy.asarray(lengths), random))
    return numpy.concatenate(epochs)[:needed]


def _group(order: numpy.ndarray, batch: int, lengths: numpy.ndarray, random: numpy.random.Generator) -> numpy.ndarray:
    size = batch * GROUPED_BATCHES
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    batches = numpy.concatenate([chunk[numpy.argsort(lengths[chunk], kind="stable")] for chunk in chunks]).reshape(-1, batch)
    return batches[random.permutation(len(batches))].reshape(-1)


class Blocks(Dataset[dict[str, torch.Tensor]]):
    """Packed blocks of tokens read from a memory map, masked anew at every position of ``order``.

    80% of the chosen tokens become [MASK], 10% a random token, 10% stay (Devlin et al. 2019). Item ``i`` is a function of
    the seed and ``i`` alone. Items are ``input_ids`` and ``labels``, both int64 [context].
    """

    def __init__(self, objective: Masked, tokenizer: PreTrainedTokenizerFast, order: numpy.ndarray, seed: int) -> None:
        layout = read_layout(objective.tokens)
        self.blocks = numpy.memmap(objective.tokens / "tokens.bin", dtype=layout["dtype"], mode="r", shape=(layout["blocks"], layout["context"]))
        self.probability = objective.mask_probability
        self.mask_id = int(tokenizer.mask_token_id)
        self.special = numpy.asarray(sorted(set(tokenizer.all_special_ids)))
        # A random token is never a special one: a [PAD] drawn here would be taken for padding.
        self.ordinary = numpy.setdiff1d(numpy.arange(layout["vocabulary_size"]), self.special)
        self.order = order
        self.seed = seed

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        tokens = self.blocks[self.order[position]].astype(numpy.int64)
        random = numpy.random.default_rng([self.seed, position])
        draw, fate = random.random((2, len(tokens)))
        chosen = (draw < self.probability) & ~numpy.isin(tokens, self.special)
        labels = numpy.where(chosen, tokens, IGNORED)
        replaced = numpy.where(fate < 0.8, self.mask_id, tokens)
        replaced = numpy.where(fate >= 0.9, random.choice(self.ordinary, len(tokens)), replaced)
        inputs = numpy.where(chosen, replaced, tokens)
        return {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}


class Texts(Dataset[dict[str, Any]]):
    """Labelled texts, tokenised and cut to ``max_length``, in the sequence of ``order`` (all of them where it is None)."""

    def __init__(self, input_ids: Sequence[Sequence[int]], labels: Sequence[int], order: numpy.ndarray | None = None) -> None:
        self.input_ids = input_ids
        self.labels = labels
        self.order = numpy.argsort([len(ids) for ids in input_ids], kind="stable") if order is None else order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = int(self.order[position])
        return {"input_ids": self.input_ids[index], "labels": self.labels[index]}


class CollateBlocks:
    """Stack packed blocks, with masks that keep attention inside each document: what stands before it in the block is chance.

    A document begins where the tokenizer's opening token stands. ``windows`` names the model's kinds of attention layers
    and how many tokens each looks to either side (None: all); a model with one kind takes its mask without a name.
    """

    def __init__(self, padding: int, opening: int, windows: Mapping[str, int | None]) -> None:
        self.padding = padding
        self.opening = opening
        self.windows = windows

    def __call__(self, items: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, Any]:
        """``input_ids`` and ``labels`` int64 [blocks, context], ``attention_mask`` bool [blocks, 1, context, context] or one a kind of layer."""
        batch: dict[str, Any] = {name: torch.stack([item[name] for item in items]) for name in ("input_ids", "labels")}
        ids = batch["input_ids"]
        document = (ids == self.opening).cumsum(1).masked_fill(ids == self.padding, -1)
        together = document[:, None, :, None] == document[:, None, None, :]
        place = torch.arange(ids.shape[1])
        distance = (place[:, None] - place[None, :]).abs()
        masks = {kind: together if window is None else together & (distance <= window) for kind, window in self.windows.items()}
        return batch | {"attention_mask": masks or together}


class CollateTexts:
    """Pad to the longest text of the batch."""

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` int64 [texts, longest], ``labels`` int64 [texts]."""
        length = max(len(item["input_ids"]) for item in items)
        ids = torch.full((len(items), length), self.padding)
        for row, item in enumerate(items):
            ids[row, : len(item["input_ids"])] = torch.tensor(item["input_ids"])
        return {"input_ids": ids, "attention_mask": (ids != self.padding).long(), "labels": torch.tensor([item["labels"] for item in items])}


def read_texts(
    path: Path, objective: Classification, tokenizer: PreTrainedTokenizerFast, split: str | None, cache: Path
) -> tuple[list[list[int]], list[int]]:
    """Token ids and label numbers of a Parquet table, of one ``split`` where given."""
    from datasets import Dataset as Table

    table = Table.from_parquet(str(path), cache_dir=str(cache))
    if split is not None:
        table = table.select([row for row, value in enumerate(table["split"]) if value == split])
    number = {label: index for index, label in enumerate(objective.labels)}

    def encode(rows: dict[str, list[str]]) -> dict[str, list[Any]]:
        ids = tokenizer(rows["text"], truncation=True, max_length=objective.max_length)["input_ids"]
        return {"input_ids": ids, "labels": [number[label] for label in rows["label"]]}

    encoded = table.map(encode, batched=True, remove_columns=table.column_names, keep_in_memory=True)
    return list(encoded["input_ids"]), list(encoded["labels"])


def read_layout(tokens: Path) -> dict[str, Any]:
    """How ``tokens.bin`` is laid out."""
    layout: dict[str, Any] = json.loads((tokens / "layout.json").read_text())
    return layout
