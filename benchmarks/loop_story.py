"""What came of the experiment `loop`, read from its journals, its request log and Dagster's runs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from llm_assets.evaluation.quality import paired_bootstrap
from llm_assets.operation.log import requests
from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.events import read_events
from llm_assets.serving.releases import release_journal, standing
from llm_assets.serving.request_log import log_folder
from llm_assets.store.journal import Entry, Journal

NEW, WRONG, BAD = "new kind of reviews", "wrong votes", "bad canary"  # what the experiment marks that it does
WITHIN, GAIN, LOSS = 500, 0.05, 0.005  # requests until drift; accuracy to gain on the new kind, and to lose at most on the old


class Run(NamedTuple):
    """A run of the chain that the policy sensor asked for."""

    reason: str
    began: datetime
    ended: datetime | None
    status: str


class Judged(NamedTuple):
    """What a model is worth, answer by answer: 1 for a right one, by document."""

    old: Mapping[str, float]  # the chain's frozen test set
    new: Mapping[str, float]  # held-out reviews of the new kind

    @property
    def accuracies(self) -> tuple[float, float]:
        """Of the old and of the new."""
        return sum(self.old.values()) / len(self.old), sum(self.new.values()) / len(self.new)


@dataclass(frozen=True)
class Story:
    """All that happened, each list oldest first."""

    marks: Mapping[str, datetime]
    runs: Sequence[Run]
    looks: Sequence[Entry]  # for drift, those that judged
    gates: Sequence[Entry]  # scorecards
    events: Sequence[Entry]
    answers: Sequence[tuple[datetime, str]]  # when, by which release
    champion: str | None  # at the end
    released: Mapping[str, str]  # quantized model by release
    judged: Mapping[str, Judged]  # by quantized model
    failed: Sequence[str]  # requests


class Claim(NamedTuple):
    """One thing the experiment is to show."""

    says: str
    holds: bool


def notes(folder: Path) -> Journal:
    """Where the experiment notes what it does, and what it measured beside the chain."""
    return Journal(folder / "experiment.jsonl")


def read(folder: Path, home: Path, chain: str, runs: Sequence[Run]) -> Story:
    """The story so far."""
    noted = list(notes(folder).entries())
    journal = release_journal(home, chain)
    known = standing(journal)
    return Story(
        marks={note["mark"]: _at(note) for note in noted if "mark" in note},
        runs=runs,
        looks=[entry for entry in Journal(home / "journal" / chain / "drift.jsonl").entries() if entry["record"]["judged"]],
        gates=list(Journal(home / "journal" / chain / "scorecard.jsonl").entries()),
        events=read_events(home, chain),
        answers=[(each.at, each.release) for path in dated_files(log_folder(home), chain) for each in requests(path) if each is not None],
        champion=known.champion["release"] if known.champion else None,
        released={record["release"]: record["quantized_model"] for record in known.released},
        judged={note["judged"]: Judged(note["old"], note["new"]) for note in noted if "judged" in note},
        failed=[failure for note in noted for failure in note.get("failed", ())],
    )


def claims(story: Story) -> list[Claim]:
    """What was to be shown, and whether it was."""
    return [_quiet(story), _drift(story), _retrained(story), *_accuracies(story), _blocked(story), _rolled_back(story), _none_failed(story)]


def requests_until_drift(story: Story) -> int | None:
    """How many requests of the new kind were answered when drift was raised."""
    begin = story.marks[NEW]
    raised = next((_at(event) for event in story.events if event["kind"] == "drift" and _at(event) > begin), None)
    return sum(begin <= at <= raised for at, _ in story.answers) if raised else None


def gain(story: Story) -> float:
    """Accuracy that the retraining brought on the new kind of reviews; 0 where there was none."""
    pair = _pair(story)
    return pair[1].accuracies[1] - pair[0].accuracies[1] if pair else 0.0


def _quiet(story: Story) -> Claim:
    before = [look for look in story.looks if _at(look) < story.marks[NEW]]
    loud = [look for look in before if look["record"]["drifted"]]
    return Claim(f"no drift in {len(before)} looks at book reviews that the model had not seen ({len(loud)} alarms)", bool(before) and not loud)


def _drift(story: Story) -> Claim:
    count = requests_until_drift(story)
    features = next((", ".join(look["record"]["drifted"]) for look in story.looks if look["record"]["drifted"]), "none")
    return Claim(f"drift raised within {WITHIN} requests: after {count} ({features})", count is not None and count <= WITHIN)


def _retrained(story: Story) -> Claim:
    begin, end = story.marks[NEW], story.marks.get(WRONG)
    found = [run for run in story.runs if run.began > begin and (end is None or run.began < end)]
    said = "; ".join(f"{run.reason} ({run.status})" for run in found) or "no run"
    holds = len(found) == 1 and found[0].status == "SUCCESS" and "drift" in found[0].reason
    return Claim(f"the policy sensor ran the chain for drift: {said}", holds)


def _accuracies(story: Story) -> list[Claim]:
    pair = _pair(story)
    if pair is None:
        return [Claim("no second release to compare with the first", False)]
    texts, rights = ("old", "new"), []
    for which, (name, before, after) in enumerate(zip(texts, pair[0], pair[1], strict=True)):
        old, now = (judged.accuracies[which] for judged in pair)
        difference = paired_bootstrap(after, before)
        assert difference is not None
        interval = f"95% interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f} on {difference.documents}"
        moved = f"{old:.4f} to {now:.4f}, {100 * (now - old):+.2f} points ({interval})"
        holds = now - old >= GAIN if name == "new" else now - old >= -LOSS
        asked = f"at least {100 * GAIN:+g}" if name == "new" else f"at least {-100 * LOSS:+g}"
        rights.append(Claim(f"accuracy on the {name} kind, {asked}: {moved}", holds))
    return rights


def _pair(story: Story) -> tuple[Judged, Judged] | None:
    """The first two releases."""
    models = [model for model in story.released.values() if model in story.judged][:2]
    return (story.judged[models[0]], story.judged[models[1]]) if len(models) == 2 else None


def _blocked(story: Story) -> Claim:
    gates = [gate for gate in story.gates if _at(gate) > story.marks[WRONG]]
    if not gates:
        return Claim("no candidate was made of the wrong votes", False)
    model, compared = gates[0]["record"]["quantized_model"], gates[0]["record"]["champion"]
    refused = any(verdict["check"] == "not_worse_than_champion" and not verdict["passed"] for verdict in gates[0]["verdicts"])
    ended = [run.status for run in story.runs if run.began > story.marks[WRONG]]
    released = model in story.released.values()
    return Claim(f"the gate blocked the candidate of the wrong votes: {compared['found']}", refused and not released and ended[:1] == ["FAILURE"])


def _rolled_back(story: Story) -> Claim:
    event = next((event for event in story.events if event["kind"] == "rollback" and _at(event) > story.marks[BAD]), None)
    if event is None:
        return Claim("the canary that turned bad was not rolled back", False)
    bad = [at for at, release in story.answers if release == event["release"]]
    later = [at for at in bad if at > _at(event)]
    before = next((name for name in reversed([*story.released]) if name != event["release"]), None)
    took = f"{(_at(event) - bad[0]).total_seconds():.1f} s and {len(bad)} answers after its first" if bad else "before it answered"
    told = any(other["kind"] == "alert" and other["release"] == event["release"] for other in story.events)
    holds = story.champion == before and told and len(later) <= 1
    return Claim(f"the canary that turned bad was rolled back {took}, {story.champion} is champion: {event['message']}", holds)


def _none_failed(story: Story) -> Claim:
    shown = f", such as {story.failed[0]}" if story.failed else ""
    return Claim(f"{len(story.failed)} requests failed beside {len(story.answers)} answered{shown}", not story.failed)


def _at(entry: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(entry["at"]).astimezone(UTC)
