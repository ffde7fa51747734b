"""Pretraining through the real worker: it learns, and a run that was interrupted ends with the same weights."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from llm_assets.links.link import Bench
from llm_assets.links.pretrained_checkpoint import LINK, PretrainedCheckpointConfig, observe
from llm_assets.training import checkpoints
from llm_assets.training.consolidate import consolidate
from llm_assets.training.devices import DeviceError
from llm_assets.training.job import Classification, Masked, TrainingJob
from llm_assets.training.launch import LossError, PreemptedError, launch
from llm_assets.training.memory import MemoryRefusedError
from llm_assets.training.models import classifier, masked_model
from llm_assets.training.weights import TokenizerMismatchError, WeightsError
from llm_assets_tests.links import trained
from llm_assets_tests.training.room import launch_in_room


def verdict(artifact, name):
    return next(check for check in LINK.checks if check.name == name).judge(artifact, {})


OBJECTIVES = ["masked", pytest.param("causal", marks=pytest.mark.slow)]


def test_it_learns_and_passes_its_checks() -> None:
    outcome = trained.pretrained()
    assert [found.passed for found in outcome.verdicts] == [True, True], outcome.verdicts
    metrics = outcome.artifact.metrics
    assert metrics["steps"] == 40 and metrics["resumed_from"] == 0 and metrics["world_size"] == 2
    assert metrics["tokens"] == 40 * 2 * 4 * trained.CONTEXT
    files = {"config.json", "model.safetensors", "curve.parquet", "plots/loss.png", "training.json", "pages/training.html"}
    assert files == set(outcome.artifact.manifest.files)


def test_what_was_derived_is_recorded_with_its_reason_and_the_memory_beside_what_was_foreseen() -> None:
    made = trained.pretrained().artifact
    record = made.json("training.json")
    assert record["derived"]["batch"] == {"value": 8, "reason": "micro_batch 4 x accumulation 1 x processes 2: sequences an update"}
    assert all(entry["reason"] for entry in record["derived"].values())
    assert record["deepspeed"]["zero_optimization"]["stage"] == 2 and record["deepspeed"]["optimizer"]["params"]["lr"] == 1e-2
    assert "auto" not in json.dumps(record["deepspeed"])
    assert made.metrics["hardware"]["precision"] == "float32"
    assert 0.7 < made.metrics["memory_estimate_bytes"] / made.metrics["memory_measured_bytes"] < 1.4
    assert "float32" in made.path("pages/training.html").read_text()


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


def test_a_decoder_learns_and_states_bits_per_byte_and_every_number_of_its_dial(tmp_path: Path) -> None:
    inputs = trained.corpus()
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir(), scratch.mkdir()
    changes = {"objective": "causal", "tied": False, "embeddings": "cooccurrence", "processes": 1, "accumulation": None, "intermediate": None}
    config = trained.PRETRAINING.model_copy(update=changes)
    made = LINK.make(Bench(out, scratch, 1, tmp_path, launch_in_room), config, inputs["tokens"], inputs["tokenizer"], trained.COMPUTE)
    found = made.metrics
    assert found["first_loss"] < found["uniform_loss"] - 0.3  # it starts as a bigram model
    assert found["last_loss"] < found["first_loss"] and found["perplexity"] == pytest.approx(math.exp(found["validation_loss"]))
    # Each character is a token of three bytes, and of 14 tokens of a document, its opening one apart, the closing one writes nothing.
    assert found["bits_per_byte"] == pytest.approx(found["validation_loss"] / math.log(2) / (3 * 12 / 13), rel=0.05)
    derived = json.loads((out / "training.json").read_text())["derived"]
    assert derived["intermediate"] == {"value": 96, "reason": derived["intermediate"]["reason"]} and "Shazeer" in derived["intermediate"]["reason"]
    assert derived["hidden"]["reason"] == "stated; size micro alone would give 128"
    assert found["settings"]["intermediate"] == f"96: {derived['intermediate']['reason']}"
    assert found["memory_estimate_bytes"] < 1.4 * found["memory_measured_bytes"]  # of a process that may have trained before, so no lower bound
    assert json.loads((out / "config.json").read_text())["use_cache"] is True


def test_the_recipe_of_an_encoder_knows_nothing_of_decoders_and_the_dial_is_no_part_of_a_decoders() -> None:
    masked = PretrainedCheckpointConfig(zero_stage=3).recipe()
    assert masked["hidden"] == 192 and masked["tokens_budget"] == 1_200_000 and masked["batch"] == 32 and masked["learning_rate"] == 2e-3
    assert not {"objective", "size", "architecture", "tied", "key_value_heads"} & masked.keys()
    small = PretrainedCheckpointConfig(objective="causal", size="small").recipe()
    stated = {name: small[name] for name in ("layers", "hidden", "heads", "key_value_heads", "intermediate", "tokens_budget", "learning_rate")}
    by_hand = PretrainedCheckpointConfig(objective="causal", size="nano", micro_batch=8, accumulation=2, **stated)
    assert by_hand.recipe() == small and "mask_probability" not in small
    again = PretrainedCheckpointConfig.model_validate(PretrainedCheckpointConfig(objective="causal", size="small").model_dump(mode="json"))
    assert again.recipe() == small  # Dagster's run config states every key


def test_keys_of_the_other_objective_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"size, architecture: has no meaning with objective masked"):
        PretrainedCheckpointConfig(size="small", architecture="glm")
    with pytest.raises(ValidationError, match=r"next_sentence: has no meaning with objective causal"):
        PretrainedCheckpointConfig(objective="causal", next_sentence=True)


def interrupted_job(folder: Path, kind: str = "masked", **settings: object) -> Path:
    """The same training as the fixture's, saving a checkpoint after every step."""
    made, inputs = trained.pretrained(kind).artifact, trained.corpus()
    objective = {"kind": kind, "tokens": inputs["tokens"].directory}
    shape = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 48}
    if kind == "masked":
        objective["mask_probability"] = trained.PRETRAINING.mask_probability
    else:
        shape |= {"architecture": "llama", "key_value_heads": 2}
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
    assert first.keys() ^ second.keys() <= {"decoder.weight", "lm_head.weight"} and len(shared) > 10
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
        assert summary["resumed_from"] == checkpoints.step(older) and summary["tokens"] == reference.metrics["tokens"]
        assert validation_loss(folder / "out") == pytest.approx(reference.metrics["validation_loss"], abs=1e-3)
        assert "do not match their recorded hashes" in (folder / "launch.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masked", "causal"])
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


def refused(tmp_path: Path, compute: dict[str, object] = trained.COMPUTE, **settings: object) -> Callable[[], object]:
    """A pretraining whose processes must not be started."""

    def launch(job: Path, processes: int, progress: object) -> None:
        raise AssertionError("a process was started")

    inputs = trained.corpus()
    bench = Bench(tmp_path, tmp_path, 1, tmp_path, launch)
    config = PretrainedCheckpointConfig(**{**trained.PRETRAINING.model_dump(), **settings})
    return lambda: LINK.make(bench, config, inputs["tokens"], inputs["tokenizer"], compute)


def test_more_gpus_than_there_are_are_refused_before_launch(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="device: cuda is asked for"):
        refused(tmp_path, device="cuda")()


def test_a_batch_that_cannot_fit_is_refused_before_launch(tmp_path: Path) -> None:
    with pytest.raises(MemoryRefusedError, match=r"Smallest change that fits: micro_batch: \d+, accumulation: \d+"):
        refused(tmp_path, micro_batch=2**16)()


def test_a_checkpoint_with_a_missing_shard_is_refused_before_launch(tmp_path: Path) -> None:
    weights = load_file(trained.pretrained().artifact.path("model.safetensors"))
    shutil.copy(trained.pretrained().artifact.path("config.json"), tmp_path)
    names = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(weights))}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    save_file({name: weights[name] for name in names if names[name].startswith("model-00001")}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors is missing"):
        refused(tmp_path / "work", from_pretrained=str(tmp_path))()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors is missing"):
        observe(PretrainedCheckpointConfig(from_pretrained=str(tmp_path)))


def test_a_checkpoint_that_means_other_tokens_is_refused_before_launch(tmp_path: Path) -> None:
    made = trained.pretrained().artifact
    shutil.copy(made.path("model.safetensors"), tmp_path)
    settings = made.json("config.json")
    for change, message in (({"pad_token_id": 1}, "means token 1 by pad_token, the tokenizer 0"), ({"vocab_size": 9}, "knows 9 tokens")):
        (tmp_path / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(TokenizerMismatchError, match=message):
            refused(tmp_path / "work", from_pretrained=str(tmp_path))()


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


def test_observed_is_the_configuration_and_every_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    folder = tmp_path / "weights"
    folder.mkdir()
    names = ("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json")
    for name in (*names, "README.md"):
        (folder / name).write_text('{"weight_map": {}}')
    config = PretrainedCheckpointConfig(from_pretrained="weights")  # in the data root
    before = observe(config)
    assert set(before["files"]) == set(names)
    for name in names:
        (folder / name).write_text('{"weight_map": {}} ')
        assert observe(config) != before
        (folder / name).write_text('{"weight_map": {}}')
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
        job = {"objective": Masked(tokens=tmp_path), "tokenizer": tmp_path, "output": tmp_path, "scratch": tmp_path, "steps": 1, "evaluate_every": 1}
        masked_model(TrainingJob(**job, start_from=tmp_path), tokenizer, len(tokenizer), trained.CONTEXT)
    with pytest.raises(OSError, match="safetensors"):
        classifier(Classification(train=tmp_path, evaluation=tmp_path, labels=("a", "b")), tmp_path, tokenizer)


def test_a_second_half_is_told_from_another_documents_and_the_head_for_it_is_not_saved(tmp_path: Path) -> None:
    """Continued from a checkpoint, whose configuration and tensors are those of the result."""
    reference, inputs = trained.pretrained().artifact, trained.corpus()
    settings = {"from_pretrained": str(reference.directory), "next_sentence": True, "steps": 8, "processes": 1, "required_drop": 0.0}
    config = PretrainedCheckpointConfig(**{**trained.PRETRAINING.model_dump(), **settings})
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir(), scratch.mkdir()
    made = LINK.make(Bench(out, scratch, 1, tmp_path, launch_in_room), config, inputs["tokens"], inputs["tokenizer"], trained.COMPUTE)
    assert made.metrics["next_sentence_documents"] > 10 and 0 < made.metrics["next_sentence_accuracy"] <= 1
    # Not below where it began by more than a little: the masked loss is measured on documents as they are.
    assert made.metrics["validation_loss"] < reference.metrics["validation_loss"] + 0.2
    assert load_file(out / "model.safetensors").keys() == load_file(reference.path("model.safetensors")).keys()


def test_the_next_sentence_objective_is_refused_for_another_architecture(tmp_path: Path) -> None:
    reference = trained.pretrained().artifact
    for name in ("config.json", "model.safetensors"):
        shutil.copy(reference.path(name), tmp_path)
    described = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "bert"}
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"next_sentence: true puts a second head on a ModernBERT, and .* holds a bert"):
        refused(tmp_path, from_pretrained=str(tmp_path), next_sentence=True)()


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
