"""What pretraining refuses before a process starts: devices, batches, and weights that are not whole, foreign or would be unpickled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from llm_assets.links.link import Bench
from llm_assets.links.pretrained_checkpoint import LINK, PretrainedCheckpointConfig, observe
from llm_assets.training.devices import DeviceError
from llm_assets.training.job import Classification, Masked, TrainingJob
from llm_assets.training.memory import MemoryRefusedError
from llm_assets.training.models import classifier, masked_model
from llm_assets.training.weights import TokenizerMismatchError, WeightsError
from llm_assets_tests.links import trained


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


def test_the_next_sentence_objective_is_refused_for_another_architecture(tmp_path: Path) -> None:
    reference = trained.pretrained().artifact
    for name in ("config.json", "model.safetensors"):
        shutil.copy(reference.path(name), tmp_path)
    described = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "bert"}
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"next_sentence: true puts a second head on a ModernBERT, and .* holds a bert"):
        refused(tmp_path, from_pretrained=str(tmp_path), next_sentence=True)()


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
