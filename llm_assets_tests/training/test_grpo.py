"""Rewards in this project's worker: the loss by hand, a training whose replies earn more, and one that is told the opposite."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from llm_assets.training.grpo import MEASURED, advantages, divergence, log_likelihoods
from llm_assets.training.job import SUMMARY, TrainingJob
from llm_assets.training.rewards import AnyReward, rewarded
from llm_assets.training.rollouts import Rollouts, left_padded, numbers
from llm_assets_tests.links import trained
from llm_assets_tests.links.trained import launch_quietly
from llm_assets_tests.training.room import launch_in_room
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, messages, table, tokenizer, tokenizer_folder

TOKENS, GROUP = 12, 4
REWARDS = [{"kind": "mentions", "words": ["blue"]}]  # one answer in five says so before


@given(st.lists(st.lists(st.floats(0, 1), min_size=GROUP, max_size=GROUP), min_size=1, max_size=5))
def test_advantages_sum_to_nothing_in_each_group_and_keep_its_order(groups: list[list[float]]) -> None:
    found = advantages(torch.tensor(groups, dtype=torch.float64).flatten(), GROUP).view(-1, GROUP)
    for earned, own in zip(groups, found.tolist(), strict=True):
        assert sum(own) == pytest.approx(0, abs=1e-9)
        assert own == pytest.approx([one - sum(earned) / GROUP for one in earned])


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_a_divergence_is_never_negative_and_nothing_where_nothing_changed(log_p: float, before: float) -> None:
    found = float(divergence(torch.tensor(log_p, dtype=torch.float64), torch.tensor(before, dtype=torch.float64)))
    assert found >= -1e-12 and found == pytest.approx(math.exp(before - log_p) - (before - log_p) - 1)
    assert float(divergence(torch.tensor(log_p), torch.tensor(log_p))) == 0


def test_a_token_is_as_likely_however_far_its_prompt_was_filled_up() -> None:
    model, rollouts = AutoModelForCausalLM.from_pretrained(checkpoint()).eval(), Rollouts(tokenizer(), TOKENS, LONGEST)
    prompts = rollouts.encode([messages(text)[:1] for text in ("sky?\nblue", *dialogues(2))])
    reply = tokenizer()("sky is blue", add_special_tokens=False)["input_ids"]

    def found(chosen: list[list[int]]) -> torch.Tensor:
        ids, mask = left_padded([[*prompt, *reply] for prompt in chosen], 0)
        return log_likelihoods(model, {"input_ids": ids, "attention_mask": mask, "answered": torch.ones(len(chosen), len(reply), dtype=torch.bool)})

    together, alone = found(prompts), torch.cat([found([prompt]) for prompt in prompts])
    assert torch.allclose(together, alone, atol=1e-5)
    with torch.no_grad():
        whole = model(torch.tensor([[*prompts[0], *reply]])).logits[0].log_softmax(-1)
    by_hand = [float(whole[len(prompts[0]) - 1 + place, token]) for place, token in enumerate(reply)]
    assert alone[0].tolist() == pytest.approx(by_hand, abs=1e-5)


def job(folder: Path, **settings: Any) -> TrainingJob:
    """A training by rewards of the decoder that has read a little."""
    texts = dialogues(80)[::2]
    places = {"train": table(folder / "train.parquet", texts[:30]), "evaluation": table(folder / "evaluation.parquet", texts[30:])}
    for path in places.values():
        rows = pyarrow.parquet.read_table(path).to_pylist()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "messages": row["messages"][:-1]} for row in rows]), path)
    objective = {
        "kind": "reward", **places, "rewards": REWARDS, "group": GROUP, "answer_tokens": TOKENS, "beta": 0.01, "max_length": LONGEST,
        **settings.pop("objective", {}),
    }  # fmt: skip
    common = {"steps": 20, "evaluate_every": 10, "seed": 1, "micro_batch": 16, "learning_rate": 5e-3, "zero_stage": 2}
    return TrainingJob.model_validate({
        "objective": objective, "tokenizer": tokenizer_folder(), "output": folder / "out", "scratch": folder, "start_from": checkpoint(),
        **common, **settings,
    })  # fmt: skip


def earned(folder: Path) -> float:
    """The mean reward of four replies to each prompt that no training saw."""
    rollouts, model = Rollouts(tokenizer(), TOKENS, LONGEST), AutoModelForCausalLM.from_pretrained(folder)
    asked = [messages(text)[:1] for text in dialogues(160)[100::2] for _ in range(4)]
    replies = rollouts.draw(model, rollouts.encode(asked), numbers(1, MEASURED, range(len(asked)), TOKENS))
    rules = TypeAdapter(list[AnyReward]).validate_python(REWARDS)
    return sum(rewarded(rules, prompt, rollouts.reply(ids))["reward"] for prompt, ids in zip(asked, replies, strict=True)) / len(asked)


def test_replies_to_prompts_that_it_never_saw_earn_more(tmp_path: Path) -> None:
    made = job(tmp_path)
    launch_in_room(made.write(tmp_path / "job.json"), 1, trained.silent)
    figures = json.loads((tmp_path / SUMMARY).read_text())
    assert figures["training_prompts"] == 30 and figures["validation_prompts"] == 10 and figures["tokens"] > 0
    before, after = earned(checkpoint()), earned(tmp_path / "out")
    assert after > before + 0.3, (before, after)
    curve = pyarrow.parquet.read_table(tmp_path / "out" / "curve.parquet").to_pylist()
    learned = [row for row in curve if row["reward"] is not None]
    assert learned[0]["divergence"] == pytest.approx(0, abs=1e-5) and learned[-1]["divergence"] > 0.01
    assert 1 <= learned[0]["reply_tokens"] <= TOKENS
    assert figures["best"]["score"] == max(row["validation_reward"] for row in curve if row["validation_reward"] is not None)


@pytest.mark.slow
def test_two_processes_under_zero_3_draw_the_same_replies(tmp_path: Path) -> None:
    """A reply is its place's own: with half the batch each and the weights spread, the first replies earn what they do in one process."""
    curves = {}
    for name, launch, processes, settings in (("one", launch_in_room, 1, {}), ("two", launch_quietly, 2, {"zero_stage": 3, "micro_batch": 8})):
        (tmp_path / name).mkdir()
        launch(job(tmp_path / name, steps=4, evaluate_every=4, **settings).write(tmp_path / name / "job.json"), processes, trained.silent)
        curves[name] = pyarrow.parquet.read_table(tmp_path / name / "out" / "curve.parquet").to_pylist()
    one, two = (curve[0] for curve in curves.values())
    assert two["reward"] == one["reward"] and two["reply_tokens"] == one["reply_tokens"]
    assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-3) and one["gradient_norm"] > 0
    assert curves["two"][-1]["validation_reward"] == pytest.approx(curves["one"][-1]["validation_reward"], abs=0.2)
