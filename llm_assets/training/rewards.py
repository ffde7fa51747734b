"""What a reply is worth by rule, from 0 to 1: small functions of the prompt's turns and the reply, by the name that the YAML calls them.

To add one: a class with its settings and ``of``, a name in ``AnyReward``. A rule that learning could satisfy by saying nothing, or by saying one
thing for ever, belongs beside another that forbids it (``length``, ``no_repetition``).
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from llm_assets.corpus.own_rules import OwnFunction
from llm_assets.store.strict import Strict
from llm_assets.training.chat import Messages

REWARD = "reward"  # the weighted mean of all


class Reply(NamedTuple):
    """What was answered."""

    text: str
    ended: bool  # by itself, before the tokens that it may have were used up


class Reward(Strict, ABC):
    """A rule, and what it weighs beside others."""

    weight: float = Field(1.0, gt=0, description="beside the other rewards: all together weigh one")

    @property
    def title(self) -> str:
        """What it is called in figures."""
        return str(getattr(self, "name", getattr(self, "kind", "")))

    @abstractmethod
    def of(self, prompt: Messages, reply: Reply) -> float:
        """From 0 to 1; ``prompt`` are the turns before the reply, the user's last."""


class Ends(Reward):
    """The reply ends by itself."""

    kind: Literal["ends"]

    def of(self, prompt: Messages, reply: Reply) -> float:
        """1 or 0."""
        return float(reply.ended)


class Length(Reward):
    """The reply is neither too short nor too long; outside it is worth less on a line, nothing at all when empty or twice too long."""

    kind: Literal["length"]
    least: int = Field(2, ge=1, description="characters")
    most: int = Field(60, ge=1, description="characters")

    @model_validator(mode="after")
    def _in_order(self) -> Length:
        if self.least > self.most:
            raise ValueError(f"length: least ({self.least}) must not be above most ({self.most})")
        return self

    def of(self, prompt: Messages, reply: Reply) -> float:
        """1 within the range."""
        count = len(reply.text)
        return count / self.least if count < self.least else max(0.0, 1 - max(0, count - self.most) / self.most)


class SameScript(Reward):
    """The reply is written in the question's script: a Chinese question is answered in Chinese."""

    kind: Literal["same_script"]

    def of(self, prompt: Messages, reply: Reply) -> float:
        """Share of the reply's letters in the script of most letters of the last turn; 1 where that has none, else 0 for no letter."""
        asked, said = scripts(prompt[-1]["content"]), scripts(reply.text)
        if not asked:
            return 1.0
        return said[max(asked, key=lambda script: (asked[script], script))] / max(1, said.total())


class NoRepetition(Reward):
    """The reply does not say the same over and over."""

    kind: Literal["no_repetition"]
    size: int = Field(3, ge=1, description="characters of a run that counts as said before")

    def of(self, prompt: Messages, reply: Reply) -> float:
        """Different runs of ``size`` characters over all of them; 1 for a shorter reply."""
        runs = [reply.text[start : start + self.size] for start in range(len(reply.text) - self.size + 1)]
        return len(set(runs)) / len(runs) if runs else 1.0


class Mentions(Reward):
    """The reply has one of these words: a greeting, say."""

    kind: Literal["mentions"]
    words: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, description="in any case; one of them is enough")

    def of(self, prompt: Messages, reply: Reply) -> float:
        """1 or 0."""
        return float(has_any(reply.text, self.words))


class Avoids(Reward):
    """The reply has none of these words: a promise that nobody may make, say."""

    kind: Literal["avoids"]
    words: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, description="in any case; one of them is too many")

    def of(self, prompt: Messages, reply: Reply) -> float:
        """1 or 0."""
        return float(not has_any(reply.text, self.words))


class Own(Reward, OwnFunction):
    """A function of yours, from the prompt's turns (a list of ``{"role": ..., "content": ...}``) and the reply's text to a number from 0 to 1."""

    WHAT: ClassVar[str] = "own reward"

    kind: Literal["own"]

    def of(self, prompt: Messages, reply: Reply) -> float:
        """What the function says. Raises ``ValueError`` where that is no number from 0 to 1, ``SourceError`` where there is no such function."""
        value = float(self.load()([dict(turn) for turn in prompt], reply.text))
        if not 0 <= value <= 1:
            raise ValueError(f"own reward {self.name}: {self.function} gave {value}; a reward is a number from 0 to 1")
        return value


AnyReward = Annotated[Ends | Length | SameScript | NoRepetition | Mentions | Avoids | Own, Field(discriminator="kind")]


def rewarded(rewards: Sequence[Reward], prompt: Messages, reply: Reply) -> dict[str, float]:
    """``reward``, the weighted mean of all, and each of them as ``reward_<name>``."""
    found = {one.title: one.of(prompt, reply) for one in rewards}
    total = sum(one.weight * found[one.title] for one in rewards) / sum(one.weight for one in rewards)
    return {REWARD: total} | {f"{REWARD}_{name}": value for name, value in found.items()}


def scripts(text: str) -> Counter[str]:
    """How many letters of each script, by the first word of their names in Unicode: CJK, LATIN, CYRILLIC, ..."""
    return Counter(unicodedata.name(letter, "unnamed").split(" ")[0] for letter in text if letter.isalpha())


def has_any(text: str, words: Sequence[str]) -> bool:
    """Whether one of the words stands in the text, in whatever case."""
    folded = text.casefold()
    return any(word.casefold() in folded for word in words)
