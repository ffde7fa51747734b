"""DeepSpeed's settings for a job (ZeRO: Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054)."""

from __future__ import annotations

from typing import Any

from llm_assets.training.job import TrainingJob

BUCKET = 5_000_000  # elements reduced at once; the default of 5e8 is allocated in full by stage 2


def deepspeed_config(job: TrainingJob) -> dict[str, Any]:
    """The configuration dictionary.

    ``auto`` values are filled in by transformers from its training arguments, so that the two cannot disagree.
    """
    zero: dict[str, Any] = {
        "stage": job.zero_stage,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    for key, place in (("offload_optimizer", job.offload_optimizer), ("offload_param", job.offload_parameters)):
        if place != "none":
            zero[key] = {"device": place, "pin_memory": job.hardware.pin_memory.value}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": job.hardware.precision.value == "bfloat16"},
        **({} if job.optimizer == "muon" else {"optimizer": optimizer(job)}),  # the worker makes a Muon itself
        "zero_allow_untested_optimizer": job.optimizer != "adamw",  # DeepSpeed's list has Adam's kin alone; the others are elementwise too
        "zero_optimization": zero,
        "steps_per_print": 1_000_000,  # progress is reported by the worker
    }


def optimizer(job: TrainingJob) -> dict[str, Any]:
    """Type and parameters. Only optimizers that treat each number alone: ZeRO cuts flattened weights anywhere."""
    common = {"lr": "auto", "weight_decay": "auto"}
    adam = {**common, "betas": "auto", "eps": "auto"}
    fused = {"fused": True} if job.hardware.adam.value == "torch_fused" else {}
    if job.optimizer == "sgd":
        return {"type": "SGD", "params": {**common, "momentum": job.beta1, "nesterov": job.beta1 > 0, **fused}}
    if job.optimizer == "nadamw":
        return {"type": "NAdam", "params": {**adam, "decoupled_weight_decay": True}}
    return {"type": "AdamW", "params": {**adam, "torch_adam": job.hardware.adam.value != "deepspeed_cpu", **fused}}
