"""What happens to every text before anything is judged: damaged encoding repaired, one spelling, personal data masked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from llm_assets.corpus import pii
from llm_assets.corpus.codepoints import LIMIT, CodePoints, flatten
from llm_assets.corpus.normalise import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# UTF-8 that was read as Latin-1 or Windows-1252: a letter between U+00C2 and U+00F4, then what those make of a continuation byte.
MOJIBAKE = re.compile(r"[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u0178\u02c6\u02dc\u2013-\u2122]")


class Cleaned(NamedTuple):
    """Cleaned texts, and what was done to which, by index."""

    texts: list[str]
    masks: dict[int, list[pii.Span]]  # where personal data stood in the normalised text
    repaired: list[int]


def clean_texts(texts: Sequence[str]) -> Cleaned:
    """A batch of texts with their encoding repaired (``ftfy``: Speer 2019), normalised and masked. Cleaning twice changes nothing more."""
    fixed = _repairs(texts)
    cleaned = normalise_all([fixed.get(index, text) for index, text in enumerate(texts)])
    repaired = set(fixed)
    while fixed := _repairs(cleaned):  # an invisible character between two halves of damage has gone, or an entity had spelt it out
        repaired |= fixed.keys()
        for index, text in fixed.items():
            cleaned[index] = normalise(text)
    masked, spans = pii.mask_all(cleaned)
    return Cleaned(masked, spans, sorted(repaired))


def _repairs(texts: Sequence[str]) -> dict[int, str]:
    """The texts with damaged encoding, mended, by index."""
    if not MOJIBAKE.search("".join(texts)):
        return {}
    from ftfy import fix_encoding

    mended = {index: fix_encoding(text) for index, text in enumerate(texts) if MOJIBAKE.search(text)}
    return {index: text for index, text in mended.items() if text != texts[index]}


def normalise_all(texts: Sequence[str]) -> list[str]:
    """``normalise`` of every text.

    Characters that stand for themselves in NFKC whatever stands beside them, or for one other such character (full-width
    forms, mostly), are replaced all at once; a text that holds anything else, or anything but that to clean, goes through
    ``normalise``.
    """
    import numpy as np

    points = flatten(texts)
    simple, composed = _simple_characters()
    clipped = np.minimum(points.values, LIMIT)
    values = composed[clipped]
    space = values == ord(" ")
    odd = ~simple[clipped]
    odd[1:] |= space[1:] & space[:-1]
    whole = values.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    plain = CodePoints(values, points.starts).count(odd) == 0
    bounds = points.starts.tolist()
    return [
        whole[start:end].strip(" ") if is_plain else normalise(text)
        for text, is_plain, start, end in zip(texts, plain.tolist(), bounds[:-1], bounds[1:], strict=True)
    ]


@cache
def _simple_characters() -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
    """Which code points normalise to one printable character whatever their neighbours are, and to which one."""
    import numpy as np

    characters = [chr(point) for point in range(LIMIT)]
    pairs = (unicodedata.decomposition(character).split() for character in characters)
    composing = {int(pair[1], 16) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}
    composing |= {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # vowels and final consonants of Hangul
    simple = np.zeros(LIMIT + 1, np.bool_)
    composed = np.arange(LIMIT + 1, dtype=np.uint32)
    for point, character in enumerate(characters):
        one = unicodedata.normalize("NFKC", character)
        if len(one) == 1 and one.isprintable() and one not in "&<" and not unicodedata.combining(one) and ord(one) not in composing:
            simple[point], composed[point] = True, ord(one)
    return simple, composed
