"""Spans cut out of a text, for which sentinels stand (Raffel et al. 2020, section 3.1.4): where they are drawn, and the two texts that result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy


def amounts(length: int, corruption: float, mean_span: float) -> tuple[int, int]:
    """How many of ``length`` tokens are cut out, and in how many spans: the numbers nearest to the two shares; none of a text too short for one."""
    cut = round(length * corruption)
    return cut, min(max(1, round(cut / mean_span)), length - cut + 1) if cut else 0


def draw(length: int, corruption: float, mean_span: float, random: numpy.random.Generator) -> list[tuple[int, int]]:
    """Spans of a text of ``length`` tokens, ascending, as (first token, token after the last).

    Their number and that of their tokens are fixed by the length; every way to cut so many tokens into so many spans, and to keep a token
    or more between two of them, is equally likely. T5's own code ends every text with a span; here one may end anywhere.
    """
    cut, count = amounts(length, corruption, mean_span)
    if not count:
        return []
    sizes = _parts(cut, count, random)
    between = _parts(length - cut + 2, count + 1, random)  # before the first and after the last there may be nothing
    between[[0, -1]] -= 1
    starts = numpy.cumsum(between[:-1]) + numpy.cumsum(sizes) - sizes
    return [(start, start + size) for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)]


def _parts(total: int, count: int, random: numpy.random.Generator) -> numpy.ndarray:
    """``count`` positive numbers that add up to ``total``, every such sequence equally likely."""
    cuts = numpy.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    return numpy.diff(cuts, prepend=0, append=total)


def cut_out(tokens: numpy.ndarray, spans: Sequence[tuple[int, int]], sentinels: Sequence[int]) -> tuple[list[int], list[int]]:
    """The text with a sentinel in place of each span, and each span after its sentinel; nothing and nothing of no span."""
    left: list[int] = []
    removed: list[int] = []
    end = 0
    for (start, stop), sentinel in zip(spans, sentinels, strict=False):
        left += [*tokens[end:start].tolist(), sentinel]
        removed += [sentinel, *tokens[start:stop].tolist()]
        end = stop
    return [*left, *tokens[end:].tolist()], removed
