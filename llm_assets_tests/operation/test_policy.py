from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import ValidationError

from llm_assets.operation.policy import Retrain, Retraining, State, Wait, decide
from llm_assets_tests.operation.traffic import NOON

QUIET = State(running=None, last=NOON - timedelta(days=3), documents=0, feedback=0, drifted=None, marks={})
POLICY = Retraining(every="7d", documents=2, feedback=20, drift=True, minimum_interval="1d")


def reason(policy: Retraining = POLICY, **changes: object) -> str:
    decision = decide(replace(QUIET, **changes), NOON, policy)  # type: ignore[arg-type]
    assert isinstance(decision, Retrain), decision
    return decision.reason


def why(policy: Retraining = POLICY, **changes: object) -> str:
    decision = decide(replace(QUIET, **changes), NOON, policy)  # type: ignore[arg-type]
    assert isinstance(decision, Wait), decision
    return decision.why


def test_each_trigger_at_its_threshold_and_not_below() -> None:
    assert reason(documents=2) == "new documents: 2 files in the inbox"
    assert reason(feedback=20) == "feedback: 20 newly labelled texts"
    assert reason(drifted="length differs", feedback=1).startswith("drift: length differs, with 1 newly labelled texts and 0 files")
    assert reason(last=NOON - timedelta(days=7)) == "schedule: the last run began 2026-11-13 12:00 UTC"
    assert reason(last=None) == "schedule: every 7d, and it never ran"
    assert reason(documents=2, feedback=20) == "new documents: 2 files in the inbox; feedback: 20 newly labelled texts"
    below = why(documents=1, feedback=19, last=NOON - timedelta(days=6, hours=23))
    assert below == (
        "waits for 2 new or changed files in the inbox (there are 1), or 20 newly labelled texts (there are 19), or drift, which is not seen, "
        "or 2026-11-20 13:00 UTC, as every is 7d"
    )


def test_drift_with_nothing_new_to_learn_from_waits_for_that() -> None:
    assert "something to learn from, since length differs" in why(drifted="length differs")


def test_what_is_off_starts_nothing() -> None:
    off = Retraining(documents=0)
    said = why(off, documents=9, feedback=99, drifted="length differs", last=None)
    assert said == "waits for nothing: every trigger of retraining is off in the YAML"


def test_one_run_at_a_time_and_an_interval_between() -> None:
    assert why(documents=2, running="abc") == "new documents: 2 files in the inbox; but run abc is under way, and there is one at a time"
    assert why(documents=2, last=NOON - timedelta(hours=23)).endswith("minimum_interval is 1d: not before 2026-11-20 13:00 UTC")
    assert reason(documents=2, last=NOON - timedelta(hours=24))
    assert reason(Retraining(), documents=1, last=None)


def test_the_run_key_changes_with_what_is_new_and_with_the_last_run() -> None:
    def key(**changes: object) -> str:
        decision = decide(replace(QUIET, documents=2, **changes), NOON, POLICY)  # type: ignore[arg-type]
        assert isinstance(decision, Retrain)
        return decision.run_key

    assert key() == key() != key(marks={"files": {"a": "1"}}) and key() != key(last=NOON - timedelta(days=2))


@pytest.mark.parametrize("values", [{"every": "weekly"}, {"minimum_interval": "0h"}, {"minimum_interval": ""}])
def test_durations_are_checked_at_load(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="no duration"):
        Retraining.model_validate(values)
