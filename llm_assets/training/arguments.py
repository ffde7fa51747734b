"""transformers' training arguments for a job."""

from __future__ import annotations

import torch
from transformers import TrainingArguments

from llm_assets.training.job import Masked, TrainingJob
from llm_assets.training.zero import deepspeed_config

LOGGED_POINTS = 200  # of a loss curve


def training_arguments(job: TrainingJob) -> TrainingArguments:
    """transformers' arguments; creating them also starts the process group, gloo on CPUs and NCCL on CUDA."""
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(job.scratch),
        max_steps=job.steps,
        per_device_train_batch_size=job.micro_batch,
        per_device_eval_batch_size=4 * job.micro_batch,
        gradient_accumulation_steps=job.accumulation,
        learning_rate=job.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=int(job.warmup * job.steps),
        weight_decay=job.weight_decay,
        max_grad_norm=job.max_gradient_norm,
        eval_strategy="steps",
        eval_steps=job.evaluate_every,
        logging_steps=max(1, job.steps // LOGGED_POINTS),
        logging_first_step=True,
        save_strategy="no",  # AgreedCheckpoints decides
        save_total_limit=2,  # one being written, one whole
        prediction_loss_only=isinstance(job.objective, Masked),
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        report_to=[],
        disable_tqdm=True,
        seed=job.seed,
        bf16=cuda,
        use_cpu=not cuda,
        ddp_backend="nccl" if cuda else "gloo",
        deepspeed=deepspeed_config(job, cuda),
    )
