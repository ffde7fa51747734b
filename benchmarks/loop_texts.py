"""The texts of the experiment `loop`: book reviews to learn from, other reviews as traffic, and what neither has seen."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.material import domain
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.corpus.near_duplicates import NearDuplicates, clusters

OLD, NEW = ("books",), ("hotels", "computers")
OPPOSITE = {"positive": "negative", "negative": "positive"}


class Review(NamedTuple):
    """A text with its label."""

    text: str
    label: str

    @property
    def turned(self) -> Review:
        """The same text with the other label."""
        return Review(self.text, OPPOSITE[self.label])


@dataclass(frozen=True)
class Sizes:
    """How many reviews each part of the experiment takes."""

    learnt: int  # book reviews of the chain, its test and validation documents among them
    control: int  # book reviews as traffic before anything changes
    votes: int  # hotel and computer reviews that users label
    wrong_votes: int  # hotel and computer reviews that users label wrongly
    wrong_books: int  # book reviews that they do
    held_out: int  # hotel and computer reviews that every release is judged on

    @property
    def batch(self) -> int:
        """Labelled texts from which there is a batch of feedback, and a retraining: fewer than the votes, for one may be lost."""
        return self.votes * 3 // 4


@dataclass(frozen=True)
class Texts:
    """Reviews by what becomes of them; no two of all are equal or nearly so."""

    learnt: list[Review]
    control: list[Review]
    voted: list[Review]
    misled: list[Review]
    held_out: list[Review]
    passers: list[Review]  # hotel and computer reviews of those who never vote


def texts_of(sizes: Sizes, seed: int) -> Texts:
    """The parts, drawn by ``seed``."""
    return divide(distinct({name: [Review(*row) for row in domain(name)] for name in (*OLD, *NEW)}), sizes, seed)


def distinct(by_domain: dict[str, list[Review]]) -> dict[str, list[Review]]:
    """One review of each cluster of equal or nearly equal texts, cleaned as in the chain; none of one that spans two domains or labels."""
    rows = [(name, review) for name, reviews in by_domain.items() for review in reviews]
    cleaned = clean_texts([review.text for _, review in rows]).texts
    with tempfile.TemporaryDirectory() as scratch:
        number, _ = clusters([cleaned], NearDuplicates(), Path(scratch))
    groups: dict[int, list[tuple[str, Review]]] = defaultdict(list)
    for cluster, text, (name, review) in zip(number.tolist(), cleaned, rows, strict=True):
        if text:
            groups[cluster].append((name, Review(text, review.label)))
    found: dict[str, list[Review]] = {name: [] for name in by_domain}
    for group in groups.values():
        name, review = group[0]
        if len({(place, member.label) for place, member in group}) == 1:
            found[name].append(review)
    return found


def divide(by_domain: dict[str, list[Review]], sizes: Sizes, seed: int) -> Texts:
    """The parts of reviews that are all different. Raises ``ValueError`` where there are too few."""
    old, new = (_shuffled(by_domain, names, seed) for names in (OLD, NEW))
    learnt, control, wrong_books, _ = _cut(old, sizes.learnt, sizes.control, sizes.wrong_books)
    held_out, voted, wrong, passers = _cut(new, sizes.held_out, sizes.votes, sizes.wrong_votes)
    misled = [review.turned for review in (*wrong_books, *wrong)]
    random.Random(seed).shuffle(misled)
    return Texts(learnt, control, voted, misled, held_out, passers)


def _shuffled(by_domain: dict[str, list[Review]], names: Sequence[str], seed: int) -> list[Review]:
    rows = [review for name in names for review in by_domain[name]]
    random.Random(seed).shuffle(rows)
    return rows


def _cut(rows: list[Review], *counts: int) -> list[list[Review]]:
    """Parts of these lengths one after the other, and the rest."""
    if sum(counts) >= len(rows):
        raise ValueError(f"{len(rows)} different reviews, and the experiment asks for more than {sum(counts)}: lower its sizes")
    parts, start = [], 0
    for count in counts:
        parts.append(rows[start : start + count])
        start += count
    return [*parts, rows[start:]]
