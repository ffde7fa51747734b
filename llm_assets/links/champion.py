"""The gate between a candidate and the chain's champion: who is better on the same frozen test set, and how often they will differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_assets.evaluation import predictions
from llm_assets.evaluation.quality import SCORES, Difference, agreement, paired_bootstrap
from llm_assets.links.link import Office
from llm_assets.links.quantized_model import QUANTIZED
from llm_assets.serving.releases import champion, release_journal
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict
from llm_assets.training.heads import Problem

WORDS = {
    "better": "better than {release}",
    "not worse": "not worse than {release}, within the {allowed:.2f} {unit} allowed",
    "undecided": "undecided against {release}: the interval reaches below the {allowed:.2f} {unit} allowed, and holds no loss alone",
    "worse": "worse than {release}",
}


def against_champion(office: Office, candidate: Artifact, problem: Problem, allowed_loss: float) -> dict[str, Any]:
    """The candidate minus the champion in ``predictions.merit``, over the test documents both were scored on.

    ``outcome`` is better, not worse, undecided or worse (``Difference.outcome``), or None where nothing could be compared, which
    ``found`` then says. ``disagreement`` is the share of those documents that the two answer differently, which is what traffic
    like them will show; None for a regression, whose numbers always differ in some digit.
    """
    newest = champion(release_journal(office.home, office.chain))
    if newest is None:
        return _nothing(None, "there is no champion yet")
    release = newest["release"]
    if newest["quantized_model"] == candidate.fingerprint:
        return _nothing(release, "the candidate is the champion")
    directory = office.home / newest["directory"]
    if not (directory / "predictions.parquet").is_file():
        return _nothing(release, "the champion's predictions are gone from the store, so nothing could be compared")
    before = predictions.read(Artifact(directory, candidate.manifest), QUANTIZED, "test")
    if (released := newest.get("metrics")) and f"test_{SCORES[problem]}" not in released:
        return _nothing(release, f"the champion answers another problem than {problem}, so nothing could be compared")
    now = predictions.read(candidate, QUANTIZED, "test")
    theirs = predictions.merit(before, problem)
    difference = paired_bootstrap(predictions.merit(now, problem), theirs)
    if difference is None:
        return _nothing(release, "the champion was scored on other test documents, so nothing could be compared")
    allowed = allowed_loss * _unit(theirs, problem)
    outcome = difference.outcome(allowed)
    return {
        "release": release,
        "outcome": outcome,
        "found": _sentence(release, outcome, difference, allowed, problem),
        **stated(difference),
        "allowed": allowed,
        "disagreement": None if problem == "regression" else 1 - agreement(predictions.predicted(now), predictions.predicted(before)),
    }


def stated(difference: Difference) -> dict[str, Any]:
    """A difference as a record has it."""
    return {"documents": difference.documents, "difference": difference.mean, "interval": [difference.low, difference.high]}


def _nothing(release: str | None, found: str) -> dict[str, Any]:
    return {"release": release, "outcome": None, "found": found}


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
