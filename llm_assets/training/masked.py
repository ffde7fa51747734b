"""The worker's part for masked-language modelling: packed blocks, the model, and what is asked of it at the end."""

from __future__ import annotations

import copy
from typing import Any

import numpy
from transformers import PreTrainedTokenizerFast, TrainingArguments

from llm_assets.training.batches import Blocks, CollateBlocks, read_layout, sample_order
from llm_assets.training.job import Masked, TrainingJob
from llm_assets.training.models import attention_windows, masked_model
from llm_assets.training.next_sentence import Halves, accuracy
from llm_assets.training.trainer import Worker


def masked_worker(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast) -> tuple[Worker, dict[str, Any]]:
    """A worker over packed blocks; they are full, so there is nothing to say of padding."""
    objective = job.objective
    assert isinstance(objective, Masked)
    layout = read_layout(objective.tokens)
    model = masked_model(job, tokenizer, layout["vocabulary_size"], layout["context"])
    batch = job.micro_batch * job.accumulation * arguments.world_size
    order = sample_order(layout["train_blocks"], job.steps, batch, job.seed)
    validation = numpy.arange(layout["train_blocks"], layout["blocks"])
    worker = Worker(
        job=job,
        best=None,
        padding=tokenizer.pad_token_id,
        model=model,
        args=arguments,
        train_dataset=Blocks(objective, tokenizer, order, job.seed, Halves(tokenizer) if objective.next_sentence else None),
        eval_dataset=Blocks(objective, tokenizer, validation, job.seed + 1),
        data_collator=CollateBlocks(tokenizer.pad_token_id, tokenizer.cls_token_id, attention_windows(model.config)),
    )
    return worker, {}


def next_sentence_accuracy(worker: Worker, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Of the validation blocks, halves swapped. Their masked loss is measured unswapped, so that it compares with other trainings'."""
    blocks = copy.copy(worker.eval_dataset)
    assert isinstance(blocks, Blocks)
    blocks.halves = Halves(tokenizer)
    size = worker.args.per_device_eval_batch_size
    starts = range(0, len(blocks), size)
    batches = (worker.data_collator([blocks[place] for place in range(start, min(start + size, len(blocks)))]) for start in starts)
    return accuracy(worker.model_wrapped, map(worker._prepare_inputs, batches))
