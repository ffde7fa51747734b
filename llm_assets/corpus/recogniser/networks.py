"""The second look at candidates: small convolutional networks over ten characters to either side.

Each character is an embedding, to which is added where words begin and end (`lexicon`) and its place in the window. A
convolution of three characters, a hidden layer and a weighted sum give log odds. Weights and activations are small integers
whose sums stay below 2^24, where float32 is exact: no batch, order of additions or machine changes a score. So what the taps of
the convolution make of each character is a table, made once, and the convolution a sum of its rows.
`python -m llm_assets.training.recogniser.train` makes the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from llm_assets.corpus.recogniser import lexicon
from llm_assets.corpus.recogniser.candidates import Candidates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_assets.corpus.recogniser.recurrent import Reader

REACH = 13  # characters before a candidate's start that a window holds, and after it less its longest size
WIDTH = 30  # characters of a window
SIDE = 14  # characters that each half sees: ten beside the candidate and four of it, from its start or up to its end
LEVELS = 100  # of an activation, from 0: 1,152 of them times 127 stay below 2^24
FORMS, TAPS = 4, 3
CONVOLVED = 2 * (SIDE - 2)  # places of the convolution, a half's after the other's
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
    """Integers as float32, and what turns sums into steps of the next layer. F filters, H hidden units."""

    terms: NDArray[np.float32]  # [rows, F]: what forms, marks and characters add to the sums, as `terms` finds them; 6 MB
    scale: NDArray[np.float32]  # [2 (SIDE - 2) F]
    hidden: NDArray[np.float32]  # [2 (SIDE - 2) F, H]
    hidden_bias: NDArray[np.float32]  # [4, H]
    hidden_scale: NDArray[np.float32]  # [H]
    output: NDArray[np.float32]  # [H]
    output_scale: NDArray[np.float32]  # [2]: a factor and what is added


class Trained(NamedTuple):
    """What the file holds of a network, integers as float32. D values a character; the rest as in `Network`."""

    embedding: NDArray[np.float32]  # [characters, D]
    words: NDArray[np.float32]  # [lexicon.MARKS, D]
    places: NDArray[np.float32]  # [4 forms, 2 SIDE, D]
    taps: NDArray[np.float32]  # [2 halves, D, 3 F]
    taps_bias: NDArray[np.float32]  # [2, F]
    taps_scale: NDArray[np.float32]  # [2, F]
    hidden: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    hidden_scale: NDArray[np.float32]
    output: NDArray[np.float32]
    output_scale: NDArray[np.float32]


def unpack(arrays: Mapping[str, NDArray[np.generic]]) -> Network:
    """A network from the arrays that training makes of it, those of `Trained`."""
    import numpy as np

    whole = Trained(**{field: arrays[field].astype(np.float32) for field in Trained._fields})
    values, filters = whole.taps.shape[1], whole.taps_bias.shape[1]

    def tapped(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        by_half: NDArray[np.float32] = (inputs @ whole.taps).reshape(2, -1, TAPS, filters)
        return by_half.transpose(1, 2, 0, 3).reshape(-1, filters)

    placed = (whole.places.reshape(-1, 2, SIDE, values) @ whole.taps).reshape(-1, 2, SIDE, TAPS, filters)
    sums = placed[:, :, :-2, 0] + placed[:, :, 1:-1, 1] + placed[:, :, 2:, 2] + whole.taps_bias[:, None]
    table = np.concatenate([sums.reshape(-1, filters), tapped(whole.words), tapped(whole.embedding)])
    return Network(table, np.repeat(whole.taps_scale, SIDE - 2, axis=0).ravel(), *whole[Trained._fields.index("hidden") :])


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


def terms(rows: NDArray[np.int64], seen: Window) -> NDArray[np.int64]:
    """The rows of `Network.terms` that add up to the sums of the convolution, shape [terms, candidates, 2 (SIDE - 2)].

    One for the form, one for the marks and one for the character under each tap. ``rows`` are the characters' rows of the
    embedding, shape [candidates, 2 SIDE]; the terms are those of all networks.
    """
    import numpy as np

    place = np.arange(CONVOLVED)
    half = place // (SIDE - 2)
    found = np.empty((1 + 2 * TAPS, len(rows), CONVOLVED), np.int64)
    found[0] = seen.form[:, None] * CONVOLVED + place
    for tap in range(TAPS):
        under, number = place + 2 * half + tap, 2 * tap + half  # each half ends two characters before the next begins
        found[1 + tap] = seen.words[:, under] * np.int64(2 * TAPS) + (FORMS * CONVOLVED + number)
        found[1 + TAPS + tap] = rows[:, under] * (2 * TAPS) + (FORMS * CONVOLVED + lexicon.MARKS * 2 * TAPS + number)
    return found


def forward(network: Network, found: NDArray[np.int64], form: NDArray[np.int64]) -> NDArray[np.float32]:
    """One network's log odds, shape [candidates]; ``found`` are their `terms`."""
    first, *others = found
    sums = network.terms.take(first, axis=0)
    for other in others:
        sums += network.terms.take(other, axis=0)
    return judged(network, steps(sums.reshape(len(form), len(network.hidden)), network.scale), form)


def judged(network: Network | Reader, activations: NDArray[np.float32], form: NDArray[np.int64]) -> NDArray[np.float32]:
    """The log odds that the hidden layer and the output make of activations."""
    hidden = activations @ network.hidden
    hidden += network.hidden_bias[form]
    factor, added = network.output_scale
    odds: NDArray[np.float32] = (steps(hidden, network.hidden_scale) @ network.output) * factor + added
    return odds


def steps(sums: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """A rectifier with whole numbers from 0 to LEVELS, which takes the place of the sums."""
    import numpy as np

    sums *= scale
    np.rint(sums, out=sums)
    np.maximum(sums, np.float32(0), out=sums)  # half the time of numpy.clip on few candidates
    return np.minimum(sums, np.float32(LEVELS), out=sums)
