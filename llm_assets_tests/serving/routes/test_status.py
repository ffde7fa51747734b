"""`/v1/status`: what serves, what was asked, and what is wrong, as the files and the counters have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from llm_assets.serving.events import alerts_path, append_event
from llm_assets.serving.rollout import Plan
from llm_assets.store.files import write_json
from llm_assets.store.journal import Journal
from llm_assets_tests.serving.conftest import ask, eventually, local_client
from llm_assets_tests.serving.tiny import deploy, roll_out


def status(client: TestClient) -> dict[str, Any]:
    [found] = client.get("/v1/status").json()["chains"]
    return dict(found)


def test_a_quiet_chain(tmp_path: Path) -> None:
    with local_client(tmp_path) as client:
        assert client.get("/v1/status").json() == {"chains": []}
        deploy(tmp_path, 1)
        eventually(lambda: client.get("/readyz").json()["chains"].get("tiny", {}).get("live"))
        found = status(client)
    assert (found["chain"], found["state"], found["live"], found["split"]) == ("tiny", "full", "tiny-1", {"tiny-1": 100.0})
    assert found["rollout"] is None and found["drift"] is None and found["alerts"] == found["events"] == []
    assert found["traffic"]["requests"] == 0 and found["traffic"]["p99_ms"] is None and found["traffic"]["labels"] == {}


def test_traffic_rollout_drift_alerts_and_events(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        for _ in range(3):
            ask(client, "good")
        ask(client, ["bad", "good"])
        roll_out(tmp_path, 2, Plan(steps=(25.0, 100.0), step_seconds=600))
        eventually(lambda: status(client)["state"] == "canary")
        record = {"release": "tiny-1", "judged": True, "drifted": ["length"], "reason": "length differ from the training distribution"}
        Journal(tmp_path / "journal" / "tiny" / "drift.jsonl").append({"trial": False, "record": record})
        rule = {"since": "2026-11-20T12:00:00+00:00", "role": "operations_engineer", "team": "night-watch"}
        write_json(alerts_path(tmp_path, "tiny"), {"firing": {"drift": rule}, "waiting": []})
        append_event(tmp_path, "tiny", "alert", "tiny alert: drift", "tiny-1", rule="drift")
        found: Any = eventually(lambda: (now := status(client))["traffic"]["requests"] == 4 and now)
    traffic = found["traffic"]
    assert sum(minute["requests"] for minute in traffic["minutes"]) == traffic["requests"] == 4
    assert traffic["labels"] == {"positive": 0.8, "negative": 0.2} and traffic["releases"] == {"tiny-1": 1.0}
    assert 0 < traffic["p50_ms"] <= traffic["p99_ms"]
    assert found["split"] == {"tiny-1": 75.0, "tiny-2": 25.0}
    assert found["rollout"] == {"release": "tiny-2", "stable": "tiny-1", "stage": "canary", "share": 25.0, "steps": [25.0, 100.0], "reason": ""}
    assert found["drift"]["drifted"] == ["length"] and found["alerts"] == [{"rule": "drift", "since": rule["since"], "team": "night-watch"}]
    assert [event["kind"] for event in found["events"]] == ["alert", "rollout"]  # the newest first


def test_failures_are_counted_and_a_release_that_does_not_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(tmp_path, 1)
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        log = tmp_path / "serving" / "log"
        log.mkdir(parents=True, exist_ok=True)
        (log / "tiny").write_text("a file where the folder should be")
        eventually(lambda: ask(client).status_code == 503)
        (deploy(tmp_path, 2).directory / "model.onnx").unlink()
        error = eventually(lambda: status(client)["error"])
        assert "tiny-2" in str(error) and sum(minute["failed"] for minute in status(client)["traffic"]["minutes"]) >= 1
