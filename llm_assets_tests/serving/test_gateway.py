"""The gateway's life and its other routes: releases that change under load, one that is killed, what is served and counted."""

from __future__ import annotations

import gc
import re
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from llm_assets.serving import page
from llm_assets.serving.engine import OnnxClassifier
from llm_assets.serving.gateway import create_app
from llm_assets.serving.state import gateway_state
from llm_assets_tests.serving.conftest import ask, eventually, gateway
from llm_assets_tests.serving.tiny import LABELS, deploy

SITE = Path(page.__file__).with_name("site")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/v1/classify", 405)])
def test_other_paths_answer_in_the_same_shape(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status and response.json()["error"]["code"] == status


def test_a_chain_without_a_release_that_loads_is_not_ready(tmp_path: Path) -> None:
    (deploy(tmp_path, 1).directory / "model.onnx").unlink()
    with TestClient(create_app(tmp_path)) as client:
        eventually(lambda: client.get("/readyz").json()["chains"])
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        response = client.post("/v1/classify", json={"model": "tiny", "input": "good"})
        assert response.status_code == 503 and "model.onnx is missing" in response.json()["error"]["message"]


def test_the_models_that_are_served(client: TestClient) -> None:
    models = client.get("/v1/models").json()["data"]
    assert [(model["id"], model["release"], model["labels"]) for model in models] == [("tiny", "tiny-1", LABELS)]


def test_the_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    """The files are those that the package holds, and name no other place."""
    found = {path: client.get(path) for path in page.FILES}
    assert {path.name for path in SITE.iterdir()} == set(page.FILES.values())
    assert all(response.status_code == 200 and "//" not in response.text.replace("// ", "") for response in found.values())
    assert "分类" in found["/ask.js"].text and "script-src 'self'" in found["/label"].headers["content-security-policy"]


def test_the_metrics_count_what_happened(client: TestClient) -> None:
    def value(series: str) -> float:
        found = re.search(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    good, lost = (
        'llm_assets_requests_total{chain="tiny",release="tiny-1",status="200"}',
        'llm_assets_requests_total{chain="",release="",status="404"}',
    )
    before = value(good), value(lost), value('llm_assets_tokens_total{chain="tiny"}'), value("llm_assets_log_group_requests_count")
    ask(client)
    client.post("/v1/classify", json={"model": "nobody's", "input": "good"})
    after = value(good), value(lost), value('llm_assets_tokens_total{chain="tiny"}'), value("llm_assets_log_group_requests_count")
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 3, 1]
    assert value('llm_assets_request_seconds_count{chain="tiny"}') >= 1 and "nobody" not in client.get("/metrics").text


def test_releases_swap_under_load_without_a_failed_request(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    seen: list[tuple[str, str]] = []
    failures: list[object] = []
    done = threading.Event()

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, trust_env=False) as client:
            while not done.is_set():
                response = client.post("/v1/classify", json={"model": "tiny", "input": ["good", "good good"]})
                if response.status_code == 200:
                    seen.append((response.json()["release"], response.json()["data"][0]["label"]))
                else:
                    failures.append(response.text)

    with gateway(tmp_path) as (client, _):
        threads = [threading.Thread(target=ask, args=(str(client.base_url),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(seen) > 20)
            deploy(tmp_path, 2, sign=-1)
            eventually(lambda: seen[-1][0] == "tiny-2")
            (deploy(tmp_path, 3).directory / "model.onnx").unlink()
            error = eventually(lambda: client.get("/readyz").json()["chains"]["tiny"]["error"])
            assert "tiny-3" in str(error) and client.get("/readyz").status_code == 200
            count = len(seen)
            eventually(lambda: len(seen) > count + 20)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert not failures
    assert set(seen) == {("tiny-1", "positive"), ("tiny-2", "negative")}
    assert seen[-1][0] == "tiny-2"


def test_the_engine_of_a_replaced_release_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[OnnxClassifier]] = []
    load = OnnxClassifier.__init__

    def watched(engine: OnnxClassifier, *arguments: Any) -> None:
        loaded.append(weakref.ref(engine))
        load(engine, *arguments)

    def living() -> int:
        gc.collect()
        return sum(engine() is not None for engine in loaded)

    monkeypatch.setattr(OnnxClassifier, "__init__", watched)
    with TestClient(create_app(tmp_path)) as client:
        for number in (1, 2, 3):
            deploy(tmp_path, number)
            eventually(lambda number=number: [model["release"] for model in client.get("/v1/models").json()["data"]] == [f"tiny-{number}"])
            assert client.post("/v1/classify", json={"model": "tiny", "input": "good"}).status_code == 200
        assert len(loaded) == 3
        eventually(lambda: living() == 1)


def test_a_killed_gateway_resumes_and_one_data_root_has_one(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, process):
        eventually(lambda: (gateway_state(tmp_path) or {})["chains"])
        state = gateway_state(tmp_path)
        assert state and state["pid"] == process.pid and state["chains"]["tiny"]["live"] == "tiny-1"
        second = subprocess.run([sys.executable, "-m", "llm_assets.serving", "--port", "0", "--home", str(tmp_path)], capture_output=True, text=True)
        assert second.returncode == 1 and str(process.pid) in second.stderr and "already" in second.stderr
        third = subprocess.run(
            [sys.executable, "-m", "llm_assets.serving", "--port", str(state["port"]), "--home", str(tmp_path / "b")], capture_output=True, text=True
        )
        assert third.returncode == 1 and str(state["port"]) in third.stderr and f"process {process.pid}" in third.stderr
    assert gateway_state(tmp_path) is None
    with gateway(tmp_path) as (client, process):
        assert client.post("/v1/classify", json={"model": "tiny", "input": "good"}).json()["release"] == "tiny-1"
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert not (tmp_path / "serving" / "gateway.json").exists()
