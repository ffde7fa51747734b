"""The gateway's life: releases that change under load, and engines that end with them."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from llm_assets.serving.app import create_app
from llm_assets.serving.engine import OnnxClassifier
from llm_assets_tests.serving.conftest import eventually, gateway
from llm_assets_tests.serving.tiny import deploy


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
