"""When a chain is trained again: a decision from what is new, what has drifted and when it last ran, with the reason in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import Field, field_validator

from llm_assets.operation.rules import duration
from llm_assets.store.fingerprint import digest
from llm_assets.store.strict import Strict


class Retraining(Strict):
    """What makes the chain run again; whatever does not need making is reused, so a run without news costs seconds."""

    every: str | None = Field(None, description="time since the last run after which there is another, such as 7d; null: none for that")
    documents: int = Field(1, ge=0, description="new or changed files in data/inbox/<chain>/ from which there is a run; 0: none for that")
    feedback: int = Field(0, ge=0, description="labelled texts in new batches of data/feedback/<chain>/ from which there is a run; 0: none for that")
    drift: bool = Field(False, description="whether drift starts a run, as soon as there is one new document or labelled text to learn from")
    minimum_interval: str = Field("1h", description="time between the starts of two runs at least, such as 1d")

    @field_validator("every", "minimum_interval")
    @classmethod
    def _are_durations(cls, value: str | None) -> str | None:
        if value is not None:
            duration(value)
        return value


@dataclass(frozen=True)
class State:
    """What the decision is made from."""

    running: str | None  # a run of the chain that is under way or queued
    last: datetime | None  # when its newest run was asked for
    documents: int  # new or changed files in the inbox since the policy last asked for a run
    feedback: int  # labelled texts in batches that are new since then
    drifted: str | None  # the reason of the newest look for drift, where that is newer than the last run and saw some
    marks: Mapping[str, object]  # what stands in the inbox and among the batches now


@dataclass(frozen=True)
class Retrain:
    """Run the chain."""

    reason: str
    run_key: str  # Dagster starts no second run with it


@dataclass(frozen=True)
class Wait:
    """Leave it."""

    why: str


def decide(state: State, now: datetime, policy: Retraining) -> Retrain | Wait:
    """Whether to run, for which reason; or why not, and what is waited for."""
    reasons = _reasons(state, now, policy)
    if not reasons:
        return Wait(_waited_for(state, policy))
    reason = "; ".join(reasons)
    if state.running:
        return Wait(f"{reason}; but run {state.running} is under way, and there is one at a time")
    soonest = state.last + timedelta(seconds=duration(policy.minimum_interval)) if state.last else now
    if soonest > now:
        waited = f"the last run began {_minute(state.last)}, and minimum_interval is {policy.minimum_interval}"
        return Wait(f"{reason}; but {waited}: not before {_minute(soonest)}")
    last = state.last.isoformat() if state.last else None
    return Retrain(reason, digest([reason, last, dict(state.marks)])[:24])


def _reasons(state: State, now: datetime, policy: Retraining) -> list[str]:
    reasons = []
    if policy.documents and state.documents >= policy.documents:
        reasons.append(f"new documents: {state.documents} files in the inbox")
    if policy.feedback and state.feedback >= policy.feedback:
        reasons.append(f"feedback: {state.feedback} newly labelled texts")
    if policy.drift and state.drifted and (state.feedback or state.documents):
        reasons.append(f"drift: {state.drifted}, with {state.feedback} newly labelled texts and {state.documents} files to learn from")
    if policy.every and _due(state, policy) <= now:
        reasons.append(f"schedule: the last run began {_minute(state.last)}" if state.last else f"schedule: every {policy.every}, and it never ran")
    return reasons


def _waited_for(state: State, policy: Retraining) -> str:
    waits = []
    if policy.documents:
        waits.append(f"{policy.documents} new or changed files in the inbox (there are {state.documents})")
    if policy.feedback:
        waits.append(f"{policy.feedback} newly labelled texts (there are {state.feedback})")
    if policy.drift:
        waits.append(f"something to learn from, since {state.drifted}" if state.drifted else "drift, which is not seen")
    if policy.every:
        waits.append(f"{_minute(_due(state, policy))}, as every is {policy.every}")
    return f"waits for {', or '.join(waits)}" if waits else "waits for nothing: every trigger of retraining is off in the YAML"


def _due(state: State, policy: Retraining) -> datetime:
    """When `every` is over; the beginning of time where the chain never ran."""
    assert policy.every
    return state.last + timedelta(seconds=duration(policy.every)) if state.last else datetime.min.replace(tzinfo=UTC)


def _minute(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC") if moment else "never"
