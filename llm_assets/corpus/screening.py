"""Rules that drop a document: each a pure function from a batch of texts to a mask of those it drops.

Thresholds belong to a language and a kind of text. Those made for long English web pages (Gopher: Rae et al. 2021,
arXiv 2112.11446) keep hardly a Chinese review, so every language, and every kind of text in it, states its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import Field

from llm_assets.corpus.codepoints import GOLDEN, CodePoints, flatten, hash_texts, letters, members, ngrams
from llm_assets.corpus.pii import TOKEN
from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

REPETITION_FROM = 30  # characters; shorter texts have too few trigrams for a share to mean something
HEAPS, HEAPS_FROM = 0.6, 1_000  # half of the trigrams of English pages differ at 1,500 characters, a fifth above 12,000 (see `screening_english`)
SLOTS = 4  # places a trigram in the table that counts different ones
CONSONANT = "[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]"  # y reads as a vowel: rhythm is a word
MASHED_FROM = 7  # consonants in a row; English has 6 (Knightsbridge), sdfghjkl 8
LINES_FROM = 4  # lines; fewer have too few for a share of repeated ones


class LanguageRules(Strict):
    """The thresholds for the texts of one language, or of one kind of text in it; all lengths in characters of the normalised text."""

    scripts: list[str] = Field(description="Unicode scripts the language is written in, such as Han or Latin")
    minimum_characters: int = Field(4, ge=1)
    maximum_characters: int = Field(20_000, ge=1)
    minimum_script_share: float = Field(0.3, ge=0, le=1, description="letters of those scripts among all letters")
    identified: str | None = Field(None, description="ISO 639-1 code that a language identifier (py3langid) must find in texts of 20 letters or more")
    maximum_symbol_share: float = Field(0.5, ge=0, le=1, description="characters that are no letter, digit or space among all")
    minimum_distinct_trigrams: float = Field(
        0.3,
        ge=0,
        le=1,
        description="different character trigrams among all, in texts of 30 characters or more; from 1,000 on less, as their length asks for",
    )
    maximum_repeated_lines: float = Field(0.5, ge=0, le=1, description="lines that stood before among all, in texts of 4 lines or more")
    maximum_run: int = Field(60, ge=2, description="the same letter so many times in a row is a cat on the keyboard")
    maximum_mashed_share: float = Field(0.2, ge=0, le=1, description="letters that stand among 7 or more Latin consonants in a row among all")
    boilerplate: list[str] = Field(default_factory=list, description="a document holding one of these strings is a piece of a page's frame")
    maximum_occurrences: int = Field(20, ge=1, description="a text standing more often in the corpus is a piece of a page's frame")
    toxic_words: list[str] = Field(default_factory=list, description="a lexicon of insults; none: the rule rests")
    maximum_toxic_words: int = Field(2, ge=0, description="a document may hold so many of them")


class Texts:
    """A batch of normalised texts of one language and kind, with what rules ask of all its characters computed once."""

    def __init__(self, texts: list[str], frequent: NDArray[np.uint64] | None = None) -> None:
        self.texts = texts
        self._frequent = frequent  # sorted hashes of the texts that stand too often in the corpus

    @cached_property
    def points(self) -> CodePoints:
        """The code points of all texts; a mask of personal data counts as one digit, not as letters of another script."""
        return flatten([TOKEN.sub("0", text) if "[" in text else text for text in self.texts])

    @cached_property
    def arrow(self) -> pa.Array:
        """The texts as an Arrow array."""
        import pyarrow as pa

        return pa.array(self.texts, pa.string())

    @cached_property
    def stands_too_often(self) -> NDArray[np.bool_]:
        """Which texts the corpus holds too often, punctuation aside."""
        import numpy as np

        if self._frequent is None or not len(self._frequent):
            return np.zeros(len(self.texts), np.bool_)
        return np.isin(hash_texts(letters(self.texts)), self._frequent)


def too_short(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """Fewer characters than ``minimum_characters``."""
    return texts.points.lengths < rules.minimum_characters


def too_long(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """More characters than ``maximum_characters``."""
    return texts.points.lengths > rules.maximum_characters


def wrong_script(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """A smaller share of the language's scripts among the letters than ``minimum_script_share``; no letters count as share 0."""
    import numpy as np

    own = texts.points.count(members(texts.points, "[" + "".join(rf"\p{{{script}}}" for script in rules.scripts) + "]"))
    every = np.maximum(texts.points.count(members(texts.points, r"\p{L}")), 1)
    return own < every * rules.minimum_script_share


def wrong_language(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """Another language identified than ``identified`` (py3langid, after Lui and Baldwin 2012); short texts are not asked about."""
    import numpy as np

    dropped = np.zeros(len(texts.texts), np.bool_)
    if rules.identified is None:
        return dropped
    from py3langid import classify

    for index in np.flatnonzero(texts.points.count(members(texts.points, r"\p{L}")) >= 20).tolist():
        dropped[index] = classify(texts.texts[index])[0] != rules.identified
    return dropped


def too_many_symbols(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """A larger share of characters that are no letter, digit or space than ``maximum_symbol_share``."""
    symbols = texts.points.count(members(texts.points, r"[^\p{L}\p{M}\p{N}\s]"))
    return symbols > texts.points.lengths * rules.maximum_symbol_share


def repetitive(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """A smaller share of different character trigrams than ``minimum_distinct_trigrams``, as when a sentence is pasted ten times.

    Any text repeats itself more the longer it is (Heaps 1978): from 1,000 trigrams on the share asked for falls accordingly.
    """
    import numpy as np

    hashes, starts = ngrams(texts.points, 3)
    runs = np.diff(starts)
    owner = np.repeat(np.arange(len(runs), dtype=np.uint64), runs)
    bits = max(int(len(hashes) * SLOTS).bit_length(), 1)
    slot = (hashes + owner * np.uint64(GOLDEN)) >> np.uint64(64 - bits)
    last = np.empty(1 << bits, np.uint32)
    number = np.arange(len(hashes), dtype=np.uint32)
    last[slot] = number
    at_least = np.bincount(owner[last[slot] == number].astype(np.int64), minlength=len(runs))  # trigrams that share a slot count once
    wanted = runs * rules.minimum_distinct_trigrams * np.maximum(runs / HEAPS_FROM, 1) ** (HEAPS - 1)
    dropped = (texts.points.lengths >= REPETITION_FROM) & (at_least < wanted)
    for index in np.flatnonzero(dropped).tolist():
        dropped[index] = len(np.unique(hashes[starts[index] : starts[index + 1]])) < wanted[index]
    return dropped


def repeated_lines(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """A larger share of lines that stood before than ``maximum_repeated_lines``, as in menus and lists of links."""
    import numpy as np

    dropped = np.zeros(len(texts.texts), np.bool_)
    for index in np.flatnonzero(texts.points.count(texts.points.values == ord("\n")) >= LINES_FROM - 1).tolist():
        lines = texts.texts[index].split("\n")
        dropped[index] = len(lines) - len(set(lines)) > len(lines) * rules.maximum_repeated_lines
    return dropped


def gibberish(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """The same letter more than ``maximum_run`` times in a row, or too large a share of keys struck at random (``maximum_mashed_share``)."""
    import numpy as np

    points, run = texts.points, rules.maximum_run
    if not len(points.values):
        return np.zeros(len(texts.texts), np.bool_)
    starts = np.zeros(len(points.values), np.bool_)
    starts[points.starts[:-1][points.lengths > 0]] = True
    letters = members(points, r"\p{L}")
    same = np.append(False, points.values[1:] == points.values[:-1]) & letters & ~starts
    mashed = _run_lengths(members(points, CONSONANT), starts) >= MASHED_FROM
    return (points.count(_run_lengths(same, starts) >= run) > 0) | (points.count(mashed) > points.count(letters) * rules.maximum_mashed_share)


def framing(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """One of the ``boilerplate`` strings in it: navigation bars, footers and the like."""
    import numpy as np
    import pyarrow.compute as pc

    if not rules.boilerplate:
        return np.zeros(len(texts.texts), np.bool_)
    found: NDArray[np.bool_] = pc.match_substring_regex(texts.arrow, "|".join(map(re.escape, rules.boilerplate))).to_numpy(zero_copy_only=False)
    return found.astype(np.bool_)


def frequent(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """The same text, punctuation aside, more than ``maximum_occurrences`` times in the whole corpus."""
    return texts.stands_too_often


def toxic(texts: Texts, rules: LanguageRules) -> NDArray[np.bool_]:
    """More than ``maximum_toxic_words`` occurrences of words of the lexicon ``toxic_words``."""
    import numpy as np
    import pyarrow.compute as pc

    if not rules.toxic_words:
        return np.zeros(len(texts.texts), np.bool_)
    words = (rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word) for word in rules.toxic_words)  # Chinese has no bounds of words
    counts = pc.count_substring_regex(texts.arrow, "(?i)" + "|".join(words))
    found: NDArray[np.bool_] = counts.to_numpy(zero_copy_only=False) > rules.maximum_toxic_words
    return found


def _run_lengths(marks: NDArray[np.bool_], starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each character the length of the run of equal marks it stands in; runs end where texts start. Shape as ``marks``."""
    import numpy as np

    begins = np.flatnonzero(np.append(True, marks[1:] != marks[:-1]) | starts)
    sizes = np.diff(np.append(begins, len(marks)))
    return np.repeat(np.where(marks[begins], sizes, 0), sizes)


RULES: Mapping[str, Callable[[Texts, LanguageRules], NDArray[np.bool_]]] = {
    "framing": framing,
    "frequent": frequent,
    "too_short": too_short,
    "too_long": too_long,
    "wrong_script": wrong_script,
    "wrong_language": wrong_language,
    "too_many_symbols": too_many_symbols,
    "repetitive": repetitive,
    "repeated_lines": repeated_lines,
    "gibberish": gibberish,
    "toxic": toxic,
}


def first_rule(texts: Texts, rules: LanguageRules) -> list[str | None]:
    """For each text the first rule that drops it, or None."""
    import numpy as np

    verdict: list[str | None] = [None] * len(texts.texts)
    if not texts.texts:
        return verdict
    standing = np.ones(len(texts.texts), np.bool_)
    for name, rule in RULES.items():
        dropped = rule(texts, rules) & standing
        for index in np.flatnonzero(dropped).tolist():
            verdict[index] = name
        standing &= ~dropped
    return verdict
