"""Replies drawn from a decoder, token by token with keys and values kept, from the distribution that it has: nothing is cut off or sharpened.

A reply is drawn with numbers of its own, so that neither the batch it is drawn in nor the number of processes nor a resumed training changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerFast

from llm_assets.training.chat import Chat, Messages
from llm_assets.training.rewards import Reply

Ids = list[int]


def numbers(seed: int, purpose: int, places: Sequence[int], tokens: int) -> numpy.ndarray:
    """Uniform numbers of [0, 1), [places, tokens]: a pure function of seed, purpose and place."""
    return numpy.stack([numpy.random.default_rng([seed, purpose, place]).random(tokens) for place in places])


class Drawn(LogitsProcessor):
    """Leaves of each row's scores the token at which the cumulated probabilities pass the row's number of this step."""

    def __init__(self, given: numpy.ndarray, width: int) -> None:
        self.given = torch.from_numpy(given)
        self.width = width  # tokens of a prompt, filled up

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:  # noqa: D102
        cumulated = scores.double().softmax(-1).cumsum(-1)
        number = self.given[:, input_ids.shape[1] - self.width, None].to(scores.device)
        chosen = torch.searchsorted(cumulated, number * cumulated[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)  # type: ignore[return-value]  # it is one of floats


class Rollouts:
    """How one tokenizer's decoders are asked, and what they reply: prompt and reply have at most ``longest`` tokens, the reply ``tokens`` of them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokens: int, longest: int) -> None:
        self.tokenizer = tokenizer
        self.chat = Chat(tokenizer)
        self.ends = (self.chat.end, int(tokenizer.eos_token_id))
        self.padding = int(tokenizer.pad_token_id)
        self.tokens = tokens
        self.longest = longest

    def encode(self, prompts: Sequence[Messages]) -> list[Ids]:
        """Prompts in tokens, each to where the assistant's turn begins; a longer one's beginning is cut off (``Chat.ending``)."""
        return [self.chat.ending(one, self.longest - self.tokens).ids for one in self.chat.encode(prompts, prompt=True)]

    def draw(self, model: Any, prompts: Sequence[Ids], given: numpy.ndarray) -> list[Ids]:
        """A reply to each prompt with the row of ``given`` [prompts, tokens] that is its own, up to the token that ends it and with that."""
        ids, mask = (part.to(model.device) for part in left_padded(prompts, self.padding))
        training = model.training
        out = model.eval().generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self.tokens,
            do_sample=False,
            eos_token_id=list(self.ends),
            pad_token_id=self.padding,
            logits_processor=LogitsProcessorList([Drawn(given, ids.shape[1])]),
        )
        model.train(training)
        return [self._whole(row) for row in out[:, ids.shape[1] :].tolist()]

    def reply(self, ids: Ids) -> Reply:
        """What was said."""
        return Reply(str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip(), ids[-1] in self.ends)

    def _whole(self, row: Ids) -> Ids:
        end = next((place for place, token in enumerate(row) if token in self.ends), len(row) - 1)
        return row[: end + 1]


def left_padded(rows: Sequence[Ids], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 [rows, longest], filled up on the left, so that what follows begins at one place in all."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), padding), torch.zeros(len(rows), width, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :], mask[number, width - len(row) :] = torch.tensor(row), 1
    return ids, mask
