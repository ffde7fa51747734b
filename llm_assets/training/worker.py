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

import deepspeed.comm  # noqa: E402
import deepspeed.ops  # noqa: E402
import pyarrow  # noqa: E402
import pyarrow.parquet  # noqa: E402
import torch  # noqa: E402
from transformers import PreTrainedTokenizerFast, TrainingArguments, set_seed  # noqa: E402

from llm_assets.store.files import write_json  # noqa: E402
from llm_assets.training import checkpoints  # noqa: E402
from llm_assets.training.answering import answering_worker  # noqa: E402
from llm_assets.training.arguments import training_arguments  # noqa: E402
from llm_assets.training.callbacks import AgreedCheckpoints, Reports  # noqa: E402
from llm_assets.training.causal import causal_worker  # noqa: E402
from llm_assets.training.classification import classification_worker  # noqa: E402
from llm_assets.training.conversation import conversation_worker  # noqa: E402
from llm_assets.training.denoising import denoising_worker  # noqa: E402
from llm_assets.training.grpo import reward_worker  # noqa: E402
from llm_assets.training.heads import METRICS  # noqa: E402
from llm_assets.training.job import PREEMPTED_EXIT, SUMMARY, Masked, TrainingJob  # noqa: E402
from llm_assets.training.masked import masked_worker, next_sentence_accuracy  # noqa: E402
from llm_assets.training.trainer import Worker  # noqa: E402
from llm_assets.training.weights import of_layers  # noqa: E402

# DeepSpeed would compile a shared-memory reduction at the first start: 70 s and a C++ compiler, for 10 ms less a step.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def preference_worker(job: TrainingJob, arguments: TrainingArguments, tokenizer: PreTrainedTokenizerFast) -> tuple[Worker, dict[str, Any]]:
    """``training/preference.py``'s, imported where it is asked for: TRL is an extra."""
    from llm_assets.training.preference import preference_worker

    return preference_worker(job, arguments, tokenizer)


WORKERS = {
    "masked": masked_worker,
    "causal": causal_worker,
    "span_denoising": denoising_worker,
    "classification": classification_worker,
    "conversation": conversation_worker,
    "answering": answering_worker,
    "preference": preference_worker,
    "reward": reward_worker,
}  # by the kind of a job's objective
CURVE = {  # log key -> column
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "tokens_per_second": "tokens_per_second",
    "eval_loss": "validation_loss",
    **{f"eval_{metric}": f"validation_{metric}" for metric in METRICS.values()},
}
MEASURED = {  # where it was
    "eval_bits_per_byte": "validation_bits_per_byte",
    "reward": "reward",
    "divergence": "divergence",
    "reply_tokens": "reply_tokens",
    "eval_reward": "validation_reward",
}


def main(path: Path) -> int:
    """Train one job; the exit code says whether it ended (0) or was preempted after a checkpoint (75)."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)
    job = TrainingJob.read(path)
    started = time.monotonic()
    arguments = training_arguments(job)
    deepspeed.comm.init_distributed(arguments.ddp_backend, verbose=False)  # else ZeRO-3 builds a saved model for a world of one process
    set_seed(job.seed)
    tokenizer = load_tokenizer(job.tokenizer)
    worker, figures = WORKERS[job.objective.kind](job, arguments, tokenizer)
    worker.use_attention(job.hardware.attention.value)
    agreed = AgreedCheckpoints(job)
    worker.add_callback(agreed)
    worker.add_callback(Reports(job))
    checkpoint = checkpoints.newest(job.scratch)
    worker.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if agreed.preempted:
        return PREEMPTED_EXIT
    if not any(row["step"] == worker.state.global_step and "eval_loss" in row for row in worker.state.log_history):
        worker.evaluate()
    if isinstance(job.objective, Masked) and job.objective.next_sentence:
        figures |= next_sentence_accuracy(worker, tokenizer)
    finish(worker, job, {**figures, "resumed_from": 0 if checkpoint is None else checkpoints.step(checkpoint), "seconds": time.monotonic() - started})
    return 0


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return tokenizer


def finish(worker: Worker, job: TrainingJob, figures: dict[str, Any]) -> None:
    """Write the weights, the curve and the summary; all ranks call this, since gathering weights takes all of them."""
    worker.save_weights(job.output)
    peak = most_memory(worker)
    if not worker.is_world_process_zero():
        return
    if worker.best is not None:
        figures["best"] = worker.best.read()
        shutil.copytree(worker.best.folder, job.output, dirs_exist_ok=True)
    history = worker.state.log_history
    rows = [row for row in history if "loss" in row or "eval_loss" in row]
    columns = CURVE | {key: column for key, column in MEASURED.items() if any(key in row for row in rows)}
    table = {"step": [row["step"] for row in rows]} | {column: [row.get(key) for row in rows] for key, column in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(table), job.output / "curve.parquet")
    model = worker.accelerator.unwrap_model(worker.model)
    write_json(
        job.scratch / SUMMARY,
        {
            **figures,
            "steps": worker.state.global_step,
            "tokens": worker.state.num_input_tokens_seen,
            "parameters": sum(map(_elements, model.parameters())),
            "body_parameters": sum(_elements(parameter) for name, parameter in model.named_parameters() if of_layers(name)),
            "memory_measured_bytes": peak,
            "peak_memory_bytes": peak * worker.args.world_size,
            "world_size": worker.args.world_size,
            "deepspeed": deepspeed_as_it_ran(worker),
        },
    )


def most_memory(worker: Worker) -> int:
    """The largest peak of any process in bytes: of its resident memory, or of what torch reserved on its GPU."""
    on_cuda = worker.args.device.type == "cuda"
    own = torch.cuda.max_memory_reserved() if on_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.tensor(own, dtype=torch.int64, device=worker.args.device)
    torch.distributed.all_reduce(peak, op=torch.distributed.ReduceOp.MAX)
    return int(peak)


def deepspeed_as_it_ran(worker: Worker) -> dict[str, Any]:
    """DeepSpeed's configuration with every ``auto`` filled in; accelerate's infinite ``steps_per_print`` is no JSON and left out."""
    found: dict[str, Any] = worker.accelerator.state.deepspeed_plugin.hf_ds_config.config
    return {key: value for key, value in found.items() if key != "steps_per_print"}


def _elements(parameter: torch.nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", None) or parameter.numel())  # ZeRO-3 leaves each rank a part


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
    watch.leave(code)
