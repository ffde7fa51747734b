"""An encoder-decoder's folder asked as an assistant: as a decoder is (evaluation/assistant.py), and where it looked for each token of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llm_assets.evaluation.assistant import Assistant, Likelihood, padded
from llm_assets.training.adapters import FOLDER, is_prefixed
from llm_assets.training.chat import Messages, Spoken, answers_of
from llm_assets.training.encoder_decoders import is_one
from llm_assets.training.weights import read_config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNWRITTEN = "\N{REPLACEMENT CHARACTER}"  # what part of a character decodes to


def assistant(directory: Path, tokenizer: Path, max_length: int) -> Assistant:
    """The model of a folder, whichever it is, with its tuned prefix where it has one."""
    prefix = directory / FOLDER if is_prefixed(directory) else None
    return (EncoderDecoder if is_one(read_config(directory)) else Assistant)(directory, tokenizer, max_length, prefix)


class Looked(NamedTuple):
    """Where an answer looked, in pieces of whole characters."""

    source: list[str]
    answer: list[str]
    weights: NDArray[np.float64]  # [answer, source], each row adds up to 1


class EncoderDecoder(Assistant):
    """An encoder-decoder of transformers: what was said is read once, and each of the assistant's turns is an answer to all before it."""

    KIND = "T5ForConditionalGeneration"

    def _likely(self, spoken: Sequence[Spoken]) -> list[Likelihood]:
        import torch

        parts = [list(answers_of(one)) for one in spoken]
        every = [answer for answers in parts for answer in answers]
        if not every:
            return [Likelihood(0.0, 0, 0) for _ in spoken]
        ids, mask = padded([one.source for one in every], self.tokenizer.pad_token_id)
        start = self.model.config.decoder_start_token_id
        given, _ = padded([[start, *one.target[:-1]] for one in every], self.tokenizer.pad_token_id)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=given).logits
        costs = iter([self._cost(logits[row, : len(one.target)], one.target) for row, one in enumerate(every)])
        return [_sum([next(costs) for _ in answers]) for answers in parts]

    def _said(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        ids, mask = padded(prompts, self.tokenizer.pad_token_id)
        found: list[list[int]] = self._generated(ids, mask, tokens)[:, 1:].tolist()  # without the token that begins it
        return found

    def looked(self, asked: Messages, tokens: int) -> Looked:
        """Its answer of at most ``tokens``, and the attention from each token to the source: the mean of the heads of the decoder's last layer.

        Pieces are tokens; those that write one character together are one piece, whose weight they share.
        """
        import numpy
        import torch

        (prompt,) = self._asked([asked], tokens)
        (said,) = self._said([prompt], tokens)
        given = torch.tensor([[self.model.config.decoder_start_token_id, *said[:-1]]])
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")  # the others keep no weights
        try:
            with torch.inference_mode():
                found = self.model(input_ids=torch.tensor([prompt]), decoder_input_ids=given, output_attentions=True)
        finally:
            self.model.set_attn_implementation(before)
        weights = found.cross_attentions[-1][0].double().mean(0).numpy()  # of [heads, answer, source]
        source, answer = self._pieces(prompt), self._pieces(said)
        columns = numpy.stack([weights[:, places].sum(1) for _, places in source], 1)
        rows = numpy.stack([columns[places].mean(0) for _, places in answer])
        return Looked([text for text, _ in source], [text for text, _ in answer], rows)

    def _pieces(self, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        """What tokens write, and their places: as many together as whole characters take."""
        found: list[tuple[str, list[int]]] = []
        waiting: list[int] = []
        for place in range(len(ids)):
            waiting = [*waiting, place]
            text = self.tokenizer.decode([ids[one] for one in waiting])
            if UNWRITTEN not in text or place == len(ids) - 1:
                found.append((text, waiting))
                waiting = []
        return found


def _sum(costs: Sequence[Likelihood]) -> Likelihood:
    return Likelihood(sum(one.nats for one in costs), sum(one.tokens for one in costs), sum(one.bytes for one in costs))
