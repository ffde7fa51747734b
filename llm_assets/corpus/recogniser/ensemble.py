"""What all networks together say of candidates, and their weights.

The first convolutional network puts most candidates aside. Where all of these together are unsure of a name the reader is
asked, and the mean of both stands; what the reader alone would take for a name is none.
`python -m llm_assets.training.recogniser.train` makes the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from llm_assets.corpus.recogniser import networks, recurrent
from llm_assets.corpus.recogniser.candidates import Candidates
from llm_assets.corpus.recogniser.networks import Network, Trained, Window, window
from llm_assets.corpus.recogniser.recurrent import Reader
from llm_assets.corpus.recogniser.weights import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHA256 = "682e3f4b9858fa1736f100ad9c0fd32825240eda20889aa39f2987160a3c1fdd"  # of networks.npz
BATCH = 256  # candidates at once: what the reader's layers are driven by takes 19 MB
HOPELESS = -1.5  # log odds by the first network under which the others are not asked
UNSURE = -0.5, 5.0  # mean log odds of the convolutional networks between which the reader is asked
READER = "reader_"  # before the names of the reader's arrays


class Shipped(NamedTuple):
    """All that is read from the file."""

    rows: NDArray[np.int64]  # by code point, the character's row of the embeddings, shape [2^16]; 1 for those without one
    filled: NDArray[np.bool_]  # of the lexicon
    networks: tuple[Network, ...]
    reader: Reader
    threshold: float  # log odds from which a candidate is a name


def log_odds(weights: Shipped, values: NDArray[np.uint32], found: Candidates) -> NDArray[np.float32]:
    """The log odds that each candidate is a name, shape [candidates], by as many networks as are asked of it.

    ``values`` are the characters of `candidates.padded`.
    """
    import numpy as np

    parts = (type(found)(*(column[first : first + BATCH] for column in found)) for first in range(0, len(found.start), BATCH))
    return np.concatenate([np.empty(0, np.float32), *(_asked(weights, window(values, part, weights.filled)) for part in parts)])


def _asked(weights: Shipped, seen: Window) -> NDArray[np.float32]:
    """The log odds of a batch: each network sees what those before it left open."""
    import numpy as np

    odds = glanced(weights, seen)
    if len(hopeful := np.flatnonzero(odds > HOPELESS)):
        odds[hopeful] = convolved(weights, seen.of(hopeful), odds[hopeful])
    if len(unsure := np.flatnonzero((odds > UNSURE[0]) & (odds < UNSURE[1]))):
        odds[unsure] = (odds[unsure] + read(weights, seen.of(unsure))) / np.float32(2)
    return odds


def glanced(weights: Shipped, seen: Window) -> NDArray[np.float32]:
    """The first convolutional network's log odds, shape [candidates]."""
    return networks.forward(weights.networks[0], networks.terms(weights.rows[seen.points], seen), seen.form)


def convolved(weights: Shipped, seen: Window, first: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of all convolutional networks, of which the first has answered."""
    import numpy as np

    found = networks.terms(weights.rows[seen.points], seen)
    total = first.copy()
    for network in weights.networks[1:]:
        total += networks.forward(network, found, seen.form)
    total /= np.float32(len(weights.networks))
    return total


def read(weights: Shipped, seen: Window) -> NDArray[np.float32]:
    """The reader's log odds."""
    return recurrent.forward(weights.reader, weights.rows[seen.around], seen.form)


@cache
def shipped() -> Shipped:
    """The weights beside the code. Raises ``ValueError`` where they are damaged."""
    return unpack(load("networks", SHA256))


def unpack(arrays: Mapping[str, NDArray[np.generic]]) -> Shipped:
    """Weights from the arrays of their file: those of `networks.Trained` have one more dimension, the networks."""
    import numpy as np

    rows = np.ones(1 << 16, np.int64)
    rows[arrays["characters"]] = np.arange(len(arrays["characters"])) + 2
    rows[0] = 0
    columns = {field: arrays[field] for field in Trained._fields}
    convolutional = tuple(networks.unpack({field: column[index] for field, column in columns.items()}) for index in range(len(columns["output"])))
    reader = recurrent.unpack({name.removeprefix(READER): array for name, array in arrays.items() if name.startswith(READER)})
    filled = np.unpackbits(arrays["lexicon"]).astype(np.bool_)  # type: ignore[arg-type]
    return Shipped(rows, filled, convolutional, reader, float(arrays["threshold"]))
