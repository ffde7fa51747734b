"""How a conversation becomes tokens: the chat template, and which of the tokens are the assistant's.

The turns stand between ``<|im_start|>`` and ``<|im_end|>`` (OpenAI's ChatML, 2023), after the token that opens a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_assets.corpus.vocabulary import TURNS, VIRTUAL, virtual_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

START, END = TURNS
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '" + START + "' + message['role'] + '\\n' + message['content'] + '" + END + "\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '" + START + "assistant\\n' }}{% endif %}"
)
TEMPLATE_FILE = "chat_template.jinja"
Messages = Sequence[Mapping[str, str]]  # role and content of each turn


class TemplateError(ValueError):
    """A tokenizer or a checkpoint that no conversation can be written in; the message says why and what to do."""


class Spoken(NamedTuple):
    """A conversation in tokens."""

    ids: list[int]
    answers: list[bool]  # of each token, whether the assistant says it: its words, and the token that ends its turn


class Answer(NamedTuple):
    """One of the assistant's turns."""

    source: list[int]  # all that was said before, up to where the assistant begins to speak
    target: list[int]  # its words, and the token that ends its turn


def answers_of(spoken: Spoken) -> Iterator[Answer]:
    """Each of the assistant's turns in a conversation; it may have none where it was cut."""
    place = 0
    for answered, run in groupby(spoken.answers):
        end = place + sum(1 for _ in run)
        if answered:
            yield Answer(spoken.ids[:place], spoken.ids[place:end])
        place = end


class Chat:
    """The chat template in the tokens of one tokenizer.

    Raises ``TemplateError`` for a tokenizer that has not the template's tokens, or splits them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        known = tokenizer.get_vocab()
        if missing := [token for token in TURNS if token not in known or token not in tokenizer.all_special_tokens + _added(tokenizer)]:
            raise TemplateError(
                f"the tokenizer has no special token {' or '.join(missing)}, which the chat template writes around each turn: "
                "train one with tokenizer.kind: byte_bpe, or name one that has them under tokenizer.existing"
            )
        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            raise TemplateError("the tokenizer states no bos_token or eos_token in tokenizer_config.json, with which conversations open and end")
        self.start, self.end = (int(known[token]) for token in TURNS)
        self.opening = int(tokenizer.bos_token_id)
        self.virtual = virtual_tokens(known)  # before the opening token, in this order; none but of a model whose prompt was tuned
        self.after = self._words(["\n"])[0]
        self.roles = dict(zip(("user", "assistant"), self._words(["user\n", "assistant\n"]), strict=True))

    def _words(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts as they are: what looks like a special token in them is spelt out, so that no text can end its own turn."""
        found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return found

    def encode(self, conversations: Sequence[Messages], prompt: bool = False, longest: int | None = None) -> list[Spoken]:
        """Each conversation as the template writes it; with ``prompt`` the beginning of an assistant's turn after it.

        Of one with more than ``longest`` tokens the end of the first turn is left out, as of an article that asks for its title; where
        that turn is too short for it, the conversation's end is cut off, of a prompt its beginning.
        """
        words = iter(self._words([turn["content"] for messages in conversations for turn in messages]) if any(conversations) else [])
        found = []
        for messages in conversations:
            turns = [(turn["role"], next(words)) for turn in messages]
            spoken = self._spoken(turns, prompt)
            if longest is not None and len(spoken.ids) > longest:
                role, first = turns[0]
                room = len(first) - (len(spoken.ids) - longest)
                spoken = self._spoken([(role, first[:room]), *turns[1:]], prompt) if room > 0 else spoken
                spoken = self.ending(spoken, longest) if prompt else Spoken(spoken.ids[:longest], spoken.answers[:longest])
            found.append(spoken)
        return found

    def ending(self, spoken: Spoken, longest: int) -> Spoken:
        """The last tokens of a conversation, ``longest`` in all with the learnt prompt, which stays at its beginning."""
        cut, begins = max(0, len(spoken.ids) - longest), len(self.virtual)
        return Spoken(spoken.ids[:begins] + spoken.ids[begins + cut :], spoken.answers[:begins] + spoken.answers[begins + cut :])

    def _spoken(self, turns: Sequence[tuple[str, list[int]]], prompt: bool) -> Spoken:
        ids = [*self.virtual, self.opening]
        answers = [False] * len(ids)
        for role, words in turns:
            head = [self.start, *self.roles[role]]
            ids += [*head, *words, self.end, *self.after]
            answers += [False] * len(head) + [role == "assistant"] * (len(words) + 1) + [False] * len(self.after)
        if prompt:
            ids += [self.start, *self.roles["assistant"]]
            answers += [False] * (len(ids) - len(answers))
        return Spoken(ids, answers)


def write_template(folder: Path, chat: Chat) -> None:
    """Write the chat's template beside its tokenizer, where transformers and the gateway look for it."""
    virtual = "".join(VIRTUAL.format(number) for number in range(len(chat.virtual)))
    (folder / TEMPLATE_FILE).write_text(virtual + TEMPLATE, encoding="utf-8")


def refuse_misfit(tokenizer: PreTrainedTokenizerFast, config: Mapping[str, Any], name: str) -> Chat:
    """The chat of a tokenizer and a checkpoint's configuration that go together.

    Raises ``TemplateError`` for a checkpoint that is no decoder of text, or knows other tokens than the tokenizer makes.
    """
    chat = Chat(tokenizer)
    largest = max(tokenizer.get_vocab().values())
    if config.get("vocab_size", 0) <= largest:
        raise TemplateError(
            f"{name} knows {config.get('vocab_size')} tokens, the tokenizer makes {largest + 1}: name that checkpoint's own tokenizer "
            "under tokenizer.existing"
        )
    for role, mine in (("bos", tokenizer.bos_token_id), ("eos", tokenizer.eos_token_id), ("pad", tokenizer.pad_token_id)):
        stated = config.get(f"{role}_token_id")
        if stated is not None and mine not in (stated if isinstance(stated, list) else [stated]):
            raise TemplateError(f"{name} was trained with {role} token {stated}, the tokenizer's is {mine}: they are of two vocabularies")
    return chat


def _added(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Added tokens that are special, by whatever name."""
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
