from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llm_assets.links.endpoint import LINK, EndpointConfig, endpoint
from llm_assets.links.link import Office
from llm_assets.serving.events import read_events
from llm_assets.serving.releases import champion, release_journal, roll_back
from llm_assets.serving.rollback import roll_back_by_hand
from llm_assets.serving.rollout import Rollout
from llm_assets.serving.state import (
    desired_path,
    gateway_lock,
    gateway_state_path,
    read_desired,
    rollout_lock,
    rollout_of,
    write_rollout,
)
from llm_assets.store.files import write_json
from llm_assets.store.journal import Journal
from llm_assets.store.verdict import Verdict
from llm_assets_tests.serving.conftest import gateway
from llm_assets_tests.serving.tiny import record, write_artifact


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office("tiny", tmp_path, Journal(tmp_path / "journal" / "tiny" / "endpoint.jsonl"), tmp_path)


def judge(outcome: Mapping[str, Any]) -> Verdict:
    return LINK.checks[0].judge(outcome, {})


def test_without_a_gateway_it_says_how_to_start_one(office: Office, tmp_path: Path) -> None:
    acted = endpoint(office, EndpointConfig(), release=record(tmp_path, write_artifact(tmp_path, "aaa"), 1))
    assert acted.data_version == "tiny-1"
    assert acted.record["state"] == "absent" and "llm-assets serve" in acted.record["detail"]
    assert judge(acted.record).passed
    desired = json.loads((tmp_path / "serving" / "desired" / "tiny.json").read_text())
    assert {"chain": "tiny", "release": "tiny-1", "fingerprint": "aaa", "directory": "artifacts/quantized_model/aaa"}.items() <= desired.items()


def test_a_running_gateway_serves_it_or_refuses_it(office: Office, tmp_path: Path) -> None:
    with gateway(tmp_path) as (client, _):
        live = endpoint(office, EndpointConfig(), release=record(tmp_path, write_artifact(tmp_path, "aaa"), 1))
        assert live.record["state"] == "live" and live.record["url"] == str(client.base_url).rstrip("/")
        assert judge(live.record).passed
        assert client.post("/v1/classify", json={"model": "tiny", "input": "good"}).json()["release"] == "tiny-1"
        again = endpoint(office, EndpointConfig(), release=record(tmp_path, write_artifact(tmp_path, "aaa"), 1))
        assert again == live
        broken = write_artifact(tmp_path, "bbb")
        (broken.directory / "tokenizer.json").unlink()
        refused = endpoint(office, EndpointConfig(), release=record(tmp_path, broken, 2))
        assert refused.record["state"] == "refused"
        assert "tokenizer.json is missing" in refused.record["detail"] and "tiny-1 goes on serving" in refused.record["detail"]
        assert not judge(refused.record).passed and judge(refused.record).blocking
        assert client.post("/v1/classify", json={"model": "tiny", "input": "good"}).json()["release"] == "tiny-1"


def test_a_gateway_that_does_not_react_is_reported_late(office: Office, tmp_path: Path) -> None:
    moments: list[float] = []
    watched = replace(office, progress=lambda done, total, unit, **values: moments.append(done))
    with gateway_lock(tmp_path):
        write_json(gateway_state_path(tmp_path), {"url": "http://127.0.0.1:1", "chains": {}})
        acted = endpoint(watched, EndpointConfig(wait_seconds=0.3), release=record(tmp_path, write_artifact(tmp_path, "aaa"), 1))
    assert acted.record["state"] == "late" and "0.3 s" in acted.record["detail"]
    assert moments and not judge(acted.record).passed


ASKED = "2026-01-01T12:00:00+00:00"


@pytest.mark.parametrize(
    ("chain", "state"),
    [
        ({"desired": "tiny-1", "desired_at": "2026-01-01T12:00:01+00:00", "live": "tiny-1", "error": None}, "live"),
        ({"desired": "tiny-1", "desired_at": "2026-01-01T11:59:59+00:00", "live": "tiny-1", "error": None}, "live"),
        ({"desired": "tiny-1", "desired_at": "2026-01-01T12:00:01+00:00", "live": None, "error": "broken"}, "refused"),
        ({"desired": "tiny-1", "desired_at": "2026-01-01T11:59:59+00:00", "live": None, "error": "broken, as it was then"}, "late"),
        ({"desired": "tiny-2", "desired_at": "2026-01-01T12:00:01+00:00", "live": None, "error": "another's"}, "late"),
        ({"desired": None, "desired_at": None, "live": None, "error": "a damaged desired state"}, "late"),
    ],
)
def test_two_runs_that_ask_for_one_release_both_hear_of_it(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chain: Mapping[str, Any], state: str
) -> None:
    monkeypatch.setattr("llm_assets.serving.state.now", lambda: ASKED)
    with gateway_lock(tmp_path):
        write_json(gateway_state_path(tmp_path), {"url": "http://127.0.0.1:1", "chains": {"tiny": chain}})
        acted = endpoint(office, EndpointConfig(wait_seconds=0.15), release=record(tmp_path, write_artifact(tmp_path, "aaa"), 1))
    assert acted.record["state"] == state


CANARY = {"rollout": "canary", "steps": [10, 100], "max_error_rate": 0.1}


def released(home: Path, number: int, **changes: Any) -> Mapping[str, Any]:
    """A release and its entry in the release journal."""
    made = {**record(home, write_artifact(home, f"model{number}"), number), **changes}
    release_journal(home, "tiny").append({"trial": False, "verdicts": [], "record": made})
    return made


def test_a_canary_is_asked_for_beside_what_serves_with_the_gates_prediction(office: Office, tmp_path: Path) -> None:
    config = EndpointConfig(**CANARY)
    first = endpoint(office, config, release=released(tmp_path, 1))
    assert first.record["stable"] is None  # nothing to be beside of
    gate = {"release": "tiny-1", "disagreement": 0.04}
    second = endpoint(office, config, release=released(tmp_path, 2, gate=gate))
    assert (second.record["release"], second.record["stable"]) == ("tiny-2", "tiny-1")
    desired = read_desired(desired_path(tmp_path, "tiny"))
    assert desired.stable and desired.plan and desired.stable.release == "tiny-1"
    assert (desired.plan.steps, desired.plan.max_error_rate, desired.plan.expected_disagreement) == ((10.0, 100.0), 0.1, 0.04)
    third = endpoint(office, config, release=released(tmp_path, 3, gate={"release": "tiny-2", "disagreement": 0.01}))
    assert third.record["stable"] == "tiny-1"  # tiny-2 has not shown itself
    plan = read_desired(desired_path(tmp_path, "tiny")).plan
    assert plan and plan.expected_disagreement is None  # which was measured against tiny-2


def test_a_rollout_under_way_goes_on_when_it_is_asked_for_again(office: Office, tmp_path: Path) -> None:
    config = EndpointConfig(**CANARY, step_seconds=1e6)
    for number in (1, 2):
        endpoint(office, config, release=released(tmp_path, number))
    with gateway(tmp_path) as (client, _):
        again = endpoint(office, config, release=release_of(tmp_path))
        assert again.record["state"] == "rolling_out" and "tiny-2 10%" in again.record["detail"] and judge(again.record).passed
        assert client.get("/readyz").json()["chains"]["tiny"]["split"] == {"tiny-1": 90.0, "tiny-2": 10.0}
        full = endpoint(office, EndpointConfig(), release=release_of(tmp_path))
        assert full.record["state"] == "live"
    assert [event["share"] for event in read_events(tmp_path, "tiny")] == [10.0]  # it began once


def test_what_is_asked_for_again_after_its_rollout_ended_begins_anew(office: Office, tmp_path: Path) -> None:
    """A rollout's state must not let the same two releases skip their steps the next time."""
    config = EndpointConfig(**CANARY)
    for number in (1, 2):
        endpoint(office, config, release=released(tmp_path, number))
    desired = read_desired(desired_path(tmp_path, "tiny"))
    for stage, goes_on in (("canary", True), ("full", False), ("rolled_back", False)):
        with rollout_lock(tmp_path, "tiny"):
            write_rollout(tmp_path, "tiny", Rollout("tiny-2", "tiny-1", desired.began, stage, step=1, share=100.0))
        if stage == "full":
            roll_back_by_hand(tmp_path, "tiny", "tiny-1", "Ann", "")
            roll_back(tmp_path, "tiny", "tiny-2", by="Ann", note="")  # and forward, as an approval would
        endpoint(office, config, release=release_of(tmp_path))
        desired, before = read_desired(desired_path(tmp_path, "tiny")), desired
        assert desired.stable and (desired.release, desired.stable.release) == ("tiny-2", "tiny-1")
        assert (desired.began == before.began) == goes_on and (rollout_of(tmp_path, desired) is not None) == goes_on


def release_of(home: Path) -> Mapping[str, Any]:
    newest = champion(release_journal(home, "tiny"))
    assert newest
    return newest


def test_after_a_rollback_the_journal_says_what_is_asked_for(office: Office, tmp_path: Path) -> None:
    one, two = released(tmp_path, 1), released(tmp_path, 2)
    roll_back(tmp_path, "tiny", "tiny-1", by="Ann", note="")
    assert endpoint(office, EndpointConfig(), release=two).record["release"] == one["release"]  # Dagster's newest materialization is older


def test_a_candidate_waits_and_the_champion_serves(office: Office, tmp_path: Path) -> None:
    waiting = released(tmp_path, 1, state="candidate")
    acted = endpoint(office, EndpointConfig(), release=waiting)
    assert acted.record["state"] == "waiting" and "llm-assets approve tiny --by NAME" in acted.record["detail"] and judge(acted.record).passed
    assert not desired_path(tmp_path, "tiny").exists()
    released(tmp_path, 2)
    assert endpoint(office, EndpointConfig(), release=waiting).record["release"] == "tiny-2"


@pytest.mark.parametrize("steps", [[], [5, 25], [0, 100], [50, 25, 100], [100, 100], [5, 120]])
def test_steps_rise_to_all(steps: list[float]) -> None:
    with pytest.raises(ValidationError, match="steps rise from above 0 to 100"):
        EndpointConfig(steps=steps)
