"""The last look at candidates: a network that reads the characters around one, onwards and backwards, twice.

Two bidirectional layers of gated recurrent units (Cho et al. 2014, arXiv 1406.1078), which LAC's small model began and which
knows more words than marked text teaches; a hidden layer looks at what they hold beside the candidate's ends. In small integers
as the other `networks`: gates and states are whole steps, the curves of the units are tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from llm_assets.corpus.recogniser.networks import BEFORE, steps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LAYERS = 4
FIRST, LAST = BEFORE - 1, BEFORE + 4  # places that the hidden layer sees
STEPS = 500  # of a gate from 0 and of a state to either side: 256 of them times 127 stay below 2^24
FINER = 5  # steps of a state in one that the hidden layer sees, since that adds up 1,024 of them
CURVE = 256  # entries of a table for one unit of its argument
REACHED = 8  # arguments from -8 to 8 have an entry, those beyond get the last


class Layer(NamedTuple):
    """One layer in one direction. U units; scales turn sums into entries of a table, the bias holds the middle one already."""

    inputs: NDArray[np.float32]  # [inputs, 3 U]: to the update gate, the reset gate, the fresh state
    inputs_scale: NDArray[np.float32]  # [3 U]
    states: NDArray[np.float32]  # [U, 3 U], likewise; the fresh state gets what the reset gate leaves of the state
    states_scale: NDArray[np.float32]  # [3 U]
    bias: NDArray[np.float32]  # [3 U]


class Reader(NamedTuple):
    """Integers as float32, and what turns sums into steps of the next layer. H hidden units."""

    embedding: NDArray[np.float32]  # [characters, U]
    layers: tuple[Layer, ...]  # the first onwards and backwards, then the second
    hidden: NDArray[np.float32]  # [4 places x 2 U, H]
    hidden_bias: NDArray[np.float32]  # [4 forms, H]
    hidden_scale: NDArray[np.float32]  # [H]
    output: NDArray[np.float32]  # [H]
    output_scale: NDArray[np.float32]  # [2]: a factor and what is added


def unpack(arrays: Mapping[str, NDArray[np.generic]]) -> Reader:
    """A reader from the arrays that training makes of it."""
    import numpy as np

    whole = {name: array.astype(np.float32) for name, array in arrays.items()}
    layers = tuple(Layer(*(whole[f"{field}_{number}"] for field in Layer._fields)) for number in range(LAYERS))
    return Reader(layers=layers, **{field: whole[field] for field in Reader._fields if field != "layers"})


def looked_at(form: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """The places that the hidden layer sees, each of shape [candidates]: before and at the candidate's start, at and after its end."""
    import numpy as np

    start = np.full(len(form), BEFORE)
    end = start + form // 2 + form % 2 + 2
    return start - 1, start, end - 1, end


def forward(reader: Reader, rows: NDArray[np.int64], form: NDArray[np.int64]) -> NDArray[np.float32]:
    """The log odds of candidates, shape [candidates]; ``rows`` of the embedding for what is read, shape [candidates, PLACES]."""
    import numpy as np

    held = states(reader, rows)
    seen = np.concatenate([held[place - FIRST, np.arange(len(form))] for place in looked_at(form)], axis=1)
    hidden = np.rint(seen / np.float32(FINER)) @ reader.hidden + reader.hidden_bias[form]
    factor, added = reader.output_scale
    odds: NDArray[np.float32] = (steps(hidden, reader.hidden_scale) @ reader.output) * factor + added
    return odds


def states(reader: Reader, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the second layer holds from place FIRST to LAST, in steps, shape [places, candidates, 2 U]."""
    import numpy as np

    written = rows.T[:, :, None] > 0
    onwards, backwards, again, back_again = reader.layers
    read = reader.embedding[rows.T]
    read = np.concatenate([_read(onwards, read, written), _read(backwards, read[::-1], written[::-1])[::-1]], axis=2)
    ahead, behind = slice(0, LAST + 1), slice(None, FIRST - 1, -1)  # as far as any of these places needs
    held_ahead = _read(again, read[ahead], written[ahead])[FIRST:]
    held_behind = _read(back_again, read[behind], written[behind])[::-1][: LAST + 1 - FIRST]
    return np.concatenate([held_ahead, held_behind], axis=2)


def _read(layer: Layer, inputs: NDArray[np.float32], written: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The states of a layer after each place, shape [places, candidates, U]; where nothing is written they stay."""
    import numpy as np

    places, count, width = inputs.shape
    units = layer.states.shape[0]
    driven = (inputs.reshape(places * count, width) @ layer.inputs) * layer.inputs_scale + layer.bias
    driven = driven.reshape(places, count, 3 * units)
    sigmoid, tangent = _curves()
    gates, fresh = slice(0, 2 * units), slice(2 * units, None)
    state = np.zeros((count, units), np.float32)
    held = np.empty((places, count, units), np.float32)
    for place in range(places):
        opened = _entry(sigmoid, driven[place, :, gates] + (state @ layer.states[:, gates]) * layer.states_scale[gates])
        update, reset = opened[:, :units], opened[:, units:]
        left = np.rint(reset * state / np.float32(STEPS))
        new = _entry(tangent, driven[place, :, fresh] + (left @ layer.states[:, fresh]) * layer.states_scale[fresh])
        state = held[place] = state + np.rint(update * (new - state) / np.float32(STEPS)) * written[place]
    return held


def _entry(table: NDArray[np.float32], argument: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    found: NDArray[np.float32] = table.take(np.rint(argument).astype(np.int32), mode="clip")
    return found


@cache
def _curves() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The logistic function and the hyperbolic tangent in steps, by their arguments from -REACHED to REACHED."""
    import numpy as np

    arguments = np.arange(-REACHED * CURVE, REACHED * CURVE + 1) / CURVE
    return np.rint(STEPS / (1 + np.exp(-arguments))).astype(np.float32), np.rint(STEPS * np.tanh(arguments)).astype(np.float32)
