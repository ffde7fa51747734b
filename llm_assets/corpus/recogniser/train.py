"""`python -m llm_assets.corpus.recogniser.train` makes the weights of `names` anew: half a minute, 1 GB of memory.

Four kinds of text: news in which people have marked the names; the same sentences with invented names; words of a dictionary
in rows, which teach what is a word and no name; reviews, as they are and with invented names in them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llm_assets.corpus.recogniser import names
from llm_assets.corpus.recogniser.examples import (
    Example,
    Inventor,
    dictionary,
    inserted,
    introduced,
    joined,
    news,
    peopled,
    renamed,
    reviews,
    word_rows,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED = 17
PENALTY = 0.12  # of half the sum of squared weights
ITERATIONS = 90
STEP = 0.1  # log odds; the 8-bit weights reach from -12.7 to 12.7
DOUBTFUL = -0.5  # log odds of a first model: what it takes for a name and nobody has marked teaches nothing
PLANTED = 20_000
Table = tuple["NDArray[np.uint32]", "NDArray[np.bool_]"]  # bins, shape [candidates, templates], and whether it is a name


def main() -> None:
    """Train, write the weights and print their hash."""
    import numpy as np

    learn, _ = news()
    weights = train(learn, reviews("learn"), dictionary())
    np.savez_compressed(names.WEIGHTS, weights=weights, step=np.float32(STEP))
    sha256 = hashlib.sha256(names.WEIGHTS.read_bytes()).hexdigest()
    print(f"{names.WEIGHTS}: {names.WEIGHTS.stat().st_size:,} bytes. Write into names.py: WEIGHTS_SHA256 = {sha256!r}")
    print("`python -m benchmarks masking` says how good they are")


def train(learn: Sequence[Example], texts: Sequence[str], words: Sequence[str]) -> NDArray[np.int8]:
    """The weights in steps, shape [2^BITS], from marked sentences, texts without marks, and words that are no names."""
    import numpy as np

    rng = random.Random(SEED)
    inventor = Inventor(learn, rng)
    marked = _table(learn)
    model = fit(*marked, np.ones(len(marked[1])))
    planted = [introduced(text, inventor, rng) for text in rng.choices(texts, k=PLANTED)]
    planted += [peopled(text, inventor, rng) for text in rng.choices(texts, k=PLANTED)]
    planted += [inserted(text, inventor, rng) for text in rng.choices(texts, k=PLANTED)]
    parts = (  # with the importance of a candidate that is no name, and of one that is
        (marked, 1.0, 1.0),
        (_table(renamed(example, inventor, rng) for example in learn if example.names), 0.5, 0.5),
        (_table(row for _ in range(4) for row in word_rows(words, inventor, rng)), 0.5, 0.6),
        (_sure(_table(joined([(text, "text")]) for text in texts), model), 1.0, 1.0),
        (_sure(_table(planted), model), 0.5, 0.5),
    )
    columns = np.concatenate([table[0] for table, _, _ in parts])
    labels = np.concatenate([table[1] for table, _, _ in parts])
    importance = np.concatenate([np.where(table[1], of_names, of_others) for table, of_others, of_names in parts])
    print(f"{len(labels):,} candidates, {int(labels.sum()):,} of them names")
    rounded: NDArray[np.int8] = np.clip(np.rint(fit(columns, labels, importance) / STEP), -127, 127).astype(np.int8)
    return rounded


def fit(columns: NDArray[np.uint32], labels: NDArray[np.bool_], importance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of a logistic regression without intercept, by L-BFGS, shape [2^BITS]."""
    import numpy as np
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    rows, width = columns.shape
    shape = (rows, 1 << names.BITS)
    matrix = csr_matrix((np.ones(rows * width, np.float32), columns.ravel().astype(np.int32), np.arange(0, rows * width + 1, width)), shape)
    transposed = matrix.T.tocsr()
    signs = np.where(labels, np.float32(1), np.float32(-1))

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (matrix @ weights.astype(np.float32))
        slope = importance * signs / (1 + np.exp(np.clip(margins, -50, 50)))
        value = float(importance @ np.logaddexp(0, -margins) + PENALTY / 2 * (weights @ weights))
        return value, PENALTY * weights - transposed @ slope.astype(np.float32)

    found: NDArray[np.float64] = minimize(loss, np.zeros(1 << names.BITS), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x
    return found


def _table(examples: Iterable[Example]) -> Table:
    """Every candidate of the examples but the unknown ones."""
    import numpy as np

    some = list(examples)
    text = names.padded([example.text for example in some])
    found = names.candidates(text.values)
    ends = np.zeros(len(text.values), np.int64)
    unknown = np.zeros(len(text.values), np.bool_)
    for example, first in zip(some, text.starts.tolist(), strict=True):
        for start, end in example.names:
            ends[first + start] = first + end
        for start, end in example.unknown:
            unknown[first + start : first + end] = True
    labels = ends[found.start] == found.end
    known = labels | ~(unknown[found.start] | unknown[found.end - 1])
    columns = np.stack(list(names.features(text.values, found)), axis=1)
    return columns[known], labels[known]


def _sure(table: Table, model: NDArray[np.float64]) -> Table:
    columns, labels = table
    kept = labels | (model[columns].sum(axis=1) < DOUBTFUL)
    return columns[kept], labels[kept]


if __name__ == "__main__":
    main()
