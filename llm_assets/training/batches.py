"""Which sequences each step sees, and how they become tensors: a pure function of the seed, so that resuming repeats nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from llm_assets.training.heads import IGNORED, Target, targets
from llm_assets.training.job import Classification, Masked
from llm_assets.training.next_sentence import Halves

MEASURED_BLOCKS = 1_000
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

    Of each block the same number is chosen, ``mask_probability`` of the ordinary tokens that a block holds in the mean (of 1,000
    blocks), unless it holds fewer: logits of a size that repeats find the room which the last ones left. With a number of its
    own for each block the demo's pretraining took 1,609 MiB a process, with one for all 1,107 (``memory_measured_bytes`` of both
    manifests). 80% of the chosen tokens become [MASK], 10% a random token, 10% stay (Devlin et al. 2019). Item ``i`` is a function of the seed and
    ``i`` alone. Items are ``input_ids``, ``labels`` and, with ``halves``, ``next_labels``, all int64 [context].
    """

    def __init__(self, objective: Masked, tokenizer: PreTrainedTokenizerFast, order: numpy.ndarray, seed: int, halves: Halves | None = None) -> None:
        layout = read_layout(objective.tokens)
        self.blocks = numpy.memmap(objective.tokens / "tokens.bin", dtype=layout["dtype"], mode="r", shape=(layout["blocks"], layout["context"]))
        self.mask_id = int(tokenizer.mask_token_id)
        self.special = numpy.asarray(sorted(set(tokenizer.all_special_ids)))
        sample = self.blocks[:: max(1, layout["blocks"] // MEASURED_BLOCKS)]
        self.chosen = max(1, round(objective.mask_probability * (~numpy.isin(sample, self.special)).sum() / len(sample)))
        # A random token is never a special one: a [PAD] drawn here would be taken for padding.
        self.ordinary = numpy.setdiff1d(numpy.arange(layout["vocabulary_size"]), self.special)
        self.order = order
        self.seed = seed
        self.halves = halves

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        tokens = self.blocks[self.order[position]].astype(numpy.int64)
        random = numpy.random.default_rng([self.seed, position])
        tokens, following = (tokens, None) if self.halves is None else self.halves.swap(tokens, random)
        draw, fate = random.random((2, len(tokens)))
        draw[numpy.isin(tokens, self.special)] = numpy.inf
        chosen = (draw <= numpy.partition(draw, self.chosen - 1)[self.chosen - 1]) & (draw < 1)
        labels = numpy.where(chosen, tokens, IGNORED)
        replaced = numpy.where(fate < 0.8, self.mask_id, tokens)
        replaced = numpy.where(fate >= 0.9, random.choice(self.ordinary, len(tokens)), replaced)
        inputs = numpy.where(chosen, replaced, tokens)
        item = {"input_ids": inputs, "labels": labels} | ({} if following is None else {"next_labels": following})
        return {name: torch.from_numpy(values) for name, values in item.items()}


@dataclass(frozen=True)
class Encoded:
    """What a classifier sees of a table's texts: each as one sample, or one sample a window; columns of equal length.

    Token ids are int32 arrays, 4 bytes a token; as lists of Python numbers they would take 8 for each place and 28 for each number.
    """

    input_ids: Sequence[numpy.ndarray]
    targets: list[Target]
    rows: list[int]  # of the table, that each sample comes from

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        return [len(ids) for ids in self.input_ids]

    @property
    def weights(self) -> list[float]:
        """Of each sample, with mean 1: the windows of a document weigh together what any other document does."""
        windows = Counter(self.rows)
        return [len(self.rows) / len(windows) / windows[row] for row in self.rows]


class Texts(Dataset[dict[str, Any]]):
    """Encoded texts in the sequence of ``samples`` (all of them, short ones first, where it is None).

    ``labels`` are the targets; where ``weighted`` a list that ends with the sample's weight. ``order`` is the row of the table
    behind each item.
    """

    def __init__(self, encoded: Encoded, samples: numpy.ndarray | None = None, weighted: bool = False) -> None:
        self.input_ids = encoded.input_ids
        self.labels = [_weighted(*pair) for pair in zip(encoded.targets, encoded.weights, strict=True)] if weighted else encoded.targets
        self.samples = numpy.argsort(encoded.lengths, kind="stable") if samples is None else samples
        self.order = numpy.asarray(encoded.rows)[self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = int(self.samples[position])
        return {"input_ids": self.input_ids[index], "labels": self.labels[index]}


def _weighted(target: Target, weight: float) -> list[float]:
    return [*(target if isinstance(target, list) else [float(target)]), weight]


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
        """Each item's tensors int64 [blocks, context], ``attention_mask`` bool [blocks, 1, context, context] or one a kind of layer."""
        batch: dict[str, Any] = {name: torch.stack([item[name] for item in items]) for name in items[0]}
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
        """``input_ids`` and ``attention_mask`` int64 [texts, longest]; ``labels`` int64 or float32 [texts], or float32 [texts, columns]."""
        length = max(len(item["input_ids"]) for item in items)
        ids, mask = torch.full((len(items), length), self.padding), torch.zeros(len(items), length, dtype=torch.int64)
        for row, item in enumerate(items):
            ids[row, : len(item["input_ids"])] = torch.as_tensor(item["input_ids"])
            mask[row, : len(item["input_ids"])] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([item["labels"] for item in items])}


def read_texts(path: Path, objective: Classification, tokenizer: PreTrainedTokenizerFast, split: str | None, cache: Path) -> Encoded:
    """The texts of a Parquet table, of one ``split`` where given, cut to ``max_length`` or in windows of it.

    Raises ``LabelError`` for a label that the model has not.
    """
    from datasets import Dataset as Table

    table = Table.from_parquet(str(path), cache_dir=str(cache))
    if split is not None:
        table = table.select([row for row, value in enumerate(table["split"]) if value == split])

    def encode(rows: dict[str, list[str]], numbers: list[int]) -> dict[str, list[Any]]:
        ids, texts = encode_texts(tokenizer, rows["text"], objective.max_length, objective.overlap)
        return {"input_ids": ids, "row": [numbers[text] for text in texts]}

    encoded = table.map(encode, with_indices=True, batched=True, remove_columns=table.column_names, keep_in_memory=True)
    aims, rows = targets(list(table["label"]), objective.labels, objective.problem), list(encoded["row"])
    return Encoded([numpy.asarray(ids, numpy.int32) for ids in encoded["input_ids"]], [aims[row] for row in rows], rows)


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_length: int, overlap: int | None) -> tuple[list[list[int]], list[int]]:
    """Token ids, and of each the text it comes from: cut to ``max_length``, or with ``overlap`` in windows that share so many tokens.

    A special token that a text names is spelt out. The serving engine's windows are the same (``serving/engine.py: encode``).
    """
    settings = {"truncation": True, "max_length": max_length, "split_special_tokens": True}
    if overlap is None:
        return tokenizer(list(texts), **settings)["input_ids"], list(range(len(texts)))
    found = tokenizer(list(texts), **settings, stride=overlap, return_overflowing_tokens=True)
    return found["input_ids"], list(found["overflow_to_sample_mapping"])


def padding_share(lengths: Sequence[int], samples: numpy.ndarray, micro_batch: int) -> float:
    """The share of places that hold padding when ``samples``, whole batches, are padded to the longest of each forward pass."""
    tokens = numpy.asarray(lengths)[samples].reshape(-1, micro_batch)
    return float(1 - tokens.sum() / (tokens.max(axis=1).sum() * micro_batch))


def read_layout(tokens: Path) -> dict[str, Any]:
    """How ``tokens.bin`` is laid out."""
    layout: dict[str, Any] = json.loads((tokens / "layout.json").read_text())
    return layout
