"""The gate between a candidate and the chain's champion: who is better on the same frozen test set, and how often they will differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_assets.evaluation import predictions
from llm_assets.evaluation.quality import SCORES, Difference, agreement, paired_bootstrap
from llm_assets.evaluation.worth import Rows
from llm_assets.links.disagreement import predicted
from llm_assets.links.link import Office
from llm_assets.links.quantized_model import QUANTIZED
from llm_assets.serving.releases import champion, release_journal
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict
from llm_assets.training.heads import Problem

OTHER_DOCUMENTS = "the champion was scored on other test documents, so nothing could be compared"
WORDS = {
    "better": "better than {release}",
    "not worse": "not worse than {release}, within the {allowed:.2f} {unit} allowed",
    "undecided": "undecided against {release}: the interval reaches below the {allowed:.2f} {unit} allowed, and holds no loss alone",
    "worse": "worse than {release}",
}


@dataclass(frozen=True)
class Incumbent:
    """The chain's champion as something to compare with: ``model`` is None where nothing can be, for the reason in ``found``."""

    release: str | None
    model: Artifact | None
    metrics: Mapping[str, Any]
    found: str

    def nothing(self, found: str = "") -> dict[str, Any]:
        """What a record says where nothing was compared."""
        return {"release": self.release, "outcome": None, "found": found or self.found}


def incumbent(office: Office, candidate: Artifact) -> Incumbent:
    """The champion that a candidate has to face."""
    newest = champion(release_journal(office.home, office.chain))
    if newest is None:
        return Incumbent(None, None, {}, "there is no champion yet")
    release, directory = newest["release"], office.home / newest["directory"]
    if newest["quantized_model"] == candidate.fingerprint:
        return Incumbent(release, None, {}, "the candidate is the champion")
    if not (directory / "predictions.parquet").is_file():
        return Incumbent(release, None, {}, "the champion's predictions are gone from the store, so nothing could be compared")
    return Incumbent(release, Artifact(directory, candidate.manifest), newest.get("metrics") or {}, "")


def against_champion(office: Office, candidate: Artifact, problem: Problem, allowed_loss: float) -> dict[str, Any]:
    """The candidate minus the champion in ``predictions.merit``, over the test documents both were scored on.

    ``outcome`` is better, not worse, undecided or worse (``Difference.outcome``), or None where nothing could be compared, which
    ``found`` then says. ``disagreement`` is the share of answers in which a canary is to differ (``disagreement.predicted``); None
    for a regression, whose numbers always differ in some digit.
    """
    known = incumbent(office, candidate)
    if known.release is None or known.model is None:
        return known.nothing()
    if known.metrics and f"test_{SCORES[problem]}" not in known.metrics:
        return known.nothing(f"the champion answers another problem than {problem}, so nothing could be compared")
    before = predictions.read(known.model, QUANTIZED, "test")
    now = predictions.read(candidate, QUANTIZED, "test")
    theirs = predictions.merit(before, problem)
    difference = paired_bootstrap(predictions.merit(now, problem), theirs)
    if difference is None:
        return known.nothing(OTHER_DOCUMENTS)
    allowed = allowed_loss * _unit(theirs, problem)
    outcome = difference.outcome(allowed)
    return {
        "release": known.release,
        "outcome": outcome,
        "found": _sentence(known.release, outcome, difference, allowed, problem),
        **stated(difference),
        "allowed": allowed,
        **(_disagreement(office, candidate, known.model, now, before) if problem != "regression" else {"disagreement": None}),
    }


def _disagreement(office: Office, candidate: Artifact, champion: Artifact, now: Rows, before: Rows) -> dict[str, Any]:
    mine, theirs = predictions.predicted(now), predictions.predicted(before)
    return predicted(office, candidate, champion, 1 - agreement(mine, theirs), len(mine.keys() & theirs.keys()))


def stated(difference: Difference) -> dict[str, Any]:
    """A difference as a record has it."""
    return {"documents": difference.documents, "difference": difference.mean, "interval": [difference.low, difference.high]}


def _unit(theirs: Mapping[str, float], problem: Problem) -> float:
    """What an allowed loss is a share of: all documents; for numbers the champion's mean squared error, which has a unit of its own."""
    return -sum(theirs.values()) / len(theirs) if problem == "regression" else 1.0


def _sentence(release: str, outcome: str, difference: Difference, allowed: float, problem: Problem) -> str:
    scale, unit = (1, "squared error") if problem == "regression" else (100, "points")
    said = WORDS[outcome].format(release=release, allowed=scale * allowed, unit=unit)
    ends = f"95% interval {scale * difference.low:+.2f} to {scale * difference.high:+.2f}"
    less = " less" if problem == "regression" else ""
    return f"{said}: {scale * difference.mean:+.2f} {unit}{less} on {difference.documents} common test documents, {ends}"


def not_worse_than_champion(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    """Fails for a candidate that is worse. One undecided passes and says so: a larger test set would tell, or a canary will."""
    compared = record["champion"]
    return Verdict(
        check="not_worse_than_champion",
        passed=compared["outcome"] != "worse",
        description=compared["found"],
        values=dict(compared),
    )
