"""TRL's losses in this project's worker: each method trains for real, and its loss is what a calculation by hand gives."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
import torch

from llm_assets.evaluation.assistant import Assistant
from llm_assets.training.chat import Chat
from llm_assets.training.job import SUMMARY, Method, Preference, TrainingJob
from llm_assets.training.pairs import encode, replied, write
from llm_assets_tests.links.trained import launch_quietly
from llm_assets_tests.training.preferring import pairs
from llm_assets_tests.training.talking import LONGEST, checkpoint, tokenizer, tokenizer_folder

BETA = 0.2
HELD_OUT = pairs(8, "validation", first=60)


def trained(folder: Path, method: Method, **settings: Any) -> dict[str, Any]:
    """One launch of two processes; the worker's figures."""
    chat, scratch = Chat(tokenizer()), folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    (folder / "model").mkdir(exist_ok=True)
    for name, given in (("train", pairs(48)), ("validation", HELD_OUT)):
        write(scratch / f"{name}.parquet", encode(given, chat, LONGEST), method, 1)
    places = {"train": scratch / "train.parquet", "evaluation": scratch / "validation.parquet"}
    job = TrainingJob.model_validate({
        "objective": Preference(method=method, beta=BETA, max_length=LONGEST, **places), "tokenizer": tokenizer_folder(), "output": folder / "model",
        "scratch": scratch, "start_from": checkpoint(), "steps": 8, "evaluate_every": 8, "seed": 1, "micro_batch": 4, "learning_rate": 5e-3,
        "zero_stage": 2, **settings,
    })  # fmt: skip
    launch_quietly(job.write(scratch / "job.json"), 2, lambda *_, **__: None)
    found: dict[str, Any] = json.loads((scratch / SUMMARY).read_text())
    return found


def margins(folder: Path) -> list[float]:
    """Of each held-out pair log p of the true reply less that of the other, by a decoder asked with transformers alone."""
    model = Assistant(folder, tokenizer_folder(), LONGEST)
    chosen = model.likelihoods([replied(pair.prompt, pair.chosen) for pair in HELD_OUT], last=True)
    rejected = model.likelihoods([replied(pair.prompt, pair.rejected) for pair in HELD_OUT], last=True)
    return [wrong.nats - right.nats for right, wrong in zip(chosen, rejected, strict=True)]


def kept(folder: Path) -> dict[str, int]:
    """What TRL computed before the first update, by name and time."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "scratch" / "datasets").rglob("cache-*.arrow")}


def first_loss(folder: Path) -> float:
    return float(pyarrow.parquet.read_table(folder / "model" / "curve.parquet")["loss"][0].as_py())


def test_dpos_loss_is_that_of_a_calculation_by_hand(tmp_path: Path) -> None:
    """Of the weights that are kept: the mean of -log sigmoid(beta * (margin - the margin that training began with))."""
    figures = trained(tmp_path, "dpo")
    before, after = margins(checkpoint()), margins(tmp_path / "model")
    by_hand = [math.log1p(math.exp(-BETA * (one - other))) for one, other in zip(after, before, strict=True)]
    assert figures["best"]["loss"] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-4)
    assert first_loss(tmp_path) == pytest.approx(math.log(2), abs=1e-4)  # nothing is preferred yet
    assert figures["best"]["loss"] < math.log(2)
    assert sum(one > other for one, other in zip(after, before, strict=True)) == len(HELD_OUT)
    assert figures["training_examples"] == 48 and figures["tokens"] > 0


@pytest.mark.slow
def test_dpo_gives_the_same_under_every_partition_and_from_a_checkpoint(tmp_path: Path) -> None:
    """A second launch beside checkpoints goes on from the last, with the likelihoods of before that the first computed."""
    losses = [trained(tmp_path / str(stage), "dpo", zero_stage=stage, checkpoint_seconds=0)["best"]["loss"] for stage in (0, 2, 3)]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-4)
    for best in (tmp_path / "2" / "scratch").glob("best*"):
        shutil.rmtree(best) if best.is_dir() else best.unlink()
    computed = kept(tmp_path / "2")
    again = trained(tmp_path / "2", "dpo", zero_stage=2, checkpoint_seconds=0)
    assert len(computed) == 2 and kept(tmp_path / "2") == computed  # of the pairs to train on, and of the held-out ones
    assert again["resumed_from"] == 7 and again["best"]["loss"] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kto", "orpo"])
def test_the_other_methods_prefer_too(tmp_path: Path, method: Method) -> None:
    figures = trained(tmp_path, method, zero_stage=3)
    gained = [one - other for one, other in zip(margins(tmp_path / "model"), margins(checkpoint()), strict=True)]
    assert sum(gained) / len(gained) > 0
    if method == "kto":
        assert figures["training_examples"] == 96
        assert first_loss(tmp_path) == pytest.approx(0.5, abs=1e-4)  # 1 - sigmoid(0): no reply is likelier than before


def test_orpos_odds_ratio_is_that_of_a_calculation_by_hand() -> None:
    """Mean log p of a token -0.2 and -0.9: odds p / (1 - p) of 4.517 and 0.685, the log of their ratio 1.886, log sigmoid of that -0.141."""
    from llm_assets.training.preference import OrpoWorker

    worker = SimpleNamespace(beta=BETA, accelerator=SimpleNamespace(device="cpu"))
    weighted, *_, ratio = OrpoWorker.odds_ratio_loss(worker, torch.tensor([-0.2]), torch.tensor([-0.9]))  # type: ignore[arg-type]
    odds = [math.exp(one) / (1 - math.exp(one)) for one in (-0.2, -0.9)]
    assert float(ratio) == pytest.approx(math.log(odds[0] / odds[1]), abs=1e-4) and float(ratio) == pytest.approx(1.886, abs=1e-3)
    assert float(weighted[0]) == pytest.approx(BETA * -math.log1p(math.exp(-math.log(odds[0] / odds[1]))), abs=1e-4)
