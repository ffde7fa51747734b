"""How far annotators agree: Cohen's kappa of every two of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Agreement:
    """How far two annotators agree: Cohen's kappa (Cohen 1960), 1 for always and 0 for as often as by chance."""

    annotators: tuple[str, str]
    texts: int  # that both labelled
    kappa: float


def agreements(ballots: Sequence[Mapping[str, str]], common: int) -> list[Agreement]:
    """Every two annotators with so many texts in common; ``ballots`` holds a label by annotator for each text."""
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for ballot in ballots:
        for one, other in combinations(sorted(ballot), 2):
            pairs[one, other].append((ballot[one], ballot[other]))
    return [Agreement(pair, len(labels), cohens_kappa(labels)) for pair, labels in sorted(pairs.items()) if len(labels) >= common]


def cohens_kappa(labels: Sequence[tuple[str, str]]) -> float:
    """Cohen's kappa of two annotators' labels of the same texts, at least one; 1 where both said the same one thing of all.

    Scikit-learn has it too, and takes a second to import, in which a gateway would answer nobody; a test holds the two together.
    """
    total = len(labels)
    one, other = (Counter(side) for side in zip(*labels, strict=True))
    by_chance = sum(count * other[label] for label, count in one.items()) / total**2
    if by_chance == 1:
        return 1.0  # nothing is left to chance, and the formula divides by it
    return (sum(first == second for first, second in labels) / total - by_chance) / (1 - by_chance)
