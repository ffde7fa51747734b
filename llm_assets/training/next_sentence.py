"""The next-sentence objective: of some documents the second half is another's, and the model says whose it is.

Devlin et al. 2019, section 3.1, joined two texts for it. Packed blocks hold many documents, so their halves change places inside
a block instead, which keeps every block full. Off by default: Liu et al. 2019, section 4.2, found that it did not help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import ModernBertConfig, ModernBertForMaskedLM, PreTrainedTokenizerFast
from transformers.modeling_outputs import MaskedLMOutput

from llm_assets.training.heads import IGNORED

ENDS = tuple("。！？!?….")  # of a sentence
SHORTEST = 8  # tokens a document must hold to be halved
SWAPPED = 0.5  # share of those documents whose second half is another's
OWN, OTHER = 1, 0


class Halves:
    """Halves a block's documents and lets the second halves of some change places."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.opening, self.closing, self.padding = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id), int(tokenizer.pad_token_id)
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        self.ends = numpy.asarray([token for token, text in enumerate(texts) if text.strip().endswith(ENDS)])

    def swap(self, tokens: numpy.ndarray, random: numpy.random.Generator) -> tuple[numpy.ndarray, numpy.ndarray]:
        """A block with tails changed, and at each halved document's opening whether the tail is its own; both int64 [context].

        Tails go round among the documents drawn, so the block keeps its tokens and their number. The rest is ``IGNORED``.
        """
        documents = self._documents(tokens)
        drawn = numpy.flatnonzero(random.random(len(documents)) < SWAPPED)
        if len(drawn) < 2:
            drawn = drawn[:0]  # a single tail has nowhere to go
        giver = numpy.arange(len(documents))
        giver[drawn] = numpy.roll(drawn, 1)
        pieces: list[numpy.ndarray] = []
        labels: list[numpy.ndarray] = []
        done = 0
        for number, (start, half, end) in enumerate(documents):
            other = documents[giver[number]]
            head = tokens[done:half]
            marks = numpy.full(len(head) + other[2] - other[1], IGNORED)
            marks[start - done] = OTHER if giver[number] != number else OWN
            pieces += [head, tokens[other[1] : other[2]]]
            labels.append(marks)
            done = end
        rest = tokens[done:]
        return numpy.concatenate([*pieces, rest]), numpy.concatenate([*labels, numpy.full(len(rest), IGNORED)])

    def _documents(self, tokens: numpy.ndarray) -> list[tuple[int, int, int]]:
        """Opening, first token of the second half and end (the closing token left out) of each document long enough.

        The second half begins after the end of a sentence, the one nearest to the middle, or in the middle where none ends.
        """
        openings = numpy.flatnonzero(tokens == self.opening)
        found = []
        for start, after in pairwise([*openings, len(tokens)]):
            inner = tokens[start + 1 : after]
            inner = inner[(inner != self.closing) & (inner != self.padding)]
            if len(inner) < SHORTEST:
                continue
            middle = len(inner) // 2
            breaks = 1 + numpy.flatnonzero(numpy.isin(inner[:-1], self.ends))
            half = breaks[numpy.abs(breaks - middle).argmin()] if len(breaks) else middle
            found.append((int(start), int(start + 1 + half), int(start + 1 + len(inner))))
        return found


@dataclass
class MaskedAndNextOutput(MaskedLMOutput):
    """A masked model's output, and for each opening asked about the scores of OTHER and OWN, float32 [documents, 2]."""

    next_logits: torch.Tensor | None = None


class MaskedAndNext(ModernBertForMaskedLM):  # type: ignore[no-untyped-call]  # transformers leaves its base classes untyped
    """A masked ModernBERT with a second head over the openings of documents; that head is not saved."""

    _keys_to_ignore_on_save = ["next_head.weight", "next_head.bias"]  # noqa: RUF012  # transformers' own name and type

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.next_head = nn.Linear(config.hidden_size, 2)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: Any,
        labels: torch.Tensor,
        next_labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **_: Any,
    ) -> MaskedAndNextOutput:
        """``labels`` and ``next_labels`` are int64 [blocks, context]; the loss is the masked tokens' and, where asked for, the openings'.

        Both are means; over an update, the openings' of a forward pass weighs as its masked tokens do.
        """
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        chosen = labels != IGNORED
        logits = self.decoder(self.head(hidden[chosen]))
        loss, masked = cross_entropy(logits.float(), labels[chosen], reduction="sum"), chosen.sum()
        next_logits = None
        if next_labels is not None:
            asked = next_labels != IGNORED
            next_logits = self.next_head(hidden[asked]).float()
            loss = loss + masked * cross_entropy(next_logits, next_labels[asked], reduction="sum") / asked.sum().clamp(min=1)
        count = masked.clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return MaskedAndNextOutput(loss=loss / count, logits=logits, next_logits=next_logits)


def accuracy(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of documents whose tail the model tells right, its own or another's, and their number; ``model`` may be a DeepSpeed engine."""
    right = asked = 0
    model.eval()
    for batch in batches:
        aims = batch["next_labels"][batch["next_labels"] != IGNORED]
        with torch.no_grad():
            said = model(**batch).next_logits.argmax(1)
        right, asked = right + int((said == aims).sum()), asked + len(aims)
    return {"next_sentence_accuracy": round(right / asked, 4) if asked else None, "next_sentence_documents": asked}
