"""AdaLoRA's ranks fall as the budget says, by the importance that PEFT computes where gradients are left standing, under every partition."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.adalora.layer import RankAllocator
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import distributed
from transformers import AutoModelForCausalLM, TrainerState

from llm_assets.training.adalora import AVERAGES, Allocation, thin
from llm_assets.training.adapters import FOLDER, Adapter, adapted, merge, save, schedule, unmerged
from llm_assets.training.causal import trained_decoder
from llm_assets.training.conversation import CollateConversations
from llm_assets.training.job import SUMMARY, Conversation, TrainingJob
from llm_assets_tests.links.trained import launch_quietly
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, encoded, said, table, tokenizer, tokenizer_folder

ADAPTER = Adapter(kind="adalora", rank=2)
STEPS = 24
MATRICES = 14  # of the decoder's two layers
PROMPTS = [text.split("\n")[0] for text in dialogues(100)]


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """A process group of one, as in a worker."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class Training:
    """A few weights trained as the worker does, without its processes."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(1)
        self.model = adapted(trained_decoder(AutoModelForCausalLM.from_pretrained(checkpoint())), ADAPTER, STEPS, len(tokenizer()))
        self.optimizer = torch.optim.AdamW([one for one in self.model.parameters() if one.requires_grad], lr=2e-2)
        self.allocation = Allocation(self.model, folder)
        self.state = TrainerState(global_step=0)
        self.batch = CollateConversations(tokenizer().pad_token_id, LONGEST * 4)([encoded(dialogues(8))[:4], encoded(dialogues(8))[4:]])

    def step(self) -> float:
        loss = self.model(**self.batch).loss
        (loss + self.allocation.penalty()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()  # as ZeRO does before anybody could ask
        self.state.global_step += 1
        self.allocation.on_step_end(None, self.state, None)  # type: ignore[arg-type]  # of which it reads nothing
        return float(loss.detach())

    def left(self) -> list[int]:
        """Of each matrix the directions that are not pruned."""
        return [int((weight != 0).sum()) for name, weight in thin(self.model) if "lora_E" in name]


def test_ranks_fall_to_the_budget_and_what_is_left_is_merged(tmp_path: Path) -> None:
    training = Training(tmp_path)
    losses, ranks = [], []
    for _ in range(STEPS):
        losses.append(training.step())
        ranks.append(sum(training.left()))
    when = schedule(STEPS)
    assert (when.first, when.settled) == (3, 12)
    assert ranks[: when.first] == [3 * MATRICES] * when.first and ranks[when.settled - 1 :] == [2 * MATRICES] * (STEPS - when.settled + 1)
    assert sorted(ranks, reverse=True) == ranks and len(set(ranks)) > 4
    assert len(set(training.left())) > 1  # not alike in every matrix, or it would be LoRA
    assert losses[-1] < losses[0]
    save(training.model, tmp_path)
    kept = load_file(tmp_path / FOLDER / "adapter_model.safetensors")
    assert sum(weight.numel() for name, weight in kept.items() if "lora_E" in name) == 2 * MATRICES
    merge(checkpoint(), tmp_path)
    merged, apart = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), unmerged(checkpoint(), tmp_path / FOLDER)
    assert said(merged, PROMPTS) == said(apart, PROMPTS) != said(AutoModelForCausalLM.from_pretrained(checkpoint()).eval(), PROMPTS)
    with torch.no_grad():
        assert float(trained_decoder(merged)(**training.batch).loss) == pytest.approx(float(training.model(**training.batch).loss), abs=1e-4)


def test_importance_is_pefts_own_where_the_gradients_of_two_passes_are_left_standing(tmp_path: Path) -> None:
    training = Training(tmp_path)
    theirs = RankAllocator(training.allocation.tuner.model, training.allocation.config, training.allocation.name)
    for _ in range(3):
        training.optimizer.zero_grad()
        for _ in range(2):
            (training.model(**training.batch).loss + training.allocation.penalty()).backward()
        training.optimizer.step()
        theirs.update_ipt(training.allocation.tuner.model)
        training.allocation.allocator.update_ipt(training.allocation.tuner.model)
    for table_ in AVERAGES:
        mine, other = getattr(training.allocation.allocator, table_), getattr(theirs, table_)
        assert mine.keys() == other.keys() and len(mine) == 3 * MATRICES
        assert all(torch.allclose(mine[name], other[name], rtol=1e-5, atol=0) for name in mine)
        assert any(float(weight.max()) > 0 for weight in mine.values())


@pytest.mark.parametrize("stopped", [6, 18])
def test_a_training_that_stopped_goes_on_as_if_it_had_not(stopped: int, tmp_path: Path) -> None:
    whole, first, second = (Training(tmp_path) for _ in range(3))
    for _ in range(STEPS):
        whole.step()
    for _ in range(stopped):
        first.step()
    (tmp_path / f"checkpoint-{stopped}").mkdir()
    first.allocation.on_save(None, first.state, None)  # type: ignore[arg-type]
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.state.global_step = stopped
    second.allocation.on_train_begin(None, second.state, None)  # type: ignore[arg-type]
    for _ in range(STEPS - stopped):
        second.step()
    assert second.left() == whole.left()
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(thin(second.model), thin(whole.model), strict=True))


def test_too_few_updates_are_refused(tmp_path: Path) -> None:
    objective = Conversation(train=tmp_path, evaluation=tmp_path, adapter=ADAPTER)
    with pytest.raises(ValidationError, match=r"prunes between updates, 3 at least \(there are 2\): train more epochs, or take lora"):
        TrainingJob(objective=objective, tokenizer=tmp_path, output=tmp_path, scratch=tmp_path, steps=2, evaluate_every=1)


def trained(folder: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """One launch of two processes; the worker's figures and the adapter."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    places = {"train": table(scratch / "train.parquet", dialogues(96)), "evaluation": table(scratch / "validation.parquet", dialogues(16))}
    job = TrainingJob.model_validate({
        "objective": Conversation(**places, max_length=LONGEST, adapter=ADAPTER), "tokenizer": tokenizer_folder(), "output": folder / "model",
        "scratch": scratch, "start_from": checkpoint(), "steps": 8, "evaluate_every": 2, "seed": 1, "micro_batch": 2, "learning_rate": 2e-2,
        **settings,
    })  # fmt: skip
    launch_quietly(job.write(scratch / "job.json"), 2, lambda *_, **__: None)
    return json.loads((scratch / SUMMARY).read_text()), load_file(folder / "model" / FOLDER / "adapter_model.safetensors")


@pytest.mark.slow
def test_the_same_is_pruned_and_learnt_under_every_partition_and_from_a_checkpoint(tmp_path: Path) -> None:
    """ZeRO keeps weights of its own, out of which what is pruned would come back; two passes an update count their penalty once."""
    found = {stage: trained(tmp_path / str(stage), zero_stage=stage, accumulation=2, checkpoint_seconds=0) for stage in (0, 2)}
    for figures, adapter in found.values():
        assert figures["best"]["step"] >= schedule(8).settled
        assert sum(weight.numel() for name, weight in adapter.items() if "lora_E" in name) == 2 * MATRICES
    assert alike(found[0][1], found[2][1])
    for best in (tmp_path / "2" / "scratch").glob("best*"):
        shutil.rmtree(best) if best.is_dir() else best.unlink()
    figures, again = trained(tmp_path / "2", zero_stage=2, accumulation=2, checkpoint_seconds=0)
    assert figures["resumed_from"] == 7 and figures["best"]["step"] == 8
    assert found[2][0]["best"]["step"] != 8 or alike(again, found[2][1])
    _, one_pass = trained(tmp_path / "one", zero_stage=2, micro_batch=4, checkpoint_seconds=60)
    assert alike(one_pass, found[2][1])


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert {name: weight.shape for name, weight in one.items()} == {name: weight.shape for name, weight in other.items()}
    return all(torch.allclose(one[name], other[name], atol=2e-3) for name in one)
