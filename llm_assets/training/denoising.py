"""The worker's part for span denoising: spans cut out of the documents of packed blocks, an encoder that reads the rest, a decoder that writes them.

Each document of a block is a text of its own: its sentinels count from the first, its tokens attend to its own alone, in the encoder, in the
decoder, and from there to the source. A document too short for a span is read and asks for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any, NamedTuple

import numpy
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast, T5ForConditionalGeneration, TrainingArguments
from transformers.modeling_outputs import Seq2SeqLMOutput

from llm_assets.corpus.vocabulary import sentinels
from llm_assets.training.batches import read_layout, sample_order
from llm_assets.training.cross_entropy import labelled_loss
from llm_assets.training.encoder_decoders import EncoderDecoderShape, new_encoder_decoder
from llm_assets.training.heads import IGNORED
from llm_assets.training.job import Denoising, TrainingJob
from llm_assets.training.models import VocabularyError
from llm_assets.training.spans import amounts, cut_out, draw
from llm_assets.training.trainer import Worker


def denoising_worker(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast) -> tuple[Worker, dict[str, Any]]:
    """A worker over packed blocks; held-out ones have the same spans at every evaluation."""
    objective = job.objective
    assert isinstance(objective, Denoising)
    layout = read_layout(objective.tokens)
    batch = job.micro_batch * job.accumulation * arguments.world_size
    order = sample_order(layout["train_blocks"], job.steps, batch, job.seed)
    worker = Worker(
        job=job,
        best=None,
        padding=tokenizer.pad_token_id,
        model=trained_encoder_decoder(encoder_decoder(job, tokenizer, layout["vocabulary_size"])),
        args=arguments,
        train_dataset=Denoised(objective, tokenizer, order, job.seed),
        eval_dataset=Denoised(objective, tokenizer, numpy.arange(layout["train_blocks"], layout["blocks"]), job.seed + 1),
        data_collator=CollateExamples(tokenizer.pad_token_id, tokenizer.cls_token_id),
    )
    return worker, {}


class Example(NamedTuple):
    """What an encoder reads and a decoder writes: token ids, and of each token which of several texts side by side it belongs to."""

    source: numpy.ndarray
    source_text: numpy.ndarray
    target: numpy.ndarray
    target_text: numpy.ndarray

    @classmethod
    def of(cls, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Example:
        """Sources and targets side by side."""
        columns: list[numpy.ndarray] = []
        for side in zip(*pairs, strict=True):
            columns.append(numpy.concatenate([numpy.asarray(ids, numpy.int64) for ids in side]))
            columns.append(numpy.repeat(numpy.arange(len(side)), [len(ids) for ids in side]))
        return cls(*columns)


class Denoised(Dataset[Example]):
    """Packed blocks read from a memory map, their spans drawn anew at every position of ``order``: a function of the seed and the position alone."""

    def __init__(self, objective: Denoising, tokenizer: PreTrainedTokenizerFast, order: numpy.ndarray, seed: int) -> None:
        layout = read_layout(objective.tokens)
        self.blocks = numpy.memmap(objective.tokens / "tokens.bin", dtype=layout["dtype"], mode="r", shape=(layout["blocks"], layout["context"]))
        self.opening, self.closing, self.padding = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        most = amounts(layout["context"], objective.corruption, objective.mean_span)[1]
        self.sentinels = [tokenizer.get_vocab()[token] for token in sentinels(most)]
        self.objective = objective
        self.order = order
        self.seed = seed

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> Example:
        block = self.blocks[self.order[position]].astype(numpy.int64)
        random = numpy.random.default_rng([self.seed, position])
        block = block[block != self.padding]
        starts = numpy.unique([0, *numpy.flatnonzero(block == self.opening)])
        return Example.of([self.denoised(text, random) for text in numpy.split(block, starts[1:])])

    def denoised(self, text: numpy.ndarray, random: numpy.random.Generator) -> tuple[list[int], list[int]]:
        """A document with spans cut out of what stands between its opening and its closing token, and what was cut out, closed."""
        first = int(text[0] == self.opening)
        last = len(text) - int(text[-1] == self.closing)
        spans = draw(max(0, last - first), self.objective.corruption, self.objective.mean_span, random)
        source, target = cut_out(text, [(first + start, first + stop) for start, stop in spans], self.sentinels)
        return source, [*target, self.closing] if target else []


class CollateExamples:
    """Examples as a batch, padded to the longest source and the longest target; each text attends to itself, and its target to its source."""

    def __init__(self, padding: int, opening: int) -> None:
        self.padding = padding
        self.opening = opening

    def __call__(self, items: Sequence[Example]) -> dict[str, torch.Tensor]:
        """``input_ids`` int64 [examples, source], ``decoder_input_ids`` and ``labels`` int64 [examples, target], and three masks.

        ``attention_mask`` bool [examples, 1, source, source], ``decoder_attention_mask`` [examples, 1, target, target], which looks back
        alone, and ``cross_attention_mask`` [examples, 1, target, source]. The decoder is given the opening token before each target.
        """
        source, source_text = _padded([one.source for one in items], self.padding), _padded([one.source_text for one in items], -1)
        target, target_text = _padded([one.target for one in items], self.padding), _padded([one.target_text for one in items], -1)
        given = torch.full_like(target, self.opening)
        follows = target_text[:, 1:] == target_text[:, :-1]
        given[:, 1:] = torch.where(follows, target[:, :-1], given[:, 1:])
        together = target_text[:, None, :, None] == target_text[:, None, None, :]
        return {
            "input_ids": source,
            "decoder_input_ids": given.masked_fill(target_text < 0, self.padding),
            "labels": target.masked_fill(target_text < 0, IGNORED),
            "attention_mask": source_text[:, None, :, None] == source_text[:, None, None, :],
            "decoder_attention_mask": together.tril(),
            "cross_attention_mask": target_text[:, None, :, None] == source_text[:, None, None, :],
        }


def _padded(rows: Sequence[numpy.ndarray], filler: int) -> torch.Tensor:
    """int64 [rows, longest]; at least one column, so that a batch without a target has a shape."""
    found = numpy.full((len(rows), max(1, *map(len, rows))), filler)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return torch.from_numpy(found)


def encoder_decoder(job: TrainingJob, tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> PreTrainedModel:
    """An encoder-decoder of the job's shape with random weights, or continued from a folder.

    Raises ``VocabularyError`` where the folder's embeddings do not cover the vocabulary.
    """
    if job.start_from is None:
        assert isinstance(job.shape, EncoderDecoderShape)
        return new_encoder_decoder(job.shape, tokenizer, vocabulary)
    settings: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True, "use_safetensors": True}
    model: PreTrainedModel = T5ForConditionalGeneration.from_pretrained(job.start_from, **settings)
    if model.config.vocab_size < vocabulary:
        raise VocabularyError(
            f"{job.start_from} knows {model.config.vocab_size} tokens, the tokenizer makes {vocabulary}: "
            "name that checkpoint's own tokenizer under tokenizer.existing"
        )
    return model


def trained_encoder_decoder(model: PreTrainedModel) -> PreTrainedModel:
    """The model made to take a mask for each of its three attentions and to give the loss alone; what is saved of it is as before."""
    model.loss_type = None  # type: ignore[assignment]  # as of decoders: the labels are not shifted by the model
    model.forward = MethodType(_loss, model)
    return model


def _loss(
    self: Any,
    input_ids: torch.Tensor,
    decoder_input_ids: torch.Tensor,
    labels: torch.Tensor,
    attention_mask: torch.Tensor,
    decoder_attention_mask: torch.Tensor,
    cross_attention_mask: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    **_: Any,
) -> Seq2SeqLMOutput:
    """The mean of -log p(label) over the labelled positions of a batch, or their sum over ``num_items_in_batch``."""
    read = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
    written = self.decoder(
        input_ids=decoder_input_ids,
        attention_mask=decoder_attention_mask,
        encoder_hidden_states=read,
        encoder_attention_mask=cross_attention_mask,
        use_cache=False,
    )[0]
    if self.config.scale_decoder_outputs:  # a T5 of version 1.0, continued
        written = written * self.model_dim**-0.5
    return Seq2SeqLMOutput(loss=labelled_loss(written, self.lm_head.weight, labels, num_items_in_batch))
