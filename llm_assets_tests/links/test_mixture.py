from __future__ import annotations

import pytest

from llm_assets.links.mixture import Mixture, is_validation

NAMES = [f"{number:020x}" for number in range(400)]


def test_a_fraction_is_drawn_by_the_document_alone() -> None:
    mixture = Mixture({"a": 1.5}, 0.02)
    drawn = [mixture.copies(name, "a") for name in NAMES if not is_validation(name, 0.02)]
    assert set(drawn) == {1, 2} and 0.4 < drawn.count(2) / len(drawn) < 0.6


def test_held_out_documents_and_sources_without_a_weight_stand_once() -> None:
    mixture = Mixture({"a": 0.0}, 0.1)
    held_out = [name for name in NAMES if is_validation(name, 0.1)]
    assert 20 < len(held_out) < 60 and {mixture.copies(name, "a") for name in held_out} == {1}
    assert {mixture.copies(name, "b") for name in NAMES} == {1}
    assert {mixture.copies(name, "a") for name in NAMES} == {0, 1}


def test_copies_stand_a_whole_round_apart() -> None:
    order = Mixture({"a": 3.0, "b": 2.0, "c": 0.0}, 0.0).order([("0", "a"), ("1", "b"), ("2", "c"), ("3", "a")], "abc")
    assert order.tolist() == [0, 1, 3, 0, 1, 3, 0, 3]
    assert Mixture({"a": 1.0}, 0.0).order([], "a").tolist() == []


def test_a_weight_of_a_source_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens.weights names films; the clean corpus has documents of news, positive"):
        Mixture({"films": 1.0}, 0.02).order([("0", "news")], ("positive", "news"))
