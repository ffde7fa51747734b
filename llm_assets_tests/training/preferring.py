"""Pairs of replies that a decoder of 20,000 parameters can learn to prefer against what it has read: that a thing is not of its colour."""

from __future__ import annotations

from llm_assets.corpus.documents import doc_id
from llm_assets.training.pairs import Pair
from llm_assets_tests.training.talking import dialogues, messages


def pairs(count: int, split: str = "train", first: int = 0) -> list[Pair]:
    """Of the dialogues of two turns from the ``first`` on; numbers make each reply its dialogue's own."""
    found = []
    for number, text in enumerate(dialogues(2 * (first + count))[::2][first:], first):
        thing, colour = text.split("\n")[1].split(" is ")
        right, wrong = f"{thing} is not {colour}, {number}", f"{thing} is {colour}, {number}"
        found.append(Pair(doc_id(f"{messages(text)[0]['content']}\n{right}"), split, messages(text)[:1], right, wrong))
    return found
