"""Replies drawn from a small decoder: with what probability, and that a draw depends on its place alone."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from transformers import AutoModelForCausalLM

from llm_assets.training.rollouts import Drawn, Rollouts, left_padded, numbers
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, messages, tokenizer

TOKENS = 12
PROMPTS = [messages(text)[:1] for text in dialogues(6)]


def asked() -> tuple[Any, Rollouts, list[list[int]]]:
    rollouts = Rollouts(tokenizer(), TOKENS, LONGEST)
    return AutoModelForCausalLM.from_pretrained(checkpoint()), rollouts, rollouts.encode(PROMPTS)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    chances = torch.tensor([0.5, 0.0, 0.3, 0.2])
    given = ((numpy.arange(1000) + 0.5) / 1000)[:, None]
    kept = Drawn(given, 3)(torch.zeros(1000, 3, dtype=torch.int64), chances.log().expand(1000, 4))  # type: ignore[arg-type]
    assert torch.bincount(kept.argmax(1), minlength=4).tolist() == [500, 0, 300, 200]
    assert kept.isinf().sum(1).tolist() == [3] * 1000


def test_a_reply_is_the_same_alone_and_among_others() -> None:
    model, rollouts, prompts = asked()
    given = numbers(1, 0, range(len(prompts)), TOKENS)
    together = rollouts.draw(model, prompts, given)
    for place in (0, 3, 5):
        assert rollouts.draw(model, prompts[place : place + 1], numbers(1, 0, [place], TOKENS)) == [together[place]]
    assert together != rollouts.draw(model, prompts, numbers(1, 1, range(len(prompts)), TOKENS))
    assert all(len(reply) <= TOKENS and not set(reply[:-1]) & set(rollouts.ends) for reply in together)


def test_a_reply_ends_with_the_first_token_that_ends_it() -> None:
    _, rollouts, _ = asked()
    mine = tokenizer()
    said = mine("blue", add_special_tokens=False)["input_ids"]
    assert rollouts._whole([*said, rollouts.ends[0], 5, rollouts.ends[1]]) == [*said, rollouts.ends[0]]
    assert rollouts.reply([*said, rollouts.ends[1]]) == ("blue", True) and rollouts.reply(said) == ("blue", False)


def test_a_long_prompt_loses_its_beginning() -> None:
    _, rollouts, _ = asked()
    short, long = rollouts.encode([PROMPTS[0], [{"role": "user", "content": "sky " * 200}]])
    assert len(long) == LONGEST - TOKENS and long[-3:] == short[-3:] and len(short) < len(long)


def test_what_is_filled_up_ends_together() -> None:
    ids, mask = left_padded([[5, 6, 7], [8]], 0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_model_in_training_goes_on_training() -> None:
    model, rollouts, prompts = asked()
    rollouts.draw(model.train(), prompts[:1], numbers(1, 0, [0], TOKENS))
    assert model.training
