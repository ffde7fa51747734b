"""Where a model's token embeddings start: at random, or where the corpus' own co-occurrences put them.

Neighbours of a token say much of its meaning before any step is trained. Factorising their counts takes seconds, and a small
model with few tokens to learn from starts with what it would else spend most of its budget on: an encoder with what its tokens
stand beside, a decoder with what follows each.
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
DISCOUNT = 0.75  # of every count of a pair, given to the pairs not seen
UNSEEN = 0.5  # occurrences that every token counts for besides its own
WEIGHT = 0.25  # power of a token's frequency by which its row weighs in the factorisation, whose errors are squared
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


def bigram_start(
    tokens: NDArray[np.integer], vocabulary: int, width: int, opening: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Token embeddings and head, float32 [vocabulary, width] each, that make a decoder without layers a bigram model.

    p(b | a) with absolute discounting, interpolated with p(b) (Ney, Essen, Kneser 1994; Chen & Goodman 1999, section 2.6), is p(b) times
    1 + (n(a, b) - d) / (d k(a) p(b)), k(a) the kinds of tokens that follow a. The logarithm of the factor is 0 for pairs not seen,
    so its matrix is sparse; factorised as above, with frequent a weighing more, its rows are the embeddings, its columns the head. One
    coordinate more holds log p(b), and one fills every embedding up to a root mean square of 1, so that the norm before the head
    changes none. A random rotation spreads them over all coordinates.
    """
    import numpy as np
    from scipy.sparse import coo_matrix, csr_matrix, diags
    from sklearn.utils.extmath import randomized_svd

    stream = tokens[:SAMPLE].astype(np.int64)
    inside = stream[1:] != opening
    first, second = stream[:-1][inside], stream[1:][inside]
    pairs = coo_matrix((np.ones(len(first)), (first, second)), shape=(vocabulary, vocabulary)).tocsr()
    often, kinds = np.asarray(pairs.sum(axis=1)).ravel(), np.diff(pairs.indptr)
    share = (np.bincount(second, minlength=vocabulary) + UNSEEN) / (len(second) + UNSEEN * vocabulary)
    seen = pairs.tocoo()
    factor = np.log1p((seen.data - DISCOUNT) / (DISCOUNT * kinds[seen.row] * share[seen.col]))
    information = csr_matrix((factor, (seen.row, seen.col)), shape=pairs.shape)
    rank = min(width - 2, vocabulary - 1)
    _, _, right = randomized_svd(diags(np.maximum(often, 1) ** WEIGHT) @ information, rank, n_iter=ITERATIONS // 2, random_state=seed)
    rows = information @ right.T
    sizes = (rows**2).sum(axis=1)
    constant = np.sqrt(max(float(sizes.max()), 1.0))
    embeddings, head = np.zeros((vocabulary, width)), np.zeros((vocabulary, width))
    left = np.sqrt(np.maximum(constant**2 - sizes, 0))  # the square of a root may lie a rounding below, and a root of that is no number
    embeddings[:, :rank], embeddings[:, rank], embeddings[:, rank + 1] = rows, constant, left
    head[:, :rank], head[:, rank] = right.T, (np.log(share) - np.log(share).mean()) / constant
    scale = np.sqrt(width / 2) / constant  # of every embedding: they all have the length constant * sqrt(2)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))
    return (scale * embeddings @ rotation).astype(np.float32), (head @ rotation / scale).astype(np.float32)


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
