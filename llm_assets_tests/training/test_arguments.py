"""Schedules and optimizers on cases worked by hand; the formulas stand in docs/methods.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from llm_assets.training.arguments import schedule_settings
from llm_assets.training.job import Masked, TrainingJob
from llm_assets.training.zero import optimizer

COMMON = {"tokenizer": "t", "output": "o", "scratch": "s", "steps": 10, "evaluate_every": 1, "warmup": 0.2, "decay": 0.4, "learning_rate": 1.0}


def job(**settings: object) -> TrainingJob:
    return TrainingJob(objective=Masked(tokens=Path("x")), **COMMON, **settings)


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("linear", {0: 0, 1: 0.5, 2: 1, 6: 4 / 8, 10: 0}),
        ("cosine", {1: 0.5, 2: 1, 4: 0.5 * (1 + 0.5**0.5), 6: 0.5, 10: 0}),  # half a cosine over the 8 steps after the warmup
        ("constant_with_warmup", {0: 0, 1: 0.5, 2: 1, 6: 1, 10: 1}),
        ("warmup_stable_decay", {0: 0, 1: 0.5, 2: 1, 6: 1, 7: 1 - (1 / 4) ** 0.5, 10: 0}),  # the last 4 of 10 steps
    ],
)
def test_learning_rates(schedule: str, expected: dict[int, float]) -> None:
    asked = job(schedule=schedule)
    weight = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([weight], lr=asked.learning_rate)
    settings = {"num_warmup_steps": 2, "num_training_steps": 10, "scheduler_specific_kwargs": schedule_settings(asked)}
    scheduler = get_scheduler(asked.schedule, sgd, **settings)
    found = {}
    for step in range(11):
        found[step] = sgd.param_groups[0]["lr"]
        sgd.step()
        scheduler.step()
    assert {step: found[step] for step in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "name, expected",
    [
        # Weight 1, gradient 2, rate 0.1, decay 0.01. AdamW: 1 - 0.1 x 0.01 - 0.1 x 2 / sqrt(4), both means corrected for their start.
        ("adamw", 0.899),
        # Nesterov: beside the gradient's part, mu2 / (1 - mu1 mu2) of the mean 0.2, with mu1 = 0.4500735 and mu2 = 0.4501469 (Dozat 2016).
        ("nadamw", 0.899 - 0.1 * 0.4501469 / (1 - 0.4500735 * 0.4501469) * 0.2 / 2),
        # Gradient with decay 2.01, momentum the same, Nesterov 2.01 + 0.9 x 2.01.
        ("sgd", 1 - 0.1 * 1.9 * 2.01),
    ],
)
def test_the_first_update(name: str, expected: float) -> None:
    chosen = optimizer(job(optimizer=name))
    given = {"lr": 0.1, "weight_decay": 0.01, "betas": (0.9, 0.999), "eps": 1e-8}  # what transformers fills in for "auto"
    settings = {key: given[key] if value == "auto" else value for key, value in chosen["params"].items() if key != "torch_adam"}
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    weight.grad = torch.full_like(weight, 2.0)
    getattr(torch.optim, chosen["type"])([weight], **settings).step()
    assert weight.item() == pytest.approx(expected, abs=1e-7)
