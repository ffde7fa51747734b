"""The last look at candidates: a network that reads the characters around one, onwards and backwards, twice.

Two bidirectional layers of gated recurrent units (Cho et al. 2014, arXiv 1406.1078), which LAC's small model began and which
knows more words than marked text teaches; a hidden layer looks at what they hold beside the candidate's ends. In small integers
as the other `networks`: gates and states are whole steps, the curves of the units are tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from llm_assets.corpus.recogniser.networks import BEFORE, judged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LAYERS = 2
FIRST, LAST = BEFORE - 1, BEFORE + 4  # places that the hidden layer sees; the second layer reads up to them from either side
STEPS = 500  # of a gate from 0 and of a state to either side: 256 of them times 127 stay below 2^24
FINER = 5  # steps of a state in one that the hidden layer sees, since that adds up 1,024 of them
CURVE = 256  # entries of a table for one unit of its argument
REACHED = 8  # arguments from -8 to 8 have an entry, those beyond get the last
SHUT = -1e9  # to an update gate, which then keeps the state whatever else it gets: the logistic function of -8 is less than half a step


class Layer(NamedTuple):
    """One layer, onwards and backwards. U units; scales turn sums into entries of a table, the bias holds the middle one already."""

    inputs: NDArray[np.float32]  # [2, inputs, 3 U]: to the update gate, the reset gate, the fresh state
    inputs_scale: NDArray[np.float32]  # [2, 1, 3 U]
    bias: NDArray[np.float32]  # [2, 1, 3 U]
    gates: NDArray[np.float32]  # [2, U, 2 U]: from the state to both gates
    gates_scale: NDArray[np.float32]  # [2, 1, 2 U]
    fresh: NDArray[np.float32]  # [2, U, U]: from what the reset gate leaves of the state to the fresh one
    fresh_scale: NDArray[np.float32]  # [2, 1, U]


class Reader(NamedTuple):
    """Integers as float32, and what turns sums into steps of the next layer. H hidden units."""

    driven: NDArray[np.float32]  # [2 x characters, 3 U]: by `_driven` in the first layer, onwards and then backwards; 15 MB
    layers: tuple[Layer, ...]
    hidden: NDArray[np.float32]  # [4 places x 2 U, H]
    hidden_bias: NDArray[np.float32]  # [4 forms, H]
    hidden_scale: NDArray[np.float32]  # [H]
    output: NDArray[np.float32]  # [H]
    output_scale: NDArray[np.float32]  # [2]: a factor and what is added


def unpack(arrays: Mapping[str, NDArray[np.generic]]) -> Reader:
    """A reader from the arrays that training makes of it: in those each direction of a layer stands alone."""
    import numpy as np

    whole = {name: array.astype(np.float32) for name, array in arrays.items()}
    layers = tuple(_layer(whole, 2 * number) for number in range(LAYERS))
    driven = _driven(layers[0], whole["embedding"])
    driven[:, 0, : layers[0].gates.shape[1]] = SHUT  # the row of no character
    rest = {field: whole[field] for field in Reader._fields if field in whole}
    return Reader(driven=driven.reshape(-1, driven.shape[2]), layers=layers, **rest)


def _layer(arrays: Mapping[str, NDArray[np.float32]], onwards: int) -> Layer:
    """The layer whose directions have the number ``onwards`` and the next one."""
    import numpy as np

    def both(field: str) -> NDArray[np.float32]:
        return np.stack([np.atleast_2d(arrays[f"{field}_{number}"]) for number in (onwards, onwards + 1)])

    states, scale = both("states"), both("states_scale")
    gates, fresh = slice(0, 2 * states.shape[1]), slice(2 * states.shape[1], None)
    parts = (np.ascontiguousarray(some[:, :, part]) for part in (gates, fresh) for some in (states, scale))
    return Layer(both("inputs"), both("inputs_scale"), both("bias"), *parts)


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
    return judged(reader, np.rint(seen / np.float32(FINER)), form)


def states(reader: Reader, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the second layer holds from place FIRST to LAST, in steps, shape [places, candidates, 2 U]."""
    import numpy as np

    first, second = reader.layers
    characters = len(reader.driven) // 2
    held = _read(first, reader.driven.take(np.stack([rows.T, rows.T[::-1] + characters]), axis=0))
    joint = np.concatenate([held[0], held[1, ::-1]], axis=2)
    ahead, behind = slice(0, LAST + 1), slice(None, FIRST - 1, -1)  # as far as any of these places needs
    inputs = np.stack([joint[ahead], joint[behind]])
    driven = _driven(second, inputs.reshape(2, -1, joint.shape[2])).reshape(*inputs.shape[:3], -1)
    written = rows.T > 0
    driven[~np.stack([written[ahead], written[behind]]), : held.shape[3]] = SHUT
    held = _read(second, driven)
    return np.concatenate([held[0, FIRST:], held[1, ::-1][: LAST + 1 - FIRST]], axis=2)


def _driven(layer: Layer, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What inputs add to the gates' and the fresh state's entries, shape [2, rows, 3 U]; inputs of both directions, or one for both."""
    sums: NDArray[np.float32] = inputs @ layer.inputs
    sums *= layer.inputs_scale
    sums += layer.bias
    return sums


def _read(layer: Layer, driven: NDArray[np.float32]) -> NDArray[np.float32]:
    """The states of a layer after each place, shape [2, places, candidates, U], each direction in the order in which it reads.

    Both directions take a step together, in place where they can: of few candidates most of a step is numpy's calls.
    """
    import numpy as np

    _, places, count, width = driven.shape
    units = width // 3
    gates, fresh = slice(0, 2 * units), slice(2 * units, None)
    sigmoid, tangent = _curves()
    state = np.zeros((2, count, units), np.float32)
    held = np.empty((2, places, count, units), np.float32)
    for place in range(places):
        opened = _entry(sigmoid, state @ layer.gates, layer.gates_scale, driven[:, place, :, gates])
        update, reset = opened[:, :, :units], opened[:, :, units:]
        left = _share(reset * state)
        new = _entry(tangent, left @ layer.fresh, layer.fresh_scale, driven[:, place, :, fresh])
        new -= state
        new *= update
        state = held[:, place] = state + _share(new)
    return held


def _entry(table: NDArray[np.float32], sums: NDArray[np.float32], scale: NDArray[np.float32], driven: NDArray[np.float32]) -> NDArray[np.float32]:
    """The entries that sums and what drives them come to; takes the place of the sums."""
    import numpy as np

    sums *= scale
    sums += driven
    np.rint(sums, out=sums)
    found: NDArray[np.float32] = table.take(sums.astype(np.intp), mode="clip")
    return found


def _share(product: NDArray[np.float32]) -> NDArray[np.float32]:
    """Steps times steps as steps, in place."""
    import numpy as np

    product /= np.float32(STEPS)
    return np.rint(product, out=product)


@cache
def _curves() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The logistic function and the hyperbolic tangent in steps, by their arguments from -REACHED to REACHED."""
    import numpy as np

    arguments = np.arange(-REACHED * CURVE, REACHED * CURVE + 1) / CURVE
    return np.rint(STEPS / (1 + np.exp(-arguments))).astype(np.float32), np.rint(STEPS * np.tanh(arguments)).astype(np.float32)
