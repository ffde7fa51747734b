"""Many byte strings looked for at once: a thousand documents have ten thousand pieces, and one pass a piece would take hours."""

from __future__ import annotations

import html
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEAD = 6  # bytes by which a needle is looked up: two Chinese characters
WORD = 8  # bytes that are read at a place
BITS = 22  # of the hash of a head: with 50,000 heads one place in 80 is looked up for nothing
ODD = 0x9E3779B97F4A7C15  # multiplied with, then the upper bits taken: Fibonacci hashing (Knuth, volume 3, 6.4)
STRIDE = 1 << 20  # places looked at together: the arrays of a stride stay in the cache


class Needles:
    """Byte strings, found in one pass of numpy over the content whatever their number.

    A place is a candidate where the hash of its first six bytes is that of some needle's; few others are left to compare.
    Needles shorter than that are looked for one by one.
    """

    def __init__(self, needles: Iterable[bytes]) -> None:
        import numpy as np

        distinct = sorted({needle for needle in needles if needle})
        self.longest = max(map(len, distinct), default=0)
        self._short = [needle for needle in distinct if len(needle) < HEAD]
        self._by_head: dict[bytes, list[bytes]] = defaultdict(list)
        for needle in distinct:
            if len(needle) >= HEAD:
                self._by_head[needle[:HEAD]].append(needle)
        self._heads = np.zeros(1 << BITS, np.bool_)
        self._heads[_hashed(np.frombuffer(b"".join(head.ljust(WORD, b"\0") for head in self._by_head), "<u8"))] = True

    def matches(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Each place where a needle stands, with the needle, in no order."""
        for needle in self._short:
            place = content.find(needle)
            while place >= 0:
                yield place, needle
                place = content.find(needle, place + 1)
        for place in self._candidates(content):
            for needle in self._by_head.get(content[place : place + HEAD], ()):
                if content.startswith(needle, place):
                    yield place, needle

    def stand_in(self, content: bytes) -> bool:
        """Whether any needle does."""
        return next(self.matches(content), None) is not None

    def _candidates(self, content: bytes) -> Iterator[int]:
        import numpy as np

        for start in range(0, len(content) if self._by_head else 0, STRIDE):
            piece = content[start : start + STRIDE + HEAD - 1].ljust(STRIDE + 2 * WORD, b"\0")
            for shift in range(WORD):
                words = np.frombuffer(piece, "<u8", STRIDE // WORD, shift)
                yield from (start + shift + WORD * np.flatnonzero(self._heads[_hashed(words)])).tolist()


def _hashed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Of the first ``HEAD`` bytes of each word a number of ``BITS`` bits."""
    import numpy as np

    head: NDArray[np.uint64] = words << np.uint64(8 * (WORD - HEAD))  # the others fall out at the top
    return head * np.uint64(ODD) >> np.uint64(64 - BITS)


def spelled(texts: Iterable[str]) -> Needles:
    """Texts as UTF-8, as JSON writes them in ASCII, as a string of JSON inside one of JSON does, and as HTML escapes them.

    Of HTML's escapes that of the apostrophe is left to whoever writes it.
    """
    return Needles(spelling.encode() for text in texts for spelling in _spellings(text))


def _spellings(text: str) -> set[str]:
    plain, ascii_only = _json(text, ensure_ascii=False), _json(text, ensure_ascii=True)
    escaped = html.escape(text)
    return {text, escaped, escaped.replace("&#x27;", "'"), plain, ascii_only, _json(plain, ensure_ascii=False), _json(ascii_only, ensure_ascii=True)}


def _json(text: str, *, ensure_ascii: bool) -> str:
    return json.dumps(text, ensure_ascii=ensure_ascii)[1:-1]
