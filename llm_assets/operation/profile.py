"""What a release's traffic is compared with: the texts it learned from and what it says of the validation split, measured once."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_assets.evaluation import predictions
from llm_assets.links.quantized_model import QUANTIZED
from llm_assets.operation import features, replies
from llm_assets.operation.champion import Released
from llm_assets.operation.features import FEATURES, RARE, Feature
from llm_assets.serving.answers import FINISHES
from llm_assets.serving.generation import TASK
from llm_assets.store.files import write_json
from llm_assets.store.fingerprint import digest
from llm_assets.training.heads import Problem, parts

if TYPE_CHECKING:
    from llm_assets.operation.features import Matrix

VERSION = 2  # of what a profile holds; raised when features or statistics change
REFERENCE = 4_000  # texts of the examples, drawn by hash
PAIRS = 500  # commonest pairs of letters, kept for the page
LENGTH = 2_000  # characters: the request log keeps no more of a text


class Answers(NamedTuple):
    """What a model said of some texts, in their order."""

    labels: Sequence[str]  # of replies how they ended
    certainties: Sequence[float | None]  # of each answer; None where it is a number, or a reply
    lengths: Sequence[int] = ()  # characters of replies; none where labels or numbers were answered


class Profile(NamedTuple):
    """The reference of one release; JSON in ``<home>/serving/drift/``."""

    version: int
    problem: Problem
    texts: int  # in the reference
    answers: int
    layout: Mapping[str, Any]  # bounds of bins, names of columns, shares of pairs
    sums: Mapping[str, Sequence[float]]  # by feature, over the reference
    thresholds: Mapping[str, Mapping[str, float]]  # by feature and size of the window, written as a string
    calibration: Mapping[str, Sequence[float]] | None  # confidence -> accuracy, on the validation split; of one label a text

    @property
    def sizes(self) -> list[int]:
        """The windows that there are thresholds for, ascending."""
        return sorted(int(size) for size in next(iter(self.thresholds.values())))


class TooSmallError(ValueError):
    """The reference holds too few texts to say what is usual in it."""


def profile_of(home: Path, released: Released, sizes: Sequence[int], false_alarms: float) -> Profile:
    """The profile of a release, made once for each quantized model and these settings, then read from its file.

    Raises ``TooSmallError`` when fewer than twice the smallest window of texts were learned from.
    """
    key = digest([VERSION, released.model.fingerprint, list(sizes), false_alarms])[:12]
    path = home / "serving" / "drift" / f"{released.model.fingerprint}-{key}.json"
    if path.exists():
        return Profile(**json.loads(path.read_text(encoding="utf-8")))
    profile = make_profile(*reference_of(released, 2 * min(sizes)), sizes, false_alarms)
    write_json(path, profile._asdict())
    return profile


def reference_of(released: Released, least: int) -> tuple[list[str], Answers, list[str] | None, Problem]:
    """What a release learned from, what it answers on the validation split, the true labels there, and what a label is.

    A model that talks learned from what users said, turn by turn; its replies are not true or false, and how they end is the one label
    of each. They are asked for where there are ``least`` texts to compare with, since that takes a while.
    """
    examples = released.input("labelled_examples")
    if released.settings.get("task") == TASK:
        texts = sampled(replies.turns_of_users(examples))
        said = replies.validation_replies(released) if len(texts) >= least else []
        given = Answers([finish for _, finish in said], [None] * len(said), [len(text) for text, _ in said])
        return texts, given, None, "single_label"
    table = examples.table("train.parquet", ["doc_id", "text"])
    known = predictions.read(released.model, QUANTIZED, "validation")
    problem: Problem = released.settings.get("problem", "single_label")
    given = Answers([row["predicted"] for row in known], [_certainty(row["probabilities"], problem) for row in known])
    texts = sampled(zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts, given, [row["label"] for row in known], problem


def sampled(texts: Iterable[tuple[str, str]]) -> list[str]:
    """At most ``REFERENCE`` texts, given with their names: those of the smallest hash."""
    chosen = heapq.nsmallest(REFERENCE, texts, key=lambda named: hashlib.sha256(f"drift:{named[0]}".encode()).digest())
    return [text[:LENGTH] for _, text in chosen]


def make_profile(
    texts: Sequence[str], answers: Answers, truth: Sequence[str] | None, problem: Problem, sizes: Sequence[int], false_alarms: float
) -> Profile:
    """The profile of a reference: its texts, and its answers beside the true labels, where there are any."""
    fitting = [size for size in sizes if 2 * size <= len(texts)]
    if not fitting or not answers.labels:
        reason = f"{len(texts)} texts and {len(answers.labels)} answers to compare with, at least {2 * min(sizes)} and 1 are needed"
        raise TooSmallError(f"{reason}: lower drift.minimum, or learn from more")
    certain = [value for value in answers.certainties if value is not None]
    named = features.languages(texts)
    frequent = {name: count for name, count in Counter(named).items() if count >= RARE * len(texts)}
    layout = {
        "lengths": features.edges([len(text) for text in texts]),
        "pairs": features.pair_shares(texts, PAIRS),
        "languages": sorted(frequent),
        "labels": [] if problem == "regression" else sorted({name for label in truth or FINISHES for name in parts(label, problem)} | {"none"}),
        "numbers": features.edges([float(label) for label in answers.labels]) if problem == "regression" else [],
        "confidence": features.edges(certain) if certain else [],
        "answer_lengths": features.edges(answers.lengths) if answers.lengths else [],
    }
    rows = {**text_rows(texts, layout, named), **answer_rows(answers, layout, problem)}
    rows |= {name: features.succeeded(rows[name]) for name in ("language", "prediction")}
    found = [feature for feature in FEATURES if feature.name in rows]
    rank = features.level(len(found), false_alarms)
    return Profile(
        version=VERSION,
        problem=problem,
        texts=len(texts),
        answers=len(answers.labels),
        layout=layout,
        sums={feature.name: _sum(rows[feature.name]) for feature in found},
        thresholds={f.name: {str(size): features.threshold(rows[f.name], f, size, rank) for size in fitting} for f in found},
        calibration=_calibration(answers, truth) if truth and problem == "single_label" else None,
    )


def text_rows(texts: Sequence[str], layout: Mapping[str, Any], languages: Sequence[str] | None = None) -> dict[str, Matrix]:
    """By feature, a row a text."""
    counts = features.gram_counts(texts)
    named = languages or features.languages(texts)
    return {
        "vocabulary": counts,
        "length": features.binned([len(text) for text in texts], layout["lengths"]),
        "language": features.named([[name] for name in named], layout["languages"]),
        "embedding": features.embedded(counts),
    }


def answer_rows(answers: Answers, layout: Mapping[str, Any], problem: Problem) -> dict[str, Matrix]:
    """By feature, a row an answer; a number has no confidence, and only a reply a length."""
    rows = {"prediction": features.answers(answers.labels, problem, layout)}
    certain = [value for value in answers.certainties if value is not None]
    if layout["confidence"] and len(certain) == len(answers.labels):
        rows["confidence"] = features.binned(certain, layout["confidence"])
    if layout.get("answer_lengths"):  # profiles of earlier versions do not say
        rows["answer_length"] = features.binned(answers.lengths, layout["answer_lengths"])
    return rows


def distance(feature: Feature, rows: Matrix, profile: Profile) -> float:
    """The feature's statistic between a window's rows and the reference."""
    import numpy as np

    return float(feature.statistic(np.asarray(_sum(rows)), np.asarray(profile.sums[feature.name])))


def estimated_accuracy(profile: Profile, certainties: Sequence[float | None]) -> float | None:
    """How often answers of these confidences are right, if a confidence means what it meant on the validation split.

    Confidence-based performance estimation (Garg et al. 2022, Leveraging unlabeled data to predict out-of-distribution
    performance, arXiv 2201.04234, call it average confidence). It sees inputs that the model finds harder, not labels
    whose meaning has changed; the validation split chose the model too, so it is a little high.
    """
    import numpy as np

    certain = [value for value in certainties if value is not None]
    if profile.calibration is None or not certain:
        return None
    return float(np.interp(certain, profile.calibration["confidence"], profile.calibration["accuracy"]).mean())


def _calibration(answers: Answers, truth: Sequence[str]) -> dict[str, list[float]]:
    """Accuracy as a rising function of confidence (isotonic regression, Zadrozny & Elkan 2002), as its corners."""
    from sklearn.isotonic import IsotonicRegression

    right = [float(given == label) for given, label in zip(answers.labels, truth, strict=True)]
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit([float(value or 0) for value in answers.certainties], right)
    return {"confidence": fitted.X_thresholds_.tolist(), "accuracy": fitted.y_thresholds_.tolist()}


def _certainty(probabilities: Sequence[float], problem: Problem) -> float | None:
    if problem == "regression":
        return None
    return max(probabilities) if problem == "single_label" else min(max(value, 1 - value) for value in probabilities)


def _sum(rows: Any) -> list[float]:
    import numpy as np

    sums: list[float] = np.asarray(rows.sum(axis=0), float).ravel().tolist()
    return sums
