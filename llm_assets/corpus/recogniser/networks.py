"""The second look at candidates: small convolutional networks over ten characters to either side.

Each character is an embedding, to which is added where words begin and end (`lexicon`) and its place in the window. A
convolution of three characters, a hidden layer and a weighted sum give log odds. Weights and activations are small integers
whose sums stay below 2^24, where float32 is exact: no batch, order of additions or machine changes a score.
`python -m llm_assets.training.recogniser.train` makes the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llm_assets.corpus.recogniser import lexicon
from llm_assets.corpus.recogniser.candidates import Candidates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REACH = 13  # characters before a candidate's start that a window holds, and after it less its longest size
WIDTH = 30  # characters of a window
SIDE = 14  # characters that each half sees: ten beside the candidate and four of it, from its start or up to its end
LEVELS = 100  # of an activation, from 0: 1,152 of them times 127 stay below 2^24
BEFORE, PLACES = 10, 24  # characters before a candidate's start that `recurrent` reads, and all that it reads


class Window(NamedTuple):
    """What the networks see of some candidates."""

    points: NDArray[np.uint32]  # characters, shape [candidates, 2 SIDE]: the half around the start, then that around the end
    words: NDArray[np.uint8]  # `lexicon.marks` of them
    form: NDArray[np.int64]  # 0 to 3, shape [candidates]: one or two characters of surname, and of given name
    around: NDArray[np.uint32]  # characters that `recurrent` reads, shape [candidates, PLACES]

    def of(self, candidates: NDArray[np.int64]) -> Window:
        """What they see of some of the candidates."""
        return Window(self.points[candidates], self.words[candidates], self.form[candidates], self.around[candidates])


class Network(NamedTuple):
    """Integers as float32, and what turns sums into steps of the next layer. F filters, H hidden units, D values a character."""

    embedding: NDArray[np.float32]  # [characters, D]
    words: NDArray[np.float32]  # [lexicon.MARKS, D]
    places: NDArray[np.float32]  # [4 forms, 2 SIDE, D]
    taps: NDArray[np.float32]  # [2 halves, D, 3 F]
    taps_bias: NDArray[np.float32]  # [2, F]
    taps_scale: NDArray[np.float32]  # [2, F]
    hidden: NDArray[np.float32]  # [2 (SIDE - 2) F, H]
    hidden_bias: NDArray[np.float32]  # [4, H]
    hidden_scale: NDArray[np.float32]  # [H]
    output: NDArray[np.float32]  # [H]
    output_scale: NDArray[np.float32]  # [2]: a factor and what is added


def window(values: NDArray[np.uint32], found: Candidates, filled: NDArray[np.bool_]) -> Window:
    """What the networks see of candidates; ``values`` are the characters of `candidates.padded`."""
    import numpy as np

    start, given, end = (column[:, None] for column in found)
    points = values[start + np.arange(-REACH, WIDTH - REACH)]
    size = end - start
    columns = np.arange(-SIDE, SIDE) + np.where(np.arange(2 * SIDE) < SIDE, 4, size - 4) + REACH
    form = (given - start - 1) * 2 + end - given - 1
    rows = np.arange(len(start))[:, None]
    around = points[:, REACH - BEFORE : REACH - BEFORE + PLACES]
    return Window(points[rows, columns], lexicon.marks(filled, points)[rows, columns], form[:, 0], around)


def forward(network: Network, rows: NDArray[np.int64], seen: Window) -> NDArray[np.float32]:
    """One network's log odds, shape [candidates]."""
    import numpy as np

    count, filters = len(rows), network.taps_bias.shape[1]
    layers = []
    for half in range(2):
        part = slice(half * SIDE, (half + 1) * SIDE)
        inputs = network.embedding[rows[:, part]] + network.words[seen.words[:, part]]
        inputs += network.places[:, part][seen.form]
        taps = (inputs.reshape(count * SIDE, inputs.shape[2]) @ network.taps[half]).reshape(count, SIDE, 3, filters)
        sums = taps[:, :-2, 0] + taps[:, 1:-1, 1] + taps[:, 2:, 2] + network.taps_bias[half]
        layers.append(steps(sums, network.taps_scale[half]).reshape(count, (SIDE - 2) * filters))
    hidden = np.concatenate(layers, axis=1) @ network.hidden + network.hidden_bias[seen.form]
    factor, added = network.output_scale
    odds: NDArray[np.float32] = (steps(hidden, network.hidden_scale) @ network.output) * factor + added
    return odds


def steps(sums: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """A rectifier with whole numbers from 0 to LEVELS."""
    import numpy as np

    whole: NDArray[np.float32] = np.rint(sums * scale)
    np.maximum(whole, np.float32(0), out=whole)  # half the time of numpy.clip on few candidates
    np.minimum(whole, np.float32(LEVELS), out=whole)
    return whole
