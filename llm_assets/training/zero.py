"""DeepSpeed's settings for a job (ZeRO: Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054)."""

from __future__ import annotations

from typing import Any

from llm_assets.training.job import TrainingJob

BUCKET = 5_000_000  # elements reduced at once; the default of 5e8 is allocated in full by stage 2


def deepspeed_config(job: TrainingJob, cuda: bool) -> dict[str, Any]:
    """The configuration dictionary: a torch AdamW on the CPU, the fused one in bfloat16 on CUDA.

    ``auto`` values are filled in by transformers from its training arguments, so that the two cannot disagree.
    """
    adam = {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": cuda},
        "optimizer": {"type": "AdamW", "params": adam | {"torch_adam": True, "fused": True} if cuda else adam | {"torch_adam": True}},
        "zero_optimization": {
            "stage": job.zero_stage,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "steps_per_print": 1_000_000,  # progress is reported by the worker
    }
