"""One dial: from a size's depth to every other number of a decoder's training, each by a stated rule, each open to be stated instead.

A rule reads what stands before it, so a stated width moves the heads, the budget, the batch and the rate that follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from llm_assets.training.decoders import DecoderShape
from llm_assets.training.encoder_decoders import EncoderDecoderShape

Size = Literal["nano", "micro", "small", "medium", "large"]
DEPTH: dict[Size, int] = {"nano": 2, "micro": 3, "small": 4, "medium": 8, "large": 12}
WIDTH_PER_LAYER = 64
HEAD = 64  # numbers
FEED_FORWARD = 8 / 3  # of the width: three matrices of that have the weights of a plain layer's two of four times the width
ROUND = 32  # to which the feed-forward width is rounded up: whole vectors of the cores
TOKENS_PER_PARAMETER = 20
BATCH_FACTOR = 2  # tokens an update = this times the root of the budget
SEQUENCE = 256  # tokens, by which the batch is counted in sequences
LARGEST_MICRO_BATCH = 16  # sequences
RATE, RATE_WIDTH = 3e-3, 256  # a good highest rate of AdamW at that width


class Derived(NamedTuple):
    """A number and the rule that it follows from."""

    value: Any
    reason: str


def derive(size: Size, processes: int, stated: Mapping[str, Any], encoder_decoder: bool = False) -> dict[str, Derived]:
    """Depth, width, heads, feed-forward width, tokens, batch and learning rate, in the order in which they follow from each other.

    ``stated`` are those that the user sets, by the same names; they are given back as they are. The batch is
    ``micro_batch`` x ``accumulation`` x ``processes``. An encoder-decoder has as many layers and weights as a decoder of its size.
    """
    found: dict[str, Derived] = {}

    def settle(name: str, value: Any, reason: str) -> Any:
        found[name] = Derived(stated[name], f"stated; size {size} alone would give {value}") if name in stated else Derived(value, reason)
        return found[name].value

    layers = settle("layers", DEPTH[size], f"size {size}: the one number that it sets")
    hidden = settle("hidden", WIDTH_PER_LAYER * layers, f"{WIDTH_PER_LAYER} a layer, so that depth and width grow together (Levine et al. 2020)")
    heads = settle("heads", max(1, hidden // HEAD), f"heads of {HEAD} numbers")
    inner = ROUND * math.ceil(FEED_FORWARD * hidden / ROUND)
    if encoder_decoder:
        attending = layers // 2 * 4 * hidden / (3 * layers)  # four matrices more in each of the decoder's layers, over three in every layer
        reason = f"a decoder's {inner} less {attending:.1f}, which attention to the source takes: equal weights, to a multiple of {ROUND}"
        inner = settle("intermediate", ROUND * max(1, round((inner - attending) / ROUND)), reason)
        parameters = EncoderDecoderShape(hidden=hidden, layers=layers, heads=heads, intermediate=inner).body_parameters
    else:
        keys = settle("key_value_heads", heads, "as many as heads: sharing them saves memory in serving, which a model this small does not need")
        inner = settle("intermediate", inner, f"8/3 of the width, up to a multiple of {ROUND} (Shazeer 2020: gated layers of equal weights)")
        shape = DecoderShape(architecture="llama", hidden=hidden, layers=layers, heads=heads, key_value_heads=keys, intermediate=inner)
        parameters = shape.layers * shape.layer_parameters
    reason = f"{TOKENS_PER_PARAMETER} a weight of the layers' {parameters:,} (Hoffmann et al. 2022, section 3); embeddings are not counted"
    budget = settle("tokens_budget", TOKENS_PER_PARAMETER * parameters, reason)
    wanted = 2 ** math.floor(math.log2(BATCH_FACTOR * math.sqrt(budget)))
    sequences = max(processes, wanted // SEQUENCE)
    rule = f"{BATCH_FACTOR} times the root of the budget, down to a power of 2 (Zhang et al. 2024)"
    reason = f"an update of {wanted:,} tokens, {rule}, as sequences of {SEQUENCE} over {processes} processes"
    micro = settle("micro_batch", min(LARGEST_MICRO_BATCH, max(1, sequences // processes)), f"{reason}, at most {LARGEST_MICRO_BATCH} at a time")
    settle("accumulation", max(1, sequences // (processes * micro)), f"{reason}, {micro} at a time")
    rate = float(f"{RATE * RATE_WIDTH / hidden:.3g}")
    settle("learning_rate", rate, f"{RATE:g} at a width of {RATE_WIDTH}, and as one over the width (Yang et al. 2022, table 3: Adam on matrices)")
    return found
