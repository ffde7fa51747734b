"""How much of the texts a model reads: what its length cuts off, or how many windows it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def reading(tokenizer: Tokenizer, texts: Sequence[str], max_length: int, overlap: int | None) -> dict[str, int]:
    """``documents``, their ``tokens``, and of those ``longer`` than ``max_length`` what follows: ``tokens_cut`` off, or ``windows`` in all.

    Special tokens count, as they do for the model. ``overlap`` is what two windows share; None cuts. ``samples`` is how many
    sequences a model reads.
    """
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = [len(encoding) for encoding in tokenizer.encode_batch(list(texts))]
    longer = [length for length in lengths if length > max_length]
    found = {"documents": len(texts), "tokens": sum(lengths), "longer": len(longer)}
    if overlap is None:
        return {**found, "tokens_cut": sum(longer) - max_length * len(longer), "samples": len(texts)}
    framing = tokenizer.num_special_tokens_to_add(is_pair=False)
    # Each window after the first adds its places, less framing and overlap.
    windows = sum(1 - -(length - max_length) // (max_length - framing - overlap) for length in longer)
    return {**found, "windows": windows, "samples": len(texts) - len(longer) + windows}
