"""The worker's part for conversations: several packed into a block without padding, the loss on the assistant's turns alone."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, TrainingArguments

from llm_assets.corpus.vocabulary import bytes_of_tokens
from llm_assets.training.adapters import adapted, schedule
from llm_assets.training.attention import Packing
from llm_assets.training.batches import sample_order
from llm_assets.training.callbacks import BestEvaluation
from llm_assets.training.causal import decoder, trained_decoder
from llm_assets.training.chat import Chat, Spoken
from llm_assets.training.heads import IGNORED
from llm_assets.training.job import Conversation, TrainingJob
from llm_assets.training.trainer import Worker

if TYPE_CHECKING:
    from llm_assets.training.adalora import Allocation


def conversation_worker(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast) -> tuple[Worker, dict[str, Any]]:
    """A worker over packed conversations, and what is known of its blocks before the first."""
    objective = job.objective
    assert isinstance(objective, Conversation)
    chat = Chat(tokenizer)
    train, validation = (read_conversations(path, chat, objective.max_length) for path in (objective.train, objective.evaluation))
    blocks = pack([len(one.ids) for one in train], objective.max_length, job.seed)
    batch = job.micro_batch * job.accumulation * arguments.world_size
    order = sample_order(len(blocks), job.steps, batch, job.seed)
    held_out = pack([len(one.ids) for one in validation], objective.max_length, job.seed)
    vocabulary = len(tokenizer) - objective.adapter.virtual
    plain = trained_decoder(decoder(job, tokenizer, vocabulary, objective.max_length))
    model = adapted(plain, objective.adapter, job.steps, vocabulary)
    allocation = _allocation(job, model)
    worker = Worker(
        job=job,
        best=BestEvaluation(job.scratch, schedule(job.steps).settled if allocation else 0),
        padding=tokenizer.pad_token_id,
        bytes_of_tokens=torch.tensor(bytes_of_tokens(tokenizer.backend_tokenizer)),
        model=model,
        args=arguments,
        train_dataset=PackedConversations(train, blocks, order),
        eval_dataset=PackedConversations(validation, held_out, numpy.arange(len(held_out))),
        data_collator=CollateConversations(tokenizer.pad_token_id, objective.max_length),
        penalty=allocation.penalty if allocation else None,
        callbacks=[allocation] if allocation else [],
    )
    used = sum(min(len(one.ids), objective.max_length) for one in train)
    return worker, {
        "padding_share": round(1 - used / (len(blocks) * objective.max_length), 4),
        "blocks": len(blocks),
        "answer_share": round(sum(sum(one.answers) for one in train) / used, 4),
        "trained_parameters": sum(int(one.numel()) for one in model.parameters() if one.requires_grad),
    }


def _allocation(job: TrainingJob, model: Any) -> Allocation | None:
    """What decides which ranks the matrices of ``adalora`` keep; None for every other adapter."""
    if job.objective.adapter.kind != "adalora":  # type: ignore[union-attr]  # a conversation's
        return None
    from llm_assets.training.adalora import Allocation

    return Allocation(model, job.scratch)


def read_conversations(path: Path, chat: Chat, longest: int) -> list[Spoken]:
    """The conversations of a Parquet table with ``messages``, each cut to ``longest`` tokens (``Chat.encode``); the rows' order and number stay."""
    import pyarrow.parquet

    found: list[Spoken] = []
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=["messages"]):
        found += chat.encode(batch["messages"].to_pylist(), longest=longest)
    return found


def pack(lengths: Sequence[int], context: int, seed: int) -> list[list[int]]:
    """Which sequences share a block of ``context`` tokens: each goes to the fullest block with room for it (best fit, Johnson 1973).

    They come in an order drawn from the seed, so that a block mixes sources. No sequence is cut, none longer than ``context`` allowed.
    """
    blocks: list[list[int]] = []
    room: list[tuple[int, int]] = []  # tokens left and the block's number, ascending
    for index in numpy.random.default_rng([seed, len(lengths)]).permutation(len(lengths)).tolist():
        place = bisect.bisect_left(room, (lengths[index], -1))
        left, block = room.pop(place) if place < len(room) else (context, len(blocks))
        if block == len(blocks):
            blocks.append([])
        blocks[block].append(index)
        if left > lengths[index]:
            bisect.insort(room, (left - lengths[index], block))
    return blocks


class PackedConversations(Dataset[list[Spoken]]):
    """The conversations of one block an item, in the sequence of ``order``; ``members`` are the rows of the table that a block holds."""

    def __init__(self, conversations: Sequence[Spoken], members: Sequence[Sequence[int]], order: numpy.ndarray) -> None:
        self.conversations = conversations
        self.members = members
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> list[Spoken]:
        return [self.conversations[row] for row in self.members[self.order[position]]]


class CollateConversations:
    """Blocks of conversations as a batch: attention within each, and for each token the next where the assistant says that."""

    def __init__(self, padding: int, context: int) -> None:
        self.padding = padding
        self.context = context

    def __call__(self, items: Sequence[Sequence[Spoken]]) -> dict[str, Any]:
        """``input_ids``, ``labels`` and ``position_ids`` (from 0 in each conversation) int64 [blocks, context], and ``documents``."""
        ids = numpy.full((len(items), self.context), self.padding)
        labels, document = numpy.full_like(ids, IGNORED), numpy.full_like(ids, -1)
        for row, block in enumerate(items):
            start = 0
            for number, one in enumerate(block):
                here = slice(start, start + len(one.ids))
                ids[row, here], document[row, here] = one.ids, number
                labels[row, start : here.stop - 1] = numpy.where(one.answers[1:], one.ids[1:], IGNORED)
                start = here.stop
        packing = Packing(document)
        arrays = {"input_ids": ids, "labels": labels, "position_ids": packing.positions}
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"documents": packing.tensors()}
