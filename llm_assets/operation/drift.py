"""drift: whether what users send, and what they are answered, is still like what the model learned from and was judged on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from llm_assets.links.link import Acted, Check, Link, Office, Section
from llm_assets.operation import drift_page
from llm_assets.operation.champion import released
from llm_assets.operation.features import AT_ONCE, FEATURES, level
from llm_assets.operation.profile import (
    LENGTH,
    Answers,
    Profile,
    TooSmallError,
    answer_rows,
    distance,
    estimated_accuracy,
    profile_of,
    text_rows,
)
from llm_assets.operation.traffic import Row, newest_rows
from llm_assets.operation.votes import Answer, joined, majority, votes
from llm_assets.serving.answers import GENERATED
from llm_assets.serving.events import append_event
from llm_assets.store.fingerprint import digest
from llm_assets.store.verdict import Verdict


class DriftConfig(Section):
    """When traffic counts as other than the training texts."""

    window: int = Field(500, ge=50, description="newest answered texts that are looked at")
    minimum: int = Field(
        100, ge=50, description="texts, below which nothing is said; between it and `window` the largest of its doublings is looked at"
    )
    false_alarms: float = Field(0.002, gt=0, le=0.1, description="share of the checks that may see drift where there is none")

    @property
    def sizes(self) -> list[int]:
        """The sizes of windows that there are thresholds for."""
        doubled = [self.minimum << power for power in range(20) if self.minimum << power < self.window]
        return [*doubled, self.window]

    @model_validator(mode="after")
    def _can_be_held(self) -> DriftConfig:
        if self.minimum > self.window:
            raise ValueError(f"minimum is {self.minimum}: at most window, which is {self.window}")
        level(AT_ONCE, self.false_alarms)
        return self


class Finding(NamedTuple):
    """One feature of a window against the reference."""

    feature: str
    value: float
    threshold: float

    @property
    def drifted(self) -> bool:
        """Whether it is further off than windows of the reference are."""
        return self.value > self.threshold + 1e-9  # where the reference never varies both are 0 but for rounding


def drift(office: Office, config: DriftConfig) -> Acted:
    """Compares the newest answered texts with the training texts, and the answers with those on the validation split.

    Vocabulary, length, language, an embedding of the texts; labels answered and their probabilities, or of replies their length and how
    many were cut off: each by a statistic whose threshold was drawn from the reference itself, so that the share of false alarms is
    known (`false_alarms`, over all features together). Of a chain that talks the texts are what users say, turn by turn. Only answers of
    the release that gave most of them count, and of a model with adapters those that it gave alone. The accuracy of labels is estimated
    from their probabilities, since true ones come late, and measured on the answers that users voted on. The page `drift` shows it all.
    """
    rows = _of_one_release(list(islice(filter(_can_be_compared, newest_rows(office.home, office.chain)), config.window)))
    if not rows:
        return _unjudged(None, 0, "no traffic to look at: ask the gateway, then materialize traffic")
    found = released(office.home, office.chain, rows[0]["release"])
    if found is None:
        return _unjudged(rows[0]["release"], len(rows), f"the journal of releases knows no {rows[0]['release']}")
    try:
        profile = profile_of(office.home, found, config.sizes, config.false_alarms)
    except TooSmallError as error:
        return _unjudged(found.name, len(rows), str(error))
    size = window_size(profile, len(rows))
    if size is None:
        return _unjudged(found.name, len(rows), f"{len(rows)} texts answered by {found.name}, {profile.sizes[0]} are needed")
    window = rows[:size]
    findings = compare(profile, window)
    measured = _measured(office.home, office.chain, window)
    drifted = [finding.feature for finding in findings if finding.drifted]
    record = {
        "release": found.name,
        "judged": True,
        "texts": size,
        "drifted": drifted,
        "reason": f"{', '.join(drifted)} differ from the training distribution" if drifted else "like the training distribution",
        "features": {finding.feature: {"value": finding.value, "threshold": finding.threshold} for finding in findings},
        "estimated_accuracy": estimated_accuracy(profile, [row["probability"] for row in window]),
        "feedback": measured,
        "from": window[-1]["at"].isoformat(),
        "to": window[0]["at"].isoformat(),
    }
    _announce(office, record)
    drift_page.write_page(office.directory, office.chain, record, profile, window)
    return Acted(record, digest([found.name, drifted, record["to"]])[:24])


def _announce(office: Office, record: Mapping[str, Any]) -> None:
    """An event when drift begins: when the look before this one saw none, or was at another release."""
    before = (office.journal.newest(lambda entry: not entry["trial"]) or {}).get("record", {})
    if record["drifted"] and not (before.get("drifted") and before["release"] == record["release"]):
        append_event(office.home, office.chain, "drift", record["reason"], record["release"], features=record["features"])


def window_size(profile: Profile, rows: int) -> int | None:
    """The largest window with a threshold that so many texts fill, or None."""
    return max((size for size in profile.sizes if size <= rows), default=None)


def compare(profile: Profile, window: Sequence[Row]) -> list[Finding]:
    """Every feature of a window of traffic; its length must be one of the profile's sizes."""
    texts = [row["masked"][:LENGTH] for row in window]
    lengths = [row["answer_characters"] for row in window] if profile.layout.get("answer_lengths") else ()
    given = Answers([row["label"] for row in window], [row["probability"] for row in window], lengths)
    rows = {**text_rows(texts, profile.layout), **answer_rows(given, profile.layout, profile.problem)}
    return [
        Finding(feature.name, distance(feature, rows[feature.name], profile), profile.thresholds[feature.name][str(len(window))])
        for feature in FEATURES
        if feature.name in rows and feature.name in profile.thresholds
    ]


def _can_be_compared(row: Row) -> bool:
    """Whether a row of traffic is a text with the answer of the model alone, which is what there is a reference of.

    An adapter is asked for its own tasks. Tables of before replies stood beside their turns have rows that are only one of the two.
    """
    is_reply = row["id"].startswith(GENERATED)
    return not row.get("adapter") and row["masked"] is not None and (not is_reply or row.get("answer_characters") is not None)


def _of_one_release(rows: Sequence[Row]) -> list[Row]:
    """The rows of the release that gave most of them; a canary's are too few to say anything of."""
    most = Counter(row["release"] for row in rows).most_common(1)
    return [row for row in rows if row["release"] == most[0][0]]


def _measured(home: Path, chain: str, window: Sequence[Row]) -> dict[str, Any] | None:
    """How many of a window's answers users voted on, and the share of those that most called right; None without a vote."""
    inside = {(row["id"], row["index"]) for row in window}
    said: dict[Answer, list[str]] = defaultdict(list)
    for voted in joined(home, chain, [vote for vote in votes(home, chain) if vote.answer in inside]):
        refused = voted.vote.rating == "down"
        if voted.label is not None or refused:
            is_right = voted.label == voted.answered and not (voted.is_reply and refused)  # an empty reply is not right for being called wrong
            said[voted.vote.answer].append("right" if is_right else "wrong")
    decided = [verdict for verdict in map(majority, said.values()) if verdict]
    return {"answers": len(decided), "accuracy": decided.count("right") / len(decided)} if decided else None


def _unjudged(release: str | None, texts: int, reason: str) -> Acted:
    record: dict[str, Any] = {"release": release, "judged": False, "texts": texts, "drifted": [], "reason": reason}
    return Acted(record, digest([release, "unjudged"])[:24])


def _like_training(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    values = {f"{name}_{what}": number for name, figures in record.get("features", {}).items() for what, number in figures.items()}
    found = f"{record['texts']} texts answered by {record['release'] or 'no release'}: {record['reason']}"
    return Verdict(check="like_training", passed=not record["drifted"], description=found, values=values)


LINK = Link(
    name="drift",
    version=1,
    make=drift,
    config=DriftConfig,
    inputs=(),
    stage="service",
    role="operations_engineer",
    kinds=("python", "scikitlearn"),
    checks=(
        Check(
            "like_training", "Texts and answers are distributed as those that the model was trained and judged on.", _like_training, blocking=False
        ),
    ),
    act=True,
    reads=("traffic", "release", "labelled_examples", "quantized_model"),
)
