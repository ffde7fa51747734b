"""The mixture of the training text: which documents are held out, and how often each of the others stands in it.

Both are drawn by a document's own hash, so that neither changes with whatever else the corpus holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Mixture:
    """How often the training documents of each source stand in the text, and which share of all is held out."""

    weights: Mapping[str, float]  # by source; one not named: once
    validation_share: float

    def copies(self, doc_id: str, source: str) -> int:
        """How often a document stands: its source's weight, whose fraction is drawn; a held-out one once."""
        weight = 1.0 if is_validation(doc_id, self.validation_share) else self.weights.get(source, 1.0)
        return int(weight) + (_draw("weight", doc_id) < weight % 1)

    def order(self, documents: Iterable[tuple[str, str]], known: Iterable[str]) -> NDArray[np.int64]:
        """The places of documents, given by doc_id and source, in rounds: the first copies as they come, then the second ones, and so on.

        Raises ``ValueError`` for a weight of a source that is not among those ``known``.
        """
        import numpy as np

        if missing := sorted(set(self.weights) - set(known)):
            raise ValueError(f"tokens.weights names {', '.join(missing)}; the clean corpus has documents of {', '.join(sorted(known))}")
        counts = np.fromiter((self.copies(*document) for document in documents), np.int64)
        rounds = [np.flatnonzero(counts > number) for number in range(int(counts.max(initial=0)))]
        return np.concatenate([np.empty(0, np.int64), *rounds])


def is_validation(doc_id: str, share: float) -> bool:
    """Whether the document is held out."""
    return _draw("validation", doc_id) < share


def _draw(purpose: str, doc_id: str) -> float:
    """A number in [0, 1) that is always this document's."""
    return int.from_bytes(hashlib.sha256(f"{purpose}:{doc_id}".encode()).digest()[:8]) / 2**64
