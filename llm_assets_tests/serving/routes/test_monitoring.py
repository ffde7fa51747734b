"""What machines that watch the gateway are told: probes and metrics."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi.testclient import TestClient

from llm_assets.serving.app import create_app
from llm_assets_tests.serving.conftest import ask, eventually
from llm_assets_tests.serving.tiny import deploy


def test_a_chain_without_a_release_that_loads_is_not_ready(tmp_path: Path) -> None:
    (deploy(tmp_path, 1).directory / "model.onnx").unlink()
    with TestClient(create_app(tmp_path)) as client:
        eventually(lambda: client.get("/readyz").json()["chains"])
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        response = client.post("/v1/classify", json={"model": "tiny", "input": "good"})
        assert response.status_code == 503 and "model.onnx is missing" in response.json()["error"]["message"]


def test_the_metrics_count_what_happened(client: TestClient) -> None:
    def value(series: str) -> float:
        found = re.search(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    good, lost = (
        'llm_assets_requests_total{chain="tiny",release="tiny-1",status="200"}',
        'llm_assets_requests_total{chain="",release="",status="404"}',
    )
    before = value(good), value(lost), value('llm_assets_tokens_total{chain="tiny"}')
    ask(client)
    client.post("/v1/classify", json={"model": "nobody's", "input": "good"})
    after = value(good), value(lost), value('llm_assets_tokens_total{chain="tiny"}')
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 3]
    eventually(lambda: value("llm_assets_log_group_requests_sum") == value(good))
    assert value('llm_assets_request_seconds_count{chain="tiny"}') >= 1 and "nobody" not in client.get("/metrics").text
