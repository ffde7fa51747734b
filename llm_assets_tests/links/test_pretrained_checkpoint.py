"""Pretraining through the real worker: it learns, and a run that was interrupted ends with the same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from llm_assets.links.link import Bench
from llm_assets.links.pretrained_checkpoint import LINK, PretrainedCheckpointConfig, observe
from llm_assets.training import checkpoints
from llm_assets.training.job import Classification, TrainingJob
from llm_assets.training.launch import PreemptedError, launch
from llm_assets.training.models import classifier, masked_model
from llm_assets_tests.links import trained


def verdict(artifact, name):
    return next(check for check in LINK.checks if check.name == name).judge(artifact, {})


def test_it_learns_and_passes_its_checks() -> None:
    outcome = trained.pretrained()
    assert [found.passed for found in outcome.verdicts] == [True, True], outcome.verdicts
    metrics = outcome.artifact.metrics
    assert metrics["steps"] == 40 and metrics["resumed_from"] == 0 and metrics["world_size"] == 2
    assert metrics["tokens"] == 40 * 2 * 4 * trained.CONTEXT
    assert {"config.json", "model.safetensors", "curve.parquet", "plots/loss.png"} == set(outcome.artifact.manifest.files)


def test_loss_fell_fails_on_a_loss_that_did_not_fall() -> None:
    made = trained.pretrained().artifact
    assert not verdict(trained.changed(made, {"last_loss": made.metrics["first_loss"]}), "loss_fell").passed
    assert not verdict(trained.changed(made, {"validation_loss": made.metrics["uniform_loss"]}), "loss_fell").passed
    assert not verdict(trained.changed(made, {"validation_loss": float("nan")}), "loss_fell").passed


def test_weights_finite_fails_on_a_single_nan(tmp_path: Path) -> None:
    made = trained.pretrained().artifact
    weights = load_file(made.path("model.safetensors"))
    weights["model.final_norm.weight"][3] = float("nan")
    save_file(weights, tmp_path / "model.safetensors")
    found = verdict(trained.changed(made, directory=tmp_path), "weights_finite")
    assert not found.passed and "model.final_norm.weight" in found.description


def interrupted_job(folder: Path) -> Path:
    """The same training as the fixture's, saving a checkpoint after every step."""
    made, inputs = trained.pretrained().artifact, trained.corpus()
    job = TrainingJob(
        objective={"tokens": inputs["tokens"].directory, "kind": "masked", "mask_probability": trained.PRETRAINING.mask_probability},
        tokenizer=inputs["tokenizer"].directory, output=folder / "out", scratch=folder, steps=made.metrics["steps"], evaluate_every=10, seed=1,
        shape={"hidden": 32, "layers": 2, "heads": 2, "intermediate": 48}, micro_batch=4, learning_rate=1e-2, zero_stage=2, checkpoint_seconds=0,
    )  # fmt: skip
    return job.write(folder / "job.json")


def test_a_preempted_run_resumes_past_a_damaged_checkpoint_to_the_same_weights(tmp_path: Path) -> None:
    job = interrupted_job(tmp_path)
    agent = []

    def preempt(done: float, total: float, unit: str, **values: float) -> None:
        if done >= 5 and not agent:
            agent.append(min(int(path.name) for path in (tmp_path / "workers").iterdir()))
            os.kill(agent[0], signal.SIGTERM)

    with pytest.raises(PreemptedError, match="saved a checkpoint at step"):
        launch(job, 2, preempt, {"OMP_NUM_THREADS": "1"})
    newest = checkpoints.newest(tmp_path)
    assert newest is not None and 5 <= checkpoints.step(newest) < 40
    state = next(newest.glob("global_step*/*optim_states.pt"))
    state.write_bytes(state.read_bytes()[:-1] + b"\1")  # it would be unpickled if its hash were not compared
    older = checkpoints.newest(tmp_path)
    assert older is not None and checkpoints.step(older) == checkpoints.step(newest) - 1

    trained.launch_quietly(job, 2, lambda *_, **__: None)

    resumed, reference = load_file(tmp_path / "out" / "model.safetensors"), load_file(trained.pretrained().artifact.path("model.safetensors"))
    assert resumed.keys() == reference.keys()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["resumed_from"] > 0 and summary["tokens"] == trained.pretrained().artifact.metrics["tokens"]
    assert all(torch.equal(resumed[name], reference[name]) for name in reference)
    assert "do not match their recorded hashes" in (tmp_path / "launch.log").read_text()


def test_observed_is_the_configuration_and_every_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    folder = tmp_path / "weights"
    folder.mkdir()
    names = ("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json")
    for name in (*names, "README.md"):
        (folder / name).write_text("{}")
    config = PretrainedCheckpointConfig(from_pretrained="weights")  # in the data root
    before = observe(config)
    assert set(before["files"]) == set(names)
    for name in names:
        (folder / name).write_text("{} ")
        assert observe(config) != before
        (folder / name).write_text("{}")
    assert observe(PretrainedCheckpointConfig()) == {}


def test_weights_that_would_be_unpickled_are_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    config = PretrainedCheckpointConfig(from_pretrained=str(tmp_path))
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        observe(config)
    shutil.copy(trained.pretrained().artifact.path("config.json"), tmp_path)
    with pytest.raises(ValueError, match=r"holds no \*\.safetensors; a \.bin would run code"):
        observe(config)
    weights = load_file(trained.pretrained().artifact.path("model.safetensors"))
    torch.save(weights, tmp_path / "pytorch_model.bin")  # whole, so nothing but the refusal stands in the way
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained.corpus()["tokenizer"].directory)
    with pytest.raises(OSError, match="safetensors"):
        masked_model(None, None, tmp_path, tokenizer, len(tokenizer), trained.CONTEXT)
    with pytest.raises(OSError, match="safetensors"):
        classifier(tmp_path, Classification(train=tmp_path, evaluation=tmp_path, labels=("a", "b")))


def test_a_checkpoint_continued_from_brings_its_licence(tmp_path: Path) -> None:
    def licenses(**config: str) -> tuple[str, ...]:
        def copy_weights(job: Path, processes: int, progress: object) -> None:
            for name in ("curve.parquet", "model.safetensors"):
                shutil.copy(made.path(name), tmp_path)
            keys = ("body_parameters", "tokens")
            (tmp_path / "summary.json").write_text(json.dumps({key: made.metrics[key] for key in keys}))

        made, inputs = trained.pretrained().artifact, trained.corpus()
        bench = Bench(tmp_path, tmp_path, 1, tmp_path, copy_weights)
        given = PretrainedCheckpointConfig(**{**trained.PRETRAINING.model_dump(), **config})
        return LINK.make(bench, given, inputs["tokens"], inputs["tokenizer"], trained.COMPUTE).licenses

    folder = str(trained.pretrained().artifact.directory)
    assert licenses() == ()
    assert licenses(from_pretrained=folder) == ("not stated",)
    assert licenses(from_pretrained=folder, license="Apache-2.0") == ("Apache-2.0",)


def test_heads_that_do_not_divide_hidden_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"hidden \(192\) must be heads \(5\)"):
        PretrainedCheckpointConfig(hidden=192, heads=5)
