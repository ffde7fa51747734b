"""How soon drift is seen when another kind of text comes in, and how often where there is none."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.material import domain
from benchmarks.result import Result
from benchmarks.timing import timed
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.evaluation.baselines import TfidfLogisticRegression
from llm_assets.operation.drift import DriftConfig, compare, window_size
from llm_assets.operation.profile import Answers, Profile, make_profile

CONFIG = DriftConfig()
VALIDATION, HELD_OUT = 400, 700  # books; the others are learned from
STEP = 20  # requests between two checks
CHECKS = 100
SPLITS = 3


class Watched(NamedTuple):
    """A classifier of book reviews, what its traffic is compared with, and book reviews that neither has seen."""

    model: TfidfLogisticRegression
    profile: Profile
    learnt: list[str]
    unseen: list[str]


def drift(preset: str, home: Path) -> Result:
    """Requests until drift is raised, when hotel reviews follow book reviews that the classifier learned; false alarms without them.

    The classifier is TF-IDF with a logistic regression. Windows, thresholds and checks are the asset's.
    """
    books, hotels = _distinct("books"), [text for text, _ in _distinct("hotels")]
    found, false = [], 0
    for seed in range(SPLITS):
        watched, seconds = timed(lambda seed=seed: _watched(books, seed))
        random.Random(seed).shuffle(hotels)
        requests, features = _raised(watched, hotels)
        found.append(requests)
        alarms = _false_alarms(watched, seed)
        false += alarms
        fresh = [_alarms(watched, watched.unseen[start : start + size]) for size in (100, 500) for start in range(0, HELD_OUT - size + 1, size)]
        print(
            f"split {seed}: {len(watched.learnt):,} books learned from, profile in {seconds:.0f} s; raised after {requests} hotel reviews "
            f"({', '.join(features)}); false alarms: {alarms} of {CHECKS} windows of {CONFIG.window} drawn from the books learned from, "
            f"{sum(map(bool, fresh))} of {len(fresh)} windows of books never seen",
            flush=True,
        )
    print(f"false alarms in {SPLITS * CHECKS} checks on the resampled reference: {false}")
    worst = max(found)
    return Result("drift", worst, "requests until raised, at most", f"at most 500, and 1 false alarm in {CHECKS}", worst <= 500 and false <= SPLITS)


def _distinct(name: str) -> list[tuple[str, str]]:
    """Texts and labels of a domain, normalised and masked, each text once."""
    texts, labels = zip(*domain(name), strict=True)
    return list(dict(zip(clean_texts(list(texts)).texts, labels, strict=True)).items())


def _watched(books: Sequence[tuple[str, str]], seed: int) -> Watched:
    rows = list(books)
    random.Random(seed).shuffle(rows)
    unseen, validation, learnt = rows[:HELD_OUT], rows[HELD_OUT : HELD_OUT + VALIDATION], rows[HELD_OUT + VALIDATION :]
    texts, labels = [text for text, _ in learnt], [label for _, label in learnt]
    model = TfidfLogisticRegression.fit(texts, labels)
    given, truth = _answers(model, [text for text, _ in validation]), [label for _, label in validation]
    profile = make_profile(texts, given, truth, "single_label", CONFIG.sizes, CONFIG.false_alarms)
    return Watched(model, profile, texts, [text for text, _ in unseen])


def _raised(watched: Watched, hotels: Sequence[str]) -> tuple[int, list[str]]:
    """After how many hotel reviews, with unseen books in the window before them, drift is seen, and in which features."""
    before = watched.unseen[: CONFIG.window]
    already = _alarms(watched, before)  # a false alarm is not the drift that is looked for
    for count in range(STEP, len(hotels), STEP):
        features = [name for name in _alarms(watched, [*before, *hotels[:count]][-CONFIG.window :]) if name not in already]
        if features:
            return count, features
    return len(hotels), []


def _false_alarms(watched: Watched, seed: int) -> int:
    draw = random.Random(seed)
    return sum(bool(_alarms(watched, draw.sample(watched.learnt, CONFIG.window), draw)) for _ in range(CHECKS))


def _alarms(watched: Watched, texts: Sequence[str], draw: random.Random | None = None) -> list[str]:
    """The features that drifted in a window of these texts.

    A model is surer of what it learned than of its validation split: texts drawn from the former, told by ``draw``, get answers
    drawn from the latter, which is the reference for answers.
    """
    assert window_size(watched.profile, len(texts)) == len(texts)
    given = _resampled(watched.profile, len(texts), draw) if draw else _answers(watched.model, texts)
    moment = datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {"masked": text, "label": label, "probability": certainty, "at": moment}
        for text, label, certainty in zip(texts, given.labels, given.certainties, strict=True)
    ]
    return [finding.feature for finding in compare(watched.profile, rows) if finding.drifted]


def _answers(model: TfidfLogisticRegression, texts: Sequence[str]) -> Answers:
    probabilities = model.classify(texts)
    return Answers([model.labels[max(range(len(row)), key=row.__getitem__)] for row in probabilities], [max(row) for row in probabilities])


def _resampled(profile: Profile, count: int, draw: random.Random) -> Answers:
    """Answers drawn from the profile's own."""
    names, edges = profile.layout["labels"], profile.layout["confidence"]
    labels = draw.choices([*names, "other"], profile.sums["prediction"], k=count)
    inside = [edges[0] - 1e-9, *edges]  # a value in each bin: the bounds are the bins' lower ends
    return Answers(labels, draw.choices(inside, profile.sums["confidence"], k=count))
