from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_assets.links.endpoint import LINK, EndpointConfig, endpoint
from llm_assets.links.link import Office
from llm_assets.serving.state import gateway_lock, gateway_state_path
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
