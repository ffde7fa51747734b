"""Which words carried an answer: each is left out in turn, and what the answer's probability loses by that is the word's weight.

Occlusion (Zeiler and Fergus 2014), on text erasure (Li, Monroe and Jurafsky 2016): it asks the served model itself and nothing of
its inside, so it is true of any engine, at the price of one more text to classify for each word. Weights need not add up to the
answer's probability: of two words that say the same, neither is missed while the other stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from llm_assets.serving.engine import Classified

MOST = 64  # pieces of a text that are left out, so at most so many more texts; a longer one is cut into as many runs of words

# A word is a run of letters and digits; Chinese, Japanese kana and Thai put no space between words, so there it is one character.
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+(?:['’](?:(?![{_UNSPACED}])\w)+)*")

Piece = tuple[str, bool]  # what stands there, and whether it is a word or words


def pieces(text: str) -> list[Piece]:
    """The text cut into words and what stands between them; put together again they are the text.

    Where there are more than ``MOST`` words, neighbours are taken together, as evenly as they come.
    """
    words = list(_WORD.finditer(text))
    groups = min(MOST, len(words))
    bounds = [group * len(words) // groups for group in range(groups + 1)] if groups else []
    found: list[Piece] = []
    end = 0
    for first, last in pairwise(bounds):
        start, stop = words[first].start(), words[last - 1].end()
        found += [(text[end:start], False)] if start > end else []
        found.append((text[start:stop], True))
        end = stop
    return [*found, (text[end:], False)] if end < len(text) else found


def erasures(cut: Sequence[Piece]) -> list[str]:
    """The text without each of its words in turn."""
    return ["".join(text for place, (text, _) in enumerate(cut) if place != left_out) for left_out, (_, is_word) in enumerate(cut) if is_word]


def weighed(cut: Sequence[Piece], whole: Classified, without: Sequence[Classified], labels: Sequence[str], problem: str) -> dict[str, Any]:
    """The likeliest label, its probability, and each piece with what that loses without it: below 0 the piece spoke against it.

    ``without`` answers ``erasures(cut)``. Of a regression it is the number that is explained, and ``label`` is empty.
    """
    explained = 0 if problem == "regression" else max(range(len(labels)), key=whole.probabilities.__getitem__)
    value, answers = whole.probabilities[explained], iter(without)
    weights = [value - next(answers).probabilities[explained] if is_word else None for _, is_word in cut]
    return {
        "label": "" if problem == "regression" else labels[explained],
        "value": value,
        "pieces": [{"text": text, "weight": weight} for (text, _), weight in zip(cut, weights, strict=True)],
    }
