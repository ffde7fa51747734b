"""The worker's part for answers: what was said before to the encoder, the answer to the decoder, the loss on the answer alone.

What is read and what is written are the tokens of the chat template that a decoder would be finetuned on, cut at the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, TrainingArguments

from llm_assets.corpus.vocabulary import bytes_of_tokens
from llm_assets.training.batches import sample_order
from llm_assets.training.callbacks import BestEvaluation
from llm_assets.training.chat import Answer, Chat, answers_of
from llm_assets.training.conversation import pack, read_conversations
from llm_assets.training.denoising import CollateExamples, Example, encoder_decoder, trained_encoder_decoder
from llm_assets.training.job import Answering, TrainingJob
from llm_assets.training.trainer import Worker


def answering_worker(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast) -> tuple[Worker, dict[str, Any]]:
    """A worker over blocks of answers with their sources, and what is known of them before the first.

    As many sources and answers as fill ``max_length`` tokens share a block, as conversations do where a decoder is finetuned, and blocks
    with sources of like length a batch: what is padded is what their sources and targets differ by.
    """
    objective = job.objective
    assert isinstance(objective, Answering)
    chat = Chat(tokenizer)
    train, validation = (Answers.read(path, chat, objective.max_length, job.seed) for path in (objective.train, objective.evaluation))
    order = train.order_of(job, arguments.world_size)
    model = trained_encoder_decoder(encoder_decoder(job, tokenizer, len(tokenizer)))
    worker = Worker(
        job=job,
        best=BestEvaluation(job.scratch),
        padding=tokenizer.pad_token_id,
        bytes_of_tokens=torch.tensor(bytes_of_tokens(tokenizer.backend_tokenizer)),
        model=model,
        args=arguments,
        train_dataset=AnswerBlocks(train, order),
        eval_dataset=AnswerBlocks(validation, numpy.argsort(validation.sources, kind="stable")),
        data_collator=CollateExamples(tokenizer.pad_token_id, tokenizer.cls_token_id),
    )
    return worker, {
        "padding_share": round(train.padding_share(order, job.micro_batch), 4),
        "blocks": len(train.blocks),
        "answer_share": round(sum(train.targets) / sum(map(sum, (train.sources, train.targets))), 4),
        "trained_parameters": sum(int(one.numel()) for one in model.parameters()),
    }


class Answers:
    """The answers of a table's conversations, and which share a block."""

    def __init__(self, answers: Sequence[Answer], rows: Sequence[int], longest: int, seed: int) -> None:
        self.answers = answers
        self.blocks = pack([len(one.source) + len(one.target) for one in answers], longest, seed)
        self.members = [[rows[place] for place in block] for block in self.blocks]  # of the table, that each block's answers come from
        self.sources = [sum(len(answers[place].source) for place in block) for block in self.blocks]  # tokens
        self.targets = [sum(len(answers[place].target) for place in block) for block in self.blocks]

    @classmethod
    def read(cls, path: Path, chat: Chat, longest: int, seed: int) -> Answers:
        """Those of a Parquet table with ``messages``, each conversation cut to ``longest`` tokens."""
        found = [(answer, row) for row, spoken in enumerate(read_conversations(path, chat, longest)) for answer in answers_of(spoken)]
        return cls([answer for answer, _ in found], [row for _, row in found], longest, seed)

    def order_of(self, job: TrainingJob, processes: int) -> numpy.ndarray:
        """The blocks that training sees, those with sources of like length together."""
        return sample_order(len(self.blocks), job.steps, job.micro_batch * job.accumulation * processes, job.seed, self.sources)

    def padding_share(self, order: numpy.ndarray, micro_batch: int) -> float:
        """The share of places that hold padding when blocks in that order, whole batches, are padded in each forward pass."""
        sides = [numpy.asarray(side)[order].reshape(-1, micro_batch) for side in (self.sources, self.targets)]
        return float(1 - sum(side.sum() for side in sides) / sum(side.max(axis=1).sum() * micro_batch for side in sides))


class AnswerBlocks(Dataset[Example]):
    """Blocks of answers in the sequence of ``order``; ``members`` are the rows of the table that each block holds."""

    def __init__(self, answers: Answers, order: numpy.ndarray) -> None:
        self.answers = answers
        self.members = answers.members
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> Example:
        return Example.of([self.answers.answers[place] for place in self.answers.blocks[self.order[position]]])
