"""The one training worker, for every objective.

``python -m torch.distributed.run --standalone --nproc-per-node 2 -m llm_assets.training.worker JOB.json``
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from llm_assets.training import watch

watch.attach()  # before the imports below, which take 10 s in which the launcher may die
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # whatever is named was fetched before

import deepspeed.ops  # noqa: E402
import numpy  # noqa: E402
import pyarrow  # noqa: E402
import pyarrow.parquet  # noqa: E402
import torch  # noqa: E402
from transformers import PreTrainedTokenizerFast, TrainingArguments, set_seed  # noqa: E402

from llm_assets.store.files import write_json  # noqa: E402
from llm_assets.training import checkpoints  # noqa: E402
from llm_assets.training.arguments import training_arguments  # noqa: E402
from llm_assets.training.batches import Blocks, CollateBlocks, CollateTexts, Texts, read_layout, read_texts, sample_order  # noqa: E402
from llm_assets.training.callbacks import AgreedCheckpoints, BestEvaluation, Reports  # noqa: E402
from llm_assets.training.job import PREEMPTED_EXIT, SUMMARY, Classification, Masked, TrainingJob  # noqa: E402
from llm_assets.training.models import attention_windows, classifier, masked_model  # noqa: E402
from llm_assets.training.trainer import Worker  # noqa: E402

# DeepSpeed would compile a shared-memory reduction at the first start: 70 s and a C++ compiler, for 10 ms less a step.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

CURVE = {  # log key -> column
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "tokens_per_second": "tokens_per_second",
    "eval_loss": "validation_loss",
    "eval_accuracy": "validation_accuracy",
}


def main(path: Path) -> int:
    """Train one job; the exit code says whether it ended (0) or was preempted after a checkpoint (75)."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)
    job = TrainingJob.read(path)
    started = time.monotonic()
    arguments = training_arguments(job)
    set_seed(job.seed)
    build = masked_worker if isinstance(job.objective, Masked) else classification_worker
    worker = build(job, arguments)
    agreed = AgreedCheckpoints(job)
    worker.add_callback(agreed)
    worker.add_callback(Reports(job))
    checkpoint = checkpoints.newest(job.scratch)
    worker.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if agreed.preempted:
        return PREEMPTED_EXIT
    if not any(row["step"] == job.steps and "eval_loss" in row for row in worker.state.log_history):
        worker.evaluate()
    finish(worker, job, {"resumed_from": 0 if checkpoint is None else checkpoints.step(checkpoint), "seconds": time.monotonic() - started})
    return 0


def masked_worker(job: TrainingJob, arguments: TrainingArguments) -> Worker:
    """A worker for masked-language modelling."""
    objective = job.objective
    assert isinstance(objective, Masked)
    tokenizer = load_tokenizer(job.tokenizer)
    layout = read_layout(objective.tokens)
    model = masked_model(job.shape, job.embeddings, job.start_from, tokenizer, layout["vocabulary_size"], layout["context"])
    order = sample_order(layout["train_blocks"], job.steps, global_batch(job, arguments), job.seed)
    validation = numpy.arange(layout["train_blocks"], layout["blocks"])
    return Worker(
        best=None,
        padding=tokenizer.pad_token_id,
        model=model,
        args=arguments,
        train_dataset=Blocks(objective, tokenizer, order, job.seed),
        eval_dataset=Blocks(objective, tokenizer, validation, job.seed + 1),
        data_collator=CollateBlocks(tokenizer.pad_token_id, tokenizer.cls_token_id, attention_windows(model.config)),
    )


def classification_worker(job: TrainingJob, arguments: TrainingArguments) -> Worker:
    """A worker for sequence classification."""
    objective = job.objective
    assert isinstance(objective, Classification) and job.start_from is not None
    tokenizer = load_tokenizer(job.tokenizer)
    cache = job.scratch / "datasets"
    ids, labels = read_texts(objective.train, objective, tokenizer, None, cache)
    order = sample_order(len(ids), job.steps, global_batch(job, arguments), job.seed, [len(tokens) for tokens in ids])
    return Worker(
        best=BestEvaluation(job.scratch),
        padding=tokenizer.pad_token_id,
        model=classifier(job.start_from, objective),
        args=arguments,
        train_dataset=Texts(ids, labels, order),
        eval_dataset=Texts(*read_texts(objective.evaluation, objective, tokenizer, "validation", cache)),
        data_collator=CollateTexts(tokenizer.pad_token_id),
        compute_loss_func=mean_cross_entropy,
        compute_metrics=lambda result: {"accuracy": float((result.predictions.argmax(-1) == result.label_ids).mean())},
    )


def mean_cross_entropy(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy summed and divided by the texts of the whole update, which the Trainer then multiplies by the processes.

    ModernBERT's own classification loss takes that number and ignores it, so the Trainer's factor would double loss and
    gradients on two processes.
    """
    count = labels.numel() if num_items_in_batch is None else num_items_in_batch
    return torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum") / count


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return tokenizer


def global_batch(job: TrainingJob, arguments: TrainingArguments) -> int:
    """Sequences in one update, over all processes."""
    return int(job.micro_batch * job.accumulation * arguments.world_size)


def finish(worker: Worker, job: TrainingJob, figures: dict[str, Any]) -> None:
    """Write the weights, the curve and the summary; all ranks call this, since gathering weights takes all of them."""
    worker.save_weights(job.output)
    if not worker.is_world_process_zero():
        return
    if worker.best is not None:
        figures["best"] = worker.best.read()
        shutil.copytree(worker.best.folder, job.output, dirs_exist_ok=True)
    history = worker.state.log_history
    rows = [row for row in history if "loss" in row or "eval_loss" in row]
    table = {"step": [row["step"] for row in rows]} | {column: [row.get(key) for row in rows] for key, column in CURVE.items()}
    pyarrow.parquet.write_table(pyarrow.table(table), job.output / "curve.parquet")
    model = worker.accelerator.unwrap_model(worker.model)
    write_json(
        job.scratch / SUMMARY,
        {
            **figures,
            "steps": worker.state.global_step,
            "tokens": worker.state.num_input_tokens_seen,
            "parameters": sum(map(_elements, model.parameters())),
            "body_parameters": sum(_elements(parameter) for name, parameter in model.named_parameters() if ".layers." in name),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 * worker.args.world_size,
            "world_size": worker.args.world_size,
        },
    )


def _elements(parameter: torch.nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", None) or parameter.numel())  # ZeRO-3 leaves each rank a part


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
    sys.exit(code)
