"""Near-duplicates: MinHash signatures, locality-sensitive hashing in bands, connected components.

Broder 1997 (resemblance of documents), Indyk and Motwani 1998 (LSH). Signatures are computed with numpy over arrays of code
points, and kept on the disk band by band: a band is 16 bytes a document, and one band at a time is in memory. A pair whose
signatures leave it open whether it is similar is compared trigram by trigram, so that the threshold is one and no guess.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from llm_assets.corpus.codepoints import CodePoints, hash_texts, letters, ngrams
from llm_assets.store.progress import Progress, silent
from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE = 3  # characters
PERMUTATIONS = 128  # the estimate of a Jaccard similarity of 0.7 then has a standard error of 0.04
TOKENS = 1 << 17  # shingles hashed at once: 0.5 MB stay in the processor's cache
NEIGHBOURS = 8  # documents of a bucket each one is compared with; larger buckets hang together through chains
PAIRS = 20_000  # pairs compared at once
DOUBT = 4  # standard errors of the estimate within which a pair is compared whole: beyond, one in 30,000 is misjudged
LETTERS = 1 << 20  # letters of the pairs that are compared whole at once: 50 MB of trigrams and their order


class NearDuplicates(Strict):
    """When two texts count as near-duplicates."""

    similarity: float = Field(0.7, gt=0, le=1, description="Jaccard similarity of the character trigrams, from here on")
    bands: Literal[1, 2, 4, 8, 16, 32, 64, 128] = Field(
        32, description="of the 128 hashes; a pair of similarity s meets with probability 1-(1-s^(128/bands))^bands"
    )


def signatures(points: CodePoints) -> NDArray[np.uint32]:
    """MinHash signatures of the character trigrams, shape [texts, 128]; a text of fewer characters is its own shingle.

    Hash k of a text is the least of (a_k h + b_k) mod 2^32 over the hashes h of its shingles, with odd a_k.
    """
    import numpy as np

    random = np.random.default_rng(0)
    factors = random.integers(0, 1 << 32, PERMUTATIONS, np.uint32) | np.uint32(1)
    shifts = random.integers(0, 1 << 32, PERMUTATIONS, np.uint32)
    hashes, starts = ngrams(points, SHINGLE)
    result = np.empty((len(points.starts) - 1, PERMUTATIONS), np.uint32)
    whole = np.flatnonzero(starts[1:] > starts[:-1])
    short = np.flatnonzero(starts[1:] == starts[:-1])
    result[short] = _high(hash_texts(points)[short])[:, None] * factors + shifts
    tokens = _high(hashes)
    for group in _groups(whole, starts, TOKENS):
        first = starts[group[0]]
        piece = tokens[first : starts[group[-1] + 1]]
        begins = starts[group] - first
        hashed = np.empty_like(piece)
        for number, (factor, shift) in enumerate(zip(factors, shifts, strict=True)):
            np.multiply(piece, factor, out=hashed)
            np.add(hashed, shift, out=hashed)
            result[group, number] = np.minimum.reduceat(hashed, begins)
    return result


def clusters(
    batches: Iterable[Sequence[str]], config: NearDuplicates, scratch: Path, total: int = 0, progress: Progress = silent
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The cluster of each text and the hash of its letters, both of shape [texts].

    A cluster is the smallest index in its connected component of equal and near-equal texts. ``scratch`` takes the
    letters and the signatures of different texts, 4 bytes a letter and 512 a text; `python -m benchmarks memory` tells what
    stays in memory.
    """
    import numpy as np

    seen = np.empty(0, np.uint64)
    keys: list[NDArray[np.uint64]] = []
    with _Bands(scratch, config.bands) as bands, _Letters(scratch) as kept:
        done = 0
        for texts in batches:
            points = letters(texts)
            hashes = hash_texts(points)
            first = np.sort(np.unique(hashes, return_index=True)[1])
            new = first[~_in_sorted(seen, hashes[first])]
            different = _take(points, new)
            bands.append(signatures(different))
            kept.append(different)
            seen = np.sort(np.concatenate([seen, hashes[new]]), kind="stable")  # merges runs that are sorted already
            keys.append(hashes)
            done += len(texts)
            progress(done, max(total, done), "documents")
        everything = np.concatenate([np.empty(0, np.uint64), *keys])
        _, first, same = np.unique(everything, return_index=True, return_inverse=True)
        unique = np.sort(first)  # in the order in which their signatures were written
        place = np.searchsorted(unique, first)[same]
        roots = _components(len(unique), *_similar(bands, kept, everything[unique], config))
    return unique[roots[place]] if len(unique) else np.empty(0, np.int64), everything


class _Bands:
    """Signatures on the disk, a file a band."""

    def __init__(self, scratch: Path, bands: int) -> None:
        self.rows = PERMUTATIONS // bands
        self.paths = [scratch / f"band-{number:03d}.u4" for number in range(bands)]

    def __enter__(self) -> _Bands:
        self._files = [path.open("wb") for path in self.paths]
        return self

    def __exit__(self, *_: object) -> None:
        for file, path in zip(self._files, self.paths, strict=True):
            file.close()
            path.unlink(missing_ok=True)

    def append(self, marks: NDArray[np.uint32]) -> None:
        for number, file in enumerate(self._files):
            file.write(marks[:, number * self.rows : (number + 1) * self.rows].tobytes())

    def __iter__(self) -> Iterator[NDArray[np.uint32]]:
        """Each band's part of all signatures, shape [texts, 128 / bands]."""
        import numpy as np

        for file, path in zip(self._files, self.paths, strict=True):
            file.flush()
            yield np.fromfile(path, np.uint32).reshape(-1, self.rows)


class _Letters:
    """The letters of the texts on the disk; 8 bytes a text stay in memory."""

    def __init__(self, scratch: Path) -> None:
        self._path = scratch / "letters.u4"
        self._lengths: list[NDArray[np.int64]] = []

    def __enter__(self) -> _Letters:
        self._file = self._path.open("w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def append(self, points: CodePoints) -> None:
        self._file.write(points.values.tobytes())
        self._lengths.append(points.lengths)

    def jaccard(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        """The Jaccard similarity of each pair's trigrams, counted."""
        import numpy as np

        self._file.flush()
        lengths = np.concatenate([np.empty(0, np.int64), *self._lengths])
        starts = np.cumsum(lengths) - lengths
        found = [np.empty(0)]
        for group in _groups(np.arange(len(left)), np.concatenate([[0], np.cumsum(lengths[left] + lengths[right])]), LETTERS):
            one, other = (_trigrams(self._read(starts[side[group]], lengths[side[group]])) for side in (left, right))
            own, hashes = (np.concatenate(parts) for parts in zip(one, other, strict=True))
            order = np.lexsort((hashes, own))
            own, hashes = own[order], hashes[order]
            both = np.bincount(own[1:][(own[1:] == own[:-1]) & (hashes[1:] == hashes[:-1])], minlength=len(group))
            found.append(both / (np.bincount(own, minlength=len(group)) - both))
        return np.concatenate(found)

    def _read(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> CodePoints:
        import numpy as np

        pieces = (os.pread(self._file.fileno(), 4 * length, 4 * start) for start, length in zip(starts.tolist(), lengths.tolist(), strict=True))
        return CodePoints(np.frombuffer(b"".join(pieces), np.uint32), np.concatenate([[0], np.cumsum(lengths)]))


def _similar(bands: _Bands, kept: _Letters, keys: NDArray[np.uint64], config: NearDuplicates) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs that share a band and are similar: by their whole signatures, or by their trigrams where these leave it open.

    In a bucket each text meets those that follow it by ``keys``, so that the order of the texts changes no pair.
    """
    import numpy as np

    candidates = np.empty(0, np.uint64)  # left << 32 | right
    for part in bands:
        bucket = part.astype(np.uint64) @ _odd(part.shape[1])
        order = np.lexsort((keys, bucket)).astype(np.uint64)
        ranked = bucket[order]
        found = []
        for step in range(1, min(NEIGHBOURS, len(ranked) - 1) + 1):
            together = np.flatnonzero(ranked[step:] == ranked[:-step])
            if not len(together):
                break
            left, right = order[together], order[together + step]
            found.append(np.minimum(left, right) << np.uint64(32) | np.maximum(left, right))
        candidates = np.unique(np.concatenate([candidates, *found]))
    lefts, rights = (candidates >> np.uint64(32)).astype(np.int64), (candidates & np.uint64(0xFFFFFFFF)).astype(np.int64)
    agreeing = np.zeros(len(lefts), np.int64)
    for part in bands:
        for start in range(0, len(lefts), PAIRS):
            chosen = slice(start, start + PAIRS)
            agreeing[chosen] += (part[lefts[chosen]] == part[rights[chosen]]).sum(axis=1)
    wanted = config.similarity * PERMUTATIONS
    doubtful = np.abs(agreeing - wanted) <= DOUBT * (wanted * (1 - config.similarity)) ** 0.5
    similar = agreeing >= wanted
    similar[doubtful] = kept.jaccard(lefts[doubtful], rights[doubtful]) >= config.similarity
    return lefts[similar], rights[similar]


def _components(count: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest member of each one's connected component, shape [count]."""
    import numpy as np

    parent = np.arange(count)
    while True:  # each round hooks roots onto smaller ones and halves the ways to them; chains of n end after log n rounds
        low, high = np.minimum(parent[left], parent[right]), np.maximum(parent[left], parent[right])
        if np.array_equal(low, high):
            return parent
        np.minimum.at(parent, high, low)
        while not np.array_equal(parent, above := parent[parent]):
            parent = above


def _trigrams(points: CodePoints) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The different shingles of each text: the text's number and the hash."""
    import numpy as np

    hashes, starts = ngrams(points, SHINGLE)
    short = np.flatnonzero(starts[1:] == starts[:-1])
    owner = np.concatenate([np.repeat(np.arange(len(starts) - 1), np.diff(starts)), short])
    hashes = np.concatenate([hashes, hash_texts(points)[short]])
    order = np.lexsort((hashes, owner))
    owner, hashes = owner[order], hashes[order]
    first = np.append(True, (owner[1:] != owner[:-1]) | (hashes[1:] != hashes[:-1]))
    return owner[first], hashes[first]


def _groups(items: NDArray[np.int64], starts: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """The items in runs that hold about ``size`` of what ``starts`` counts; one that holds nothing may stand between two of a run."""
    import numpy as np

    if len(items):
        yield from np.split(items, np.flatnonzero(np.diff(starts[items] // size)) + 1)


def _take(points: CodePoints, texts: NDArray[np.int64]) -> CodePoints:
    """Some of the texts, in ascending order."""
    import numpy as np

    chosen = np.zeros(len(points.starts) - 1, np.bool_)
    chosen[texts] = True
    starts = np.concatenate([[0], np.cumsum(points.lengths[texts])])
    return CodePoints(points.values[np.repeat(chosen, points.lengths)], starts)


def _in_sorted(ordered: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    import numpy as np

    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[place] == values
    return found


def _high(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    import numpy as np

    return (hashes >> np.uint64(32)).astype(np.uint32)


def _odd(count: int) -> NDArray[np.uint64]:
    import numpy as np

    return np.random.default_rng(1).integers(0, 1 << 63, count, np.uint64) * np.uint64(2) + np.uint64(1)
