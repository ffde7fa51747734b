"""The worker's part for causal language modelling: packed blocks, attention and labels inside each document, loss without logits.

A position's label is the token after it in the same document and block; nothing is predicted from another document, and a document
that runs on into the next block begins there anew. What that costs is one label a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, TrainingArguments
from transformers.modeling_outputs import CausalLMOutput

from llm_assets.corpus.vocabulary import bytes_of_tokens
from llm_assets.training.attention import BY_DOCUMENT, Packing
from llm_assets.training.batches import read_layout, sample_order
from llm_assets.training.cross_entropy import labelled_loss
from llm_assets.training.decoders import DecoderShape, new_decoder
from llm_assets.training.heads import IGNORED
from llm_assets.training.initialisation import read_embeddings
from llm_assets.training.job import Causal, TrainingJob
from llm_assets.training.models import VocabularyError, attention_windows
from llm_assets.training.trainer import Worker


def causal_worker(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast) -> tuple[Worker, dict[str, Any]]:
    """A worker over packed blocks; they are full, so there is nothing to say of padding."""
    objective = job.objective
    assert isinstance(objective, Causal)
    layout = read_layout(objective.tokens)
    batch = job.micro_batch * job.accumulation * arguments.world_size
    blocks = numpy.memmap(objective.tokens / "tokens.bin", dtype=layout["dtype"], mode="r", shape=(layout["blocks"], layout["context"]))
    worker = Worker(
        job=job,
        best=None,
        padding=tokenizer.pad_token_id,
        bytes_of_tokens=torch.tensor(bytes_of_tokens(tokenizer.backend_tokenizer)),
        model=trained_decoder(decoder(job, tokenizer, layout["vocabulary_size"], layout["context"])),
        args=arguments,
        train_dataset=Order(blocks, sample_order(layout["train_blocks"], job.steps, batch, job.seed)),
        eval_dataset=Order(blocks, numpy.arange(layout["train_blocks"], layout["blocks"])),
        data_collator=CollateDocuments(tokenizer.pad_token_id, tokenizer.cls_token_id),
    )
    return worker, {}


class Order(Dataset[numpy.ndarray]):
    """Packed blocks, mapped into memory, in the sequence of ``order``: int64 [context] each."""

    def __init__(self, blocks: numpy.ndarray, order: numpy.ndarray) -> None:
        self.blocks = blocks
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> numpy.ndarray:
        found: numpy.ndarray = self.blocks[self.order[position]].astype(numpy.int64)
        return found


class CollateDocuments:
    """Blocks as a batch: where each document stands, and for each token the one that follows it in its document.

    A document begins where the tokenizer's opening token stands.
    """

    def __init__(self, padding: int, opening: int) -> None:
        self.padding = padding
        self.opening = opening

    def __call__(self, items: Sequence[numpy.ndarray]) -> dict[str, Any]:
        """``input_ids``, ``labels`` and ``position_ids`` (from 0 in each document) int64 [blocks, context], and ``documents``."""
        ids = numpy.stack(items)
        document = numpy.where(ids == self.padding, -1, (ids == self.opening).cumsum(1))
        labels = numpy.full_like(ids, IGNORED)
        follows = (document[:, 1:] == document[:, :-1]) & (document[:, 1:] >= 0)
        labels[:, :-1][follows] = ids[:, 1:][follows]
        packing = Packing(document)
        arrays = {"input_ids": ids, "labels": labels, "position_ids": packing.positions}
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"documents": packing.tensors()}


def decoder(job: TrainingJob, tokenizer: PreTrainedTokenizerFast, vocabulary: int, context: int) -> PreTrainedModel:
    """A decoder of the job's shape with random weights, embeddings and head perhaps given, or continued from a folder.

    Raises ``VocabularyError`` where the folder's embeddings do not cover the vocabulary, ``ValueError`` where its layers look back
    over fewer tokens than a block has.
    """
    if job.start_from is None:
        assert isinstance(job.shape, DecoderShape)
        fresh: Any = new_decoder(job.shape, tokenizer, vocabulary, context)
        with torch.no_grad():
            for given, part in ((job.embeddings, fresh.get_input_embeddings()), (job.head, fresh.get_output_embeddings())):
                if given is not None:
                    part.weight.copy_(torch.from_numpy(read_embeddings(given)))
        return fresh  # type: ignore[no-any-return]  # a transformers model
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(job.start_from, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    if model.config.vocab_size < vocabulary:
        raise VocabularyError(
            f"{job.start_from} knows {model.config.vocab_size} tokens, the tokenizer makes {vocabulary}: "
            "name that checkpoint's own tokenizer under tokenizer.existing"
        )
    narrow = [window for window in attention_windows(model.config).values() if window is not None and window < context]
    if narrow:
        raise ValueError(f"{job.start_from} attends over {min(narrow)} tokens in some layers, fewer than tokens.context ({context}): lower that")
    return model


def trained_decoder(model: PreTrainedModel) -> PreTrainedModel:
    """The model made to attend by document and to give the loss alone; what is saved of it is as before."""
    model.set_attn_implementation(BY_DOCUMENT)
    model.loss_type = None  # type: ignore[assignment]  # else the Trainer would take the labels for shifted by the model, and leave the first of each block uncounted
    model.forward = MethodType(_loss, model)  # an instance's own: every architecture has the same two parts
    return model


def _loss(
    self: Any,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    position_ids: torch.Tensor,
    documents: Mapping[str, torch.Tensor],
    num_items_in_batch: torch.Tensor | int | None = None,
    **_: Any,
) -> CausalLMOutput:
    """The mean of -log p(label) over the labelled positions of a batch, or their sum over ``num_items_in_batch``."""
    hidden = self.model(input_ids=input_ids, position_ids=position_ids, documents=documents, use_cache=False)[0]
    return CausalLMOutput(loss=labelled_loss(hidden, self.lm_head.weight, labels, num_items_in_batch))
