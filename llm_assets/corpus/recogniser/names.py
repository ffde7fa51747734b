"""Chinese personal names in running text: what follows a surname is a candidate, looked at twice and more.

A logistic regression over its characters puts aside six candidates in seven; of the rest networks decide (`ensemble`). The
regression's features are hashed (Weinberger et al. 2009, arXiv 0902.2206): the candidate's characters, its neighbours, and
pairs across its edges.
`python -m llm_assets.training.recogniser.train` makes the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from llm_assets.corpus.recogniser import ensemble
from llm_assets.corpus.recogniser.candidates import Candidates, candidates, padded, pairs_at
from llm_assets.corpus.recogniser.weights import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHA256 = "1c847cf338855bea99311fc5e5d5d71f3145dcd30b59b070ac63c25fe19e2e37"  # other weights are other behaviour: the code names them
BITS = 19
DOUBTFUL = -6.0  # log odds by the regression from which the networks look: one candidate in seven, and 98.7% of the names in development text
MULTIPLIERS = (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35)  # odd, bits spread: the primes of xxHash32
PARTS = ("size", "surname", "first", "second", "last", "before", "before2", "after", "after2")
TEMPLATES = (
    "size", "surname size", "first size", "second size", "first second", "surname first size", "surname first second",
    "before", "before size", "before before2", "before surname", "before surname first", "after size", "after after2",
    "last after size", "last after after2", "first second after", "surname after size", "before after", "before2", "after2",
)  # fmt: skip
AT_ONCE = 4096  # candidates whose features are in memory together, 1 MB


def find_names(texts: Sequence[str]) -> dict[int, list[tuple[int, int]]]:
    """Start and end of every name, in order and without overlaps, by the index of its text; texts without one are left out.

    Of candidates that overlap the likelier one stands. What stands in one text changes nothing in another.
    Raises ``ValueError`` where the shipped weights are damaged.
    """
    import numpy as np

    text = padded(texts)
    found = candidates(text.values)
    doubtful = log_odds(text.values, found) > DOUBTFUL
    found = Candidates(*(column[doubtful] for column in found))
    scores = ensemble.log_odds(ensemble.shipped(), text.values, found)
    likely = np.flatnonzero(scores > ensemble.shipped().threshold)
    likely = likely[np.lexsort((found.start[likely], -scores[likely]))]
    index = np.searchsorted(text.starts, found.start[likely], side="right") - 1
    names: dict[int, list[tuple[int, int]]] = {}
    taken: set[int] = set()
    for place, start, end in zip(index.tolist(), found.start[likely].tolist(), found.end[likely].tolist(), strict=True):
        if taken.isdisjoint(range(start, end)):
            taken.update(range(start, end))
            first = int(text.starts[place])
            names.setdefault(place, []).append((start - first, end - first))
    return {place: sorted(names[place]) for place in sorted(names)}


def log_odds(values: NDArray[np.uint32], found: Candidates) -> NDArray[np.float32]:
    """How likely the regression takes each candidate for a name rather than not, shape [candidates]."""
    import numpy as np

    weights, step = _weights()
    total = np.empty(len(found.start), np.int32)
    for first in range(0, len(total), AT_ONCE):
        some = Candidates(*(column[first : first + AT_ONCE] for column in found))
        total[first : first + AT_ONCE] = weights[features(values, some)].sum(axis=0, dtype=np.int32)
    return total.astype(np.float32) * step


def features(values: NDArray[np.uint32], found: Candidates) -> NDArray[np.uint32]:
    """The bins of each candidate's features, below 2^BITS, one row a template: shape [templates, candidates]."""
    import numpy as np

    start, given, end = found
    size = (end - given).astype(np.uint32)
    surname = np.where(given - start == 2, pairs_at(values, start), values[start]).astype(np.uint32)
    first, last = values[given], values[end - 1]
    second = np.where(size == 2, last, 0).astype(np.uint32)
    before, before2, after, after2 = values[start - 1], values[start - 2], values[end], values[end + 1]
    parts = np.stack([np.zeros_like(size), size, surname, first, second, last, before, before2, after, after2])
    mixed = _salts() + (parts[_places()] * np.array(MULTIPLIERS, np.uint32)[:, None, None]).sum(axis=0, dtype=np.uint32)
    mixed ^= mixed >> np.uint32(15)  # the finalizer of MurmurHash3, without its last step
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    bins: NDArray[np.uint32] = mixed >> np.uint32(32 - BITS)
    return bins


@cache
def _places() -> NDArray[np.int64]:
    """For each multiplier and template the row of its part, shape [multipliers, templates]; row 0 holds nothing."""
    import numpy as np

    places = np.zeros((len(MULTIPLIERS), len(TEMPLATES)), np.int64)
    for number, template in enumerate(TEMPLATES):
        for place, part in enumerate(template.split()):
            places[place, number] = 1 + PARTS.index(part)
    return places


@cache
def _salts() -> NDArray[np.uint32]:
    """What tells the templates apart, shape [templates, 1]."""
    import numpy as np

    return np.array([[number * MULTIPLIERS[0] & 0xFFFFFFFF] for number in range(len(TEMPLATES))], np.uint32)


@cache
def _weights() -> tuple[NDArray[np.int8], np.float32]:
    """The weights in steps, shape [2^BITS], and the log odds of a step."""
    import numpy as np

    arrays = load("names", SHA256)
    weights, step = arrays["weights"], arrays["step"]
    return weights.astype(np.int8), np.float32(step)
