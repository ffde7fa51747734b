"""A decoder's folder asked as an assistant, in torch: how likely it finds what was said, and what it says itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llm_assets.corpus.vocabulary import bytes_of_tokens
from llm_assets.store.progress import Progress, silent
from llm_assets.training.chat import Chat, Messages, Spoken

BATCH = 16  # conversations at once


class Likelihood(NamedTuple):
    """What the assistant's turns of a conversation cost."""

    nats: float  # -log p of all its tokens
    tokens: int
    bytes: int  # of UTF-8 that they write


class Assistant:
    """A decoder of transformers, and the tokenizer in ``tokenizer``; conversations are cut to ``max_length`` tokens."""

    def __init__(self, directory: Path, tokenizer: Path, max_length: int) -> None:
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]  # the link has its own
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer, local_files_only=True)
        self.chat = Chat(self.tokenizer)
        self.max_length = max_length
        model: Any = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, use_safetensors=True)
        self.model = model.eval()
        self._bytes = bytes_of_tokens(self.tokenizer.backend_tokenizer)

    def likelihoods(self, conversations: Sequence[Messages], last: bool = False, progress: Progress = silent) -> list[Likelihood]:
        """Of each conversation's assistant turns, or of the ``last`` turn alone, which then is what is kept where all is too long."""
        import torch
        from torch.nn.functional import log_softmax

        spoken = self.chat.encode(conversations, longest=None if last else self.max_length)
        spoken = [_last(one, self.max_length) for one in spoken] if last else spoken
        found: dict[int, Likelihood] = {}
        order = sorted(range(len(spoken)), key=lambda index: len(spoken[index].ids))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            width = max(len(spoken[index].ids) for index in chosen)
            ids, mask = torch.full((len(chosen), width), self.tokenizer.pad_token_id), torch.zeros(len(chosen), width, dtype=torch.int64)
            for row, index in enumerate(chosen):
                ids[row, : len(spoken[index].ids)], mask[row, : len(spoken[index].ids)] = torch.tensor(spoken[index].ids), 1
            with torch.inference_mode():
                logits = self.model(input_ids=ids, attention_mask=mask).logits
            for row, index in enumerate(chosen):
                one = spoken[index]
                places = [place for place, answered in enumerate(one.answers[1:]) if answered]
                scores = log_softmax(logits[row, places].double(), -1)  # of the answers alone: all would take 16 bytes a token and entry
                nats = -float(scores.gather(1, ids[row, 1:][places, None]).sum())
                found[index] = Likelihood(nats, len(places), sum(self._bytes[one.ids[place + 1]] for place in places))
            progress(start + len(chosen), len(order), "conversations scored")
        return [found[index] for index in range(len(spoken))]

    def answers(self, asked: Sequence[Messages], tokens: int, progress: Progress = silent) -> list[str]:
        """What it says next, the likeliest token each time, at most ``tokens`` of them."""
        import torch

        found: dict[int, str] = {}
        spoken = [one.ids for one in self.chat.encode(asked, prompt=True, longest=self.max_length)]
        order = sorted(range(len(spoken)), key=lambda index: len(spoken[index]))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            width = max(len(spoken[index]) for index in chosen)
            ids, mask = torch.full((len(chosen), width), self.tokenizer.pad_token_id), torch.zeros(len(chosen), width, dtype=torch.int64)
            for row, index in enumerate(chosen):  # padded on the left, so that all answers begin together
                ids[row, width - len(spoken[index]) :], mask[row, width - len(spoken[index]) :] = torch.tensor(spoken[index]), 1
            ends = [self.chat.end, self.tokenizer.eos_token_id]
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=tokens,
                    do_sample=False,
                    eos_token_id=ends,
                    pad_token_id=self.tokenizer.pad_token_id,
                )
            for row, index in enumerate(chosen):
                found[index] = self.tokenizer.decode(out[row, width:], skip_special_tokens=True).strip()
            progress(start + len(chosen), len(order), "answers written")
        return [found[index] for index in range(len(spoken))]


def _last(one: Spoken, longest: int) -> Spoken:
    """The end of a conversation, of whose answers only the last counts."""
    end = len(one.answers) - one.answers[::-1].index(True)
    start = end - next((place for place, answered in enumerate(reversed(one.answers[:end])) if not answered), end)
    answers = [start <= place < end for place in range(end)]
    return Spoken(one.ids[:end][-longest:], answers[-longest:])
