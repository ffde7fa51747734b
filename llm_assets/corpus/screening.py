"""Rules that drop a document: each a pure function from an Arrow array of texts to a mask of those it drops.

Thresholds belong to a language and a kind of text. Those made for long English web pages (Gopher: Rae et al. 2021,
arXiv 2112.11446) keep none of 6,000 Chinese reviews, so every language states its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from llm_assets.corpus.documents import text_key
from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    import pyarrow as pa


class LanguageRules(Strict):
    """The thresholds for the texts of one language; all lengths in characters of the normalised text."""

    scripts: list[str] = Field(description="Unicode scripts the language is written in, such as Han or Latin")
    minimum_characters: int = Field(4, ge=1)
    maximum_characters: int = Field(20_000, ge=1)
    minimum_script_share: float = Field(0.3, ge=0, le=1, description="letters of those scripts among all letters")
    maximum_symbol_share: float = Field(0.5, ge=0, le=1, description="characters that are no letter, digit or space among all")
    minimum_distinct_trigrams: float = Field(0.3, ge=0, le=1, description="different character trigrams among all, in texts of 30 characters or more")
    boilerplate: list[str] = Field(default_factory=list, description="a document holding one of these strings is a piece of a page's frame")
    maximum_occurrences: int = Field(20, ge=1, description="a text standing more often in the corpus is a piece of a page's frame")


REPETITION_FROM = 30  # characters; shorter texts have too few trigrams for a share to mean something


def too_short(texts: pa.Array, rules: LanguageRules) -> pa.Array:
    """Fewer characters than ``minimum_characters``."""
    import pyarrow.compute as pc

    return pc.less(pc.utf8_length(texts), rules.minimum_characters)


def too_long(texts: pa.Array, rules: LanguageRules) -> pa.Array:
    """More characters than ``maximum_characters``."""
    import pyarrow.compute as pc

    return pc.greater(pc.utf8_length(texts), rules.maximum_characters)


def wrong_language(texts: pa.Array, rules: LanguageRules) -> pa.Array:
    """A smaller share of the language's scripts among the letters than ``minimum_script_share``; no letters count as share 0."""
    import pyarrow.compute as pc

    own = pc.count_substring_regex(texts, "[" + "".join(rf"\p{{{script}}}" for script in rules.scripts) + "]")
    letters = pc.count_substring_regex(texts, r"\p{L}")
    return pc.less(pc.cast(own, "double"), pc.multiply(pc.max_element_wise(letters, 1), rules.minimum_script_share))


def too_many_symbols(texts: pa.Array, rules: LanguageRules) -> pa.Array:
    """A larger share of characters that are no letter, digit or space than ``maximum_symbol_share``."""
    import pyarrow.compute as pc

    symbols = pc.count_substring_regex(texts, r"[^\p{L}\p{M}\p{N}\s]")
    return pc.greater(pc.cast(symbols, "double"), pc.multiply(pc.utf8_length(texts), rules.maximum_symbol_share))


def repetitive(texts: pa.Array, rules: LanguageRules) -> pa.Array:
    """A smaller share of different character trigrams than ``minimum_distinct_trigrams``, as when a sentence is pasted ten times."""
    import pyarrow as pa

    def share(text: str) -> float:
        count = len(text) - 2
        return len({text[index : index + 3] for index in range(count)}) / count

    return pa.array([len(text) >= REPETITION_FROM and share(text) < rules.minimum_distinct_trigrams for text in texts.to_pylist()], pa.bool_())


def framing(texts: pa.Array, rules: LanguageRules) -> pa.Array:
    """One of the ``boilerplate`` strings in it: navigation bars, footers and the like."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not rules.boilerplate:
        return pa.array([False] * len(texts))
    return pc.match_substring_regex(texts, "|".join(map(re.escape, rules.boilerplate)))


def frequent(texts: pa.Array, rules: LanguageRules) -> pa.Array:
    """The same text, punctuation aside, more than ``maximum_occurrences`` times among ``texts`` (so: of the whole corpus)."""
    import pyarrow as pa

    keys = [text_key(text) for text in texts.to_pylist()]
    counts = Counter(keys)
    return pa.array([counts[key] > rules.maximum_occurrences for key in keys], pa.bool_())


RULES: Mapping[str, Callable[[pa.Array, LanguageRules], pa.Array]] = {
    "framing": framing,
    "frequent": frequent,
    "too_short": too_short,
    "too_long": too_long,
    "wrong_language": wrong_language,
    "too_many_symbols": too_many_symbols,
    "repetitive": repetitive,
}


def first_rule(texts: pa.Array, rules: LanguageRules) -> list[str | None]:
    """For each text of one language the first rule that drops it, or None; a text is judged by later rules only while it stands."""
    import numpy as np
    import pyarrow as pa

    verdict: list[str | None] = [None] * len(texts)
    standing = np.arange(len(texts))
    for name, rule in RULES.items():
        dropped = rule(texts.take(pa.array(standing)), rules).to_numpy(zero_copy_only=False).astype(bool)
        for index in standing[dropped]:
            verdict[index] = name
        standing = standing[~dropped]
    return verdict
