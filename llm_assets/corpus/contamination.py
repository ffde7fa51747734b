"""Evaluation text inside longer training text: found by the n-grams of characters that both hold.

After appendix C of Brown et al. 2020 (GPT-3, arXiv 2005.14165), which looks for 13 equal words in a row: near-duplicate search compares
whole texts and misses a short test document that stands inside a long one. Letters are compared, punctuation and case aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from llm_assets.corpus.codepoints import letters, ngrams
from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Overlap(Strict):
    """When a training document counts as holding an evaluation document."""

    characters: int = Field(12, ge=4, description="letters in a row that must be equal; shorter evaluation documents are not looked for")
    share: float = Field(0.8, gt=0, le=1, description="of the evaluation document's runs of so many letters, from here on")


class EvaluationNgrams:
    """The n-grams of all evaluation documents, sorted by hash: 16 bytes each."""

    def __init__(self, texts: Sequence[str], config: Overlap) -> None:
        import numpy as np

        self._config = config
        hashes, starts = ngrams(letters(texts), config.characters)
        owners = np.repeat(np.arange(len(texts)), np.diff(starts))
        pairs = np.unique(np.stack([hashes, owners.astype(np.uint64)], axis=1), axis=0) if len(hashes) else np.empty((0, 2), np.uint64)
        self._hashes, self._owners = np.ascontiguousarray(pairs[:, 0]), pairs[:, 1].astype(np.int64)
        self._sizes = np.bincount(self._owners, minlength=len(texts))

    def held(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """For each text the evaluation document it holds, or -1; the one it holds most of, if several. Shape [texts]."""
        import numpy as np

        found = np.full(len(texts), -1, np.int64)
        hashes, starts = ngrams(letters(texts), self._config.characters)
        if not len(hashes) or not len(self._hashes):
            return found
        holder = np.repeat(np.arange(len(texts)), np.diff(starts))
        first = np.searchsorted(self._hashes, hashes, "left")
        hit = self._hashes[np.minimum(first, len(self._hashes) - 1)] == hashes
        first, holder = first[hit], holder[hit]
        many = np.searchsorted(self._hashes, hashes[hit], "right") - first  # evaluation documents that share this n-gram
        entry = np.repeat(first - np.cumsum(many) + many, many) + np.arange(many.sum())
        pairs = np.unique(np.repeat(holder, many).astype(np.int64) * len(self._hashes) + entry)  # each n-gram once a text
        text, owner = pairs // len(self._hashes), self._owners[pairs % len(self._hashes)]
        both, shared = np.unique(text * len(self._sizes) + owner, return_counts=True)
        text, owner = both // len(self._sizes), both % len(self._sizes)
        share = shared / self._sizes[owner]
        for index in np.flatnonzero(share >= self._config.share)[np.argsort(share[share >= self._config.share], kind="stable")].tolist():
            found[text[index]] = owner[index]
        return found
