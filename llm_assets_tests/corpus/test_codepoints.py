from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.codepoints import flatten, hash_texts, letters, members, ngrams
from llm_assets.corpus.documents import text_key

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=8)


@given(TEXTS)
def test_characters_are_counted_within_their_text(texts: list[str]) -> None:
    points = flatten(texts)
    assert points.lengths.tolist() == [len(text) for text in texts]
    spaces = points.values == ord(" ")
    assert points.count(spaces).tolist() == [text.count(" ") for text in texts]
    assert "".join(map(chr, points.where(~spaces).values)) == "".join(texts).replace(" ", "")


def test_classes_are_those_of_unicode() -> None:
    points = flatten(["汉𠮷kaあ1", "", "\U000e0001"])
    assert points.count(members(points, r"\p{Han}")).tolist() == [2, 0, 0]
    assert points.count(members(points, r"\p{L}")).tolist() == [5, 0, 0]


@given(TEXTS)
def test_letters_are_the_text_key(texts: list[str]) -> None:
    simple = [text for text in texts if all(len(character.casefold()) == 1 for character in text)]
    points = letters(simple)
    keys = ["".join(map(chr, points.values[start:end])) for start, end in zip(points.starts[:-1], points.starts[1:], strict=True)]
    assert keys == [text_key(text) for text in simple]


@given(TEXTS)
def test_equal_texts_and_no_others_have_equal_hashes(texts: list[str]) -> None:
    hashes = hash_texts(flatten(texts)).tolist()
    assert [a == b for a in texts for b in texts] == [a == b for a in hashes for b in hashes]
    assert hashes == [hash_texts(flatten([text]))[0] for text in texts]  # whatever stands beside it


@given(TEXTS)
def test_ngrams_are_those_within_a_text(texts: list[str]) -> None:
    hashes, starts = ngrams(flatten(texts), 3)
    assert np.diff(starts).tolist() == [max(len(text) - 2, 0) for text in texts]
    known: dict[int, str] = {}
    runs = [text[place : place + 3] for text in texts for place in range(len(text) - 2)]
    assert len(runs) == len(hashes)
    assert all(known.setdefault(number, run) == run for number, run in zip(hashes.tolist(), runs, strict=True))
    assert len(known) == len(set(runs))
