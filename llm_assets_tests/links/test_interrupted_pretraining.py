"""A pretraining that was interrupted ends with the same weights, in any layout; one that diverged keeps its last good checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from llm_assets.training import checkpoints
from llm_assets.training.consolidate import consolidate
from llm_assets.training.job import TrainingJob
from llm_assets.training.launch import LossError, PreemptedError, launch
from llm_assets_tests.links import trained

OBJECTIVES = ["masked", pytest.param("causal", marks=pytest.mark.slow), pytest.param("span_denoising", marks=pytest.mark.slow)]


def interrupted_job(folder: Path, kind: str = "masked", **settings: object) -> Path:
    """The same training as the fixture's, saving a checkpoint after every step."""
    made, inputs = trained.pretrained(kind).artifact, trained.corpus_of(kind)
    objective = {"kind": kind, "tokens": inputs["tokens"].directory}
    shape = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 48}
    if kind == "masked":
        objective["mask_probability"] = trained.PRETRAINING.mask_probability
    else:
        shape |= {"architecture": "llama", "key_value_heads": 2} if kind == "causal" else {"architecture": "t5"}
    job = TrainingJob(
        objective=objective,
        tokenizer=inputs["tokenizer"].directory, output=folder / "out", scratch=folder, steps=made.metrics["steps"], evaluate_every=10, seed=1,
        **{"shape": shape, "micro_batch": 4, "learning_rate": 1e-2, "zero_stage": 2,
           "checkpoint_seconds": 0, **settings},
    )  # fmt: skip
    return job.write(folder / "job.json")


def preempted(folder: Path, kind: str = "masked", **settings: object) -> Path:
    """The job of two processes, asked from outside to stop after five steps; its newest checkpoint stands in ``folder``."""
    job = interrupted_job(folder, kind, **settings)
    agent = []

    def preempt(done: float, total: float, unit: str, **values: float) -> None:
        if done >= 5 and not agent:
            agent.append(min(int(path.name) for path in (folder / "workers").iterdir()))
            os.kill(agent[0], signal.SIGTERM)

    with pytest.raises(PreemptedError, match="saved a checkpoint at step"):
        launch(job, 2, preempt, {"OMP_NUM_THREADS": "1"})
    return job


def difference(one: Path, other: Path) -> float:
    """The largest between two files of weights that both hold; a tied weight may be written once or twice."""
    first, second = load_file(one), load_file(other)
    shared = first.keys() & second.keys()
    tied = {"decoder.weight", "lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert first.keys() ^ second.keys() <= tied and len(shared) > 10
    return max(float((first[name] - second[name]).abs().max()) for name in shared)


def validation_loss(folder: Path) -> float:
    return [value for value in pyarrow.parquet.read_table(folder / "curve.parquet")["validation_loss"].to_pylist() if value is not None][-1]


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_preempted_run_resumes_past_a_damaged_checkpoint_with_two_processes_and_with_one(tmp_path: Path, kind: str) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    two.mkdir()
    job = preempted(two, kind)
    newest = checkpoints.newest(two)
    assert newest is not None and 5 <= checkpoints.step(newest) < 40
    assert difference(consolidate(newest, tmp_path / "whole"), newest / "model.safetensors") == 0
    state = next(newest.glob("global_step*/*optim_states.pt"))
    state.write_bytes(state.read_bytes()[:-1] + b"\1")  # it would be loaded if its hash were not compared
    with pytest.raises(checkpoints.CheckpointError, match=rf"{state.name} do not match"):
        consolidate(newest, tmp_path / "damaged")
    older = checkpoints.newest(two)
    assert older is not None and checkpoints.step(older) == checkpoints.step(newest) - 1
    shutil.copytree(two, one)

    trained.launch_quietly(job, 2, lambda *_, **__: None)
    trained.launch_quietly(interrupted_job(one, kind, accumulation=2), 1, lambda *_, **__: None)

    reference = trained.pretrained(kind).artifact
    assert difference(two / "out" / "model.safetensors", reference.path("model.safetensors")) == 0
    assert difference(one / "out" / "model.safetensors", reference.path("model.safetensors")) < 1e-3
    for folder in (two, one):
        summary = json.loads((folder / "summary.json").read_text())
        # two processes count one's tokens for both, and what is left of blocks whose spans are cut out differs by a few
        counted = pytest.approx(reference.metrics["tokens"], rel=0.01 if (folder, kind) == (one, "span_denoising") else 0)
        assert summary["resumed_from"] == checkpoints.step(older) and summary["tokens"] == counted
        assert validation_loss(folder / "out") == pytest.approx(reference.metrics["validation_loss"], abs=1e-3)
        assert "do not match their recorded hashes" in (folder / "launch.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masked", "causal", "span_denoising"])
def test_every_zero_stage_ends_with_the_same_loss_and_goes_on_in_another_layout(tmp_path: Path, kind: str) -> None:
    """Two processes with each stage; what was stopped at stage 3 goes on in one process at stage 0."""
    losses = {}
    for stage in (0, 1, 2, 3):
        folder = tmp_path / str(stage)
        folder.mkdir()
        job = interrupted_job(folder, kind, zero_stage=stage) if stage < 3 else preempted(folder, kind, zero_stage=3)
        if stage == 3:
            newest = checkpoints.newest(folder)
            assert newest is not None and difference(consolidate(newest, tmp_path / "whole"), newest / "model.safetensors") == 0
            shutil.copytree(folder, tmp_path / "elsewhere")
        trained.launch_quietly(job, 2, lambda *_, **__: None)
        losses[stage] = validation_loss(folder / "out")
    trained.launch_quietly(interrupted_job(tmp_path / "elsewhere", kind, zero_stage=0, accumulation=2), 1, lambda *_, **__: None)
    losses["elsewhere"] = validation_loss(tmp_path / "elsewhere" / "out")
    assert max(losses.values()) - min(losses.values()) < 1e-4, losses


@pytest.mark.slow
def test_muon_goes_on_where_it_stopped_with_two_processes_and_with_one(tmp_path: Path) -> None:
    """Two ranks share the matrices, one makes all of them: the same updates but for the rounding of the gradients' mean."""
    muon = {"optimizer": "muon", "zero_stage": 0}
    whole, two, one = (tmp_path / name for name in ("whole", "two", "one"))
    whole.mkdir(), two.mkdir()
    trained.launch_quietly(interrupted_job(whole, "causal", **muon), 2, lambda *_, **__: None)
    job = preempted(two, "causal", **muon)
    shutil.copytree(two, one)
    trained.launch_quietly(job, 2, lambda *_, **__: None)
    trained.launch_quietly(interrupted_job(one, "causal", accumulation=2, **muon), 1, lambda *_, **__: None)
    weights = [folder / "out" / "model.safetensors" for folder in (whole, two, one)]
    assert difference(weights[1], weights[0]) == 0 and difference(weights[2], weights[0]) < 1e-3
    assert json.loads((one / "summary.json").read_text())["resumed_from"] > 0


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_training_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    settings = json.loads(interrupted_job(tmp_path).read_text())
    job = TrainingJob.model_validate({**settings, "learning_rate": 1e30, "warmup": 0}).write(tmp_path / "job.json")  # the first update ruins it
    with pytest.raises(LossError, match=r"loss is nan at update 2 of 40, on blocks \d+, \d+.* last whole checkpoint is kept. Remedy: a lower"):
        trained.launch_quietly(job, 2, lambda *_, **__: None)
    kept = checkpoints.newest(tmp_path)
    assert kept is not None and checkpoints.step(kept) == 1
    assert all(torch.isfinite(weight).all() for weight in load_file(kept / "model.safetensors").values())
    assert not (tmp_path / "out").exists()
