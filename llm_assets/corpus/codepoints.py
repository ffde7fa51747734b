"""Texts as arrays of code points: what rules and near-duplicates ask of every character is asked of all at once.

A batch is one array of code points with the places where its texts start, so a question about characters is a table lookup
and a question about texts a difference of running sums. `python -m benchmarks screening` tells what that brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIMIT = 0x32400  # every letter of Unicode 17 lies below; what lies above belongs to no class
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd: its multiples spread evenly (Knuth, TAOCP 3, 6.4)


@dataclass(frozen=True)
class CodePoints:
    """The code points of some texts, one text after another."""

    values: NDArray[np.uint32]
    starts: NDArray[np.int64]  # shape [texts + 1]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each text."""
        return self.starts[1:] - self.starts[:-1]

    def count(self, marks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many characters of each text are marked; ``marks`` has the shape of ``values``."""
        import numpy as np

        running = np.concatenate([[0], np.cumsum(marks, dtype=np.int64)])
        counted: NDArray[np.int64] = running[self.starts[1:]] - running[self.starts[:-1]]
        return counted

    def where(self, marks: NDArray[np.bool_]) -> CodePoints:
        """The marked characters alone."""
        import numpy as np

        return CodePoints(self.values[marks], np.concatenate([[0], np.cumsum(self.count(marks))]))


def flatten(texts: Sequence[str]) -> CodePoints:
    """The texts' code points. A lone surrogate, which no Arrow string holds, counts as the code point it is."""
    import numpy as np

    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return CodePoints(np.frombuffer(joined, "<u4"), np.concatenate([[0], np.cumsum(lengths)]))


def members(points: CodePoints, pattern: str) -> NDArray[np.bool_]:
    """Which characters belong to a class of RE2's, such as ``\\p{Han}``."""
    import numpy as np

    marks: NDArray[np.bool_] = table(pattern)[np.minimum(points.values, LIMIT)]
    return marks


@cache
def table(pattern: str) -> NDArray[np.bool_]:
    """Which code points a character class holds, shape [LIMIT + 1]; the last stands for all above. Built once a process."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    characters = ["" if 0xD800 <= point < 0xE000 else chr(point) for point in range(LIMIT)]
    held = pc.match_substring_regex(pa.array(characters, pa.string()), f"^{pattern}$").to_numpy(zero_copy_only=False)
    return np.append(held, False)


def letters(texts: Sequence[str]) -> CodePoints:
    """What is left of texts without punctuation, spaces and case: ``documents.text_key`` as code points.

    Where case folding makes several characters of one (ß), the one stays.
    """
    import numpy as np

    word, folded = _word_table()
    points = flatten(texts)
    clipped = np.minimum(points.values, LIMIT)
    marks = word[clipped]
    return CodePoints(folded[clipped[marks]], points.where(marks).starts)


@cache
def _word_table() -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
    import numpy as np

    word = np.array([chr(point).isalnum() for point in range(LIMIT)] + [False])
    folded = np.arange(LIMIT + 1, dtype=np.uint32)
    for point in np.flatnonzero(word).tolist():
        fold = chr(point).casefold()
        if len(fold) == 1:
            folded[point] = ord(fold)
    return word, folded


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit numbers in which every bit of the result depends on every bit given (splitmix64's finalizer).

    Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators.
    """
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hash_texts(points: CodePoints) -> NDArray[np.uint64]:
    """A 64-bit hash of each text, a polynomial in its characters; among 10^7 texts any two meet with a chance of 3 in 10^6."""
    import numpy as np

    longest = int(points.lengths.max(initial=0))
    powers = np.multiply.accumulate(np.full(longest + 1, GOLDEN, np.uint64))
    place = np.arange(len(points.values)) - np.repeat(points.starts[:-1], points.lengths)
    terms = mix(points.values.astype(np.uint64) + np.uint64(GOLDEN)) * powers[place]
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])  # wraps around, and so do differences
    return mix(running[points.starts[1:]] - running[points.starts[:-1]] + points.lengths.astype(np.uint64))


def ngrams(points: CodePoints, size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every run of ``size`` characters within a text, and where each text's begin, shape [texts + 1]."""
    import numpy as np

    starts = np.concatenate([[0], np.cumsum(np.maximum(points.lengths - size + 1, 0))])
    runs = max(len(points.values) - size + 1, 0)
    hashes = np.zeros(runs, np.uint64)
    for offset in range(size):
        hashes = hashes * np.uint64(GOLDEN) + points.values[offset : offset + runs]
    place = np.arange(runs) - np.repeat(points.starts[:-1], points.lengths)[:runs]
    inside = place <= np.repeat(points.lengths, points.lengths)[:runs] - size
    return mix(hashes[inside]), starts
