"""Stretches of Chinese text that may be a name: a surname and one or two characters after it.

A batch is one array of code points, so that all candidates of all texts are found and weighed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from llm_assets.corpus.codepoints import flatten
from llm_assets.corpus.recogniser.surnames import COMPOUND, SINGLE, TITLES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GAP = 16  # characters of nothing before and after each text: no feature or window sees the text beside it
BEYOND = 0xFFFF  # stands for every character of a higher plane
NEVER_GIVEN = "的了是不我你他她它们这那哪吗呢吧啊么着过都很也就还没您"  # in no given name; a quarter fewer candidates


class Candidates(NamedTuple):
    """Stretches that may be names: a surname of one or two characters and a given name of one or two; each of shape [candidates]."""

    start: NDArray[np.int64]
    given: NDArray[np.int64]  # where the given name starts
    end: NDArray[np.int64]


class Padded(NamedTuple):
    """Texts as one array of characters with gaps between them."""

    values: NDArray[np.uint32]  # digits as 0, ASCII letters as a: which ones says nothing about a name beside them
    starts: NDArray[np.int64]  # of each text, shape [texts]


def padded(texts: Sequence[str]) -> Padded:
    """The texts' characters, simplified to what the features tell apart."""
    import numpy as np

    gap = "\0" * GAP
    points = flatten([*(gap + text for text in texts), gap])
    return Padded(_tables().simplified[np.minimum(points.values, BEYOND)], points.starts[:-2] + GAP)


def candidates(values: NDArray[np.uint32]) -> Candidates:
    """Every surname with one and with two characters after it that may stand in a given name, where no title follows it."""
    import numpy as np

    single, compound, given, pairs, titles, _ = _tables()
    one = np.flatnonzero(single[values])
    two = np.flatnonzero(compound[values])
    two = two[_among(pairs_at(values, two), pairs)]
    start = np.concatenate([one, two])
    after = np.concatenate([one + 1, two + 2])
    short = given[values[after]] & ~_among(pairs_at(values, after), titles)
    long = short.copy()
    long[short] = given[values[after[short] + 1]]
    return Candidates(
        np.concatenate([start[short], start[long]]),
        np.concatenate([after[short], after[long]]),
        np.concatenate([after[short] + 1, after[long] + 2]),
    )


def pairs_at(values: NDArray[np.uint32], start: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The two characters from each start as one number."""
    import numpy as np

    both: NDArray[np.uint32] = values[start] << np.uint32(16) | values[start + 1]
    return both


class _Tables(NamedTuple):
    """Lookups by code point, shape [2^16], and by pairs of them."""

    single: NDArray[np.bool_]
    compound: NDArray[np.bool_]  # first characters of compound surnames
    given: NDArray[np.bool_]
    pairs: NDArray[np.uint32]  # both characters of compound surnames, in order
    titles: NDArray[np.uint32]  # in order
    simplified: NDArray[np.uint32]


@cache
def _tables() -> _Tables:
    import numpy as np

    single, compound, given = (np.zeros(BEYOND + 1, np.bool_) for _ in range(3))
    single[[ord(surname) for surname in SINGLE]] = True
    compound[[ord(surname[0]) for surname in COMPOUND]] = True
    given[ord("一") : ord("鿿") + 1] = True
    given[[ord(character) for character in NEVER_GIVEN]] = False
    simplified = np.arange(BEYOND + 1, dtype=np.uint32)
    for point in range(128):
        simplified[point] = ord("0") if chr(point).isdigit() else ord("a") if chr(point).isalpha() else point
    pairs, titles = (np.array(sorted(ord(one[0]) << 16 | ord(one[1]) for one in words), np.uint32) for words in (COMPOUND, TITLES))
    return _Tables(single, compound, given, pairs, titles, simplified)


def _among(values: NDArray[np.uint32], known: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which values are among the known ones, which are in order: faster than ``numpy.isin`` where there are few."""
    import numpy as np

    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
    return found
