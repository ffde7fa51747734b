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
    """A decoder of transformers, PEFT's ``adapter`` beside it where given, and the tokenizer in ``tokenizer``.

    Conversations are cut to ``max_length`` tokens.
    """

    KIND = "AutoModelForCausalLM"  # of transformers

    def __init__(self, directory: Path, tokenizer: Path, max_length: int, adapter: Path | None = None) -> None:
        import transformers
        from transformers.utils.logging import disable_progress_bar

        from llm_assets.training.adapters import beside

        disable_progress_bar()  # type: ignore[no-untyped-call]  # the link has its own
        self.tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tokenizer, local_files_only=True)
        self.chat = Chat(self.tokenizer)
        self.max_length = max_length
        model: Any = getattr(transformers, self.KIND).from_pretrained(directory, local_files_only=True, use_safetensors=True)
        self.model = beside(model, adapter) if adapter else model.eval()
        self._bytes = bytes_of_tokens(self.tokenizer.backend_tokenizer)

    def likelihoods(self, conversations: Sequence[Messages], last: bool = False, progress: Progress = silent) -> list[Likelihood]:
        """Of each conversation's assistant turns, or of the ``last`` turn alone, which then is what is kept where all is too long."""
        spoken = self.chat.encode(conversations, longest=None if last else self.max_length)
        spoken = [self._last(one) for one in spoken] if last else spoken
        found: dict[int, Likelihood] = {}
        order = sorted(range(len(spoken)), key=lambda index: len(spoken[index].ids))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            found |= zip(chosen, self._likely([spoken[index] for index in chosen]), strict=True)
            progress(start + len(chosen), len(order), "conversations scored")
        return [found[index] for index in range(len(spoken))]

    def answers(self, asked: Sequence[Messages], tokens: int, progress: Progress = silent) -> list[str]:
        """What it says next, the likeliest token each time, at most ``tokens`` of them."""
        found: dict[int, str] = {}
        spoken = self._asked(asked, tokens)
        order = sorted(range(len(spoken)), key=lambda index: len(spoken[index]))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            for index, said in zip(chosen, self._said([spoken[index] for index in chosen], tokens), strict=True):
                found[index] = self.tokenizer.decode(said, skip_special_tokens=True).strip()
            progress(start + len(chosen), len(order), "answers written")
        return [found[index] for index in range(len(spoken))]

    def _asked(self, conversations: Sequence[Messages], tokens: int) -> list[list[int]]:
        """The prompts of conversations, cut so that prompt and answer have at most ``max_length`` tokens, as what it learned from has."""
        return [one.ids for one in self.chat.encode(conversations, prompt=True, longest=self.max_length - tokens)]

    def _last(self, one: Spoken) -> Spoken:
        """The end of a conversation, of whose answers only the last counts."""
        end = len(one.answers) - one.answers[::-1].index(True)
        start = end - next((place for place, answered in enumerate(reversed(one.answers[:end])) if not answered), end)
        answers = [start <= place < end for place in range(end)]
        return self.chat.ending(Spoken(one.ids[:end], answers), self.max_length)

    def _likely(self, spoken: Sequence[Spoken]) -> list[Likelihood]:
        """Of a batch."""
        import torch

        ids, mask = padded([one.ids for one in spoken], self.tokenizer.pad_token_id)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask).logits
        found = []
        for row, one in enumerate(spoken):
            places = [place for place, answered in enumerate(one.answers[1:]) if answered]
            found.append(self._cost(logits[row, places], [one.ids[place + 1] for place in places]))
        return found

    def _cost(self, logits: Any, said: list[int]) -> Likelihood:
        """Of tokens, from the logits [tokens, vocabulary] of each."""
        import torch

        scores = logits.double().log_softmax(-1)  # of the answers alone: all would take 16 bytes a token and entry
        nats = -float(scores.gather(1, torch.tensor(said, dtype=torch.int64)[:, None]).sum())
        return Likelihood(nats, len(said), sum(self._bytes[token] for token in said))

    def _said(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        """The answers to a batch of prompts, in tokens."""
        from llm_assets.training.rollouts import left_padded

        ids, mask = left_padded(prompts, self.tokenizer.pad_token_id)
        found: list[list[int]] = self._generated(ids, mask, tokens)[:, ids.shape[1] :].tolist()
        return found

    def _generated(self, ids: Any, mask: Any, tokens: int) -> Any:
        """What ``generate`` gives for a batch: the likeliest token each time, until an end."""
        import torch

        with torch.inference_mode():
            return self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=[self.chat.end, self.tokenizer.eos_token_id],
                pad_token_id=self.tokenizer.pad_token_id,
            )


def padded(rows: Sequence[Sequence[int]], padding: int) -> tuple[Any, Any]:
    """Token ids as one tensor, int64 [rows, longest], and 1 where they stand in it, 0 where ``padding`` does."""
    import torch

    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), padding), torch.zeros(len(rows), width, dtype=torch.int64)
    for row, one in enumerate(rows):
        ids[row, : len(one)], mask[row, : len(one)] = torch.tensor(one), 1
    return ids, mask
