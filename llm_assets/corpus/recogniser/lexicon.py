"""Where words of a dictionary stand among characters: a Bloom filter (Bloom 1970, CACM 13:7) of a quarter of a million words.

With two hashes into 2^22 bits it takes 0.5 MB and holds one in 80 runs of characters that are no word. Around a candidate it
tells where one word ends and the next begins, which marked text alone is too small to teach.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BITS = 22
SIZES = (2, 3, 4)  # characters of a word
MARKS = 1 << 2 * len(SIZES)
HASHES = 2
FIRST, LAST = 0x4E00, 0x9FFF  # CJK unified ideographs


def build(words: Iterable[str]) -> NDArray[np.bool_]:
    """The filter of the words of 2 to 4 ideographs, shape [2^BITS]."""
    import numpy as np

    filled = np.zeros(1 << BITS, np.bool_)
    listed = list(words)
    for size in SIZES:
        points = np.array([list(map(ord, word)) for word in listed if len(word) == size], np.uint32).reshape(-1, size)
        for number in range(HASHES):
            filled[_bins(list(points.T), number)] = True
    return filled


def marks(filled: NDArray[np.bool_], windows: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """For each character of each window the sizes of the words that begin there (bits 0 to 2) and end there (bits 3 to 5)."""
    import numpy as np

    width = windows.shape[1]
    written = (windows >= FIRST) & (windows <= LAST)
    found = np.zeros(windows.shape, np.uint8)
    for bit, size in enumerate(SIZES):
        columns = [windows[:, offset : width - size + 1 + offset] for offset in range(size)]
        word = np.logical_and.reduce([written[:, offset : width - size + 1 + offset] for offset in range(size)])
        for number in range(HASHES):
            word &= filled[_bins(columns, number)]
        found[:, : width - size + 1] |= word.astype(np.uint8) << bit
        found[:, size - 1 :] |= word.astype(np.uint8) << (len(SIZES) + bit)
    return found


def _bins(columns: Sequence[NDArray[np.uint32]], number: int) -> NDArray[np.uint32]:
    """The bin of each run of characters under one of the hashes, below 2^BITS."""
    import numpy as np

    mixed = np.full(columns[0].shape, (len(columns) * 0x9E3779B1 + number * 0x7F4A7C15) & 0xFFFFFFFF, np.uint32)
    for column in columns:
        mixed = (mixed ^ column) * np.uint32(0x85EBCA6B)
        mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(13)
    return mixed >> np.uint32(32 - BITS)
