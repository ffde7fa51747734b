from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from llm_assets.training.job import Classification, Masked, Optimization, TrainingJob

COMMON = {"tokenizer": "t", "output": "o", "scratch": "s", "steps": 3, "evaluate_every": 1, "micro_batch": 2, "learning_rate": 1e-3}


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    for objective in (Masked(tokens=Path("x")), Classification(train=Path("a"), evaluation=Path("b"), labels=("n", "p"))):
        job = TrainingJob(objective=objective, **COMMON)
        assert TrainingJob.read(job.write(tmp_path / "job.json")) == job


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="stepz"):
        TrainingJob(objective=Masked(tokens=Path("x")), stepz=3, **COMMON)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"optimizer": "lion"}, "'adamw', 'nadamw', 'sgd' or 'muon'"),
        ({"schedule": "polynomial"}, "'linear', 'cosine', 'constant_with_warmup' or 'warmup_stable_decay'"),
        ({"offload_optimizer": "nvme"}, "'none' or 'cpu'"),
        ({"offload_optimizer": "cpu", "zero_stage": 0}, r"offload_optimizer: cpu needs zero_stage 1, 2 or 3 \(it is 0\)"),
        ({"offload_parameters": "cpu", "zero_stage": 2}, r"offload_parameters: cpu needs zero_stage 3 \(it is 2\)"),
        ({"offload_optimizer": "cpu", "device": "cpu"}, "offload_optimizer: cpu with device: cpu moves nothing"),
        ({"offload_optimizer": "cpu", "optimizer": "sgd"}, r"needs optimizer adamw \(it is sgd\)"),
        ({"schedule": "warmup_stable_decay", "warmup": 0.5, "decay": 0.6}, r"warmup \(0.5\) and decay \(0.6\).*must not exceed 1"),
        ({"beta2": 1.0}, "beta2"),
    ],
)
def test_impossible_settings_are_refused_naming_key_and_remedy(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Optimization(**settings)
