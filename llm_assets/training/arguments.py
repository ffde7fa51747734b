"""transformers' training arguments for a job."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainingArguments

from llm_assets.training.devices import DeviceError
from llm_assets.training.job import Classification, Masked, TrainingJob
from llm_assets.training.memory import EVALUATION
from llm_assets.training.zero import deepspeed_config

LOGGED_POINTS = 200  # of a loss curve
DECAY_SHAPE = "1-sqrt"  # of warmup_stable_decay: 1 - sqrt(share of the decay that is over), the best of those Haegele et al. 2024 compare


def training_arguments(job: TrainingJob, kind: type[TrainingArguments] = TrainingArguments, **more: Any) -> TrainingArguments:
    """transformers' arguments, or a ``kind`` with ``more`` of its own; creating them also starts the process group, gloo on CPUs and NCCL on CUDA.

    Raises ``DeviceError`` where the job is for CUDA and torch finds none: the compute record is of another machine.
    """
    on_cuda = job.hardware.device.value == "cuda"
    if on_cuda and not torch.cuda.is_available():
        raise DeviceError("this job was planned for CUDA and torch finds no such device here. Remedy: materialize compute on this machine again")
    return kind(
        output_dir=str(job.scratch),
        max_steps=job.steps,
        per_device_train_batch_size=job.micro_batch,
        per_device_eval_batch_size=EVALUATION * job.micro_batch,
        gradient_accumulation_steps=job.accumulation,
        learning_rate=job.learning_rate,
        adam_beta1=job.beta1,
        adam_beta2=job.beta2,
        adam_epsilon=job.epsilon,
        lr_scheduler_type=job.schedule,
        lr_scheduler_kwargs=schedule_settings(job),
        warmup_steps=int(job.warmup * job.steps),
        weight_decay=job.weight_decay,
        max_grad_norm=job.max_gradient_norm,
        activation_checkpointing=job.activation_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if job.activation_checkpointing else None,
        torch_compile=job.torch_compile,
        eval_strategy="steps",
        eval_steps=job.evaluate_every,
        logging_steps=max(1, job.steps // LOGGED_POINTS),
        logging_first_step=True,
        save_strategy="no",  # AgreedCheckpoints decides
        save_total_limit=2,  # one being written, one whole
        prediction_loss_only=not isinstance(job.objective, Classification),
        label_names=["labels"],
        use_cache=not isinstance(job.objective, Masked | Classification),  # only stated: a decoder in service keeps keys and values
        remove_unused_columns=False,
        dataloader_pin_memory=job.hardware.pin_memory.value,
        report_to=[],
        disable_tqdm=True,
        seed=job.seed,
        bf16=job.hardware.precision.value == "bfloat16",
        tf32=job.hardware.tf32.value if on_cuda else None,
        use_cpu=not on_cuda,
        ddp_backend=job.hardware.collectives.value,
        deepspeed=deepspeed_config(job),
        **more,
    )


def schedule_settings(job: TrainingJob) -> dict[str, Any]:
    """What the schedule asks for beside warmup and number of steps."""
    if job.schedule != "warmup_stable_decay":
        return {}
    return {"num_decay_steps": max(1, int(job.decay * job.steps)), "decay_type": DECAY_SHAPE}
