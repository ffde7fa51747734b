"""Where a model's token embeddings start: at random, or where the corpus' own co-occurrences put them.

Neighbours of a token say much of its meaning before any step is trained. Factorising their counts takes seconds, and a small
encoder with few tokens to learn from starts with what it would else spend most of its budget on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llm_assets.store.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

WINDOW = 4  # tokens to either side that count as neighbours
SMOOTHING = 0.75  # power of the neighbours' frequencies: rare neighbours would else weigh most
SAMPLE = 20_000_000  # tokens counted; 24 bytes each and pair of places are held
ITERATIONS = 4  # of the randomized factorisation
SPREAD = 0.02  # standard deviation of the embeddings, as of random ones in ModernBERT


def cooccurrence_embeddings(
    tokens: NDArray[np.integer], vocabulary: int, width: int, opening: int, seed: int, progress: Progress = silent
) -> NDArray[np.float32]:
    """Token embeddings from a stream of tokens, float32 [vocabulary, width].

    The positive pointwise mutual information of a token and its neighbours within a document, log(p(a, b) / (p(a) p(b))),
    factorised to U S^(1/2) by a truncated singular value decomposition (Levy, Goldberg, Dagan 2015, TACL 3, 211-225;
    Halko, Martinsson, Tropp 2011 for the factorisation). Documents begin at the token ``opening``. Tokens without neighbours
    get random vectors.
    """
    import numpy as np
    from sklearn.utils.extmath import randomized_svd

    embeddings = np.random.default_rng(seed).normal(0, SPREAD, (vocabulary, width)).astype(np.float32)
    information = _information(_neighbours(tokens[:SAMPLE], vocabulary, opening, progress))
    met = np.diff(information.indptr) > 0
    if met.any():
        rank = min(width, vocabulary - 1)
        left, weights, _ = randomized_svd(information, rank, n_iter=ITERATIONS, random_state=seed)
        placed = (left * np.sqrt(weights))[met]
        embeddings[met, :rank] = placed * (SPREAD / placed.std())
    return embeddings


def read_embeddings(path: Path) -> NDArray[np.float32]:
    """The embeddings in a file; nothing in it is unpickled."""
    import numpy as np

    found: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return found


def _neighbours(tokens: NDArray[np.integer], vocabulary: int, opening: int, progress: Progress) -> csr_matrix:
    """How often each token stands within ``WINDOW`` places of each other in one document, symmetric [vocabulary, vocabulary]."""
    import numpy as np
    from scipy.sparse import coo_matrix, csr_matrix

    document = np.cumsum(tokens == opening)
    counts = csr_matrix((vocabulary, vocabulary), dtype=np.float64)
    for distance in range(1, WINDOW + 1):
        inside = document[:-distance] == document[distance:]
        one, other = tokens[:-distance][inside], tokens[distance:][inside]
        counts += coo_matrix((np.ones(len(one)), (one, other)), shape=counts.shape).tocsr()
        progress(distance, WINDOW, "distances counted")
    return counts + counts.T


def _information(counts: csr_matrix) -> csr_matrix:
    """The positive pointwise mutual information of symmetric counts, with the neighbours' frequencies smoothed."""
    import numpy as np
    from scipy.sparse import csr_matrix

    often = np.asarray(counts.sum(axis=1)).ravel()
    smoothed = often**SMOOTHING / max((often**SMOOTHING).sum(), 1.0)
    pairs = counts.tocoo()
    values = np.log(pairs.data / (often[pairs.row] * smoothed[pairs.col]))
    positive = values > 0
    return csr_matrix((values[positive], (pairs.row[positive], pairs.col[positive])), shape=counts.shape)
