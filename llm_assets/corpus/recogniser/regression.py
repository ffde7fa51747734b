"""The regression that looks at candidates first: which candidates of marked text are names, and the weights that follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from llm_assets.corpus.recogniser import names
from llm_assets.corpus.recogniser.candidates import Candidates, candidates, padded
from llm_assets.corpus.recogniser.examples import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PENALTY = 0.12  # of half the sum of squared weights
ITERATIONS = 60
STEP = 0.1  # log odds; the 8-bit weights reach from -12.7 to 12.7


class Judged(NamedTuple):
    """The candidates of some marked texts, but for those of which nobody knows."""

    values: NDArray[np.uint32]  # the texts' characters, as `candidates.padded` gives them
    found: Candidates
    is_name: NDArray[np.bool_]  # shape [candidates]


def judged(examples: Iterable[Example]) -> Judged:
    """Every candidate of the examples that is a name or is surely none."""
    import numpy as np

    some = list(examples)
    text = padded([example.text for example in some])
    found = candidates(text.values)
    ends = np.zeros(len(text.values), np.int64)
    unknown = np.zeros(len(text.values), np.bool_)
    for example, first in zip(some, text.starts.tolist(), strict=True):
        for start, end in example.names:
            ends[first + start] = first + end
        for start, end in example.unknown:
            unknown[first + start : first + end] = True
    is_name = ends[found.start] == found.end
    known = is_name | ~(unknown[found.start] | unknown[found.end - 1])
    return Judged(text.values, Candidates(*(column[known] for column in found)), is_name[known])


def columns(some: Judged) -> NDArray[np.uint32]:
    """The bins of the candidates' features, shape [candidates, templates]."""

    return names.features(some.values, some.found).T


def fit(bins: NDArray[np.uint32], is_name: NDArray[np.bool_], importance: NDArray[np.float64]) -> NDArray[np.int8]:
    """The weights, in steps, of a logistic regression without intercept, by L-BFGS, shape [2^BITS]."""
    import numpy as np
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    rows, width = bins.shape
    shape = (rows, 1 << names.BITS)
    matrix = csr_matrix((np.ones(rows * width, np.float32), bins.ravel().astype(np.int32), np.arange(0, rows * width + 1, width)), shape)
    transposed = matrix.T.tocsr()
    signs = np.where(is_name, np.float32(1), np.float32(-1))

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (matrix @ weights.astype(np.float32))
        slope = importance * signs / (1 + np.exp(np.clip(margins, -50, 50)))
        value = float(importance @ np.logaddexp(0, -margins) + PENALTY / 2 * (weights @ weights))
        return value, PENALTY * weights - transposed @ slope.astype(np.float32)

    found = minimize(loss, np.zeros(1 << names.BITS), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}).x
    steps: NDArray[np.int8] = np.clip(np.rint(found / STEP), -127, 127).astype(np.int8)
    return steps
