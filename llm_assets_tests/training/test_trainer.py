"""The training loop's own decisions, mostly on a worker without model or processes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from llm_assets.store.progress import silent
from llm_assets.training.devices import CPU, Choice
from llm_assets.training.faults import DivergedError
from llm_assets.training.job import Masked, TrainingJob
from llm_assets.training.trainer import Worker
from llm_assets_tests.training import test_preemption
from llm_assets_tests.training.room import launch_in_room


def worker(folder: Path, rank: int = 0, norm: float = 1.0) -> Worker:
    """Rank ``rank`` of two, two sequences a pass and three passes an update, with four updates made."""
    found = object.__new__(Worker)
    found.job = TrainingJob(objective=Masked(tokens=folder), tokenizer=folder, output=folder, scratch=folder, steps=9, evaluate_every=9)
    found.padding, found.tokens, found.passes = 0, 0, 0
    found.args = SimpleNamespace(per_device_train_batch_size=2, gradient_accumulation_steps=3, world_size=2, process_index=rank)
    found.state = SimpleNamespace(global_step=4, num_input_tokens_seen=0)
    found.train_dataset = SimpleNamespace(order=numpy.arange(1000) * 10)
    found.accelerator = SimpleNamespace(sync_gradients=True)
    found.deepspeed = SimpleNamespace(get_global_grad_norm=lambda: norm)
    return found


def test_the_ranks_read_the_rows_of_an_update_between_them(tmp_path: Path) -> None:
    each = [worker(tmp_path, rank).rows(range(3)) for rank in (0, 1)]
    assert each[0] == [480, 490, 520, 530, 560, 570]  # batch 12, so update 5 begins at place 48; every other pair of it
    assert sorted(each[0] + each[1]) == [10 * place for place in range(48, 60)]
    assert worker(tmp_path).rows([1]) == [520, 530]


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_stops_before_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: float) -> None:
    monkeypatch.setattr(Trainer, "training_step", lambda *rest, **named: torch.tensor(1.0))
    inputs = {"input_ids": torch.tensor([[5, 6, 0]])}
    sound, broken = worker(tmp_path), worker(tmp_path, norm=norm)
    sound.training_step(None, inputs)
    assert sound.tokens == 2 and sound.state.num_input_tokens_seen == 4 and sound.passes == 0
    with pytest.raises(DivergedError, match=r"gradient norm is (nan|inf) at update 5 of 9, on blocks 480, 490"):
        broken.training_step(None, inputs)


def test_a_loss_that_is_no_number_stops_before_it_is_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "compute_loss", lambda *rest, **named: torch.tensor(float("nan")))
    with pytest.raises(DivergedError, match="loss is nan at update 5 of 9"):
        worker(tmp_path).compute_loss(SimpleNamespace(training=True), {})
    assert torch.isnan(worker(tmp_path).compute_loss(SimpleNamespace(training=False), {}))  # an evaluation says what it finds


@pytest.mark.parametrize("learnt", ["causal", "regression"])
def test_what_was_trained_in_bfloat16_is_written_in_float32(tmp_path: Path, learnt: str) -> None:
    """Each number is one that bfloat16 has, as it was in training."""
    rounded = CPU.model_copy(update={"precision": Choice(value="bfloat16", reason="a test's")})
    parts = test_preemption.LEARNT[learnt](tmp_path)
    settings = {"steps": 2, "evaluate_every": 2, "seed": 1, "micro_batch": 8, "learning_rate": 1e-3, "zero_stage": 2}
    (tmp_path / "run").mkdir()
    job = TrainingJob(output=tmp_path / "run" / "out", scratch=tmp_path / "run", hardware=rounded, **parts, **settings)
    launch_in_room(job.write(tmp_path / "run" / "job.json"), 1, silent)
    weights = load_file(job.output / "model.safetensors")
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor, tensor.bfloat16().float()) for tensor in weights.values())
    assert json.loads((job.output / "config.json").read_text())["dtype"] == "float32"


def test_a_batch_goes_to_the_device_unrounded() -> None:
    """transformers would make bfloat16 of 0.1 under DeepSpeed; an array of shapes stays what it is."""
    shapes = numpy.asarray([[1, 16]])
    batch = {"labels": torch.tensor([0.1]), "documents": {"shapes": shapes}}
    found = Worker._prepare_input(SimpleNamespace(args=SimpleNamespace(device="cpu")), batch)
    assert found["labels"].dtype == torch.float32 and found["documents"]["shapes"] is shapes
