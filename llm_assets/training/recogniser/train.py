"""`python -m llm_assets.training.recogniser.train` makes the weights of the recogniser of names anew: half an hour of one core, 4 GB.

The first look, a regression, learns from news in which people have marked the names; the same sentences with invented names;
words of a dictionary in rows, which teach what is a word and no name; reviews, dialogues and answers, as they are and with
invented names in them. The networks learn from what it leaves in doubt, each from names planted anew; the readers among them
from LAC's weights on. A tenth of the marked news is kept apart: on it the threshold is set.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from llm_assets.corpus.recogniser import ensemble, lexicon, names, networks, regression, sources
from llm_assets.corpus.recogniser.candidates import Candidates, candidates, padded
from llm_assets.corpus.recogniser.ensemble import READER, Shipped, unpack
from llm_assets.corpus.recogniser.examples import (
    Example,
    Inventor,
    contexts,
    inserted,
    introduced,
    peopled,
    quoted,
    renamed,
    word_rows,
)
from llm_assets.corpus.recogniser.networks import Network, Trained, Window, window
from llm_assets.corpus.recogniser.surnames import SINGLE
from llm_assets.corpus.recogniser.weights import save
from llm_assets.training.recogniser import networks as convolutional
from llm_assets.training.recogniser import recurrent
from llm_assets.training.recogniser.networks import Lesson, start_embeddings
from llm_assets.training.recogniser.segmenter import Segmenter

SEED = 17
NETWORKS = 4  # their mean finds one name in thirty more than one does, at as many false masks
PLANTED = 20_000  # texts of each kind
BLOCK = 200  # sentences in a row that go to one side of the split: neighbours name the same persons
FALSE = 0.004  # share of sentences without a name that may get a mask, in each kind of development text; at 0.005 other text gets 0.0057
CHARACTERS = 5000  # that have an embedding of their own
LEARNT = -7.5  # log odds by the regression from which the networks learn, well below those from which they look: the border is no edge
EASY, KEPT = -5.0, 0.25  # of candidates below this by the regression that are no names, this share is learnt from, at more weight
SURE_NAME, SURE_NONE = 6.0, -4.0  # log odds by the first network beyond which a reader learns from the same share
Weighted = tuple[Sequence[Example], float]  # examples and the importance of their candidates


class Material(NamedTuple):
    """What there is to learn from and to set the threshold on."""

    marked: list[Example]
    reviews: list[Example]
    everyday: list[Example]  # dialogues and answers
    news: list[Example]  # of development, as is ``msra``
    msra: list[Example]


def main() -> None:
    """Train, write the weights and print their hashes."""
    torch.set_num_threads(1)
    segmenter = Segmenter()
    material = gather(segmenter)
    print(f"{len(material.marked):,} marked sentences, {len(material.reviews):,} reviews, {len(material.everyday):,} other texts", flush=True)
    rng = random.Random(SEED)
    weights = regress(lessons(material, rng, PLANTED // 3))
    print("names.py:    SHA256 =", save("names", {"weights": weights, "step": np.array(regression.STEP, np.float32)}), flush=True)
    filled = lexicon.build(sources.dictionary())
    characters = frequent([*material.marked, *material.reviews, *material.everyday], segmenter)
    start = start_embeddings(segmenter.embedding.numpy(), [segmenter.rows[character] for character in characters], segmenter.rows["OOV"])
    shared: dict[str, NDArray[np.generic]] = {
        "characters": np.array([ord(character) for character in characters], np.uint16),
        "lexicon": np.packbits(filled),
    }
    trained: list[dict[str, NDArray[np.generic]]] = []
    for number in range(NETWORKS):
        lesson = doubtful(lessons(material, rng, PLANTED), weights, filled, shared["characters"])
        trained.append(convolutional.integers(convolutional.fit(start, lesson, number), lesson))
    arrays = shared | {field: np.stack([one[field] for one in trained]) for field in Trained._fields}
    first = networks.unpack(trained[0])
    known = segmenter.embedding.numpy()[[segmenter.rows[one] for one in ("OOV", "OOV", *characters)]]
    read = [hard(doubtful(lessons(material, rng, PLANTED), weights, filled, shared["characters"]), first) for _ in recurrent.RATES]
    reader = recurrent.integers(recurrent.fit(known, segmenter.layers, read), read[-1])
    arrays |= {f"{READER}{name}": array for name, array in reader.items()}
    arrays["threshold"] = np.zeros((), np.float32)
    arrays["threshold"] = np.array(threshold(material, weights, unpack(arrays)), np.float32)
    print("ensemble.py: SHA256 =", save("networks", arrays), "threshold", arrays["threshold"])
    print("`python -m benchmarks masking` says how good they are")


def gather(segmenter: Segmenter) -> Material:
    """Read all sources; in what nobody has marked, the segmenter marks."""
    news, _ = sources.news()
    msra = sources.msra("train")
    marked = [*news[: len(news) * 9 // 10], *(one for index, one in enumerate(msra) if index // BLOCK % 10), *sources.finance()]
    everyday = random.Random(SEED).sample(sources.dialogues(), 15_000) + sources.answers()
    apart = news[len(news) * 9 // 10 :], [one for index, one in enumerate(msra) if index // BLOCK % 10 == 0]
    return Material(marked, seen(sources.reviews("learn"), segmenter), seen(everyday, segmenter), *apart)


def seen(texts: Sequence[str], segmenter: Segmenter) -> list[Example]:
    """Texts as the segmenter marks them: persons with the form of a name, and others, of which nothing is learnt."""
    examples = []
    for text, persons in zip(texts, segmenter.persons(texts), strict=True):
        known = tuple((start, end) for start, end in persons if sources.is_name(text[start:end]))
        examples.append(Example(text, known, tuple(person for person in persons if person not in known)))
    return examples


def lessons(material: Material, rng: random.Random, planted: int) -> list[Weighted]:
    """Examples of all kinds, with invented names planted anew in ``planted`` texts of each."""
    known = {example.text[start:end] for example in material.marked for start, end in example.names}
    inventor = Inventor(known | sources.people(), rng)
    found = contexts(material.marked)
    nameless = [example for example in material.marked if not example.names and not example.unknown and len(example.text) > 5]
    words = sorted(word for word in sources.dictionary() if not SINGLE.isdisjoint(word))

    def plant(make: Callable[[Example], Example], carriers: Sequence[Example], count: int) -> list[Example]:
        return [make(example) for example in rng.choices(carriers, k=count)]

    def quote(example: Example) -> Example:
        return quoted(example, found, inventor, rng)

    def insert(example: Example) -> Example:
        return inserted(example, inventor, rng)

    def introduce(example: Example) -> Example:
        return introduced(example, inventor, rng)

    def people(example: Example) -> Example:
        return peopled(example, inventor, rng)

    made = [one for make in (quote, insert, introduce, introduce, people) for one in plant(make, material.reviews, planted)]
    made += [one for make in (quote, insert, introduce) for one in plant(make, material.everyday, planted // 2)]
    made += [one for make in (insert, introduce) for one in plant(make, nameless, planted // 2)]
    return [
        (material.marked, 1.0),
        (material.reviews + material.everyday, 1.0),
        ([renamed(example, inventor, rng) for example in material.marked if example.names], 0.5),
        ([row for _ in range(3) for row in word_rows(words, inventor, rng)], 0.5),
        (made, 0.5),
    ]


def regress(parts: Sequence[Weighted]) -> NDArray[np.int8]:
    """The weights of the first look. A name that it puts aside is lost, so names weigh three times."""
    tables = [(regression.judged(examples), importance) for examples, importance in parts]
    bins = np.concatenate([regression.columns(some) for some, _ in tables])
    is_name = np.concatenate([some.is_name for some, _ in tables])
    importance = np.concatenate([np.where(some.is_name, 3 * weight, weight) for some, weight in tables])
    print(f"{len(is_name):,} candidates, {int(is_name.sum()):,} of them names", flush=True)
    return regression.fit(bins, is_name, importance)


def doubtful(parts: Sequence[Weighted], weights: NDArray[np.int8], filled: NDArray[np.bool_], points: NDArray[np.generic]) -> Lesson:
    """The candidates that the first look leaves in doubt, and some below; all names."""
    rng = np.random.default_rng(SEED)
    windows, is_name, importance = [], [], []
    for examples, weight in parts:
        some = regression.judged(examples)
        odds = weights[regression.columns(some)].sum(axis=1, dtype=np.int64) * regression.STEP
        easy = ~some.is_name & (odds < EASY)
        kept = some.is_name | (odds > LEARNT) & (~easy | (rng.random(len(easy)) < KEPT))
        windows.append(window(some.values, Candidates(*(column[kept] for column in some.found)), filled))
        is_name.append(some.is_name[kept])
        importance.append(np.where(easy, weight / KEPT, weight)[kept])
    all_seen = Window(*(np.concatenate(column) for column in zip(*windows, strict=True)))
    table = np.ones(1 << 16, np.int64)
    table[points] = np.arange(len(points)) + 2
    table[0] = 0
    joint = np.concatenate(importance).astype(np.float32)
    return Lesson(all_seen, table[all_seen.points], table[all_seen.around], np.concatenate(is_name), joint)


def hard(lesson: Lesson, first: Network) -> Lesson:
    """The lesson of a reader: where the first network is rightly sure, a share of the candidates, at more weight."""
    parts = [(lesson.rows[some], lesson.seen.of(some)) for some in np.array_split(np.arange(len(lesson.is_name)), 1000)]
    odds = np.concatenate([networks.forward(first, networks.terms(rows, seen), seen.form) for rows, seen in parts])
    sure = np.where(lesson.is_name, odds > SURE_NAME, odds < SURE_NONE)
    kept = np.flatnonzero(~sure | (np.random.default_rng(SEED).random(len(sure)) < KEPT))
    importance = np.where(sure, lesson.importance / KEPT, lesson.importance).astype(np.float32)
    return Lesson(lesson.seen.of(kept), lesson.rows[kept], lesson.around[kept], lesson.is_name[kept], importance[kept])


def frequent(examples: Sequence[Example], segmenter: Segmenter) -> list[str]:
    """The most frequent characters of the texts, of the names that people have and of words, as `candidates.padded` gives them."""
    counts: Counter[str] = Counter()
    for text in [*(example.text for example in examples), *sources.people(), *sources.dictionary()]:
        counts.update(text)
    common = [character for character, _ in counts.most_common() if character in segmenter.rows and 0 < ord(character) < 1 << 16]
    simplified = [character for character in common if character in "0a" or not (character.isascii() and character.isalnum())]
    return sorted(simplified[:CHARACTERS])


def threshold(material: Material, weights: NDArray[np.int8], shipped: Shipped) -> float:
    """The log odds at which neither kind of development text gets more false masks than it may."""
    found = []
    for examples in (material.news, material.msra):
        texts = [example.text for example in examples if not example.names and not example.unknown]
        worst = np.sort(_likeliest(texts, weights, shipped))
        found.append(float(worst[-1 - int(FALSE * len(texts))]))
    print("development: thresholds", found)
    return max(found)


def _likeliest(texts: Sequence[str], weights: NDArray[np.int8], shipped: Shipped) -> NDArray[np.float32]:
    """The log odds of the likeliest candidate of each text."""
    text = padded(texts)
    found = candidates(text.values)
    odds = sum(weights[column].astype(np.int64) for column in names.features(text.values, found)) * regression.STEP
    found = Candidates(*(column[odds > names.DOUBTFUL] for column in found))
    scores = ensemble.log_odds(shipped, text.values, found)
    likeliest = np.full(len(texts), -np.inf, np.float32)
    np.maximum.at(likeliest, np.searchsorted(text.starts, found.start, side="right") - 1, scores)
    return likeliest


if __name__ == "__main__":
    main()
