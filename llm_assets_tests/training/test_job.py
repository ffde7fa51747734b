from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from llm_assets.training.job import Classification, Masked, TrainingJob
from llm_assets.training.zero import deepspeed_config

COMMON = {"tokenizer": "t", "output": "o", "scratch": "s", "steps": 3, "evaluate_every": 1, "micro_batch": 2, "learning_rate": 1e-3}


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    for objective in (Masked(tokens=Path("x")), Classification(train=Path("a"), evaluation=Path("b"), labels=("n", "p"))):
        job = TrainingJob(objective=objective, **COMMON)
        assert TrainingJob.read(job.write(tmp_path / "job.json")) == job


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="stepz"):
        TrainingJob(objective=Masked(tokens=Path("x")), stepz=3, **COMMON)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_gets_the_stage_and_a_cpu_optimizer_without_cuda(stage: int) -> None:
    job = TrainingJob(objective=Masked(tokens=Path("x")), zero_stage=stage, **COMMON)
    cpu, cuda = deepspeed_config(job, cuda=False), deepspeed_config(job, cuda=True)
    assert cpu["zero_optimization"]["stage"] == stage
    assert cpu["optimizer"]["params"]["torch_adam"] and "fused" not in cpu["optimizer"]["params"] and not cpu["bf16"]["enabled"]
    assert cuda["optimizer"]["params"]["fused"] and cuda["bf16"]["enabled"]
