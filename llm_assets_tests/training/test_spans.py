"""Spans: as many as stated, apart from each other, and a text that comes back from what is left and what was cut out."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.training.spans import amounts, cut_out, draw

SENTINELS = tuple(range(1000, 1400))


def put_back(source: list[int], removed: list[int]) -> list[int]:
    """Each sentinel of the source replaced by what stands after it among what was removed."""
    spans: dict[int, list[int]] = {}
    for token in removed:
        if token in SENTINELS:
            spans[last := token] = []
        else:
            spans[last].append(token)
    return [token for one in source for token in (spans.pop(one) if one in spans else [one])]


@given(length=st.integers(0, 300), corruption=st.floats(0.01, 0.99), mean_span=st.floats(1, 10), seed=st.integers(0, 9))
def test_a_text_comes_back_from_what_is_left_and_what_was_cut_out(length: int, corruption: float, mean_span: float, seed: int) -> None:
    tokens = numpy.arange(length)
    spans = draw(length, corruption, mean_span, numpy.random.default_rng(seed))
    source, removed = cut_out(tokens, spans, SENTINELS)
    assert put_back(source, removed) == tokens.tolist()
    cut, count = amounts(length, corruption, mean_span)
    assert len(spans) == count and sum(stop - start for start, stop in spans) == cut == round(length * corruption)
    assert all(start < stop for start, stop in spans) and all(one[1] < other[0] for one, other in itertools.pairwise(spans))
    assert [token for token in source if token in SENTINELS] == [token for token in removed if token in SENTINELS] == list(SENTINELS[:count])
    assert len(source) + len(removed) == length + 2 * count


def test_by_hand() -> None:
    """The paper's own example: two spans of `Thank you for inviting me to your party last week`."""
    words = numpy.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert cut_out(words, [(2, 4), (8, 9)], (90, 91)) == ([1, 2, 90, 5, 6, 7, 8, 91, 10], [90, 3, 4, 91, 9])
    assert amounts(256, 0.15, 3) == (38, 13) and amounts(3, 0.15, 3) == (0, 0) and draw(3, 0.15, 3, numpy.random.default_rng(0)) == []


def test_every_way_to_cut_is_as_likely() -> None:
    """Of 5 tokens 2 are cut out in 2 spans: 6 ways to choose two that are not neighbours."""
    random = numpy.random.default_rng(0)
    found = Counter(tuple(draw(5, 0.4, 1, random)) for _ in range(3000))
    assert len(found) == 6 and all(count == pytest.approx(500, abs=80) for count in found.values())
