from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR
from transformers import TrainerControl, TrainerState

from llm_assets.training import callbacks
from llm_assets.training.callbacks import BestEvaluation, Reports
from llm_assets.training.job import PROGRESS, Masked, TrainingJob


def evaluated(best: BestEvaluation, score: float, loss: float, step: int) -> None:
    if best.is_beaten_by(score, loss, step):
        (best.scratch / f"best-{step}").mkdir()
        best.keep(score, loss, step)


def test_the_best_evaluation_has_the_highest_score_then_the_lowest_loss(tmp_path: Path) -> None:
    best = BestEvaluation(tmp_path)
    for score, loss, step in ((0.7, 0.5, 1), (0.8, 0.6, 2), (0.8, 0.55, 3), (0.8, 0.55, 4), (0.79, 0.1, 5)):
        evaluated(best, score, loss, step)
    assert best.step == 3
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-3"]


def test_an_evaluation_met_again_after_a_resume_is_not_kept_twice(tmp_path: Path) -> None:
    evaluated(BestEvaluation(tmp_path), 0.8, 0.5, 3)
    assert not BestEvaluation(tmp_path).is_beaten_by(0.8, 0.4, 3)


def test_no_evaluation_before_the_earliest_is_kept(tmp_path: Path) -> None:
    best = BestEvaluation(tmp_path, earliest=4)
    for score, loss, step in ((0.9, 0.1, 2), (0.5, 0.5, 4), (0.6, 0.4, 6)):
        evaluated(best, score, loss, step)
    assert best.step == 6 and [path.name for path in tmp_path.glob("best-*")] == ["best-6"]


def test_steps_are_reported_to_the_launcher_and_to_dagster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    closed: list[bool] = []

    @contextmanager
    def pipes():
        yield SimpleNamespace(log=SimpleNamespace(info=said.append))
        closed.append(True)

    monkeypatch.setenv(DAGSTER_PIPES_CONTEXT_ENV_VAR, "a context")
    monkeypatch.setattr(callbacks, "open_dagster_pipes", pipes)
    common = {"tokenizer": tmp_path, "output": tmp_path, "scratch": tmp_path, "steps": 20, "evaluate_every": 5, "micro_batch": 1, "learning_rate": 1}
    reports = Reports(TrainingJob(objective=Masked(tokens=tmp_path), **common))
    state, control = TrainerState(max_steps=20), TrainerControl()
    reports.on_train_begin(None, state, control)
    for step in (1, 2):
        state.global_step = step
        reports.on_log(None, state, control, logs={"loss": 0.5, "tokens_per_second": 900.0})
    reports.on_log(None, state, control, logs={"eval_loss": 0.4})
    reports.on_train_end(None, state, control)

    lines = [json.loads(line) for line in (tmp_path / PROGRESS).read_text().splitlines()]
    assert [(line["step"], line["total"], line["loss"], line["tokens_per_second"]) for line in lines] == [(1, 20, 0.5, 900.0), (2, 20, 0.5, 900.0)]
    assert len(said) == 1 and said[0].startswith("step 1/20, loss 0.500, 900 tokens/s")  # the second came sooner than 5 s after
    assert closed == [True]
